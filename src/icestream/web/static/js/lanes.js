// The workflow as a list with lines beside it, as version control draws branches: a lane for each stream that is still to be read.

import { h } from "./dom.js";

// Return for each step its lane, the lanes that pass it, and those that come in and go out.
export function layOut(steps) {
  const readers = new Map(steps.map(({ step }) => [step.name, 0]));
  for (const { inputs } of steps) for (const name of inputs) readers.set(name, (readers.get(name) ?? 0) + 1);
  const left = new Map(readers), lanes = [], laneOf = new Map(), rows = [];
  for (const { step, inputs } of steps) {
    const before = lanes.map((name) => name !== null);
    const incoming = [...new Set(inputs)].filter((name) => laneOf.has(name)).map((name) => laneOf.get(name));
    for (const name of new Set(inputs)) {
      left.set(name, left.get(name) - 1);
      if (left.get(name) === 0 && laneOf.has(name)) lanes[laneOf.get(name)] = null;
    }
    const freed = incoming.find((lane) => lanes[lane] === null);
    const empty = lanes.findIndex((name) => name === null);
    const lane = freed ?? (empty >= 0 ? empty : lanes.length);
    const used = (readers.get(step.name) ?? 0) > 0;
    lanes[lane] = used ? step.name : null;
    laneOf.set(step.name, lane);
    const after = lanes.map((name) => name !== null);
    const passing = after.map((is, index) => is && before[index] && index !== lane).flatMap((is, index) => (is ? [index] : []));
    rows.push({ lane, incoming, passing, used });
  }
  return { rows, width: Math.max(1, ...rows.map((row) => Math.max(row.lane, ...row.passing, ...row.incoming) + 1)) };
}

const GAP = 14, MIDDLE = 30;

export function drawLanes(row, width) {
  const x = (lane) => 8 + lane * GAP;
  const lines = [
    ...row.passing.map((lane) => [`M${x(lane)} 0V2000`, lane]),
    ...row.incoming.map((lane) => [lane === row.lane ? `M${x(lane)} 0V${MIDDLE}` : `M${x(lane)} 0V${MIDDLE - 20}C${x(lane)} ${MIDDLE - 6} ${x(row.lane)} ${MIDDLE - 14} ${x(row.lane)} ${MIDDLE}`, lane]),
    ...(row.used ? [[`M${x(row.lane)} ${MIDDLE}V2000`, row.lane]] : []),
  ];
  return h("svg", { className: "lanes", width: 8 + width * GAP, height: 2000, "aria-hidden": "true" },
    lines.map(([d]) => h("path", { d })), h("circle", { cx: x(row.lane), cy: MIDDLE, r: 4.5 }));
}
