// Opens the page four times, each time as somebody new, and prints when the verdict and the matrix were there, in milliseconds.
// node paint.mjs TOOLS CHROMIUM URL

import { createRequire } from "node:module";

const [tools, executablePath, url] = process.argv.slice(2);
const { chromium } = createRequire(`${tools}/`)("playwright-core");
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath, args });
for (let look = 0; look < 4; look += 1) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  page.on("pageerror", (error) => {
    throw error;
  });
  const begun = performance.now();
  await page.goto(url);
  await page.waitForFunction(() => document.getElementById("verdict-text")?.textContent);
  const verdict = performance.now() - begun;
  await page.waitForFunction(() => document.getElementById("legend")?.childElementCount > 0);
  console.log(`verdict ${verdict.toFixed(0)} matrix ${(performance.now() - begun).toFixed(0)}`);
  await context.close();
}
await browser.close();
