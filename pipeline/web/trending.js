// The table beside the map: every cluster, what a window did to it, live. It is the map for those
// who do not see one, so it has all the map has.

import { ask } from "./api.js";
import { calmly, h, setText } from "./dom.js";
import { count, plural, signed } from "./format.js";
import { choice, clusterLink, heading, sparkline } from "./parts.js";
import { nameOf, on, shown, store } from "./store.js";

const FIRST_ROWS = 60;
const CALM_MS = 500; // between two orders of the table
const COLUMNS = [
  ["name", "Cluster", null],
  ["size", "Items", "items that are in it now"],
  ["net", "Net", "items gained less items lost in the window"],
  ["score", "Surprise", "how unlike its own past the gain is, in standard deviations"],
  ["drift", "Drift", "largest statistic against its threshold: 100 % is an alarm"],
];
const asked = { window: "1h", sort: "score", isUp: false, isAll: false }; // outlives the view
const plainRow = { gained: 0, lost: 0, net: 0, score: 0, sparkline: null };

export function trendingView(panel, life) {
  let trends = new Map();
  const rows = new Map(); // id -> its elements
  const body = h("tbody");
  const heads = COLUMNS.map(([key, text, title]) =>
    h(
      "th",
      { scope: "col", class: key, title },
      h("button", { type: "button", onclick: () => sortBy(key) }, text),
    ),
  );
  const table = h(
    "table",
    { class: "trending" },
    h("caption", { class: "hidden" }, "Clusters, and what the window brought them"),
    h(
      "thead",
      {},
      h("tr", {}, heads.slice(0, 3), h("th", { scope: "col", class: "trend" }, "Trend"), heads.slice(3)),
    ),
    body,
  );
  const more = h("button", {
    type: "button",
    class: "more",
    hidden: true,
    onclick: () => {
      asked.isAll = true;
      arrange();
    },
  });
  const note = h("p", { class: "quiet" });
  const windows = choice(
    "Window",
    [
      ["5m", "5 min"],
      ["1h", "1 h"],
      ["24h", "24 h"],
    ],
    asked.window,
    (value) => {
      asked.window = value;
      load();
    },
  );
  panel.replaceChildren(heading("Trending", windows), h("div", { class: "scroll" }, table), more, note);

  async function load() {
    const found = await ask(
      "/trending",
      { window: asked.window, by: "rate", limit: 200 },
      { signal: life.signal },
    );
    trends = new Map(found.items.map((row) => [row.cluster, row]));
    arrange();
  }

  function sortBy(key) {
    asked.isUp = asked.sort === key ? !asked.isUp : key === "name";
    asked.sort = key;
    arrange();
  }

  function valueOf(row) {
    const trend = trends.get(row.cluster) ?? plainRow;
    const values = {
      name: nameOf(row.cluster),
      size: row.size,
      net: store.past ? row.growth : trend.net,
      score: trend.score,
      drift: row.drift ?? -1,
    };
    return values[asked.sort];
  }

  /** In order again; elements stay, so focus and screen readers keep their place. */
  function arrange() {
    heads.forEach((head, i) =>
      head.setAttribute(
        "aria-sort",
        COLUMNS[i][0] === asked.sort ? (asked.isUp ? "ascending" : "descending") : "none",
      ),
    );
    const order = [...shown().values()].map((row) => [valueOf(row), row]);
    order.sort(([a, x], [b, y]) => {
      const less = typeof a === "string" ? a.localeCompare(b) : a - b;
      return (asked.isUp ? less : -less) || y.size - x.size || (x.cluster < y.cluster ? -1 : 1);
    });
    const list = order.slice(0, asked.isAll ? undefined : FIRST_ROWS).map(([, row]) => rowOf(row));
    if (list.length !== body.children.length || list.some((row, i) => row !== body.children[i])) {
      const focused = body.contains(document.activeElement) ? document.activeElement : null;
      body.replaceChildren(...list);
      focused?.focus({ preventScroll: true });
    }
    more.hidden = list.length === order.length;
    setText(more, `Show all ${count(order.length)} clusters`);
    setText(
      note,
      order.length ? "" : store.model ? "" : "Nothing to show yet: the first model is still to come.",
    );
  }

  function rowOf(row) {
    const id = row.cluster;
    if (!rows.has(id)) {
      const cells = {
        name: h("th", { scope: "row", class: "name" }),
        size: h("td"),
        net: h("td"),
        trend: h("td", { class: "trend" }),
        score: h("td", { class: "score" }),
        drift: h("td", { class: "drift" }),
      };
      rows.set(id, { element: h("tr", {}, Object.values(cells)), cells, name: null, line: null });
    }
    const own = rows.get(id);
    const { cells } = own;
    const trend = store.past ? { ...plainRow, net: row.growth } : (trends.get(id) ?? plainRow);
    const name = nameOf(id);
    if (own.name !== name) cells.name.replaceChildren(clusterLink(id, (own.name = name)));
    setText(cells.size, count(row.size));
    setText(cells.net, signed(trend.net));
    cells.net.className = trend.net > 0 ? "net up" : trend.net < 0 ? "net down" : "net";
    setText(cells.score, trend.score ? signed(Math.round(10 * trend.score) / 10) : "–");
    setText(
      cells.drift,
      row.drift == null ? "–" : `${row.drift >= 1 ? "▲ " : ""}${Math.floor(100 * row.drift)} %`,
    );
    cells.drift.classList.toggle("alarm", row.drift >= 1);
    const line = trend.sparkline?.join();
    if (own.line !== line) {
      own.line = line;
      const words = trend.sparkline
        ? `${plural(trend.gained, "item")} gained, ${count(trend.lost)} lost`
        : "";
      cells.trend.replaceChildren(...(trend.sparkline ? [sparkline(trend.sparkline, words)] : []));
    }
    return own.element;
  }

  const soon = calmly(CALM_MS, () => life.isOver || arrange());
  on("clusters", soon, life);
  on("facts", soon, life);
  life.every(5000, load);
  arrange();
  return "Trending";
}
