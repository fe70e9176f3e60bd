// The map of the grid: squares, then the holes of one, then its exposures; coloured by any number; and what to expose next.

import { api, get } from "../api.js";
import { h, path } from "../dom.js";
import { counted, quantity, short } from "../format.js";
import { GridView, colourAt } from "../grid.js";

const N_NEXT = 12, N_SHADES = 10;

export const mapPage = ({ session, setSummary, refresh }) => {
  const asked = Object.fromEntries(new URLSearchParams(location.search));
  const chosen = { colour: asked.colour ?? null, square: asked.square ?? null, hole: asked.hole ?? null };
  const view = new GridView(session, (square, hole = null) => change({ square, hole }), refresh);
  let fitted = null;

  function change(values) {
    Object.assign(chosen, values);
    const kept = Object.entries(chosen).filter(([, value]) => value !== null);
    history.replaceState(null, "", location.pathname + (kept.length ? "?" + new URLSearchParams(kept) : ""));
    refresh();
  }

  function address() {
    const words = new URLSearchParams(Object.entries({ colour: chosen.colour, square: chosen.square }).filter(([, value]) => value !== null));
    return api("sessions", session, "map") + (words.size ? "?" + words : "");
  }

  async function draw(signal) {
    const [found, next, page] = await Promise.all([
      get(address(), signal),
      get(api("sessions", session, "next-holes") + `?limit=${N_NEXT}`, signal),
      get(api("sessions", session), signal),
    ]);
    setSummary(page);
    const square = found.squares.find((one) => one.name === chosen.square) ?? null;
    const anything = found.holes.length > 0 || found.squares.some((one) => one.y_um !== null);
    const now = `${chosen.square}`;
    if (anything && (fitted !== now || view.box === null)) { view.fit(found, square); fitted = now; }
    return [
      h("h1", null, "Map of the grid ", h("small", null, `${short(found.n_placed)} of ${counted(found.n_exposures, "exposure")} placed`)),
      found.missing.map((text) => h("p", { className: "notice warning small", "data-key": text }, capital(text), ".")),
      anything && h("div", { className: "mapped" },
        h("div", { className: "card" }, controls(found, square), view.box && view.draw(found, square), legend(found)),
        h("div", null, square ? holes(found, square) : squares(found))),
      suggestions(next),
      h("p", { className: "soft small" }, found.shift && `Shifts of the beam were learnt from ${counted(found.shift.n_exposures, "exposure")} of listed holes, to ${quantity(found.shift.rms_um, "µm")}. `,
        "Positions are those of the stage in µm, y up. ", h("a", { href: address() }, "This page as JSON")),
    ];
  }

  function controls(found, square) {
    const options = [["exposures", "Number of exposures"], ...found.choices.map((one) => [one.id, `${one.label}${one.unit ? ` (${one.unit})` : ""}, ${one.step_label}`])];
    const select = h("select", { name: "colour", onchange: (event) => change({ colour: event.target.value }) }, options.map(([id, label]) => h("option", { value: id }, label)));
    select.value = found.colour;
    return h("div", { className: "filters map-controls" },
      h("label", { className: "wide" }, h("span", { className: "soft small" }, "Coloured by"), select),
      h("span", { className: "buttons" },
        h("button", { type: "button", "aria-label": "zoom in", onclick: () => view.zoom(1 / 1.6) }, "+"),
        h("button", { type: "button", "aria-label": "zoom out", onclick: () => view.zoom(1.6) }, "−"),
        h("button", { type: "button", onclick: () => { fitted = null; refresh(); } }, "Fit"),
        square && h("button", { type: "button", onclick: () => change({ square: null, hole: null }) }, "All squares")));
  }

  function legend(found) {
    const better = { low: "lower is better", high: "higher is better" }[found.better];
    return h("div", { className: "legend" },
      h("div", { className: "small" }, h("b", null, found.label), better && h("span", { className: "soft" }, ` ${better}`)),
      h("div", { className: "shades" }, h("span", { className: "small" }, quantity(found.low, found.unit)),
        Array.from({ length: N_SHADES }, (_, index) => h("i", { style: { background: colourAt((index + 0.5) / N_SHADES) } })),
        h("span", { className: "small" }, quantity(found.high, found.unit))),
      h("p", { className: "soft small" }, "A colour is the median of a hole or square. Dashed: not exposed yet."));
  }

  function squares(found) {
    const sorted = [...found.squares].sort((a, b) => b.n_exposures - a.n_exposures);
    return h("section", { className: "card", "data-key": "squares" }, h("h2", { className: "flat" }, counted(found.squares.length, "square")),
      h("div", { className: "scroll", tabindex: 0, role: "region", "aria-label": "Squares" }, h("table", null,
        h("thead", null, h("tr", null, ["Square", "Exposures", "Holes", `${found.label}${found.unit ? `, ${found.unit}` : ""}`].map((text, index) => h("th", { scope: "col", className: index ? "n" : null }, text)))),
        h("tbody", null, sorted.map((one) => h("tr", { "data-key": one.name },
          h("td", { className: "word" }, h("button", { type: "button", className: "quiet", onclick: () => change({ square: one.name, hole: null }) }, h("bdi", null, one.name))),
          h("td", { className: "n" }, short(one.n_exposures)),
          h("td", { className: "n" }, `${short(one.n_exposed)} of ${short(one.n_holes)}`),
          h("td", { className: "n" }, quantity(one.value, ""))))))));
  }

  function holes(found, square) {
    const exposed = found.holes.filter((one) => one.n_exposures > 0), first = [...exposed].sort((a, b) => (b.name === chosen.hole) - (a.name === chosen.hole));
    return h("section", { className: "card", "data-key": `square ${square.name}` },
      h("h2", { className: "flat" }, "Square ", h("bdi", null, square.name)),
      h("p", { className: "soft small" }, `${counted(exposed.length, "hole")} of ${short(square.n_holes)} exposed${square.y_um === null ? "" : `, at x ${short(square.x_um)}, y ${short(square.y_um)} µm`}.`),
      h("div", { className: "scroll", tabindex: 0, role: "region", "aria-label": "Holes" }, h("table", null,
        h("thead", null, h("tr", null, h("th", { scope: "col" }, "Hole"), h("th", { scope: "col" }, "Exposures"), h("th", { scope: "col", className: "n" }, `${found.label}${found.unit ? `, ${found.unit}` : ""}`))),
        h("tbody", null, first.map((one) => h("tr", { "data-key": one.name, className: one.name === chosen.hole ? "chosen" : null },
          h("td", null, h("bdi", null, one.name)),
          h("td", { className: "small" }, one.exposures.map((exposure) => h("div", null, h("a", { href: path("s", session, "exposures", exposure.unit) }, h("bdi", null, exposure.name))))),
          h("td", { className: "n" }, quantity(one.value, ""))))))));
  }

  function suggestions(next) {
    const at = api("sessions", session, "next-holes");
    return h("section", { "data-key": "next" }, h("h2", null, "Holes to expose next"),
      h("p", { className: "soft small" }, next.good_share === null ? "No hole has been judged yet. " : `Learnt from ${counted(next.n_judged, "hole")}; ${short(100 * next.good_share)} % of the exposures so far are good. `, `Good: ${next.good.join("; ")}.`),
      next.holes.length ? h("div", { className: "card wide-table" }, h("table", null,
        h("thead", null, h("tr", null, ["Rank", "Hole", "Square", "x, µm", "y, µm", "Good, expected", "±"].map((text, index) => h("th", { scope: "col", className: [1, 2].includes(index) ? null : "n" }, text)))),
        h("tbody", null, next.holes.map((one) => h("tr", { "data-key": one.hole },
          h("td", { className: "n" }, one.rank), h("td", { className: "word" }, h("bdi", null, one.hole)),
          h("td", { className: "word" }, one.square && h("button", { type: "button", className: "quiet", onclick: () => change({ square: one.square, hole: one.hole }) }, h("bdi", null, one.square))),
          h("td", { className: "n" }, short(one.x_um)), h("td", { className: "n" }, short(one.y_um)),
          h("td", { className: "n" }, `${short(100 * one.expected)} %`), h("td", { className: "n" }, `${short(100 * one.sd)} %`))))))
        : h("p", { className: "card" }, "There is no hole to choose from."),
      h("p", { className: "soft small" }, `The best of ${counted(next.n_candidates, "hole")} that were not exposed. `, h("a", { href: at }, "The table as JSON")));
  }

  return { draw, drawn: (content) => view.listen(content.querySelector("svg.grid-map")), ticks: true };
};

const capital = (text) => text[0].toUpperCase() + text.slice(1);
