// Asking the server. Every answer is JSON from /api/v1; a change carries the text that only this page was given.

export const me = { name: null, role: null, here: null, creates: false, operates: false, audits: false, csrf: null, sign_in: false, provider: null, account: false, single: null, version: "" };
export class Refused extends Error {
  constructor(status, message, fields = {}) { super(message); this.status = status; this.fields = fields; }
}

const QUIET_MS = 60_000;
let seen = null, touched = Date.now();
for (const kind of ["pointerdown", "keydown", "wheel", "touchstart"]) window.addEventListener(kind, () => { touched = Date.now(); }, { passive: true });

export const seenPulse = () => seen;

async function ask(address, options = {}) {
  let response;
  try {
    const quiet = Date.now() - touched > QUIET_MS ? { "x-icestream-quiet": "1" } : {}; // nobody is here: this keeps no sign-in alive
    response = await fetch(address, { credentials: "same-origin", ...options, headers: { ...options.headers, ...quiet } });
  } catch {
    throw new Refused(0, "the server does not answer");
  }
  const text = await response.text();
  let body = null;
  try { body = text ? JSON.parse(text) : null; } catch { body = { detail: text.slice(0, 300) }; }
  if (!response.ok) {
    const said = body?.detail;
    const message = Array.isArray(said) ? said.map((one) => `${one.loc?.at(-1)}: ${one.msg}`).join("; ") : said;
    const fields = Array.isArray(said) ? Object.fromEntries(said.map((one) => [String(one.loc?.at(-1)), one.msg])) : body?.fields;
    throw new Refused(response.status, message ?? `the server answered ${response.status}`, fields);
  }
  seen = response.headers.get("x-icestream-pulse") ?? seen;
  if (address.startsWith("/api/v1/sessions")) me.here = response.headers.get("x-icestream-role");
  return body;
}

export const api = (...parts) => "/api/v1/" + parts.map((part) => encodeURIComponent(part)).join("/");
export const get = (address, signal) => ask(address, { signal });

export const post = (address, body) =>
  ask(address, {
    method: "POST",
    headers: { "content-type": "application/json", "x-icestream-csrf": me.csrf ?? "" },
    body: JSON.stringify(body),
  });

export async function learnMe() {
  Object.assign(me, await get("/api/v1/me"));
}

export async function signIn(name, password) {
  Object.assign(me, await post("/api/v1/sign-in", { name, password }));
}

export async function openShare(secret) {
  const found = await post("/api/v1/open-share", { secret });
  Object.assign(me, found);
  return found.session;
}

export async function signOut() {
  const elsewhere = me.account && await post("/api/v1/oidc/sign-out", {});
  if (!me.account) await post("/api/v1/sign-out", {});
  if (elsewhere?.next) window.location.assign(elsewhere.next);
  await learnMe();
}

export const pictureOf = (session, picture) => api("sessions", session, "pictures", picture.key, picture.field);
