// A draft as it is edited here: changes with undo and redo, saved as they are made, and never over what somebody else has changed.

import { api, get, post } from "./api.js";

const SOON_MS = 500, MOST_UNDONE = 200;
const copy = (value) => JSON.parse(JSON.stringify(value));

export class Draft {
  constructor(page, onChange) {
    this.onChange = onChange;
    this.undone = [];
    this.done = [];
    this.timer = null;
    this.saving = null;
    this.conflict = null;
    this.trouble = "";
    this.take(page);
  }

  take(page) {
    this.page = page;
    this.document = copy(page.document);
    this.title = page.title;
    this.summary = page.summary;
    this.dirty = false;
  }

  get steps() { return this.document.steps; }
  get state() { return this.conflict ? "changed by somebody else" : this.trouble ? "not saved" : this.dirty || this.saving ? "saving …" : "saved"; }

  // Change the document; changes of one field that follow each other are undone together.
  change(work, { field = null } = {}) {
    const before = copy(this.document);
    work(this.document);
    if (JSON.stringify(before) === JSON.stringify(this.document)) return;
    if (field === null || this.done.at(-1)?.field !== field) this.done.push({ document: before, field });
    if (this.done.length > MOST_UNDONE) this.done.shift();
    this.undone = [];
    this.touched(field === null ? 0 : SOON_MS);
  }

  rename(title, summary) {
    this.title = title;
    this.summary = summary;
    this.touched(SOON_MS);
  }

  undo() { this.step(this.done, this.undone); }
  redo() { this.step(this.undone, this.done); }

  step(from, to) {
    const last = from.pop();
    if (last === undefined) return;
    to.push({ document: this.document, field: null });
    this.document = last.document;
    this.touched(0);
  }

  touched(ms) {
    this.dirty = true;
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.save(), ms);
    this.onChange();
  }

  // Save what there is; what is changed meanwhile is saved after it.
  async save() {
    window.clearTimeout(this.timer);
    if (this.saving) await this.saving;
    if (!this.dirty || this.conflict) return;
    this.dirty = false;
    this.saving = this.send();
    await this.saving;
    this.saving = null;
    this.onChange();
  }

  async send() {
    const { id, version } = this.page;
    try {
      this.page = await post(api("drafts", String(id)), { version, title: this.title, summary: this.summary, document: this.document });
      this.trouble = "";
    } catch (error) {
      if (error.status === 409) this.conflict = error.message;
      else this.trouble = error.message;
    }
  }

  // Take what somebody else has made of it, or keep one's own as another draft.
  async takeTheirs() {
    this.take(await get(api("drafts", String(this.page.id))));
    this.conflict = null;
    this.done = [];
    this.undone = [];
    this.onChange();
  }

  copyMine() { return post("/api/v1/drafts", { copy_of: this.page.id, document: this.document }); }
}

const linksIn = (targets) => (typeof targets === "string" ? [targets] : targets ?? []);
const stepOf = (link) => link.split(".")[0];
export const linksOf = (spec) => Object.entries(spec.in ?? {}).flatMap(([port, targets]) => linksIn(targets).map((link) => ({ port, link, step: stepOf(link) })));

export function freeName(steps, wanted) {
  const plain = wanted.replace(/[^a-z0-9_]+/g, "_").replace(/^[^a-z]+/, "") || "step";
  if (!(plain in steps)) return plain;
  const stem = plain.replace(/_\d+$/, "");
  for (let number = 2; ; number++) if (!(`${stem}_${number}` in steps)) return `${stem}_${number}`;
}

// Connect an input; a single link is written as a text, several as a list, none not at all.
export function connect(spec, port, links, many) {
  spec.in = { ...spec.in };
  if (!links.length) delete spec.in[port];
  else spec.in[port] = many || links.length > 1 ? links : links[0];
  if (!Object.keys(spec.in).length) delete spec.in;
}

export function removeStep(document, name) {
  delete document.steps[name];
  for (const spec of Object.values(document.steps)) {
    for (const [port, targets] of Object.entries(spec.in ?? {})) connect(spec, port, linksIn(targets).filter((link) => stepOf(link) !== name), Array.isArray(targets));
    if (spec.after) spec.after = spec.after.filter((one) => one !== name);
  }
  prune(document);
}

export function duplicateStep(document, name) {
  const made = freeName(document.steps, `${name}_2`), spec = copy(document.steps[name]);
  if (spec.label) spec.label = `${spec.label} (copy)`;
  document.steps = insertAfter(document.steps, name, made, spec);
  return made;
}

function insertAfter(steps, name, made, spec) {
  return Object.fromEntries(Object.entries(steps).flatMap(([key, value]) => (key === name ? [[key, value], [made, spec]] : [[key, value]])));
}

export function renameStep(document, name, fresh) {
  const moved = (link) => (stepOf(link) === name ? fresh + link.slice(name.length) : link);
  document.steps = Object.fromEntries(Object.entries(document.steps).map(([key, spec]) => [key === name ? fresh : key, spec]));
  for (const spec of Object.values(document.steps)) {
    for (const [port, targets] of Object.entries(spec.in ?? {})) spec.in[port] = Array.isArray(targets) ? targets.map(moved) : moved(targets);
    if (spec.after) spec.after = spec.after.map((one) => (one === name ? fresh : one));
    for (const [key, value] of Object.entries(spec.params ?? {})) if (value?.from) spec.params[key] = { from: moved(value.from) };
  }
}

export function setParam(document, step, name, value) {
  const spec = document.steps[step];
  spec.params = { ...spec.params };
  if (value === undefined) delete spec.params[name];
  else spec.params[name] = value;
  if (!Object.keys(spec.params).length) delete spec.params;
  prune(document);
}

// A template asks for a parameter under a name of its own.
export function askFor(document, step, name, placeholder) {
  const known = document.placeholders ?? {}, wanted = freeName(known, name in known ? `${step}_${name}` : name);
  document.placeholders = { ...known, [wanted]: placeholder };
  setParam(document, step, name, { ask: wanted });
}

// Placeholders that nothing asks for any more go.
function prune(document) {
  const asked = new Set();
  const look = (value) => {
    if (Array.isArray(value)) value.forEach(look);
    else if (value !== null && typeof value === "object") {
      if (typeof value.ask === "string" && Object.keys(value).length === 1) asked.add(stepOf(value.ask));
      else Object.values(value).forEach(look);
    }
  };
  look([document.roots ?? {}, document.acquisition ?? {}, Object.values(document.steps).map((spec) => spec.params ?? {})]);
  for (const spec of Object.values(document.steps)) for (const key of ["only_with", "only_without"]) if (spec[key]) asked.add(spec[key]);
  const kept = Object.entries(document.placeholders ?? {}).filter(([name]) => asked.has(name));
  if (kept.length) document.placeholders = Object.fromEntries(kept);
  else delete document.placeholders;
}
