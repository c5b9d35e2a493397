// Uses the page behind /docs as a person does: with the keyboard, in light and dark, at the root and below a path prefix.
// node tests/page.mjs ADDRESS FOLDER: the dispatcher's http address, and where screenshots go. Needs playwright-core, axe-core and chromium.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [address, folder] = process.argv.slice(2);

// An Ingress that takes a prefix away.
const PREFIX = "/some/prefix";
const ingress = http.createServer((request, reply) => {
  if (!request.url.startsWith(`${PREFIX}/`)) return reply.writeHead(404).end();
  const { method, headers, url } = request;
  const inner = http.request(address + url.slice(PREFIX.length), { method, headers }, (answer) => {
    reply.writeHead(answer.statusCode, answer.headers);
    answer.pipe(reply);
  });
  request.pipe(inner);
});
await new Promise((listening) => ingress.listen(0, "127.0.0.1", listening));

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

async function visit(root, colorScheme, name) {
  const complaints = [];
  const context = await browser.newContext({ colorScheme, viewport: { width: 1000, height: 1200 } });
  const page = await context.newPage();
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => request.url().startsWith(root) || complaints.push(`request to ${request.url()}`));

  await page.goto(`${root}/`);
  assert.equal(page.url(), `${root}/docs`, "GET / leads to the page");
  const operations = page.locator("#operations details");
  await operations.nth(11).waitFor();
  assert.equal(await operations.count(), 12, "every operation is shown");
  await operations.nth(1).locator("summary").click();
  assert.match(await operations.nth(1).innerText(), /POST \/job[\s\S]*429\s+The namespace's quota is exhausted/);
  const settings = await page.locator("dl").innerText();
  assert.match(settings, /Filter\s+\S*filter\.jq/);
  assert.match(settings, /Namespace of the Jobs\s+test-\d+/);

  // what is not JSON is reported and not sent
  await page.getByLabel("Body, as JSON").fill("{");
  await page.getByRole("button", { name: "Send" }).click();
  assert.match(await page.getByRole("alert").innerText(), /JSON/);

  // with the keyboard alone
  await page.getByLabel("Path").focus();
  await page.keyboard.press("Control+A");
  await page.keyboard.type("/job/from/the/page");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Control+A");
  await page.keyboard.type(JSON.stringify({ id: name, args: ["<b>not HTML</b>"] }));
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.locator("#code", { hasText: "201" }).waitFor();
  assert.equal(JSON.parse(await page.locator("#answer").innerText()).id, `demo-job-${name}`);
  assert.equal(await page.evaluate(() => document.activeElement.id), "send", "the focus stays where it was");
  const status = page.locator('[role="status"]');
  await status.filter({ hasText: `demo-job-${name}: running` }).waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "stop");
  await status.filter({ hasText: `demo-job-${name}: succeeded` }).waitFor();
  await page.getByRole("button", { name: "Stop following" }).waitFor({ state: "hidden" });
  assert.match(await page.locator("#status").innerText(), /"succeeded": 1/);
  assert.equal(await page.evaluate(() => document.activeElement.id), "send", "the focus goes back when its place vanishes");

  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(violations.map(({ id, help, nodes }) => ({ id, help, at: nodes.map((node) => node.html) })), [], "accessibility");
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(dark === "rgb(255, 255, 255)", colorScheme === "light", `background in ${colorScheme} mode: ${dark}`);
  await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });

  // refused by the filter or the name: shown, and nothing followed
  await page.getByLabel("Body, as JSON").fill(JSON.stringify({ id: name, args: ["other"] }));
  const refused = page.waitForEvent("console"); // the browser itself reports a 409
  await page.getByRole("button", { name: "Send" }).click();
  await page.locator("#code", { hasText: "409" }).waitFor();
  await status.filter({ hasText: "No Job was created: " }).waitFor();
  assert.match((await refused).text(), /409/);
  assert.deepEqual(complaints.filter((complaint) => !complaint.includes("409")), []);
  await context.close();
}

try {
  await visit(address, "light", "light");
  await visit(address, "dark", "dark");
  await visit(`http://127.0.0.1:${ingress.address().port}${PREFIX}`, "light", "below-a-prefix");
} finally {
  await browser.close();
  ingress.close();
}
