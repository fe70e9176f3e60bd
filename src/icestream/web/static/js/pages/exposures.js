// All exposures: newest first or sorted by anything that was measured, filtered, page by page; accept and reject.

import { api, get, pictureOf } from "../api.js";
import { act, mayAct } from "../act.js";
import { h, path, picture } from "../dom.js";
import { ago, counted, moment, quantity, short } from "../format.js";
import { ribbon } from "../ribbon.js";

const PAGE = 50, FIRST_COLUMNS = 6;

export const exposuresPage = ({ session, setSummary, refresh }) => {
  const asked = { sort: "number", descending: true, text: "", state: "", measure: "", low: "", high: "", offset: 0, ...fromAddress() };
  const chosen = new Set();
  let columns = recall(session), typing = null;

  function change(values) {
    Object.assign(asked, { offset: 0 }, values);
    const kept = Object.entries(asked).filter(([name, value]) => value !== "" && !(name === "sort" && value === "number") && !(name === "descending" && value === true) && !(name === "offset" && value === 0));
    history.replaceState(null, "", location.pathname + (kept.length ? "?" + new URLSearchParams(kept.map(([name, value]) => [name, String(value)])) : ""));
    refresh();
  }

  function address() {
    const words = new URLSearchParams({ sort: asked.sort, descending: asked.descending, text: asked.text, offset: asked.offset, limit: PAGE });
    if (asked.state) words.set("state", asked.state);
    if (asked.measure && (asked.low !== "" || asked.high !== "")) words.set("range", `${asked.measure},${asked.low},${asked.high}`);
    return api("sessions", session, "exposures") + "?" + words;
  }

  async function draw(signal) {
    const first = asked.sort === "number" && asked.descending && asked.offset === 0;
    const [found, page] = await Promise.all([get(address(), signal), get(api("sessions", session), signal)]);
    setSummary(page);
    columns ??= usual(found.columns);
    const visible = found.columns.filter((one) => columns.includes(one.id));
    return [
      h("h1", null, "Exposures ", h("small", null, found.matching === found.total ? short(found.total) : `${short(found.matching)} of ${short(found.total)}`)),
      first && found.rows.length > 0 && ribbon(session, found.rows.slice(0, 24)),
      filters(found.columns),
      mayAct() && selection(),
      found.rows.length ? table(found, visible) : h("p", { className: "card" }, found.total ? "No exposure fits." : "No exposure has arrived yet."),
      pager(found),
      h("p", { className: "soft small" }, h("a", { href: address() }, "This page as JSON")),
    ];
  }

  function filters(all) {
    const number = (name, label) => h("label", null, h("span", { className: "soft small" }, label),
      h("input", { name, type: "number", step: "any", value: asked[name], disabled: !asked.measure, onchange: (event) => change({ [name]: event.target.value }) }));
    return h("form", { className: "card filters", role: "search", onsubmit: (event) => event.preventDefault() },
      h("label", null, h("span", { className: "soft small" }, "Name has"), h("input", { name: "text", type: "search", maxlength: 200, value: asked.text, oninput: (event) => {
        window.clearTimeout(typing);
        const text = event.target.value;
        typing = window.setTimeout(() => change({ text }), 300);
      } })),
      h("label", null, h("span", { className: "soft small" }, "State"), select("state", asked.state, [["", "any"], ..."failed,set aside,processing,done".split(",").map((one) => [one, one])], (state) => change({ state }))),
      h("label", { className: "wide" }, h("span", { className: "soft small" }, "Measure between"), select("measure", asked.measure, [["", "–"], ...all.map((one) => [one.id, long(one)])], (measure) => change({ measure, low: "", high: "" }))),
      number("low", "at least"), number("high", "at most"),
      h("details", { className: "columns" }, h("summary", null, "Columns"), h("div", { className: "choices" }, all.map((one) =>
        h("label", { className: "small" }, h("input", { type: "checkbox", checked: columns.includes(one.id), onchange: (event) => {
          columns = event.target.checked ? [...columns, one.id] : columns.filter((id) => id !== one.id);
          remember(session, columns);
          refresh();
        } }), " ", long(one))))));
  }

  function selection() {
    const named = [...chosen];
    const ask = (verb, text) => ({ title: `${verb} ${counted(named.length, "exposure")}?`, text, verb, reason: true, danger: verb === "Reject" });
    const send = (verdict) => named.map((unit) => ["override", { unit, verdict }, true]);
    const after = (done) => { if (done) { chosen.clear(); refresh(); } };
    return h("p", { className: "selection" }, h("span", { className: "soft" }, named.length ? `${counted(named.length, "exposure")} selected` : "Select exposures to accept or reject them."), " ",
      named.length > 0 && [
        h("button", { type: "button", onclick: () => act(session, ask("Accept", "The steps that set them aside let them through. The decision lasts until it is withdrawn."), send("accept")).then(after) }, "Accept"),
        h("button", { type: "button", onclick: () => act(session, ask("Reject", "No step uses them any more. The decision lasts until it is withdrawn."), send("reject")).then(after) }, "Reject"),
        h("button", { type: "button", className: "quiet", onclick: () => { chosen.clear(); refresh(); } }, "Select none")]);
  }

  function table(found, visible) {
    const steps = new Set(visible.map((one) => one.label)).size < visible.length;
    return h("div", { className: "card wide-table" }, h("table", { className: "exposures" },
      h("thead", null, h("tr", null,
        mayAct() && h("th", null, h("span", { className: "sr" }, "selected")),
        head("number", "No.", "", "n"), h("th", null, h("span", { className: "sr" }, "picture")), head("name", "Name", "", ""), h("th", { scope: "col" }, "State"),
        visible.map((one) => head(one.id, one.label, [one.unit, steps ? one.step_label : ""].filter(Boolean).join(" · "), "n", one.origin)))),
      h("tbody", null, found.rows.map((row) => line(row, visible)))));
  }

  function head(id, label, unit, className, origin = "") {
    const sorted = asked.sort === id;
    return h("th", { className, scope: "col", title: origin || null, "aria-sort": sorted ? (asked.descending ? "descending" : "ascending") : "none" },
      h("button", { type: "button", className: "sorter", onclick: () => change({ sort: id, descending: sorted ? !asked.descending : id === "number" }) },
        label, sorted && h("span", { "aria-hidden": "true" }, asked.descending ? " ↓" : " ↑")), unit && h("span", { className: "soft unit" }, unit));
  }

  function line(row, visible) {
    const address = path("s", session, "exposures", row.unit);
    return h("tr", { "data-key": row.unit, className: chosen.has(row.unit) ? "chosen" : null },
      mayAct() && h("td", null, h("input", { type: "checkbox", "aria-label": `select ${row.name}`, checked: chosen.has(row.unit), onchange: (event) => {
        event.target.checked ? chosen.add(row.unit) : chosen.delete(row.unit);
        refresh();
      } })),
      h("td", { className: "n soft" }, String(row.number)),
      h("td", { className: "thumb" }, row.picture && picture({ src: pictureOf(session, row.picture), alt: "", loading: "lazy", width: 40, height: 40 })),
      h("td", null, h("a", { href: address }, h("bdi", null, row.name)), h("div", { className: "soft small", title: moment(row.arrived_at) }, ago(row.arrived_at))),
      h("td", { className: "small" }, h("span", { className: `tag ${row.state.replaceAll(" ", "-")}` }, row.state),
        row.marks.slice(0, 2).map((mark) => h("div", { className: "soft reason" }, `${mark.step}: ${mark.reason}`)),
        row.marks.length > 2 && h("div", { className: "soft" }, `and ${row.marks.length - 2} more steps`),
        row.decisions.map((text) => h("div", { className: "odd" }, text))),
      visible.map((one) => h("td", { className: "n", "data-name": one.label }, quantity(row.values[one.id], ""))));
  }

  function pager(found) {
    const end = asked.offset + found.rows.length;
    if (found.matching <= PAGE) return null;
    return h("p", { className: "pager" },
      h("button", { type: "button", disabled: asked.offset === 0, onclick: () => change({ offset: Math.max(0, asked.offset - PAGE) }) }, "Back"),
      h("span", null, `${asked.offset + 1} to ${end} of ${short(found.matching)}`),
      h("button", { type: "button", disabled: end >= found.matching, onclick: () => change({ offset: end }) }, "Next"));
  }

  return { draw, ticks: true };
};

const long = (one) => `${one.label}${one.unit ? ` (${one.unit})` : ""}, ${one.step_label}`;

function select(name, value, options, onPick) {
  const element = h("select", { name, onchange: (event) => onPick(event.target.value) }, options.map(([key, label]) => h("option", { value: key }, label)));
  element.value = value;
  return element;
}

// The first measures of each step, until somebody chooses; what several steps measure alike, once.
function usual(all) {
  const rank = (one) => all.filter((other) => other.step === one.step).indexOf(one);
  const once = all.filter((one, index) => all.findIndex((other) => other.label === one.label) === index);
  const best = once.filter((one) => rank(one) < 2).sort((a, b) => rank(a) - rank(b)).slice(0, FIRST_COLUMNS);
  return all.filter((one) => best.includes(one)).map((one) => one.id);
}

function recall(session) {
  try { return JSON.parse(localStorage.getItem(`columns ${session}`)); } catch { return null; }
}

function remember(session, columns) {
  try { localStorage.setItem(`columns ${session}`, JSON.stringify(columns)); } catch { return; }
}

function fromAddress() {
  const found = Object.fromEntries(new URLSearchParams(location.search));
  if (found.descending !== undefined) found.descending = found.descending === "true";
  if (found.offset !== undefined) found.offset = Math.max(0, Number.parseInt(found.offset, 10) || 0);
  return found;
}
