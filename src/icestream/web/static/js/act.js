// Acting: each action asks once, says what became of it, and is recorded with the name of who asked.

import { api, me, post } from "./api.js";
import { h } from "./dom.js";

// What may be done here: in the session that is shown, or in some.
export const mayAct = () => ["operate", "administrate"].includes(me.here ?? me.role);
export const mayShare = () => me.here === "administrate" && me.sign_in;

export function toast(text, kind = "info") {
  const note = h("p", { className: `toast ${kind}` }, text);
  document.getElementById("toasts").append(note);
  window.setTimeout(() => note.remove(), kind === "bad" ? 12000 : 6000);
}

export function confirm({ title, text, verb, more = null, reason = false, danger = false, wide = false }) {
  return new Promise((resolve) => {
    const input = reason ? h("input", { id: "reason", name: "reason", maxlength: 500, autocomplete: "off" }) : null;
    const done = (value) => { dialog.close(); dialog.remove(); resolve(value); };
    const form = h("form", { onsubmit: (event) => { event.preventDefault(); done({ reason: input?.value.trim() ?? "" }); } },
      h("h2", { id: "asks" }, title),
      text && h("p", null, text),
      more,
      input && h("label", { for: "reason", className: "field" }, "Why (recorded in the history)", input),
      h("p", { className: "buttons" },
        h("button", { type: "button", onclick: () => done(null) }, "Cancel"),
        h("button", { type: "submit", className: danger ? "danger" : "primary" }, verb)));
    const dialog = h("dialog", { "aria-labelledby": "asks", className: wide ? "wide" : null }, form);
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); done(null); });
    document.body.append(dialog);
    dialog.showModal();
    (input ?? form.querySelector("button[type=submit]")).focus();
  });
}

// Ask once, do it, and say what became of it; a refusal is told.
export async function doOnce(question, work) {
  const answer = await confirm(question);
  if (answer === null) return null;
  try {
    return await work(answer);
  } catch (error) {
    toast(error.message, "bad");
    return null;
  }
}

async function send(session, kind, given) {
  const answer = await post(api("sessions", session, "actions"), { kind, arguments: given });
  return answer;
}

// Ask, send one or several commands, and say what became of them.
export async function act(session, question, commands) {
  const answer = await confirm(question);
  if (answer === null) return false;
  try {
    const answers = [];
    for (const [kind, given, takesReason] of commands) {
      answers.push(await send(session, kind, takesReason ? { ...given, reason: answer.reason } : given));
    }
    for (const state of ["refused", "asked", "done"]) {
      const mine = answers.filter((one) => one.state === state);
      const kinds = { refused: "bad", asked: "odd", done: "good" };
      if (mine.length) toast(mine.length > 3 ? `${mine.length} times: ${mine[0].text}` : mine.map((one) => one.text).join("; "), kinds[state]);
    }
  } catch (error) {
    toast(error.message, "bad");
    return false;
  }
  return true;
}
