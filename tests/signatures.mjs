// Signs as the senders' Node.js libraries do, and checks what the dispatcher answers. Called by tests/signatures, as its twin
// signatures.py is: node signatures.mjs PORT FOLDER LOG, with the secrets of the webhook /job/NAME in FOLDER/NAME.
import assert from "node:assert";
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { isDeepStrictEqual } from "node:util";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const packages = `${process.env.NODE_MODULES}/node_modules`;
// this one has no entry for require()
const { sign: octokitSign } = await import(pathToFileURL(`${packages}/@octokit/webhooks-methods/dist-node/index.js`));
const { verifySlackRequest } = require("@slack/bolt");
require("@shopify/shopify-api/adapters/node");
const { createSHA256HMAC } = require("@shopify/shopify-api/runtime");
const { Webhook } = require("standardwebhooks");
const stripe = require("stripe");

const [port, folder, log] = process.argv.slice(2);
const JSON_TYPE = "application/json";
const FORM = "application/x-www-form-urlencoded";
const PLAIN = '{"ref":"main","id":7}';
// as sent: white space that JSON ignores, and characters of two, three and four bytes
const SPACED = '{ "ref" :\t"main",\r\n  "name": "Zoë – 東京 \u{1f680}", "escaped": "\\u00e9\\/", "empty": [ ] }\n';
const LARGE = `{"ref":"main","text":"${"größer ".repeat(30_000)}"}`;
// the text of a plus, a space, an ampersand and an é
const FIELDS = { payload: '{"ref": "main", "name": "Zoë & 1 + 1"}', text: "deploy é", empty: "" };
const FORM_BODY = new URLSearchParams(FIELDS).toString();
const OTHER = { "standard-webhooks": `whsec_${Buffer.from("a secret that is in no file").toString("base64")}` };

const digest = (secret, body, encoding) => createHmac("sha256", secret).update(body).digest(encoding);

// Slack's library verifies only: it confirms what this signs.
function slack(secret, body, at) {
  const signature = `v0=${digest(secret, `v0:${at}:${body}`, "hex")}`;
  const headers = { "x-slack-signature": signature, "x-slack-request-timestamp": at };
  verifySlackRequest({ signingSecret: secret, body, headers, nowMilliseconds: at * 1000 });
  return { "X-Slack-Signature": signature, "X-Slack-Request-Timestamp": String(at) };
}

const standardWebhooks = (secret, body, at) => ({
  "webhook-id": "msg_1",
  "webhook-timestamp": String(at),
  "webhook-signature": new Webhook(secret).sign("msg_1", new Date(at * 1000), body),
});

const stripeHeader = (payload, secret, timestamp, scheme) =>
  stripe.webhooks.generateTestHeaderString({ payload, secret, timestamp, scheme });

// name: what signs, the header with the signature, and a function of secret, body and time that returns the headers
const SCHEMES = {
  github: ["@octokit/webhooks-methods", "X-Hub-Signature-256",
    async (secret, body) => ({ "X-Hub-Signature-256": await octokitSign(secret, body) })],
  bitbucket: ["crypto", "X-Hub-Signature", (secret, body) => ({ "X-Hub-Signature": `sha256=${digest(secret, body, "hex")}` })],
  gitlab: ["no signature", "X-Gitlab-Token", (secret) => ({ "X-Gitlab-Token": secret })],
  slack: ["@slack/bolt", "X-Slack-Signature", slack],
  stripe: ["stripe", "Stripe-Signature", (secret, body, at) => ({ "Stripe-Signature": stripeHeader(body, secret, at, "v1") })],
  shopify: ["@shopify/shopify-api", "X-Shopify-Hmac-Sha256",
    async (secret, body) => ({ "X-Shopify-Hmac-Sha256": await createSHA256HMAC(secret, body) })],
  "standard-webhooks": ["standardwebhooks", "webhook-signature", standardWebhooks],
  gitea: ["crypto", "X-Gitea-Signature", (secret, body) => ({ "X-Gitea-Signature": digest(secret, body, "hex") })],
  line: ["crypto", "X-Line-Signature", (secret, body) => ({ "X-Line-Signature": digest(secret, body, "base64") })],
};
const TIMED = { slack: "X-Slack-Request-Timestamp", stripe: "Stripe-Signature", "standard-webhooks": "webhook-timestamp" };

function post(path, headers, body, chunked) {
  return new Promise((resolve, reject) => {
    const bytes = Buffer.from(body);
    const length = chunked ? { "Transfer-Encoding": "chunked" } : { "Content-Length": bytes.length };
    const options = { host: "127.0.0.1", port, path, method: "POST", headers: { ...length, ...headers }, agent: false, timeout: 10_000 };
    const request = http.request(options, (answer) => {
      const pieces = [];
      answer.on("data", (piece) => pieces.push(piece));
      answer.on("error", reject);
      answer.on("end", () => resolve({ status: answer.statusCode, headers: answer.headers, text: Buffer.concat(pieces).toString() }));
    });
    request.on("timeout", () => request.destroy(new Error("no answer in 10 s")));
    request.on("error", reject);
    request.write(bytes.subarray(0, 9));
    request.end(bytes.subarray(9));
  });
}

let refused;

class Scheme {
  requests = 0;
  failures = [];
  // request ids of refusals, and a word that the log must have
  refusals = [];

  constructor(name) {
    this.name = name;
    [this.by, this.header, this.sign] = SCHEMES[name];
    this.path = `/job/${name}`;
    this.secrets = readFileSync(`${folder}/${name}`, "utf8").trimEnd().split("\n");
  }

  // Sends a POST and checks its answer.
  async expect(status, what, headers, { body = PLAIN, kind = JSON_TYPE, path = "", chunked = false, word = "" } = {}) {
    this.requests += 1;
    try {
      const answer = await post(this.path + path, { "Content-Type": kind, ...await headers }, body, chunked);
      assert(answer.status === status, `expected ${status}, got ${answer.status}: ${answer.text.slice(0, 300)}`);
      if (status === 200) return this.accepted(answer.text, body, kind);
      this.refusals.push([what, answer.headers["x-request-id"], word]);
      assert(answer.headers["www-authenticate"], "401 without WWW-Authenticate");
      refused ??= answer.text;
      assert(answer.text === refused, `the bodies of refusals differ: ${answer.text} and ${refused}`);
    } catch (error) {
      this.failures.push(`${what}: ${error.message}`);
    }
  }

  accepted(text, body, kind) {
    if (this.name === "slack") return assert(text === "", `the answer to Slack has a body: ${text.slice(0, 300)}`);
    const { metadata, spec } = JSON.parse(text);
    const sent = kind === FORM ? FIELDS : JSON.parse(body);
    assert(isDeepStrictEqual(spec.body, sent), `the filter had another body: ${text.slice(0, 300)}`);
    const caller = JSON.parse(metadata.annotations.caller);
    assert(caller?.kind === "webhook" && caller.name === this.path, `the caller is ${metadata.annotations.caller}`);
  }

  async check() {
    const { name, header, secrets: [secret] } = this;
    const now = Math.floor(Date.now() / 1000);
    const right = await this.sign(secret, PLAIN, now);
    const changed = (value) => ({ ...right, [header]: value });

    for (const [index, each] of this.secrets.entries()) {
      for (const [what, body] of Object.entries({ "a plain body": PLAIN, "white space and UTF-8": SPACED, "a large body": LARGE })) {
        await this.expect(200, `${what}, secret ${index + 1}`, this.sign(each, body, now), { body });
      }
    }
    const signedForm = await this.sign(secret, FORM_BODY, now);
    await this.expect(200, "a form", signedForm, { body: FORM_BODY, kind: FORM });
    const signedSpaced = await this.sign(secret, SPACED, now);
    await this.expect(200, "a body in chunks", signedSpaced, { body: SPACED, chunked: true });
    await this.expect(200, "a path below", right, { path: "/below" });

    if (name !== "gitlab") {
      await this.expect(401, "one byte of the body changed", right, { body: PLAIN.replace("main", "mail") });
      await this.expect(401, "a line end added to the body", right, { body: `${PLAIN}\n` });
      await this.expect(401, "the body written anew", signedSpaced, { body: JSON.stringify(JSON.parse(SPACED)) });
      await this.expect(401, "a form with one byte changed", signedForm, { body: FORM_BODY.replace("main", "mail"), kind: FORM });
    }
    const other = OTHER[name] ?? "a secret that is in no file";
    await this.expect(401, "another secret", this.sign(other, PLAIN, now));
    await this.expect(401, "both secrets as one", this.sign(this.both(), PLAIN, now));
    await this.expect(401, "no headers", {});
    await this.expect(401, "no headers, on a path below", {}, { path: "/below" });
    for (const each of Object.keys(right)) {
      const { [each]: _, ...rest } = right;
      await this.expect(401, `without ${each}`, rest, { word: each });
      await this.expect(401, `with an empty ${each}`, { ...right, [each]: "" });
    }
    await this.expect(401, "the signature under another name", { "X-Other": right[header] });
    await this.expect(401, "the secret as a bearer token", { Authorization: `Bearer ${secret.replace("é", "e")}` });
    await this.expect(401, "a signature cut short", changed(right[header].slice(0, -4)));
    // the tenth character from the end, where all bits of base64 count
    const one = right[header].at(-10) === "0" ? "1" : "0";
    await this.expect(401, "a signature with one character changed", changed(right[header].slice(0, -10) + one + right[header].slice(-9)));
    if (name === "gitea" || name === "line") {
      await this.expect(200, "sha256= before the signature", changed(`sha256=${right[header]}`));
    }
    if (name === "standard-webhooks") await this.expect(401, "another id", { ...right, "webhook-id": "msg_2" });
    if (name in TIMED) await this.checkTimes(secret, now, right);
    if (name === "stripe" || name === "standard-webhooks") await this.checkSeveral(secret, other, now, right);
    await this.checkLog();
  }

  both() {
    if (this.name === "gitlab") return this.secrets.join(" ");
    if (this.name !== "standard-webhooks") return this.secrets.join("\n");
    const keys = this.secrets.map((secret) => Buffer.from(secret.slice("whsec_".length), "base64"));
    return `whsec_${Buffer.concat(keys).toString("base64")}`;
  }

  async checkTimes(secret, now, right) {
    for (const [seconds, status] of [[-290, 200], [290, 200], [-301, 401], [301, 401], [-86400, 401]]) {
      // so that the clock does not reach the next second before the dispatcher reads it
      while (Date.now() % 1000 > 500) await sleep(20);
      const at = Math.floor(Date.now() / 1000) + seconds;
      const what = `signed ${Math.abs(seconds)} s ${seconds < 0 ? "ago" : "ahead"}`;
      await this.expect(status, what, this.sign(secret, PLAIN, at));
    }
    const header = TIMED[this.name];
    const changed = (value) => ({ ...right, [header]: right[header].replace(String(now), value) });
    await this.expect(401, "another time than was signed", changed(String(now - 1)));
    await this.expect(401, "a time in words", changed("today"));
  }

  async checkSeveral(secret, other, now, right) {
    let [good, bad, second] = [secret, other, this.secrets[1]].map((each) => this.sign(each, PLAIN, now)[this.header]);
    let join = (...parts) => parts.join(" ");
    let [older, badOlder] = [good, bad].map((value) => value.replace("v1,", "v1a,"));
    if (this.name === "stripe") {
      [older, badOlder] = [secret, other].map((each) => stripeHeader(PLAIN, each, now, "v0"));
      [good, bad, second, older, badOlder] = [good, bad, second, older, badOlder].map((value) => value.split(",")[1]);
      join = (...parts) => [`t=${now}`, ...parts].join(",");
    }
    for (const [status, what, ...parts] of [
      [200, "a wrong signature before a right one", bad, good],
      [200, "a wrong signature after a right one", good, bad],
      [200, "signatures with both secrets", good, second],
      [200, "a wrong one of another version before a right one", badOlder, good],
      [200, "a wrong one of another version after a right one", good, badOlder],
      [401, "two wrong signatures", bad, bad],
      [401, "a right one of another version only", older],
      [401, "a right one of another version and a wrong one", older, bad],
    ]) {
      await this.expect(status, what, { ...right, [this.header]: join(...parts) });
    }
  }

  // The log tells operators what was wrong, which the answers do not.
  async checkLog() {
    const deadline = Date.now() + 5_000;
    let reasons;
    do {
      await sleep(50);
      const lines = readFileSync(log, "utf8").matchAll(new RegExp(` (\\w+) POST .* 401 .* message="webhook ${this.path}: (.+)"`, "g"));
      reasons = new Map([...lines].map(([, id, reason]) => [id, reason]));
    } while (!this.refusals.every(([, id]) => reasons.has(id)) && Date.now() < deadline);
    for (const [what, id, word] of this.refusals) {
      if (!reasons.has(id)) this.failures.push(`${what}: the log has no reason`);
      else if (!reasons.get(id).toLowerCase().includes(word.toLowerCase())) {
        this.failures.push(`${what}: the log does not name ${word}: ${reasons.get(id)}`);
      }
    }
  }
}

setTimeout(() => {
  console.error("not done in two minutes");
  process.exit(1);
}, 120_000).unref();
for (const name of Object.keys(SCHEMES)) {
  const scheme = new Scheme(name);
  await scheme.check();
  const ours = ["crypto", "no signature"].includes(scheme.by);
  const by = ours ? scheme.by : `${scheme.by} ${JSON.parse(readFileSync(`${packages}/${scheme.by}/package.json`)).version}`;
  for (const failure of scheme.failures) console.log(`  ${failure}`);
  const failed = scheme.failures.length > 0;
  if (failed) process.exitCode = 1;
  console.log(`${failed ? "failed" : "passed"}: Node.js, ${name} (${by}), ${scheme.requests} requests`);
}
