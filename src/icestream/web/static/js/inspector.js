// One step of a draft: what it is called, what it reads, its parameters, what people should know of it.

import { h } from "./dom.js";
import { field, plain, readField, written } from "./form.js";
import { askFor, connect, duplicateStep, linksOf, removeStep, renameStep, setParam } from "./draft.js";
import { readsAndGives } from "./palette.js";

const GIVEN = "value", ASKED = "ask";

export class Inspector {
  constructor(draft, choose) {
    this.draft = draft;
    this.choose = choose;
    this.typed = new Map();
  }

  draw(name, type) {
    const spec = this.draft.steps[name], checked = this.draft.page.check.steps.find((one) => one.name === name);
    if (!spec) return h("div", { className: "card" }, h("p", { className: "soft" }, "Choose a step in the graph, or add one."));
    const wrong = (field) => this.problems(name, (one) => one.field === field);
    const edits = this.draft.page.session !== null;
    return h("section", { className: "card", "data-key": `step ${name}`, "aria-label": `Step ${name}` },
      h("h2", { id: "chosen-step", tabindex: -1 }, spec.label ?? name, " ", h("small", null, spec.use)),
      type && h("p", { className: "soft small" }, type.summary, " ", readsAndGives(type), type.plugin && ` From ${type.plugin}.`),
      this.problems(name, (one) => one.field === "use" || one.field === null || one.field === "in" || one.field === "params").map((text) => h("p", { className: "notice alert small" }, text)),
      h("p", { className: "buttons" },
        h("button", { type: "button", onclick: () => { let made; this.draft.change((document) => { made = duplicateStep(document, name); }); this.choose(made); } }, "Duplicate"),
        h("button", { type: "button", onclick: () => { this.draft.change((document) => removeStep(document, name)); this.choose(null); } }, "Delete")),
      !edits && this.text(name, "name", "Name in the workflow", name, wrong("name"), (text) => this.rename(name, text)),
      this.text(name, "label", "Label: what people call it", spec.label ?? "", [], (text) => this.set(name, "label", text)),
      h("div", { className: "field" }, h("label", { for: "note" }, "Note: what people should know of it; shown in the graph and the report"),
        h("textarea", { id: "note", rows: 3, maxlength: 2000, oninput: (event) => this.set(name, "note", event.target.value) }, spec.note ?? "")),
      (checked?.inputs.length ?? 0) > 0 && h("h3", null, "Inputs"),
      checked?.inputs.map((port) => this.input(name, spec, port, wrong(`in.${port.name}`))),
      !edits && this.condition(name, spec),
      (spec.after?.length ?? 0) > 0 && h("p", { className: "soft small" }, `Starts when the streams of ${spec.after.join(", ")} have closed.`),
      type && Object.keys(type.values.properties ?? {}).length > 0 && h("h3", null, "Parameters"),
      type && Object.keys(type.values.properties ?? {}).map((parameter) => this.parameter(name, spec, type, parameter, wrong(`params.${parameter}`))));
  }

  problems(name, fits) { return this.draft.page.check.problems.filter((one) => one.step === name && fits(one)).map((one) => one.text); }

  text(step, id, label, value, wrong, onText) {
    return h("div", { className: wrong.length ? "field wrong" : "field" }, h("label", { for: `step-${id}` }, label),
      h("input", { id: `step-${id}`, maxlength: 80, value, autocomplete: "off", spellcheck: "false", [id === "name" ? "onchange" : "oninput"]: (event) => onText(event.target.value) }),
      wrong.length > 0 && h("span", { className: "bad small", role: "alert" }, wrong.join(" ")));
  }

  set(name, key, text) {
    this.draft.change((document) => { if (text.trim() === "") delete document.steps[name][key]; else document.steps[name][key] = text; }, { field: `${name} ${key}` });
  }

  rename(name, text) {
    const fresh = text.trim();
    if (fresh === "" || fresh === name || fresh in this.draft.steps) { this.draft.onChange(); return; }
    this.draft.change((document) => renameStep(document, name, fresh));
    this.choose(fresh);
  }

  input(step, spec, port, wrong) {
    const links = linksOf(spec).filter((one) => one.port === port.name).map((one) => one.link), several = port.many || links.length > 1;
    const put = (fresh) => this.draft.change((document) => connect(document.steps[step], port.name, fresh, port.many));
    const id = `in-${port.name}`, left = port.offers.filter((one) => !links.includes(one)), odd = links.filter((one) => !port.offers.includes(one));
    const select = h("select", { id, "aria-invalid": wrong.length ? "true" : null, onchange: (event) => { const link = event.target.value; put(several ? [...links, link] : link === "" ? [] : [link]); } },
      h("option", { value: "" }, several ? "add a stream …" : port.optional ? "– not connected" : "– choose what it reads"),
      (several ? left : [...odd, ...port.offers]).map((one) => h("option", { value: one }, this.named(one))));
    select.value = several ? "" : links[0] ?? "";
    return h("div", { className: wrong.length ? "field wrong" : "field", "data-key": id },
      h("label", { for: id }, port.name, h("span", { className: "soft" }, ` (${port.record}${port.many ? ", any number" : ""}${port.optional ? ", optional" : ""})`)),
      several && links.length > 0 && h("div", { className: "links" }, links.map((one) => h("button", { type: "button", "aria-label": `Disconnect ${one} from ${port.name}`, onclick: () => put(links.filter((other) => other !== one)) }, this.named(one), " ×"))),
      select,
      port.offers.length === 0 && h("span", { className: "soft small" }, `no step of this workflow gives ${port.record} yet`),
      wrong.length > 0 && h("span", { className: "bad small", role: "alert" }, wrong.join(" ")));
  }

  // An output with the label of its step.
  named(link) {
    const [step, ...output] = link.split("."), label = this.draft.steps[step]?.label;
    return `${label && label !== step ? `${label} (${step})` : step}${output.length ? `: ${output.join(" ").replace("rejected", "what it sets aside")}` : ""}`;
  }

  condition(name, spec) {
    const known = Object.keys(this.draft.document.placeholders ?? {});
    if (!known.length) return null;
    const select = h("select", { id: "only-with", onchange: (event) => this.draft.change((document) => { if (event.target.value) document.steps[name].only_with = event.target.value; else delete document.steps[name].only_with; }) },
      h("option", { value: "" }, "always"), known.map((one) => h("option", { value: one }, `only if ${one} is given`)));
    select.value = spec.only_with ?? "";
    return h("div", { className: "field" }, h("label", { for: "only-with" }, "Part of a session"), select, spec.only_without && h("span", { className: "soft small" }, `not if ${spec.only_without} is given`));
  }

  parameter(step, spec, type, parameter, wrong) {
    const schema = { ...plain(type.values.properties[parameter], type.values.$defs), named: false }, value = spec.params?.[parameter];
    const source = value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length === 1 ? value : {};
    const asked = source.ask !== undefined ? this.draft.document.placeholders?.[source.ask.split(".")[0]] : null;
    const elsewhere = source.ask !== undefined ? `asked for: ${asked?.label ?? source.ask}` : source.from !== undefined ? `taken from ${source.from}` : null;
    const key = `${step} ${parameter}`, stored = written(value ?? schema.default ?? null), text = elsewhere ?? (this.typed.has(key) ? this.typed.get(key) : stored);
    const shown = field({ name: parameter, schema: elsewhere ? { ...schema, type: "string", enum: undefined, format: undefined } : schema, text, trouble: wrong.join(" "), disabled: elsewhere !== null, onInput: (given) => {
      this.typed.set(key, given);
      const read = readField(schema, given);
      this.draft.change((document) => setParam(document, step, parameter, read === null && !schema.nullable ? undefined : read), { field: `${step} params ${parameter}` });
    } });
    return h("div", { className: "given", "data-key": `given ${parameter}` }, shown, this.how(step, parameter, type, source, schema));
  }

  // A parameter is a value, is asked for when a session is made, or is a number that another step finds.
  how(step, parameter, type, source, schema) {
    const template = this.draft.page.session === null, placeholder = type.placeholders[parameter];
    const takes = ["map", "filter"].includes(type.kind) && ["number", "integer"].includes(schema.type);
    const values = takes ? this.draft.page.check.steps.filter((one) => this.feeds(one.name, step)).flatMap((one) => one.values.map((name) => `${one.name}.${name}`)) : [];
    if (!(template && placeholder) && !values.length && source.from === undefined && source.ask === undefined) return null;
    const present = source.ask !== undefined ? ASKED : source.from !== undefined ? source.from : GIVEN;
    const select = h("select", { "aria-label": `How ${parameter} is given`, onchange: (event) => {
      const to = event.target.value;
      this.typed.delete(`${step} ${parameter}`);
      this.draft.change((document) => {
        if (to === GIVEN) setParam(document, step, parameter, undefined);
        else if (to === ASKED) askFor(document, step, parameter, { ...placeholder, ...this.presentDefault(step, parameter) });
        else setParam(document, step, parameter, { from: to });
      });
    } },
    h("option", { value: GIVEN }, "this value"), (template && placeholder || present === ASKED) && h("option", { value: ASKED }, "asked for at the start"),
    [...new Set([...(source.from !== undefined ? [source.from] : []), ...values])].map((one) => h("option", { value: one }, `from ${one}`)));
    select.value = present;
    return select;
  }

  presentDefault(step, parameter) {
    const value = this.draft.steps[step].params?.[parameter];
    return value === undefined || value === null || (typeof value === "object" && !Array.isArray(value)) ? {} : { default: value };
  }

  // Whether a step is not below another one, so that it may give it a value.
  feeds(name, step) {
    const seen = new Set([step]), steps = Object.entries(this.draft.steps);
    for (let grown = true; grown;) {
      grown = false;
      for (const [other, spec] of steps) if (!seen.has(other) && linksOf(spec).some((one) => seen.has(one.step))) { seen.add(other); grown = true; }
    }
    return !seen.has(name);
  }
}
