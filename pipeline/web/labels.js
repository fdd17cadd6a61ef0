// Which bubbles get their names, and where: inside where there is room, else below, above or
// beside. The largest choose first; nothing is written over anything else.

import { foot } from "./layout.js";
import { lookOf } from "./look.js";

export const MAX_LABELS = 60;
const MAX_TRIED = 200; // bubbles: where these left no room, smaller ones find none
export const FONT_PX = 12;
const LINE = 14;
const widths = new Map(); // text -> pixels, in the one font of the map

export function measure(context, text) {
  let width = widths.get(text);
  if (width === undefined) {
    if (widths.size > 5000) widths.clear();
    width = context.measureText(text).width;
    widths.set(text, width);
  }
  return width;
}

/** Words in lines no wider than `most`; null: it does not fit into so many lines. */
function wrapped(context, text, most, maxLines) {
  const lines = [];
  for (const word of text.split(/\s+/)) {
    if (measure(context, word) > most) return null;
    const last = lines.at(-1);
    if (last !== undefined && measure(context, `${last} ${word}`) <= most) {
      lines[lines.length - 1] = `${last} ${word}`;
    } else lines.push(word);
    if (lines.length > maxLines) return null;
  }
  return lines;
}

function cut(context, text, most) {
  if (measure(context, text) <= most) return text;
  let end = text.length;
  while (end > 3 && measure(context, `${text.slice(0, end)}…`) > most) end -= 1;
  const space = text.lastIndexOf(" ", end);
  return `${text.slice(0, space > 6 ? space : end).trimEnd()}…`;
}

/** Labels of spots, the largest first: [{spot, lines, dx, dy, isInside}], relative to the bubble. */
export function labelled(context, spots, nameOf, width, height) {
  const taken = [];
  const found = [];
  const isNarrow = width < NARROW;
  const sizes = isNarrow ? NARROW_PX : INSIDE_PX;
  for (const spot of spots.slice(0, MAX_TRIED)) {
    if (found.length >= MAX_LABELS) break;
    const text = nameOf(spot.id) || spot.row.label || "";
    const label =
      inside(context, spot, text, sizes) ??
      (isNarrow ? shortened(context, spot, text.split(/\s/, 1), sizes.at(-1)) : null) ??
      outside(context, spot, text, sizes[0], spots, taken, width, height) ??
      shortened(context, spot, text.split(/\s+/, 3), sizes.at(-1)) ??
      shortened(context, spot, text.split(/\s+/, 1), sizes.at(-1));
    if (!label) continue;
    taken.push(box(spot, label));
    found.push(label);
  }
  return found;
}

const INSIDE_PX = [12, 11, 10];
const NARROW = 560; // px of the stage, below which text is smaller
const NARROW_PX = [11, 10, 9];

/** How wide a shape of radius r is at a height above its middle. */
function room(shape, r, y) {
  if (shape === "square") return 1.77 * r;
  if (shape === "diamond") return 2 * (1.2 * r - y);
  if (shape === "hexagon") return 2 * (1.06 * r - y / 1.732);
  return 2 * Math.sqrt(Math.max(0, r * r - y * y));
}

function inside(context, spot, text, sizes) {
  if (spot.r < 18) return null;
  const { shape } = lookOf(spot.id);
  for (const px of sizes) {
    const scale = px / FONT_PX;
    for (const nLines of [1, 2, 3, 4]) {
      const tall = nLines * LINE * scale;
      const most = room(shape, spot.r, tall / 2) - 7;
      const lines = tall < 1.7 * spot.r && most > 0 && wrapped(context, text, most / scale, nLines);
      if (!lines) continue;
      const wide = scale * Math.max(...lines.map((line) => measure(context, line)));
      return { spot, lines, wide, dx: 0, dy: 0, px, isInside: true };
    }
  }
  return null;
}

/** Where words have no room: the beginning of each, if that still says something. */
function shortened(context, spot, words, px) {
  const scale = px / FONT_PX;
  const most = room(lookOf(spot.id).shape, spot.r, (words.length * LINE * scale) / 2) - 6;
  if (most < (words.length > 1 ? 3.6 : 3) * px || words.length * LINE * scale > 1.7 * spot.r) return null;
  const lines = words.map((word) => cut(context, word, most / scale));
  const wide = scale * Math.max(...lines.map((line) => measure(context, line)));
  return { spot, lines, wide, dx: 0, dy: 0, px, isInside: true };
}

function outside(context, spot, text, px, spots, taken, width, height) {
  const scale = px / FONT_PX;
  const line = cut(context, text, (width < NARROW ? 110 : 150) / scale);
  const wide = scale * measure(context, line);
  const away = spot.r + LINE / 2 + 5;
  const beside = spot.r + wide / 2 + 7;
  const within = (x) => Math.min(width - wide / 2 - 8, Math.max(wide / 2 + 8, x)) - spot.x;
  for (const [dx, dy] of [
    [within(spot.x), away],
    [within(spot.x), -away],
    [beside, 0],
    [-beside, 0],
  ]) {
    const label = { spot, lines: [line], wide, dx, dy, px, isInside: false };
    const mine = box(spot, label);
    if (mine.left < 4 || mine.right > width - 4 || mine.top < 4) continue;
    if (mine.bottom > height - foot(width)) continue;
    if (taken.some((other) => meets(mine, other))) continue;
    if (spots.some((other) => other !== spot && touches(mine, other))) continue;
    return label;
  }
  return null;
}

function box(spot, label) {
  const tall = label.lines.length * LINE;
  const [x, y] = [spot.x + label.dx, spot.y + label.dy];
  return {
    left: x - label.wide / 2 - 3,
    right: x + label.wide / 2 + 3,
    top: y - tall / 2,
    bottom: y + tall / 2,
  };
}

const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

function touches(mine, spot) {
  const dx = spot.x - Math.min(mine.right, Math.max(mine.left, spot.x));
  const dy = spot.y - Math.min(mine.bottom, Math.max(mine.top, spot.y));
  return dx * dx + dy * dy < spot.r * spot.r;
}

export const LINE_PX = LINE;
