// A simulated microscope, for whoever has no data at hand: asked once, then it writes movies into a folder by itself.

import { post } from "./api.js";
import { doOnce } from "./act.js";
import { h } from "./dom.js";
import { field } from "./form.js";

const ASKS = {
  movies: { type: "integer", title: "Movies", description: "Each takes some 10 MB on the disk", minimum: 1, maximum: 200 },
  seconds_per_movie: { type: "number", title: "Time from one movie to the next", unit: "s", description: "A machine with few cores falls behind a fast microscope, and catches up afterwards", minimum: 1, maximum: 600 },
};

// Return where it writes and what a session asks of it; null where it was not started.
export function simulate() {
  const given = { movies: "40", seconds_per_movie: "10" };
  const fields = Object.entries(ASKS).map(([name, schema]) => field({ name: `simulated-${name}`, schema, text: given[name], onInput: (text) => { given[name] = text; } }));
  const text = "It writes movies of a small protein in ice, with carbon and dirt beside it, into a folder among the sessions.";
  return doOnce({ title: "Simulate a microscope?", text, verb: "Simulate", more: h("div", null, fields) },
    () => post("/api/v1/simulations", { movies: Number(given.movies), seconds_per_movie: Number(given.seconds_per_movie) }));
}
