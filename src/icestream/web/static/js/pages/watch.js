// Watched folders: which acquisitions become sessions by themselves, what became of each, and what is asked of the watch.

import { api, get, post } from "../api.js";
import { confirm, toast } from "../act.js";
import { h, path } from "../dom.js";
import { ago, counted, moment } from "../format.js";

const VERBS = { take: "Take", ignore: "Leave alone", retry: "Try again" };

export const watchPage = ({ refresh }) => {
  let templates = null;

  async function draw(signal) {
    const [found, all] = await Promise.all([get(api("watches"), signal), templates ?? get(api("templates"), signal)]);
    templates = all.filter((one) => one.problem === null);
    return [
      h("h1", null, "Watched folders"),
      h("p", { className: "soft" }, "Each new acquisition in a watched folder becomes a session by itself, with the template that fits its name or that it names."),
      found.length === 0 && h("div", { className: "card" }, h("p", null, "No folder is watched."), h("p", { className: "soft" }, "A watch is started by ", h("code", null, "icestream watch FOLDER --template NAME --sessions FOLDER"), ".")),
      found.map(watch),
      h("p", { className: "soft small" }, h("a", { href: api("watches") }, "This page as JSON")),
    ];
  }

  function watch(one) {
    return h("section", { "data-key": one.root },
      h("h2", null, h("bdi", null, one.root), " ", h("small", null, one.pattern)),
      h("p", { className: one.watched_by === null ? "notice warning" : "soft" }, one.watched_by === null ? "Nobody is watching it now: start the watch again." : `Watched by process ${one.watched_by}.`),
      one.folders.length === 0 ? h("p", { className: "card" }, "No acquisition has been found in it yet.") : h("div", { className: "card" }, h("table", { className: "lines" },
        h("thead", null, h("tr", null, ["Folder", "State", "Since", "Session", "Notes", ""].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", null, one.folders.map((folder) => line(one, folder))))),
      one.more > 0 && h("p", { className: "soft small" }, `${counted(one.more, "further folder")} not listed.`));
  }

  const line = (one, folder) => h("tr", { "data-key": folder.name },
    h("td", null, h("b", null, h("bdi", null, folder.name))),
    h("td", { "data-name": "state", className: folder.alert || folder.phase === "fallen" ? "bad" : null }, folder.phase),
    h("td", { "data-name": "since" }, h("span", { title: moment(folder.since) }, ago(folder.since))),
    h("td", { "data-name": "session" }, folder.session === null ? "–" : h("a", { href: path("s", folder.session) }, h("bdi", null, folder.session))),
    h("td", { className: "small" }, [...folder.problems, folder.note, folder.template && `template ${folder.template}`].filter(Boolean).map((text) => h("div", null, text)),
      folder.asked !== null && h("div", { className: "soft" }, `asked: ${VERBS[folder.asked].toLowerCase()}`)),
    h("td", null, h("span", { className: "buttons" }, folder.may.map((what) => h("button", { type: "button", "aria-label": `${VERBS[what]}: ${folder.name}`, onclick: () => ask(one, folder, what) }, `${VERBS[what]} …`)))));

  async function ask(one, folder, what) {
    const choice = what === "take" ? h("select", { id: "take-template" }, h("option", { value: "" }, "as the watch chooses"), templates.map((each) => h("option", { value: each.name }, each.name))) : null;
    const texts = {
      take: "It becomes a session as soon as the first data are there.",
      ignore: "No session is made of it, until somebody takes it.",
      retry: "Its session is run again as soon as there is a place.",
    };
    const answer = await confirm({ title: `${VERBS[what]}: ${folder.name}?`, text: texts[what], verb: VERBS[what], more: choice && h("label", { for: "take-template", className: "field" }, "Template", choice) });
    if (answer === null) return;
    try {
      toast((await post(api("watches", "ask"), { root: one.root, folder: folder.name, what, template: choice?.value || null })).text, "good");
    } catch (error) { toast(error.message, "bad"); }
    refresh();
  }

  return { draw, ticks: true };
};
