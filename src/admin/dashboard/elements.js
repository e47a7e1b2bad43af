// Elements, and the words in them. Nothing from outside is ever markup: text goes in as text.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, and children that are elements or texts. */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same of a picture. */
export function shape(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) put(node, name, value);
  node.append(...children);
  return node;
}

/** A small picture for the eye; what it says is said in words beside it. */
export function icon(name) {
  return shape("svg", { class: "icon", "aria-hidden": "true" }, shape("use", { href: `#icon-${name}` }));
}

/** Another icon in the same place. */
export function swap(picture, name) {
  put(picture.firstChild, "href", `#icon-${name}`);
}

/** Has `node` say `text`. Touches nothing that says it already: a selection or a screen reader may be there. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets an attribute, or takes it off: `false` and `null`. */
export function put(node, name, value) {
  if (value === false || value == null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? "" : value);
}

const shown = new WeakMap();

/**
 * Has the children of `parent` show `items`, in their order. A child stays the same element for as long as its
 * item is there, so that nobody who has the focus in it loses it. `create` makes one: `{ root, show(item) }`.
 */
export function list(parent, items, keyOf, create) {
  const before = shown.get(parent) ?? new Map();
  const now = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const view = before.get(key) ?? create(item);
    view.show(item);
    now.set(key, view);
  }
  for (const [key, view] of before) if (!now.has(key)) view.root.remove();
  let at = 0;
  for (const { root } of now.values()) {
    if (parent.children[at] !== root) parent.insertBefore(root, parent.children[at] ?? null);
    at += 1;
  }
  shown.set(parent, now);
}

/** The kinds of connections, as bars and areas stack them: label, name, name of several. */
export const KINDS = [
  ["websocket", "WebSocket", "WebSockets"],
  ["sse", "event stream", "event streams"],
  ["tunnel", "tunnel", "tunnels"],
  ["http", "HTTP request", "HTTP requests"],
];

const WHOLE = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** 12,345 */
export const count = (number) => WHOLE.format(number);

/** "1 server", "2 servers" */
export const several = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** For what is measured and not counted: 0.25, 12.3, 1,230 */
export const measured = (number) => SHORT.format(number);

/** 12 % */
export const percent = (part) => `${measured(Math.round(part * 1000) / 10)}\u00a0%`;

/** The time of day of a moment. */
export const clock = (moment) => CLOCK.format(moment);

/** client_closed → client closed */
export const words = (label) => label.replaceAll("_", " ");

/** A time of so many seconds, in its two largest units. */
export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => whole >= size);
  if (first < 0) return "0 s";
  let left = whole;
  const parts = units.slice(first, first + 2).map(([unit, size]) => {
    const number = Math.floor(left / size);
    left -= number * size;
    return number > 0 ? `${number} ${unit}` : "";
  });
  return parts.filter(Boolean).join(" ");
}
