// The storage of a facility at a glance: what each session holds, what of it can be computed again, and how long disks will last.

import { api, get } from "../api.js";
import { h, path } from "../dom.js";
import { counted, size, span } from "../format.js";

const HEADS = ["Session", "Size", "Raw data", "Can be computed again", "Of rejected exposures", "Trash", "An hour"];

export const facilityStoragePage = () => ({
  ticks: true,
  async draw(signal) {
    const found = await get(api("storage"), signal);
    const largest = Math.max(1, ...found.sessions.map((one) => one.bytes ?? 0));
    return [
      h("h1", null, "Storage of all sessions"),
      !found.complete && h("p", { className: "notice" }, "Files are still being looked at: these are sums so far."),
      found.disks.map((one) => disk(one, found.disks.length)),
      found.sessions.length === 0 ? h("p", { className: "card" }, "There are no sessions in this folder yet.") : h("div", { className: "card" }, h("table", { className: "lines" },
        h("thead", null, h("tr", null, HEADS.map((name, index) => h("th", { scope: "col", className: index ? "n" : null }, name)))),
        h("tbody", null, found.sessions.map((one) => line(one, largest))))),
      h("p", { className: "soft small" }, "Raw data are counted apart: they are outside of sessions. ", h("a", { href: api("storage") }, "This page as JSON")),
    ];
  },
});

const disk = (one, count) => h("p", { className: "soft", "data-key": one.id }, [
  `${counted(one.sessions, "session")}${count > 1 ? " on one disk" : ""} with ${size(one.bytes)}`, `${size(one.free_bytes)} free`,
  one.bytes_per_hour > 0 && `growing by ${size(one.bytes_per_hour)} an hour`, one.full_in_s !== null && `full in ${span(one.full_in_s)}`,
].filter(Boolean).join(" · "));

function line(one, largest) {
  const name = h("td", null, h("a", { href: path("s", one.id, "storage"), className: "strong" }, h("bdi", null, one.name)), one.name !== one.id && h("div", { className: "soft small" }, h("bdi", null, one.id)),
    one.bytes > 0 && h("div", { className: "held thin", "aria-hidden": "true" }, h("span", { className: "part micrographs", style: { flexGrow: String(one.bytes) } }), h("span", { style: { flexGrow: String(largest - one.bytes) } })));
  if (one.trouble !== null) return h("tr", { "data-key": one.id }, name, h("td", { colspan: HEADS.length - 1 }, h("span", { className: "bad" }, "cannot be read: "), one.trouble));
  const cell = (label, value) => h("td", { className: "n", "data-name": label.toLowerCase() }, value === null ? "–" : size(value));
  return h("tr", { "data-key": one.id }, name, [one.bytes, one.raw_bytes, one.again_bytes, one.rejected_bytes, one.trash_bytes, one.bytes_per_hour].map((value, index) => cell(HEADS[index + 1], value)));
}
