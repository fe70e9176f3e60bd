// Monitors: what rules watch, with their limits. CTF, gain and whatever else records measure; the machine; the session as a whole.

import { api, get } from "../api.js";
import { h, path } from "../dom.js";
import { ago, quantity, short } from "../format.js";
import { limitedSeries, timeChart } from "../monitor_charts.js";

const MACHINE = [
  ["Load", ["cpu", "memory", "swap"], { cpu: "processor", memory: "memory", swap: "swap" }],
  ["Disk in use", ["disk"], {}],
  ["Free space on the disk", ["disk_free"], {}],
  ["Disks", ["disk_read", "disk_write"], { disk_read: "read", disk_write: "written" }],
  ["Network", ["network_in", "network_out"], { network_in: "received", network_out: "sent" }],
  ["GPU load", ["gpu"], {}],
  ["GPU memory", ["gpu_memory"], {}],
  ["GPU temperature", ["gpu_temperature"], {}],
];
const LINES = ["solid", "dashed", "dotted", "dash-dotted"];

export const monitorsPage = ({ session, setSummary }) => ({
  ticks: true,
  async draw(signal) {
    const [found, page] = await Promise.all([get(api("sessions", session, "monitors"), signal), get(api("sessions", session), signal)]);
    setSummary(page);
    const panels = [...new Set(found.measures.map((one) => one.panel))];
    return [
      h("h1", null, "Monitors"),
      watched(found.watched),
      h("section", null, h("h2", null, "Session"), h("div", { className: "figures" }, found.summary.map(figure))),
      panels.map((panel) => h("section", { "data-key": panel }, h("h2", null, panel),
        h("div", { className: "grid" }, found.measures.filter((one) => one.panel === panel).map(measured)))),
      h("section", null, h("h2", null, "Machine ", h("small", null, found.machine.host ?? "")),
        found.machine.times.length ? h("div", { className: "grid" }, MACHINE.map((one) => machine(found.machine, one))) : h("p", { className: "card" }, "The machine has not been looked at yet. It is while the session runs.")),
      h("p", { className: "soft small" }, "Dashed red lines are limits of rules; the ", h("a", { href: path("s", session, "alarms") }, "alarms"), " page lists the rules. ", h("a", { href: api("sessions", session, "monitors") }, "This page as JSON")),
    ];
  },
});

export function watched(one) {
  if (one.trouble !== null) return h("p", { className: "notice alert" }, `The rules do not hold at this moment: ${one.trouble}`);
  if (one.looked_at === null) return h("p", { className: "soft" }, "Nobody has watched this session by its rules yet; that begins when it runs.");
  const looked = h("p", { className: "soft" }, `Looked at ${ago(one.looked_at)}.`);
  return one.note === null ? looked : [looked, h("p", { className: "notice" }, one.note)];
}

const between = ({ low, high }, unit) => low !== null && high !== null ? `${short(low)} to ${quantity(high, unit)}` : high !== null ? `at most ${quantity(high, unit)}` : `at least ${quantity(low, unit)}`;
const limited = (limits, unit) => limits.map((one) => `${one.rule}: ${one.low === null && one.high === null ? "change" : between(one, unit)}`).join("; ");

function figure(one) {
  const bad = one.limits.some(({ low, high }) => one.value !== null && ((low !== null && one.value < low) || (high !== null && one.value > high)));
  return h("dl", { className: `card ${bad ? "bad" : ""}`, "data-key": one.name }, h("dt", { className: "soft small" }, one.name.replaceAll("_", " ").replace("percent", "")),
    h("dd", null, h("b", null, quantity(one.value, one.unit)), one.limits.length > 0 && h("span", { className: "soft small" }, limited(one.limits, one.unit))));
}

function measured(one) {
  const { measure } = one.series;
  return h("figure", { className: "card measure", "data-key": measure.id },
    h("figcaption", null, h("b", null, measure.label), h("span", { className: "soft small" }, ` ${measure.step_label}`),
      h("div", null, h("span", { className: "value" }, quantity(one.series.values.at(-1), measure.unit)), h("span", { className: "soft small" }, ` newest; ${limited(one.limits, measure.unit)}`))),
    limitedSeries(one.series, one.limits));
}

function machine({ times, lines }, [title, values, names]) {
  const mine = lines.filter((line) => values.includes(line.value));
  if (!mine.length) return null;
  const told = mine.map((line, index) => `${names[line.value] ?? line.subject} ${quantity(line.values.at(-1), line.unit)}${mine.length > 1 ? ` (${LINES[index % LINES.length]})` : ""}`);
  const limits = limited(mine.flatMap((line) => line.limits), mine[0].unit);
  return h("figure", { className: "card measure", "data-key": title },
    h("figcaption", null, h("b", null, title), h("div", null, told.join(", "), limits && h("span", { className: "soft small" }, `; ${limits}`))),
    timeChart(times, mine, { label: `${title} over time: ${told.join(", ")}` }));
}
