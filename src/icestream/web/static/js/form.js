// Forms made from JSON schemas: the values of a template, the parameters of a step. What is wrong stands below its field.

import { get } from "./api.js";
import { h } from "./dom.js";
import { counted, short } from "./format.js";

// A schema with its reference followed, and without the branch that says that it may be unset.
export function plain(schema, definitions = {}) {
  const found = schema.$ref ? { ...definitions[schema.$ref.split("/").at(-1)], ...schema } : schema;
  const all = found.allOf?.length === 1 ? { ...plain(found.allOf[0], definitions), ...found } : found;
  const branches = (all.anyOf ?? []).filter((one) => one.type !== "null");
  const nullable = Boolean(all.anyOf) && branches.length < all.anyOf.length;
  return branches.length === 1 ? { ...plain(branches[0], definitions), ...all, anyOf: undefined, nullable } : { ...all, nullable };
}

export const isSimple = (schema) => ["boolean", "number", "integer", "string", "array"].includes(schema.type) || Boolean(schema.enum);

const unitOf = (schema) => schema.unit ?? (schema.prefixItems ?? []).map((one) => one.unit).find(Boolean) ?? schema.items?.unit ?? "";

// What is in the field for a value.
export function written(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value;
  if (Array.isArray(value) && value.every((one) => typeof one !== "object")) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

// The value that stands in a field; what is no number stays a text, so that the server says what is wrong with it.
export function readField(schema, text) {
  if (typeof text === "boolean") return text;
  const bare = text.trim();
  if (bare === "") return null;
  if (["number", "integer"].includes(schema.type)) return Number.isFinite(Number(bare)) ? Number(bare) : bare;
  if (schema.enum) return schema.enum.find((one) => String(one) === bare) ?? bare;
  if (["string", "array"].includes(schema.type)) return bare;
  try { return JSON.parse(bare); } catch { return bare; }
}

const BOUNDS = [["minimum", "at least"], ["exclusiveMinimum", "above"], ["maximum", "at most"], ["exclusiveMaximum", "below"]];

export function rangeOf(schema) {
  const holders = [schema, schema.items ?? {}, ...(schema.prefixItems ?? [])];
  const told = BOUNDS.flatMap(([key, word]) => {
    const holder = holders.find((one) => one[key] !== undefined);
    return holder ? [`${word} ${short(holder[key])}`] : [];
  });
  return told.join(" and ");
}

// One field: label with unit, input, help with range and default, and what is wrong with it.
export function field({ name, schema, text, trouble = "", onInput, disabled = false }) {
  const id = `field-${name}`, unit = unitOf(schema), help = `${id}-help`;
  const shared = { id, name, disabled, "aria-describedby": help, "aria-invalid": trouble ? "true" : null };
  const hint = [schema.description, rangeOf(schema), schema.default !== undefined && schema.default !== null && schema.type !== "boolean" && `default ${written(schema.default)}`].filter(Boolean).map((one) => one.replace(/\.$/, "")).join("; ");
  return h("div", { className: trouble ? "field wrong" : "field", "data-key": name },
    h("label", { for: id }, schema.title && schema.named !== false ? schema.title : name, unit && h("span", { className: "soft" }, ` (${unit})`)),
    input(schema, text, shared, onInput),
    h("span", { id: help, className: "small" }, hint && h("div", { className: "soft" }, hint), trouble && h("div", { className: "bad", role: "alert" }, trouble)));
}

function input(schema, text, shared, onInput) {
  if (schema.type === "boolean") return h("input", { ...shared, type: "checkbox", checked: text === true, onchange: (event) => onInput(event.target.checked) });
  if (schema.enum) {
    const options = (schema.nullable || text === "" ? [""] : []).concat(schema.enum.map(String));
    const element = h("select", { ...shared, onchange: (event) => onInput(event.target.value) }, options.map((one) => h("option", { value: one }, one || "–")));
    element.value = String(text);
    return element;
  }
  const numeric = ["number", "integer"].includes(schema.type);
  const box = h("input", { ...shared, type: "text", inputmode: numeric ? "decimal" : null, autocomplete: "off", spellcheck: "false", value: String(text), oninput: (event) => onInput(event.target.value) });
  if (!["folder", "path", "file"].includes(schema.format)) return box;
  return h("span", { className: "with-button" }, box, h("button", { type: "button", "aria-label": `Choose ${schema.title ?? shared.name}`, disabled: shared.disabled, onclick: async () => {
    const chosen = await chooseFolder(String(box.value), schema.format);
    if (chosen !== null) onInput(chosen);
  } }, "Choose …"));
}

// Let a person choose among the folders that the facility allows.
export function chooseFolder(start, kind) {
  return new Promise((resolve) => {
    const done = (value) => { dialog.close(); dialog.remove(); resolve(value); };
    const list = h("div", { className: "folders" });
    const dialog = h("dialog", { className: "chooser", "aria-labelledby": "chooser-title" }, h("h2", { id: "chooser-title" }, "Choose a folder"), list);
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); done(null); });

    async function show(path) {
      let found;
      try {
        found = await get(`/api/v1/raw-folders?${new URLSearchParams({ path })}`);
      } catch (error) {
        if (path !== "") { await show(""); return; }
        list.replaceChildren(h("p", { className: "bad", role: "alert" }, error.message), buttons(""));
        return;
      }
      const entry = (label, target) => h("li", null, h("button", { type: "button", className: "entry", onclick: () => show(target) }, label));
      list.replaceChildren(
        h("p", { className: "small" }, h("b", null, h("bdi", null, found.path || "Folders that may be chosen"))),
        h("ul", null, found.above !== null && entry("↑ up", found.above), found.folders.map((one) => entry(h("bdi", null, one.name), one.path)),
          kind !== "folder" && found.files.map((name) => h("li", null, h("button", { type: "button", className: "entry file", onclick: () => done(`${found.path}/${name}`) }, h("bdi", null, name))))),
        found.path && h("p", { className: "soft small" }, found.n_files ? `${counted(found.n_files, "file")} here${found.more ? " and more" : ""}: ${found.files.slice(0, 3).join(", ")}${found.n_files > 3 ? " …" : ""}` : "No files here."),
        buttons(found.path));
      list.querySelector("button")?.focus();
    }
    const buttons = (path) => h("p", { className: "buttons" }, h("button", { type: "button", onclick: () => done(null) }, "Cancel"),
      h("button", { type: "button", className: "primary", disabled: path === "" || kind === "file", onclick: () => done(kind === "path" ? `${path}/` : path) }, "Take this folder"));
    document.body.append(dialog);
    dialog.showModal();
    show(start.startsWith("/") ? start.replace(/\/+$/, "") : "");
  });
}

// Put the focus on the first field that something is wrong with.
export function focusWrong(root) {
  root.querySelector("[aria-invalid=true]")?.focus();
}
