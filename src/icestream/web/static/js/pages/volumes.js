// Maps in three dimensions: turned, in sections and projections, with their curves and numbers, and a slider over the versions.

import { api, get, pictureOf } from "../api.js";
import { curveChart } from "../charts.js";
import { readDensity, showDensity } from "../density.js";
import { h, picture } from "../dom.js";
import { askForDrawing, densityOf } from "../drawings.js";
import { moment, quantity } from "../format.js";

const VERDICTS = { map: "a map", none: "no map", noise: "no map", not_independent: "no map: halves are not independent", pixel_limit: "a map, limited by its pixels" };

export const volumesPage = ({ session, setSummary, refresh }) => {
  const versions = new Map(), parts = new Map(), shown = new Map();

  async function draw(signal) {
    const [newest, page] = await Promise.all([get(api("sessions", session, "volumes"), signal), get(api("sessions", session), signal)]);
    setSummary(page);
    if (!newest.length) return [h("h1", null, "Volumes"), h("p", { className: "card" }, "No step has made a map yet.")];
    const chosen = await Promise.all(newest.map(async (one) => {
      const version = versions.get(one.step);
      if (version === undefined || version === one.version) return one;
      return (await get(`${api("sessions", session, "volumes")}?${new URLSearchParams({ step: one.step, version })}`, signal))[0] ?? one;
    }));
    return [h("h1", null, "Volumes"), chosen.map((one, index) => volume(one, newest[index])), h("p", { className: "soft small" }, h("a", { href: api("sessions", session, "volumes") }, "This page as JSON"))];
  }

  function volume(one, newest) {
    const place = one.versions.indexOf(one.version), part = one.densities.find((density) => density.part === parts.get(one.step)) ?? one.densities[0];
    const pick = (event) => {
      const version = one.versions[Number(event.target.value)];
      version === newest.version ? versions.delete(one.step) : versions.set(one.step, version);
      refresh();
    };
    const which = one.densities.length > 1 && h("select", { onchange: (event) => { parts.set(one.step, Number(event.target.value)); refresh(); } }, one.densities.map((density) => h("option", { value: String(density.part) }, density.title)));
    if (which) which.value = String(part.part);
    return h("section", { className: "card volume", "data-key": one.step },
      h("h2", null, one.title, " ", h("small", null, `${one.label}, version ${one.version} of ${newest.version}, ${moment(one.at)}`), one.verdict && h("span", { className: one.verdict === "map" || one.verdict === "pixel_limit" ? "verdict" : "verdict odd" }, VERDICTS[one.verdict] ?? one.verdict.replaceAll("_", " "))),
      one.versions.length > 1 && h("label", { className: "slider" }, h("span", { className: "soft small" }, "Version"),
        h("input", { type: "range", min: 0, max: one.versions.length - 1, step: 1, value: String(place), "aria-valuetext": `version ${one.version}`, oninput: pick })),
      h("div", { className: "volume-parts" },
        part ? h("div", null, which && h("label", null, h("span", { className: "soft small" }, "Map of "), which),
          h("div", { className: "density", "data-kept": true, "data-key": densityOf(session, one.key, part.part), "data-title": `${one.label}: ${part.title}` }))
          : !one.there && h("p", { className: "soft" }, "The files of this version were removed; newer ones have replaced it."),
        one.survived.length > 0 && survivors(one.survived),
        one.cards.map((card, index) => h("div", { "data-key": `${one.key} ${index}` }, cardOf(card)))));
  }

  const survivors = (stages) => h("div", { "data-key": "survivors" }, h("h3", null, "What survived to this step"),
    h("div", { className: "scroll", tabindex: 0 }, h("table", { className: "small" },
      h("thead", null, h("tr", null, ["Step", "Exposures", "Particles or picks", "Set aside", "Failed"].map((label) => h("th", { scope: "col" }, label)))),
      h("tbody", null, stages.map((stage) => h("tr", { "data-key": stage.step }, h("th", { scope: "row" }, stage.label),
        [stage.items, stage.particles, stage.rejected, stage.failed].map((count) => h("td", { className: "n" }, quantity(count, "")))))))),
    h("p", { className: "soft small" }, "As the session is now; a step counts what it has let through."));

  const cardOf = (card) => [
    card.title && h("h3", null, card.title, card.subtitle && h("small", null, ` ${card.subtitle}`)),
    card.warnings.map((said) => h("p", { className: "odd" }, said)),
    h("dl", { className: "numbers" }, card.numbers.map(([label, value, unit]) => h("div", null, h("dt", null, label), h("dd", null, quantity(value, unit))))),
    card.picture && h("figure", null, picture({ src: pictureOf(session, card.picture), alt: card.picture.title, loading: "lazy" }), h("figcaption", { className: "soft small" }, card.caption)),
    card.curve && h("div", null, h("h3", null, card.curve.title), curveChart(card.curve), h("p", { className: "soft small" }, card.curve.caption)),
    card.texts.map((said) => h("p", { className: "soft small" }, said)),
  ];

  // Each map is asked for once, when its place is on the page; a place that has gone lets its picture go.
  function drawn(root) {
    for (const [holder, one] of shown) if (!holder.isConnected) { one.leaving.abort(); one.end(); shown.delete(holder); }
    for (const holder of root.querySelectorAll(".density")) {
      if (shown.has(holder)) continue;
      const one = { leaving: new AbortController(), end: () => {} }, status = h("p", { className: "soft small", role: "status" }, "Drawing …");
      shown.set(holder, one);
      holder.replaceChildren(status);
      askForDrawing(holder.getAttribute("data-key"), one.leaving.signal).then((response) => response.arrayBuffer()).then((content) => {
        status.remove();
        one.end = showDensity(holder, readDensity(new Uint8Array(content)), holder.getAttribute("data-title"));
      }).catch((error) => { if (error.name !== "AbortError") status.textContent = error.message; });
    }
  }

  return { draw, drawn, leave: () => { for (const one of shown.values()) { one.leaving.abort(); one.end(); } } };
};
