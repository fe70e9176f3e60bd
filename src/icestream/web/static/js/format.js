// Numbers, times and spans, written as the report and the command line write them.

const NARROW = "\u202f", HARD = "\u00a0";

export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const digits = Math.min(6, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value)) + 1e-12)));
  let text = Math.abs(value).toFixed(digits);
  if (text.includes(".")) text = text.replace(/\.?0+$/, "");
  const [whole, rest] = text.split(".");
  const grouped = whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, NARROW) : whole;
  return (value < 0 && text !== "0" ? "−" : "") + grouped + (rest ? "." + rest : "");
}

export const quantity = (value, unit) => (value === null || value === undefined ? "–" : short(value) + (unit ? HARD + unit : ""));
export const counted = (count, thing) => `${short(count)}${HARD}${thing}${count === 1 ? "" : "s"}`;

const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const order = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, bytes)) / 3)));
  return `${short(bytes / 1000 ** order)}${HARD}${UNITS[order]}`;
}

const two = (value) => String(value).padStart(2, "0");

export function moment(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const at = new Date(seconds * 1000);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return seconds < 0.001 ? `<${HARD}1${HARD}ms` : quantity(seconds, "s");
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}${HARD}min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours}${HARD}h${HARD}${minutes % 60}${HARD}min` : `${Math.floor(hours / 24)}${HARD}days`;
}

export const ago = (seconds) => (seconds === null || seconds === undefined ? "–" : `${span(Math.max(1, Math.round(Date.now() / 1000 - seconds)))} ago`);
export const perHour = (perMinute) => (perMinute === null || perMinute === undefined ? "–" : quantity(perMinute * 60, "/h"));
