// Pieces that several views are made of.

import { Problem } from "./api.js";
import { h, svg } from "./dom.js";
import { clockTime, figure } from "./format.js";
import { swatch } from "./look.js";
import { nameOf, store, tell } from "./store.js";

export const clusterHash = (id) => `#cluster/${encodeURIComponent(id)}`;
export const itemHash = (id) => `#item/${encodeURIComponent(id)}`;

/** A cluster's name with its look; pointing at it points at its bubble. */
export function clusterLink(id, name = nameOf(id)) {
  const focus = (hovered) => () => {
    store.hovered = hovered;
    tell("focus");
  };
  const listeners = {
    onpointerenter: focus(id),
    onpointerleave: focus(null),
    onfocus: focus(id),
    onblur: focus(null),
  };
  return h(
    "a",
    { class: "cluster", href: clusterHash(id), title: name === id ? id : `${name} (${id})`, ...listeners },
    swatch(id),
    h("span", {}, name),
  );
}

export const itemLink = (id) => h("a", { class: "item", href: itemHash(id), title: id }, id);

export const heading = (title, ...beside) =>
  h("header", { class: "head" }, h("h1", { tabindex: "-1" }, title), beside);
export const section = (title, ...children) => h("section", { class: "block" }, h("h2", {}, title), children);
export const quiet = (text) => h("p", { class: "quiet" }, text);

/** Facts in a grid: [[name, value, what it means], ...]. */
export function facts(rows) {
  return h(
    "dl",
    { class: "facts" },
    rows
      .filter(Boolean)
      .map(([name, value, title]) => h("div", { title }, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** A choice of a few: buttons, one of them pressed. */
export function choice(label, options, chosen, choose) {
  const buttons = options.map(([value, text]) =>
    h(
      "button",
      { type: "button", "aria-pressed": String(value === chosen), onclick: () => press(value) },
      text,
    ),
  );
  function press(value) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(options[i][0] === value)));
    choose(value);
  }
  return h("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}

/** Net of each minute or hour as bars, up and down from a line. */
export function sparkline(values, label) {
  const [wide, tall] = [84, 20];
  const root = (value) => Math.sign(value) * Math.sqrt(Math.abs(value)); // one spike is not all there is
  const most = Math.max(1, ...values.map((value) => Math.abs(root(value))));
  const step = wide / Math.max(1, values.length);
  const bars = (isUp) =>
    values
      .map((value, i) => {
        if (!value || value > 0 !== isUp) return "";
        return `M${(i * step + step / 2).toFixed(1)} ${tall / 2}v${((-root(value) / most) * (tall / 2 - 1)).toFixed(1)}`;
      })
      .join("");
  const path = (name, d) =>
    svg("path", { class: name, d, "stroke-width": Math.max(1, step - 0.6).toFixed(1) });
  return svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": label },
    svg("path", { class: "base", d: `M0 ${tall / 2}h${wide}` }),
    path("up", bars(true)),
    path("down", bars(false)),
  );
}

/** How much of a threshold is used: the mark is the threshold. */
export function gauge(share, title) {
  const kind = share == null ? "none" : share >= 1 ? "alarm" : share >= 0.7 ? "near" : "fine";
  const wide = Math.min(100, (100 * (share ?? 0)) / 1.5);
  return svg(
    "svg",
    {
      class: `gauge ${kind}`,
      viewBox: "0 0 100 10",
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": title,
    },
    svg("rect", { class: "rail", width: 100, height: 10, rx: 3 }),
    svg("rect", { class: "fill", width: wide, height: 10, rx: 3 }),
    svg("path", { class: "mark", d: "M66.7 0v10" }),
  );
}

export function bar(share, title) {
  return svg(
    "svg",
    {
      class: "gauge fine",
      viewBox: "0 0 100 10",
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": title,
    },
    svg("rect", { class: "rail", width: 100, height: 10, rx: 3 }),
    svg("rect", { class: "fill", width: Math.max(0, Math.min(100, 100 * share)), height: 10, rx: 3 }),
  );
}

/** What is shown instead of an answer. */
export function excuse(error) {
  if (error?.name === "AbortError") return "";
  if (!(error instanceof Problem))
    return quiet("The server does not answer. This page tries again by itself.");
  const words = {
    "no-model": "There is no model yet: the first is fitted when enough items have come.",
    "vectors-not-kept": "This server keeps no vectors, so it cannot look for what is near.",
    "not-found": error.message,
  };
  return quiet(words[error.kind] ?? `${error.body.title ?? "That did not work"}: ${error.message}`);
}

/** Fill a box from a question; says why if there is no answer. */
export async function fill(box, question, make) {
  box.setAttribute("aria-busy", "true");
  try {
    const answer = await question;
    if (box.matches(":focus-within")) return; // nobody loses his place
    const made = make(answer);
    box.replaceChildren(...[made].flat(Infinity).filter(Boolean));
  } catch (error) {
    const words = excuse(error);
    if (words) box.replaceChildren(words);
  } finally {
    box.removeAttribute("aria-busy");
  }
}

// --- events in words -----------------------------------------------------------------------

export const some = (ids) => {
  const links = ids.slice(0, 6).flatMap((id, i) => [i ? ", " : "", clusterLink(id)]);
  return ids.length > 6 ? [...links, ` and ${ids.length - 6} more`] : links;
};

/** What happened, as a sentence with links. */
export function story(event) {
  const own = event.cluster ? clusterLink(event.cluster, event.label ?? undefined) : "";
  switch (event.type) {
    case "installed": {
      const moved = event.moved == null ? "" : `, ${(100 * event.moved).toFixed(1)} % of the items moved`;
      return [
        `model ${event.model.epoch}.${event.model.revision} installed`,
        event.reason ? ` (${event.reason})` : "",
        moved,
      ];
    }
    case "born":
      return [own, event.parents.length ? [" born out of ", some(event.parents)] : " born"];
    case "split":
      return [own, " split, into ", some(event.children)];
    case "merged":
      return [own, " took in ", some(event.parents)];
    case "retired":
      return [own, " retired", event.children.length ? [", its items went to ", some(event.children)] : ""];
    case "restored":
      return [own, " restored"];
    case "labelled":
      return [
        clusterLink(event.cluster, event.cluster),
        event.label ? ` is called “${event.label}”` : " has no label now",
      ];
    case "rejected":
      return [own, own ? ": " : "", `rejected: ${event.reason ?? "no reason given"}`];
    default:
      return [event.type];
  }
}

const KINDS = {
  installed: "◆",
  born: "●",
  split: "◖",
  merged: "◗",
  retired: "○",
  restored: "◉",
  labelled: "✎",
  rejected: "×",
};

const line = (event, words) =>
  h(
    "li",
    {},
    h("time", { datetime: event.occurred_at }, clockTime(event.occurred_at)),
    h("span", { class: `kind ${event.type}`, "aria-hidden": "true" }, KINDS[event.type] ?? "·"),
    h("span", {}, words),
  );

const eventRow = (event) => line(event, story(event));

/** Events as a list; what a first fit brings forth all at once is one line. */
export function eventList(events) {
  const rows = [];
  const crowds = new Map(); // epoch -> clusters born out of nothing
  for (const event of events) {
    if (event.type !== "born" || event.parents.length) {
      rows.push(eventRow(event));
      continue;
    }
    const crowd = crowds.get(event.model.epoch);
    if (crowd) crowd.push(event.cluster);
    else rows.push([event, crowds.set(event.model.epoch, [event.cluster]).get(event.model.epoch)]);
  }
  return h(
    "ul",
    { class: "events" },
    rows.map((row) => {
      if (!Array.isArray(row)) return row;
      const [event, ids] = row;
      return ids.length < 3
        ? ids.map((cluster) => eventRow({ ...event, cluster }))
        : line(event, [`${ids.length} clusters born: `, some(ids)]);
    }),
  );
}

/** Where an item went and why. */
export function changeRow(change, { withItem = true } = {}) {
  const why = change.cause === "model" ? "new model" : change.type === "removed" ? "deleted" : "new vector";
  const end = (id) => (id ? clusterLink(id) : h("span", { class: "nowhere" }, "outside"));
  return h(
    "li",
    {},
    h("time", { datetime: change.occurred_at }, clockTime(change.occurred_at)),
    h(
      "span",
      { class: "grow" },
      withItem ? [itemLink(change.item), " "] : "",
      end(change.from),
      " → ",
      end(change.to),
    ),
    h("small", {}, why),
  );
}

const SIGNALS = {
  occupancy: [
    "The clusters' shares of the traffic are not those of the fit.",
    "Its share of the traffic is not that of the fit.",
  ],
  distance: [
    "Records land at another distance from their centroids than at the fit: something new may be coming in.",
    "Records land at another distance from its centroid than at the fit.",
  ],
  shift: [
    "Centroids have left the places where they were fitted. If all do so at once, the embedding model has probably changed.",
    "Its centroid has left the place where it was fitted: what it is about is moving.",
  ],
  imbalance: [
    "The clusters' sizes are less equal than at the fit.",
    "Its size is out of proportion to that at the fit.",
  ],
  churn: [
    "Changed items change their cluster more often than before.",
    "Changed items leave or enter it more often than before.",
  ],
};

export const meaning = (signal) => SIGNALS[signal.signal]?.[signal.cluster ? 1 : 0] ?? "";

export function alarmCard(signal) {
  const share = signal.statistic / signal.threshold;
  const others = signal.clusters.filter((id) => id !== signal.cluster).slice(0, 4);
  return h(
    "li",
    { class: `alarm ${signal.state}` },
    h(
      "div",
      { class: "row" },
      h("strong", {}, signal.signal),
      h("span", { class: "grow" }, signal.cluster ? clusterLink(signal.cluster) : "whole model"),
      h("span", { class: "state" }, signal.state === "raised" ? "▲ raised" : "cleared"),
      h("time", { datetime: signal.occurred_at }, clockTime(signal.occurred_at)),
    ),
    h(
      "p",
      {},
      meaning(signal),
      others.length ? [" Mostly ", others.flatMap((id, i) => [i ? ", " : "", clusterLink(id)]), "."] : "",
    ),
    h(
      "div",
      { class: "row" },
      gauge(share, `${figure(share)} of the threshold`),
      h(
        "small",
        {},
        `${figure(signal.statistic)}, threshold ${figure(signal.threshold)}; one false alarm in ${figure(signal.arl0)} windows`,
      ),
    ),
  );
}
