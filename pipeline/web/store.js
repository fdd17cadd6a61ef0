// What the page knows. Whoever shows a part of it is told when that part is another.

export const store = {
  link: "connecting", // connecting, live, reconnecting
  transport: "ws",
  session: { auth: "none", name: null, scopes: ["read"] },
  clusters: new Map(), // id -> row, as the stream tells it
  names: new Map(), // id -> label it had; also of those that have retired
  facts: new Map(), // id -> row of REST: exemplar, parents, born_at
  model: null, // {epoch, revision}
  t: null, // ISO: how new the rows are
  stats: null,
  rate: 0, // events a second, as they arrive here
  dropped: 0,
  flows: [],
  frames: [], // coarse, the oldest first
  past: null, // the frame that is shown instead of now
  hovered: null,
  selected: null,
};

const listeners = new Map();

/** Be told of a topic; returns how to stop. With a life it stops with it. */
export function on(topic, listener, life) {
  if (!listeners.has(topic)) listeners.set(topic, new Set());
  listeners.get(topic).add(listener);
  const stop = () => listeners.get(topic).delete(listener);
  life?.also(stop);
  return stop;
}

export function tell(topic, detail) {
  for (const listener of [...(listeners.get(topic) ?? [])]) listener(detail);
}

/** The clusters of the moment that is shown: now, or the frame that was chosen. */
export function shown() {
  return store.past ? store.past.rows : store.clusters;
}

/** What a cluster is called: its label, else a typical item, else its id. */
export function nameOf(id) {
  const row = store.clusters.get(id) ?? store.past?.rows.get(id);
  return row?.label ?? (row ? null : store.names.get(id)) ?? store.facts.get(id)?.exemplar ?? id;
}

export const mayWrite = () => store.session.scopes.includes("write");

export function setPast(frame) {
  store.past = frame;
  tell("past");
  tell("clusters");
}
