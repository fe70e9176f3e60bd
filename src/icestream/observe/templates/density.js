// A map in three dimensions that is turned with mouse, fingers or keys: rays through a cube of bytes, on WebGL 2. It stands in
// the page and, whole, in the report, so it needs nothing else.

const STEP_DEG = 10, ZOOM = 1.25, LEAST_ZOOM = 0.5, MOST_ZOOM = 6, NEWLINE = 10;
const SHAPE = `#version 300 es
out vec2 at;
void main() { at = vec2(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0); gl_Position = vec4(at, 0.0, 1.0); }`;
const RAYS = `#version 300 es
precision highp float; precision highp sampler3D;
uniform sampler3D map; uniform mat3 turn; uniform float zoom, level, voxel; uniform bool surface; uniform vec3 tint, ground;
in vec2 at; out vec4 colour;
float value(vec3 p) { return texture(map, p + 0.5).r; }
void main() {
  vec3 way = turn * vec3(0.0, 0.0, -1.0), from = turn * vec3(at * 0.72 / zoom, 0.9);
  vec3 safe = mix(vec3(1e-6), way, greaterThan(abs(way), vec3(1e-6)));
  vec3 a = (-0.5 - from) / safe, b = (0.5 - from) / safe, low = min(a, b), high = max(a, b);
  float near = max(max(low.x, low.y), low.z), far = min(min(high.x, high.y), high.z), by = voxel * 0.5, sum = 0.0;
  colour = vec4(ground, 1.0);
  if (near >= far) return;
  for (float t = near; t < far; t += by) {
    float here = value(from + way * t);
    if (!surface) { sum += max(here - level * 0.5, 0.0) * by; continue; }
    if (here < level) continue;
    float before = t - by;
    for (int n = 0; n < 5; n++) { float middle = 0.5 * (before + t); if (value(from + way * middle) < level) before = middle; else t = middle; }
    vec3 p = from + way * t, dx = vec3(voxel, 0.0, 0.0);
    vec3 slope = vec3(value(p - dx) - value(p + dx), value(p - dx.yxz) - value(p + dx.yxz), value(p - dx.yzx) - value(p + dx.yzx));
    vec3 normal = length(slope) > 1e-5 ? normalize(slope) : -way;
    float lit = 0.25 + 0.75 * max(dot(normal, normalize(turn * vec3(-0.4, 0.5, 1.0))), 0.0);
    float depth = clamp((t - 0.4) / 1.1, 0.0, 1.0);
    colour = vec4(mix(tint * lit, ground, 0.45 * depth), 1.0);
    return;
  }
  if (!surface) colour = vec4(mix(ground, tint, clamp(sum * 5.0, 0.0, 1.0)), 1.0);
}`;

// What `icestream serve` sends, and what the report holds: a line of JSON, then the voxels, x fastest.
export function readDensity(bytes) {
  const end = bytes.indexOf(NEWLINE), header = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  return { ...header, voxels: bytes.subarray(end + 1) };
}

function program(gl) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, SHAPE], [gl.FRAGMENT_SHADER, RAYS]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made) ?? "the map cannot be drawn here");
  return made;
}

function upload(gl, { side, voxels }) {
  gl.bindTexture(gl.TEXTURE_3D, gl.createTexture());
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texImage3D(gl.TEXTURE_3D, 0, gl.R8, side, side, side, 0, gl.RED, gl.UNSIGNED_BYTE, voxels);
  for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_3D, name, gl.LINEAR);
  for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) gl.texParameteri(gl.TEXTURE_3D, name, gl.CLAMP_TO_EDGE);
}

const product = (a, b) => [0, 1, 2].flatMap((row) => [0, 1, 2].map((column) => a[3 * row] * b[column] + a[3 * row + 1] * b[3 + column] + a[3 * row + 2] * b[6 + column]));
const aboutX = (angle) => [1, 0, 0, 0, Math.cos(angle), -Math.sin(angle), 0, Math.sin(angle), Math.cos(angle)];
const aboutY = (angle) => [Math.cos(angle), 0, Math.sin(angle), 0, 1, 0, -Math.sin(angle), 0, Math.cos(angle)];
const START = product(aboutY(0.5), aboutX(-0.4));

function element(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function rgb(name, holder) {
  const probe = element("span", {});
  probe.style.color = `var(${name})`;
  holder.append(probe);
  const found = getComputedStyle(probe).color.match(/[\d.]+/g) ?? [128, 128, 128];
  probe.remove();
  return found.slice(0, 3).map((one) => Number(one) / 255);
}

// Fill a holder with a map; where WebGL 2 is missing it says so, and what stood there stays. Returns what ends it.
export function showDensity(holder, density, title) {
  const canvas = element("canvas", { tabindex: "0", role: "application", "aria-label": `${title}, in three dimensions: arrow keys turn it, plus and minus zoom, 0 puts it back` });
  const gl = canvas.getContext("webgl2", { alpha: false, antialias: false });
  if (gl === null) {
    holder.append(element("p", { class: "soft small", role: "status" }, "This browser does not turn maps (it has no WebGL 2); the picture shows sections and projections."));
    return () => {};
  }
  let turn = START, zoom = 1, level = density.level, surface = true, wanted = 0;
  const slider = element("input", { type: "range", min: "1", max: "254", step: "1", value: String(level) });
  const value = element("span", { class: "soft small" });
  const kind = element("select", {}, element("option", { value: "surface" }, "Surface"), element("option", { value: "projection" }, "Projection"));
  const back = element("button", { type: "button" }, "Put back");
  const controls = element("div", { class: "density-controls" },
    element("label", {}, element("span", { class: "small" }, "Threshold "), slider), value,
    element("label", {}, element("span", { class: "small" }, "Shown as "), kind), back);
  holder.append(canvas, controls);
  const tint = rgb("--accent", holder), ground = rgb("--card", holder);
  const made = program(gl), uniform = (name) => gl.getUniformLocation(made, name);
  gl.useProgram(made);
  upload(gl, density);

  function draw() {
    wanted = 0;
    const size = Math.max(64, Math.round(canvas.clientWidth * Math.min(2, window.devicePixelRatio || 1)));
    if (canvas.width !== size) { canvas.width = size; canvas.height = size; }
    gl.viewport(0, 0, size, size);
    gl.uniformMatrix3fv(uniform("turn"), true, turn);
    for (const [name, number] of [["zoom", zoom], ["level", level / 255], ["voxel", 1 / density.side]]) gl.uniform1f(uniform(name), number);
    gl.uniform1i(uniform("surface"), surface ? 1 : 0);
    gl.uniform3fv(uniform("tint"), tint);
    gl.uniform3fv(uniform("ground"), ground);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    const said = density.low + level / 255 * (density.high - density.low), box = density.voxel_ang ? `, box ${Math.round(density.side * density.voxel_ang)} Å` : "";
    value.textContent = `${said.toPrecision(3)}${box}`;
    slider.setAttribute("aria-valuetext", said.toPrecision(3));
    canvas.dataset.drawn = String(Number(canvas.dataset.drawn ?? 0) + 1);
  }

  const soon = () => { if (!wanted) wanted = requestAnimationFrame(draw); };
  const turnBy = (x, y) => { turn = product(turn, product(aboutY(-x), aboutX(-y))); soon(); };
  const zoomBy = (factor) => { zoom = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, zoom * factor)); soon(); };
  const putBack = () => { turn = START; zoom = 1; level = density.level; slider.value = String(level); soon(); };
  slider.addEventListener("input", () => { level = Number(slider.value); soon(); });
  kind.addEventListener("change", () => { surface = kind.value === "surface"; soon(); });
  back.addEventListener("click", putBack);
  steer(canvas, turnBy, zoomBy, putBack);
  const sized = new ResizeObserver(soon);
  sized.observe(canvas);
  soon();
  return () => { sized.disconnect(); cancelAnimationFrame(wanted); gl.getExtension("WEBGL_lose_context")?.loseContext(); };
}

function steer(canvas, turnBy, zoomBy, putBack) {
  const fingers = new Map(), step = STEP_DEG * Math.PI / 180;
  const work = { ArrowLeft: () => turnBy(-step, 0), ArrowRight: () => turnBy(step, 0), ArrowUp: () => turnBy(0, -step), ArrowDown: () => turnBy(0, step), "+": () => zoomBy(ZOOM), "=": () => zoomBy(ZOOM), "-": () => zoomBy(1 / ZOOM), 0: putBack };
  const apart = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
  canvas.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !work[event.key]) return;
    event.preventDefault();
    work[event.key]();
  });
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); fingers.set(event.pointerId, { x: event.clientX, y: event.clientY }); });
  canvas.addEventListener("pointermove", (event) => {
    const old = fingers.get(event.pointerId);
    if (!old) return;
    const before = fingers.size === 2 ? apart() : 0, pace = Math.PI / Math.max(1, canvas.clientWidth);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (fingers.size === 1) turnBy((event.clientX - old.x) * pace, (event.clientY - old.y) * pace);
    else if (before > 0) zoomBy(apart() / before);
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas) return; // the page scrolls, until somebody has chosen the map
    event.preventDefault();
    zoomBy(event.deltaY < 0 ? ZOOM : 1 / ZOOM);
  }, { passive: false });
}
