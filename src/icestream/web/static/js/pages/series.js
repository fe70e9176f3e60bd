// Every measure along the session, with its distribution; limits of filters can be moved, and tell what they would drop.

import { api, get } from "../api.js";
import { histogramChart, seriesChart } from "../charts.js";
import { h } from "../dom.js";
import { quantity, short } from "../format.js";
import { Thresholds } from "../thresholds.js";

export const seriesPage = ({ session, setSummary, refresh }) => {
  const thresholds = new Thresholds(session, refresh);

  async function draw(signal) {
    const [all, filters, page] = await Promise.all([
      get(api("sessions", session, "series"), signal),
      get(api("sessions", session, "filters"), signal),
      get(api("sessions", session), signal),
    ]);
    setSummary(page);
    if (!all.length) return [h("h1", null, "Series"), h("p", { className: "card" }, "Nothing has been measured yet.")];
    thresholds.set(filters);
    const steps = [...new Set(all.map((one) => one.measure.step))];
    return [
      h("h1", null, "Series and distributions"),
      thresholds.bars(),
      steps.map((step) => {
        const mine = all.filter((one) => one.measure.step === step);
        return h("section", { "data-key": step }, h("h2", null, mine[0].measure.step_label), h("div", { className: "grid" }, mine.map((one) => card(one))));
      }),
      h("p", { className: "soft small" }, "A dot is an exposure, the line a running median; the outermost bars hold what is beyond them. ", h("a", { href: api("sessions", session, "series") }, "This page as JSON")),
    ];
  }

  function card(one) {
    const { measure } = one;
    const better = { low: "lower is better", high: "higher is better" }[measure.better];
    const limits = thresholds.of(measure, one.histogram);
    return h("figure", { className: "card measure", "data-key": measure.id },
      h("figcaption", null, h("b", null, measure.label), better && h("span", { className: "soft small" }, ` ${better}`),
        h("div", null, h("span", { className: "value" }, quantity(one.median, measure.unit)), h("span", { className: "soft small" }, ` median of ${short(one.values.length)}, newest ${quantity(one.values.at(-1), measure.unit)}${one.stride > 1 ? `; every ${one.stride}th exposure` : ""}`)),
        measure.origin && h("div", { className: "soft small origin" }, measure.origin)),
      seriesChart(one, { limits }),
      one.values.length > 1 && histogramChart(one, { limits }),
      one.values.length > 1 && thresholds.sliders(measure, one.histogram));
  }

  return { draw };
};
