// Wholes that have parts, such as 2D classes: a wall with stable places, a table, a slider over the versions; selecting by hand, members.

import { api, get, pictureOf } from "../api.js";
import { mayAct } from "../act.js";
import { h, path, picture } from "../dom.js";
import { Drawings, membersOf } from "../drawings.js";
import { counted, moment, quantity, short } from "../format.js";
import { foreseeAndAct } from "../plan.js";

const GAP_PX = 2;

export const classesPage = ({ session, setSummary, refresh }) => {
  const versions = new Map(), orders = new Map(), choices = new Map(), sizes = new Map(), drawings = new Drawings(refresh);
  let looking = null;

  async function draw(signal) {
    const [newest, page] = await Promise.all([get(api("sessions", session, "galleries"), signal), get(api("sessions", session), signal)]);
    setSummary(page);
    if (!newest.length) return [h("h1", null, "Classes"), h("p", { className: "card" }, "No step has made classes yet.")];
    const shown = await Promise.all(newest.map(async (one) => {
      const version = versions.get(one.step);
      if (version === undefined || version === one.version) return one;
      const words = new URLSearchParams({ step: one.step, version });
      return (await get(`${api("sessions", session, "galleries")}?${words}`, signal))[0] ?? one;
    }));
    const members = looking && await get(`${api("sessions", session, "galleries", looking.step, "members")}?part=${looking.id}`, signal).catch((error) => ({ trouble: error.message }));
    await Promise.all(shown.map((one) => one.ids.length > 0 && one.picture && measure(pictureOf(session, one.picture))));
    return [h("h1", null, "Classes"), shown.map((one, index) => gallery(one, newest[index], members)), h("p", { className: "soft small" }, h("a", { href: api("sessions", session, "galleries") }, "This page as JSON"))];
  }

  // The size of a picture, once; null where its file is gone.
  async function measure(address) {
    if (sizes.has(address)) return;
    const image = new Image();
    image.src = address;
    try { await image.decode(); sizes.set(address, [image.naturalWidth, image.naturalHeight]); } catch { sizes.set(address, null); }
  }

  // The square of each part in the picture; null where the picture is not made of such squares.
  function squares(one) {
    const size = one.picture && sizes.get(pictureOf(session, one.picture));
    if (!size || !one.ids.length) return null;
    const rows = Math.ceil(one.ids.length / one.in_a_row), side = (size[0] + GAP_PX) / one.in_a_row - GAP_PX;
    if (!Number.isInteger(side) || side < 4 || (size[1] + GAP_PX) / rows - GAP_PX !== side) return null;
    return { size, side, at: (place) => [(place % one.in_a_row) * (side + GAP_PX), Math.floor(place / one.in_a_row) * (side + GAP_PX)] };
  }

  function gallery(one, newest, members) {
    const place = one.versions.indexOf(one.version), cut = squares(one), select = one.selecting[0];
    const pick = (event) => {
      const version = one.versions[Number(event.target.value)];
      version === newest.version ? versions.delete(one.step) : versions.set(one.step, version);
      refresh();
    };
    return h("section", { className: "card classes", "data-key": one.step },
      h("h2", null, one.title, " ", h("small", null, `${one.label}, version ${one.version} of ${newest.version}, ${counted(one.count, one.word)}, ${moment(one.at)}`)),
      one.versions.length > 1 && h("label", { className: "slider" }, h("span", { className: "soft small" }, "Version"),
        h("input", { type: "range", min: 0, max: one.versions.length - 1, step: 1, value: String(place), "aria-valuetext": `version ${one.version}`, oninput: pick })),
      cut && tools(one, select),
      h("div", { className: cut ? "wall cells" : "wall" },
        cut ? wall(one, cut, select) : one.picture ? picture({ src: pictureOf(session, one.picture), alt: `${one.picture.title} of version ${one.version}` }) : h("p", { className: "soft" }, "The picture of this version was removed; newer ones have replaced it."),
        h("div", null, looking?.step === one.step && memberList(members), h("div", { className: "scroll", tabindex: 0 }, table(one, select)))));
  }

  // Rows in the order that was chosen; unless one was, each class stays at its place.
  function ordered(one) {
    const column = orders.get(one.step) ?? "place", rows = one.ids.map((id, row) => ({ id, row, place: one.places[row] }));
    if (column === "place") return rows.sort((a, b) => a.place - b.place);
    const value = ({ row }) => one.rows[row][column] ?? -Infinity;
    return rows.sort((a, b) => value(b) - value(a) || a.place - b.place);
  }

  function tools(one, select) {
    const order = h("select", { onchange: (event) => { orders.set(one.step, event.target.value === "place" ? "place" : Number(event.target.value)); refresh(); } },
      h("option", { value: "place" }, "place"), one.columns.map((column, index) => h("option", { value: index }, column.label.toLowerCase())));
    order.value = String(orders.get(one.step) ?? "place");
    const mine = select && choices.get(select.step), by = (verdict) => [...(mine ?? [])].filter(([, good]) => good === verdict).length;
    return h("div", { className: "selection" }, h("label", null, h("span", { className: "soft small" }, "Sorted by "), order),
      select && h("span", { className: "soft" }, `${select.label} keeps ${short(Object.values(select.selected).filter(Boolean).length)} of ${short(one.ids.length)} classes`),
      select && mayAct() && mine?.size > 0 && [
        h("span", { className: "odd", role: "status" }, [by(true) && `${by(true)} to keep`, by(false) && `${by(false)} to set aside`].filter(Boolean).join(", ")),
        h("button", { type: "button", className: "primary", onclick: () => apply(select) }, "Apply …"),
        h("button", { type: "button", onclick: () => { choices.delete(select.step); refresh(); } }, "Undo")],
      select && mayAct() && !mine?.size && select.keep.length + select.drop.length > 0 && h("button", { type: "button", className: "quiet", onclick: () => send(select, { keep: [], drop: [] }, "What was decided about classes by hand ends.") }, "Withdraw all decisions by hand"));
  }

  const isGood = (select, id) => choices.get(select.step)?.get(id) ?? select.selected[id] ?? false;

  function wall(one, cut, select) {
    return h("ol", { className: "tiles" }, ordered(one).map(({ id, row, place }) => {
      const [x, y] = cut.at(place), good = select ? isGood(select, id) : null, chosen = select && choices.get(select.step)?.has(id);
      const view = h("svg", { viewBox: `${x} ${y} ${cut.side} ${cut.side}`, "aria-hidden": "true" }, h("image", { href: pictureOf(session, one.picture), width: cut.size[0], height: cut.size[1] }));
      const label = `class ${id}${good === null ? "" : good ? ", kept" : ", set aside"}`;
      const toggle = () => {
        const mine = choices.get(select.step) ?? new Map();
        const wanted = !good;
        (select.selected[id] ?? false) === wanted ? mine.delete(id) : mine.set(id, wanted);
        mine.size ? choices.set(select.step, mine) : choices.delete(select.step);
        refresh();
      };
      return h("li", { "data-key": id, className: [good === false && "aside", good && "kept", chosen && "chosen"].filter(Boolean).join(" ") || null },
        select && mayAct() ? h("button", { type: "button", className: "tile", "aria-pressed": good ? "true" : "false", "aria-label": label, onclick: toggle }, view, h("span", { className: "mark", "aria-hidden": "true" }, good ? "✓" : "–"))
          : h("span", { className: "tile", role: "img", "aria-label": label }, view),
        h("button", { type: "button", className: "quiet", "aria-label": `members of class ${id}`, onclick: () => { looking = looking?.step === one.step && looking.id === id ? null : { step: one.step, id }; refresh(); } }, `${id}: ${short(one.rows[row][1])}`));
    }));
  }

  function memberList(members) {
    if (members.trouble) return h("div", { className: "members" }, h("p", { className: "soft small" }, members.trouble));
    return h("div", { className: "members" }, h("h3", null, `Members of class ${members.part}`),
      h("p", { className: "soft small" }, `${counted(members.particles, "particle")} of the newest ${counted(members.looked_at, "exposure")}, as they were assigned when they came`),
      members.particles > 0 && h("figure", { className: "particles" }, drawings.view(membersOf(session, looking.step, members.part, `${members.particles} ${members.exposures[0].unit}`), `The newest particles of class ${members.part}`)),
      h("div", { className: "scroll", tabindex: 0 }, h("table", { className: "small" }, h("tbody", null, members.exposures.map((one) =>
        h("tr", null, h("td", null, h("a", { href: path("s", session, "exposures", one.unit) }, h("bdi", null, one.name))), h("td", { className: "n" }, `${short(one.count)} of ${short(one.of)}`)))))));
  }

  function table(one, select) {
    const rows = one.ids.length ? ordered(one).map(({ id, row }) => [one.rows[row], select ? isGood(select, id) : null]) : one.rows.map((row) => [row, null]);
    return h("table", null,
      h("thead", null, h("tr", null, one.columns.map((column) => h("th", { className: "n", scope: "col" }, column.label, column.unit && ` (${column.unit})`)))),
      h("tbody", null, rows.map(([row, good]) => h("tr", { className: good === false ? "soft" : null }, row.map((value) => h("td", { className: "n" }, quantity(value, "")))))));
  }

  function apply(select) {
    const mine = choices.get(select.step), decided = new Set(mine.keys());
    const merged = (known, good) => [...known.filter((id) => !decided.has(id)), ...[...mine].filter(([, one]) => one === good).map(([id]) => id)].sort((a, b) => a - b);
    send(select, { keep: merged(select.keep, true), drop: merged(select.drop, false) }, "Classes keep their ids, so the decision holds for later versions too.");
  }

  async function send(select, params, text) {
    const { done } = await foreseeAndAct(session, { title: `Change what ${select.label} keeps?`, text, verb: "Apply" }, "set", { step: select.step, params });
    if (done) { choices.delete(select.step); refresh(); }
  }
  return { draw };
};
