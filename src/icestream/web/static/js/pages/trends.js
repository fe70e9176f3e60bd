// Trends of each microscope over months: each figure that records declare, a point for each session.

import { get } from "../api.js";
import { h, path } from "../dom.js";
import { counted, moment, quantity } from "../format.js";
import { trendChart } from "../monitor_charts.js";

const UNKNOWN = "not named";

export const trendsPage = () => ({
  async draw(signal) {
    const lines = (await get("/api/v1/sessions", signal)).filter((one) => one.overview?.started_at);
    lines.sort((a, b) => a.overview.started_at - b.overview.started_at);
    const microscopes = [...new Set(lines.map((one) => one.microscope ?? UNKNOWN))].sort();
    return [
      h("h1", null, "Trends"),
      h("p", { className: "soft" }, `Each point is a session, at the time when it began. ${counted(lines.length, "session")} so far; the microscope is the one that the files name.`),
      microscopes.map((name) => microscope(name, lines.filter((one) => (one.microscope ?? UNKNOWN) === name))),
      h("p", { className: "soft small" }, h("a", { href: "/api/v1/sessions" }, "The numbers as JSON")),
    ];
  },
});

function microscope(name, lines) {
  const series = seriesOf(lines), named = [...series.keys()];
  return h("section", { "data-key": name }, h("h2", null, "Microscope ", h("bdi", null, name), " ", h("small", null, counted(lines.length, "session"))),
    h("div", { className: "grid" }, [...series.values()].map(figure)),
    h("details", { className: "card" }, h("summary", null, "The same as a table"), h("div", { className: "scroll", tabindex: 0, role: "region", "aria-label": `Sessions of ${name}` }, h("table", null,
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Began"), h("th", { scope: "col" }, "Session"), named.map((key) => h("th", { scope: "col", className: "n" }, series.get(key).label)))),
      h("tbody", null, lines.map((one) => h("tr", { "data-key": one.id }, h("td", null, moment(one.overview.started_at)), h("td", { className: "word" }, h("a", { href: path("s", one.id) }, h("bdi", null, one.overview.name))),
        named.map((key) => h("td", { className: "n" }, quantity(valuesOf(one).find((each) => each.key === key)?.value, series.get(key).unit))))))))));
}

const valuesOf = (line) => [
  { key: "exposures", label: "Exposures", unit: "", caption: "", value: line.overview.exposures },
  { key: "an hour", label: "Exposures an hour", unit: "", caption: "in the hour before the last one", value: line.arrivals.per_hour },
  ...line.figures.filter((one) => one.label !== "Pace").map((one) => ({ ...one, key: `${one.label} ${one.unit}` })),
].filter((one) => one.value !== null);

function seriesOf(lines) {
  const found = new Map();
  for (const line of lines) for (const one of valuesOf(line)) {
    if (!found.has(one.key)) found.set(one.key, { ...one, times: [], values: [] });
    found.get(one.key).times.push(line.overview.started_at);
    found.get(one.key).values.push(one.value);
  }
  return found;
}

const figure = (one) => h("figure", { className: "card measure", "data-key": one.key },
  h("figcaption", null, h("b", null, one.label), h("span", { className: "soft small" }, ` ${[one.caption, one.unit].filter(Boolean).join(", ")}`),
    h("div", null, h("span", { className: "value" }, quantity(one.values.at(-1), one.unit)), h("span", { className: "soft small" }, " the newest session"))),
  trendChart(one.times, one.values, `${one.label} of ${counted(one.values.length, "session")} over time`));
