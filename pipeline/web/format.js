// Numbers and times for people. No time "ago": the server's clock need not be ours.

/** Making a format takes longer than the page may take for its first picture: when it is needed. */
function lazy(make) {
  let made = null;
  return { format: (value) => (made ??= make()).format(value) };
}

const numbers = (options) => lazy(() => new Intl.NumberFormat("en", { maximumFractionDigits: 1, ...options }));
const times = (options) => lazy(() => new Intl.DateTimeFormat("en-GB", options));

const whole = numbers();
const short = numbers({ notation: "compact" });
const clock = times({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minute = times({ hour: "2-digit", minute: "2-digit" });
const day = times({ day: "numeric", month: "short" });

export const NONE = "–";

export const count = (n) => (n == null ? NONE : whole.format(n));
export const compact = (n) => (n == null ? NONE : Math.abs(n) < 10000 ? whole.format(n) : short.format(n));
export const signed = (n) => (n == null ? NONE : n > 0 ? `+${compact(n)}` : n < 0 ? `−${compact(-n)}` : "0");
export const percent = (x, digits = 1) => (x == null ? NONE : `${(100 * x).toFixed(digits)} %`);

/** Three digits that say something. */
export function figure(x) {
  if (x == null || !Number.isFinite(x)) return NONE;
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1000) return compact(Math.round(x));
  return size < 0.001 ? x.toExponential(1) : String(Number(x.toPrecision(3)));
}

export const rate = (x) => (x == null ? NONE : x < 10 ? x.toFixed(1) : compact(Math.round(x)));

export function seconds(s) {
  if (s == null) return NONE;
  if (s < 1) return `${Math.round(1000 * s)} ms`;
  return s < 120 ? `${s.toFixed(1)} s` : `${Math.round(s / 60)} min`;
}

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

const of = (time) => (typeof time === "number" ? time : Date.parse(time));

export const clockTime = (time) => (time == null ? NONE : clock.format(of(time)));
export const minuteTime = (time) => minute.format(of(time));

/** With the day, unless it is that of `beside`. */
export function when(time, beside = Date.now()) {
  if (time == null) return NONE;
  const isSameDay = new Date(of(time)).toDateString() === new Date(of(beside)).toDateString();
  return isSameDay ? clockTime(time) : `${day.format(of(time))}, ${clockTime(time)}`;
}

/** ISO without parts of a second, as permalinks have it. */
export const iso = (ms) => new Date(Math.round(ms / 1000) * 1000).toISOString().replace(".000Z", "Z");

export function shorten(text, most) {
  return text.length <= most ? text : `${text.slice(0, most - 1).trimEnd()}…`;
}
