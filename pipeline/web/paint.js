// Strokes of the map: bubbles, rings, halos, arcs, labels. Each takes what it draws and where.

import { colour, lookOf, trace } from "./look.js";
import { FONT_PX, LINE_PX } from "./labels.js";

const font = (px) => `500 ${px}px Inter, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif`;
export const FONT = font(FONT_PX);
const TOP = -Math.PI / 2;
const NEAR = 0.7; // of the threshold: worth a look

/** Hues are drawn together: a change of colour is what costs. */
export function bubbles(context, spots, focus) {
  const { hues, ink, muted, panel } = colour();
  const groups = new Map();
  for (const spot of spots) {
    const hue = spot.id ? lookOf(spot.id).hue : -1;
    if (!groups.has(hue)) groups.set(hue, []);
    groups.get(hue).push(spot);
  }
  for (const [hue, members] of groups) {
    const tint = hue < 0 ? muted : hues[hue];
    context.beginPath();
    for (const spot of members) trace(context, lookOf(spot.id).shape, spot.x, spot.y, spot.r);
    context.fillStyle = panel; // arcs do not shine through
    context.fill();
    context.globalAlpha = 0.26;
    context.fillStyle = tint;
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = tint;
    context.lineWidth = 1.5;
    context.stroke();
  }
  for (const spot of spots) {
    if (spot.id !== focus.selected && spot.id !== focus.hovered) continue;
    context.beginPath();
    trace(context, lookOf(spot.id).shape, spot.x, spot.y, spot.r + 0.5);
    context.strokeStyle = ink;
    context.lineWidth = spot.id === focus.selected ? 3 : 2;
    context.stroke();
  }
}

/** Growth within the hour: a halo as wide as the share that came; losses are dashed. */
export function halos(context, spots) {
  const { hues, muted } = colour();
  for (const spot of spots) {
    const { growth, size } = spot.row;
    if (!growth || Math.abs(growth) < Math.max(2, 0.01 * size)) continue;
    const share = Math.min(1, Math.abs(growth) / Math.max(1, size - growth));
    const wide = 3 + 11 * Math.sqrt(share);
    context.beginPath();
    trace(context, lookOf(spot.id).shape, spot.x, spot.y, spot.r + (growth > 0 ? wide : 3));
    if (growth > 0) {
      context.globalAlpha = 0.2;
      context.fillStyle = spot.id ? hues[lookOf(spot.id).hue] : muted;
      context.fill();
      context.globalAlpha = 1;
    } else {
      context.setLineDash([2, 3]);
      context.strokeStyle = muted;
      context.lineWidth = 1;
      context.stroke();
      context.setLineDash([]);
    }
  }
}

/** Drift against its threshold: a full turn is the threshold. */
export function rings(context, spots) {
  const { bad, warn, muted } = colour();
  for (const spot of spots) {
    const drift = spot.row.drift;
    if (drift == null || drift < 0.05) continue;
    const isAlarm = drift >= 1;
    context.beginPath();
    context.arc(spot.x, spot.y, 1.12 * spot.r + 4, TOP, TOP + 2 * Math.PI * Math.min(1, drift));
    context.strokeStyle = isAlarm ? bad : drift >= NEAR ? warn : muted;
    context.globalAlpha = isAlarm || drift >= NEAR ? 1 : 0.55;
    context.lineWidth = isAlarm ? 3 : drift >= NEAR ? 2.5 : 1.5;
    context.stroke();
    context.globalAlpha = 1;
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

export function labels(context, found) {
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
    const x = one.spot.x + one.dx;
    const y = one.spot.y + one.dy - ((one.lines.length - 1) * step) / 2 + 0.5;
    one.lines.forEach((line, n) => {
      if (!one.isInside) context.strokeText(line, x, y + n * step);
      context.fillText(line, x, y + n * step);
    });
  }
}
