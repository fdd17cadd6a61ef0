// What a new model did to the clusters: ribbons from the epoch before to the epoch after.

import { ask } from "./api.js";
import { h, svg } from "./dom.js";
import { compact, count, plural, shorten, when } from "./format.js";
import { lookOf } from "./look.js";
import { clusterHash, eventList, fill, heading, quiet, section } from "./parts.js";
import { nameOf, store } from "./store.js";

const AROUND_MS = 10 * 60e3; // frames so near to a model tell what was before it and after
const MAX_KEPT = 60; // beyond, those that stayed are one band
const [WIDE, NAMES, NODE, GAP, LEAST] = [960, 250, 10, 5, 13];
const KEPT = "";

export function flowView(panel, life, epochText) {
  const [body, log] = [h("div", { class: "flow" }), h("div")];
  const pick = h("div", { class: "choice" });
  panel.replaceChildren(heading("Flow", pick), body, section("In words", log));

  fill(body, load(), (told) => {
    if (!told) return quiet("Only one epoch is known: ribbons are drawn when a second model is installed.");
    log.replaceChildren(eventList(told.events));
    pick.replaceChildren(
      ...told.epochs
        .slice(0, 6)
        .reverse()
        .map((epoch) =>
          h(
            "a",
            {
              href: `#flow/${epoch}`,
              class: "button",
              "aria-current": epoch === told.epoch ? "true" : false,
            },
            `→ ${epoch}`,
          ),
        ),
    );
    return [
      h(
        "p",
        { class: "quiet" },
        `Epoch ${told.epoch - 1} to ${told.epoch}, ${when(told.at, store.t ?? undefined)}. ${told.sentence}`,
      ),
      legend(),
      told.picture,
    ];
  });

  async function load() {
    const { items } = await ask("/lifecycle", { limit: 500 }, { signal: life.signal });
    for (const event of items.toReversed()) if (event.label) store.names.set(event.cluster, event.label);
    const installed = items.filter((event) => event.type === "installed" && event.model.revision === 0);
    const epochs = installed.map((event) => event.model.epoch).filter((epoch) => epoch > 1);
    const epoch = Number(epochText) || epochs[0];
    if (!epochs.includes(epoch)) return null;
    const at = Date.parse(installed.find((event) => event.model.epoch === epoch).occurred_at);
    const events = items.filter(
      (event) => event.model.epoch === epoch && event.type !== "labelled" && event.type !== "rejected",
    );
    const [before, after] = await around(at, epoch, events);
    const flow = ribbons(before, after, events);
    const n = (kind) => flow.links.filter((link) => link.kind === kind).length;
    const kept = flow.left.reduce((sum, node) => sum + (node.n ?? (after.has(node.id) ? 1 : 0)), 0);
    const sentence =
      `${count(kept)} kept, ${events.filter((event) => event.type === "split").length} split, ` +
      `${events.filter((event) => event.type === "merged").length} merged, ${count(events.filter((event) => event.type === "born").length)} born, ${count(events.filter((event) => event.type === "retired").length)} retired.`;
    return {
      epochs,
      epoch,
      at,
      events,
      sentence,
      picture: draw(flow, `${sentence} ${plural(n("split"), "ribbon")} of splits.`),
    };
  }

  /** Sizes before and after, id -> items: as frames have them, else as the fit counted them. */
  async function around(at, epoch, events) {
    const { items } = await ask(
      "/frames",
      { from: new Date(at - AROUND_MS).toISOString(), to: new Date(at + AROUND_MS).toISOString(), step: 10 },
      { signal: life.signal },
    ).catch(() => ({ items: [] }));
    const sizes = (frame) => frame && new Map(frame.clusters.map((row) => [row.cluster, row.size]));
    const after =
      sizes(items.findLast((frame) => frame.model?.epoch === epoch)) ??
      new Map([...store.clusters.values()].map((row) => [row.cluster, row.size]));
    let before = sizes(items.findLast((frame) => frame.model?.epoch === epoch - 1));
    if (!before) {
      const born = new Set(events.filter((event) => event.type === "born").map((event) => event.cluster));
      before = new Map([...after].filter(([id]) => !born.has(id)));
      for (const event of events) if (event.type === "retired") before.set(event.cluster, event.size ?? 0);
    }
    return [before, after];
  }
}

/** Nodes of both sides, and ribbons between: kept, split, merged, born, retired. */
export function ribbons(before, after, events) {
  const links = [];
  const of = (map, id) => Math.max(1, map.get(id) ?? 0);
  const add = (from, to, weight, kind) => {
    if (from !== to && links.some((link) => link.from === from && link.to === to)) return;
    links.push({ from, to, weight: Math.max(1, weight), kind });
  };
  for (const event of events) {
    const id = event.cluster;
    if (event.type === "split")
      for (const child of event.children) if (child !== id) add(id, child, of(after, child), "split");
    if (event.type === "merged")
      for (const parent of event.parents) if (parent !== id) add(parent, id, of(before, parent), "merged");
  }
  for (const event of events) {
    const id = event.cluster;
    if (event.type === "born" && after.has(id) && !links.some((link) => link.to === id)) {
      const from = event.parents.filter((parent) => before.has(parent));
      if (!from.length) add(null, id, of(after, id), "born");
      for (const parent of from) add(parent, id, of(after, id) / from.length, "born");
    }
    if (event.type === "retired" && before.has(id) && !links.some((link) => link.from === id)) {
      const heirs = event.children.filter((child) => after.has(child));
      if (!heirs.length) add(id, null, of(before, id), "retired");
      for (const heir of heirs) add(id, heir, of(before, id) / heirs.length, "retired");
    }
  }
  const changed = new Set(links.flatMap((link) => [link.from, link.to]));
  const kept = [...before.keys()].filter((id) => after.has(id));
  const quietOnes = kept.filter((id) => !changed.has(id));
  const folded = kept.length > MAX_KEPT ? new Set(quietOnes) : new Set();
  for (const id of kept)
    if (!folded.has(id))
      links.push({ from: id, to: id, weight: Math.min(of(before, id), of(after, id)), kind: "kept" });
  const nodes = (sizes) => {
    const found = [...sizes.keys()]
      .filter((id) => !folded.has(id))
      .map((id) => ({ id, size: sizes.get(id), isChanged: changed.has(id) }));
    found.sort((a, b) => b.isChanged - a.isChanged || b.size - a.size);
    if (folded.size)
      found.push({ id: KEPT, n: folded.size, size: [...folded].reduce((sum, id) => sum + sizes.get(id), 0) });
    return found;
  };
  if (folded.size) links.push({ from: KEPT, to: KEPT, weight: 1, kind: "kept" });
  const left = nodes(before);
  const rank = new Map(left.map((node, i) => [node.id, i]));
  const right = nodes(after);
  const place = (node) => {
    const own = links.filter((link) => link.to === node.id && link.from !== null);
    const weight = own.reduce((sum, link) => sum + link.weight, 0);
    return own.length ? own.reduce((sum, link) => sum + link.weight * rank.get(link.from), 0) / weight : -1;
  };
  right.forEach((node) => {
    node.place = place(node);
  });
  right.sort((a, b) => a.place - b.place || b.size - a.size);
  return {
    left,
    right,
    links: links.filter(
      (link) =>
        (link.from === null || rank.has(link.from)) &&
        (link.to === null || after.has(link.to) || link.to === KEPT),
    ),
  };
}

function draw({ left, right, links }, words) {
  const most = Math.max(left.length, right.length);
  const total = Math.max(...[left, right].map((side) => side.reduce((sum, node) => sum + node.size, 0)), 1);
  const tall = Math.max(260, Math.min(most * 26, 1400));
  const scale = Math.max(0, tall - most * (GAP + LEAST)) / total;
  const at = [left, right].map((side) => {
    let y = 8;
    return new Map(
      side.map((node) => {
        const high = LEAST + scale * node.size;
        const spot = { ...node, y, high, used: 0 };
        y += high + GAP;
        return [node.id, spot];
      }),
    );
  });
  const height =
    Math.max(...at.map((side) => Math.max(0, ...[...side.values()].map((spot) => spot.y + spot.high)))) + 10;
  const sums = (side, key) =>
    new Map(
      side.map((node) => [
        node.id,
        links.filter((link) => link[key] === node.id).reduce((sum, link) => sum + link.weight, 0),
      ]),
    );
  const [out, into] = [sums(left, "from"), sums(right, "to")];
  const order = [...links].sort((a, b) => (at[1].get(a.to)?.y ?? 0) - (at[1].get(b.to)?.y ?? 0));
  for (const link of order) link.start = take(at[0].get(link.from), link.weight, out.get(link.from));
  order.sort((a, b) => (at[0].get(a.from)?.y ?? 0) - (at[0].get(b.from)?.y ?? 0));
  for (const link of order) link.end = take(at[1].get(link.to), link.weight, into.get(link.to));
  order.sort((a, b) => (a.kind !== "kept") - (b.kind !== "kept"));
  const picture = svg("svg", {
    class: "ribbons",
    viewBox: `0 0 ${WIDE} ${Math.ceil(height)}`,
    role: "group",
    "aria-label": words,
  });
  for (const link of order) picture.append(ribbon(link));
  for (const spot of at[0].values())
    picture.append(node(spot, NAMES - NODE, "end", NAMES - NODE - 8, !at[1].has(spot.id) ? "retired" : ""));
  for (const spot of at[1].values())
    picture.append(
      node(spot, WIDE - NAMES, "start", WIDE - NAMES + NODE + 8, !at[0].has(spot.id) ? "new" : ""),
    );
  return h("div", { class: "scroll" }, picture);
}

/** The next part of a node's side. */
function take(spot, weight, total) {
  if (!spot) return null;
  const high = (spot.high * weight) / Math.max(total, 1e-9);
  const part = { y: spot.y + spot.used, high };
  spot.used += high;
  return part;
}

function ribbon({ from, to, kind, start, end }) {
  const [x0, x1] = [NAMES, WIDE - NAMES];
  const stub = 90;
  let d;
  if (start && end) {
    const m = (x0 + x1) / 2;
    d = `M${x0} ${start.y}C${m} ${start.y} ${m} ${end.y} ${x1} ${end.y}V${end.y + end.high}C${m} ${end.y + end.high} ${m} ${start.y + start.high} ${x0} ${start.y + start.high}Z`;
  } else if (end) d = `M${x1 - stub} ${end.y + end.high / 2}L${x1} ${end.y}V${end.y + end.high}Z`;
  else d = `M${x0 + stub} ${start.y + start.high / 2}L${x0} ${start.y}V${start.y + start.high}Z`;
  const hue = kind === "kept" ? "" : ` hue-${lookOf(to ?? from).hue}`;
  const words =
    from === KEPT
      ? "clusters that stayed"
      : from === to
        ? `${nameOf(from)} stayed`
        : `${kind}: ${from ? nameOf(from) : "nothing"} → ${to ? nameOf(to) : "nothing"}`;
  return svg("path", { class: `ribbon ${kind}${hue}`, d }, svg("title", {}, words));
}

function node(spot, x, anchor, textX, note) {
  const isFold = spot.id === KEPT;
  const name = isFold ? `${count(spot.n)} that stayed` : shorten(nameOf(spot.id), 27);
  const text = svg(
    "text",
    { x: textX, y: spot.y + spot.high / 2 + 4, "text-anchor": anchor },
    name,
    svg("tspan", { class: "size", dx: 7 }, `${compact(spot.size)}${note ? ` ${note}` : ""}`),
  );
  const parts = [
    svg("rect", {
      x,
      y: spot.y,
      width: NODE,
      height: spot.high,
      rx: 2,
      class: isFold ? "" : `hue-${lookOf(spot.id).hue}`,
    }),
    text,
  ];
  return isFold
    ? svg("g", { class: "node" }, parts)
    : svg("a", { class: "node", href: clusterHash(spot.id) }, parts);
}

const legend = () =>
  h(
    "p",
    { class: "keys" },
    ["kept", "split", "merged", "born", "retired"].map((kind) => h("span", { class: kind }, kind)),
  );
