// A workflow drawn as a graph: dagre places the nodes, which are ordinary elements in the order of the workflow.

import { Graph, layout } from "../vendor/dagre/dagre.esm.js";
import { h } from "./dom.js";

const placed = new Map();
const MOST_PLACED = 20;

// Where everything goes. The same graph is placed once, however often it is drawn.
function place(nodes, edges, { width, height, across }) {
  const key = JSON.stringify([nodes.map((one) => one.id), edges, width, height, across]);
  if (!placed.has(key)) {
    const graph = new Graph();
    graph.setGraph({ rankdir: across ? "LR" : "TB", nodesep: 18, ranksep: across ? 44 : 34, edgesep: 10, marginx: 10, marginy: 10 });
    graph.setDefaultEdgeLabel(() => ({}));
    for (const { id } of nodes) graph.setNode(id, { width, height });
    for (const { from, to } of edges) graph.setEdge(from, to);
    layout(graph);
    const side = ({ x, y }, way) => (across ? { x: x + (way * width) / 2, y } : { x, y: y + (way * height) / 2 });
    const size = graph.graph();
    if (placed.size >= MOST_PLACED) placed.delete(placed.keys().next().value);
    placed.set(key, {
      width: Math.ceil(size.width), height: Math.ceil(size.height),
      at: new Map(nodes.map(({ id }) => { const { x, y } = graph.node(id); return [id, { left: x - width / 2, top: y - height / 2 }]; })),
      lines: edges.map(({ from, to }) => curve([side(graph.node(from), 1), ...graph.edge(from, to).points.slice(1, -1), side(graph.node(to), -1)])),
    });
  }
  return placed.get(key);
}

// Through the middles between points, as smooth as its corners allow.
function curve(points) {
  const [first, ...rest] = points, last = rest.at(-1);
  const middle = rest.slice(0, -1).map((point, index) => `Q${point.x} ${point.y} ${(point.x + rest[index + 1].x) / 2} ${(point.y + rest[index + 1].y) / 2}`);
  return `M${first.x} ${first.y}${middle.join("")}L${last.x} ${last.y}`;
}

// `nodes` have an id, what is drawn in them, and a class; `edges` say from where to where, and may be of what was set aside.
export function drawGraph({ label, nodes, edges, width = 188, height = 84, across = !matchMedia("(max-width: 760px)").matches }) {
  const known = new Set(nodes.map((one) => one.id)), ends = new Map();
  for (const one of edges) {
    const key = `${one.from} ${one.to}`;
    if (known.has(one.from) && known.has(one.to) && one.from !== one.to) ends.set(key, { ...one, aside: (ends.get(key)?.aside ?? true) && Boolean(one.aside) });
  }
  const all = [...ends.values()], found = place(nodes, all.map(({ from, to }) => ({ from, to })), { width, height, across });
  return h("div", { className: "graph card", tabindex: 0, role: "region", "aria-label": label },
    h("div", { className: "sheet", style: { width: `${found.width}px`, height: `${found.height}px` } },
      h("svg", { className: "edges", width: found.width, height: found.height, "aria-hidden": "true" },
        all.map((one, index) => h("path", { d: found.lines[index], className: [one.aside && "aside", one.lit && "lit"].filter(Boolean).join(" ") }))),
      h("ol", null, nodes.map((one) => {
        const { left, top } = found.at.get(one.id);
        return h("li", { "data-key": one.id, className: `node ${one.state ?? ""}`, style: { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` } }, one.content);
      }))));
}
