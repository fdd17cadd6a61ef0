// The map: clusters as bubbles on a canvas. What is drawn eases within 300 ms from what was to
// what is; the loop rests while nothing moves. Items fly at the screen's own rate, over a ground
// of bubbles that is painted only when it has changed.

import { byId, h } from "./dom.js";
import { figure, plural, signed } from "./format.js";
import { Flights } from "./flights.js";
import { chosen, placed, spread } from "./layout.js";
import { labelled } from "./labels.js";
import { readColours, swatch } from "./look.js";
import * as paint from "./paint.js";
import { brush, Stamps } from "./stamps.js";
import { nameOf, on, shown, store, tell } from "./store.js";

const EASE_MS = 300;
const MAX_ARCS = 14;
const MAX_RATIO = 2; // device pixels a pixel
const MANY = 120; // bubbles, from which on they are stamped,
const MANY_MS = 30; // and move no more often than so
const FRESH = 48; // stamps that are made for one frame: the first would wait for all

const canvas = byId("map");
const context = canvas.getContext("2d");
const ground = document.createElement("canvas").getContext("2d"); // what items fly over
const tip = byId("tip");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const flights = new Flights();
const frames = []; // [ms since the last, ms of drawing]

let width = 0;
let height = 0;
let spots = []; // where bubbles go: {id, row, x, y, r, ax, ay}
let drawn = new Map(); // id -> {id, row, x, y, r, from, to, forms}: where they are now
let stamps = new Stamps(1);
let pen = brush;
let names = []; // labels
let easedAt = -Infinity;
let asked = 0;
let last = 0;
let isStale = true; // the ground is another
let groundAt = -Infinity;

export function start(open) {
  readColours();
  new ResizeObserver(resize).observe(canvas.parentElement);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    stamps = new Stamps(ratio());
    if (pen !== brush) pen = stamps;
    for (const one of drawn.values()) one.forms = null;
    tell("theme");
    draw();
  });
  on("clusters", arrange);
  on("facts", relabel);
  on("flows", draw);
  on("focus", draw);
  on("changes", (changes) => {
    if (store.past || calm.matches || document.hidden) return;
    flights.add(changes, performance.now());
    ask();
  });
  on("past", () => flights.clear());
  canvas.addEventListener("pointermove", (event) => event.pointerType === "touch" || point(event));
  canvas.addEventListener("pointerleave", (event) => event.pointerType === "touch" || hover(null));
  canvas.addEventListener("click", (event) => {
    const found = at(event);
    const isFirstTap = event.pointerType === "touch" && store.hovered !== found?.id; // says what it is
    if (isFirstTap || !found?.id) hover(found);
    else open(found.id);
  });
  resize();
}

/** For tests: what is on the map, and how long frames took since this was asked anew. */
export const inspect = (isAnew = false) => ({
  bubbles: spots.map(({ id, row, x, y, r }) => ({ id, size: row.size, x, y, r })),
  drawn: [...drawn.values()].map(({ id, x, y, r }) => ({ id, x, y, r })),
  labels: names.map(({ spot, lines }) => ({ id: spot.id, lines })),
  flying: flights.count,
  frames: isAnew ? frames.splice(0) : [...frames],
  width,
  height,
});

const ratio = () => Math.min(MAX_RATIO, devicePixelRatio || 1);

function resize() {
  const box = canvas.parentElement.getBoundingClientRect();
  if (!box.width || !box.height) return;
  [width, height] = [Math.round(box.width), Math.round(box.height)];
  for (const one of [context, ground]) {
    one.canvas.width = width * ratio();
    one.canvas.height = height * ratio();
    one.setTransform(ratio(), 0, 0, ratio(), 0, 0);
  }
  stamps = new Stamps(ratio());
  spots = []; // another stage, another arrangement
  arrange();
}

/** New rows: everybody gets a target, and starts from where it is drawn. */
function arrange() {
  if (!width) return;
  const { rows, others } = chosen(shown());
  const before = new Map(spots.map((spot) => [spot.id, spot]));
  spots = spread(placed(others ? [...rows, others] : rows, width, height), before, width, height);
  const was = drawn;
  drawn = new Map();
  for (const spot of spots) {
    const { x, y, r } = was.get(spot.id) ?? { x: spot.x, y: spot.y, r: 0 };
    const { id, row } = spot;
    drawn.set(id, { id, row, x, y, r, from: { x, y, r }, to: spot, forms: null });
  }
  pen = drawn.size < MANY ? brush : stamps;
  easedAt = performance.now();
  relabel();
}

function relabel() {
  context.font = paint.FONT;
  names = labelled(context, spots, nameOf, width, height);
  draw();
}

function draw() {
  isStale = true;
  ask();
}

function ask() {
  if (!asked) asked = requestAnimationFrame(frame);
}

function frame(now) {
  asked = 0;
  const began = performance.now();
  const share = calm.matches ? 1 : Math.min(1, Math.max(0, (now - easedAt) / EASE_MS));
  if (isStale && (share === 1 || pen === brush || now - groundAt > MANY_MS)) {
    isStale = share < 1;
    groundAt = now;
    ease(1 - (1 - share) ** 3);
    drawGround();
  }
  context.clearRect(0, 0, width, height);
  context.drawImage(ground.canvas, 0, 0, width, height);
  flights.draw(context, drawn, now);
  paint.labels(context, names, drawn);
  if (drawn.size && !last) {
    performance.mark("eddy-first-frame");
    tell("drawn");
  }
  frames.push([now - last, performance.now() - began]);
  if (frames.length > 600) frames.shift();
  if (drawn.size) last = now;
  if (isStale || flights.count) ask();
}

function ease(share) {
  stamps.allow(FRESH);
  for (const one of drawn.values()) {
    const { from, to } = one;
    one.x = from.x + (to.x - from.x) * share;
    one.y = from.y + (to.y - from.y) * share;
    one.r = from.r + (to.r - from.r) * share;
    if (!one.forms?.isWhole) one.forms = paint.formed(one.id, one.row, to.r, pen);
  }
}

function drawGround() {
  const all = [...drawn.values()];
  ground.clearRect(0, 0, width, height);
  if (!store.past) paint.arcs(ground, store.flows.slice(0, MAX_ARCS), drawn);
  paint.parts(ground, all, "halo", pen);
  paint.parts(ground, all, "body", pen);
  paint.outlines(ground, all, store);
  paint.parts(ground, all, "ring", pen);
}

// --- pointing ------------------------------------------------------------------------------

function at(event) {
  const box = canvas.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const slack = event.pointerType === "touch" ? 10 : 4;
  let best = null;
  let nearest = Infinity;
  for (const spot of drawn.values()) {
    const far = Math.hypot(spot.x - x, spot.y - y) - spot.r;
    if (far < slack && far < nearest) [best, nearest] = [spot, far];
  }
  return best;
}

function point(event) {
  const found = at(event);
  hover(found);
  canvas.classList.toggle("pointing", Boolean(found?.id));
}

function hover(spot) {
  const id = spot?.id || null;
  if (store.hovered !== id) {
    store.hovered = id;
    tell("focus");
  }
  tip.hidden = !spot;
  if (!spot) return;
  const { row } = spot;
  const lines = [
    h("strong", {}, spot.id ? swatch(spot.id) : "", nameOf(spot.id) || row.label),
    h("span", {}, `${plural(row.size, "item")}, ${signed(row.growth ?? 0)} in the hour`),
  ];
  if (row.drift != null) {
    const words = row.drift >= 1 ? "drift alarm" : "of the drift threshold";
    lines.push(
      h(
        "span",
        {},
        row.drift >= 1
          ? `${words}: ${figure(row.drift)} × threshold`
          : `${Math.floor(100 * row.drift)} % ${words}`,
      ),
    );
  }
  tip.replaceChildren(...lines);
  const isRight = spot.x > width * 0.6;
  const isLow = spot.y > height * 0.7;
  tip.style.left = isRight ? "auto" : `${Math.round(spot.x + spot.r + 10)}px`;
  tip.style.right = isRight ? `${Math.round(width - spot.x + spot.r + 10)}px` : "auto";
  tip.style.top = isLow ? "auto" : `${Math.round(Math.max(6, spot.y - 20))}px`;
  tip.style.bottom = isLow ? `${Math.round(height - spot.y - 20)}px` : "auto";
}
