// An image in full resolution: tiles of what is seen, at the scale that the screen shows; moved with mouse, fingers or keys.

import { pictureOf } from "./api.js";
import { h, picture } from "./dom.js";
import { askForDrawing, fullImageOf } from "./drawings.js";

const MOST_ZOOM = 8, STEP = 1.4, PAN_PX = 80, RETRY_MS = 2000;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export function openViewer(session, image, overlays) {
  const wide = image.width_px, high = image.height_px, address = fullImageOf(session, image.picture.key);
  const tiles = new Map(), gone = new Set(), fingers = new Map(), leaving = new AbortController();
  let index = null, zoom = 1, left = 0, top = 0, timer = null;

  const status = h("span", { role: "status", className: "viewer-status" }, "Drawing the full resolution …"), scale = h("span", { className: "viewer-zoom" });
  const lying = h("svg", { viewBox: `0 0 ${wide} ${high}`, "aria-hidden": "true" }, overlays);
  const sheet = h("div", { className: "sheet" }, picture({ src: pictureOf(session, image.picture), alt: "", className: "ground", draggable: "false" }), lying);
  const stage = h("div", {
    className: "stage", tabindex: 0, role: "application", onkeydown: key,
    "aria-label": `${image.label} in full resolution: arrow keys move it, plus and minus zoom, 0 fits it into the window, 1 shows each pixel`,
  }, sheet);
  const button = (text, label, work) => h("button", { type: "button", "aria-label": label, title: label, onclick: work }, text);
  const dialog = h("dialog", { className: "viewer", "aria-label": `${image.label} in full resolution` },
    h("div", { className: "viewer-bar" },
      button("−", "Zoom out", () => about(1 / STEP)), button("+", "Zoom in", () => about(STEP)), button("Fit", "Fit into the window", fit), button("1:1", "One pixel of the image for each of the screen", whole),
      overlays.length > 0 && h("label", { className: "toggle" }, h("input", { type: "checkbox", checked: true, onchange: (event) => { lying.style.visibility = event.target.checked ? "visible" : "hidden"; } }), "Overlays"),
      scale, status, h("button", { type: "button", className: "right", onclick: close }, "Close")),
    stage);

  function key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const by = event.shiftKey ? 5 * PAN_PX : PAN_PX;
    const work = {
      ArrowLeft: () => move(by, 0), ArrowRight: () => move(-by, 0), ArrowUp: () => move(0, by), ArrowDown: () => move(0, -by),
      "+": () => about(STEP), "=": () => about(STEP), "-": () => about(1 / STEP), 0: fit, 1: whole,
    }[event.key];
    if (!work) return;
    event.preventDefault();
    work();
  }

  const fitting = () => Math.min(stage.clientWidth / wide, stage.clientHeight / high);
  const pixel = () => 1 / (window.devicePixelRatio || 1);

  function fit() {
    zoom = fitting();
    left = (stage.clientWidth - zoom * wide) / 2;
    top = (stage.clientHeight - zoom * high) / 2;
    show();
  }

  function whole() { about(pixel() / zoom); }
  function move(x, y) { left += x; top += y; show(); }

  // Zoom so that what is under a point of the stage stays there; unless one is given, that is its middle.
  function about(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const wanted = clamp(zoom * factor, Math.min(fitting(), pixel()) / 2, MOST_ZOOM * pixel());
    left = x - (x - left) * wanted / zoom;
    top = y - (y - top) * wanted / zoom;
    zoom = wanted;
    show();
  }

  function show() {
    left = clamp(left, stage.clientWidth / 2 - zoom * wide, stage.clientWidth / 2); // the image stays in reach
    top = clamp(top, stage.clientHeight / 2 - zoom * high, stage.clientHeight / 2);
    Object.assign(sheet.style, { left: `${left}px`, top: `${top}px`, width: `${zoom * wide}px`, height: `${zoom * high}px` });
    scale.textContent = `${Math.round(100 * zoom / pixel())} %`;
    if (timer === null && index !== null) timer = window.setTimeout(load, 60);
  }

  // The tiles that are seen, at the coarsest level that is not coarser than the screen; the others leave when these are there.
  function load() {
    timer = null;
    const level = clamp(Math.floor(Math.log2(pixel() / zoom) + 0.01), 0, index.levels.length - 1);
    const side = index.tile_px * 2 ** level, at = index.levels[level], seen = new Set();
    const first = (start, count) => clamp(Math.floor(-start / zoom / side), 0, count - 1), last = (start, size, count) => clamp(Math.floor((size - start) / zoom / side), 0, count - 1);
    for (let row = first(top, at.rows); row <= last(top, stage.clientHeight, at.rows); row += 1) {
      for (let column = first(left, at.columns); column <= last(left, stage.clientWidth, at.columns); column += 1) {
        const name = `${level}/${row}/${column}`;
        seen.add(name);
        if (!tiles.has(name)) add(name, 2 ** level, row, column, at);
      }
    }
    const complete = [...seen].every((name) => gone.has(name) || (tiles.get(name).complete && tiles.get(name).naturalWidth > 0));
    for (const [name, tile] of tiles) {
      if (!seen.has(name) && (complete || !tile.complete)) { tile.remove(); tiles.delete(name); }
    }
  }

  // Whether a tile that did not come may still come: the server says "later", or has it by now.
  async function maybeLater(source) {
    try {
      const response = await fetch(source, { credentials: "same-origin", signal: leaving.signal });
      return response.ok || response.status === 503;
    } catch {
      return false;
    }
  }

  function add(name, factor, row, column, at) {
    const part = (number, count, size) => Math.min(index.tile_px, size - number * index.tile_px) * factor;
    const source = `${address}/tiles/${name}`;
    const tile = h("img", { alt: "", draggable: "false", src: source, className: "tile-of-image", onerror: async () => {
      tile.remove();
      if (!await maybeLater(source)) { gone.add(name); return; } // it stays known, so it is not asked for again
      if (tiles.get(name) === tile) tiles.delete(name);
      window.setTimeout(() => dialog.isConnected && show(), RETRY_MS);
    } });
    tile.addEventListener("load", () => dialog.isConnected && show());
    Object.assign(tile.style, {
      left: `${100 * column * index.tile_px * factor / wide}%`, top: `${100 * row * index.tile_px * factor / high}%`,
      width: `${100 * part(column, at.columns, at.width_px) / wide}%`, height: `${100 * part(row, at.rows, at.height_px) / high}%`,
      zIndex: String(index.levels.length - Math.log2(factor)),
    });
    tiles.set(name, tile);
    sheet.insertBefore(tile, lying);
  }

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    about(Math.exp(-clamp(event.deltaY * (event.deltaMode === 1 ? 16 : 1), -200, 200) / 300), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => {
    const box = stage.getBoundingClientRect();
    about(2, event.clientX - box.left, event.clientY - box.top);
  });
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); fingers.set(event.pointerId, [event.clientX, event.clientY]); });
  for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, (event) => fingers.delete(event.pointerId));
  stage.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const before = spread();
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    const after = spread(), box = stage.getBoundingClientRect();
    left += after.x - before.x;
    top += after.y - before.y;
    about(before.size > 0 && after.size > 0 ? after.size / before.size : 1, after.x - box.left, after.y - box.top);
  });

  // The middle of the fingers, and how far apart they are; of a mouse there is one.
  function spread() {
    const [[ax, ay], [bx, by] = [ax, ay]] = [...fingers.values()];
    return { x: (ax + bx) / 2, y: (ay + by) / 2, size: Math.hypot(ax - bx, ay - by) };
  }

  function close() {
    leaving.abort();
    window.clearTimeout(timer);
    window.removeEventListener("resize", show);
    dialog.close();
    dialog.remove();
  }

  dialog.addEventListener("cancel", (event) => { event.preventDefault(); close(); });
  window.addEventListener("resize", show);
  document.body.append(dialog);
  dialog.showModal();
  stage.focus();
  fit();
  askForDrawing(address, leaving.signal).then(async (response) => { index = await response.json(); status.textContent = ""; show(); })
    .catch((error) => { if (error.name !== "AbortError") status.textContent = `Only the preview is shown: ${error.message}`; });
  return close;
}
