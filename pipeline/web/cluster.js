// One cluster: what it is, what is typical of it and what is odd, where it came from, what comes.

import { ask } from "./api.js";
import { chart } from "./chart.js";
import { command, label, split } from "./commands.js";
import { h } from "./dom.js";
import { count, figure, NONE, percent, signed, when } from "./format.js";
import { colour, lookOf, swatch } from "./look.js";
import {
  alarmCard,
  bar,
  changeRow,
  choice,
  clusterLink,
  eventList,
  excuse,
  facts,
  fill,
  itemLink,
  quiet,
  section,
  some,
} from "./parts.js";
import { nameOf, on, shown, store } from "./store.js";

const N_MEMBERS = 8;
const SPANS = { "1h": 3600e3, "6h": 6 * 3600e3, "24h": 24 * 3600e3 };

export function clusterView(panel, life, id) {
  const path = `/clusters/${encodeURIComponent(id)}`;
  const get = (rest = "", query = {}) => ask(`${path}${rest}`, query, { signal: life.signal });
  const box = (name) => h("div", { class: name });
  const [head, numbers, growth, members, near, past, moves] = ["head", "", "plot", "two", "", "", ""].map(
    box,
  );
  const title = h("h1", { tabindex: "-1" });
  const edit = command("Rename", rename, { isPlain: true });
  const halve = command("Split", () => split(id), { isPlain: true });
  let row = null;
  let span = "1h";

  head.append(
    swatch(id),
    title,
    h("span", { class: "id" }, id),
    h("span", { class: "grow" }),
    edit ?? "",
    halve ?? "",
  );
  const chartHead = choice(
    "Time",
    Object.keys(SPANS).map((key) => [key, key]),
    span,
    (key) => {
      span = key;
      load(true);
    },
  );
  panel.replaceChildren(
    head,
    numbers,
    section("Size over time", chartHead, growth),
    members,
    section("Similar clusters", near),
    section("Lineage", past),
    section("Items that came and went", moves),
  );

  function rename() {
    const input = h("input", {
      value: row?.label ?? "",
      maxlength: 200,
      "aria-label": "New label",
      required: true,
    });
    const form = h(
      "form",
      {
        class: "rename",
        onsubmit: async (event) => {
          event.preventDefault();
          form.replaceWith(title);
          title.textContent = input.value;
          if (!(await label(id, input.value))) show();
        },
      },
      input,
      h("button", { class: "command" }, "Save"),
      h("button", { type: "button", class: "plain", onclick: () => form.replaceWith(title) }, "Cancel"),
    );
    title.replaceWith(form);
    input.focus();
    input.select();
  }

  function show() {
    const now = shown().get(id);
    title.textContent = nameOf(id);
    const at = { ...row, ...now };
    numbers.replaceChildren(
      facts([
        ["Items", count(at.size), "in the cluster"],
        !store.past && row && ["Share", percent(row.share), "of all items"],
        ["In the hour", signed(at.growth), "gained less lost"],
        [
          "Drift",
          at.drift == null ? NONE : `${Math.floor(100 * at.drift)} %`,
          "largest statistic against its threshold; 100 % is an alarm",
        ],
        !store.past && [
          "Spread",
          figure(at.spread),
          "root mean squared distance of the members to their mean",
        ],
        !store.past && [
          "Shift",
          figure(at.shift),
          "how far the centroid is from where it was fitted, in units of the spread",
        ],
        row?.born_at && ["Born", when(row.born_at, store.t ?? undefined)],
        !store.past &&
          row?.exemplar && [
            "Typical",
            h("span", { class: "exemplar" }, itemLink(row.exemplar)),
            "the item nearest to the centroid",
          ],
      ]),
    );
  }

  async function load(isOtherSpan = false) {
    try {
      row = await get();
      show();
    } catch (error) {
      return failed(error);
    }
    const to = Date.parse(store.t ?? row.as_of);
    const timeline = get("/timeline", {
      from: new Date(to - SPANS[span]).toISOString(),
      to: new Date(to + 1000).toISOString(),
    });
    fill(growth, timeline, (told) => plot(told));
    if (isOtherSpan) return;
    fill(members, typicalAndOdd(), ([typical, odd]) => [
      section("Typical", list(typical)),
      odd.length ? section("Odd", list(odd)) : "",
    ]);
    fill(near, get("/similar", { limit: 6 }), ({ items }) => similar(items));
    fill(past, ask("/lifecycle", { cluster: id, limit: 12 }, { signal: life.signal }), ({ items }) =>
      lineage(items),
    );
    fill(moves, ask("/changes", { cluster: id, limit: 8 }, { signal: life.signal }), ({ items }) =>
      items.length
        ? h(
            "ul",
            { class: "events" },
            items.map((change) => changeRow(change)),
          )
        : quiet("No change of it is kept."),
    );
  }

  function failed(error) {
    title.textContent = nameOf(id);
    if (error.kind !== "cluster-retired") {
      panel.replaceChildren(head, excuse(error));
      return;
    }
    const heirs = error.body.successors ?? [];
    panel.replaceChildren(
      head,
      h(
        "p",
        { class: "retired" },
        "This cluster has retired. ",
        heirs.length
          ? ["Its items went to ", heirs.flatMap((heir, i) => [i ? ", " : "", clusterLink(heir)]), "."]
          : "Nobody took its items.",
      ),
      section("Lineage", past),
    );
    fill(past, ask("/lifecycle", { cluster: id, limit: 12 }, { signal: life.signal }), ({ items }) =>
      lineage(items),
    );
  }

  /** Both ends of the members; where they are few, each stands at one of them. */
  async function typicalAndOdd() {
    const [near, far] = await Promise.all(
      ["distance", "-distance"].map((order) => get("/members", { order, limit: N_MEMBERS })),
    );
    const typical = near.items.slice(0, Math.ceil(row.size / 2));
    const shownAlready = new Set(typical.map((member) => member.item));
    return [typical, far.items.filter((member) => !shownAlready.has(member.item))];
  }

  const list = (found) =>
    h(
      "ol",
      { class: "members" },
      found.map((member) => h("li", {}, itemLink(member.item), h("small", {}, figure(member.distance)))),
    );

  function similar(found) {
    const far = Math.max(...found.map((one) => one.distance), 1e-9);
    return h(
      "ul",
      { class: "near" },
      found.map((one) =>
        h(
          "li",
          {},
          clusterLink(one.cluster),
          bar(1 - 0.85 * (one.distance / far), `distance ${figure(one.distance)}`),
          h("small", {}, figure(one.distance)),
        ),
      ),
    );
  }

  function lineage(found) {
    const parents = row?.parents?.length
      ? h("p", { class: "quiet" }, "Born out of ", some(row.parents), ".")
      : "";
    const alarms = row?.signals?.length ? h("ul", { class: "alarms" }, row.signals.map(alarmCard)) : "";
    return [
      parents,
      found.length ? eventList(found) : quiet("Nothing has happened to it since it was first fitted."),
      alarms,
    ];
  }

  let plotLife = null;
  function plot(told) {
    plotLife?.end();
    const mine = (plotLife = new life.constructor());
    if (told.sizes.length < 2) return quiet("No change within this time.");
    const target = h("div", { class: "uplot-box" });
    const marks = [
      ...told.lifecycle
        .filter((event) => event.type !== "labelled")
        .map((event) => ({ t: Date.parse(event.occurred_at), text: event.type })),
      ...told.alarms
        .filter((alarm) => alarm.state === "raised")
        .map((alarm) => ({ t: Date.parse(alarm.occurred_at), text: alarm.signal, kind: "alarm" })),
    ];
    const tint = () => colour().hues[lookOf(id).hue];
    const data = [
      told.sizes.map((one) => Date.parse(one.begins_at) / 1000),
      told.sizes.map((one) => one.size),
    ];
    requestAnimationFrame(
      () =>
        !mine.isOver &&
        chart(target, mine, {
          series: [{ label: "items", stroke: tint, fill: () => `${tint()}22` }],
          data,
          marks,
          pick: (ms) => {
            location.hash = `#cluster/${encodeURIComponent(id)}@${new Date(ms).toISOString()}`;
          },
        }),
    );
    return target;
  }
  life.also(() => plotLife?.end());

  store.selected = id;
  life.also(() => {
    store.selected = null;
  });
  on("clusters", show, life);
  on("facts", show, life);
  on(
    "lifecycle",
    (events) => events.some((event) => event.cluster === id || event.type === "installed") && load(),
    life,
  );
  show();
  life.every(15000, () => load());
  return nameOf(id);
}
