// What an edit would do, asked before it is done: how many results are computed again, and how long that takes.

import { api, post } from "./api.js";
import { act, toast } from "./act.js";
import { h } from "./dom.js";
import { short, span } from "./format.js";

const CHANGES = { new: "new", revised: "changed", gone: "removed", again: "some again", rebuilt: "rebuilt" };

export function planTable(plan) {
  if (!plan.steps.length) return h("p", null, "Nothing would be computed again.");
  const more = plan.at_most ? ` and up to ${short(plan.at_most)} more` : "";
  const time = plan.seconds === null ? "; how long that takes is not known" : plan.seconds > 0 ? `, about ${span(plan.seconds)} with ${plan.cores} cores` : "";
  return [
    h("p", { className: "strong", "data-plan": plan.computed }, `${short(plan.computed)} results to compute${more}${time}.`),
    h("div", { className: "scroll", tabindex: 0, role: "region", "aria-label": "What would be computed" }, h("table", { className: "plan small" },
      h("thead", null, h("tr", null, ["Step", "", "Computed", "Decided again", "Reused", "Time"].map((name, index) => h("th", { className: index > 1 ? "n" : null, scope: "col" }, name || h("span", { className: "sr" }, "change"))))),
      h("tbody", null, plan.steps.map((one) => h("tr", null, h("td", null, one.step), h("td", { className: "soft" }, CHANGES[one.change]),
        h("td", { className: "n" }, (one.exact ? "" : "about ") + (one.at_most ? `up to ${short(one.computed + one.at_most)}` : short(one.computed))),
        h("td", { className: "n" }, one.decided ? short(one.decided) : ""), h("td", { className: "n" }, one.reused ? short(one.reused) : ""),
        h("td", { className: "n" }, one.seconds === null ? "unknown" : one.seconds ? span(one.seconds) : "")))))),
  ];
}

// Foresee an edit, ask once with what it would do, and do it. Gives what is wrong with fields, or null.
export async function foreseeAndAct(session, question, kind, given) {
  let plan;
  try {
    plan = await post(api("sessions", session, "plans"), { kind, arguments: given });
  } catch (error) {
    if (!Object.keys(error.fields ?? {}).length) toast(error.message, "bad");
    return { done: false, wrong: error.fields ?? {} };
  }
  const takesReason = ["set", "branch", "change_steps", "recompute"].includes(kind);
  const done = await act(session, { ...question, more: planTable(plan), reason: takesReason, wide: true }, [[kind, given, takesReason]]);
  return { done, wrong: {} };
}
