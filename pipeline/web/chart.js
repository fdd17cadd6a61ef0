// uPlot in the page's colours: lines over time, with marks.

import { colour } from "./look.js";
import { h } from "./dom.js";
import { on } from "./store.js";
import { compact, minuteTime } from "./format.js";
import { root } from "./api.js";

let loading = null;

const arrived = (element) =>
  new Promise((settle, fail) => {
    element.onload = settle;
    element.onerror = () => fail(new Error("no uPlot"));
    document.head.prepend(element);
  });

/** uPlot comes with the first chart: the map does not wait for it. */
function library() {
  const from = (name) => new URL(`web/vendor/uPlot.${name}`, root).href;
  loading ??= Promise.all([
    arrived(h("script", { src: from("iife.min.js") })),
    arrived(h("link", { rel: "stylesheet", href: from("min.css") })),
  ]).catch((error) => {
    loading = null;
    throw error;
  });
  return loading;
}

/**
 * A chart of its own width in `box`.
 *
 * `series`: [{label, stroke, fill, dash}], `data`: [s, values, ...], `marks`: [{t (ms), text, kind}],
 * `line`: a threshold; `pick(ms)` is told of clicks.
 */
export function chart(
  box,
  life,
  { series, data, marks = [], line = null, tall = 150, pick, number = compact },
) {
  let plot = null;
  const make = () => {
    plot?.destroy();
    plot = null;
    const wide = box.clientWidth;
    if (!wide || life.isOver || !window.uPlot) return;
    const { muted, line: grid } = colour();
    const axis = {
      stroke: muted,
      font: "11px Inter, system-ui, sans-serif",
      grid: { stroke: grid, width: 1 },
      ticks: { show: false },
    };
    plot = new uPlot(
      {
        width: wide,
        height: tall,
        padding: [12, 8, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
        scales: {
          y: {
            range: (_, low, high) => (line == null ? range(low, high) : [0, Math.max(high ?? 0, line) * 1.2]),
          },
        },
        axes: [
          {
            ...axis,
            grid: { show: false },
            space: 70,
            size: 26,
            values: (_, times) => times.map((t) => minuteTime(1000 * t)),
          },
          { ...axis, size: 46, values: (_, values) => values.map(number) },
        ],
        series: [
          {},
          ...series.map((one) => ({
            width: 2,
            points: { show: false },
            spanGaps: false,
            ...one,
            stroke: one.stroke(),
            fill: one.fill?.(),
          })),
        ],
        hooks: {
          draw: [(self) => decorate(self, marks, line)],
          ready: [(self) => follow(self, box, series, number, pick)],
        },
      },
      data,
      box,
    );
  };
  const watch = new ResizeObserver(() =>
    plot ? plot.setSize({ width: box.clientWidth, height: tall }) : make(),
  );
  watch.observe(box);
  on("theme", make, life);
  life.also(() => {
    watch.disconnect();
    plot?.destroy();
  });
  library().then(
    () => plot ?? make(),
    () => {},
  );
}

function range(low, high) {
  if (low == null || high == null) return [0, 1];
  const room = Math.max(1, high - low) * 0.12;
  return [low >= 0 && low < 0.5 * high ? 0 : Math.max(0, low - room), high + room];
}

function decorate(plot, marks, line) {
  const { ctx: context, bbox: box } = plot;
  const { muted, bad, warn } = colour();
  const ratio = devicePixelRatio || 1;
  context.save();
  context.lineWidth = ratio;
  context.font = `${10 * ratio}px Inter, system-ui, sans-serif`;
  let taken = -Infinity;
  for (const { t, text, kind } of [...marks].sort((a, b) => a.t - b.t)) {
    const x = plot.valToPos(t / 1000, "x", true);
    if (x < box.left || x > box.left + box.width) continue;
    context.strokeStyle = context.fillStyle = kind === "alarm" ? bad : muted;
    context.setLineDash(kind === "alarm" ? [] : [2 * ratio, 3 * ratio]);
    context.beginPath();
    context.moveTo(x, box.top);
    context.lineTo(x, box.top + box.height);
    context.stroke();
    if (!text || x < taken) continue;
    taken = x + 60 * ratio;
    context.textAlign = x > box.left + 0.8 * box.width ? "right" : "left";
    context.fillText(text, x + (context.textAlign === "left" ? 4 : -4) * ratio, box.top + 9 * ratio);
  }
  if (line != null) {
    const y = plot.valToPos(line, "y", true);
    context.strokeStyle = context.fillStyle = warn;
    context.setLineDash([6 * ratio, 4 * ratio]);
    context.beginPath();
    context.moveTo(box.left, y);
    context.lineTo(box.left + box.width, y);
    context.stroke();
    context.textAlign = "left";
    context.fillText("threshold", box.left + 4 * ratio, y + 12 * ratio);
  }
  context.restore();
}

/** The values under the pointer as a line of text, and clicks. */
function follow(plot, box, series, number, pick) {
  const words = document.createElement("p");
  words.className = "reading";
  box.append(words);
  plot.over.addEventListener("pointermove", () => {
    const i = plot.cursor.idx;
    if (i == null) return;
    const values = series.map((one, n) => `${one.label} ${number(plot.data[n + 1][i])}`);
    words.textContent = `${minuteTime(1000 * plot.data[0][i])}   ${values.join("   ")}`;
  });
  plot.over.addEventListener("pointerleave", () => {
    words.textContent = "";
  });
  if (pick) {
    plot.over.classList.add("pointing");
    plot.over.addEventListener(
      "click",
      () => plot.cursor.idx != null && pick(1000 * plot.data[0][plot.cursor.idx]),
    );
  }
}
