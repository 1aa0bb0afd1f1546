"use strict";
// Elements, and how quantities are written.

const data = JSON.parse(document.getElementById("data").textContent);
const run = data.run;

const at = (id) => document.getElementById(id);

function append(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) parent.append(child);
  }
  return parent;
}

/** An HTML element. Texts are set as texts: nothing in the data is ever read as HTML. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return append(node, children);
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return append(node, children);
}

const px = (x) => Math.round(x * 100) / 100;
const sum = (values) => values.reduce((a, b) => a + b, 0);
// Not by Math.max(...values): a run may have more steps than a call has arguments.
const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);

/** Thousands are parted by a thin space that no line breaks at. */
function grouped(value, decimals = 0) {
  const [whole, part] = value.toFixed(decimals).split(".");
  const spaced = whole.replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return part ? `${spaced}.${part}` : spaced;
}

/** The same for every long number in a text. */
const spaced = (text) => text.replace(/\b\d{5,}\b/g, (digits) => grouped(Number(digits)));

/** Three significant digits, or all that stand before the point. */
function short(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 100) return grouped(value);
  const decimals = size >= 10 ? 1 : size >= 1 ? 2 : Math.min(6, 2 - Math.floor(Math.log10(size)));
  return value.toFixed(decimals);
}

const percent = (fraction) => `${(100 * fraction).toFixed(1)}\u2009%`;
const counted = (n, one, many = one + "s") => `${grouped(n)} ${n === 1 ? one : many}`;

function scaled(value, units) {
  const [factor, name] = units.find(([factor]) => Math.abs(value) >= factor) ?? units.at(-1);
  return { factor, name };
}

const BYTES = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]];
const SECONDS = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]];
const FLOP = [[1e12, "TFLOP"], [1e9, "GFLOP"], [1e6, "MFLOP"], [1e3, "kFLOP"], [1, "FLOP"]];

function quantity(value, units) {
  const { factor, name } = scaled(value, units);
  return `${short(value / factor)}\u00a0${name}`;
}
const bytes = (value) => quantity(value, BYTES);
const seconds = (value) => quantity(value, SECONDS);
/** Of what stages cost: seconds if blocks were timed, or else counted operations. */
const COST = data.balance === "measured" ? SECONDS : FLOP;
const cost = (value) => quantity(value, COST);

/** Round positions from `low` to `high`, at most about `count`. */
function ticks(low, high, count) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => span / n <= count);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, k) => (first + k) * step);
}

/** As many digits after the point as tell ticks apart. */
function tickText(value, all) {
  const step = all.length > 1 ? all[1] - all[0] : Math.abs(value) || 1;
  return grouped(value, Math.max(0, Math.min(9, -Math.floor(Math.log10(step) + 1e-9))));
}

/** A table; a column is a name, whether it holds numbers, and what it shows of a row. */
function table(columns, rows) {
  const head = columns.map(({ name, number }) => el("th", { class: number ? "number" : "" }, name));
  const cells = (row) =>
    columns.map(({ number, kind, of }) =>
      el("td", { class: number ? "number" : kind ?? "" }, of(row)));
  return el("table", {},
    el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, rows.map((row) => el("tr", {}, cells(row)))));
}

/** Draws `make(width)` into a place, and again when its width changes. */
function drawn(place, make) {
  let width = 0;
  let shown = null;
  const draw = () => {
    const now = Math.floor(place.clientWidth);
    if (now === 0 || now === width) return;
    width = now;
    const picture = make(width);
    if (shown) shown.replaceWith(picture);
    else place.append(picture);
    shown = picture;
  };
  draw();
  new ResizeObserver(draw).observe(place);
}
