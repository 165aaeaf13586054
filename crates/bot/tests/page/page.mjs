// Drives the page in a real browser: node page.mjs PLAN, where PLAN is JSON with the bots, the token and a folder for pictures.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.CANARY_TEST_TOOLS + "/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const { bots, token, chrome, pictures } = JSON.parse(process.argv[2]);
const [home, victim] = bots;

const browser = await chromium.launch({
  executablePath: chrome,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

/** Every request that the page made, and everything that went wrong in it. */
const asked = [];
const wrong = [];

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on("request", (request) => asked.push(request.url()));
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("console", (message) => message.type() === "error" && !/status of 401|ERR_/.test(message.text()) && wrong.push(message.text()));
  page.on("dialog", (dialog) => wrong.push(`a dialog: ${dialog.message()}`) && dialog.dismiss());
  return page;
}

const text = (page, id) => page.locator(`#${id}`).textContent();
const until = (page, id, words) => page.waitForFunction(([id, words]) => document.getElementById(id)?.textContent.includes(words), [id, words], { timeout: 60_000 });

/** Waits until the open panel was renewed: the second answer comes after the first was drawn. */
async function renewed(page) {
  for (let answers = 0; answers < 2; answers++) await page.waitForResponse((response) => response.url().includes("/pairs/"));
}

async function accessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run({ resultTypes: ["violations"] }));
  const found = violations.map((violation) => `${violation.id}: ${violation.help}: ${violation.nodes.map((node) => node.html).join(" ")}`);
  assert.deepEqual(found, [], what);
}

async function step(name, body) {
  const begun = Date.now();
  try {
    await body();
  } catch (error) {
    console.error(`step failed: ${name}\n${error.stack}`);
    process.exit(1);
  }
  console.log(`${String(Date.now() - begun).padStart(6)} ms  ${name}`);
}

const page = await open();

await step("a wrong token is refused in words", async () => {
  await page.goto(home.url);
  await accessible(page, "the sign-in");
  await page.fill("#token", "not-the-token");
  await page.press("#token", "Enter");
  await until(page, "login-error", "does not know this token");
  assert.equal(await page.locator("#view").isVisible(), false);
});

await step("the right token shows the matrix, and stays in no address", async () => {
  await page.fill("#token", token);
  await page.press("#token", "Enter");
  await page.locator("#view").waitFor();
  await until(page, "matrix-title", `Total, ${bots.length} nodes`);
  assert.equal(page.url(), `${home.url}/`);
  assert.deepEqual(asked.filter((url) => url.includes(token)), []);
  assert.deepEqual(asked.filter((url) => !url.startsWith(home.url)), [], "the page asks this bot alone");
});

await step("a healthy mesh is said to be healthy", async () => {
  await until(page, "verdict-text", `All ${bots.length} nodes reach each other.`);
  await page.waitForFunction(() => document.getElementById("verdict").classList.contains("healthy"));
  await accessible(page, "a healthy mesh");
  await page.screenshot({ path: `${pictures}/healthy.png` });
});

await step("names that look like markup are text", async () => {
  const strange = bots.find((bot) => bot.name.includes("<")).name;
  await page.goto(`${home.url}/?node=${encodeURIComponent(strange)}`);
  await until(page, "node", "Reached by");
  assert.equal(await page.locator("#node h2").textContent(), strange);
  assert.equal(await page.locator("main img").count(), 0);
});

await step("keys of labels and parameters that objects have anyway are only texts", async () => {
  for (const query of ["group=constructor", "group=__proto__", "group=toString", "metric=constructor", "view=constructor"]) {
    await page.goto(`${home.url}/?${query}`);
    await until(page, "matrix-title", `Total, ${bots.length} nodes`);
    assert.equal(await page.locator("#broken").isVisible(), false, query);
  }
});

await step("a link signs in an open page as well, and a token may have any sign", async () => {
  const linked = await open();
  await linked.goto(home.url);
  await linked.fill("#token", "no…token");
  await linked.press("#token", "Enter");
  await until(linked, "login-error", "no such characters");
  await linked.evaluate(() => (location.hash = "#token=wrong+token"));
  await until(linked, "login-error", "does not know this token");
  await linked.evaluate((token) => (location.hash = `#token=${token}`), token);
  await linked.locator("#view").waitFor();
  assert.equal(linked.url(), `${home.url}/`);
  await linked.context().close();
});

await step("a link signs in and forgets the token", async () => {
  const linked = await open();
  await linked.goto(`${home.url}/#token=${token}`);
  await linked.locator("#view").waitFor();
  assert.equal(linked.url(), `${home.url}/`);
  await linked.context().close();
});

await step("the keyboard alone reaches a pair and a node", async () => {
  await page.goto(home.url);
  await page.locator("#view").waitFor();
  await page.focus("#grid");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  assert.match(await text(page, "cell"), / → .*: .*; back: /);
  await page.keyboard.press("Enter");
  await until(page, "pair", "Jitter");
  assert.match(page.url(), /source=.*&target=/);
  await page.keyboard.press("n");
  await until(page, "node", "Reached by");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => !document.getElementById("node"));
  assert.equal(page.url(), `${home.url}/`);
});

await step("a pair shows phases, both directions, and a chart that grows", async () => {
  await page.goto(`${home.url}/?source=${home.name}&target=${encodeURIComponent(victim.name)}`);
  await until(page, "pair", "First request");
  await page.locator("#pair .uplot canvas").waitFor();
  await accessible(page, "a pair");
  // Another metric is another chart.
  await page.check("#metrics >> text=Jitter");
  await page.locator("#pair [aria-label^=Jitter] canvas").waitFor();
  await page.check("#metrics >> text=Total");
  // A panel that is renewed keeps the focus, and text that is being selected.
  await page.focus("#pair [data-key=swap]");
  await renewed(page);
  assert.equal(await page.evaluate(() => document.activeElement.dataset.key), "swap");
  await page.evaluate(() => getSelection().selectAllChildren(document.querySelector("#pair dl")));
  await renewed(page);
  assert.notEqual(await page.evaluate(() => String(getSelection())), "");
  await page.evaluate(() => getSelection().removeAllRanges());
  // The source of the other direction is another bot, which is asked: the panel says who told the phases.
  await page.click("#pair [data-key=swap]");
  await until(page, "pair", `${victim.name}, just now`);
  await until(page, "pair", "Phases of the latest attempt");
});

await step("the metrics and the table show the same mesh", async () => {
  await page.goto(home.url);
  await page.locator("#view").waitFor();
  for (const metric of ["Request", "Jitter", "Loss"]) {
    await page.check(`#metrics >> text=${metric}`);
    await until(page, "matrix-title", `${metric}, ${bots.length} nodes`);
  }
  await page.check("#views >> text=Table");
  await until(page, "table", `${bots.length * (bots.length - 1)} pairs`);
  await accessible(page, "the table");
  const [saved] = await Promise.all([page.waitForEvent("download"), page.click("#table >> text=CSV")]);
  const lines = readFileSync(await saved.path(), "utf8").split("\r\n");
  assert.equal(lines.length, 1 + bots.length * (bots.length - 1));
  assert.equal(lines[0], "source,target,state,failure,loss");
  assert.match(page.url(), /metric=loss&view=table/);
  await page.goBack();
  assert.equal(await page.locator("#grid").isVisible(), true, "the URL is the state");
});

await step("a host that stands still turns the verdict and its column red, and back", async () => {
  await page.goto(home.url);
  await page.locator("#view").waitFor();
  process.kill(victim.pid, "SIGSTOP");
  await until(page, "verdict-text", `${victim.name} has been unreachable`);
  await page.waitForFunction(() => document.getElementById("verdict").classList.contains("critical"));
  await until(page, "incidents", "Open incidents (1)");
  await page.click(".incident.critical");
  await until(page, "incidents", "pairs are bad");
  assert.match(page.url(), /incident=/);
  await accessible(page, "an incident");
  await page.screenshot({ path: `${pictures}/broken.png` });
  const grid = await open({ colorScheme: "dark" });
  await grid.goto(`${home.url}/#token=${token}`);
  await until(grid, "legend", "failed: timeout");
  await accessible(grid, "the dark page");
  await grid.screenshot({ path: `${pictures}/dark.png` });
  await grid.context().close();
  process.kill(victim.pid, "SIGCONT");
  await until(page, "verdict-text", `All ${bots.length} nodes reach each other.`);
  await until(page, "incidents", "Recently over");
});

await step("paused is paused", async () => {
  await page.goto(`${home.url}/?paused=1`);
  await page.locator("#view").waitFor();
  assert.equal(await text(page, "live"), "Paused");
  await page.check("#metrics >> text=Loss");
  await until(page, "matrix-title", "Loss");
  const before = asked.length;
  // That nothing comes shows in time alone: twice the pace of a page that is live.
  await page.waitForTimeout(4_500);
  assert.deepEqual(asked.slice(before).filter((url) => url.includes("matrix")), []);
  await page.click("#live");
  await page.waitForRequest((request) => request.url().includes("matrix"));
});

await step("a phone shows it in one column", async () => {
  const phone = await open({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
  await phone.goto(`${home.url}/#token=${token}`);
  await until(phone, "verdict-text", "reach each other");
  const [wide, room] = await phone.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(wide <= room, `the page is ${wide} pixels wide on ${room}`);
  await accessible(phone, "the phone");
  await phone.tap("#canvas", { position: { x: 170, y: 110 } });
  await phone.locator("#side section").first().waitFor();
  await phone.screenshot({ path: `${pictures}/phone.png` });
  await phone.context().close();
});

await step("a bot that stops under the page is not shown as alive", async () => {
  await page.goto(home.url);
  await until(page, "verdict-text", "reach each other");
  process.kill(home.pid, "SIGSTOP");
  await until(page, "broken", "connection to this bot is broken");
  assert.equal(await page.locator("#broken").isVisible(), true);
  await page.waitForFunction(() => document.getElementById("age").classList.contains("old"));
  process.kill(home.pid, "SIGCONT");
  await page.waitForFunction(() => document.getElementById("broken").hidden);
});

await step("signing out forgets the token", async () => {
  await page.click("#signout");
  await page.locator("#login").waitFor();
  await page.goto(home.url);
  await page.locator("#login").waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
});

assert.deepEqual(wrong, [], "nothing went wrong in the page");
await browser.close();
console.log("the page works");
