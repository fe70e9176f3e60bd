// Building a workflow: the drafts that there are, and one draft as a graph with the step that is looked at beside it.

import { api, get, me, post } from "../api.js";
import { confirm, toast } from "../act.js";
import { h, path } from "../dom.js";
import { Draft, connect, freeName, linksOf } from "../draft.js";
import { ago, counted } from "../format.js";
import { drawGraph } from "../graph.js";
import { Inspector } from "../inspector.js";
import { allTypes, chooseType } from "../palette.js";
import { foreseeAndAct } from "../plan.js";

export const buildPage = (place) => (place.item === null ? listPage(place) : draftPage(place));

const LARGEST_FILE = 1 << 20;

function listPage({ go, refresh }) {
  let trouble = "";

  async function draw(signal) {
    if (!["operate", "administrate"].includes(me.role)) return [h("h1", null, "Build a workflow"), h("p", { className: "card" }, "You may not build workflows here.")];
    const [drafts, templates] = await Promise.all([get("/api/v1/drafts", signal), get("/api/v1/templates", signal)]);
    return [
      h("h1", null, "Build a workflow"),
      trouble && h("p", { className: "notice alert", role: "alert" }, trouble),
      h("div", { className: "grid" },
        h("section", { className: "card" }, h("h2", null, "Begin"), h("p", { className: "soft small" }, "With nothing, or with a template that you change under another name."),
          h("p", { className: "buttons" }, h("button", { type: "button", className: "primary", onclick: () => begin({}) }, "Empty workflow")),
          h("div", { className: "field" }, h("label", { for: "from-template" }, "Template"), h("span", { className: "with-button" },
            h("select", { id: "from-template" }, templates.filter((one) => one.problem === null).map((one) => h("option", { value: one.name }, `${one.name}: ${one.summary}`.slice(0, 110)))),
            h("button", { type: "button", onclick: () => begin({ template: document.getElementById("from-template").value }) }, "Begin with it")))),
        h("section", { className: "card" }, h("h2", null, "Import"), h("p", { className: "soft small" }, "A template or workflow of icestream (YAML), or a workflow or template that Scipion exported (JSON). What cannot be translated is told, and kept."),
          h("div", { className: "field" }, h("label", { for: "file" }, "File"), h("input", { id: "file", type: "file", accept: ".yaml,.yml,.json,.template", onchange: (event) => bring(event.target) })))),
      h("h2", null, "Drafts ", h("small", null, String(drafts.length))),
      drafts.length === 0 ? h("p", { className: "card" }, "There are no drafts yet.") : h("div", { className: "card" }, h("table", { className: "lines" },
        h("thead", null, h("tr", null, ["Draft", "For", "Changed by", "When", ""].map((name) => h("th", { scope: "col" }, name || h("span", { className: "sr" }, "Delete"))))),
        h("tbody", null, drafts.map((one) => h("tr", { "data-key": String(one.id) },
          h("td", null, h("a", { href: path("build", String(one.id)), className: "strong" }, h("bdi", null, one.title))),
          h("td", { "data-name": "for" }, one.session === null ? "a template" : h("a", { href: path("s", one.session) }, h("bdi", null, one.session))),
          h("td", { "data-name": "by" }, one.changed_by), h("td", { "data-name": "when" }, ago(one.changed_at)),
          h("td", { className: "n" }, h("button", { type: "button", className: "quiet", "aria-label": `Delete ${one.title}`, onclick: () => remove(one) }, "Delete"))))))),
      h("p", { className: "soft small" }, h("a", { href: "/api/v1/drafts" }, "This page as JSON"), " · ", h("a", { href: "/api/v1/steps" }, "all steps as JSON")),
    ];
  }

  async function open(asking) {
    try { go(path("build", String((await asking).id))); } catch (error) { trouble = error.fields?.text ?? error.message; refresh(); }
  }
  const begin = (asked) => open(post("/api/v1/drafts", asked));

  async function bring(input) {
    const file = input.files[0];
    if (!file) return;
    if (file.size > LARGEST_FILE) { trouble = `${file.name}: is larger than 1 MiB; bring it with the command line`; refresh(); return; }
    await open(post("/api/v1/drafts/import", { file_name: file.name.replace(/[\u0000-\u001f\u007f/\\]/g, "_").slice(-200), text: await file.text() }));
  }

  async function remove(one) {
    if (await confirm({ title: `Delete ${one.title}?`, text: "Templates that were saved of it stay.", verb: "Delete", danger: true }) === null) return;
    try { await post(api("drafts", String(one.id), "delete"), { version: one.version }); } catch (error) { toast(error.message, "bad"); }
    refresh();
  }
  return { draw };
}

function draftPage({ item, go, refresh }) {
  let draft = null, inspector = null, chosen = null, types = new Map(), focus = false;
  const undoKeys = (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || event.target.matches?.("input, textarea, select")) return;
    event.preventDefault();
    event.shiftKey ? draft?.redo() : draft?.undo();
  };
  document.addEventListener("keydown", undoKeys);
  const flush = () => { if (draft?.dirty) draft.save(); };
  document.addEventListener("visibilitychange", flush);

  async function draw(signal) {
    if (draft === null) {
      draft = new Draft(await get(api("drafts", item), signal), refresh);
      inspector = new Inspector(draft, choose);
      allTypes().catch(() => {}); // so that they are there when a step is added
    }
    if (!(chosen in draft.steps)) chosen = null;
    const type = chosen === null ? null : await typeOf(chosen, signal);
    const { page } = draft, problems = page.check.problems;
    return [
      h("p", { className: "trail" }, h("a", { href: "/build" }, "Drafts"), page.session !== null && h("a", { href: path("s", page.session) }, h("bdi", null, page.session))),
      h("h1", null, h("bdi", null, draft.title), " ", h("small", null, page.session === null ? "to be a template" : "changes of a session")),
      draft.conflict && h("div", { className: "notice alert", role: "alert" }, h("p", null, draft.conflict, "."), h("p", { className: "buttons" },
        h("button", { type: "button", onclick: () => draft.takeTheirs().catch((error) => toast(error.message, "bad")) }, "Take theirs"), h("button", { type: "button", onclick: keepMine }, "Keep mine as another draft"))),
      draft.trouble && h("p", { className: "notice alert", role: "alert" }, draft.trouble),
      tools(),
      h("div", { className: "builder" },
        h("div", null, graph(), asked()),
        h("div", { className: "side" },
          h("section", { className: "card", "aria-label": "Problems" }, h("h2", null, problems.length ? `${problems.length} to be done` : "It can run"),
            h("ul", { className: "problems small" }, problems.map((one) => h("li", null, one.step in draft.steps ? h("button", { type: "button", onclick: () => choose(one.step) }, h("b", null, one.step), ": ", one.text) : one.text)))),
          inspector.draw(chosen, type))),
      page.told.length > 0 && h("details", { className: "card" }, h("summary", null, `What became of the import: ${page.told.length}`), h("ul", { className: "small" }, page.told.map((text) => h("li", null, text)))),
      h("p", { className: "soft small" }, h("a", { href: api("drafts", item) }, "This page as JSON")),
    ];
  }

  function tools() {
    const { page } = draft;
    return [
      h("div", { className: "heading" },
        h("label", { className: "small" }, "Title", h("input", { id: "title", maxlength: 120, value: draft.title, autocomplete: "off", oninput: (event) => draft.rename(event.target.value, draft.summary) })),
        page.session === null && h("label", { className: "small" }, "Summary, for people who choose among templates", h("input", { id: "summary", maxlength: 300, value: draft.summary, autocomplete: "off", oninput: (event) => draft.rename(draft.title, event.target.value) }))),
      h("div", { className: "tools" },
        h("button", { type: "button", className: "primary", onclick: add }, "Add a step …"),
        h("button", { type: "button", disabled: !draft.done.length, onclick: () => draft.undo() }, "Undo"),
        h("button", { type: "button", disabled: !draft.undone.length, onclick: () => draft.redo() }, "Redo"),
        page.session === null
          ? page.may_save && h("button", { type: "button", onclick: saveTemplate }, "Save as a template …")
          : h("button", { type: "button", onclick: apply }, "Apply to the session …"),
        h("a", { href: `${api("drafts", item, "workflow.yaml")}?download=true`, download: "", className: "small" }, "Download YAML"),
        h("button", { type: "button", className: "quiet", onclick: toScipion }, "Export for Scipion …"),
        h("span", { className: "right soft small", role: "status" }, draft.state)),
    ];
  }

  function graph() {
    const wrong = new Set(draft.page.check.problems.map((one) => one.step)), names = Object.keys(draft.steps);
    if (!names.length) return h("div", { className: "card" }, h("p", null, "The workflow is empty. Add a step that imports movies or micrographs first."));
    const nodes = names.map((name) => {
      const spec = draft.steps[name], reads = [...new Set(linksOf(spec).map((one) => one.step))];
      return { id: name, state: [wrong.has(name) && "wrong", name === chosen && "chosen"].filter(Boolean).join(" "), content:
        h("button", { type: "button", className: "pick", "aria-pressed": name === chosen ? "true" : "false", onclick: () => choose(name) },
          h("span", { className: "strong name" }, spec.label ?? name),
          h("span", { className: "small soft why" }, [name !== spec.use && spec.label ? name : null, spec.use.split(":").at(-1)].filter(Boolean).join(" · ")),
          h("span", { className: "small why" }, wrong.has(name) ? h("span", { className: "bad" }, "to be done") : spec.note ? `✎ ${spec.note}` : spec.only_with ? `only with ${spec.only_with}` : ""),
          h("span", { className: "sr" }, reads.length ? `reads ${reads.join(", ")}` : "reads no other step")) };
    });
    const edges = Object.entries(draft.steps).flatMap(([to, spec]) => [
      ...linksOf(spec).map((one) => ({ from: one.step, to, aside: one.link.includes(".rejected"), lit: to === chosen || one.step === chosen })),
      ...Object.values(spec.params ?? {}).filter((value) => value?.from).map((value) => ({ from: value.from.split(".")[0], to, aside: true, lit: to === chosen }))]);
    return drawGraph({ label: "Graph of the draft", nodes, edges, height: 68, across: false });
  }

  // What a template asks for, with words and defaults that can be changed.
  function asked() {
    const known = Object.entries(draft.document.placeholders ?? {});
    if (!known.length || draft.page.session !== null) return null;
    const put = (name, key, text) => draft.change((document) => { const one = document.placeholders[name]; if (text === "") delete one[key]; else one[key] = text; }, { field: `placeholder ${name} ${key}` });
    return h("details", { className: "card" }, h("summary", null, `Asked for when a session is made: ${known.length}`), h("table", { className: "lines small" },
      h("thead", null, h("tr", null, ["Value", "Label", "Default"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, known.map(([name, one]) => h("tr", { "data-key": name }, h("td", null, name, h("div", { className: "soft" }, [one.type ?? "str", one.unit, one.optional && "optional"].filter(Boolean).join(", "))),
        h("td", { "data-name": "label" }, h("input", { "aria-label": `Label of ${name}`, value: one.label, maxlength: 200, oninput: (event) => event.target.value && put(name, "label", event.target.value) })),
        h("td", { "data-name": "default" }, h("input", { "aria-label": `Default of ${name}`, value: one.default ?? "", oninput: (event) => put(name, "default", event.target.value) })))))));
  }

  async function typeOf(name, signal) {
    const { use } = draft.steps[name];
    if (!types.has(use)) {
      try {
        types.set(use, await get(use.includes(":") ? api("drafts", item, "steps", name) : api("steps", use), signal));
      } catch (error) {
        if (error.name === "AbortError") throw error;
        return null;
      }
    }
    return types.get(use);
  }

  function choose(name) {
    chosen = name;
    inspector.typed.clear();
    focus = name !== null;
    refresh();
  }

  // A new step reads what was chosen, if it can; an input that only one stream fits is connected with it.
  async function add() {
    const type = await chooseType();
    if (type === null) return;
    const before = chosen, name = freeName(draft.steps, type.kind === "source" ? type.use.replace(/^import_/, "") : type.use);
    draft.change((document) => { document.steps[name] = { use: type.use }; });
    choose(name);
    await draft.save();
    const checked = draft.page.check.steps.find((one) => one.name === name);
    if (!checked) return;
    draft.change((document) => {
      const spec = document.steps[name];
      for (const port of checked.inputs) {
        const near = port.offers.filter((one) => one.split(".")[0] === before), kept = port.offers.filter((one) => !one.includes("rejected"));
        const link = near.includes(before) ? before : kept.length === 1 ? kept[0] : null;
        if (link !== null && (!port.optional || kept.length === 1)) connect(spec, port.name, [link], port.many);
      }
    }, { field: `connect ${name}` });
  }

  async function keepMine() {
    try { const made = await draft.copyMine(); toast("kept as another draft", "good"); go(path("build", String(made.id))); } catch (error) { toast(error.message, "bad"); }
  }

  async function settled() {
    await draft.save();
    if (draft.conflict || draft.trouble) { toast(draft.conflict ?? draft.trouble, "bad"); return false; }
    return true;
  }

  async function saveTemplate() {
    if (!await settled()) return;
    const name = h("input", { id: "template-name", maxlength: 80, value: draft.title.toLowerCase().replace(/\(copy\)/g, "").trim().replace(/[^a-z0-9_-]+/g, "_").replace(/^[^a-z0-9]+|_+$/g, ""), autocomplete: "off" });
    const replace = h("input", { type: "checkbox", id: "template-replace" }), wrong = h("p", { className: "bad small", role: "alert" });
    for (;;) {
      const answer = await confirm({ title: "Save as a template?", text: "Sessions are made of it by everybody who may make some.", verb: "Save", more: [
        h("label", { for: "template-name", className: "field" }, "Name: a-z, 0-9, _ and -", name), h("label", { className: "small" }, replace, " replace a template of this name that was saved here before"), wrong] });
      if (answer === null) return;
      try {
        const saved = await post(api("drafts", item, "template"), { version: draft.page.version, name: name.value, replace: replace.checked });
        toast(`${saved.name} was saved`, "good");
        if (me.creates) go(`/new?template=${encodeURIComponent(saved.name)}`);
        return;
      } catch (error) {
        wrong.textContent = error.fields?.name ?? error.message;
      }
    }
  }

  async function apply() {
    if (!await settled()) return;
    let found;
    try { found = await get(api("drafts", item, "changes")); } catch (error) { toast(error.message, "bad"); return; }
    const names = Object.keys(found.steps);
    if (found.problems.length) { toast(`${counted(found.problems.length, "problem")} to be solved first`, "bad"); return; }
    if (found.conflicts.length) { toast(`${found.conflicts.join(", ")}: changed in the session as well; begin again with the workflow as it is now`, "bad"); return; }
    if (!names.length) { toast("nothing has been changed", "odd"); return; }
    const removed = names.filter((name) => found.steps[name] === null);
    const text = `${names.length === 1 ? "One step is" : `${names.length} steps are`} added, changed or removed: ${names.join(", ")}.${removed.length ? " Results of removed steps are kept until they are cleaned up." : ""}`;
    const { done, wrong } = await foreseeAndAct(draft.page.session, { title: `Change ${draft.page.session}?`, text, verb: "Apply" }, "change_steps", { steps: found.steps, based_on: found.based_on });
    if (Object.keys(wrong).length) toast(Object.values(wrong).join("; "), "bad");
    if (!done) return;
    await post(api("drafts", item, "delete"), { version: draft.page.version }).catch((error) => toast(error.message, "bad"));
    go(path("s", draft.page.session));
  }

  async function toScipion() {
    if (!await settled()) return;
    try {
      const made = await get(api("drafts", item, "scipion.json"));
      const told = made.left_out.length ? [h("p", null, "Scipion cannot say everything:"), h("ul", { className: "small scroll" }, made.left_out.map((text) => h("li", null, text)))] : [h("p", null, "Everything in it can be said in Scipion's words.")];
      if (await confirm({ title: "Export for Scipion", text: "", verb: "Download", more: told, wide: true }) === null) return;
      const link = h("a", { href: `${api("drafts", item, "scipion.json")}?download=true`, download: made.file_name });
      document.body.append(link);
      link.click();
      link.remove();
    } catch (error) { toast(error.message, "bad"); }
  }

  function drawn(root) {
    const note = root.querySelector("#note");
    if (note && document.activeElement !== note) note.value = draft.steps[chosen]?.note ?? "";
    if (focus) { focus = false; root.querySelector("#chosen-step")?.focus({ preventScroll: false }); }
  }
  return { draw, drawn, leave() { document.removeEventListener("keydown", undoKeys); document.removeEventListener("visibilitychange", flush); flush(); } };
}
