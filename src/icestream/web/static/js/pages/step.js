// One step: its parameters as a form made from their schema; change, branch, restart or reset it, each foreseen and asked once.

import { api, get } from "../api.js";
import { mayAct } from "../act.js";
import { h, path } from "../dom.js";
import { field, focusWrong, isSimple, plain, readField, written } from "../form.js";
import { foreseeAndAct } from "../plan.js";

// With ?exposure=… the values are for this exposure alone.
export const stepPage = ({ session, item, setSummary, refresh, go }) => {
  const words = new URLSearchParams(location.search), unit = words.get("exposure"), named = words.get("name") ?? unit;
  const edits = new Map();
  let page = null, wrong = {}, branch = "", only = false, focus = false;

  async function draw(signal) {
    const [found, summary] = await Promise.all([get(api("sessions", session, "steps", item, "parameters"), signal), get(api("sessions", session), signal)]);
    page = found;
    setSummary(summary);
    const names = Object.keys(page.values.properties ?? {});
    const advanced = (name) => !isSimple(schemaOf(name));
    return [
      h("p", { className: "trail" }, h("a", { href: path("s", session) }, "Workflow")),
      h("h1", null, page.label, " ", h("small", null, [page.label !== page.step && page.step, `${page.use} version ${page.version}`].filter(Boolean).join(" · "))),
      h("p", { className: "soft" }, page.summary),
      unit && h("p", { className: "notice" }, "Values given here are for ", h("a", { href: path("s", session, "exposures", unit) }, h("bdi", null, named)), " alone. They override those of the step until they are withdrawn."),
      h("form", { className: "starting", novalidate: true, onsubmit: change },
        h("div", { className: "card" },
          names.length === 0 && h("p", null, "This step has no parameters."),
          names.filter((name) => !advanced(name)).map(draft),
          names.some(advanced) && h("details", null, h("summary", null, "Written as JSON"), names.filter(advanced).map(draft))),
        wrong[""] && h("p", { className: "notice alert", role: "alert" }, wrong[""]),
        mayAct() && names.length > 0 && h("p", { className: "buttons" },
          h("button", { type: "submit", className: "primary", disabled: edits.size === 0 }, unit ? "Recompute …" : "Change …"),
          h("button", { type: "button", disabled: edits.size === 0, onclick: () => { edits.clear(); wrong = {}; refresh(); } }, "Undo"),
          edits.size > 0 && h("span", { className: "soft" }, [...edits.keys()].join(", "), " differs from what is used"))),
      mayAct() && !unit && others(),
      h("p", { className: "soft small" }, h("a", { href: api("sessions", session, "steps", item, "parameters") }, "This page as JSON")),
    ];
  }

  const schemaOf = (name) => ({ ...plain(page.values.properties[name], page.values.$defs), named: false });
  const present = (name) => written(page.complete[name]);

  function draft(name) {
    const schema = schemaOf(name), from = page.taken[name];
    const text = from ? `taken from ${from}` : edits.has(name) ? edits.get(name) : present(name);
    return field({ name, schema: from ? { ...schema, type: "string", enum: undefined } : schema, text, trouble: wrong[name], disabled: Boolean(from) || !mayAct(), onInput: (value) => {
      value === present(name) ? edits.delete(name) : edits.set(name, value);
      refresh();
    } });
  }

  const params = () => Object.fromEntries([...edits].map(([name, text]) => [name, readField(schemaOf(name), text)]));

  async function carryOut(question, kind, given) {
    const { done, wrong: found } = await foreseeAndAct(session, question, kind, given);
    wrong = found;
    focus = Object.keys(found).length > 0;
    if (done) { edits.clear(); kind === "branch" ? go(path("s", session)) : kind === "recompute" ? go(path("s", session, "exposures", unit)) : refresh(); } else refresh();
  }

  function change(event) {
    event.preventDefault();
    if (edits.size && unit) carryOut({ title: `Recompute ${named}?`, text: `${page.label} computes it again with these values of its own, and so does every step downstream.`, verb: "Recompute" }, "recompute", { unit, step: item, params: params() });
    else if (edits.size) carryOut({ title: `Change ${page.label}?`, text: "Results made with the present values are kept for comparison.", verb: "Change" }, "set", { step: item, params: params() });
  }

  function others() {
    const below = page.below.length > 1 ? ` and ${page.below.length - 1} downstream of it` : "";
    return h("section", { className: "card starting" },
      h("h2", null, "More"),
      h("div", { className: "buttons" },
        h("button", { type: "button", onclick: () => carryOut({ title: `Restart from ${page.label}?`, text: `${page.label}${below} compute everything again, although nothing changed.`, verb: "Restart", danger: true }, "restart", { step: item }) }, "Restart from here …"),
        h("button", { type: "button", onclick: () => carryOut({ title: `Reset ${page.label}?`, text: `The results of ${page.label}${below} are dropped, and it takes nothing new until the session is continued.`, verb: "Reset", danger: true }, "reset", { step: item }) }, "Reset …")),
      h("form", { onsubmit: (event) => {
        event.preventDefault();
        carryOut({ title: `Branch ${page.label}?`, text: `A second variant, ${branch}, runs beside the first${edits.size ? ", with the values above" : ""}.`, verb: "Branch" }, "branch", { step: item, name: branch, params: params(), below: !only });
      } },
        h("div", { className: "field" }, h("label", { for: "branch" }, "Branch: a second variant beside the first, with the values above"),
          h("span", { className: "with-button" }, h("input", { id: "branch", name: "branch", maxlength: 80, value: branch, placeholder: `${item}_other`, autocomplete: "off", oninput: (event) => { branch = event.target.value; refresh(); } }),
            h("button", { type: "submit", disabled: branch === "" }, "Branch …")),
          h("label", { className: "small" }, h("input", { type: "checkbox", checked: only, onchange: (event) => { only = event.target.checked; } }), " only this step, not those downstream of it"))));
  }

  return { draw, drawn: (root) => { if (focus) { focus = false; focusWrong(root); } } };
};
