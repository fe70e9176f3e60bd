// Charts with the limits of rules as dashed lines: a measure along the session, and the machine over time.

import { axis, colour, numbers, place, seriesData, yAxis } from "./charts.js";
import { h } from "./dom.js";

const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
const NEAR = 1.5;

const valuesOf = (limits) => limits.flatMap((one) => [one.low, one.high]).filter((value) => value !== null);

// The values decide what is shown; a limit is drawn where it is not far away from them.
function reaching(limits) {
  const values = valuesOf(limits);
  return (_chart, low, high) => {
    if (low === null || high === null) return [0, 1];
    const room = Math.max(high - low, Math.abs(high) * 0.1, 1e-9) * NEAR;
    const near = values.filter((value) => value > low - room && value < high + room);
    const least = Math.min(low, ...near), most = Math.max(high, ...near);
    const pad = (most - least || Math.abs(most) || 1) * 0.06;
    return [least - pad, most + pad];
  };
}

function limitLines(limits) {
  const values = [...new Set(valuesOf(limits))];
  return (chart) => {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.strokeStyle = colour("--bad");
    ctx.lineWidth = devicePixelRatio * 1.5;
    ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const value of values) {
      const y = Math.round(chart.valToPos(value, "y", true));
      if (y < bbox.top || y > bbox.top + bbox.height) continue;
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    ctx.restore();
  };
}

// What is drawn once is kept with new data, so a chart whose limits change must be another one.
const keyed = (limits, chart) => h("div", { "data-key": JSON.stringify(limits) }, chart);

export function limitedSeries(one, limits, { height = 170 } = {}) {
  const { measure } = one;
  return keyed(limits, place({
    height,
    scales: { x: { time: false }, y: { range: reaching(limits) } },
    axes: [axis("", { size: 24, values: numbers, space: 60 }), yAxis()],
    series: [
      { label: measure.whole ? "version" : "exposure" },
      { stroke: colour("--accent"), paths: () => null, points: { show: true, size: 5, fill: colour("--accent-dot"), stroke: "transparent", width: 0 } },
      { stroke: colour("--accent"), width: 2, points: { show: false } },
    ],
    hooks: { draw: [limitLines(limits)] },
  }, seriesData(one), `${measure.label} of each ${measure.whole ? "version" : "exposure"}, with its limits`, height));
}

// A point for each session, by day.
export function trendChart(times, values, label, height = 150) {
  const [first, last] = [times[0], times.at(-1)], room = Math.max((last - first) * 0.04, 43_200);
  return keyed([], place({
    height,
    scales: { x: { time: false, range: [first - room, last + room] }, y: { range: reaching([]) } },
    axes: [axis("", { size: 24, values: days, space: 80 }), yAxis()],
    series: [{ label: "began" }, { stroke: colour("--accent"), width: 1.5, points: { show: true, size: 7, fill: colour("--accent") } }],
  }, [times, values], label, height));
}

const two = (value) => String(value).padStart(2, "0");
const clocks = (_chart, values) => values.map((value) => { const at = new Date(value * 1000); return `${two(at.getHours())}:${two(at.getMinutes())}`; });

const days = (_chart, values) => values.map((value) => { const at = new Date(value * 1000); return `${two(at.getMonth() + 1)}-${two(at.getDate())}`; });

export function timeChart(times, lines, { label, height = 150 }) {
  const limits = lines.flatMap((line) => line.limits);
  const drawn = lines.map((line, index) => ({
    label: line.subject, stroke: colour(index % 2 ? "--odd" : "--accent"), width: 2, dash: DASHES[index % DASHES.length],
    points: { show: times.length < 3 }, spanGaps: false,
  }));
  return keyed([limits, lines.length], place({
    height,
    scales: { x: { time: false }, y: { range: reaching(limits) } },
    axes: [axis("", { size: 24, values: clocks, space: 70 }), yAxis()],
    series: [{ label: "time" }, ...drawn],
    hooks: { draw: [limitLines(limits)] },
  }, [times, ...lines.map((line) => line.values)], label, height));
}
