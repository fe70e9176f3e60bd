// What people did, what they should see, and what the runner wrote down.

import { api, get } from "../api.js";
import { h } from "../dom.js";
import { moment } from "../format.js";
import { notice } from "./session.js";

export const logPage = ({ session, setSummary, refresh }) => {
  let level = "info";

  async function draw(signal) {
    const [history, log, page] = await Promise.all([
      get(api("sessions", session, "history"), signal),
      get(`${api("sessions", session, "log")}?level=${level}`, signal),
      get(api("sessions", session), signal),
    ]);
    setSummary(page);
    return [
      h("h1", null, "History and log"),
      h("h2", null, "What people did"),
      h("div", { className: "card scroll" }, history.entries.length ? h("table", { className: "lines" }, h("tbody", null, history.entries.map((one) =>
        h("tr", null, h("td", { className: "soft small when" }, moment(one.at)), h("td", null, one.author ? h("b", null, one.author) : "", " ", one.what),
          h("td", { className: one.state === "refused" ? "bad small" : "soft small" }, one.state, one.answer && `: ${one.answer}`))))) : h("p", null, "Nobody has done anything yet.")),
      history.notices.length > 0 && [h("h2", null, "Notices"), h("div", { className: "card scroll" }, history.notices.map(notice))],
      h("h2", null, "Log ", h("label", { className: "small" }, h("span", { className: "sr" }, "level"), choice())),
      h("div", { className: "card scroll log", tabindex: 0 }, log.lines.length ? log.lines.map(line) : h("p", null, "No such lines.")),
      h("p", { className: "soft small" }, h("a", { href: api("sessions", session, "history") }, "The history as JSON"), " · ", h("a", { href: api("sessions", session, "log") }, "the log as JSON")),
    ];
  }

  function choice() {
    const element = h("select", { onchange: (event) => { level = event.target.value; refresh(); } }, ["debug", "info", "warning", "error"].map((one) => h("option", { value: one }, one)));
    element.value = level;
    return element;
  }
  return { draw };
};

const line = (one) => h("p", { className: `small ${one.level}` }, h("span", { className: "soft" }, one.time.replace("T", " ").slice(0, 19), " "), one.level !== "info" && h("b", null, one.level, " "), one.event, " ",
  h("span", { className: "soft" }, Object.entries(one.about).map(([name, value]) => `${name}=${value}`).join("  ")));
