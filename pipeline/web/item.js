// One item: where it is, how sure that is, what happened to it, what is near. And the search.

import { ask, itemPath, Problem } from "./api.js";
import { h } from "./dom.js";
import { count, figure, NONE, percent, plural } from "./format.js";
import {
  bar,
  changeRow,
  clusterLink,
  facts,
  fill,
  heading,
  itemLink,
  quiet,
  section,
} from "./parts.js";
import { nameOf, on, store } from "./store.js";

const N_NEAR = 10;

export function itemView(panel, life, id) {
  const path = `/items/${itemPath(id)}`;
  const get = (rest = "", query = {}) => ask(`${path}${rest}`, query, { signal: life.signal });
  const [where, history, related, similar] = [0, 0, 0, 0].map(() => h("div"));
  panel.replaceChildren(
    heading(id),
    where,
    section("What happened to it", history),
    h(
      "div",
      { class: "two" },
      section("Related, of its cluster", related),
      section("Similar, of all", similar),
    ),
  );

  const show = (item) =>
    facts([
      ["Cluster", clusterLink(item.cluster)],
      [
        "Confidence",
        [percent(item.confidence, 0), " ", bar(item.confidence ?? 0, "confidence")],
        "how much nearer its cluster is than the next",
      ],
      ["Distance", figure(item.distance), "to the centroid"],
      ["Margin", figure(item.margin), "the second nearest centroid is so much farther"],
      ["Model", `${item.model.epoch}.${item.model.revision}`, "by which it was assigned"],
      item.metadata && Object.keys(item.metadata).length
        ? [
            "Metadata",
            Object.entries(item.metadata)
              .map(([key, value]) => `${key}: ${value}`)
              .join(", "),
          ]
        : null,
    ]);

  function near({ items }) {
    if (!items.length) return quiet("Nothing.");
    return h(
      "ol",
      { class: "members" },
      items.map((one) =>
        h("li", {}, itemLink(one.item), h("small", { title: nameOf(one.cluster) }, figure(one.similarity))),
      ),
    );
  }

  async function load() {
    await fill(where, get(), (item) => {
      history.replaceChildren(
        item.changes.length
          ? h(
              "ul",
              { class: "events" },
              item.changes.map((change) => changeRow(change, { withItem: false })),
            )
          : quiet("No change of it is kept."),
      );
      store.selected = item.cluster;
      return show(item);
    });
    fill(related, get("/related", { limit: N_NEAR }), near);
    fill(similar, get("/similar", { limit: N_NEAR }), near);
  }

  life.also(() => {
    store.selected = null;
  });
  on("changes", (changes) => changes.some((change) => change.item === id) && load(), life);
  on("facts", load, life);
  load();
  return id;
}

/** Both at once: the item of exactly this id, and clusters that the words fit. */
export function searchView(panel, life, text) {
  const [items, clusters] = [h("div"), h("div")];
  panel.replaceChildren(heading(`“${text}”`), section("Item", items), section("Clusters", clusters));
  const found = ask(`/items/${itemPath(text)}`, {}, { signal: life.signal }).catch((error) => {
    if (error instanceof Problem && error.status === 404) return null;
    throw error;
  });
  fill(items, found, (item) =>
    item
      ? h(
          "p",
          { class: "found" },
          itemLink(item.item),
          " is in ",
          clusterLink(item.cluster),
          item.confidence == null ? NONE : `, confidence ${percent(item.confidence, 0)}`,
        )
      : quiet("No item has exactly this id."),
  );
  fill(
    clusters,
    ask("/clusters", { q: text, limit: 30 }, { signal: life.signal }),
    ({ items: rows, next_cursor }) => [
      quiet(
        rows.length
          ? `${plural(rows.length, "cluster")}${next_cursor ? " and more" : ""} with this in label, typical item or id`
          : "No label, typical item or id has this in it.",
      ),
      h(
        "ul",
        { class: "near" },
        rows.map((row) => h("li", {}, clusterLink(row.cluster), h("small", {}, `${count(row.size)} items`))),
      ),
    ],
  );
  return `Search: ${text}`;
}
