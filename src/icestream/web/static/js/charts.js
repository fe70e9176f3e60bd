// Charts, drawn with uPlot in the colours of the style sheet; paths of the specimen as SVG.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { h } from "./dom.js";
import { short } from "./format.js";

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const axis = (label, extra = {}) => ({
  stroke: colour("--soft"),
  grid: { stroke: colour("--hair"), width: 1 },
  ticks: { show: false },
  font: "11px system-ui, sans-serif",
  labelFont: "11px system-ui, sans-serif",
  label: label || undefined,
  labelSize: label ? 18 : 0,
  labelGap: 0,
  ...extra,
});
export const numbers = (_chart, values) => values.map((value) => short(value));
export const yAxis = () => axis("", { size: 48, values: numbers, space: 28 });
const xAxis = (label) => axis(label, { size: 24, values: numbers, space: 60 });

const seen = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const width = Math.floor(target.clientWidth);
    if (target.chart && width > 0 && target.chart.width !== width) target.chart.setSize({ width, height: target.chart.height });
  }
});

export function place(options, data, label, height) {
  const holder = h("div", { className: "plot", role: "img", "aria-label": label, "data-kept": true });
  const width = 320;
  holder.chart = new uPlot({ width, height, legend: { show: false }, cursor: { y: false }, padding: [8, 14, 0, 0], ...options }, data, holder);
  seen.observe(holder);
  return holder;
}

// Lines at limits, across a series or a histogram; what is beyond them on the bad side is shaded.
const limitLines = (along) => [(chart) => {
  const { ctx, bbox } = chart;
  for (const { at, side } of chart.limits ?? []) {
    const upright = along === "x", place = Math.round(chart.valToPos(at, along, true));
    const start = upright ? bbox.left : bbox.top, end = start + (upright ? bbox.width : bbox.height), here = Math.min(Math.max(place, start), end);
    const beyond = upright === (side === "most") ? [here, end] : [start, here];
    ctx.save();
    ctx.fillStyle = colour("--odd-soft");
    ctx.strokeStyle = colour("--odd");
    ctx.lineWidth = devicePixelRatio * 1.5;
    if (beyond[1] > beyond[0]) upright ? ctx.fillRect(beyond[0], bbox.top, beyond[1] - beyond[0], bbox.height) : ctx.fillRect(bbox.left, beyond[0], bbox.width, beyond[1] - beyond[0]);
    ctx.setLineDash([5, 4]);
    ctx.beginPath();
    upright ? (ctx.moveTo(here, bbox.top), ctx.lineTo(here, bbox.top + bbox.height)) : (ctx.moveTo(bbox.left, here), ctx.lineTo(bbox.left + bbox.width, here));
    ctx.stroke();
    ctx.restore();
  }
}];

export function setLimits(holder, limits) {
  holder.chart.limits = limits;
  holder.chart.redraw(false);
}

// A value of each exposure (or version): a dot each, and the running median as a line.
export function seriesChart(one, { height = 150, onPick = null, limits = [] } = {}) {
  const label = `${one.measure.label} of each ${one.measure.whole ? "version" : "exposure"}, in order of arrival`;
  const holder = place({
    height,
    scales: { x: { time: false } },
    axes: [xAxis(""), yAxis()],
    series: [
      { label: one.measure.whole ? "version" : "exposure" },
      { stroke: colour("--accent"), paths: () => null, points: { show: true, size: 5, fill: colour("--accent-dot"), stroke: "transparent", width: 0 } },
      { stroke: colour("--accent"), width: 2, points: { show: false } },
    ],
    hooks: { draw: limitLines("y"), ...(onPick ? { ready: [(chart) => chart.over.addEventListener("click", () => chart.cursor.idx !== null && onPick(chart.data[0][chart.cursor.idx]))] } : {}) },
  }, seriesData(one), label, height);
  holder.chart.limits = limits;
  holder.classList.toggle("picks", Boolean(onPick));
  return holder;
}

const LEAST_FOR_A_TREND = 20;

export const seriesData = (one) => [one.exposures, one.values, one.values.length < LEAST_FOR_A_TREND ? one.values.map(() => null) : one.trend];

export function histogramChart(one, { height = 110, limits = [] } = {}) {
  const holder = place({
    height,
    scales: { x: { time: false, range: [one.histogram.low, one.histogram.high] }, y: { range: (_chart, _low, high) => [0, Math.max(1, high) * 1.08] } },
    axes: [xAxis(""), yAxis()],
    series: [{}, { stroke: "transparent", fill: colour("--accent-bar"), paths: uPlot.paths.bars({ size: [0.9, 60], align: 0 }), points: { show: false } }],
    hooks: { draw: limitLines("x") },
  }, histogramData(one), `${one.measure.label}: distribution`, height);
  holder.chart.limits = limits;
  return holder;
}

function histogramData({ histogram }) {
  const width = (histogram.high - histogram.low) / histogram.counts.length;
  return [histogram.counts.map((_, index) => histogram.low + (index + 0.5) * width), histogram.counts];
}

// Standard deviations as bars at each point of a line.
const errorBars = (errors) => (chart) => {
  const { ctx } = chart, [xs, , fitted] = chart.data;
  ctx.save();
  ctx.strokeStyle = colour("--accent");
  ctx.lineWidth = devicePixelRatio;
  ctx.beginPath();
  xs.forEach((at, index) => {
    const x = Math.round(chart.valToPos(at, "x", true)), ends = [-1, 1].map((sign) => chart.valToPos(fitted[index] + sign * errors[index], "y", true));
    ctx.moveTo(x, ends[0]);
    ctx.lineTo(x, ends[1]);
  });
  ctx.stroke();
  ctx.restore();
};

export function curveChart(curve, { height = 190 } = {}) {
  const marks = {
    draw: [...(curve.errors?.length ? [errorBars(curve.errors)] : []), (chart) => {
      if (curve.mark === null) return;
      const x = Math.round(chart.valToPos(curve.mark, "x", true));
      const { ctx } = chart;
      ctx.save();
      ctx.strokeStyle = colour("--odd");
      ctx.setLineDash([5, 4]);
      ctx.lineWidth = devicePixelRatio * 1.5;
      ctx.beginPath();
      ctx.moveTo(x, chart.bbox.top);
      ctx.lineTo(x, chart.bbox.top + chart.bbox.height);
      ctx.stroke();
      ctx.restore();
    }],
  };
  return place({
    height,
    scales: { x: { time: false } },
    axes: [axis(curve.x_unit, { size: 30, values: numbers, space: 60 }), yAxis()],
    series: [
      { label: curve.x_unit },
      { label: "measured", stroke: colour("--soft"), width: 1, points: { show: false } },
      { label: "fit", stroke: colour("--accent"), width: 2, points: { show: false } },
    ],
    hooks: marks,
  }, [curve.x, curve.measured, curve.fitted], curve.title, height);
}

// The path of the specimen; the first frame is a ring. Up is towards higher rows, as in the pictures.
export function pathChart(path) {
  const size = 220, margin = 26;
  const ys = path.yx.map((point) => point[0]), xs = path.yx.map((point) => point[1]);
  const reach = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys), 1e-3);
  const scale = (size - 2 * margin) / reach;
  const x = (value) => size / 2 + (value - (Math.max(...xs) + Math.min(...xs)) / 2) * scale;
  const y = (value) => size / 2 - (value - (Math.max(...ys) + Math.min(...ys)) / 2) * scale;
  const step = 10 ** Math.floor(Math.log10(reach / 2));
  const bar = [5, 2, 1].map((factor) => factor * step).find((length) => length <= reach / 2) ?? step;
  const line = path.yx.map((point, index) => `${index ? "L" : "M"}${x(point[1]).toFixed(1)} ${y(point[0]).toFixed(1)}`).join("");
  return h("svg", { viewBox: `0 0 ${size} ${size}`, className: "path", role: "img", "aria-label": path.title },
    h("path", { d: line, className: "line" }),
    path.yx.map((point) => h("circle", { cx: x(point[1]).toFixed(1), cy: y(point[0]).toFixed(1), r: 2.4, className: "dot" })),
    h("circle", { cx: x(xs[0]).toFixed(1), cy: y(ys[0]).toFixed(1), r: 6, className: "ring" }),
    h("path", { d: `M${margin} ${size - 8}h${(bar * scale).toFixed(1)}`, className: "scale" }),
    h("text", { x: margin, y: size - 13 }, `${short(bar)} ${path.unit}`));
}

// How far parts of the specimen went beside their common path, as arrows over the frame; up is towards higher rows.
export function arrowsChart(arrows) {
  const size = 220, margin = 24, inner = size - 2 * margin, grid = Math.sqrt(arrows.yx.length);
  const longest = Math.max(...arrows.moved.map(([dy, dx]) => Math.hypot(dy, dx)), 1e-9), scale = 0.9 * inner / grid / longest;
  const place = ([y, x]) => [margin + (x + 0.5) * inner, size - margin - (y + 0.5) * inner];
  const lines = arrows.yx.map((yx, index) => { const [x, y] = place(yx), [dy, dx] = arrows.moved[index]; return `M${x.toFixed(1)} ${y.toFixed(1)}l${(dx * scale).toFixed(1)} ${(-dy * scale).toFixed(1)}`; }).join("");
  const bar = 10 ** Math.floor(Math.log10(longest)), length = [5, 2, 1].map((factor) => factor * bar).find((one) => one <= 2 * longest);
  return h("svg", { viewBox: `0 0 ${size} ${size}`, className: "path", role: "img", "aria-label": `${arrows.title}: at most ${short(longest)} ${arrows.unit}` },
    h("path", { d: lines, className: "line" }), arrows.yx.map((yx) => { const [x, y] = place(yx); return h("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 2.2, className: "dot" }); }),
    h("path", { d: `M${margin} ${size - 8}h${(length * scale).toFixed(1)}`, className: "scale" }), h("text", { x: margin, y: size - 13 }, `${short(length)} ${arrows.unit}`));
}
