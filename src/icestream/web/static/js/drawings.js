// What the server draws when it is asked: it may say "later", and then it is asked again; what cannot be drawn says why.

import { api } from "./api.js";
import { h, picture } from "./dom.js";

const MOST_TRIES = 30, SOONEST_S = 1;

export const fullImageOf = (session, key) => api("sessions", session, "drawings", "micrographs", key);
export const particlesOf = (session, key, page) => `${api("sessions", session, "drawings", "particles", key)}?page=${page}`;
export const membersOf = (session, step, part, seen) => `${api("sessions", session, "drawings", "members", step)}?${new URLSearchParams({ part, seen })}`;

export function densityOf(session, key, part) {
  const address = api("sessions", session, "drawings", "densities", key);
  return part === null ? address : `${address}?${new URLSearchParams({ part })}`;
}

// The answer once there is one: a response that is good, or an error with the reason.
export async function askForDrawing(address, signal) {
  for (let tries = 1; ; tries += 1) {
    const response = await fetch(address, { credentials: "same-origin", signal });
    if (response.ok) return response;
    if (response.status !== 503 || tries === MOST_TRIES) throw new Error((await response.json().catch(() => ({}))).detail ?? `the server answered ${response.status}`);
    const after = Math.max(SOONEST_S, Number(response.headers.get("retry-after")) || SOONEST_S);
    await new Promise((resolve) => window.setTimeout(resolve, 1000 * after));
    signal?.throwIfAborted();
  }
}

// Pictures on a page that is drawn again and again: each is asked for once, and appears when it is there.
export class Drawings {
  constructor(refresh) {
    this.refresh = refresh;
    this.known = new Map();
  }

  view(address, alt, properties = {}) {
    const found = this.known.get(address) ?? this.begin(address);
    return found === true ? picture({ src: address, alt, ...properties }) : h("p", { className: "soft small", role: "status" }, found);
  }

  begin(address) {
    this.known.set(address, "Drawing …");
    askForDrawing(address).then(async (response) => { await response.blob(); return true; }, (error) => error.message).then((found) => {
      this.known.set(address, found);
      this.refresh();
    });
    return this.known.get(address);
  }
}
