// Models there were, what happened to clusters, what was asked for.

import { ask } from "./api.js";
import { command, recluster, rollback } from "./commands.js";
import { h } from "./dom.js";
import { compact, count, figure, when } from "./format.js";
import { eventList, fill, heading, quiet, section } from "./parts.js";
import { on, store } from "./store.js";

const N_EVENTS = 60;

export function historyView(panel, life) {
  const [models, jobs, log] = [0, 0, 0].map(() => h("div"));
  const get = (path, query) => ask(path, query, { signal: life.signal });
  panel.replaceChildren(
    heading("History", command("Recluster", recluster)),
    section("Models", models),
    section("What happened", log),
    section("What was asked for", jobs),
  );

  function load() {
    fill(models, get("/models"), ({ items }) =>
      items.length
        ? h(
            "div",
            { class: "scroll" },
            h(
              "table",
              {},
              h(
                "thead",
                {},
                h(
                  "tr",
                  {},
                  ["Epoch", "From", "Clusters", "Fitted on", "Inertia", "Ribbons", ""].map((text) =>
                    h("th", { scope: "col" }, text || h("span", { class: "hidden" }, "Go back")),
                  ),
                ),
              ),
              h(
                "tbody",
                {},
                items.map((model, i) =>
                  h(
                    "tr",
                    {},
                    h("th", { scope: "row" }, `${model.epoch}.${model.revision}`, i ? "" : " now"),
                    h("td", {}, when(model.created_at, store.t ?? undefined)),
                    h("td", {}, count(model.clusters)),
                    h("td", {}, `${compact(model.fitted_items)} items`),
                    h("td", {}, figure(model.fitted_inertia)),
                    h(
                      "td",
                      {},
                      model.epoch > 1
                        ? h(
                            "a",
                            { href: `#flow/${model.epoch}` },
                            h("span", { class: "hidden" }, "Flow, epoch "),
                            `${model.epoch - 1} → ${model.epoch}`,
                          )
                        : "",
                    ),
                    h(
                      "td",
                      {},
                      i ? (command("Go back", () => rollback(model.epoch), { isPlain: true }) ?? "") : "",
                    ),
                  ),
                ),
              ),
            ),
          )
        : quiet("There is no model yet."),
    );
    fill(log, get("/lifecycle", { limit: N_EVENTS }), ({ items }) =>
      items.length ? eventList(items) : quiet("Nothing has happened yet."),
    );
    fill(jobs, get("/jobs", { limit: 12 }), ({ items }) =>
      items.length
        ? h(
            "ul",
            { class: "events" },
            items.map((job) =>
              h(
                "li",
                {},
                h("time", { datetime: job.asked_at }, when(job.asked_at, store.t ?? undefined)),
                h("strong", {}, job.kind),
                h(
                  "span",
                  { class: "grow" },
                  job.requested_by ? `by ${job.requested_by}` : "",
                  job.problem ? `: ${job.problem}` : "",
                ),
                h("small", {}, job.state),
              ),
            ),
          )
        : quiet("Nobody has asked for anything."),
    );
  }

  on("lifecycle", load, life);
  on("job", load, life);
  life.every(20000, load);
  return "History";
}
