// Alarms: what is wrong, since when, in how many exposures; who has seen it; what was sent; and the rules, which are edited here.

import { api, get, post } from "../api.js";
import { confirm, mayAct, toast } from "../act.js";
import { h, path } from "../dom.js";
import { ago, counted, moment, short } from "../format.js";
import { watched } from "./monitors.js";

export const alarmsPage = ({ session, setSummary, refresh }) => {
  let typed = null;
  const at = (...parts) => api("sessions", session, "alarms", ...parts);

  async function draw(signal) {
    const [found, page] = await Promise.all([get(at(), signal), get(api("sessions", session), signal)]);
    setSummary(page);
    const grave = (one) => Number(one.alarm.severity === "critical");
    const open = found.alarms.filter((one) => one.alarm.ended_at === null).sort((a, b) => grave(b) - grave(a)), over = found.alarms.filter((one) => one.alarm.ended_at !== null);
    const failed = found.deliveries.filter((one) => one.error !== null && (one.state === "failed" || one.state === "pending"));
    return [
      h("h1", null, "Alarms"),
      watched(found.watched),
      failed.length > 0 && h("section", null, h("h2", null, "Messages that were not taken ", h("small", null, short(failed.length))), h("div", { className: "card" }, h("table", { className: "lines" }, h("tbody", null, failed.slice(0, 20).map(undelivered))))),
      h("section", null, h("h2", null, "Open ", h("small", null, short(open.length))),
        open.length === 0 && h("p", { className: "card" }, "No alarm is open."), open.map(line)),
      over.length > 0 && h("section", null, h("h2", null, "Over ", h("small", null, short(over.length))), over.slice(0, 50).map(line)),
      h("section", null, h("h2", null, "Rules"), channels(found), rules(found)),
      h("p", { className: "soft small" }, h("a", { href: at() }, "This page as JSON")),
    ];
  }

  function line({ alarm, acknowledged_by, acknowledged_at, note }) {
    const over = alarm.ended_at !== null;
    return h("article", { className: `card alarm ${over ? "over" : alarm.severity}`, "data-key": String(alarm.number) },
      h("h3", null, !over && h("span", { className: `state ${alarm.severity}` }, alarm.severity), " ", alarm.what, " ", h("span", { className: "soft small" }, `no. ${alarm.number}`)),
      h("p", null, h("bdi", null, alarm.detail)),
      h("p", { className: "soft small" }, [alarm.subject, `since ${moment(alarm.since)} (${ago(alarm.since)})`, over && `over at ${moment(alarm.ended_at)}: ${alarm.ended_because}`, alarm.exposures !== null && counted(alarm.exposures, "exposure")].filter(Boolean).join(" · ")),
      alarm.first !== null && h("p", { className: "soft small" }, "first ", exposure(alarm.first, alarm.first_unit), alarm.newest !== alarm.first && [", newest ", exposure(alarm.newest, alarm.newest_unit)]),
      h("p", null, "Look at ", alarm.page ? h("a", { href: path("s", session, ...alarm.page.split("/")) }, alarm.look_at) : h("span", null, alarm.look_at)),
      acknowledged_by !== null && h("p", { className: "soft small" }, `acknowledged by ${acknowledged_by}, ${moment(acknowledged_at)}${note ? `: ${note}` : ""}`),
      !over && acknowledged_by === null && mayAct() && h("p", { className: "buttons" }, h("button", { type: "button", "aria-label": `Acknowledge alarm ${alarm.number}`, onclick: () => acknowledge(alarm) }, "Acknowledge")));
  }

  const exposure = (name, unit) => unit === null ? h("bdi", null, name) : h("a", { href: path("s", session, "exposures", unit) }, h("bdi", null, name));

  async function acknowledge(alarm) {
    const answer = await confirm({ title: `Acknowledge alarm ${alarm.number}?`, text: "Nobody is reminded of it any more. It ends by itself when all is well again.", verb: "Acknowledge", reason: true });
    if (answer !== null) await tell(() => post(at("acknowledge"), { numbers: [alarm.number], note: answer.reason }), () => "acknowledged");
  }

  async function tell(asking, words) {
    try { toast(words(await asking()), "good"); } catch (error) { toast(error.message, "bad"); return false; }
    refresh();
    return true;
  }

  const undelivered = (one) => h("tr", { "data-key": String(one.id) }, h("td", null, one.channel), h("td", { "data-name": "message" }, one.number === 0 ? "test" : `${one.event}, alarm ${one.number}`),
    h("td", null, one.error), h("td", { className: "soft small" }, `${counted(one.attempts, "attempt")}, ${one.state === "pending" ? `again at ${moment(one.due_at)}` : "given up"}`));

  function channels({ channels: names }) {
    if (!names.length) return h("p", { className: "card" }, "Alarms are only shown here: the facility has no channels. ICESTREAM_ALARMS names the file that has them.");
    const test = (name) => tell(() => post(at("test"), { channel: name }), (done) => done.map((one) => `${one.channel}: ${one.error ?? "taken"}`).join("; "));
    return h("p", { className: "buttons" }, h("span", { className: "soft" }, "Sent to ", names.join(", "), "."), mayAct() && names.map((name) => h("button", { type: "button", onclick: () => test(name) }, `Test ${name}`)));
  }

  function rules({ rules: all, document: written }) {
    const told = ([name, value]) => `${name.replaceAll("_", " ")} ${Array.isArray(value) ? value.join(", ") : value}`;
    return [
      h("div", { className: "card" }, h("table", { className: "lines" },
        h("thead", null, h("tr", null, ["Rule", "Kind", "Severity", "Settings"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", null, all.map((one) => h("tr", { "data-key": one.name }, h("td", null, h("b", null, one.name)), h("td", { className: "word", "data-name": "kind" }, one.kind.replaceAll("_", " ")), h("td", { className: "word", "data-name": "severity" }, one.severity), h("td", null, Object.entries(one.settings).map(told).join(", "), one.about_nothing && h("div", { className: "soft small" }, "no step of this session measures this yet"))))))),
      mayAct() && h("details", { className: "card" }, h("summary", null, "Rules of this session (alarms.yaml)"),
        h("p", { className: "soft small" }, "A rule of the same name replaces that of the facility, or a default; names under without switch rules off."),
        h("label", { for: "rules", className: "field" }, "YAML", h("textarea", { id: "rules", rows: 14, spellcheck: "false", oninput: (event) => { typed = event.target.value; } }, typed ?? written)),
        h("p", { className: "buttons" }, h("button", { type: "button", className: "primary", onclick: () => save(written) }, "Check and save"))),
    ];
  }

  async function save(before) {
    const done = await tell(() => post(at("rules"), { before, document: document.getElementById("rules").value }), () => "saved; the rules hold from the next look on");
    if (done) typed = null;
  }
  return { draw, ticks: true };
};
