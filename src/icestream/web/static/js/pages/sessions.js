// All sessions of a folder.

import { get, me } from "../api.js";
import { h, path } from "../dom.js";
import { ago, quantity, short } from "../format.js";

export const sessionsPage = () => ({
  ticks: true,
  async draw(signal) {
    const lines = await get("/api/v1/sessions", signal);
    lines.sort((a, b) => (newest(b) - newest(a)) || a.id.localeCompare(b.id));
    if (!lines.length) {
      return h("div", { className: "card" }, h("h1", null, "Sessions"), h("p", null, "There are no sessions in this folder yet. They appear here by themselves."),
        me.creates && h("p", null, `Make the first one by a form.${me.operates ? " Without data of your own, it offers a simulated microscope." : ""}`), begin(), elsewhere());
    }
    const figures = figuresOf(lines);
    const heads = ["Session", "State", "Exposures", "An hour", "Last exposure", ...figures, "Set aside", "Failed", "Alarms"];
    return [
      h("h1", null, "Sessions ", h("small", null, String(lines.length)), " ", begin()),
      elsewhere(),
      h("div", { className: "card wide-table", tabindex: 0, role: "region", "aria-label": "Sessions" }, h("table", { className: "lines" },
        h("thead", null, h("tr", null, heads.map((name, index) => h("th", { className: index > 1 && index !== 4 ? "n" : null, scope: "col" }, name)))),
        h("tbody", null, lines.map((line) => row(line, figures))))),
      h("p", { className: "soft small" }, h("a", { href: "/api/v1/sessions" }, "This page as JSON"), " · ", h("a", { href: "/api/v1/openapi.json" }, "all addresses")),
    ];
  },
});

const begin = () => me.creates && [h("a", { href: "/new", className: "button" }, "New session"), " ", h("a", { href: "/build", className: "more" }, "Build a workflow")];

// What is about all sessions at once.
const elsewhere = () => me.single === null && h("p", { className: "small pages" }, h("a", { href: "/trends" }, "Trends"), " · ", h("a", { href: "/storage" }, "Storage"),
  me.operates && [" · ", h("a", { href: "/watch" }, "Watched folders"), " · ", h("a", { href: "/transfers" }, "Transfers")]);

// The labels of what records declare, such as ice and particles, in their order; the pace is that of arriving, or follows it.
const figuresOf = (lines) => {
  const longest = lines.map((line) => (line.figures ?? []).map((one) => one.label)).sort((a, b) => b.length - a.length);
  return [...new Set(longest.flat())].filter((label) => label !== "Pace");
};

const newest = (line) => line.arrivals?.at ?? line.overview?.updated_at ?? 0;

function row(line, figures) {
  const name = h("td", null, h("a", { href: path("s", line.id), className: "strong" }, h("bdi", null, line.overview?.name ?? line.id)),
    line.overview && line.overview.name !== line.id && h("div", { className: "soft small" }, h("bdi", null, line.id)),
    line.microscope && h("div", { className: "soft small" }, h("span", { className: "sr" }, "microscope "), h("bdi", null, line.microscope)));
  if (line.trouble) return h("tr", { "data-key": line.id }, name, h("td", { colspan: 7 + figures.length }, h("span", { className: "bad" }, "cannot be read: "), line.trouble));
  const { overview, arrivals } = line;
  const state = overview.pause && overview.runner.alive ? "paused" : overview.runner.state;
  return h("tr", { "data-key": line.id }, name,
    h("td", { "data-name": "state" }, h("span", { className: `state ${state.replaceAll(" ", "-")}` }, state)),
    h("td", { className: "n", "data-name": "exposures" }, short(overview.exposures)),
    h("td", { className: "n", "data-name": "an hour" }, quantity(arrivals.per_hour, "")),
    h("td", { "data-name": "last exposure" }, arrivals.at === null ? "–" : h("span", { title: arrivals.name }, ago(arrivals.at))),
    figures.map((label) => figure(label, line.figures.find((one) => one.label === label))),
    h("td", { className: "n", "data-name": "set aside" }, short(overview.rejected)),
    h("td", { className: `n ${overview.failed ? "bad" : ""}`, "data-name": "failed" }, short(overview.failed)),
    h("td", { className: `n ${line.alarms ? "bad" : ""}`, "data-name": "alarms" }, line.alarms ? h("a", { href: path("s", line.id, "alarms") }, short(line.alarms)) : "0"));
}

const figure = (label, one) => h("td", { className: "n", "data-name": label.toLowerCase(), title: one?.caption ?? null }, quantity(one?.value, one?.unit));
