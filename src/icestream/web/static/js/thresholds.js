// Limits of filters on the charts of what they limit: moved by mouse, finger or arrow keys, counted by the server, applied once.

import { api, post } from "./api.js";
import { mayAct } from "./act.js";
import { setLimits } from "./charts.js";
import { h } from "./dom.js";
import { counted, quantity, short } from "./format.js";
import { foreseeAndAct } from "./plan.js";

const COUNT_AFTER_MS = 120, STEPS = 400;

export class Thresholds {
  constructor(session, refresh) {
    Object.assign(this, { session, refresh, filters: [], moved: new Map(), counts: new Map(), timers: new Map(), asked: 0 });
  }

  set(filters) {
    this.filters = filters.filter((one) => one.thresholds.length > 0);
    for (const one of this.filters) if (!this.counts.has(one.step)) { this.counts.set(one.step, null); this.count(one.step); }
  }

  changes(step) {
    return Object.fromEntries(this.moved.get(step) ?? []);
  }

  // The lines of a measure: one for a limit, two for a range; where no limit applies it stands at the permissive end.
  of(measure, { low, high }) {
    return this.filters.flatMap((filter) => filter.thresholds.filter((one) => one.measure === measure.id).flatMap((one) => {
      const value = this.moved.get(filter.step)?.get(one.parameter) ?? one.value;
      const line = (side, own) => ({ filter, threshold: one, side, off: own === null, at: own === null ? (side === "most" ? high : low) : own * one.factor });
      return one.side === "range" ? [line("least", value?.[0] ?? null), line("most", value?.[1] ?? null)] : [line(one.side, value)];
    }));
  }

  move(line, at) {
    const { filter, threshold, side } = line, own = Number((at / threshold.factor).toPrecision(4));
    const mine = this.moved.get(filter.step) ?? new Map();
    const present = mine.get(threshold.parameter) ?? threshold.value;
    const pair = (value) => [value ?? [own, own], own];
    const [range] = pair(present);
    mine.set(threshold.parameter, threshold.side === "range" ? (side === "least" ? [own, Math.max(own, range[1])] : [Math.min(own, range[0]), own]) : own);
    this.moved.set(filter.step, mine);
    window.clearTimeout(this.timers.get(filter.step));
    this.timers.set(filter.step, window.setTimeout(() => this.count(filter.step), COUNT_AFTER_MS));
  }

  async count(step) {
    const number = ++this.asked;
    try {
      const found = await post(api("sessions", this.session, "filters", step, "count"), { params: this.changes(step) });
      this.counts.set(step, { found, number });
    } catch (error) {
      this.counts.set(step, { trouble: Object.values(error.fields ?? {}).join("; ") || error.message, number });
    }
    const bar = document.querySelector(`[data-filter="${CSS.escape(step)}"]`);
    bar?.replaceWith(this.bar(this.filters.find((one) => one.step === step)));
  }

  forget(step) {
    this.moved.delete(step);
    this.count(step);
    this.refresh();
  }

  // What a filter does now, or would do, and the way to apply it.
  bar(filter) {
    const changed = this.moved.has(filter.step), told = this.counts.get(filter.step);
    return h("div", { className: changed ? "card filter-bar changed" : "card filter-bar", "data-filter": filter.step, role: "status" },
      h("b", null, filter.label), " ", h("span", null, sentence(told, changed)),
      changed && h("span", { className: "soft small" }, Object.entries(this.changes(filter.step)).map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(", ")),
      changed && h("span", { className: "right buttons" }, mayAct() && h("button", { type: "button", className: "primary", onclick: () => this.apply(filter) }, "Apply …"),
        h("button", { type: "button", onclick: () => this.forget(filter.step) }, "Undo")));
  }

  bars() {
    return this.filters.length > 0 && h("div", { className: "filter-bars", "data-key": "bars" }, this.filters.map((one) => this.bar(one)));
  }

  async apply(filter) {
    const text = sentence(this.counts.get(filter.step), true);
    const { done } = await foreseeAndAct(this.session, { title: `Change ${filter.label}?`, text: text.charAt(0).toUpperCase() + text.slice(1), verb: "Apply" }, "set", { step: filter.step, params: this.changes(filter.step) });
    if (done) this.forget(filter.step);
  }

  // A slider for each line below a distribution, on its axis.
  sliders(measure, histogram) {
    const { low, high } = histogram;
    return this.of(measure, histogram).map((line) => {
      const { filter, threshold, side } = line;
      const name = `${filter.label}: ${threshold.parameter}${threshold.side === "range" ? (side === "least" ? ", low" : ", high") : ""}`;
      const says = () => { const now = this.of(measure, histogram).find((one) => one.threshold === threshold && one.side === side); return now.off ? "no limit" : `${side === "most" ? "at most" : "at least"} ${quantity(now.at, measure.unit)}`; };
      const output = h("span", { className: "small" }, `${name} ${says()}`);
      const slider = h("input", { type: "range", className: "limit", min: low, max: high, step: (high - low) / STEPS || 1, value: String(line.at), "aria-label": name, "aria-valuetext": says(), oninput: (event) => {
        this.move(line, Number(event.target.value));
        const figure = event.target.closest("figure");
        figure.querySelectorAll(".plot").forEach((plot) => setLimits(plot, this.of(measure, histogram)));
        event.target.setAttribute("aria-valuetext", says());
        event.target.nextElementSibling.textContent = `${name} ${says()}`;
      } });
      return h("div", { className: "limit-row", "data-key": `${filter.step} ${threshold.parameter} ${side}` }, slider, output);
    });
  }
}

function sentence(told, changed) {
  if (!told) return "is being asked …";
  if (told.trouble) return told.trouble;
  const { found } = told, of = `${counted(found.asked, "exposure")}${found.stride > 1 ? ` asked (every ${found.stride}th of ${short(found.decided)})` : ""}`;
  const failed = found.failed ? `; it cannot decide about ${short(found.failed)}` : "";
  if (!changed) return `has dropped ${short(found.dropped)} of ${of}`;
  return `would drop ${short(found.dropped)} of ${of}: ${short(found.newly_dropped)} more, and ${short(found.newly_kept)} taken back${failed}`;
}
