// A page in a browser, used as people use it: looked at, clicked, typed into. Steered by commands.
// Argument: { browser, url, width, height, dark }: where the browser listens for those who steer it, and what it
// is to show. Takes commands { id, ... }, see below, and prints { id: [what came of it] } of each; also
// { problem } for everything that the page's console complains of.
"use strict";

const fs = require("node:fs");
const readline = require("node:readline");
const { chromium } = require("playwright-core");

const { browser, url, width, height, dark } = JSON.parse(process.argv[2]);
const say = (line) => console.log(JSON.stringify(line));
/** Between two looks at what changes by itself. */
const GLANCE = 30;

const commands = {
  /** The value of an expression in the page, as soon as it is true. */
  async until(page, { expression }) {
    for (;;) {
      const value = await page.evaluate(expression);
      if (value) return value;
      await page.waitForTimeout(GLANCE);
    }
  },
  look: (page, { expression }) => page.evaluate(expression),
  async press(page, { keys }) {
    for (const key of keys) await page.keyboard.press(key);
  },
  type: (page, { text }) => page.keyboard.type(text),
  click: (page, { selector }) => page.click(selector),
  resize: (page, { width, height }) => page.setViewportSize({ width, height }),
  dress: (page, { dark, still }) =>
    page.emulateMedia({ colorScheme: dark ? "dark" : "light", reducedMotion: still ? "reduce" : null }),
  /** What stands in the place of an answer from now on. */
  answer: (page, { path, type, body }) =>
    page.route(path, (route) => route.fulfill({ contentType: type, body })),
  reload: (page) => page.reload(),
  shoot: async (page) => (await page.screenshot()).toString("base64"),
  /** What axe finds wrong, a line each. */
  async judge(page) {
    await page.evaluate(fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"));
    const { violations, passes } = await page.evaluate("axe.run()");
    if (passes.length === 0) throw new Error("axe has seen nothing");
    return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html}: ${node.failureSummary}`));
  },
};

async function main() {
  const context = await (await chromium.connectOverCDP(browser)).newContext({
    viewport: { width, height },
    colorScheme: dark ? "dark" : "light",
  });
  const page = await context.newPage();
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && say({ problem: message.text() }));
  page.on("pageerror", (error) => say({ problem: String(error) }));
  await page.goto(url);
  say({ shown: true });
  // One after the other, as a person does it.
  let last = Promise.resolve();
  readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const { id, act, ...rest } = JSON.parse(line);
    last = last.then(async () => say({ [id]: [(await commands[act](page, rest)) ?? null] }));
  }).on("close", () => process.exit());
}

main();
