// Transfers: what is being copied to raw data or an archive, what was verified and removed, and what failed, file by file.

import { api, get, me } from "../api.js";
import { h } from "../dom.js";
import { ago, counted, moment, quantity, short, size, span } from "../format.js";

const STATES = ["verified", "removed", "failed", "refused", "copying", "removing"];
const PAGE = 50;

export const transferPage = ({ session, setSummary, refresh }) => {
  const address = session === null ? api("transfers") : api("sessions", session, "transfers");
  let state = "", text = "", shown = null, limit = PAGE;

  async function draw(signal) {
    const asked = new URLSearchParams({ limit, text });
    if (state) asked.set("state", state);
    if (shown !== null) asked.set("transfer", shown);
    const [found, page] = await Promise.all([get(`${address}?${asked}`, signal), session !== null && get(api("sessions", session), signal)]);
    if (page) setSummary(page);
    return [
      h("h1", null, session === null ? "Transfers of the facility" : "Transfer"),
      session === null && h("p", { className: "soft" }, "Between folders that belong to no session, by the account that this server runs under. Transfers of a session are on its own page."),
      found.alarms.map((one) => h("p", { className: "notice alert", "data-key": `alarm ${one.number}` }, h("b", null, one.what), ": ", one.detail, h("span", { className: "soft small" }, ` since ${moment(one.since)}`))),
      found.transfers.length === 0 ? nothing() : found.transfers.map((one) => transfer(one, found)),
      found.transfers.length > 0 && files(found),
      h("p", { className: "soft small" }, session !== null && me.operates && [h("a", { href: "/transfers" }, "Transfers of the facility"), " · "], h("a", { href: address }, "This page as JSON")),
    ];
  }

  const nothing = () => session === null ? h("p", { className: "card" }, "Nothing was transferred between folders that belong to no session.") : h("div", { className: "card" },
    h("p", null, "Nothing was transferred to or from the raw data of this session."),
    h("p", { className: "soft" }, "Files are copied from the disk of the microscope, or to an archive, by ", h("code", null, "icestream transfer SOURCE SESSION"), " or ", h("code", null, "icestream transfer SESSION ARCHIVE"), "."));

  function transfer(one, { shown: listed, transfers }) {
    const bad = one.doing === "paused" || one.doing === "interrupted";
    const now = [
      one.doing === "running" && quantity((one.bytes_per_s ?? 0) / 1e6, "MB/s"),
      one.waiting > 0 && `${counted(one.waiting, "file")} waiting (${size(one.waiting_bytes)})`,
      one.growing > 0 && `${short(one.growing)} being written`,
      one.remove_after_s === null ? "nothing is removed at the source" : `files are removed at the source ${span(one.remove_after_s)} after they were verified`,
    ];
    return h("article", { className: "card transfer", "data-key": String(one.id) },
      h("h2", null, h("bdi", null, one.source), " → ", h("bdi", null, one.target)),
      h("p", { className: bad ? "bad" : null }, h("b", null, one.doing), one.note !== null && `: ${one.note}`, h("span", { className: "soft small" }, ` since ${moment(one.doing === "interrupted" ? one.seen_at : one.since)}, seen ${ago(one.seen_at)}`)),
      h("p", { className: "soft small" }, now.filter(Boolean).join(" · ")),
      h("p", null, one.counts.length ? one.counts.map((each) => `${short(each.files)} ${each.state}${each.size_bytes > 0 ? ` (${size(each.size_bytes)})` : ""}`).join(" · ") : "no files yet"),
      transfers.length > 1 && one.id !== listed && h("p", { className: "buttons" }, h("button", { type: "button", "aria-label": `List the files of the transfer to ${one.target}`, onclick: () => { shown = one.id; limit = PAGE; refresh(); } }, "List its files")));
  }

  function files({ files: rows, more }) {
    return [
      h("h2", null, "Files"),
      h("p", { className: "buttons" },
        h("label", { className: "small" }, "State ", choice()),
        h("label", { className: "small" }, "Path has ", h("input", { type: "search", value: text, onchange: (event) => { text = event.target.value; limit = PAGE; refresh(); } }))),
      rows.length === 0 ? h("p", { className: "card" }, "No such files.") : h("div", { className: "card scroll", tabindex: 0 }, h("table", { className: "lines" },
        h("thead", null, h("tr", null, ["File", "State", "Size", "Verified", "Removed", "Notes"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", null, rows.map(file)))),
      more && limit < 200 && h("p", { className: "buttons" }, h("button", { type: "button", onclick: () => { limit = 200; refresh(); } }, "Show more")),
      more && limit >= 200 && h("p", { className: "soft small" }, "The newest 200 are shown; a state or a part of the path narrows them down."),
    ];
  }

  function choice() {
    const element = h("select", { onchange: (event) => { state = event.target.value; limit = PAGE; refresh(); } }, h("option", { value: "" }, "all"), STATES.map((one) => h("option", { value: one }, one)));
    element.value = state;
    return element;
  }

  const file = (one) => h("tr", { "data-key": `${one.name} ${one.size_bytes} ${one.state}` },
    h("td", null, h("bdi", null, one.name), one.target_name !== null && one.target_name !== one.name && h("div", { className: "soft small" }, "as ", h("bdi", null, one.target_name))),
    h("td", { className: one.state === "failed" ? "word bad" : "word", "data-name": "state" }, one.state),
    h("td", { className: "n", "data-name": "size" }, one.state === "refused" ? "–" : size(one.size_bytes)),
    h("td", { className: "soft small", "data-name": "verified" }, moment(one.verified_at)),
    h("td", { className: "soft small", "data-name": "removed" }, moment(one.removed_at)),
    h("td", null, one.reason, one.state === "failed" && one.retry_at !== null && h("div", { className: "soft small" }, `${counted(one.attempts, "attempt")}, again at ${moment(one.retry_at)}`), one.digest !== null && h("div", { className: "soft small digest", title: "BLAKE2b of 256 bits, as b2sum -l 256 prints it" }, one.digest.slice(0, 16), "…")));

  return { draw, ticks: true };
};
