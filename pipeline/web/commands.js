// What may be asked of the model. Each asks before it acts, and says what came of it.

import { ask, request, root, loadSession } from "./api.js";
import { byId, h } from "./dom.js";
import { mayWrite, nameOf, store, tell } from "./store.js";

const WAIT_S = 30;

/** A button that is there for those who may write only. */
export function command(text, act, { isPlain = false } = {}) {
  if (!mayWrite()) return null;
  return h("button", { type: "button", class: isPlain ? "plain" : "command", onclick: act }, text);
}

export const recluster = () =>
  confirmed(
    "Fit a new model?",
    "The reclusterer fits all clusters anew. It is published only if it is better than the present one; clusters that stay alike keep their names.",
    "Fit",
    () =>
      send(
        "/recluster",
        "POST",
        { cold: false, force: false, reason: "asked for on the page" },
        "A new model",
      ),
  );

export const rollback = (epoch) =>
  confirmed(
    `Go back to epoch ${epoch}?`,
    "Its model is installed again, as a new epoch. Items move back to the clusters they had in it; clusters that have retired since are restored.",
    "Go back",
    () => send("/model/rollback", "POST", { epoch, reason: "asked for on the page" }, `Epoch ${epoch} again`),
  );

export const split = (id) =>
  confirmed(
    `Split “${nameOf(id)}”?`,
    "The cluster becomes two. The larger half keeps its name.",
    "Split",
    () =>
      send(
        `/clusters/${encodeURIComponent(id)}/split`,
        "POST",
        { reason: "asked for on the page" },
        "Splitting",
      ),
  );

export const label = (id, text) =>
  send(`/clusters/${encodeURIComponent(id)}/label`, "PUT", { label: text }, "The label");

/** Ask the reclusterer, and wait for what it says. */
async function send(path, method, body, what) {
  const note = notice(`${what}: asked for …`);
  try {
    const job = await ask(path, {}, { method, body });
    const done = await ask(`/jobs/${encodeURIComponent(job.id)}`, { wait: WAIT_S });
    if (done.state === "succeeded") note(`${what}: done.`, "good");
    else if (done.state === "failed") note(`${what}: not carried out: ${done.problem}`, "bad");
    else note(`${what}: still waits; see History.`, "plain");
    tell("job", done);
    return done.state !== "failed";
  } catch (error) {
    note(`${what}: ${error.message}`, "bad");
    return false;
  }
}

/** A line at the top that goes by itself; returns how to change it. */
export function notice(text, kind = "plain") {
  const line = h("p", { class: `notice ${kind}` }, text);
  byId("banners").append(line);
  return (words, now) => {
    line.textContent = words;
    line.className = `notice ${now}`;
    setTimeout(() => line.remove(), now === "bad" ? 12000 : 5000);
  };
}

function confirmed(title, text, verb, act) {
  dialog(
    title,
    [h("p", {}, text)],
    [
      h("button", { value: "no", formnovalidate: true }, "Cancel"),
      h("button", { value: "yes", class: "command" }, verb),
    ],
  ).then((answer) => answer === "yes" && act());
}

function dialog(title, content, buttons) {
  const form = h(
    "form",
    { method: "dialog" },
    h("h2", { id: "dialog-title" }, title),
    content,
    h("div", { class: "buttons" }, buttons),
  );
  const box = h("dialog", { "aria-labelledby": "dialog-title" }, form);
  document.body.append(box);
  box.showModal();
  return new Promise((settle) => {
    box.addEventListener("close", () => {
      box.remove();
      settle(box.returnValue);
    });
  });
}

// --- who asks --------------------------------------------------------------------------------

let isAsking = false;

/** Ask for a token, until one is right; the server keeps it in a cookie, the page nowhere. */
export async function login() {
  if (isAsking) return;
  isAsking = true;
  let words = "";
  while (store.session.auth !== "none" && !store.session.name) {
    const input = h("input", {
      id: "token",
      type: "password",
      autocomplete: "current-password",
      required: true,
      placeholder: "eddy_…",
    });
    const answer = await dialog(
      "Log in",
      [
        h("p", {}, "This server answers those who have a token."),
        h("label", { for: "token" }, "Token"),
        input,
        h("p", { class: "error", role: "alert" }, words),
      ],
      [h("button", { value: "yes", class: "command" }, "Log in")],
    );
    if (answer !== "yes") continue; // there is nothing to see without
    try {
      await request(new URL("login", root), { method: "POST", body: { token: input.value.trim() } });
      await loadSession();
      words = "";
    } catch (error) {
      words = error.status === 401 ? "This token is not known." : error.message;
    }
  }
  isAsking = false;
  tell("welcome");
}

export async function logout() {
  await request(new URL("logout", root), { method: "POST" });
  location.reload();
}
