// One exposure in full: its images with what lies on them, and for each step its numbers, pictures, curves and lineage.

import { api, get, pictureOf } from "../api.js";
import { act, mayAct } from "../act.js";
import { arrowsChart, curveChart, pathChart } from "../charts.js";
import { h, path, picture } from "../dom.js";
import { Drawings, particlesOf } from "../drawings.js";
import { capital } from "./session.js";
import { counted, moment, quantity, short, span } from "../format.js";
import { PickEditor } from "../picks.js";
import { openViewer } from "../viewer.js";

const ON_A_PAGE = 100;

export const exposurePage = ({ session, item, setSummary, refresh, go }) => {
  const hidden = new Set(), editor = new PickEditor(session, item, refresh), drawings = new Drawings(refresh), pages = new Map();
  let closeViewer = () => {};
  let around = { before: null, after: null }, title = item;
  const move = (event) => {
    if (event.target.closest?.("input, select, textarea, dialog, .editing") || event.altKey || event.ctrlKey || event.metaKey) return;
    const next = event.key === "ArrowLeft" ? around.before : event.key === "ArrowRight" ? around.after : null;
    if (next) go(path("s", session, "exposures", next));
  };
  document.addEventListener("keydown", move);

  async function draw(signal) {
    const [found, why, page] = await Promise.all([
      get(api("sessions", session, "exposures", item), signal),
      get(api("sessions", session, "exposures", item, "why"), signal),
      get(api("sessions", session), signal),
    ]);
    setSummary(page);
    around = found;
    title = found.name;
    return [
      h("p", { className: "trail" }, h("a", { href: path("s", session, "exposures") }, "Exposures"),
        h("span", { className: "right" }, step("← earlier", found.before), step("later →", found.after))),
      h("h1", null, h("bdi", null, found.name), " ", h("small", null, found.number === null ? "" : `no. ${found.number}`)),
      found.decisions.map((one) => h("p", { className: "notice warning small" }, `${one.step}: `, one.params ? `recomputed with parameters of its own by ${one.author}` : `${one.verdict}ed by hand by ${one.author}`, one.reason && `: ${one.reason}`)),
      found.steps.some((one) => one.status === null) && h("div", { className: "soft small" }, why.sentences.filter((one) => one.step !== null && found.steps.some((step) => step.step === one.step && step.status === null)).map((one) => h("p", null, one.step === null ? capital(one.sentence) : `${one.step}: ${one.sentence}`))),
      mayAct() && verdict(found),
      h("div", { className: found.images.length ? "exposure" : null },
        found.images.length > 0 && h("div", { className: "images" }, found.images.map((image) => imageCard(image))),
        h("div", { className: "steps" }, found.steps.filter(hasMuch).map((one) => card(one)), others(found.steps.filter((one) => !hasMuch(one))))),
      origin(found),
      h("p", { className: "soft small" }, h("a", { href: api("sessions", session, "exposures", found.unit) }, "This page as JSON")),
    ];
  }

  const step = (label, unit) => unit ? h("a", { href: path("s", session, "exposures", unit) }, label) : h("span", { className: "soft" }, label);

  function verdict(found) {
    const after = (done) => done && refresh();
    const decided = found.decisions.filter((one) => one.params === null);
    const ask = (verb, text, reason = true) => ({ title: `${verb} ${found.name}?`, text, verb, reason, danger: verb === "Reject" });
    const aside = found.steps.some((one) => one.status === "rejected");
    return h("p", { className: "buttons" },
      aside && h("button", { type: "button", onclick: () => act(session, ask("Accept", "The step that set it aside lets it through."), [["override", { unit: found.unit, verdict: "accept" }, true]]).then(after) }, "Accept"),
      !decided.some((one) => one.verdict === "reject") && h("button", { type: "button", onclick: () => act(session, ask("Reject", "No step uses it any more."), [["override", { unit: found.unit, verdict: "reject" }, true]]).then(after) }, "Reject"),
      decided.length > 0 && h("button", { type: "button", onclick: () => act(session, ask("Withdraw", "What was decided by hand ends; the steps decide again.", false),
        decided.map((one) => ["override", { unit: found.unit, verdict: "lift", step: one.step }])).then(after) }, "Withdraw the decision"));
  }

  const key = (image, overlay) => `${image.step} ${overlay.step}`;

  const circles = (image, overlay, index, properties = {}) => h("g", { className: `overlay colour-${index % 4}`, ...properties },
    overlay.xy.map(([x, y], place) => h("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: overlay.radius_px.toFixed(1), className: editor.isRemoved(overlay, place) ? "removed" : null })));

  function view(image) {
    const shown = image.overlays.map((overlay, index) => hidden.has(key(image, overlay)) ? null : circles(image, overlay, index)).filter(Boolean);
    closeViewer = openViewer(session, image, shown);
  }

  function imageCard(image) {
    const wide = image.width_px, high = image.height_px;
    return h("figure", { className: "card image", "data-key": image.step },
      h("div", { className: "frame", style: { aspectRatio: `${wide} / ${high}` } },
        picture({ src: pictureOf(session, image.picture), alt: `${image.label}`, width: wide, height: high }),
        h("svg", { viewBox: `0 0 ${wide} ${high}`, ...editor.surface(image) }, image.overlays.map((overlay, index) =>
          circles(image, overlay, index, { visibility: hidden.has(key(image, overlay)) || editor.isOther(image, overlay) ? "hidden" : "visible" })),
          editor.marks(image))),
      h("figcaption", null, h("b", null, image.label), numbers(image.numbers),
        image.overlays.map((overlay, index) => h("label", { className: `toggle colour-${index % 4}` },
          h("input", { type: "checkbox", checked: !hidden.has(key(image, overlay)), onchange: (event) => {
            event.target.checked ? hidden.delete(key(image, overlay)) : hidden.add(key(image, overlay));
            refresh();
          } }), h("i", null), `${overlay.label}: ${counted(overlay.count, overlay.word)}`, overlay.xy.length < overlay.count && ` (${short(overlay.xy.length)} drawn)`)),
        image.full && h("p", { className: "buttons" }, h("button", { type: "button", onclick: () => view(image) }, "Full resolution")),
        mayAct() && image.overlays.filter((overlay) => overlay.editable).map((overlay, _, all) => editor.controls(image, overlay, all.length > 1)),
        image.arrows && h("figure", { className: "motion" }, arrowsChart(image.arrows), h("figcaption", { className: "soft small" }, `${image.arrows.title.replace(/ up to$/, "")} over the field of view`))));
  }

  function card(one) {
    const state = one.status ?? "undecided";
    const tagged = { item: "done", rejected: "set-aside", failed: "failed" }[state] ?? "processing";
    return h("section", { className: "card result", "data-key": `${item} ${one.step}` },
      h("h2", null, one.label, " ", h("span", { className: `tag ${tagged}` }, { item: "done", rejected: "set aside" }[state] ?? state)),
      one.reason && h("p", { className: state === "failed" ? "bad" : "soft" }, one.reason),
      one.root && h("p", { className: "soft" }, `because of ${one.root}`),
      one.own_params && h("p", { className: "odd" }, capital(one.own_params)),
      one.results.map((result) => body(result)),
      recompute(one),
      h("details", null, h("summary", { className: "soft small" }, "Lineage and parameters"), lineage(one)));
  }

  const recompute = (one) => mayAct() && one.results.length > 0 && !one.forwards.length && Object.keys(one.params).length > 0 &&
    h("p", { className: "small" }, h("a", { href: `${path("s", session, "steps", one.step)}?${new URLSearchParams({ exposure: item, name: title })}` }, "Recompute with other values …"));

  const others = (steps) => steps.length > 0 && h("section", { className: "card result" }, h("h2", null, "Other steps"), steps.map((one) =>
    h("details", { className: "other", "data-key": one.step }, h("summary", null, one.label, " ", h("span", { className: "soft small" }, one.forwards.length ? `passes on ${one.forwards.join(", ")}` : { item: "done" }[one.status] ?? one.status ?? "undecided")), recompute(one), lineage(one))));

  function body(result) {
    return [
      numbers(result.numbers),
      result.warnings.map((text) => h("p", { className: "odd small" }, text)),
      result.texts.map((text) => h("p", { className: "soft small" }, text)),
      result.pictures.length > 0 && h("div", { className: "pictures" }, result.pictures.filter((one) => one.title !== "Image").map((one) =>
        h("figure", null, picture({ src: pictureOf(session, one), alt: one.title, loading: "lazy" }), h("figcaption", { className: "soft small" }, one.title)))),
      result.curves.map((curve) => h("figure", { className: "curve" }, curveChart(curve), h("figcaption", { className: "soft small" }, h("b", null, curve.title), curve.caption && `. ${curve.caption}`))),
      result.paths.map((one) => h("figure", { className: "motion" }, pathChart(one), h("figcaption", { className: "soft small" }, one.title))),
      result.particle_images > 0 && particles(result),
    ];
  }

  // Images of the particles, a hundred at a time; they are drawn when somebody wants to see them.
  function particles(result) {
    const count = result.particle_images, page = pages.get(result.key);
    const turn = (to) => () => { to === null ? pages.delete(result.key) : pages.set(result.key, to); refresh(); };
    if (page === undefined) return h("p", { className: "buttons" }, h("button", { type: "button", onclick: turn(0) }, `Show ${counted(count, "particle")}`));
    const first = page * ON_A_PAGE + 1, last = Math.min(count, first + ON_A_PAGE - 1), told = `Particles ${short(first)} to ${short(last)} of ${short(count)}`;
    return h("figure", { className: "particles" }, drawings.view(particlesOf(session, result.key, page), told),
      h("figcaption", { className: "buttons" }, h("span", { className: "soft small" }, `${told}, in the order of their numbers`),
        count > ON_A_PAGE && [h("button", { type: "button", disabled: page === 0, onclick: turn(page - 1) }, "Previous"), h("button", { type: "button", disabled: last === count, onclick: turn(page + 1) }, "Next")],
        h("button", { type: "button", onclick: turn(null) }, "Hide particles")));
  }

  function lineage(one) {
    const pairs = [
      ["Step", `${one.use} version ${one.type_version}, revision ${one.revision}`],
      ["Decided", moment(one.at)],
      ...Object.entries(one.params).map(([name, value]) => [name, JSON.stringify(value)]),
      ...one.bindings.map((text) => ["Used", text]),
      ...one.missing.map((text) => ["Missing", text]),
      ...(one.root ? [["Because of", one.root]] : []),
      ...(one.forwards.length ? [["Passes on", one.forwards.join(", ")]] : []),
      ...one.results.flatMap((result) => [
        [result.output, `${result.record_type} ${result.key}`],
        ["Made", `${moment(result.created_at)} on ${result.host}, ${result.software}, in ${span(result.wall_s)}`],
        ...Object.entries(result.inputs).flatMap(([port, keys]) => (keys.length ? [[`from ${port}`, keys.join(", ")]] : [])),
        ...result.files.map((file) => ["File", file]),
        ...Object.entries(result.fields).filter(([, value]) => value !== null).map(([name, value]) => [name, typeof value === "number" ? short(value) : String(value)]),
      ])];
    return h("dl", { className: "pairs small" }, pairs.map(([name, value]) => h("div", null, h("dt", { className: "soft" }, name), h("dd", null, h("bdi", null, value)))));
  }

  function origin(found) {
    const said = Object.entries(found.acquisition).filter(([, value]) => value !== null);
    return h("details", { className: "card" }, h("summary", null, "Where it comes from"),
      h("dl", { className: "pairs small" },
        [["Id", found.unit], ["Source", found.source ?? "–"], ["Arrived", moment(found.arrived_at)], ...found.files.map((file) => ["File", file]), ...said.map(([name, value]) => [name, typeof value === "number" ? short(value) : value])]
          .map(([name, value]) => h("div", null, h("dt", { className: "soft" }, name), h("dd", null, h("bdi", null, value))))));
  }

  return { draw, leave: () => { document.removeEventListener("keydown", move); closeViewer(); } };
};

const hasMuch = (one) => !["item", null].includes(one.status) && !one.root || one.own_params !== null ||
  one.results.some((result) => result.particle_images > 0 || [result.numbers, result.pictures, result.curves, result.paths, result.warnings].some((part) => part.length > 0));

const numbers = (told) => told.length > 0 && h("dl", { className: "numbers" }, told.map(([label, value, unit]) =>
  h("div", null, h("dt", { className: "soft small" }, label), h("dd", null, quantity(value, unit)))));
