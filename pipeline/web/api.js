// Questions to the server. Every address hangs on where this file came from, so the page also
// works behind a proxy under a path.

import { store, tell } from "./store.js";

export const root = new URL("../", import.meta.url);

/** An RFC 9457 object as an error. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `status ${status}`);
    this.status = status;
    this.body = body;
    this.kind = String(body.type ?? "")
      .split("/")
      .pop();
  }
}

/** Ask; `query` leaves out what is null. */
export async function ask(path, query = {}, { method = "GET", body, signal } = {}) {
  const url = new URL(`api/v1${path}`, root);
  for (const [name, value] of Object.entries(query)) {
    if (value != null) url.searchParams.set(name, value);
  }
  return request(url, { method, body, signal });
}

export async function request(url, { method = "GET", body, signal } = {}) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const answer = await fetch(url, {
    method,
    signal,
    headers,
    credentials: "same-origin",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  let told = {};
  try {
    told = text ? JSON.parse(text) : {};
  } catch {
    told = { title: text.slice(0, 200) }; // a proxy's page
  }
  if (answer.ok) return told;
  if (answer.status === 401) tell("unauthorized");
  throw new Problem(answer.status, told);
}

/** All pages, up to so many rows. */
async function pages(path, most) {
  const found = [];
  let cursor = null;
  do {
    const page = await ask(path, { limit: Math.min(500, most), cursor });
    found.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && found.length < most);
  return found;
}

/** An item's id as a part of a path: what does not fit is written as base64url. */
export function itemPath(id) {
  if (!/[/\\\x00-\x1f\x7f]|^\.{1,2}$|^~b64:/.test(id)) return encodeURIComponent(id);
  const bytes = String.fromCharCode(...new TextEncoder().encode(id));
  return `~b64:${btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")}`;
}

/** Typical items and lineage: these are not in the stream, they change with the model. */
export async function loadFacts() {
  const items = await pages("/clusters", 2000);
  store.facts = new Map(items.map((row) => [row.cluster, row]));
  if (!store.clusters.size) {
    // before the stream's first frame
    store.clusters = new Map(items.map((row) => [row.cluster, row]));
  }
  tell("facts");
  tell("clusters");
}

export async function loadSession() {
  try {
    store.session = await ask("/session");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    const auth = error.status === 401 ? "bearer" : "none";
    store.session = { auth, name: null, scopes: auth === "none" ? ["read"] : [] };
  }
  tell("session");
}
