// The drift board: what has alarmed and what that means, how it got there, and every cluster
// against its threshold.

import { ask } from "./api.js";
import { chart } from "./chart.js";
import { command, recluster } from "./commands.js";
import { h, setText } from "./dom.js";
import { figure, plural } from "./format.js";
import { colour } from "./look.js";
import { alarmCard, clusterLink, fill, gauge, heading, quiet, section } from "./parts.js";
import { on, shown, store } from "./store.js";

const MAX_ROWS = 40;

export function driftView(panel, life, _, go) {
  const [alarms, curve, board] = [h("div"), h("div", { class: "plot" }), h("div")];
  const tally = h("p", { class: "quiet" });
  panel.replaceChildren(
    heading("Drift", command("Recluster", recluster)),
    tally,
    alarms,
    section("Largest statistic of all clusters, in thresholds", curve),
    section("Clusters", board),
  );

  const load = () =>
    fill(alarms, ask("/drift", {}, { signal: life.signal }), ({ signals }) => {
      const raised = signals.filter((signal) => signal.state === "raised");
      setText(
        tally,
        raised.length
          ? `${plural(raised.length, "alarm")} raised`
          : "No alarm is raised: the stream is what the model was fitted on.",
      );
      const byTime = (a, b) => (a.occurred_at < b.occurred_at ? 1 : -1);
      const cleared = signals.filter((signal) => signal.state !== "raised").sort(byTime);
      return [
        raised.length ? h("ul", { class: "alarms" }, raised.sort(byTime).map(alarmCard)) : "",
        cleared.length
          ? h(
              "details",
              {},
              h("summary", {}, plural(cleared.length, "alarm that has cleared", "alarms that have cleared")),
              h("ul", { class: "alarms" }, cleared.map(alarmCard)),
            )
          : "",
      ];
    });

  let lastSaid = null;
  function rows() {
    const known = [...shown().values()].filter((row) => row.drift != null || row.shift != null);
    known.sort(
      (a, b) => (b.drift ?? -1) - (a.drift ?? -1) || (b.shift ?? -1) - (a.shift ?? -1) || b.size - a.size,
    );
    const said = known
      .map((row) => `${row.cluster} ${row.drift?.toFixed(2)} ${row.shift?.toFixed(2)}`)
      .join();
    if (said === lastSaid || board.matches(":focus-within")) return;
    lastSaid = said;
    board.replaceChildren(
      known.length
        ? h(
            "table",
            { class: "board" },
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                [
                  ["Cluster"],
                  ["Against the threshold"],
                  ["Shift", "how far the centroid is from where it was fitted, in units of the spread"],
                ].map(([text, title]) => h("th", { scope: "col", title }, text)),
              ),
            ),
            h(
              "tbody",
              {},
              known
                .slice(0, MAX_ROWS)
                .map((row) =>
                  h(
                    "tr",
                    {},
                    h("th", { scope: "row", class: "name" }, clusterLink(row.cluster)),
                    h(
                      "td",
                      {},
                      row.drift == null
                        ? h("small", {}, "no alarm so far")
                        : h(
                            "div",
                            { class: "row" },
                            gauge(row.drift, `${Math.floor(100 * row.drift)} % of the threshold`),
                            h("span", { class: "figure" }, `${Math.floor(100 * row.drift)} %`),
                          ),
                    ),
                    h("td", {}, row.shift?.toFixed(2) ?? "–"),
                  ),
                ),
            ),
          )
        : quiet(
            "No signal is known yet: drift is measured in windows of records, and the first is still open.",
          ),
    );
  }

  let plotLife = null;
  life.also(() => plotLife?.end());
  async function draw() {
    plotLife?.end();
    const mine = (plotLife = new life.constructor()); // a later one ends it, also while it waits
    const points = store.frames.filter((frame) => frame.clusters.some((row) => row.drift != null));
    if (points.length < 2) return curve.replaceChildren(quiet("No cluster has alarmed so far."));
    const most = points.map((frame) => Math.max(...frame.clusters.map((row) => row.drift ?? 0)));
    const data = [points.map((frame) => frame.ms / 1000), most];
    const told = await ask("/drift/alarms", { state: "raised", limit: 200 }, { signal: life.signal });
    const models = points.filter((frame, i) => i && frame.model.epoch !== points[i - 1].model.epoch);
    const marks = [
      ...told.items.map((alarm) => ({ t: Date.parse(alarm.occurred_at), text: "", kind: "alarm" })),
      ...models.map((frame) => ({ t: frame.ms, text: `model ${frame.model.epoch}` })),
    ];
    if (mine.isOver) return;
    curve.replaceChildren();
    chart(curve, mine, {
      series: [{ label: "largest", stroke: () => colour().accent }],
      data,
      marks,
      line: 1,
      tall: 170,
      number: figure,
      pick: go,
    });
  }

  on("clusters", rows, life);
  on("drift", load, life);
  on("model", load, life);
  on("frames", () => draw().catch(() => {}), life);
  rows();
  draw().catch(() => {});
  life.every(10000, load);
  return "Drift";
}
