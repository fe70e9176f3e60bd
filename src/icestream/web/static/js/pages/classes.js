// Wholes that have parts, such as 2D classes: their picture, a table of them, and a slider over the versions.

import { api, get, pictureOf } from "../api.js";
import { h, picture } from "../dom.js";
import { counted, moment, quantity } from "../format.js";

export const classesPage = ({ session, setSummary, refresh }) => {
  const versions = new Map();

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
    return [h("h1", null, "Classes"), shown.map((one, index) => gallery(one, newest[index])), h("p", { className: "soft small" }, h("a", { href: api("sessions", session, "galleries") }, "This page as JSON"))];
  }

  function gallery(one, newest) {
    const place = one.versions.indexOf(one.version);
    const pick = (event) => {
      const version = one.versions[Number(event.target.value)];
      version === newest.version ? versions.delete(one.step) : versions.set(one.step, version);
      refresh();
    };
    return h("section", { className: "card classes", "data-key": one.step },
      h("h2", null, one.title, " ", h("small", null, `${one.label}, version ${one.version} of ${newest.version}, ${counted(one.count, one.word)}, ${moment(one.at)}`)),
      one.versions.length > 1 && h("label", { className: "slider" }, h("span", { className: "soft small" }, "Version"),
        h("input", { type: "range", min: 0, max: one.versions.length - 1, step: 1, value: String(place), "aria-valuetext": `version ${one.version}`, oninput: pick })),
      h("div", { className: "wall" },
        one.picture ? picture({ src: pictureOf(session, one.picture), alt: `${one.picture.title} of version ${one.version}` }) : h("p", { className: "soft" }, "The picture of this version was removed; newer ones have replaced it."),
        h("div", { className: "scroll" }, h("table", null,
          h("thead", null, h("tr", null, one.columns.map((column) => h("th", { className: "n", scope: "col" }, column.label, column.unit && ` (${column.unit})`)))),
          h("tbody", null, one.rows.map((row) => h("tr", null, row.map((value) => h("td", { className: "n" }, quantity(value, "")))))))))
    );
  }
  return { draw };
};
