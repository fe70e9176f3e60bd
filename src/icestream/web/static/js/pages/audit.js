// What people did through this server.

import { get } from "../api.js";
import { h, path } from "../dom.js";
import { moment } from "../format.js";

const PAGE = 100;

export const auditPage = ({ refresh }) => {
  const borders = [null];

  async function draw(signal) {
    const before = borders.at(-1), words = new URLSearchParams({ limit: PAGE, ...(before === null ? {} : { before }) });
    const rows = await get(`/api/v1/audit?${words}`, signal);
    const turn = (change) => { change(); refresh(); };
    return [
      h("h1", null, "What people did"),
      rows.length ? h("div", { className: "card" }, h("table", { className: "lines" },
        h("thead", null, h("tr", null, ["When", "Who", "Where", "What", "Result"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", null, rows.map((one) => h("tr", { "data-key": one.id }, h("td", { className: "soft small when" }, moment(one.at)),
          h("td", null, h("b", null, one.who ?? "somebody"), h("div", { className: "soft small" }, one.address ?? "")),
          h("td", null, one.session ? h("a", { href: path("s", one.session) }, h("bdi", null, one.session)) : "–"),
          h("td", null, one.session ? one.action.split("/").slice(2).join("/") : one.action, h("div", { className: "soft small" }, h("bdi", null, one.detail))),
          h("td", { className: one.status >= 400 ? "bad" : "soft" }, one.status < 400 ? "done" : `refused (${one.status})`)))))) : h("p", { className: "card" }, "Nobody has done anything yet."),
      h("p", { className: "pager" },
        h("button", { type: "button", disabled: borders.length === 1, onclick: () => turn(() => borders.pop()) }, "Newer"),
        h("button", { type: "button", disabled: rows.length < PAGE, onclick: () => turn(() => borders.push(rows.at(-1).id)) }, "Older")),
      h("p", { className: "soft small" }, h("a", { href: "/api/v1/audit" }, "This page as JSON")),
    ];
  }
  return { draw };
};
