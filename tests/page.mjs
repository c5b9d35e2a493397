// Uses the page behind /docs as a person does: with the keyboard, in light and dark, narrow, at the root and below a path prefix.
// node tests/page.mjs ADDRESS OPERATOR MANY FOLDER: http addresses of a dispatcher with the default options, of one with all enabled and
// ten Jobs, and of one with a thousand; and where screenshots go. Needs playwright-core, axe-core and chromium.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [address, operator, many, folder] = process.argv.slice(2);

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

async function open(root, colorScheme, width = 1000) {
  const complaints = [];
  const context = await browser.newContext({ colorScheme, viewport: { width, height: 1200 } });
  const page = await context.newPage();
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => request.url().startsWith(root) || complaints.push(`request to ${request.url()}`));
  return { page, complaints, close: () => context.close() };
}

async function isAccessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(violations.map(({ id, help, nodes }) => ({ id, help, at: nodes.map((node) => node.html) })), [], "accessibility");
}

// Nothing is too wide, names and ages stand on one line, and list and Job are side by side where there is room.
async function isLaidOut(page, width) {
  const found = await page.evaluate(() => {
    const box = (id) => document.getElementById(id).getBoundingClientRect();
    const [jobs, one] = [box("jobs"), box("one")];
    const lines = [...document.querySelectorAll("#rows td:nth-child(2), #rows time, #facts time")]
      .filter((cell) => cell.getClientRects().length > 1 || cell.getBoundingClientRect().height > 40);
    return {
      overflow: document.documentElement.scrollWidth - innerWidth,
      isBeside: one.left >= jobs.right && Math.abs(one.top - jobs.top) < 5,
      isBelow: one.top >= jobs.bottom,
      broken: lines.map((cell) => cell.textContent),
    };
  });
  assert.ok(found.overflow <= 0, `${found.overflow} pixels too wide at ${width}`);
  assert.deepEqual([found.isBeside, found.isBelow], [width >= 1000, width < 1000], `at ${width}`);
  assert.deepEqual(found.broken, [], `at ${width}`);
}

// Loads the table again, and waits until it is shown.
async function reload(page) {
  await page.evaluate(() => {
    document.getElementById("list-time").textContent = "";
    document.querySelector("#filter button").click();
  });
  await page.locator("#list-time", { hasText: "At " }).waitFor();
}

async function visit(root, colorScheme, name) {
  const { page, complaints, close } = await open(root, colorScheme);
  await page.goto(`${root}/`);
  assert.equal(page.url(), `${root}/docs`, "GET / leads to the page");
  const operations = page.locator("#operations details");
  await operations.nth(8).waitFor();
  assert.equal(await operations.count(), 9, "every operation is shown, and none that is off");
  await operations.nth(0).locator("summary").click();
  assert.match(await operations.nth(0).innerText(), /POST \/job[\s\S]*429\s+The namespace's quota is exhausted/);
  assert.ok(await page.locator("#jobs").isHidden(), "what is off is not shown");
  assert.match(await page.locator("header").innerText(), /Namespace test-\d+, API server https:/);
  assert.equal(await page.getByLabel("Body, as JSON").inputValue(), "", "an example is for the default filter");
  const settings = await page.locator("dl").last().innerText();
  assert.match(settings, /Filter\s+\S*filter\.jq/);
  assert.match(settings, /Namespace of the Jobs\s+test-\d+/);

  // what is not JSON is reported and not sent
  await page.getByLabel("Body, as JSON").fill("{");
  await page.getByRole("button", { name: "Send" }).click();
  assert.match(await page.locator("#problem").innerText(), /JSON/);

  // with the keyboard alone
  await page.getByLabel("Path").focus();
  await page.keyboard.press("Control+A");
  await page.keyboard.type("/job/from/the/page");
  await page.keyboard.press("Tab");
  await page.keyboard.type("X-GitHub-Event: push");
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
  await status.filter({ hasText: `demo-job-${name}: succeeded` }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "send", "the focus stays while the Job is followed");
  await page.getByText("Status, as Kubernetes reports it").click();
  assert.match(await page.locator("#status").innerText(), /"succeeded": 1/);
  for (const off of ["#delete", "#show-log"]) assert.ok(await page.locator(off).isHidden(), `${off} is off`);
  await isAccessible(page);
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(dark === "rgb(255, 255, 255)", colorScheme === "light", `background in ${colorScheme} mode: ${dark}`);
  await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });

  // refused by the filter or the name: shown, and nothing followed
  await page.getByLabel("Body, as JSON").fill(JSON.stringify({ id: name, args: ["other"] }));
  const refused = page.waitForEvent("console"); // the browser itself reports a 409
  await page.getByRole("button", { name: "Send" }).click();
  await page.locator("#code", { hasText: "409" }).waitFor();
  await page.locator("#code", { hasText: "No Job was created: " }).waitFor();
  assert.match((await refused).text(), /409/);
  assert.deepEqual(complaints.filter((complaint) => !complaint.includes("409")), []);
  await close();
}

async function operate(colorScheme, width, name) {
  const { page, complaints, close } = await open(operator, colorScheme, width);
  const asked = [];
  page.on("request", (request) => asked.push(new URL(request.url())));
  await page.goto(`${operator}/docs`);
  const rows = page.locator("#rows tr");
  await page.locator("#list-status", { hasText: /^(9|10|11) Jobs$/ }).waitFor(); // one is kept for three minutes
  await page.locator("#state").selectOption("suspended");
  await page.locator("#list-status", { hasText: /^9 Jobs$/ }).waitFor();
  await page.locator("#state").selectOption("");

  // a Job that ends: the table and its own view follow by waiting
  await page.getByLabel("Body, as JSON").fill(JSON.stringify({ id: name, args: ["x"] }));
  await page.getByRole("button", { name: "Send" }).click();
  const job = `demo-job-${name}`;
  const line = rows.filter({ hasText: job });
  await line.filter({ hasText: "running" }).waitFor();
  await line.filter({ hasText: "succeeded" }).waitFor();
  await page.locator("#job", { hasText: `${job}: succeeded` }).waitFor();
  const waits = asked.filter((url) => url.pathname === `/job/${job}`).map((url) => url.search);
  assert.ok(waits.length <= 9 && waits.every((search) => search.startsWith("?wait=")), `it waits, and does not poll: ${waits}`);
  await page.getByRole("button", { name: "Close" }).click();
  assert.ok(await page.locator("#view").isHidden());

  // by keyboard: the focus stays in the table when it is loaded anew
  await line.getByRole("link").focus();
  await reload(page);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), job);
  // its view, and back
  await page.keyboard.press("Enter");
  await page.locator("#job-title:focus").waitFor();
  assert.equal(await page.locator("#rows tr[aria-current]").innerText().then((text) => text.includes(job)), true);
  await page.locator("#pods td", { hasText: "terminated" }).waitFor();
  await page.keyboard.press("Escape");
  assert.ok(await page.locator("#view").isHidden(), "Escape leaves the Job");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), job, "for its row");
  // its view, its pods, its log
  await page.keyboard.press("Enter");
  await page.locator("#job-title:focus").waitFor();
  await page.locator("#pods td", { hasText: "terminated" }).waitFor();
  assert.match(await page.locator("#pods").innerText(), /Succeeded[\s\S]*terminated, exit code 0\s+Completed: the end/);
  await page.getByRole("button", { name: /^Log of/ }).focus();
  await page.keyboard.press("Enter");
  await page.locator("#log", { hasText: "a line of the log" }).waitFor();
  assert.match(await page.locator("#log-title").innerText(), new RegExp(`^Log of job in ${job}-`));
  await isAccessible(page);
  await isLaidOut(page, width);
  await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });

  // deleted after a question, and not without
  await page.getByRole("button", { name: "Delete…" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  assert.match(await page.getByRole("dialog").innerText(), new RegExp(`Delete ${job} and its pods`));
  await isAccessible(page);
  await page.screenshot({ path: `${folder}/${name}-question.png` });
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  assert.equal(await line.count(), 1);
  await page.getByRole("button", { name: "Delete…" }).click();
  await page.getByRole("button", { name: "Delete it" }).click();
  await page.locator("#job", { hasText: `${job} is gone.` }).waitFor();
  assert.ok(await page.locator("#view").isHidden(), "nothing of it remains");
  for (const id of ["facts", "pods", "log", "status"]) assert.equal(await page.locator(`#${id}`).textContent(), "", id);
  await line.waitFor({ state: "detached" });
  assert.equal(await page.evaluate(() => history.length), 2, "looking at Jobs leaves no entries"); // and about:blank
  await page.getByLabel("Name", { exact: true }).fill("no-such-job");
  await page.keyboard.press("Enter");
  await page.locator("#job", { hasText: "There is no Job no-such-job." }).waitFor();
  assert.equal(await page.evaluate(() => location.hash), "#no-such-job");
  assert.deepEqual(complaints.filter((complaint) => !complaint.includes("404")), []);
  await close();
}

// A caller that may not wait sees the list all the same, and does not request it more often.
async function seeWithoutWaiting() {
  const { page, close } = await open(operator, "light");
  let waits = 0;
  await page.route(/[?]wait=[1-9]/, (route) => {
    waits += 1;
    return route.fulfill({ status: 503, json: { error: { code: 503, reason: "Overloaded", message: "too many callers wait for Jobs" } } });
  });
  const began = Date.now();
  const fourth = page.waitForResponse((answer) => answer.url().includes("wait=4s"));
  await page.goto(`${operator}/docs#report-0001`);
  await page.locator("#job", { hasText: "report-0001: suspended" }).waitFor();
  await fourth;
  assert.ok(waits <= 4 + 3 * (Date.now() - began) / 1000, `${waits} waits`);
  await page.locator("#list-status", { hasText: /^\d+ Jobs$/ }).waitFor();
  await page.locator("#job", { hasText: "report-0001: suspended" }).waitFor();
  await close();
}

const failing = (status, reason) => ({ status, json: { error: { code: status, reason, message: "for a test" } } });

// What an operator is told while something is wrong, and what is found again.
async function seeTrouble() {
  const { page, close } = await open(operator, "light");
  // nothing yet; then Jobs that are stuck; then a watch that is interrupted
  let list = { items: [], counts: {} };
  await page.route(/[/]job[?]/, (route) => route.request().method() !== "GET" ? route.continue() : route.fulfill(list.status ? list : { json: list }));
  await page.goto(`${operator}/docs`);
  const status = page.locator("#list-status");
  await status.filter({ hasText: "There are no Jobs yet." }).waitFor();
  const stuck = { id: "stuck", state: "starting", podReason: "ImagePullBackOff", created: new Date(Date.now() - 3 * 3600_000).toISOString(), status: {} };
  list = { items: [stuck], counts: { starting: 1, failed: 2, running: 0 } };
  const refresh = () => page.evaluate(() => document.querySelector("#filter button").click());
  await refresh();
  const line = page.locator("#rows tr");
  await line.filter({ hasText: "ImagePullBackOff" }).waitFor();
  assert.equal(await line.locator("td").first().getAttribute("class"), "state stuck");
  assert.equal(await line.locator("time").innerText(), "3h");
  assert.match(await line.locator("time").getAttribute("title"), /\d/, "the date on hover");
  assert.equal((await page.locator("#counts").innerText()).replace(/\s+/g, " ").trim(), "1 starting 2 failed");
  for (const width of [390, 1000]) {
    await page.setViewportSize({ width, height: 1200 });
    const { height } = await line.locator("td").first().boundingBox();
    assert.ok(height < 40, `a reason in one word does not break at ${width}: ${height} pixels`);
    await page.screenshot({ path: `${folder}/stuck-${width}.png` });
  }
  await isAccessible(page);
  list = { items: [{ ...stuck, podReason: "Init:0/1" }], counts: { starting: 1 }, podsUnavailable: true };
  await reload(page);
  assert.equal(await line.locator("td").first().getAttribute("class"), "state starting", "an init container that runs");
  assert.match(await status.innerText(), /^1 Job; the pods cannot be read at the moment$/);
  list = failing(503, "Overloaded");
  await refresh();
  await status.filter({ hasText: "The Jobs cannot be listed: 503" }).waitFor();
  list = failing(503, "ServiceUnavailable");
  await refresh();
  await status.filter({ hasText: "The API server does not answer, or its watch was interrupted." }).waitFor();
  assert.match(await status.innerText(), /What is shown is older/);
  assert.equal(await line.count(), 1, "what was known stays");
  await isAccessible(page);
  await page.unroute(/[/]job[?]/);
  await refresh();
  await status.filter({ hasText: /^\d+ Jobs$/ }).waitFor();
  // by name and by label
  await page.getByLabel("Search").fill("report-0003");
  await page.keyboard.press("Enter");
  await status.filter({ hasText: /^1 Job$/ }).waitFor();
  await page.getByLabel("Search").fill("app.kubernetes.io/managed-by=nobody");
  await page.keyboard.press("Enter");
  await status.filter({ hasText: "No Job matches." }).waitFor();

  // the skip link
  await page.evaluate(() => document.activeElement.blur());
  await page.locator("#skip").focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "path");
  assert.equal(await page.evaluate(() => location.hash), "");

  // while a request is under way something moves; what is not known is said
  const body = page.getByLabel("Body, as JSON");
  await body.fill("{}");
  await page.getByLabel("Headers").fill("no header");
  await page.getByRole("button", { name: "Send" }).click();
  assert.match(await page.locator("#problem").innerText(), /"no header" is not a header/);
  await page.getByLabel("Headers").fill("X-GitHub-Event: push");
  for (const [code, reason, says] of [
    [502, "BadGateway", "It is not known whether a Job was created"],
    [503, "ServiceUnavailable", "It is not known whether a Job was created"],
    [504, "Timeout", "It is not known whether a Job was created"],
    [500, "InternalError", "It is not known whether a Job was created"],
    [422, "FilterError", "No Job was created"],
  ]) {
    let answer;
    const asked = new Promise((resolve) => {
      page.route(/[/]job$/, async (route) => {
        resolve(route.request().headers());
        await new Promise((released) => { answer = released; });
        await route.fulfill(failing(code, reason));
      }, { times: 1 });
    });
    await page.getByRole("button", { name: "Send" }).click();
    assert.equal((await asked)["x-github-event"], "push");
    assert.equal(await page.locator("#code").innerText(), "Sending…");
    assert.equal(await page.evaluate(() => getComputedStyle(document.getElementById("send"), "::after").animationName), "turn");
    answer();
    await page.locator("#code", { hasText: `Reply: ${code}` }).waitFor();
    assert.match(await page.locator("#code").innerText(), new RegExp(says));
    const { y, height } = await page.locator("#answer").boundingBox();
    assert.ok(y >= 0 && y + height < 1201, `the answer is in view: ${y} and ${height} pixels`);
  }
  // without a body, as a schedule sends it
  await body.fill("");
  const empty = page.waitForRequest((request) => request.method() === "POST");
  await page.getByRole("button", { name: "Send" }).click();
  assert.deepEqual([(await empty).postData(), (await empty).headers()["content-type"]], [null, undefined]);
  await page.locator("#code", { hasText: "Reply: 201" }).waitFor();
  await body.fill("{}");
  await page.route(/[/]job$/, (route) => route.abort(), { times: 1 });
  await page.getByRole("button", { name: "Send" }).click();
  await page.locator("#problem", { hasText: "it is not known whether a Job was created" }).waitFor();
  // the last request is there again
  await page.reload();
  assert.deepEqual([await body.inputValue(), await page.getByLabel("Headers").inputValue()], ["{}", "X-GitHub-Event: push"]);
  await close();
}

// The log is asked for again while the Job runs, and says what it leaves out.
async function followLog() {
  const { page, close } = await open(operator, "light");
  let asked = 0;
  await page.route(/[/]log[?]/, (route) => {
    asked += 1;
    return route.fulfill({ contentType: "text/plain", body: Array.from({ length: 499 + asked }, (_, line) => `line ${line}`).join("\n") });
  });
  await page.goto(`${operator}/docs`);
  await page.getByLabel("Body, as JSON").fill(JSON.stringify({ id: "log", args: ["x"] }));
  await page.getByRole("button", { name: "Send" }).click();
  await page.locator("#job", { hasText: "demo-job-log: running" }).waitFor();
  await page.getByRole("button", { name: /^Log of/ }).click();
  await page.locator("#log", { hasText: "line 500" }).waitFor(); // of the second answer
  assert.equal(await page.locator("#log-status").innerText(), "The last 500 lines; those before are left out.");
  assert.equal(await page.evaluate(() => getComputedStyle(document.getElementById("log")).whiteSpace), "pre-wrap");
  await page.locator("#job", { hasText: "demo-job-log: succeeded" }).waitFor();
  await page.waitForTimeout(5000); // two more, if it still asked
  const last = asked;
  await page.waitForTimeout(5000);
  assert.equal(asked, last, "not after its end");
  await close();
}

async function seeMany(colorScheme, width, name) {
  const { page, complaints, close } = await open(many, colorScheme, width);
  await page.goto(`${many}/docs`);
  await page.locator("#list-status", { hasText: "100 Jobs, and there are more" }).waitFor();
  await page.getByRole("button", { name: "Show more" }).click();
  await page.locator("#list-status", { hasText: "600 Jobs, and there are more" }).waitFor();
  await page.getByRole("button", { name: "Show more" }).click();
  await page.locator("#list-status", { hasText: /^1000 Jobs$/ }).waitFor();
  assert.equal(await page.locator("#rows tr").count(), 1000);
  assert.ok(await page.getByRole("button", { name: "Show more" }).isHidden());
  await page.locator("#rows a").last().focus();
  const last = await page.evaluate(() => document.activeElement.textContent);
  await reload(page);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), last, "the focus stays");
  await isLaidOut(page, width);
  await page.screenshot({ path: `${folder}/${name}.png` });
  assert.deepEqual(complaints, []);
  await close();
}

try {
  await visit(address, "light", "light");
  await visit(address, "dark", "dark");
  await visit(`http://127.0.0.1:${ingress.address().port}${PREFIX}`, "light", "below-a-prefix");
  await operate("light", 1000, "job");
  await operate("dark", 390, "job-narrow");
  await seeWithoutWaiting();
  await seeTrouble();
  await followLog();
  await seeMany("light", 1000, "thousand");
  await seeMany("dark", 390, "thousand-narrow");
} finally {
  await browser.close();
  ingress.close();
}
