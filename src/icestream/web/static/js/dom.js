// Elements are made here and nowhere else. A child that is a string becomes a text node: what comes from data is never markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "circle", "g", "line", "text", "title", "image"]);
const HANDLERS = ["onclick", "onchange", "oninput", "onsubmit", "onkeydown", "onerror"];

export function h(tag, properties, ...children) {
  const svg = SVG_TAGS.has(tag);
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (HANDLERS.includes(name)) element[name] = value;
    else if (name === "style") Object.assign(element.style, value);
    else if (name === "value" && !svg) { element.value = value; element.setAttribute("value", value); }
    else if (name === "href" && !svg) element.setAttribute("href", safeAddress(value));
    else element.setAttribute(name === "className" ? "class" : name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

// Only addresses of this server: a name with a colon in it must not become a scheme.
function safeAddress(value) {
  return /^[/#?]/.test(value) && !value.startsWith("//") ? value : "#";
}

// A picture whose file is gone leaves its place and says so.
export function picture(properties) {
  return h("img", { ...properties, onerror: (event) => { event.target.hidden = true; } });
}

export const path = (...parts) => "/" + parts.map((part) => encodeURIComponent(part)).join("/");

// Make `old` look like `fresh` with as little change as possible, so that focus, scrolling and open details stay as they are.
export function patch(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || keyOf(old) !== keyOf(fresh)) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  patchAttributes(old, fresh);
  if (old.hasAttribute("data-kept")) {
    keepChart(old, fresh);
    return;
  }
  const before = [...old.childNodes], after = [...fresh.childNodes];
  after.forEach((node, index) => (index < before.length ? patch(before[index], node) : old.append(node)));
  before.slice(after.length).forEach((node) => node.remove());
}

// A chart stays, with the new data in it.
function keepChart(old, fresh) {
  if (!old.chart || !fresh.chart) return;
  old.chart.limits = fresh.chart.limits;
  old.chart.setData(fresh.chart.data);
  fresh.chart.destroy();
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);

function patchAttributes(old, fresh) {
  const samePicture = old.nodeName === "IMG" && old.getAttribute("src") === fresh.getAttribute("src");
  const own = old.nodeName === "DETAILS" ? ["open"] : samePicture ? ["hidden"] : [];
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !own.includes(name)) old.removeAttribute(name);
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) === value || own.includes(name)) continue;
    if (name === "style") old.style.cssText = fresh.style.cssText; // as an attribute the policy would forbid it
    else old.setAttribute(name, value);
  }
  if (old.nodeName === "IMG" && !samePicture) old.hidden = false;
  for (const name of HANDLERS) old[name] = fresh[name];
  if (old instanceof HTMLInputElement && document.activeElement !== old) {
    old.checked = fresh.checked;
    if (old.type !== "checkbox") old.value = fresh.value;
  }
  if (old instanceof HTMLSelectElement && document.activeElement !== old) old.value = fresh.value;
}
