// A browser on a string: one JSON object a line in, one out. Everything a page asks for is noted.
// The first argument is the folder whose node_modules has playwright-core and axe-core.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.argv[2]}/package.json`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({
  executablePath: process.argv[3],
  args: ["--no-sandbox", "--disable-gpu", "--font-render-hinting=none"],
});
let context = null;
let page = null;
let notes = null;
let watching = null; // a session of the page's metrics

const verbs = {
  async open({ url, width = 1280, height = 800, scheme = "light", motion = "no-preference", ratio = 1, touch = false }) {
    await context?.close();
    context = await browser.newContext({
      viewport: { width, height }, colorScheme: scheme, reducedMotion: motion, deviceScaleFactor: ratio,
      hasTouch: touch, locale: "en-GB", timezoneId: "UTC",
    });
    page = await context.newPage();
    watching = null;
    page.setDefaultTimeout(90000); // the machine may have other things to do
    notes = { requests: [], refused: [], sockets: [], errors: [] };
    page.on("request", (request) => notes.requests.push(request.url()));
    page.on("response", (answer) => answer.status() >= 400 && notes.refused.push(`${answer.status()} ${answer.url()}`));
    page.on("websocket", (socket) => notes.sockets.push(socket.url()));
    page.on("pageerror", (error) => notes.errors.push(String(error.stack ?? error)));
    page.on("console", (message) => message.type() === "error" && !message.text().startsWith("Failed to load") && notes.errors.push(message.text()));
    await page.goto(url, { waitUntil: "domcontentloaded" });
  },
  go: ({ hash }) => page.evaluate((text) => { location.hash = text; }, hash),
  evaluate: ({ js }) => page.evaluate(js),
  async wait({ js, seconds }) { // not waitForFunction: the page's policy lets nobody evaluate text
    const end = Date.now() + 1000 * seconds;
    while (!(await page.evaluate(js).catch(() => false))) {
      if (Date.now() > end) throw new Error(`not within ${seconds} s; ${notes.errors.slice(0, 3)} ${notes.refused.slice(0, 5)}`);
      await new Promise((settle) => setTimeout(settle, 50));
    }
  },
  click: ({ selector }) => page.click(selector),
  fill: ({ selector, text }) => page.fill(selector, text),
  press: ({ key, times = 1 }) => repeat(times, () => page.keyboard.press(key)),
  point: ({ x, y }) => page.mouse.move(x, y),
  tap: ({ x, y }) => page.mouse.click(x, y),
  size: ({ width, height }) => page.setViewportSize({ width, height }),
  media: ({ scheme, motion }) => page.emulateMedia({ colorScheme: scheme, reducedMotion: motion }),
  picture: async ({ path, full = false }) => { await page.screenshot({ path, fullPage: full }); },
  notes: () => notes,
  async metrics() { // times are of the page's main thread, in its own seconds: others on the machine do not count
    if (!watching) {
      watching = await context.newCDPSession(page);
      await watching.send("Performance.enable", { timeDomain: "threadTicks" });
    }
    const { metrics } = await watching.send("Performance.getMetrics");
    return Object.fromEntries(metrics.map(({ name, value }) => [name, value]));
  },
  async axe() {
    await page.evaluate(axe);
    const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    return found.violations.map(({ id, impact, help, nodes }) => ({
      id, impact, help, nodes: nodes.slice(0, 4).map((node) => `${node.html.slice(0, 160)} | ${node.failureSummary.slice(0, 300)}`),
    }));
  },
};

async function repeat(times, act) {
  for (let i = 0; i < times; i++) await act();
}

for await (const line of createInterface({ input: process.stdin })) {
  const { verb, ...fields } = JSON.parse(line);
  if (verb === "close") break;
  let answer;
  try {
    answer = { value: (await verbs[verb](fields)) ?? null };
  } catch (error) {
    answer = { error: String(error.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
