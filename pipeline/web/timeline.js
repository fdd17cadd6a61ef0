// The scrubber: the last hours in a strip, with models and lifecycle on it. Dragged back, the page
// shows that moment; the hash keeps it, so a moment can be sent to somebody.

import { ask } from "./api.js";
import { byId, h, setText, svg } from "./dom.js";
import { clockTime, minuteTime, when } from "./format.js";
import { on, setPast, store, tell } from "./store.js";

const KEPT_MS = 6 * 3600e3;
const MAX_ROWS = 20000; // of clusters in all coarse frames
const STEPS_S = [10, 20, 30, 60, 120, 300, 600, 1800];
const REST_MS = 150; // so long a drag rests before the exact frame is asked for
const REFRESH_MS = 30000;
const BUCKET_PX = 6;
const PLAY_MS = 350;
const EDGE_MS = 15000; // so near to the end is now

let range, label, live, strip, play;
let [first, last] = [0, 0];
let loadedStep = 0;
let rest = 0;
let playing = 0;
let wanted = 0; // the newest question wins
let marks = [];
let navigate = () => {};

export function start(go) {
  navigate = go;
  range = h("input", {
    type: "range",
    id: "scrub",
    min: 0,
    max: 1,
    value: 1,
    step: 1,
    "aria-label": "Moment that is shown",
    disabled: true,
  });
  strip = svg("svg", { class: "strip", preserveAspectRatio: "none", "aria-hidden": "true" });
  label = h("output", { for: "scrub" });
  play = h(
    "button",
    { type: "button", class: "plain", "aria-pressed": "false", disabled: true, onclick: toggle },
    "▶ Play",
  );
  live = h(
    "button",
    { type: "button", class: "plain", disabled: true, onclick: () => navigate(null) },
    "Live",
  );
  byId("time").append(play, h("div", { class: "track" }, strip, range), label, live);
  range.addEventListener("input", () => drag(Number(range.value)));
  range.addEventListener("change", () => settle(Number(range.value)));
  new ResizeObserver(drawStrip).observe(strip);
  on("rows", advance);
  on("past", showTime);
  on("lifecycle", () => load().catch(() => {}));
  setInterval(() => document.hidden || load().catch(() => {}), REFRESH_MS);
  showTime();
}

/** Frames of all that is kept, as fine as their number allows, and what happened meanwhile. */
export async function load() {
  const perFrame = Math.max(1, store.clusters.size);
  const step = STEPS_S.find((s) => (KEPT_MS / 1000 / s) * perFrame <= MAX_ROWS) ?? 3600;
  // the same step: only what is new
  const known = step === loadedStep ? store.frames.filter((frame) => frame.ms > last - KEPT_MS) : [];
  const from = known.length ? new Date(known.at(-1).ms + 1).toISOString() : null;
  loadedStep = step;
  const [told, events, alarms] = await Promise.all([
    ask("/frames", { step, from }),
    ask("/lifecycle", { limit: 500 }),
    ask("/drift/alarms", { limit: 100, state: "raised" }),
  ]);
  store.frames = [...known, ...told.items.map(framed)];
  for (const event of events.items.toReversed()) if (event.label) store.names.set(event.cluster, event.label);
  marks = [
    ...events.items
      .filter((event) => event.type === "installed" && event.model.revision === 0)
      .map((event) => ({
        ms: Date.parse(event.occurred_at),
        kind: event.type,
        text: `model ${event.model.epoch}`,
        more: tally(events.items, event.model.epoch),
      })),
    ...alarms.items.map((alarm) => ({ ms: Date.parse(alarm.occurred_at), kind: "alarm", text: "" })),
  ];
  tell("frames");
  advance();
  drawStrip();
}

/** What a model did to clusters, in short. */
function tally(events, epoch) {
  const n = (type) => events.filter((event) => event.type === type && event.model.epoch === epoch).length;
  return ["split", "merged", "retired"]
    .map((type) => [n(type), type])
    .filter(([many]) => many)
    .map(([many, type]) => `${many} ${type}`)
    .join(", ");
}

const framed = (frame) => ({
  ...frame,
  ms: Date.parse(frame.t),
  rows: new Map(frame.clusters.map((row) => [row.cluster, row])),
});

/** The strip ends now, wherever that is. */
function advance() {
  if (!store.frames.length) return;
  const was = last;
  first = store.frames[0].ms;
  last = Math.max(store.frames.at(-1).ms, Date.parse(store.t ?? 0) || 0);
  range.disabled = play.disabled = last - first < EDGE_MS;
  [range.min, range.max] = [first, last];
  range.step = 1000;
  if (!store.past) range.value = last;
  if (was !== last) showTime();
}

/** Show a moment, or now. Called by the router: the hash decides. */
export async function show(ms) {
  clearTimeout(rest);
  const mine = ++wanted;
  if (ms == null) {
    stop();
    if (store.past) setPast(null);
    return;
  }
  const near = nearest(ms);
  if (near) setPast({ ...near, asked: ms });
  const told = await ask("/frames", {
    from: new Date(ms - 15000).toISOString(),
    to: new Date(ms + 1000).toISOString(),
    step: 10,
  }).catch(() => null);
  const exact = told?.items.at(-1);
  if (mine !== wanted) return;
  if (exact) setPast({ ...framed(exact), asked: ms });
  else if (!near) navigate(null);
}

function nearest(ms) {
  let best = null;
  for (const frame of store.frames)
    if (!best || Math.abs(frame.ms - ms) < Math.abs(best.ms - ms)) best = frame;
  return best;
}

/** While it is dragged the nearest coarse frame does; at rest the exact one is asked for. */
function drag(ms) {
  clearTimeout(rest);
  wanted += 1;
  if (ms >= last - 1000) return setPast(null);
  const near = nearest(ms);
  if (near) setPast({ ...near, asked: ms });
  rest = setTimeout(() => settle(ms), REST_MS);
}

function settle(ms) {
  clearTimeout(rest);
  navigate(ms >= last - 1000 ? null : ms);
}

function toggle() {
  if (playing) return stop();
  const step = Math.max(10000, (last - first) / 120);
  const begin = store.past ? store.past.asked : first;
  let ms = begin;
  play.setAttribute("aria-pressed", "true");
  setText(play, "❚❚ Stop");
  playing = setInterval(() => {
    ms += step;
    if (ms >= last) return navigate(null);
    drag(ms);
  }, PLAY_MS);
}

function stop() {
  clearInterval(playing);
  playing = 0;
  play.setAttribute("aria-pressed", "false");
  setText(play, "▶ Play");
}

function showTime() {
  const { past } = store;
  live.disabled = !past;
  live.classList.toggle("on", !past);
  const now = past ? past.ms : last || Date.parse(store.t ?? "");
  setText(label, now ? clockTime(now) : "");
  range.setAttribute("aria-valuetext", past ? `as it was at ${clockTime(now)}` : "now");
  if (past) range.value = past.asked;
  document.body.classList.toggle("past", Boolean(past));
  const banner = byId("past");
  if (!past) return banner?.remove();
  const words = `As it was at ${when(past.ms, last)}, model ${past.model?.epoch ?? "–"}.${past.model?.revision ?? "–"}`;
  if (banner) return setText(banner.firstChild, words);
  byId("banners").prepend(
    h(
      "p",
      { id: "past", class: "notice past" },
      h("span", {}, words),
      h("button", { type: "button", class: "plain", onclick: () => navigate(null) }, "Back to live"),
    ),
  );
}

/** Activity as an area, models and events as marks. */
function drawStrip() {
  const { clientWidth: wide, clientHeight: tall } = strip;
  if (!wide || last <= first) return;
  const x = (ms) => ((ms - first) / (last - first)) * wide;
  strip.setAttribute("viewBox", `0 0 ${wide} ${tall}`);
  const moves = new Array(Math.ceil(wide / BUCKET_PX) + 1).fill(0);
  store.frames.forEach((frame, i) => {
    const before = i ? store.frames[i - 1].rows : null;
    if (!before || frame.model.epoch !== store.frames[i - 1].model.epoch) return; // a model moves all
    const moved = frame.clusters.reduce(
      (sum, row) => sum + Math.abs(row.size - (before.get(row.cluster)?.size ?? 0)),
      0,
    );
    moves[Math.floor(x(frame.ms) / BUCKET_PX)] += moved;
  });
  const most = Math.max(1, [...moves].sort((a, b) => a - b)[Math.floor(0.98 * moves.length)]); // but for a first fit
  const high = (n) => (tall - 13 - Math.sqrt(Math.min(1, n / most)) * (tall - 26)).toFixed(1);
  const area = moves.map((n, i) => `V${high(n)}H${Math.min(wide, (i + 1) * BUCKET_PX)}`).join("");
  const parts = [svg("path", { class: "activity", d: `M0 ${tall - 13}${area}V${tall - 13}Z` })];
  const hour = [300e3, 900e3, 1800e3, 3600e3].find((ms) => (last - first) / ms <= wide / 70) ?? 7200e3;
  for (let ms = Math.ceil(first / hour) * hour; ms < last; ms += hour) {
    if (x(ms) > 16 && x(ms) < wide - 16)
      parts.push(svg("text", { x: x(ms), y: tall - 2, "text-anchor": "middle" }, minuteTime(ms)));
  }
  const models = marks.filter((mark) => mark.kind === "installed").sort((a, b) => a.ms - b.ms);
  for (const { ms, kind, text, more } of marks) {
    if (ms < first - 60e3 || ms > last) continue;
    const at = Math.max(0, x(ms));
    if (kind === "alarm") {
      parts.push(svg("path", { class: "alarm", d: `M${at - 4} ${tall - 14}h8l-4 -7z` }));
      continue;
    }
    const room = x(models.find((model) => model.ms > ms)?.ms ?? last) - at;
    parts.push(svg("path", { class: "model", d: `M${at} 0V${tall - 13}` }));
    if (room > 46)
      parts.push(
        svg(
          "text",
          { x: at + 4, y: 9, class: "model" },
          text,
          room > 190 && more ? svg("tspan", { dx: 6 }, more) : "",
        ),
      );
  }
  strip.replaceChildren(...parts);
}
