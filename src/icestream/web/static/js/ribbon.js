// The newest exposures as a ribbon of pictures.

import { pictureOf } from "./api.js";
import { h, path, picture } from "./dom.js";
import { ago } from "./format.js";

export const ribbon = (session, rows) => h("ul", { className: "ribbon" }, rows.map((row) =>
  h("li", { "data-key": row.unit, className: row.state.replaceAll(" ", "-") },
    h("a", { href: path("s", session, "exposures", row.unit), title: `${row.name}: ${row.state}, ${ago(row.arrived_at)}` },
      row.picture ? picture({ src: pictureOf(session, row.picture), alt: "", loading: "lazy", width: 112, height: 112 }) : h("span", { className: "none" }, row.state),
      h("span", { className: "name" }, h("bdi", null, row.name)), h("span", { className: "sr" }, `, ${row.state}`)))));
