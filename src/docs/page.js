// The page behind /docs: shows the HTTP interface, sends a request, and follows its Job. Text from outside is only ever set as text.
"use strict";

// Every address is relative to the page, so that a path prefix of an Ingress survives.
const address = (path) => new URL(path.replace(/^\/+/, ""), document.baseURI);
const element = (id) => document.getElementById(id);
const POLL_MS = 1000; // each poll calls the API server
const MAX_FAILURES = 5; // failed polls in a row

let following = null;

// A new element with text and children.
function make(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

// Text of the OpenAPI document, in which backquotes mean code.
function prose(tag, text) {
  return make(tag, "", ...text.split("`").map((part, at) => (at % 2 ? make("code", part) : part)));
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

async function showContract() {
  const contract = await (await fetch(address("openapi.json"))).json();
  const resolve = (thing) => thing.$ref
    ? thing.$ref.slice(2).split("/").reduce((found, key) => found[key.replaceAll("~1", "/").replaceAll("~0", "~")], contract)
    : thing;
  for (const [path, item] of Object.entries(contract.paths)) {
    for (const [method, operation] of Object.entries(item).filter(([key]) => key !== "parameters")) {
      const title = make("summary");
      const word = make("span", method.toUpperCase());
      word.className = "method";
      title.append(word, " ", make("code", path), ` ${operation.summary}`);
      const rows = Object.entries(operation.responses).map(([code, response]) =>
        make("tr", "", make("td", code), prose("td", resolve(response).description)));
      const head = make("thead", "", make("tr", "", scoped("Code"), scoped("Meaning")));
      const table = make("table", "", head, make("tbody", "", ...rows));
      element("operations").append(make("details", "", title, prose("p", operation.description || ""), table));
    }
  }
}

function scoped(text) {
  const cell = make("th", text);
  cell.scope = "col";
  return cell;
}

async function send(event) {
  event.preventDefault();
  if (isSending()) return;
  stop();
  element("problem").textContent = "";
  const path = element("path").value.trim();
  const body = element("body").value;
  try {
    if (!/^\/job(\/|\?|$)/.test(path)) throw new Error("The path must begin with /job");
    JSON.parse(body);
  } catch (error) {
    element("problem").textContent = error.message;
    return;
  }
  sending(true);
  try {
    const answer = await fetch(address(path), { method: "POST", headers: { "Content-Type": "application/json" }, body });
    const text = await answer.text();
    element("code").textContent = `Reply: ${answer.status} ${answer.statusText}`;
    element("answer").hidden = false;
    element("answer").textContent = pretty(text);
    element("status").hidden = true;
    const created = answer.ok && text ? JSON.parse(text) : {};
    if (created.id && !created.dryRun) follow(created.id);
    else if (answer.status === 204) element("job").textContent = "The filter has no output for this request; no Job was created.";
    else element("job").textContent = answer.ok ? "A dry run creates no Job." : `No Job was created: ${messageOf(text)}`;
  } catch (error) {
    element("problem").textContent = `Cannot reach the dispatcher: ${error.message}`;
  } finally {
    sending(false);
  }
}

// The button keeps its focus, which it would lose if it were disabled.
const isSending = () => element("send").getAttribute("aria-disabled") === "true";
const sending = (now) => element("send").setAttribute("aria-disabled", String(now));

function messageOf(text) {
  try { return JSON.parse(text).error.message; } catch { return "the reply is not JSON"; }
}

function stop() {
  if (following) clearTimeout(following.timer);
  following = null;
  if (document.activeElement === element("stop")) element("send").focus();
  element("stop").hidden = true;
}

// Polls the Job until it has ended.
function follow(id) {
  const me = following = { timer: 0, failed: 0 };
  element("stop").hidden = false;
  const say = (text) => { if (element("job").textContent !== text) element("job").textContent = text; };
  const look = async () => {
    let ended = false;
    try {
      const answer = await fetch(address(`job/${encodeURIComponent(id)}`));
      const text = await answer.json();
      if (following !== me) return;
      if (answer.ok) {
        me.failed = 0;
        element("status").hidden = false;
        element("status").textContent = JSON.stringify(text.status, null, 2);
        ended = text.state === "succeeded" || text.state === "failed";
        say(`${id}: ${text.state}${text.reason ? ` (${text.reason})` : ""}`);
      } else if (answer.status === 404) {
        ended = true;
        say(`${id} is gone.`);
      } else throw new Error(text.error.message);
    } catch (error) {
      if (following !== me) return;
      say(`${id} cannot be seen: ${error.message}`);
      ended = ++me.failed >= MAX_FAILURES;
    }
    if (ended) stop();
    else me.timer = setTimeout(look, POLL_MS);
  };
  look();
}

element("request").addEventListener("submit", send);
element("stop").addEventListener("click", stop);
showContract().catch((error) => element("operations").append(make("p", `Cannot show the interface: ${error.message}`)));
