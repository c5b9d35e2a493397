// Pages of another origin, and pages under a rebound name, neither dispatch nor read in a real browser; the product's own page works.
// node tests/origins.mjs BINARY: starts dispatchers of it, all as a dry run. Needs playwright-core and chromium.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { chromium } = require("playwright-core");
const [binary] = process.argv.slice(2);

const PATIENCE = 10_000;
const TOKEN = "a-token-of-the-tests-0123456789abcdef";
const BODY = JSON.stringify({ id: "attack", args: ["x"] });

// Whatever happens, nothing is left running, and nothing is waited for without end.
const children = new Set();
const folder = mkdtempSync(join(tmpdir(), "origins-"));
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});
function giveUp(why) {
  console.error(why);
  process.exit(1);
}
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => giveUp(`stopped by ${signal}`));
setTimeout(() => giveUp("the test takes more than eight minutes"), 480_000).unref();

async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${PATIENCE / 1000} s: ${what}`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function until(holds, what) {
  for (const end = Date.now() + PATIENCE; ; await new Promise((resolve) => setTimeout(resolve, 20))) {
    const value = holds();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${PATIENCE / 1000} s: ${typeof what === "string" ? what : what()}`);
  }
}

// A dispatcher; `host` is a name that it answers to, for the requests of the test itself.
async function start(args = [], { host = "127.0.0.1", authorization } = {}) {
  const child = spawn(binary, ["--dry-run=client", "--port=0", ...args], { env: {}, stdio: ["ignore", "ignore", "pipe"] });
  children.add(child);
  const dispatcher = { log: "", name: args.join(" ") || "without options" };
  child.stderr.setEncoding("utf8").on("data", (text) => { dispatcher.log += text; });
  child.on("error", (error) => { dispatcher.log += error; });
  child.on("exit", () => children.delete(child));
  const [, port] = await until(
    () => /listening on \S+:(\d+)\n/.exec(dispatcher.log),
    () => `the dispatcher ${dispatcher.name} listens; it said: ${dispatcher.log}`,
  );
  dispatcher.port = Number(port);
  // asks without a browser: the headers are exactly these
  dispatcher.ask = (method, path, headers = {}, body) => within(new Promise((resolve, reject) => {
    const all = { Host: `${host}:${port}`, ...(authorization && { Authorization: authorization }), ...headers };
    const asked = http.request({ host: "127.0.0.1", port, method, path, agent: false, headers: all }, (reply) => {
      let text = "";
      reply.setEncoding("utf8").on("data", (part) => { text += part; });
      reply.on("end", () => resolve({ code: reply.statusCode, headers: reply.headers, text, reason: reasonOf(text) }));
    });
    asked.on("error", reject);
    asked.end(body);
  }), `${method} ${path} of the dispatcher ${dispatcher.name}`);
  dispatcher.post = (headers = {}) => dispatcher.ask("POST", "/job", { "Content-Type": "application/json", ...headers }, BODY);
  dispatcher.runs = async () => {
    const { code, text } = await dispatcher.ask("GET", "/metrics");
    assert.equal(code, 200, `the metrics of the dispatcher ${dispatcher.name} can be read: ${text}`);
    const lines = text.matchAll(/^k8s_job_dispatcher_filter_runs_total\{outcome="[^"]*"\} (\d+)/gm);
    return [...lines].reduce((sum, [, count]) => sum + Number(count), 0);
  };
  dispatcher.stop = () => {
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    return within(ended, `the dispatcher ${dispatcher.name} ends`);
  };
  return dispatcher;
}

function reasonOf(text) {
  try {
    return JSON.parse(text).error.reason;
  } catch {
    return undefined;
  }
}

// The counter counts: what was sent after the attacks is the only run.
async function nothingWasDispatched(dispatcher, before = 0) {
  assert.equal(await dispatcher.runs(), before, `a filter ran in the dispatcher ${dispatcher.name}:\n${dispatcher.log}`);
  const sent = await dispatcher.post();
  assert.equal(sent.code, 200, `a request without a browser is dispatched: ${sent.text}`);
  assert.equal(await dispatcher.runs(), before + 1, "a run is counted");
}

const servers = [];
async function listen(answer) {
  const server = http.createServer(answer);
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  servers.push(server);
  return server.address().port;
}

function pass(request, reply, port, change = {}) {
  const { method, url, headers } = request;
  const inner = http.request({ host: "127.0.0.1", port, method, path: url, headers: { ...headers, ...change } }, (answer) => {
    reply.writeHead(answer.statusCode, answer.headers);
    answer.pipe(reply);
  });
  inner.on("error", () => reply.destroy());
  request.pipe(inner);
}

// A reverse proxy that puts its own name for the dispatcher in Host; it keeps the headers that it saw.
async function proxy(dispatcher) {
  const seen = [];
  const port = await listen((request, reply) => {
    seen.push({ method: request.method, ...request.headers });
    pass(request, reply, dispatcher.port, { host: `127.0.0.1:${dispatcher.port}` });
  });
  return { port, seen };
}

function answerAsAttacker(request, reply) {
  const url = new URL(request.url, "http://attacker.example");
  if (url.pathname === "/redirect") return reply.writeHead(307, { Location: url.searchParams.get("to") }).end();
  const type = { "Content-Type": "text/html; charset=utf-8", Connection: "close" };
  if (url.pathname === "/no-referrer") type["Referrer-Policy"] = "no-referrer";
  const inside = url.pathname === "/sandbox" ? '<iframe sandbox="allow-scripts allow-forms" src="/"></iframe>' : "";
  return reply.writeHead(200, type).end(`<!doctype html><title>attacker</title><link rel="icon" href="data:,">${inside}`);
}

// What a page tries; each runs in the page, and returns what it could read. `arrives` is the method that reaches the dispatcher: the
// browser asks with OPTIONS before it sends JSON to another origin.
const ATTEMPTS = [
  {
    name: "fetch-json", arrives: "OPTIONS",
    attempt: (url, body) => fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body, credentials: "include" })
      .then((reply) => reply.text()),
  },
  {
    name: "fetch-text", arrives: "POST",
    attempt: (url, body) => fetch(url, { method: "POST", headers: { "Content-Type": "text/plain" }, body, credentials: "include" })
      .then((reply) => reply.text()),
  },
  {
    name: "fetch-form", arrives: "POST",
    attempt: (url) => fetch(url, { method: "POST", body: new URLSearchParams({ id: "attack" }), credentials: "include" })
      .then((reply) => reply.text()),
  },
  {
    name: "fetch-no-cors", arrives: "POST",
    attempt: (url, body) => fetch(url, { method: "POST", mode: "no-cors", body, credentials: "include" }).then((reply) => reply.text()),
  },
  {
    name: "fetch-without-type", arrives: "POST",
    attempt: (url, body) => fetch(url, { method: "POST", mode: "no-cors", body: new Blob([body]), credentials: "include" })
      .then((reply) => reply.text()),
  },
  {
    name: "fetch-redirected", arrives: "POST", needsServer: true,
    attempt: (url, body) => {
      const options = { method: "POST", mode: "no-cors", body, credentials: "include" };
      return fetch(`${location.origin}/redirect?to=${encodeURIComponent(url)}`, options).then((reply) => reply.text());
    },
  },
  {
    name: "fetch-delete", arrives: "OPTIONS", method: "DELETE",
    attempt: (url) => fetch(url, { method: "DELETE", credentials: "include" }).then((reply) => reply.text()),
  },
  {
    name: "xhr-json", arrives: "OPTIONS",
    attempt: (url, body) => new Promise((resolve) => {
      const request = new XMLHttpRequest();
      request.open("POST", url);
      request.withCredentials = true;
      request.setRequestHeader("Content-Type", "application/json");
      request.onloadend = () => resolve(request.responseText);
      request.send(body);
    }),
  },
  {
    name: "xhr-text", arrives: "POST",
    attempt: (url, body) => new Promise((resolve) => {
      const request = new XMLHttpRequest();
      request.open("POST", url);
      request.withCredentials = true;
      request.onloadend = () => resolve(request.responseText);
      request.send(body);
    }),
  },
  ...["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"].map((type) => ({
    name: `form-${type.replace("/", "-")}`, arrives: "POST", type,
    attempt: (url, body, type) => new Promise((resolve) => {
      const frame = document.createElement("iframe");
      frame.name = `frame-${Math.random()}`;
      document.body.append(frame);
      const form = document.createElement("form");
      Object.assign(form, { method: "POST", action: url, enctype: type, target: frame.name });
      const field = document.createElement("input");
      // as text/plain it is JSON: {"id":"attack","args":["="]}
      [field.name, field.value] = type === "text/plain" ? ['{"id":"attack","args":["', '"]}'] : ["id", "attack"];
      form.append(field);
      document.body.append(form);
      frame.onload = () => {
        let text;
        try {
          if (frame.contentWindow.location.href === "about:blank") return;
          text = frame.contentDocument?.body.innerText;
        } catch {
          text = undefined;
        }
        resolve(text);
      };
      form.submit();
    }),
  })),
  {
    name: "beacon-text", arrives: "POST",
    attempt: async (url, body) => { navigator.sendBeacon(url, body); },
  },
  {
    name: "beacon-form", arrives: "POST",
    attempt: async (url) => { navigator.sendBeacon(url, new URLSearchParams({ id: "attack" })); },
  },
  {
    name: "beacon-json", arrives: "OPTIONS",
    attempt: async (url, body) => { navigator.sendBeacon(url, new Blob([body], { type: "application/json" })); },
  },
];

// Elements and requests that get what is there to be read.
const READS = [
  { name: "fetch", attempt: (url) => fetch(url).then((reply) => reply.text()) },
  { name: "fetch with credentials", attempt: (url) => fetch(url, { credentials: "include" }).then((reply) => reply.text()) },
  { name: "fetch without CORS", attempt: (url) => fetch(url, { mode: "no-cors", credentials: "include" }).then((reply) => reply.text()) },
  {
    name: "XMLHttpRequest",
    attempt: (url) => new Promise((resolve) => {
      const request = new XMLHttpRequest();
      request.open("GET", url);
      request.onloadend = () => resolve(request.responseText);
      request.send();
    }),
  },
  {
    name: "an image",
    attempt: (url) => new Promise((resolve) => {
      const image = new Image();
      image.onload = () => resolve(`an image of ${image.width} pixels`);
      image.onerror = () => resolve();
      image.src = url;
    }),
  },
  {
    name: "a script",
    attempt: (url) => new Promise((resolve) => {
      const known = new Set(Object.keys(globalThis));
      const script = document.createElement("script");
      script.onload = () => resolve(Object.keys(globalThis).filter((key) => !known.has(key)).join(", "));
      script.onerror = () => resolve();
      script.src = url;
      document.body.append(script);
    }),
  },
  {
    name: "a style sheet",
    attempt: (url) => new Promise((resolve) => {
      const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: url });
      link.onload = () => {
        try {
          resolve([...link.sheet.cssRules].map((rule) => rule.cssText).join(""));
        } catch {
          resolve();
        }
      };
      link.onerror = () => resolve();
      document.head.append(link);
    }),
  },
  {
    name: "a frame",
    attempt: (url) => new Promise((resolve) => {
      const frame = document.createElement("iframe");
      frame.src = url;
      frame.onload = () => {
        try {
          resolve(frame.contentDocument?.body.innerText);
        } catch {
          resolve();
        }
      };
      document.body.append(frame);
    }),
  },
];

// A form for the whole window, which takes credentials along from everywhere.
async function submitWindow(page, action, type) {
  await page.evaluate(({ action, type }) => {
    const form = Object.assign(document.createElement("form"), { method: "POST", action, enctype: type });
    form.innerHTML = "<input><button>Win</button>";
    const [field] = form.elements;
    [field.name, field.value] = type === "text/plain" ? ['{"id":"attack","args":["', '"]}'] : ["id", "attack"];
    document.body.replaceChildren(form);
  }, { action, type });
  await page.getByRole("button", { name: "Win" }).click();
  await page.waitForURL(action);
  return page.locator("body").innerText();
}

// Runs one attempt in a page or frame. What throws there has read nothing.
async function attemptIn(frame, { name, attempt, type }, url) {
  const call = `(${attempt})(...${JSON.stringify([url, BODY, type])}).then((read) => ({ read }), (error) => ({ error: String(error) }))`;
  const { read, error } = await within(frame.evaluate(call), `${name} to ${url} ends in the page`);
  if (error) assert.match(error, /Failed to fetch/, `${name} fails because the browser does not let it read`);
  return read;
}

let serial = 0;

// What the log says since `known` of the request for a path. What is refused before its body is there is logged without method and path.
function logged(dispatcher, known, path) {
  const lines = dispatcher.log.slice(known).split("\n").slice(0, -1);
  return lines.filter((line) => line.includes(`"${path}"`) || line.includes(' - "-" 403 ')).join("\n");
}

// Sends by all means from a page of another origin to `root`, where the dispatcher is.
async function attack(frame, root, dispatcher, from) {
  for (const one of ATTEMPTS) {
    const path = `/job/${one.name}-${serial += 1}`;
    const said = `${one.name} from ${from} to ${root}`;
    const known = dispatcher.log.length;
    const read = await attemptIn(frame, one, root + path);
    assert.ok(!read, `${said} could read: ${read}`);
    const lines = await until(
      () => logged(dispatcher, known, path),
      () => `${said} arrives as ${one.arrives}; the log is:\n${dispatcher.log}`,
    );
    if (one.arrives === "OPTIONS") assert.doesNotMatch(lines, / (POST|DELETE|-) "/, `${said} is sent though nothing permits it`);
    else assert.match(lines, / (POST|-) "\S+" 403 .*(CrossOrigin|HostNotAllowed)/, `${said} is refused`);
  }
  for (const path of ["/openapi.json", "/metrics", "/docs", "/job"]) {
    for (const one of READS) {
      const read = await attemptIn(frame, one, root + path);
      assert.ok(!read, `${one.name} of ${path} from ${from} to ${root} could read: ${read}`);
    }
  }
}

// After the name was rebound, the page is of the dispatcher's own origin: it reads the refusal, and nothing else.
async function attackRebound(page, root, dispatcher) {
  const isRefusal = (read, said) => assert.ok(!read || reasonOf(read) === "HostNotAllowed", `${said} under a rebound name read: ${read}`);
  for (const one of ATTEMPTS.filter(({ needsServer }) => !needsServer)) {
    const path = `/job/${one.name}-${serial += 1}`;
    const known = dispatcher.log.length;
    isRefusal(await attemptIn(page, one, root + path), one.name);
    const line = new RegExp(` (${one.method ?? "POST"}|-) "\\S+" 403 .*HostNotAllowed`);
    await until(() => line.test(logged(dispatcher, known, path)), () => `${one.name} under a rebound name is refused; the log is:\n${dispatcher.log}`);
  }
  for (const path of ["/openapi.json", "/metrics", "/docs", "/docs.js", "/job", "/job/some-job"]) {
    for (const one of READS) isRefusal(await attemptIn(page, one, root + path), `${one.name} of ${path}`);
  }
}

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP *.example 127.0.0.1"],
});

// Opens a page in a browser of its own, without anything remembered.
async function open(url, context) {
  context ??= await browser.newContext();
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const reply = await page.goto(url);
  return { page, reply, context };
}

// Sends a request from the page behind /docs, and returns the line above the reply and the reply.
async function sendFromDocs(root, context) {
  const { page, reply, context: opened } = await open(`${root}/docs`, context);
  assert.equal(reply.status(), 200, `${root}/docs is shown`);
  await page.getByLabel("Body, as JSON").fill(JSON.stringify({ id: "docs", args: ["x"] }));
  await page.getByRole("button", { name: "Send" }).click();
  await page.locator("#code", { hasText: /Reply: \d+/ }).waitFor();
  const sent = { code: await page.locator("#code").innerText(), answer: await page.locator("#answer").innerText() };
  const [deleted, read] = await within(page.evaluate(async () => [
    await (await fetch("job/no-such-job", { method: "DELETE" })).text(),
    (await fetch("openapi.json")).status,
  ]), `DELETE and GET from ${root}/docs`);
  assert.equal(read, 200, `the page at ${root} reads its interface`);
  if (!context) await opened.close();
  return { ...sent, deleted: reasonOf(deleted) };
}

function isDispatched(sent, root) {
  assert.match(sent.code, /Reply: 200/, `a request from ${root}/docs is dispatched, not: ${sent.code} ${sent.answer}`);
  const job = JSON.parse(sent.answer);
  assert.deepEqual([job.kind, job.metadata.name], ["Job", "demo-job-docs"], `the Job is shown at ${root}`);
}

function isRefused(sent, root) {
  assert.match(sent.code, /Reply: 403/, `a request from ${root}/docs is refused, not: ${sent.code} ${sent.answer}`);
  assert.equal(reasonOf(sent.answer), "CrossOrigin", `the reason at ${root}`);
  assert.equal(sent.deleted, "CrossOrigin", `DELETE at ${root}`);
}

// The rules, header by header, without a browser.
async function readHeaders() {
  const loopback = await start(["--enable", "delete,list"]);
  const { port } = loopback;
  for (const host of ["localhost", "LocalHost", "jobs.localhost", "127.0.0.1", "127.8.9.10", "[::1]"]) {
    for (const Host of [host, `${host}:${port}`, `${host}:1`]) {
      const { code, text } = await loopback.ask("GET", "/openapi.json", { Host });
      assert.equal(code, 200, `Host ${Host} is a loopback name: ${text.slice(0, 200)}`);
    }
  }
  for (const Host of ["jobs.example", "0.0.0.0", "127.0.0.1.example", "localhost.example", "notlocalhost", "10.0.0.1", "[::2]", "128.0.0.1"]) {
    for (const [method, path] of [["GET", "/openapi.json"], ["GET", "/docs"], ["GET", "/metrics"], ["GET", "/job"], ["GET", "/"],
      ["DELETE", "/job/some-job"], ["POST", "/job"], ["OPTIONS", "/job"], ["GET", "/nothing"]]) {
      const { code, reason, text } = await loopback.ask(method, path, { Host: `${Host}:${port}` });
      assert.deepEqual([code, reason], [403, "HostNotAllowed"], `${method} ${path} with Host ${Host}: ${text.slice(0, 200)}`);
      assert.match(text, /--allowed-host/, "the message names the flag");
    }
    for (const path of ["/health/live", "/health/ready"]) {
      const { code, text } = await loopback.ask("GET", path, { Host });
      assert.equal(code, 200, `${path} with Host ${Host}: ${text}`);
    }
  }
  assert.match(await withoutHost(port), /^HTTP\/1\.[01] 200 /, "a request without Host is exempt");

  // what of the two headers makes a request ours
  for (const [headers, isOurs] of [
    [{}, true],
    [{ "Sec-Fetch-Site": "same-origin" }, true],
    [{ "Sec-Fetch-Site": "none" }, true],
    [{ "Sec-Fetch-Site": "same-origin", Origin: "http://jobs.example" }, true],
    [{ "Sec-Fetch-Site": "cross-site" }, false],
    [{ "Sec-Fetch-Site": "same-site" }, false],
    [{ "Sec-Fetch-Site": "cross-site", Origin: `http://127.0.0.1:${port}` }, false],
    [{ Origin: `http://127.0.0.1:${port}` }, true],
    [{ Origin: "http://evil.example" }, false],
    [{ Origin: `http://evil.example:${port}` }, false],
    [{ Origin: `http://localhost:${port}` }, false],
    [{ Origin: `http://127.0.0.1.evil.example:${port}` }, false],
    [{ Origin: `http://evil.example/127.0.0.1:${port}` }, false],
    [{ Origin: `http://127.0.0.1:${port}@evil.example` }, false],
    [{ Origin: "null" }, false],
  ]) {
    for (const method of ["POST", "DELETE"]) {
      const sent = method === "POST" ? await loopback.post(headers) : await loopback.ask("DELETE", "/job/no-such-job", headers);
      const found = [sent.code, sent.reason];
      const ours = method === "POST" ? [200, undefined] : [404, "NotFound"]; // a dry run deletes nothing
      assert.deepEqual(found, isOurs ? ours : [403, "CrossOrigin"], `${method} with ${JSON.stringify(headers)}: ${sent.text}`);
    }
    for (const [method, path] of [["GET", "/openapi.json"], ["GET", "/metrics"], ["HEAD", "/docs"], ["OPTIONS", "/job"]]) {
      const got = await loopback.ask(method, path, { ...headers, "Access-Control-Request-Method": "POST" });
      if (method !== "OPTIONS") assert.equal(got.code, 200, `${method} ${path} is open with ${JSON.stringify(headers)}: ${got.text}`);
      const cors = Object.keys(got.headers).filter((name) => name.startsWith("access-control-"));
      assert.deepEqual(cors, [], `${method} ${path} permits other origins to read with ${JSON.stringify(headers)}`);
    }
  }
  await loopback.stop();

  // --allowed-host adds names on a loopback address
  const added = await start(["--allowed-host", "jobs.example,*.example.com", "--allowed-host=other.example"]);
  for (const Host of ["jobs.example", "JOBS.example", "a.example.com", "other.example", "localhost", "127.0.0.1"]) {
    const { code, text } = await added.ask("GET", "/openapi.json", { Host: `${Host}:${added.port}` });
    assert.equal(code, 200, `Host ${Host} is allowed: ${text.slice(0, 200)}`);
  }
  for (const Host of ["a.jobs.example", "evil-example.com", "a.example.com.evil.example", "example"]) {
    const { code, reason } = await added.ask("GET", "/openapi.json", { Host });
    assert.deepEqual([code, reason], [403, "HostNotAllowed"], `Host ${Host}`);
  }
  for (const Origin of ["https://jobs.example", "http://a.example.com:8443"]) {
    assert.equal((await added.post({ Origin })).code, 200, `the origin ${Origin} is ours by --allowed-host`);
  }
  for (const Origin of ["https://evil.example", "http://jobs.example.evil.example", "null"]) {
    assert.equal((await added.post({ Origin })).reason, "CrossOrigin", `the origin ${Origin} is not ours`);
  }
  await added.stop();

  // and restricts to them on any other
  const everywhere = await start(["--listen-address=0.0.0.0", "--allowed-host=jobs.example"], { host: "jobs.example" });
  assert.equal((await everywhere.post()).code, 200, "an allowed name on 0.0.0.0");
  for (const Host of ["localhost", "127.0.0.1", "evil.example"]) {
    assert.equal((await everywhere.post({ Host })).reason, "HostNotAllowed", `Host ${Host} on 0.0.0.0, where only jobs.example is allowed`);
    assert.equal((await everywhere.ask("GET", "/health/ready", { Host })).code, 200, `health with Host ${Host} on 0.0.0.0`);
  }
  assert.equal((await everywhere.post({ "Sec-Fetch-Site": "cross-site" })).reason, "CrossOrigin", "a page of another origin on 0.0.0.0");
  await everywhere.stop();
  const any = await start(["--listen-address=0.0.0.0"]);
  assert.equal((await any.post({ Host: "evil.example" })).code, 200, "any name on 0.0.0.0 without the flag");
  assert.equal((await any.post({ Host: "jobs.example", Origin: "http://evil.example" })).reason, "CrossOrigin", "another origin on 0.0.0.0");
  await any.stop();
}

function withoutHost(port) {
  return within(new Promise((resolve, reject) => {
    let text = "";
    const socket = net.connect(port, "127.0.0.1", () => socket.write("GET /openapi.json HTTP/1.0\r\n\r\n"));
    socket.setEncoding("utf8").on("data", (part) => { text += part; }).on("end", () => resolve(text)).on("error", reject);
  }), "a request without Host is answered");
}

// Pages of another origin: of another site, of another port of the same name, in a sandbox, without a referrer.
async function seeOtherOrigins() {
  const attacker = await listen(answerAsAttacker);
  const accept = await start(["--accept=form,text", "--enable=delete,list"]);
  // a name that is no trustworthy origin: the browser sends it no Sec-Fetch-Site
  const named = await start(["--accept=form,text", "--enable=delete,list", "--allowed-host=jobs.example"]);
  const plain = await start(["--enable=delete,list"]);
  const everywhere = await start(["--accept=form,text", "--enable=delete,list", "--listen-address=0.0.0.0"]);
  const behind = await start(["--accept=form,text", "--enable=delete,list", "--allowed-host=jobs.example"]);
  const front = await proxy(behind);
  for (const [origin, targets] of [
    [`http://evil.example:${attacker}/`, [["127.0.0.1", plain], ["localhost", accept], ["jobs.example", named], ["jobs.example", everywhere]]],
    [`http://127.0.0.1:${attacker}/`, [["127.0.0.1", accept]]],
    [`http://evil.localhost:${attacker}/`, [["jobs.localhost", accept], ["jobs.example", named]]],
    [`http://evil.example:${attacker}/sandbox`, [["127.0.0.1", accept], ["jobs.example", named]]],
    [`http://evil.example:${attacker}/no-referrer`, [["127.0.0.1", accept], ["jobs.example", named]]],
    [`http://evil.example:${attacker}/`, [["jobs.example", behind, front.port], ["jobs.localhost", behind, front.port]]],
    [`http://rebound.example:${attacker}/`, [["rebound.example", accept]]],
  ]) {
    const { page, context } = await open(origin);
    const frame = origin.endsWith("/sandbox") ? page.frames()[1] : page;
    for (const [name, dispatcher, port] of targets) await attack(frame, `http://${name}:${port ?? dispatcher.port}`, dispatcher, origin);
    await context.close();
  }
  const posts = front.seen.filter(({ host, method }) => host.startsWith("jobs.example:") && method === "POST");
  assert.ok(posts.length > 0 && posts.every((seen) => !("sec-fetch-site" in seen)), "some of the attacks had no Sec-Fetch-Site");

  // the test would notice: by the contract another port of an allowed name is ours where the browser does not say more
  const lax = await start(["--accept=form,text", "--allowed-host=jobs.example"]);
  const ours = await open(`http://jobs.example:${attacker}/`);
  const potent = ATTEMPTS.filter(({ name, arrives }) => arrives === "POST" && !/multipart|without-type|redirected/.test(name));
  for (const one of potent) {
    const path = `/job/${one.name}`;
    await attemptIn(ours.page, one, `http://jobs.example:${lax.port}${path}`);
    await until(() => lax.log.includes(` POST "${path}" 200 `), () => `${one.name} works where it is allowed; the log is:\n${lax.log}`);
  }
  assert.equal(await lax.runs(), potent.length, "the attempts that work are counted");
  await ours.context.close();
  await lax.stop();

  // a form for the whole window, and a link, which stays open
  const { page, context } = await open(`http://evil.example:${attacker}/`);
  const root = `http://127.0.0.1:${accept.port}`;
  const shown = await submitWindow(page, `${root}/job/window`, "text/plain");
  assert.equal(reasonOf(shown), "CrossOrigin", `a form for the whole window: ${shown}`);
  await page.goto(`http://evil.example:${attacker}/`);
  await page.evaluate((href) => { document.body.innerHTML = `<a href="${href}">a link</a>`; }, `${root}/docs`);
  await page.getByRole("link").click();
  await page.waitForURL(`${root}/docs`);
  await page.getByRole("heading", { name: "k8s-job-dispatcher" }).waitFor();
  // and a window that was opened cannot be read
  await page.goto(`http://evil.example:${attacker}/`);
  const opened = page.waitForEvent("popup");
  await page.evaluate((url) => { globalThis.opened = open(url); }, `${root}/docs`);
  await (await opened).getByRole("heading", { name: "k8s-job-dispatcher" }).waitFor();
  const read = await page.evaluate(() => {
    try {
      return globalThis.opened.document?.body.innerText;
    } catch {
      return undefined;
    }
  });
  assert.equal(read, undefined, "a window that a page of another origin opened could be read");
  await context.close();
  for (const dispatcher of [accept, named, plain, everywhere, behind]) await nothingWasDispatched(dispatcher);
  for (const dispatcher of [accept, named, plain, everywhere, behind]) await dispatcher.stop();
}

// DNS rebinding: first the attacker answers at a name and port, then the dispatcher does, with all headers as they were.
async function seeRebinding() {
  const dispatcher = await start(["--accept=form,text", "--enable=delete,list"]);
  let isRebound = false;
  const port = await listen((request, reply) => isRebound ? pass(request, reply, dispatcher.port) : answerAsAttacker(request, reply));
  const root = `http://rebound.example:${port}`;
  const { page, context } = await open(`${root}/`);
  isRebound = true;
  await attackRebound(page, root, dispatcher);
  assert.equal(await within(page.evaluate(() => fetch("/health/live").then((reply) => reply.status)), "health"), 200, "health is exempt");
  await context.close();

  // opened directly, and what a script could do from there
  const direct = `http://rebound.example:${dispatcher.port}`;
  const { page: docs, reply, context: another } = await open(`${direct}/docs`);
  assert.equal(reply.status(), 403, "the page behind /docs under a rebound name");
  const shown = await docs.locator("body").innerText();
  assert.equal(reasonOf(shown), "HostNotAllowed", shown);
  assert.match(shown, /--allowed-host/, "the message names the flag");
  await attackRebound(docs, direct, dispatcher);
  await another.close();
  await nothingWasDispatched(dispatcher);
  await dispatcher.stop();

  // the test would notice: where any name is allowed, the same page reads and dispatches
  const lax = await start(["--listen-address=0.0.0.0"]);
  const { page: its, context: third } = await open(`http://rebound.example:${lax.port}/openapi.json`);
  const [json] = ATTEMPTS;
  assert.match(await attemptIn(its, json, `http://rebound.example:${lax.port}/job`), /"kind":"Job"/, "the attempt works where it is allowed");
  assert.equal(await lax.runs(), 1, "and is counted");
  await third.close();
  await lax.stop();
}

// The product's own page, directly and behind a reverse proxy.
async function useDocs() {
  const dispatcher = await start(["--enable=delete,list"]);
  for (const name of ["127.0.0.1", "localhost", "jobs.localhost"]) {
    const root = `http://${name}:${dispatcher.port}`;
    const sent = await sendFromDocs(root);
    isDispatched(sent, root);
    assert.equal(sent.deleted, "NotFound", `DELETE from ${root}/docs is not refused`);
  }
  // a proxy in front, and names that the dispatcher does not know
  const front = await proxy(dispatcher);
  const trusted = `http://jobs.localhost:${front.port}`;
  const sent = await sendFromDocs(trusted);
  isDispatched(sent, trusted);
  assert.equal(sent.deleted, "NotFound", `DELETE from ${trusted}/docs is not refused`);
  const before = await dispatcher.runs();
  const untrusted = `http://jobs.example:${front.port}`;
  isRefused(await sendFromDocs(untrusted), untrusted);
  assert.equal(await dispatcher.runs(), before, "a refused request ran the filter");
  const sites = (host) => front.seen.filter((seen) => seen.method === "POST" && seen.host === host).map((seen) => seen["sec-fetch-site"]);
  assert.deepEqual(sites(`jobs.localhost:${front.port}`), ["same-origin"], "the browser says where the request came from");
  assert.deepEqual(sites(`jobs.example:${front.port}`), [undefined], "the browser does not say it to what is not trustworthy");
  await dispatcher.stop();

  // with the name allowed, behind the proxy and directly; another one is still refused
  for (const names of ["jobs.example", "*.example,other.test"]) {
    const allowing = await start(["--enable=delete,list", "--allowed-host", names]);
    const behind = await proxy(allowing);
    for (const port of [behind.port, allowing.port]) {
      const root = `http://jobs.example:${port}`;
      const allowed = await sendFromDocs(root);
      isDispatched(allowed, root);
      assert.equal(allowed.deleted, "NotFound", `DELETE from ${root}/docs is not refused`);
    }
    if (names === "jobs.example") isRefused(await sendFromDocs(`http://other.example:${behind.port}`), "http://other.example");
    await allowing.stop();
  }

  // on all addresses, restricted to a name
  const everywhere = await start(["--listen-address=0.0.0.0", "--allowed-host=jobs.example"], { host: "jobs.example" });
  const root = `http://jobs.example:${everywhere.port}`;
  isDispatched(await sendFromDocs(root), root);
  const { reply, context } = await open(`http://127.0.0.1:${everywhere.port}/docs`);
  assert.equal(reply.status(), 403, "a name that is not allowed on 0.0.0.0");
  await context.close();
  await everywhere.stop();
}

// The browser knows a credential, and sends it whoever asks.
async function attackWithCredentials() {
  writeFileSync(join(folder, "alice"), `${TOKEN}\n`, { mode: 0o600 });
  const attacker = await listen(answerAsAttacker);
  for (const name of ["127.0.0.1", "jobs.example"]) {
    const args = ["--accept=form,text", "--enable=delete,list", `--auth=tokens=${folder}`, "--allowed-host=jobs.example"];
    const dispatcher = await start(args, { authorization: `Bearer ${TOKEN}` });
    const root = `http://${name}:${dispatcher.port}`;
    const login = await open(`http://alice:${TOKEN}@${name}:${dispatcher.port}/docs`);
    assert.equal(login.reply.status(), 200, `the credential is accepted at ${root}`);
    isDispatched(await sendFromDocs(root, login.context), root);
    const before = await dispatcher.runs();
    assert.equal(before, 1, "its own page dispatched");
    // within a site the browser sends the credential for whatever a page asks
    const neighbour = name === "127.0.0.1" ? name : `evil.${name}`;
    for (const origin of [`http://${neighbour}:${attacker}/`, `http://${neighbour}:${attacker}/no-referrer`]) {
      const { page } = await open(origin, login.context);
      const known = dispatcher.log.length;
      await attemptIn(page, READS.find((one) => one.name === "an image"), `${root}/openapi.json`);
      await until(
        () => / GET "\/openapi\.json" 200 .*caller="alice"/.test(dispatcher.log.slice(known)),
        () => `the browser sends the credential for a page of ${origin}; the log is:\n${dispatcher.log.slice(known)}`,
      );
      await attack(page, root, dispatcher, `${origin} with a credential`);
      await page.close();
    }
    // from another site it does so for what takes the whole window
    const { page: linking } = await open(`http://evil.example:${attacker}/`, login.context);
    const known = dispatcher.log.length;
    await linking.evaluate((href) => { document.body.innerHTML = `<a href="${href}">a link</a>`; }, `${root}/docs`);
    await linking.getByRole("link").click();
    await linking.waitForURL(`${root}/docs`);
    assert.match(dispatcher.log.slice(known), / GET "\/docs" 200 .*caller="alice"/, "the browser sends the credential for a link");
    await linking.close();
    for (const path of ["", "no-referrer"]) {
      for (const type of ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"]) {
        const { page } = await open(`http://evil.example:${attacker}/${path}`, login.context);
        const target = `/job/window-${serial += 1}`;
        const shown = await submitWindow(page, root + target, type);
        assert.equal(reasonOf(shown), "CrossOrigin", `a form as ${type} for the whole window, with a credential, is refused at ${root}: ${shown}`);
        await page.close();
      }
    }
    await login.context.close();
    await nothingWasDispatched(dispatcher, before);
    await dispatcher.stop();
  }
}

try {
  await readHeaders();
  await seeOtherOrigins();
  await seeRebinding();
  await useDocs();
  await attackWithCredentials();
} finally {
  await within(browser.close(), "the browser ends").catch(() => {});
  for (const server of servers) {
    server.close();
    server.closeAllConnections();
  }
  for (const child of children) child.kill("SIGKILL");
}
