// The page: views by hash, health, words for those who do not see the map.

import { loadFacts, loadSession, root, ask } from "./api.js";
import { clusterView } from "./cluster.js";
import { login, logout } from "./commands.js";
import { byId, h, Life, setText } from "./dom.js";
import { driftView } from "./drift.js";
import { flowView } from "./flow.js";
import { compact, count, iso, plural, rate, seconds, signed } from "./format.js";
import { historyView } from "./history.js";
import { itemView, searchView } from "./item.js";
import { placed, spread } from "./layout.js";
import { colour } from "./look.js";
import * as map from "./map.js";
import { nameOf, on, shown, store, tell } from "./store.js";
import { hurry, open } from "./stream.js";
import * as timeline from "./timeline.js";
import { trendingView } from "./trending.js";

const VIEWS = {
  map: trendingView,
  cluster: clusterView,
  item: itemView,
  search: searchView,
  drift: driftView,
  flow: flowView,
  history: historyView,
};
const WIDE_VIEWS = new Set(["flow", "history"]);
const WORDS_MS = 10000;
const FLOWS_MS = 5000;
const FACTS_MS = 30000;
const PATIENCE_MS = 400;

// --- views by hash: #cluster/<id>@<time> -----------------------------------------------------

let life = null;
let present = { name: "", argument: "", time: null };

function read() {
  const [place, time = ""] = location.hash.slice(1).split("@");
  const [name, ...rest] = place.split("/");
  const ms = Date.parse(time);
  const plain = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };
  return {
    name: VIEWS[name] ? name : "map",
    argument: plain(rest.join("/")),
    time: Number.isNaN(ms) ? null : ms,
  };
}

function route() {
  const next = read();
  const isOther = next.name !== present.name || next.argument !== present.argument;
  const isFirst = !life;
  const wasTime = present.time;
  present = next;
  if (next.time !== wasTime) timeline.show(next.time);
  if (!isOther && life) return;
  life?.end();
  life = new Life();
  const panel = byId("panel");
  const box = h("div"); // of this view alone: what one still writes that was left, nobody sees
  panel.replaceChildren(box);
  const title = VIEWS[next.name](box, life, next.argument, go);
  document.title = next.name === "map" ? "Eddy" : `${title} · Eddy`;
  document.body.classList.toggle("wide", WIDE_VIEWS.has(next.name));
  for (const link of byId("nav").children) {
    const isHere =
      link.hash === `#${next.name}` ||
      (link.hash === "#map" && ["cluster", "item", "search"].includes(next.name));
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  panel.scrollTop = 0;
  if (!isFirst) panel.querySelector("h1")?.focus({ preventScroll: true });
  tell("focus");
}

/** To a moment, or to now; where the page is stays. */
function go(ms) {
  const place = location.hash.slice(1).split("@")[0] || "map";
  const hash = ms == null ? `#${place}` : `#${place}@${iso(ms)}`;
  if (location.hash === hash) timeline.show(ms);
  else location.replace(hash);
}

// --- health ----------------------------------------------------------------------------------

const LINKS = { connecting: "connecting", live: "live", reconnecting: "reconnecting" };

function health() {
  const { stats, model } = store;
  const lag = stats ? Object.values(stats.lag_records).reduce((sum, n) => sum + n, 0) : null;
  const rows = [
    [
      "Stream",
      h("span", { class: `link ${store.link}` }, LINKS[store.link]),
      `by ${store.transport === "ws" ? "WebSocket" : "server-sent events"}`,
    ],
    ["Items", compact(stats?.items), "that have a cluster"],
    ["Clusters", compact(stats?.clusters_live), "that have items"],
    ["Events/s", rate(stats?.events_per_s ?? store.rate), "changes that came within the last seconds"],
    ["Lag", compact(lag), `records that the server is behind its topics; ${seconds(stats?.lag_s)}`],
    [
      "E2E p99",
      seconds(stats?.end_to_end_p99_s ?? stats?.delay_p99_s),
      "end to end: from a record's time until its change shows here",
    ],
    ["Model", model ? `${model.epoch}.${model.revision}` : "–", "epoch.revision"],
  ];
  const strip = byId("health");
  if (strip.children.length !== rows.length) {
    strip.replaceChildren(
      ...rows.map(([name, value, title]) => h("div", { title }, h("dt", {}, name), h("dd", {}, value))),
    );
    return;
  }
  rows.forEach(([, value], i) => {
    const cell = strip.children[i].lastChild;
    if (typeof value === "string") setText(cell, value);
    else if (cell.firstChild.className !== value.className) cell.replaceChildren(value);
  });
}

/** Banners of the connection, and what stands where the map would be. */
function connection() {
  const old = byId("lost");
  if (store.link === "reconnecting" && !old) {
    byId("banners").append(
      h(
        "p",
        { id: "lost", class: "notice bad" },
        h("span", {}, "The server does not answer; reconnecting. What is shown is the last that is known."),
        h("button", { type: "button", class: "plain", onclick: hurry }, "Try now"),
      ),
    );
  } else if (store.link === "live") old?.remove();
  emptiness();
}

function emptiness() {
  const box = byId("empty");
  const n = shown().size;
  box.hidden = n > 0;
  if (n) return;
  const words =
    store.link === "reconnecting"
      ? ["No server", "It is tried again and again; nothing is lost meanwhile."]
      : store.link === "connecting"
        ? ["Connecting", "The first frame comes when the server has read its topics."]
        : store.model
          ? ["No clusters", "This model has none."]
          : [
              "No model yet",
              "The first one is fitted when enough items have come. Produce some: this page shows them by itself.",
            ];
  if (box.firstChild?.textContent !== words[0])
    box.replaceChildren(h("strong", {}, words[0]), h("span", {}, words[1]));
}

// --- the map in words ------------------------------------------------------------------------

let spokenAt = -Infinity;

function speak() {
  if (performance.now() - spokenAt < WORDS_MS || !shown().size) return;
  spokenAt = performance.now();
  const rows = [...shown().values()];
  const most = (key) => rows.reduce((best, row) => ((row[key] ?? -1) > (best[key] ?? -1) ? row : best));
  const [largest, growing] = [most("size"), most("growth")];
  const alarms = rows.filter((row) => row.drift >= 1).length;
  const words =
    `${plural(rows.length, "cluster")} with ${count(rows.reduce((sum, row) => sum + row.size, 0))} items. ` +
    `Largest: ${nameOf(largest.cluster)}, ${count(largest.size)}. ` +
    (growing.growth > 0
      ? `Growing most: ${nameOf(growing.cluster)}, ${signed(growing.growth)} in the hour. `
      : "") +
    (alarms ? `${plural(alarms, "cluster")} with a drift alarm.` : "No drift alarm.");
  byId("map").setAttribute("aria-label", `Map of the clusters. ${words}`);
  setText(byId("live"), words);
}

function legend() {
  byId("legend").replaceChildren(
    ...[
      ["area", "items"],
      ["halo", "growth in the hour"],
      ["ring", "drift, full turn: alarm"],
      ["arc", "strongest flows of the hour"],
    ].map(([kind, text]) => h("span", { class: kind }, text)),
  );
}

// --- together --------------------------------------------------------------------------------

async function flows() {
  store.flows = (await ask("/flows", { window: "1h" })).items.filter(
    (flow) => flow.from && flow.to && flow.from !== flow.to,
  );
  tell("flows");
}

async function begin() {
  await loadSession().catch(() => {});
  if (store.session.auth !== "none" && !store.session.name) {
    await login();
    return;
  }
  welcome();
}

let isWelcome = false;

function welcome() {
  if (isWelcome) return hurry();
  isWelcome = true;
  if (store.session.name)
    byId("nav").after(
      h(
        "button",
        { type: "button", class: "plain", onclick: logout, title: `logged in as ${store.session.name}` },
        "Log out",
      ),
    );
  open();
  route();
  addEventListener("hashchange", route);
  on("drawn", surround);
  setTimeout(surround, present.time ? 0 : PATIENCE_MS); // nothing may be there to be drawn
}

let isSurrounded = false;

/** What stands around the map is asked for when it is there: its first frame does not wait. */
function surround() {
  if (isSurrounded) return;
  isSurrounded = true;
  const always = new Life();
  always.every(FLOWS_MS, flows);
  always.every(FACTS_MS, loadFacts);
  on("model", () => loadFacts().catch(() => {}));
  on("lifecycle", () => loadFacts().catch(() => {}));
  on("link", () => store.link === "live" && timeline.load().catch(() => {}));
  timeline
    .load()
    .catch(() => {})
    .then(() => present.time && timeline.show(present.time));
}

legend();
map.start((id) => {
  location.hash = `#cluster/${encodeURIComponent(id)}${store.past ? `@${iso(store.past.asked)}` : ""}`;
});
timeline.start(go);
for (const topic of ["stats", "link", "rate", "rows"]) on(topic, health);
on("link", connection);
on("clusters", emptiness);
on("clusters", speak);
on("unauthorized", login);
on("welcome", welcome);
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("query").value.trim();
  if (text) location.hash = `#search/${encodeURIComponent(text)}`;
});
addEventListener("click", (event) => {
  // who looks at the past stays there
  const hash = event.target.closest?.("a[href^='#']")?.hash;
  if (!store.past || !hash || hash.includes("@") || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  location.hash = `${hash}@${iso(store.past.asked)}`;
});
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(INPUT|TEXTAREA)$/.test(event.target.tagName))
    return;
  event.preventDefault();
  byId("query").focus();
});
byId("skip").addEventListener("click", () => requestAnimationFrame(() => byId("panel").focus()));
health();
connection();
begin();

/** For tests. */
window.__eddy = { store, root: String(root), map: map.inspect, colour, layout: { placed, spread } };
