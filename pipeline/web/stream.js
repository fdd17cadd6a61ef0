// The live stream: a WebSocket that goes on where it was, and server-sent events where there is
// none. It comes back after 0.5 s, doubling to 15 s, each time at a random part of that, so that a
// thousand pages do not come back at once.

import { root } from "./api.js";
import { store, tell } from "./store.js";

const FIRST_MS = 500;
const MOST_MS = 15000;
const SILENCE_MS = 40000; // a heartbeat comes every 15 s
const EVENTS = ["changes", "lifecycle", "drift"];
const RATE_S = 5;

let socket = null;
let source = null;
let resume = "";
let attempt = 0;
let refused = 0; // WebSockets that never said hello, in a row
let retry = 0;
let silence = 0;
let isWanted = false;
let hadSocket = false; // then a proxy lets them through, and it is the server that is away
const arrived = []; // [s, n] of the last few seconds

export function open() {
  isWanted = true;
  connect();
  setInterval(measure, 1000);
  addEventListener("online", () => hurry());
  document.addEventListener("visibilitychange", () => document.hidden || hurry());
}

/** Somebody waits: not at the end of the pause, now. */
export function hurry() {
  if (!isWanted || store.link === "live" || socket || source) return;
  clearTimeout(retry);
  connect();
}

/** Ask for the whole state again. */
export function askKey() {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "key" }));
}

function connect() {
  // of three tries the third is by plain HTTP, for proxies that know no WebSocket
  if (!hadSocket && refused % 3 === 2) connectEvents();
  else connectSocket();
}

function connectSocket() {
  const url = new URL("api/v1/stream", root);
  url.protocol = url.protocol.replace("http", "ws");
  const mine = (socket = new WebSocket(url, "eddy.v1"));
  refused += 1;
  mine.onopen = () => {
    mine.send(JSON.stringify({ type: "subscribe", id: "state", channels: ["clusters", "stats"] }));
    mine.send(JSON.stringify({ type: "subscribe", id: "events", channels: EVENTS, resume }));
  };
  mine.onmessage = (event) => mine === socket && take(JSON.parse(event.data), "ws");
  mine.onclose = () => mine === socket && lost();
  listenFor();
}

function connectEvents() {
  const url = new URL("api/v1/events", root);
  url.searchParams.set("channels", ["clusters", "stats", ...EVENTS].join(","));
  if (resume) url.searchParams.set("resume", resume);
  const mine = (source = new EventSource(url, { withCredentials: true }));
  refused += 1;
  mine.onmessage = (event) => mine === source && take(JSON.parse(event.data), "sse");
  mine.onerror = () => mine === source && lost(); // our pauses, not the browser's
  listenFor();
}

function lost(pauseMs = null) {
  socket?.close();
  source?.close();
  socket = source = null;
  clearTimeout(silence);
  if (store.link !== "reconnecting") {
    store.link = "reconnecting";
    tell("link");
  }
  const most = Math.min(MOST_MS, FIRST_MS * 2 ** Math.min(attempt, 10));
  attempt += 1;
  clearTimeout(retry);
  retry = setTimeout(connect, pauseMs ?? Math.random() * most);
}

function listenFor() {
  clearTimeout(silence);
  silence = setTimeout(() => lost(), SILENCE_MS);
}

function take(frame, transport) {
  listenFor();
  switch (frame.type) {
    case "hello":
      attempt = 0;
      refused = 0;
      if (transport === "sse")
        refused = 2; // stay with what works
      else hadSocket = true;
      store.transport = transport;
      store.link = "live";
      tell("link");
      break;
    case "key":
      store.clusters = new Map(frame.clusters.map((row) => [row.cluster, row]));
      stand(frame);
      break;
    case "delta":
      for (const row of frame.clusters) store.clusters.set(row.cluster, row);
      stand(frame);
      break;
    case "stats":
      store.stats = frame.stats;
      tell("stats");
      break;
    case "events":
      resume = frame.resume || resume;
      hear(frame);
      break;
    case "heartbeat":
      resume = frame.resume || resume;
      break;
    case "problem":
      // a token of other topics: begin anew, the state comes as a key anyway
      if (resume) resume = "";
      else console.warn("stream:", frame.problem);
      break;
    case "bye":
      lost(frame.retry_after_ms);
      break;
  }
}

function stand(frame) {
  const before = store.model;
  store.model = frame.model;
  store.t = frame.t;
  if (before?.epoch !== frame.model?.epoch) tell("model");
  tell("rows");
  if (!store.past) tell("clusters");
}

function hear(frame) {
  arrived.push([performance.now() / 1000, frame.events.length + frame.dropped]);
  store.dropped += frame.dropped;
  const told = { changes: [], lifecycle: [], drift: [] };
  for (const event of frame.events) {
    // the topics' own forms: an item's change has an item, an alarm has a signal
    if (event.item !== undefined) told.changes.push(event);
    else if (event.signal !== undefined) told.drift.push(event);
    else told.lifecycle.push(event);
  }
  for (const channel of EVENTS) if (told[channel].length) tell(channel, told[channel]);
}

function measure() {
  const now = performance.now() / 1000;
  while (arrived.length && arrived[0][0] < now - RATE_S) arrived.shift();
  store.rate = arrived.reduce((sum, [, n]) => sum + n, 0) / RATE_S;
  tell("rate");
}
