// Strokes of the map: bubbles, rings, halos, arcs, labels. Each takes what it draws and where.

import { colour, lookOf, REACH, trace } from "./look.js";
import { FONT_PX, LINE_PX } from "./labels.js";

const font = (px) => `500 ${px}px Inter, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif`;
export const FONT = font(FONT_PX);
const TOP = -Math.PI / 2;
const NEAR = 0.7; // of the threshold: worth a look
const TURNS = 60; // so finely a ring tells

/** A bubble, its colour half through. */
function body(tint, shape) {
  const { panel } = colour();
  return (context, x, y, r) => {
    context.beginPath();
    trace(context, shape, x, y, r);
    context.fillStyle = panel; // arcs do not shine through
    context.fill();
    context.globalAlpha = 0.26;
    context.fillStyle = tint;
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = tint;
    context.lineWidth = 1.5;
    context.stroke();
  };
}

/** Growth within the hour: a halo; losses are dashed. */
const halo = (tint, shape) => (context, x, y, r) => {
  context.beginPath();
  trace(context, shape, x, y, r);
  context.globalAlpha = 0.2;
  context.fillStyle = tint;
  context.fill();
  context.globalAlpha = 1;
};

const dashes = (tint, shape) => (context, x, y, r) => {
  context.beginPath();
  trace(context, shape, x, y, r);
  context.setLineDash([2, 3]);
  context.strokeStyle = tint;
  context.lineWidth = 1;
  context.stroke();
  context.setLineDash([]);
};

const ring = (tint, alpha, wide, turn) => (context, x, y, r) => {
  context.beginPath();
  context.arc(x, y, r, TOP, TOP + turn);
  context.strokeStyle = tint;
  context.globalAlpha = alpha;
  context.lineWidth = wide;
  context.stroke();
  context.globalAlpha = 1;
};

/**
 * What a bubble of a row consists of, the radius of each part being `times` the bubble's and `more`:
 * {halo, body, ring}. `pen` is a brush, or stamps where there are many; isWhole: not to be asked
 * for again.
 */
export function formed(id, row, goal, pen) {
  const { hues, muted, bad, warn } = colour();
  const { hue, shape } = lookOf(id);
  const tint = id ? hues[hue] : muted;
  const kind = `${shape} ${id ? hue : "none"}`;
  const part = (name, times, more, reach, paint) => {
    const form = pen.form(name, times * goal + more, reach, paint);
    found.isWhole &&= pen.isDone(form);
    return { times, more, form };
  };
  const found = { isWhole: true, halo: null, body: null, ring: null };
  found.body = part(kind, 1, 0, REACH[shape], body(tint, shape));
  const { growth, size, drift } = row;
  if (growth && Math.abs(growth) >= Math.max(2, 0.01 * size)) {
    // as wide as the share that came
    const share = Math.min(1, Math.abs(growth) / Math.max(1, size - growth));
    found.halo =
      growth > 0
        ? part(`halo ${kind}`, 1, 3 + 11 * Math.sqrt(share), REACH[shape], halo(tint, shape))
        : part(`loss ${shape}`, 1, 3, REACH[shape], dashes(muted, shape));
  }
  if (drift != null && drift >= 0.05) {
    // against its threshold: a full turn is the threshold, and not before
    const n = Math.min(TURNS, Math.floor(drift * TURNS));
    const [colour, alpha, wide] =
      drift >= 1 ? [bad, 1, 3] : drift >= NEAR ? [warn, 1, 2.5] : [muted, 0.55, 1.5];
    const turn = (2 * Math.PI * n) / TURNS;
    found.ring = part(`ring ${n}`, 1.12, 4, 1, ring(colour, alpha, wide, turn));
  }
  return found;
}

/** One part of all bubbles: halos lie below every body. */
export function parts(context, spots, name, pen) {
  for (const spot of spots) {
    const part = spot.forms[name];
    if (part) pen.put(context, part.form, spot.x, spot.y, part.times * spot.r + part.more);
  }
}

export function outlines(context, spots, focus) {
  for (const spot of spots) {
    if (spot.id !== focus.selected && spot.id !== focus.hovered) continue;
    context.beginPath();
    trace(context, lookOf(spot.id).shape, spot.x, spot.y, spot.r + 0.5);
    context.strokeStyle = colour().ink;
    context.lineWidth = spot.id === focus.selected ? 3 : 2;
    context.stroke();
  }
}

/** The strongest flows of the window, from edge to edge, bent to the right. */
export function arcs(context, flows, at) {
  const most = flows.length ? flows[0].count : 1;
  const { muted } = colour();
  context.strokeStyle = context.fillStyle = muted;
  for (const flow of flows) {
    const from = at.get(flow.from);
    const to = at.get(flow.to);
    if (!from || !to) continue;
    const bend = bow(from, to);
    const wide = 0.75 + 3 * Math.sqrt(flow.count / most);
    const start = towards(from, bend, from.r + 4);
    const end = towards(to, bend, to.r + 6 + wide);
    context.globalAlpha = 0.32;
    context.lineWidth = wide;
    context.beginPath();
    context.moveTo(start.x, start.y);
    context.quadraticCurveTo(bend.x, bend.y, end.x, end.y);
    context.stroke();
    const angle = Math.atan2(end.y - bend.y, end.x - bend.x);
    const head = 4 + wide;
    context.globalAlpha = 0.5;
    context.beginPath();
    context.moveTo(end.x + head * Math.cos(angle), end.y + head * Math.sin(angle));
    context.lineTo(end.x + head * Math.cos(angle + 2.2), end.y + head * Math.sin(angle + 2.2));
    context.lineTo(end.x + head * Math.cos(angle - 2.2), end.y + head * Math.sin(angle - 2.2));
    context.fill();
  }
  context.globalAlpha = 1;
}

/** Through where a way from one to the other bends. */
export function bow(from, to) {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  return { x: (from.x + to.x) / 2 - 0.18 * dy, y: (from.y + to.y) / 2 + 0.18 * dx };
}

function towards(spot, aim, far) {
  const angle = Math.atan2(aim.y - spot.y, aim.x - spot.x);
  return { x: spot.x + far * Math.cos(angle), y: spot.y + far * Math.sin(angle) };
}

/** Where a label is, goes by where its bubble is now. */
export function labels(context, found, at) {
  const { ink, ground } = colour();
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.strokeStyle = ground;
  context.fillStyle = ink;
  context.lineWidth = 4;
  let px = 0;
  for (const one of found) {
    if (one.px !== px) context.font = font((px = one.px)); // parsing a font costs
    const step = (LINE_PX * px) / FONT_PX;
    const spot = at.get(one.spot.id) ?? one.spot;
    const x = spot.x + one.dx;
    const y = spot.y + one.dy - ((one.lines.length - 1) * step) / 2 + 0.5;
    one.lines.forEach((line, n) => {
      if (!one.isInside) context.strokeText(line, x, y + n * step);
      context.fillText(line, x, y + n * step);
    });
  }
}
