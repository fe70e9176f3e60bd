// What failed, with tracebacks and a way to try again, and what was set aside.

import { api, get } from "../api.js";
import { act, mayAct } from "../act.js";
import { h, path } from "../dom.js";
import { counted, moment, short } from "../format.js";

export const failuresPage = ({ session, setSummary, refresh }) => {
  const retry = (title, given) => act(session, { title, text: "What failed is computed again: at once if the session is running, otherwise at its next run.", verb: "Retry" }, [["retry", given]]).then((done) => done && refresh());

  async function draw(signal) {
    const [found, page] = await Promise.all([get(api("sessions", session, "failures"), signal), get(api("sessions", session), signal)]);
    setSummary(page);
    const { overview } = page;
    return [
      h("h1", null, "Failures"),
      h("section", null,
        h("h2", null, "Failed ", h("small", null, short(overview.failed))),
        found.failed.length === 0 && h("p", { className: "card" }, "Nothing has failed."),
        found.failed.length > 0 && mayAct() && h("p", { className: "buttons" }, h("button", { type: "button", onclick: () => retry("Retry everything that failed?", {}) }, "Retry everything")),
        found.failed.length > 1 && reasons(found.failed_reasons),
        found.failed.map((one) => failure(one)),
        overview.failed > found.failed.length && h("p", { className: "soft small" }, `The newest ${found.failed.length} are shown.`)),
      h("section", null,
        h("h2", null, "Set aside ", h("small", null, short(overview.rejected))),
        reasons(found.rejected_reasons),
        found.rejected.length > 0 && h("details", { className: "card" }, h("summary", null, `The newest ${found.rejected.length}`), h("table", { className: "lines" }, h("tbody", null, found.rejected.map((one) =>
          h("tr", { "data-key": `${one.step} ${one.unit}` }, h("td", null, exposure(one)), h("td", { "data-name": "step" }, one.step), h("td", null, one.reason), h("td", { className: "soft small" }, moment(one.at)))))))),
      h("p", { className: "soft small" }, h("a", { href: api("sessions", session, "failures") }, "This page as JSON")),
    ];
  }

  const exposure = (one) => h("a", { href: path("s", session, "exposures", one.unit) }, h("bdi", null, one.exposure));

  function failure(one) {
    return h("article", { className: "card failure", "data-key": `${one.step} ${one.unit}` },
      h("h3", null, exposure(one), " ", h("span", { className: "soft" }, `at ${one.step}`)),
      h("p", { className: "bad" }, one.reason),
      h("p", { className: "soft small" }, [one.error_type, one.kind?.replaceAll("_", " "), counted(one.attempts, "attempt"), moment(one.at)].filter(Boolean).join(" · ")),
      one.notes.map((text) => h("p", { className: "soft small" }, text)),
      one.traceback && h("details", null, h("summary", { className: "soft small" }, "Traceback"), h("pre", { tabindex: 0 }, one.traceback)),
      mayAct() && h("p", { className: "buttons" }, h("button", { type: "button", "aria-label": `Retry ${one.exposure} at ${one.step}`, onclick: () => retry(`Retry ${one.exposure} at ${one.step}?`, { step: one.step, unit: one.unit }) }, "Retry")));
  }
  return { draw };
};

const reasons = (all) => all.length > 0 && h("div", { className: "card" }, h("table", { className: "lines" }, h("tbody", null, all.slice(0, 30).map((one) =>
  h("tr", null, h("td", { className: "n" }, short(one.count)), h("td", { "data-name": "at" }, one.step), h("td", null, one.reason || "no reason was given"))))));
