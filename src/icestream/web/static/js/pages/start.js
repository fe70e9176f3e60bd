// Starting a session: a template, a form made from what it asks for, and a question with what will be made.

import { api, get, me, post } from "../api.js";
import { confirm, toast } from "../act.js";
import { h, path } from "../dom.js";
import { field, focusWrong, plain, readField, written } from "../form.js";
import { counted } from "../format.js";
import { simulate } from "../simulate.js";

const USUAL = "movies_to_classes";

export const startPage = ({ go, refresh }) => {
  const given = new Map();
  let all = null, chosen = null, page = null, name = "", named = false, run = true, wrong = {}, busy = false, trouble = "", focus = false;

  async function draw(signal) {
    all ??= (await get("/api/v1/templates", signal)).sort((a, b) => Number(b.name === USUAL) - Number(a.name === USUAL));
    if (!me.creates) return [h("h1", null, "New session"), h("p", { className: "card" }, "You may not make sessions here.")];
    chosen ??= new URLSearchParams(location.search).get("template");
    if (!all.some((one) => one.name === chosen)) chosen = null;
    chosen ??= all.find((one) => one.problem === null)?.name ?? null;
    if (chosen !== null && page?.name !== chosen) page = await get(api("templates", chosen), signal);
    const line = all.find((one) => one.name === chosen);
    return [
      h("h1", null, "New session ", h("a", { href: "/build", className: "more" }, "Build a workflow")),
      me.operates && h("p", { className: "card hint" }, h("span", null, "No data at hand? Let a simulated microscope write movies here, and try everything on them."), " ",
        h("button", { type: "button", onclick: fromSimulation }, "Simulate a microscope …")),
      h("form", { className: "starting", novalidate: true, onsubmit: submit },
        h("div", { className: "card" },
          h("div", { className: "field" }, h("label", { for: "template" }, "Template"), templates(),
            h("span", { className: "soft small" }, page?.description ?? line?.summary ?? "")),
          page && h("details", null, h("summary", { className: "small" }, counted(page.steps.length, "step")), h("ol", { className: "small" }, page.steps.map((one) => h("li", null, h("b", null, one.name), " ", h("span", { className: "soft" }, one.summary))))),
          field({ name: "name", schema: { type: "string", title: "Name of the session", description: "Letters, digits, . _ and -; its folder is called so" }, text: name, trouble: wrong.name, onInput: (text) => { name = text; named = text !== ""; } })),
        page && groups().map(([group, fields]) => fieldset(group, fields)),
        h("div", { className: "card" }, h("label", null, h("input", { type: "checkbox", name: "run", checked: run, onchange: (event) => { run = event.target.checked; } }), " Start processing at once")),
        (trouble || wrong[""]) && h("p", { className: "notice alert", role: "alert" }, trouble || wrong[""]),
        h("p", { className: "buttons" }, h("button", { type: "submit", className: "primary", disabled: busy || !page }, "Make the session …"))),
    ];
  }

  // The form as it is filled in for what a simulated microscope writes.
  async function fromSimulation() {
    const made = await simulate();
    if (made === null) return;
    chosen = made.template; name = made.session; named = true; wrong = {}; trouble = "";
    for (const [key, value] of Object.entries(made.values)) given.set(key, written(value));
    toast("The simulated microscope is writing. The form is filled in for it: make the session.", "good");
    refresh();
  }

  function templates() {
    const element = h("select", { id: "template", name: "template", onchange: (event) => { chosen = event.target.value; wrong = {}; trouble = ""; refresh(); } },
      all.map((one) => h("option", { value: one.name, disabled: one.problem !== null }, `${one.name} (${one.origin})${one.problem ? ": cannot be used" : ""}`)));
    element.value = chosen;
    return element;
  }

  const schemas = () => Object.entries(page.values.properties).map(([key, one]) => [key, plain(one)]);

  function groups() {
    const found = new Map();
    for (const [key, schema] of schemas()) found.set(schema.group, [...(found.get(schema.group) ?? []), [key, schema]]);
    return [...found];
  }

  function fieldset(group, fields) {
    const plainly = fields.filter(([, one]) => !one.advanced), advanced = fields.filter(([, one]) => one.advanced);
    return h("fieldset", { className: "card", "data-key": `${chosen} ${group}` }, h("legend", null, group), plainly.map(draft),
      advanced.length > 0 && h("details", { open: advanced.some(([key]) => wrong[key]) }, h("summary", null, "Advanced"), advanced.map(draft)));
  }

  function draft([key, schema]) {
    return field({ name: key, schema, text: given.has(key) ? given.get(key) : written(schema.default), trouble: wrong[key], onInput: (text) => {
      given.set(key, text);
      if (schema.format === "folder") { suggest(text); refresh(); }
      if (schema.format === "path" || schema.format === "file") refresh();
    } });
  }

  // The folder's name, until somebody gives another one.
  function suggest(folder) {
    if (named) return;
    name = folder.replace(/\/+$/, "").split("/").at(-1).replace(/[^A-Za-z0-9_.-]+/g, "_").replace(/^[^A-Za-z0-9]+/, "").slice(0, 120);
  }

  function asked(dryRun) {
    const known = new Map(schemas());
    const values = Object.fromEntries([...given].filter(([key]) => known.has(key)).map(([key, text]) => [key, readField(known.get(key), text)]));
    return { name, template: chosen, values, run, dry_run: dryRun };
  }

  async function submit(event) {
    event.preventDefault();
    if (busy) return;
    busy = true; wrong = {}; trouble = "";
    refresh();
    try {
      const foreseen = await post("/api/v1/sessions", asked(true));
      const answer = await confirm({ title: `Make the session ${foreseen.id}?`, text: "", verb: run ? "Make and start" : "Make", more: [
        h("p", null, `${counted(foreseen.steps.length, "step")}: ${foreseen.steps.join(" → ")}`),
        h("dl", { className: "pairs small" }, Object.entries(foreseen.roots).map(([root, folder]) => h("div", null, h("dt", { className: "soft" }, root), h("dd", null, h("bdi", null, folder))))),
        foreseen.notes.map((text) => h("p", { className: "notice small" }, text))] });
      if (answer !== null) {
        const made = await post("/api/v1/sessions", asked(false));
        toast(made.pid === null ? `${made.id} was made` : `${made.id} is running as process ${made.pid}`, "good");
        go(path("s", made.id));
        return;
      }
    } catch (error) {
      wrong = error.fields ?? {};
      const elsewhere = Object.keys(wrong).filter((key) => key !== "" && key !== "name" && !(page.values.properties[key]));
      trouble = Object.keys(wrong).length === 0 || elsewhere.length ? error.message : "";
      focus = true;
    } finally {
      busy = false;
      refresh();
    }
  }

  return { draw, drawn: (root) => { if (focus) { focus = false; focusWrong(root); } } };
};
