// Opening a link that was shared, and sharing one: who has it may look at one session until it expires.

import { api, get, openShare, post } from "../api.js";
import { doOnce, toast } from "../act.js";
import { h, path } from "../dom.js";
import { counted, moment } from "../format.js";

// The secret is behind the #, which browsers never send along: it stands in no log.
export const openSharePage = ({ go }) => {
  let trouble = null;
  return {
    async draw() {
      if (trouble === null) {
        const secret = location.hash.slice(1);
        history.replaceState(null, "", "/share");
        try {
          const session = await openShare(secret);
          window.setTimeout(() => go(path("s", session)), 0);
          return [h("h1", null, "Opening …")];
        } catch (error) {
          trouble = error.message;
        }
      }
      return [h("div", { className: "card narrow" }, h("h1", null, "Shared link"), h("p", { className: "bad", role: "alert" }, trouble), h("p", { className: "soft small" }, "Ask whoever gave it to you for another one."))];
    },
  };
};

const HOURS = [[8, "8 hours"], [24, "a day"], [72, "three days"], [168, "a week"], [720, "30 days"]];

export async function shareSession(session, name) {
  const note = h("input", { id: "share-note", maxlength: 200, autocomplete: "off" });
  const hours = h("select", { id: "share-hours" }, HOURS.map(([value, label]) => h("option", { value }, label)));
  hours.value = "24";
  const known = await get(api("sessions", session, "shares")).catch(() => []);
  const line = (one) => {
    const ended = one.withdrawn_at !== null ? "withdrawn" : one.expires_at * 1000 < Date.now() ? "expired" : null;
    const item = h("li", { className: "small" }, one.note || "no note", h("span", { className: "soft" }, `, by ${one.author}, ${ended ?? `until ${moment(one.expires_at)}`} `),
      !ended && h("button", { type: "button", className: "quiet", "aria-label": `Withdraw the link ${one.note || one.id}`, onclick: async () => {
        try { await post(api("sessions", session, "shares", one.id, "withdraw"), {}); item.remove(); toast("the link was withdrawn", "good"); } catch (error) { toast(error.message, "bad"); }
      } }, "Withdraw"));
    return item;
  };
  const made = await doOnce({ title: `Share ${name}?`, text: "Whoever has the link may look at this session, and at no other, until it expires. It is shown only once.", verb: "Make a link", wide: true, more: [
    h("label", { className: "field", for: "share-note" }, "For whom", note), h("label", { className: "field", for: "share-hours" }, "Expires after", hours),
    known.length > 0 && h("details", null, h("summary", null, `${counted(known.length, "link")} so far`), h("ul", null, known.map(line)))] },
  () => post(api("sessions", session, "shares"), { hours: Number(hours.value), note: note.value.trim() }));
  if (made === null) return;
  const address = location.origin + made.path;
  const box = h("input", { id: "share-link", readonly: true, value: address, "aria-label": "The link", onclick: (event) => event.target.select() });
  await doOnce({ title: "The link", text: `It opens ${name} until ${moment(made.expires_at)}.`, verb: "Copy", wide: true, more: h("div", { className: "field" }, box) }, async () => {
    box.select();
    try { await navigator.clipboard.writeText(address); toast("copied", "good"); } catch { toast(address); }
  });
}
