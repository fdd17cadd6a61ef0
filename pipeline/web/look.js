// How a cluster looks wherever it is shown: a hue and a shape that its id decides, for ever.
// Hues are told apart with every kind of colour blindness; the shape says it again.

import { svg } from "./dom.js";

const N_HUES = 8;
export const SHAPES = ["circle", "square", "hexagon", "diamond"];
let colours = {};

/** Read the colours of the style sheet; again when it turns dark. */
export function readColours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["ground", "panel", "ink", "muted", "line", "accent", "good", "bad", "warn"];
  colours = Object.fromEntries(names.map((name) => [name, of(name)]));
  colours.hues = Array.from({ length: N_HUES }, (_, n) => of(`hue-${n}`));
  return colours;
}

export const colour = () => colours;

/** Ids are c1, c2, ...: neighbours differ most. Other names are hashed. */
function numberOf(id) {
  const found = /^c(\d+)$/.exec(id);
  if (found) return Number(found[1]);
  let hash = 2166136261;
  for (const letter of id) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619) >>> 0;
  return hash;
}

const MAX_LOOKS = 10000;
const looks = new Map(); // asked for each bubble and each frame

export function lookOf(id) {
  let look = looks.get(id);
  if (!look) {
    if (looks.size >= MAX_LOOKS) looks.clear();
    const n = numberOf(id);
    look = { hue: n % N_HUES, shape: SHAPES[Math.floor(n / N_HUES) % SHAPES.length] };
    looks.set(id, look);
  }
  return look;
}

const POLYGONS = {
  square: polygon(4, Math.PI / 4, 1.2533),
  hexagon: polygon(6, 0, 1.0996),
  diamond: polygon(4, 0, 1.2533),
};

/** How far out a shape of radius r goes, to each side, in r; corners are rounded. */
export const REACH = { circle: 1, square: 0.89, hexagon: 1.1, diamond: 1.26 };

/** Corners at a circumradius that gives the area of the unit circle. */
function polygon(n, turn, radius) {
  return Array.from({ length: n }, (_, i) => {
    const angle = turn + (2 * Math.PI * i) / n;
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
}

/** Add a shape of the area of a circle of radius r to a canvas' path; corners are rounded. */
export function trace(context, shape, x, y, r) {
  const corners = POLYGONS[shape];
  if (!corners || r < 2) {
    context.moveTo(x + r, y);
    context.arc(x, y, r, 0, 2 * Math.PI);
    return;
  }
  const n = corners.length;
  const round = 0.34 * r;
  const middle = [(corners[n - 1][0] + corners[0][0]) / 2, (corners[n - 1][1] + corners[0][1]) / 2];
  context.moveTo(x + middle[0] * r, y + middle[1] * r);
  for (let i = 0; i < n; i++) {
    const [ax, ay] = corners[i];
    const [bx, by] = corners[(i + 1) % n];
    context.arcTo(x + ax * r, y + ay * r, x + ((ax + bx) / 2) * r, y + ((ay + by) / 2) * r, round);
  }
  context.closePath();
}

/** The same as a little picture beside a name. */
export function swatch(id) {
  const { hue, shape } = lookOf(id);
  const corners = POLYGONS[shape];
  const form = corners
    ? svg("polygon", { points: corners.map(([x, y]) => `${8 + 5 * x},${8 + 5 * y}`).join(" ") })
    : svg("circle", { cx: 8, cy: 8, r: 5.3 });
  form.setAttribute("stroke-linejoin", "round");
  return svg("svg", { class: `swatch hue-${hue}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, form);
}
