// The grid as a picture to scale: squares, holes and atlas in µm on the stage, moved and zoomed by mouse, finger or keyboard.

import { pictureOf } from "./api.js";
import { h } from "./dom.js";
import { counted, quantity, short } from "./format.js";

// Viridis, which every kind of colour vision orders alike, from low to high.
const COLOURS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const NEAR = 1.5, FAR = 16, STEP = 1.4;

export const colourAt = (share) => COLOURS[Math.min(COLOURS.length - 1, Math.max(0, Math.floor(share * COLOURS.length)))];

export class GridView {
  constructor(session, pick, refresh) {
    Object.assign(this, { session, pick, refresh, box: null, whole: null, drag: null });
  }

  // Show all there is, or one square. The stage's y goes up, that of a picture down.
  fit(found, square) {
    const half = found.half_side_um * 1.5, points = [];
    for (const one of square ? [square] : found.squares) {
      if (one.y_um !== null) points.push([one.x_um - half, -one.y_um - half], [one.x_um + half, -one.y_um + half]);
    }
    if (!points.length || square) for (const one of found.holes) points.push([one.x_um - NEAR, -one.y_um - NEAR], [one.x_um + NEAR, -one.y_um + NEAR]);
    if (!points.length) return;
    const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
    const low = [Math.min(...xs), Math.min(...ys)], size = Math.max(Math.max(...xs) - low[0], Math.max(...ys) - low[1], NEAR);
    const middle = [(Math.max(...xs) + low[0]) / 2, (Math.max(...ys) + low[1]) / 2];
    this.box = { x: middle[0] - size / 2, y: middle[1] - size / 2, size };
    this.whole = size;
  }

  draw(found, square) {
    const { box } = this;
    const share = (value) => (found.high > found.low ? (value - found.low) / (found.high - found.low) : 0.5);
    const fill = (value) => (value === null ? "none" : colourAt(share(value)));
    const frame = `rotate(${-found.turn_deg})`, half = found.half_side_um;
    const radius = this.holeRadius(found);
    const seen = (x, y, by) => x + by > box.x && x - by < box.x + box.size && y + by > box.y && y - by < box.y + box.size;
    const holes = square || box.size < half * FAR ? found.holes : [];
    return h("svg", {
      className: "grid-map", viewBox: `${box.x} ${box.y} ${box.size} ${box.size}`, tabindex: 0, role: "application", "data-key": `map ${found.colour}`,
      "aria-label": `Map of the grid, ${short(box.size)} µm wide: arrow keys move it, plus and minus zoom, 0 shows all; the tables below say the same`,
      onkeydown: (event) => this.key(event, found, square),
    },
      found.atlas && this.atlas(found.atlas),
      found.squares.filter((one) => one.y_um !== null && seen(one.x_um, -one.y_um, half * 1.5)).map((one) =>
        h("g", { transform: `translate(${one.x_um} ${-one.y_um}) ${frame}`, className: `square ${square?.name === one.name ? "here" : ""} ${one.n_exposures ? "" : "unseen"}`, onclick: () => this.moved || this.pick(one.name) },
          h("path", { d: `M${-half} ${-half}h${2 * half}v${2 * half}h${-2 * half}z`, fill: holes.length ? "none" : fill(one.value) }),
          h("title", null, `square ${one.name}: ${counted(one.n_exposures, "exposure")} in ${one.n_exposed} of ${counted(one.n_holes, "hole")}${one.value === null ? "" : `, ${found.label} ${quantity(one.value, found.unit)}`}`))),
      holes.filter((one) => seen(one.x_um, -one.y_um, radius)).map((one) =>
        h("circle", { className: `hole ${one.n_exposures ? "" : one.wanted === false ? "unwanted" : "unseen"}`, cx: one.x_um, cy: -one.y_um, r: radius, fill: one.n_exposures ? fill(one.value) : "none", onclick: () => this.moved || (one.square !== null && this.pick(one.square, one.name)) },
          h("title", null, `hole ${one.name}: ${counted(one.n_exposures, "exposure")}${one.value === null ? "" : `, ${found.label} ${quantity(one.value, found.unit)}`}`))),
      square && found.holes.flatMap((one) => one.exposures.length > 1 ? one.exposures.map((exposure) => h("circle", { className: "dot", cx: exposure.x_um, cy: -exposure.y_um, r: radius * 0.16 })) : []),
      this.scale());
  }

  // So large that neighbours do not touch, as drawn holes on most grids do not.
  holeRadius(found) {
    const some = found.holes.slice(0, 60);
    let least = Infinity;
    for (const one of some) for (const other of some) {
      const apart = Math.hypot(one.x_um - other.x_um, one.y_um - other.y_um);
      if (apart > 0.3) least = Math.min(least, apart);
    }
    return Number.isFinite(least) ? Math.min(least * 0.38, 2) : 0.6;
  }

  atlas({ picture, corner_yx_um: [y, x], down_yx_um: [downY, downX], right_yx_um: [rightY, rightX] }) {
    return h("image", { className: "atlas", href: pictureOf(this.session, picture), width: 1, height: 1, preserveAspectRatio: "none", transform: `matrix(${rightX} ${-rightY} ${downX} ${-downY} ${x} ${-y})` });
  }

  scale() {
    const { box } = this, raw = box.size / 4, power = 10 ** Math.floor(Math.log10(raw));
    const length = [5, 2, 1].map((one) => one * power).find((one) => one <= raw) ?? power;
    const left = box.x + box.size * 0.04, base = box.y + box.size * 0.96, thick = box.size * 0.007;
    return h("g", { className: "scale-bar", "aria-hidden": "true" },
      h("path", { className: "ground", d: `M${left - thick * 2} ${base - box.size * 0.055}h${length + thick * 4}v${box.size * 0.07}h${-(length + thick * 4)}z` }),
      h("path", { d: `M${left} ${base}h${length}v${-thick}h${-length}z` }),
      h("text", { x: left, y: base - thick * 2, "font-size": box.size * 0.032 }, `${short(length)} µm`));
  }

  zoom(by, at = null) {
    const { box } = this, size = Math.min(this.whole * 4, Math.max(NEAR * 2, box.size * by));
    const [x, y] = at ?? [box.x + box.size / 2, box.y + box.size / 2];
    this.box = { x: x - (x - box.x) * size / box.size, y: y - (y - box.y) * size / box.size, size };
    this.refresh();
  }

  key(event, found, square) {
    const by = this.box.size * 0.1;
    const moves = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") this.zoom(1 / STEP);
    else if (event.key === "-") this.zoom(STEP);
    else if (event.key === "0") { this.fit(found, square); this.refresh(); }
    else if (moves[event.key]) { this.box.x += moves[event.key][0]; this.box.y += moves[event.key][1]; this.refresh(); }
    else return;
    event.preventDefault();
  }

  // Mouse and finger, once for each element that is put on the page.
  listen(element) {
    if (!element || element.listening) return;
    element.listening = true;
    const place = (event) => {
      const shown = element.getBoundingClientRect(), { box } = this;
      return [box.x + (event.clientX - shown.left) / shown.width * box.size, box.y + (event.clientY - shown.top) / shown.height * box.size];
    };
    element.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !element.contains(document.activeElement) && document.activeElement !== element) return;
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, place(event));
    }, { passive: false });
    element.addEventListener("pointerdown", (event) => { this.drag = { at: place(event), from: [event.clientX, event.clientY] }; this.moved = false; });
    element.addEventListener("pointermove", (event) => {
      if (!this.drag || !event.buttons) return;
      if (!this.moved && Math.hypot(event.clientX - this.drag.from[0], event.clientY - this.drag.from[1]) < 5) return;
      this.moved = true;
      const [x, y] = place(event);
      this.box.x += this.drag.at[0] - x;
      this.box.y += this.drag.at[1] - y;
      element.setAttribute("viewBox", `${this.box.x} ${this.box.y} ${this.box.size} ${this.box.size}`);
    });
    const end = () => { if (this.drag && this.moved) this.refresh(); this.drag = null; };
    element.addEventListener("pointerup", end);
    element.addEventListener("pointerleave", end);
  }
}
