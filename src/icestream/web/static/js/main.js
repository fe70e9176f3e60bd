// The frame around all pages: who you are, where you are, what the session does; and the way from an address to a page.

import { Refused, api, learnMe, me, post, seenPulse, signOut } from "./api.js";
import { act, doOnce, mayAct, mayShare, toast } from "./act.js";
import { h, patch, path } from "./dom.js";
import { Live } from "./live.js";
import { alarmsPage } from "./pages/alarms.js";
import { auditPage } from "./pages/audit.js";
import { buildPage } from "./pages/build.js";
import { classesPage } from "./pages/classes.js";
import { exposurePage } from "./pages/exposure.js";
import { exposuresPage } from "./pages/exposures.js";
import { facilityStoragePage } from "./pages/facility_storage.js";
import { failuresPage } from "./pages/failures.js";
import { logPage } from "./pages/log.js";
import { mapPage } from "./pages/map.js";
import { monitorsPage } from "./pages/monitors.js";
import { sessionPage } from "./pages/session.js";
import { sessionsPage } from "./pages/sessions.js";
import { seriesPage } from "./pages/series.js";
import { openSharePage, shareSession } from "./pages/share.js";
import { signInPage } from "./pages/signin.js";
import { startPage } from "./pages/start.js";
import { stepPage } from "./pages/step.js";
import { storagePage } from "./pages/storage.js";
import { transferPage } from "./pages/transfer.js";
import { trendsPage } from "./pages/trends.js";
import { volumesPage } from "./pages/volumes.js";
import { watchPage } from "./pages/watch.js";

const TABS = [["", "Workflow"], ["exposures", "Exposures"], ["series", "Series"], ["classes", "Classes"], ["volumes", "Volumes"], ["map", "Map"], ["failures", "Failures"], ["monitors", "Monitors"], ["alarms", "Alarms"], ["storage", "Storage"], ["transfer", "Transfer"], ["log", "Log"]];
const PAGES = { "": sessionPage, exposures: exposuresPage, series: seriesPage, classes: classesPage, volumes: volumesPage, map: mapPage, failures: failuresPage, monitors: monitorsPage, alarms: alarmsPage, storage: storagePage, transfer: transferPage, log: logPage };
const ITEM_PAGES = { exposures: exposurePage, steps: stepPage };
const OWN_PAGES = { build: buildPage, new: startPage, storage: facilityStoragePage, trends: trendsPage, watch: watchPage, transfers: transferPage, transfer: transferPage, audit: auditPage, share: openSharePage };
const SOONEST_MS = 400;

const top = document.getElementById("top"), content = document.getElementById("content");
let shown = null, summary = null, connected = null, wanted = null, timer = null, running = null, again = false, moved = false;

const live = new Live((told) => { wanted = told.pulse ?? null; refreshSoon(0); }, (state) => { connected = state; drawTop(); });

export function go(address) {
  history.pushState(null, "", address);
  moved = true;
  window.scrollTo(0, 0);
  arrive();
}

function where() {
  const parts = location.pathname.split("/").filter(Boolean).map(decodeURIComponent);
  if (OWN_PAGES[parts[0]]) return { page: OWN_PAGES[parts[0]], session: null, tab: parts[0], item: parts[1] ?? null };
  if (parts[0] !== "s") return { page: sessionsPage, session: null, tab: null, item: null };
  const [, session, tab = "", item = null] = parts;
  const page = item !== null && ITEM_PAGES[tab] ? ITEM_PAGES[tab] : PAGES[tab];
  return { page: page ?? sessionPage, session: session ?? null, tab, item };
}

async function arrive() {
  shown?.page.leave?.();
  const place = where();
  if (me.name === null || place.tab === "share") me.here = null;
  if (me.name === null && place.tab !== "share") {
    live.follow(null);
    show({ ...place, page: signInPage(async () => { await arrive(); }) });
    return;
  }
  if (place.session === null && place.tab === null && me.single !== null) {
    history.replaceState(null, "", path("s", me.single));
    arrive();
    return;
  }
  if (place.session !== shown?.session) { summary = null; wanted = null; }
  show({ ...place, page: place.page({ session: place.session, item: place.item, go, refresh: () => refreshSoon(0), setSummary }) });
  live.follow(place.tab === "share" ? null : place.session === null ? "/api/v1/events" : api("sessions", place.session, "events"));
}

function show(place) {
  const same = shown?.key === keyOf(place);
  shown = { ...place, key: keyOf(place), controller: new AbortController() };
  document.title = [place.item, TABS.find(([tab]) => tab === place.tab)?.[1], place.session, "icestream"].filter(Boolean).join(" – ");
  if (!same) content.replaceChildren(h("p", { className: "soft" }, "Loading …"));
  drawTop();
  refresh().then(() => { if (moved && !same) content.focus({ preventScroll: true }); });
}

const keyOf = (place) => `${place.session}/${place.tab}/${place.item}`;

function setSummary(found) {
  summary = found;
  drawTop();
}

// At most one refresh at a time and one in `SOONEST_MS`; what comes meanwhile is seen by the next.
function refreshSoon(ms) {
  if (running !== null) { again = true; return; }
  if (timer === null) timer = window.setTimeout(refresh, ms);
}

async function refresh() {
  window.clearTimeout(timer);
  timer = null;
  const mine = shown;
  running = mine;
  again = false;
  try {
    const fresh = h("div", { "data-key": mine.key }, await mine.page.draw(mine.controller.signal));
    if (mine === shown) {
      content.firstElementChild ? patch(content.firstElementChild, fresh) : content.replaceChildren(fresh);
      mine.page.drawn?.(content);
    }
  } catch (error) {
    if (mine === shown && error.name !== "AbortError") await complain(error);
  }
  if (mine !== shown) return;
  running = null;
  const behind = mine.session !== null && wanted !== null && seenPulse() !== wanted;
  if (again || behind) timer = window.setTimeout(refresh, SOONEST_MS);
}

async function complain(error) {
  if (!(error instanceof Refused)) {
    console.error(error);
    content.replaceChildren(h("div", null, h("p", { className: "notice alert" }, `This page could not be drawn: ${error.message}`)));
    return;
  }
  if (error.status === 401) {
    await learnMe();
    if (me.name === null) { arrive(); return; }
  }
  content.replaceChildren(h("div", null, h("p", { className: "notice alert" }, error.message)));
}

function drawTop() {
  const session = shown?.session ?? null;
  const fresh = h("div", { className: "bar" },
    h("a", { href: "/", className: "brand" }, h("img", { src: "/static/icon.svg", alt: "", width: 22, height: 22 }), "icestream"),
    session !== null && h("span", { className: "crumb" }, h("bdi", null, summary?.overview.name ?? session)),
    session !== null && summary && statePill(summary),
    h("span", { className: "right" },
      session !== null && summary && controls(session, summary),
      h("span", { className: `live ${connected === null ? "" : connected ? "on" : "off"}`, title: connected ? "changes appear by themselves" : "no connection to the server" }, connected === false ? "no connection" : "live"),
      me.name !== null && h("span", { className: "soft small who" }, me.name, (me.here ?? me.role) === "look" && " (may look)"),
      me.operates && h("a", { href: "/transfers", className: "small who" }, "Transfers"),
      me.audits && h("a", { href: "/audit", className: "small who" }, "Audit"),
      me.sign_in && me.name !== null && h("button", { type: "button", className: "quiet", onclick: leave }, "Sign out")),
    session !== null && me.name !== null && h("nav", { "aria-label": "Pages of the session" }, TABS.map(([tab, label]) =>
      h("a", { href: path("s", session, ...(tab ? [tab] : [])), "aria-current": shown.tab === tab ? "page" : null }, label,
        tab === "failures" && summary?.overview.failed > 0 && h("span", { className: "count" }, summary.overview.failed),
        tab === "alarms" && summary?.alarms > 0 && h("span", { className: "count" }, summary.alarms)))));
  top.firstElementChild ? patch(top.firstElementChild, fresh) : top.replaceChildren(fresh);
}

function statePill({ overview }) {
  const state = overview.pause && overview.runner.alive ? "paused" : overview.runner.state;
  return h("span", { className: `state ${state.replaceAll(" ", "-")}` }, state);
}

function controls(session, { overview }) {
  if (!mayAct()) return null;
  const share = mayShare() && h("button", { type: "button", onclick: () => shareSession(session, overview.name) }, "Share");
  const name = overview.name, alive = overview.runner.alive, refreshAfter = (done) => done && refreshSoon(0);
  const pause = { title: `Pause ${name}?`, text: "Running work finishes and nothing new starts, until somebody resumes the session.", verb: "Pause", reason: true };
  const resume = { title: `Resume ${name}?`, text: overview.pause ? `It is ${sentence(overview.pause)}.` : "", verb: "Resume" };
  const stop = { title: `Stop ${name}?`, text: "The runner ends once running work has finished. Nothing is lost: Start continues from there.", verb: "Stop", danger: true };
  const start = { title: `Start ${name}?`, text: "A runner continues where the last one ended, as a process of its own.", verb: "Start" };
  const run = () => doOnce(start, async () => { const { pid } = await post(api("sessions", session, "runner"), {}); toast(`running as process ${pid}`, "good"); refreshSoon(0); });
  return [
    share,
    !alive && h("button", { type: "button", onclick: run }, "Start"),
    overview.pause?.kind === "person"
      ? h("button", { type: "button", onclick: () => act(session, resume, [["resume", {}]]).then(refreshAfter) }, "Resume")
      : overview.runner.state !== "finished" && h("button", { type: "button", onclick: () => act(session, pause, [["pause", {}, true]]).then(refreshAfter) }, "Pause"),
    alive && h("button", { type: "button", onclick: () => act(session, stop, [["stop", {}]]).then(refreshAfter) }, "Stop"),
  ];
}

const sentence = (pause) => `paused by ${pause.author ?? "itself"}${pause.reason ? `: ${pause.reason}` : ""}`;

async function leave() {
  try { await signOut(); } catch (error) { toast(error.message, "bad"); }
  arrive();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || link.target) return;
  const address = link.getAttribute("href");
  if (!address.startsWith("/") || address.startsWith("/api/") || address.startsWith("/static/")) return;
  event.preventDefault();
  go(address);
});
window.addEventListener("popstate", arrive);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { content.replaceChildren(); refreshSoon(0); });
window.setInterval(() => { if (!document.hidden && shown?.page.ticks) refreshSoon(0); }, 5000);

learnMe().then(arrive, (error) => complain(error));
