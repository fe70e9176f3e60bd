// One session: how it stands, the newest exposures, and the workflow with counts, rates and what each step is waiting for.

import { api, get, post } from "../api.js";
import { act, mayAct, toast } from "../act.js";
import { h, path } from "../dom.js";
import { ago, moment, perHour, quantity, short, span } from "../format.js";
import { drawGraph } from "../graph.js";
import { drawLanes, layOut } from "../lanes.js";
import { ribbon } from "../ribbon.js";

export const sessionPage = ({ session, setSummary, refresh, go }) => ({
  ticks: true,
  async draw(signal) {
    const [page, newest] = await Promise.all([
      get(api("sessions", session), signal),
      get(api("sessions", session, "exposures") + "?limit=24", signal),
    ]);
    setSummary(page);
    return [
      h("h1", { className: "sr" }, page.overview.name),
      page.silence && h("p", { className: "notice alert" }, `The runner ${page.silence}.`),
      page.pause && h("p", { className: "notice warning" }, capital(page.pause), "."),
      figures(page),
      newest.rows.length > 0 && h("section", { "aria-label": "Newest exposures" },
        h("h2", null, "Newest exposures ", h("a", { href: path("s", session, "exposures"), className: "more" }, "all")), ribbon(session, newest.rows)),
      h("h2", null, "Workflow ", goOn(session, page, refresh), building(session, go)),
      page.waiting.filter((text) => text !== page.pause).map((text) => h("p", { className: "soft" }, capital(text), ".")),
      graphOf(session, page),
      workflow(session, page, refresh),
      page.notices.length > 0 && [h("h2", null, "Notices"), h("div", { className: "card scroll" }, page.notices.map(notice))],
      conditions(page),
      h("p", { className: "soft small" }, h("a", { href: api("sessions", session) }, "This page as JSON")),
    ];
  },
});

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1).replace(/\.$/, "");

const LONG_UNIT = 4; // beside a large number there is room for no longer one

function figures({ overview, arrivals, headlines }) {
  const all = [
    ["Exposures", short(overview.exposures), arrivals.at === null ? "none yet" : `the last ${ago(arrivals.at)}`],
    ["Arriving", quantity(arrivals.per_hour, "/h"), "in the hour before the last one"],
    ...headlines.map((one) => one.unit.length > LONG_UNIT ? [one.label, short(one.value), `${one.unit}, ${one.caption}`] : [one.label, quantity(one.value, one.unit), one.caption]),
    ["Set aside", short(overview.rejected), "by filters and people"],
    ["Failed", short(overview.failed), overview.failed ? "see Failures" : "nothing", overview.failed > 0],
  ];
  return h("dl", { className: "figures" }, all.map(([label, value, caption, bad]) =>
    h("div", { className: bad ? "card bad" : "card" }, h("dt", { className: "soft small" }, label), h("dd", null, h("b", null, value), h("span", { className: "soft small" }, caption)))));
}

// What people closed, reset or paused, and what failed, goes on with one command.
function goOn(session, page, refresh) {
  if (!mayAct() || !(page.overview.failed || page.overview.pause || page.steps.some(({ step }) => step.marks.drained !== null))) return null;
  const question = { title: `Continue ${page.overview.name}?`, text: "A pause ends, what was closed or reset by hand opens again, and what failed is retried.", verb: "Continue" };
  return h("button", { type: "button", className: "quiet", onclick: () => act(session, question, [["continue", {}]]).then((done) => done && refresh()) }, "Continue everything");
}

// Changing the workflow, or making a template of it, begins with a draft.
function building(session, go) {
  if (!mayAct()) return null;
  const begin = (edit) => async () => {
    try { go(path("build", String((await post("/api/v1/drafts", { session, edit })).id))); } catch (error) { toast(error.message, "bad"); }
  };
  return [h("button", { type: "button", className: "quiet", onclick: begin(true) }, "Change the workflow"), h("button", { type: "button", className: "quiet", onclick: begin(false) }, "Make a template of it")];
}

// What a step is doing, in a word; what needs somebody comes first.
function stateOf({ step }) {
  if (step.counts.failed) return "failed";
  if (step.marks.drained !== null) return "drained";
  if (step.stream === "closed" && step.counts.waiting + step.counts.running === 0) return "closed";
  if (step.counts.running) return "running";
  return step.counts.waiting ? "waiting" : "idle";
}

function graphOf(session, page) {
  const nodes = page.steps.map((one) => ({ id: one.step.name, state: stateOf(one), content: nodeOf(session, one) }));
  const edges = page.steps.flatMap(({ step, inputs }) => inputs.map((from) => ({ from, to: step.name })));
  return drawGraph({ label: "Graph of the workflow", nodes, edges, height: 86 });
}

function nodeOf(session, one) {
  const { step, inputs, waiting, marks } = one, state = stateOf(one);
  const told = PARTS.map(([key, word]) => [key, word, step.counts[key]]).filter(([key, , count]) => count || key === "item");
  const why = [...said(step, waiting), ...marks][0] ?? "";
  return [
    h("a", { href: path("s", session, "steps", step.name), className: "strong plain name" }, step.label),
    h("span", { className: "sr" }, `, ${state}${inputs.length ? `, reads ${inputs.join(", ")}` : ""}`),
    share(told),
    h("span", { className: "small counts" }, h("b", null, short(step.counts.item)), step.counts.failed > 0 && h("a", { href: path("s", session, "failures"), className: "bad" }, `${short(step.counts.failed)} failed`),
      step.counts.rejected > 0 && h("span", { className: "soft" }, `${short(step.counts.rejected)} set aside`), h("span", { className: "soft right" }, step.pace.per_minute === null ? "" : perHour(step.pace.per_minute))),
    h("span", { className: "small soft why", title: step.note ?? why }, step.note ? `✎ ${step.note}` : why),
  ];
}

function workflow(session, page, refresh) {
  const { rows, width } = layOut(page.steps);
  return h("ol", { className: "card workflow" }, page.steps.map((one, index) =>
    h("li", { "data-key": one.step.name, className: one.step.counts.failed ? "has-failed" : null }, drawLanes(rows[index], width), stepRow(session, page, one, refresh))));
}

// Of a step that has closed and has nothing left, why it closed says all.
const said = (step, waiting) => (step.stream === "closed" && step.counts.waiting + step.counts.running === 0 ? [`closed: ${step.stream_reason}`] : waiting);

const PARTS = [["item", "done"], ["rejected", "set aside"], ["failed", "failed"], ["skipped", "skipped"], ["absent", "absent"], ["running", "running"], ["waiting", "waiting"]];

function stepRow(session, page, one, refresh) {
  const { step, inputs, marks, waiting, medians } = one;
  const told = PARTS.map(([key, word]) => [key, word, step.counts[key]]).filter(([key, , count]) => count || key === "item");
  return h("div", { className: "step" },
    h("div", { className: "what" },
      h("a", { href: path("s", session, "steps", step.name), className: "strong plain" }, step.label), " ",
      h("span", { className: "soft small" }, [step.label !== step.name && step.name, step.use !== step.name && step.use, step.revision > 1 && `revision ${step.revision}`].filter(Boolean).join(" · ")),
      inputs.length > 0 && h("span", { className: "sr" }, `, reads ${inputs.join(", ")}`),
      step.note && h("div", { className: "small note" }, step.note),
      h("div", { className: "small reason" }, [...said(step, waiting), ...marks].map((text) => h("div", null, text)))),
    h("div", { className: "progress" }, share(told),
      h("div", { className: "small counts" }, told.map(([key, word, count]) => h("span", { className: key === "failed" ? "bad" : null },
        key === "failed" ? h("a", { href: path("s", session, "failures") }, `${short(count)} ${word}`) : `${short(count)} ${word}`)))),
    h("div", { className: "rate small" },
      h("span", { title: "results an hour, over the last ten minutes" }, perHour(step.pace.per_minute), trend(step.pace.trend)),
      h("span", { className: "soft", title: "median time for one" }, step.pace.median_wall_s === null ? "" : `${span(step.pace.median_wall_s)} each`)),
    h("div", { className: "medians small" }, medians.map((median) => h("span", { title: `median of the newest ${median.n}; the newest is ${quantity(median.newest, median.unit)}` },
      h("span", { className: "soft" }, median.label), " ", quantity(median.median, median.unit)))),
    mayAct() && h("div", { className: "actions" }, stepActions(session, page, one, refresh)));
}

function share(told) {
  return h("div", { className: "share", role: "img", "aria-label": told.map(([, word, count]) => `${count} ${word}`).join(", ") },
    told.filter(([, , count]) => count).map(([key, , count]) => h("i", { className: key, style: { flexGrow: String(count) } })));
}

const trend = (word) => word && h("span", { className: "soft", title: `${word} against the mean` }, { rising: " ↗", steady: " →", falling: " ↘" }[word]);

function stepActions(session, page, { step, waiting }, refresh) {
  const after = (done) => done && refresh();
  const closed = step.stream === "closed", drained = step.marks.drained !== null;
  const close = { title: `Close ${step.label}?`, text: "It takes nothing new and finishes what it is doing; then it and the steps downstream of it close. Reopening undoes this.", verb: "Close", danger: true };
  const reopen = { title: `Reopen ${step.label}?`, text: "It takes exposures again, those that have arrived in the meantime too.", verb: "Reopen" };
  const release = { title: `Open ${step.label}?`, text: "What the gate holds goes on to the steps downstream of it.", verb: "Open" };
  const button = (label, question, command) => h("button", { type: "button", className: "quiet", "aria-label": `${label} ${step.name}`, onclick: () => act(session, question, [command]).then(after) }, label);
  return [
    step.kind === "gate" && step.params.manual === true && !closed && button("Open", release, ["release", { step: step.name }]),
    drained ? button("Reopen", reopen, ["reopen", { step: step.name }]) : !closed && step.revision !== null && button("Close", close, ["close", { step: step.name }]),
  ];
}

export const notice = (one) => h("p", { className: `notice small ${one.over ? "info" : one.level}` }, one.message, one.over && h("span", { className: "soft" }, " (over)"), " ",
  h("span", { className: "soft" }, [one.step, moment(one.at)].filter(Boolean).join(", ")));

function conditions(page) {
  const known = page.conditions.filter((one) => one.value !== null);
  return known.length > 0 && [h("h2", null, "Microscope"), h("dl", { className: "card pairs" }, known.map((one) =>
    h("div", null, h("dt", { className: "soft" }, one.label), h("dd", null, quantity(one.value, one.unit), h("span", { className: "soft small" }, one.said_by === "files" ? " from the files" : "")))))];
}
