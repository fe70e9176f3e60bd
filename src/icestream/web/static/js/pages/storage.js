// Storage: what a session holds by kind and step, what can be computed again, what was removed and can be undone, and raw data.

import { api, get, me, post } from "../api.js";
import { confirm, mayAct, toast } from "../act.js";
import { h } from "../dom.js";
import { ago, counted, moment, short, size, span } from "../format.js";

const NAMES = { raw: "Raw data", micrographs: "Micrographs", particles: "Particles", thumbnails: "Thumbnails", averages: "Averages and maps", metadata: "Metadata", other: "Store, exports, logs" };
const DERIVED = ["micrographs", "particles", "thumbnails", "metadata"];
export const storagePage = ({ session, setSummary, refresh }) => {
  let typed = null;
  const at = (...parts) => api("sessions", session, "storage", ...parts);

  async function draw(signal) {
    const [found, page] = await Promise.all([get(at(), signal), get(api("sessions", session), signal)]);
    setSummary(page);
    return [
      h("h1", null, "Storage"),
      h("p", { className: "soft" }, totals(found)),
      !found.complete && h("p", { className: "notice" }, "Files are still being looked at: these are sums so far."),
      bar(found),
      h("section", null, h("h2", null, "By kind"), kinds(found)),
      h("section", null, h("h2", null, "By step"), steps(found)),
      h("section", null, h("h2", null, "Removed"), removals(found)),
      h("section", null, h("h2", null, "Raw data"), raw(found, page.overview.name)),
      h("section", null, h("h2", null, "Rules"), rules(found)),
      h("p", { className: "soft small" }, me.single === null && [h("a", { href: "/storage" }, "Storage of all sessions"), " · "], h("a", { href: at() }, "This page as JSON")),
    ];
  }

  const totals = (found) => [
    `${size(found.bytes)} in the session`,
    found.bytes_per_hour !== null && `growing by ${size(found.bytes_per_hour)} an hour`,
    `${size(found.free_bytes)} free`,
    found.bytes_per_hour > 0 && `full in ${span((found.free_bytes / found.bytes_per_hour) * 3600)}`,
    found.trash_bytes > 0 && `${size(found.trash_bytes)} in the trash`,
    found.seen_at !== null && `files looked at ${ago(found.seen_at)}`,
  ].filter(Boolean).join(" · ");

  function bar(found) {
    const parts = found.kinds.filter((one) => one.kind !== "raw" && one.bytes > 0).map((one) => [one.kind, one.bytes]);
    if (found.trash_bytes > 0) parts.push(["trash", found.trash_bytes]);
    const total = parts.reduce((sum, [, bytes]) => sum + bytes, 0);
    if (total === 0) return null;
    const label = parts.map(([kind, bytes]) => `${NAMES[kind] ?? "Trash"} ${size(bytes)}`).join(", ");
    return h("figure", { className: "card" },
      h("div", { className: "held", role: "img", "aria-label": label }, parts.map(([kind, bytes]) => h("span", { className: `part ${kind}`, "data-key": kind, title: `${NAMES[kind] ?? "Trash"}: ${size(bytes)}`, style: { flexGrow: String(bytes / total) } }))),
      h("figcaption", { className: "keys small" }, parts.map(([kind, bytes]) => h("span", null, h("span", { className: `part ${kind}` }), ` ${NAMES[kind] ?? "Trash"} ${size(bytes)}`))));
  }

  function table(heads, rows) {
    return h("div", { className: "card" }, h("table", { className: "lines" }, h("thead", null, h("tr", null, heads.map((name) => h("th", { scope: "col" }, name)))), h("tbody", null, rows)));
  }

  function kinds(found) {
    const line = (one) => h("tr", { "data-key": one.kind }, h("td", null, h("b", null, NAMES[one.kind] ?? one.kind)),
      h("td", { "data-name": "files" }, short(one.files)), h("td", { "data-name": "size" }, size(one.bytes)),
      h("td", { "data-name": "can be computed again" }, DERIVED.includes(one.kind) ? size(one.again_bytes) : "–"), h("td", { "data-name": "of rejected exposures" }, DERIVED.includes(one.kind) ? size(one.rejected_bytes) : "–"),
      h("td", null, DERIVED.includes(one.kind) && mayAct() && h("button", { type: "button", "aria-label": `Remove ${one.kind}`, onclick: () => remove({ kinds: [one.kind] }, NAMES[one.kind].toLowerCase()) }, "Remove …")));
    return [
      table(["Kind", "Files", "Size", "Can be computed again", "Of rejected exposures", ""], found.kinds.map(line)),
      mayAct() && h("p", { className: "buttons" },
        h("button", { type: "button", onclick: () => remove({ rejected: true }, "files of rejected exposures") }, "Remove files of rejected exposures …"),
        found.removed_bytes > 0 && h("button", { type: "button", onclick: restore }, "Compute removed files again …")),
    ];
  }

  function steps(found) {
    if (found.steps.length === 0) return h("p", { className: "card" }, "No step has written a file yet.");
    return table(["Step", "Kind", "Files", "Size", "Of old revisions", "Can be computed again"], found.steps.map((one) => h("tr", { "data-key": `${one.step}/${one.kind}` },
      h("td", null, h("bdi", null, one.step)), h("td", { "data-name": "kind" }, NAMES[one.kind] ?? one.kind), h("td", { "data-name": "files" }, short(one.files)),
      h("td", { "data-name": "size" }, size(one.bytes)), h("td", { "data-name": "of old revisions" }, size(one.old_bytes)), h("td", { "data-name": "computed again" }, one.again ? "yes" : "no"))));
  }

  // The dry run comes first; what it says is what is asked about.
  async function remove(given, what) {
    let planned;
    try { planned = await post(at("plan"), given); } catch (error) { toast(error.message, "bad"); return; }
    const kept = Object.entries(planned.kept).map(([reason, count]) => h("li", null, `${counted(count, "file")} ${count === 1 ? "stays" : "stay"}: ${reason}`));
    if (planned.files === 0) {
      await confirm({ title: `Nothing to remove of ${what}`, text: "", more: h("ul", null, kept), verb: "All right" });
      return;
    }
    const hours = h("input", { id: "undo-hours", type: "number", min: 0, max: 8784, value: "72" });
    const more = h("div", null,
      h("ul", null, planned.lines.map((one) => h("li", null, h("bdi", null, one.step), `, ${NAMES[one.kind].toLowerCase()}: ${counted(one.files, "file")}, ${size(one.bytes)}`)), kept),
      h("label", { for: "undo-hours", className: "field" }, "Hours in which it can be undone", hours));
    const text = `${counted(planned.files, "file")} of ${counted(planned.exposures, "exposure")}, ${size(planned.bytes)}. All numbers stay. A step that needs such a file has it computed again first, which takes one worker about ${span(planned.seconds)} for all of them.`;
    const answer = await confirm({ title: `Remove ${what}?`, text, more, verb: "Remove", reason: true, danger: true });
    if (answer !== null) await tell(() => post(at("remove"), { ...given, undo_hours: Number(hours.value), reason: answer.reason }));
  }

  async function restore() {
    const answer = await confirm({ title: "Compute removed files again?", text: "Files in the trash are put back; the others are computed again while the session is running.", verb: "Compute again" });
    if (answer !== null) await tell(() => post(at("restore"), {}));
  }

  async function tell(asking) {
    try {
      const done = await asking();
      toast(done.text ?? "noted", done.state === "refused" ? "bad" : done.state === "asked" ? "odd" : "good");
    } catch (error) { toast(error.message, "bad"); return false; }
    refresh();
    return true;
  }

  function removals(found) {
    if (found.removals.length === 0) return h("p", { className: "card" }, "Nothing was removed.");
    const line = (one) => h("tr", { "data-key": String(one.id) },
      h("td", null, h("b", null, `No. ${one.id}`), ` ${counted(one.n_files, "file")}, ${size(one.n_bytes)}`),
      h("td", null, one.rule ? `rule ${one.rule}` : one.author, `, ${moment(one.at)}`, one.reason && h("div", { className: "soft small" }, h("bdi", null, one.reason))),
      h("td", { "data-name": "state" }, one.state === "gone" && one.n_left === 0 ? "computed again" : one.state),
      h("td", { "data-name": "goes for good" }, one.may_be_undone ? moment(one.goes_at) : "–"),
      h("td", null, one.may_be_undone && mayAct() && h("span", { className: "buttons" },
        h("button", { type: "button", "aria-label": `Undo removal ${one.id}`, onclick: () => undo(one) }, "Undo"),
        one.state === "trash" && h("button", { type: "button", "aria-label": `Delete removal ${one.id} now`, onclick: () => deleteNow(one) }, "Delete now …"))));
    return table(["Files", "By", "State", "Goes for good", ""], found.removals.map(line));
  }

  async function undo(one) {
    const answer = await confirm({ title: `Undo removal ${one.id}?`, text: `${counted(one.n_left, "file")}, ${size(one.bytes_left)}, put back from the trash.`, verb: "Undo" });
    if (answer !== null) await tell(() => post(at("undo"), { number: one.id }));
  }

  async function deleteNow(one) {
    const answer = await confirm({ title: `Delete removal ${one.id} for good?`, text: `${counted(one.n_left, "file")}, ${size(one.bytes_left)}, cannot be put back after this, only computed again.`, verb: "Delete", danger: true });
    if (answer !== null) await tell(() => post(at("empty"), { number: one.id }));
  }

  function raw(found, name) {
    const held = found.kinds.find((one) => one.kind === "raw");
    const administrates = me.here === "administrate";
    return [
      h("p", { className: "card" }, held ? `${counted(held.files, "raw file")}, ${size(held.bytes)}; a verified copy was found of ${short(found.raw_with_copy)}.` : "The session has taken no raw files.",
        " ", h("span", { className: "soft" }, "`icestream storage SESSION --verify FOLDER` compares them with a copy, byte for byte; verified transfers from their folder count as well. Without a copy they are never deleted. Deletion happens when `icestream storage --apply` runs, after the time for withdrawing.")),
      found.raw_deletions.length > 0 && table(["Deletion", "By", "State", "Deleted after", ""], found.raw_deletions.map((one) => h("tr", { "data-key": String(one.id) },
        h("td", null, h("b", null, `No. ${one.id}`), ` ${counted(one.n_files, "raw file")}, ${size(one.n_bytes)}`), h("td", null, one.author, one.note && h("div", { className: "soft small" }, one.note)),
        h("td", { "data-name": "state" }, one.state), h("td", { "data-name": "deleted after" }, moment(one.goes_at)),
        h("td", null, (one.state === "waiting" || one.state === "deleting") && administrates && h("button", { type: "button", "aria-label": `Withdraw deletion ${one.id}`, onclick: () => tell(() => post(at("raw", "withdraw"), { number: one.id })) }, "Withdraw"))))),
      administrates && held && found.raw_with_copy > 0 && h("p", { className: "buttons" }, h("button", { type: "button", className: "danger", onclick: () => deleteRaw(name) }, "Delete raw data …")),
    ];
  }

  async function deleteRaw(name) {
    let planned;
    try { planned = await post(at("raw", "plan"), { name: "" }); } catch (error) { toast(error.message, "bad"); return; }
    const input = h("input", { id: "typed-name", autocomplete: "off" });
    const hours = h("input", { id: "raw-hours", type: "number", min: 1, max: 8784, value: "72" });
    const kept = Object.entries(planned.kept).map(([reason, count]) => h("li", null, `${counted(count, "raw file")} ${count === 1 ? "stays" : "stay"}: ${reason}`));
    const more = h("div", null, h("ul", null, kept),
      h("label", { for: "raw-hours", className: "field" }, "Hours in which it can be withdrawn", hours),
      h("label", { for: "typed-name", className: "field" }, h("span", null, "Type the name of the session: ", h("bdi", null, name)), input));
    const near = planned.same_disk > 0 ? ` ${short(planned.same_disk)} of the copies are on the same disk, and would be lost with it.` : "";
    const text = `${counted(planned.files, "raw file")}, ${size(planned.bytes)}, with a verified copy.${near} Nothing is touched before the time has passed; then, when icestream storage --apply runs, each is compared with its copy once more, and deleted.`;
    const answer = await confirm({ title: "Delete raw data?", text, more, verb: "Delete raw data", reason: true, danger: true });
    if (answer === null) return;
    await tell(async () => {
      const done = await post(at("raw", "delete"), { name: input.value, undo_hours: Number(hours.value), reason: answer.reason });
      return { text: `${counted(done.n_files, "raw file")} ${done.n_files === 1 ? "is" : "are"} deleted after ${moment(done.goes_at)}`, state: "asked" };
    });
  }

  function rules({ rules: all, document: written, trouble }) {
    const about = (one) => `${one.kinds.join(", ")}${one.steps.length ? ` of ${one.steps.join(", ")}` : ""}`;
    return [
      trouble !== null && h("p", { className: "notice alert" }, trouble),
      all.length === 0 ? h("p", { className: "card" }, "There are no rules: nothing is removed unless somebody asks.")
        : table(["Rule", "Removes", "Of", "After", "Can be undone"], all.map((one) => h("tr", { "data-key": one.name }, h("td", null, h("b", null, one.name)), h("td", { "data-name": "removes" }, about(one)),
          h("td", { "data-name": "of" }, `${one.state} ${one.state === "finished" ? "sessions" : "exposures"}`), h("td", { "data-name": "after" }, `${short(one.after_hours)}\u00a0h`), h("td", { "data-name": "can be undone" }, `${short(one.undo_hours)}\u00a0h`)))),
      mayAct() && h("details", { className: "card" }, h("summary", null, "Rules of this session (storage.yaml)"),
        h("p", { className: "soft small" }, "A rule of the same name replaces that of the facility; names under without switch rules off. `icestream storage FOLDER --apply` carries them out."),
        h("label", { for: "storage-rules", className: "field" }, "YAML", h("textarea", { id: "storage-rules", rows: 10, spellcheck: "false", oninput: (event) => { typed = event.target.value; } }, typed ?? written)),
        h("p", { className: "buttons" }, h("button", { type: "button", className: "primary", onclick: () => save(written) }, "Check and save"))),
    ];
  }

  async function save(before) {
    if (await tell(() => post(at("rules"), { before, document: document.getElementById("storage-rules").value }))) typed = null;
  }
  return { draw, ticks: true };
};
