// Choosing a step from all that are installed: a list that is searched by words, and walked through by keyboard.

import { get } from "./api.js";
import { h } from "./dom.js";

let asked = null;

// All types; they are asked for once, as the server takes a while to look at them for the first time.
export function allTypes() {
  asked ??= get("/api/v1/steps").catch((error) => { asked = null; throw error; });
  return asked;
}

const MOST_SHOWN = 60;
const wordsOf = (one) => [one.use, one.title, one.summary, one.category, one.plugin, one.kind, ...one.inputs.map((port) => port.record), ...Object.values(one.outputs)].join(" ").toLowerCase();

export function findTypes(types, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = types.filter((one) => words.every((word) => wordsOf(one).includes(word)));
  const whole = words.join("_");
  const rank = ({ use }) => [use === whole, use.startsWith(whole), use.includes(whole), words.every((word) => use.includes(word)), true].indexOf(true);
  return found.map((one, index) => [rank(one), index, one]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, , one]) => one);
}

export const readsAndGives = (one) => {
  const reads = one.inputs.map((port) => `${port.record}${port.many ? "s" : ""}${port.optional ? " (optional)" : ""}`).join(", ");
  return `${reads ? `reads ${reads}` : "reads files"}; gives ${[...new Set(Object.values(one.outputs))].join(", ")}`;
};

// Gives the type that was chosen, or null.
export function chooseType() {
  return new Promise((resolve) => {
    const done = (value) => { dialog.close(); dialog.remove(); resolve(value); };
    let types = [];
    const list = h("div", { className: "palette", role: "group", "aria-label": "Steps" });
    const count = h("p", { className: "soft small", role: "status" });
    const search = h("input", { type: "search", id: "search-steps", autocomplete: "off", spellcheck: "false", placeholder: "ctf, particles, gain …", oninput: () => show(), onkeydown: (event) => {
      const buttons = [...list.querySelectorAll("button:not(:disabled)")];
      if (event.key === "ArrowDown" && buttons.length) { event.preventDefault(); buttons[0].focus(); }
      if (event.key === "Enter" && buttons.length) { event.preventDefault(); buttons[0].click(); }
    } });
    const dialog = h("dialog", { className: "wide", "aria-labelledby": "palette-title" },
      h("h2", { id: "palette-title" }, "Add a step"),
      h("label", { for: "search-steps", className: "field" }, "Search by words: what it is called, does, reads or gives", search), count, list,
      h("p", { className: "buttons" }, h("button", { type: "button", onclick: () => done(null) }, "Cancel")));
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); done(null); });
    list.onkeydown = (event) => {
      const buttons = [...list.querySelectorAll("button:not(:disabled)")], at = buttons.indexOf(document.activeElement);
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      (to < 0 ? search : buttons[Math.min(to, buttons.length - 1)]).focus();
    };

    function show() {
      const found = findTypes(types, search.value), shown = found.slice(0, MOST_SHOWN), searched = search.value.trim() !== "";
      count.textContent = found.length === 1 ? "1 step" : `${found.length} steps${found.length > MOST_SHOWN ? `, the first ${MOST_SHOWN} are shown` : ""}`;
      let category = null;
      list.replaceChildren(...shown.flatMap((one) => {
        const heading = !searched && one.category !== category ? [h("h3", null, one.category)] : [];
        category = one.category;
        return [...heading, h("button", { type: "button", className: "entry", disabled: one.problem !== null, onclick: () => done(one) },
          h("span", null, h("b", null, one.title), " ", h("span", { className: "soft small" }, one.use), searched && h("span", { className: "soft small" }, ` · ${one.category}`)),
          h("span", { className: "small" }, one.problem ?? one.summary),
          one.problem === null && h("span", { className: "soft small" }, readsAndGives(one)))];
      }));
    }
    document.body.append(dialog);
    count.textContent = "Looking at what is installed …";
    dialog.showModal();
    search.focus();
    allTypes().then((found) => { types = found; show(); }, (error) => { count.textContent = error.message; });
  });
}
