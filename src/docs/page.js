// The page behind /docs: lists Jobs, shows one, sends a request, and shows the HTTP interface. Text from outside is only ever set as text.
// What moves is followed by waiting: an open request is answered when a Job has ended, or after some seconds.
"use strict";

// Every address is relative to the page, so that a path prefix of an Ingress survives.
const address = (path) => new URL(path.replace(/^\/+/, ""), document.baseURI);
const element = (id) => document.getElementById(id);
const enabled = document.body.dataset.enabled.split(",");
const MAX_WAIT_S = 20; // also for what a wait does not report, such as that a Job runs now
const AGAIN_MS = 1000; // where waiting is switched off, or fails
const WAITING = 2; // Jobs of the table that are waited for: a browser has six connections
const FIRST_ROWS = 100;
const MORE_ROWS = 500;
const LOG_LINES = 500;
const LOG_AGAIN_MS = 2000;
const MAX_LOG = 1020 * 1024; // bytes; the dispatcher reads a megabyte
const NAME = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

// A new element with text and children.
function make(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function button(text, act) {
  const made = make("button", text);
  made.type = "button";
  made.className = "plain";
  made.addEventListener("click", act);
  return made;
}

// Text of the OpenAPI document, in which backquotes mean code.
function prose(tag, text) {
  return make(tag, "", ...text.split("`").map((part, at) => (at % 2 ? make("code", part) : part)));
}

// Says a text once, so that a screen reader does not repeat it.
function say(id, text) {
  if (element(id).textContent !== text) element(id).textContent = text;
}

function table(columns, rows) {
  const heads = columns.map((column) => {
    const cell = make("th", column);
    cell.scope = "col";
    return cell;
  });
  return make("table", "", make("thead", "", make("tr", "", ...heads)), make("tbody", "", ...rows));
}

const row = (...cells) => make("tr", "", ...cells.map((cell) => make("td", "", cell)));

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

// Message and reason of an error.
function errorOf(text) {
  try {
    const { message, reason } = JSON.parse(text).error;
    return { message, reason };
  } catch {
    return { message: "the reply is not JSON", reason: "" };
  }
}

const date = (text) => new Date(text).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });

// A moment, as what is shown of it, with the date on hover.
function time(text, shown) {
  const made = make("time", shown ?? date(text));
  made.dateTime = text;
  if (shown) made.title = date(text);
  return made;
}

// How long ago, as kubectl has it.
function age(text) {
  const seconds = Math.max(0, (Date.now() - new Date(text)) / 1000);
  for (const [unit, size, next] of [["s", 1, 120], ["m", 60, 7200], ["h", 3600, 172800]]) {
    if (seconds < next) return `${Math.floor(seconds / size)}${unit}`;
  }
  return `${Math.floor(seconds / 86400)}d`;
}

// Its state, with what decided it; and how it is colored.
const stateOf = (job) => job.podReason ?? (job.reason && job.state !== "succeeded" ? `${job.state} (${job.reason})` : job.state);
const BEGINS = /^(ContainerCreating|PodInitializing|Init:\d+\/\d+)$/; // what every pod goes through
const classOf = (job) => `state ${job.podReason && !BEGINS.test(job.podReason) ? "stuck" : job.state}`;
const hasEnded = (job) => job.state === "succeeded" || job.state === "failed";
const jobPath = (id) => `job/${encodeURIComponent(id)}`;

// Throws when the signal is aborted.
function pause(ms, signal) {
  return new Promise((done, failed) => {
    const stop = () => { clearTimeout(timer); failed(signal.reason); };
    const timer = setTimeout(() => { signal.removeEventListener("abort", stop); done(); }, ms);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}

// Until somebody looks at the page: what is hidden holds no connection.
async function visible() {
  while (document.hidden) await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
}

// Calls the dispatcher. Throws what an error says.
async function call(path, options) {
  let answer;
  try {
    answer = await fetch(address(path), { cache: "no-store", ...options });
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new Error("the dispatcher cannot be reached");
  }
  if (answer.ok) return answer;
  const { message, reason } = errorOf(await answer.text());
  throw Object.assign(new Error(`${answer.status}: ${message}`), { code: answer.status, reason });
}

// Gets a Job when it has ended, or after some seconds.
async function waitFor(id, seconds, signal) {
  const begun = performance.now();
  const job = await (await call(`${jobPath(id)}?wait=${seconds}s`, { signal })).json();
  const was = performance.now() - begun;
  if (seconds > 0 && !hasEnded(job) && was < AGAIN_MS / 2) await pause(AGAIN_MS, signal); // waiting is switched off
  return job;
}

const longer = (seconds) => Math.min(Math.max(1, 2 * seconds), MAX_WAIT_S);

// ---- the table of Jobs

let rowsWanted = FIRST_ROWS;
let searched = ""; // as it was sent, not as it is typed
let listing = null; // stops the present one

// What is searched for: a label, or part of a name.
function search() {
  if (!searched) return {};
  return searched.includes("=") ? { label: searched } : { name: searched };
}

async function load(signal) {
  const state = element("state").value;
  const wanted = { ...search(), ...(state && { state }), ...(enabled.includes("pods") && { pods: true }) };
  const jobs = [];
  let page = {};
  let [counts, lacksPods] = [null, false];
  do {
    const limit = Math.min(rowsWanted - jobs.length, MORE_ROWS);
    const query = new URLSearchParams({ limit, ...wanted, ...(page.continue ? { continue: page.continue } : { counts: true }) });
    page = await (await call(`job?${query}`, { signal })).json();
    counts ??= page.counts;
    lacksPods ||= Boolean(page.podsUnavailable);
    jobs.push(...page.items);
  } while (page.continue && jobs.length < rowsWanted);
  const before = [...element("rows").rows];
  const known = new Map(before.map((line) => [line.dataset.id, line]));
  const lines = jobs.map((job) => {
    const line = known.get(job.id) ?? lineOf(job.id);
    const [cell, , created] = line.cells;
    if (cell.textContent !== stateOf(job)) cell.textContent = stateOf(job);
    cell.className = classOf(job);
    if (job.created) created.replaceChildren(time(job.created, age(job.created)));
    return line;
  });
  if (lines.length !== before.length || lines.some((line, at) => line !== before[at])) {
    const focused = before.findIndex((line) => line.contains(document.activeElement));
    element("rows").replaceChildren(...lines);
    // the same Job, or the one in its place
    const next = lines.includes(before[focused]) ? before[focused] : lines[Math.min(focused, lines.length - 1)];
    if (focused >= 0) (next?.querySelector("a") ?? element("search")).focus({ preventScroll: true });
  }
  mark();
  if (document.activeElement === element("more") && !page.continue) element("search").focus({ preventScroll: true });
  element("more").hidden = !page.continue;
  const all = Object.entries(counts ?? {}).filter(([, number]) => number);
  element("counts").replaceChildren(...all.map(([state, number]) => {
    const item = make("li", `${number} ${state}`);
    item.className = `state ${state}`;
    return item;
  }));
  element("jobs").classList.remove("stale");
  const some = `${page.truncated ? "; older ones that have ended are left out" : ""}${lacksPods ? "; the pods cannot be read at the moment" : ""}`;
  const isAll = !state && !searched;
  const none = isAll ? "There are no Jobs yet." : "No Job matches.";
  const number = `${jobs.length} ${jobs.length === 1 ? "Job" : "Jobs"}${page.continue ? ", and there are more" : ""}${some}`;
  say("list-status", jobs.length || page.continue ? number : none);
  element("list-time").textContent = `At ${new Date().toLocaleTimeString()}`;
  return jobs;
}

function lineOf(id) {
  const link = make("a", id);
  link.href = `#${id}`;
  link.title = id;
  // in place of the present entry of the history, so that Back leaves the page
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    history.replaceState(null, "", link.hash);
    showAddressed();
  });
  const line = row("", link, "");
  line.dataset.id = id;
  return line;
}

// Marks the row of the Job that is shown.
function mark() {
  for (const line of element("rows").rows) {
    if (line.dataset.id === shown?.id) line.setAttribute("aria-current", "true");
    else line.removeAttribute("aria-current");
  }
}

// Loads the table, and again whenever one of its Jobs has ended, or after some seconds.
async function list() {
  if (!enabled.includes("list")) return;
  listing?.abort();
  const { signal } = listing = new AbortController();
  let [wait, failures] = [1, 0];
  while (!signal.aborted) {
    try {
      await visible();
      const moving = (await load(signal)).filter((job) => !hasEnded(job));
      failures = 0;
      // those first that may end soon
      const isSlow = (job) => job.state === "suspended" || job.state === "deleting";
      const first = [...moving.filter((job) => !isSlow(job)), ...moving.filter(isSlow)].slice(0, WAITING);
      if (first.length) await firstOf(first, wait, signal);
      else await pause(AGAIN_MS * MAX_WAIT_S, signal); // others may make new ones
      wait = longer(wait);
      await pause(AGAIN_MS * Math.ceil(rowsWanted / MORE_ROWS), signal); // Jobs often end together
    } catch (error) {
      if (signal.aborted) return;
      element("jobs").classList.add("stale");
      const isOld = element("rows").rows.length ? " What is shown is older." : "";
      const why = error.reason === "ServiceUnavailable" ? "The API server does not answer, or its watch was interrupted. " : "";
      say("list-status", `${why}The Jobs cannot be listed: ${error.message}.${isOld}`);
      await pause(AGAIN_MS * Math.min(2 ** failures++, MAX_WAIT_S), signal).catch(() => {});
    }
  }
}

// Until one of these Jobs has ended or is gone, or the time is over, also if they cannot be waited for.
async function firstOf(jobs, seconds, signal) {
  const waits = new AbortController();
  const stop = () => waits.abort();
  signal.addEventListener("abort", stop);
  const all = jobs.map((job) => waitFor(job.id, seconds, waits.signal)
    .catch((error) => error.code !== 404 && pause(AGAIN_MS * seconds, waits.signal))
    .catch(() => {}));
  await Promise.race(all);
  stop();
  signal.removeEventListener("abort", stop);
}

// ---- one Job

let shown = null; // {id, stop, log, isKnown, hasEnded}

function showAddressed() {
  let id = location.hash.slice(1);
  try { id = decodeURIComponent(id); } catch { return; }
  if (!id) return close();
  show(id);
  element("job-title").focus({ preventScroll: true });
  element("job-title").scrollIntoView({ block: "nearest" });
}

// Until another is shown.
async function show(id) {
  close();
  element("name").value = id;
  if (!NAME.test(id)) return say("job", `${id} is not a valid Job name.`);
  const me = shown = { id, stop: new AbortController(), log: null, isKnown: false, hasEnded: false };
  mark();
  say("job", "Loading…");
  element("delete").hidden = true;
  follow(me);
}

// `isDeleted`: it is asked for more often. Loads the table when the Job has ended, or is gone.
async function follow(me, isDeleted = false) {
  const { id, stop: { signal } } = me;
  let [wait, failures, moved] = [0, 0, false];
  while (!signal.aborted) {
    try {
      await visible();
      const job = await waitFor(id, wait, signal);
      if (signal.aborted) return;
      failures = 0;
      wait = longer(wait);
      me.isKnown = true;
      me.hasEnded = hasEnded(job);
      render(job);
      if (!hasEnded(job)) { moved = true; continue; }
      if (moved) list();
      moved = false;
      await pause(AGAIN_MS * (isDeleted ? wait : MAX_WAIT_S), signal); // until it is gone
    } catch (error) {
      if (signal.aborted) return;
      if (error.code === 404) {
        const wasKnown = me.isKnown;
        close();
        say("job", wasKnown ? `${id} is gone.` : `There is no Job ${id}.`);
        if (wasKnown) list();
        return;
      }
      if (wait === 0) say("job", `${id} cannot be seen: ${error.message}${me.isKnown ? ". What is shown is older." : ""}`);
      wait = 0; // it may only be the waiting that fails
      await pause(AGAIN_MS * Math.min(2 ** failures++, MAX_WAIT_S), signal).catch(() => {});
    }
  }
}

function render(job) {
  const old = job.stateAge ? `, as it was ${job.stateAge} s ago; the API server does not answer` : "";
  say("job", `${job.id}: ${job.state}${job.reason ? ` (${job.reason})` : ""}${old}`);
  element("view").hidden = false;
  element("delete").hidden = !enabled.includes("delete");
  const times = [["Created", job.created], ["Started", job.started], ["Finished", job.finished]];
  const facts = [["Message", job.message], ...times.map(([name, moment]) => [name, moment && time(moment)])];
  element("facts").replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", name), make("dd", "", value)]));
  element("status").textContent = JSON.stringify(job.status, null, 2);
  const before = document.activeElement;
  element("show-log").hidden = !enabled.includes("logs") || Boolean(job.pods?.length);
  const log = before === element("show-log") ? "" : before.closest("#pods button")?.dataset.log;
  element("pods").replaceChildren(...(job.pods ?? []).flatMap(podView));
  if (job.podsTruncated) element("pods").append(make("p", "There are more pods than are shown."));
  if (job.podsUnavailable) element("pods").append(make("p", "The pods cannot be read at the moment."));
  const buttons = [...element("pods").querySelectorAll("button")];
  if (log !== undefined && !before.checkVisibility()) {
    (buttons.find((one) => one.dataset.log === log) ?? buttons[0] ?? element("close")).focus({ preventScroll: true });
  }
}

function podView(pod) {
  const title = `${pod.name}: ${pod.phase}${pod.reason ? ` (${pod.reason})` : ""}`;
  const lines = pod.containers.map((container) => {
    const kind = container.sidecar ? "sidecar" : container.init ? "init" : "";
    const name = kind ? `${container.name} (${kind})` : container.name;
    const parts = [container.state, ["exit code", container.exitCode], ["signal", container.signal], ["restarts", container.restarts]];
    const state = parts.map((part) => [part].flat()).filter((part) => part.at(-1) !== undefined).map((part) => part.join(" ")).join(", ");
    const why = [container.reason, container.message].filter(Boolean).join(": ");
    const line = row(name, state, why);
    if (enabled.includes("logs")) {
      const log = new URLSearchParams({ pod: pod.name, container: container.name }).toString();
      const title = `Log of ${container.name} in ${pod.name}`;
      const open = button("Log", () => chooseLog(log, title));
      open.dataset.log = log;
      open.setAttribute("aria-label", title);
      line.append(make("td", "", open));
    }
    return line;
  });
  const columns = ["Name", "State", "Reason"].concat(enabled.includes("logs") ? ["Log"] : []);
  return [make("h3", title), pod.message && make("p", pod.message), table(columns, lines)].filter(Boolean);
}

// Shows a log, and again as long as its Job runs.
async function chooseLog(query, title) {
  const me = shown;
  if (!me) return;
  const { signal } = me.stop;
  const isChosen = me.log = { query, lines: LOG_LINES };
  for (const id of ["log", "log-status"]) element(id).textContent = "";
  element("log").hidden = true;
  element("log").setAttribute("aria-label", title);
  element("log-title").textContent = title;
  try {
    for (let [isLast, failures] = [false, 0]; !isLast;) {
      const ended = me.hasEnded;
      const isRead = await showLog(me, signal);
      if (signal.aborted || me.log !== isChosen) return;
      failures = isRead ? 0 : failures + 1;
      isLast = ended && (isRead || failures > 3); // what it wrote at its end is read too
      if (!isLast) await pause(LOG_AGAIN_MS * 2 ** Math.min(failures, 4), signal);
      await visible();
    }
  } catch { /* another Job is looked at */ }
}

// What could be read before stays if it cannot be read again. Returns whether it could.
async function showLog(me, signal) {
  const { query, lines } = me.log;
  const log = element("log");
  let [text, problem] = [null, ""];
  try {
    // one line more, to know whether there are more
    const answer = await call(`${jobPath(me.id)}/log?tail=${lines + 1}&${query}`, { signal });
    text = await answer.text();
    if (!text) problem = "The log is empty.";
  } catch (error) {
    problem = `${log.textContent ? "The log cannot be read again" : "There is no log"}: ${error.message}`;
  }
  if (signal.aborted || me.log?.query !== query) return false;
  if (text === null) {
    say("log-status", problem);
    return false;
  }
  // of a longer one the dispatcher has only the beginning, and the end is wanted
  if (lines > 1 && new Blob([text]).size >= MAX_LOG) {
    me.log.lines = Math.floor(lines / 4) || 1;
    return showLog(me, signal);
  }
  const all = text.split("\n");
  const isCut = all.length - (text.endsWith("\n") ? 1 : 0) > lines;
  if (isCut) {
    problem = `The last ${lines === 1 ? "line" : `${lines} lines`}; those before are left out.`;
    text = all.slice(1).join("\n");
  }
  say("log-status", problem);
  const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 1;
  log.hidden = false;
  if (log.textContent !== text) log.textContent = text;
  if (isAtEnd) log.scrollTop = log.scrollHeight;
  return true;
}

// Nothing of the Job remains.
function close() {
  if (element("view").contains(document.activeElement)) element("name").focus({ preventScroll: true });
  shown?.stop.abort();
  shown = null;
  mark();
  for (const id of ["job", "log", "log-title", "log-status", "delete-problem", "status"]) element(id).textContent = "";
  for (const id of ["facts", "pods"]) element(id).replaceChildren();
  for (const id of ["view", "log"]) element(id).hidden = true;
}

// Back to the list, or to the search for a Job.
function leave() {
  const link = [...element("rows").rows].find((line) => line.dataset.id === shown?.id)?.querySelector("a");
  history.replaceState(null, "", location.pathname);
  close();
  (link ?? element("name")).focus();
}

async function remove() {
  const me = shown;
  if (!me) return;
  const question = element("question");
  element("question-text").textContent = `Delete ${me.id} and its pods?`;
  element("delete-problem").textContent = "";
  question.returnValue = "keep";
  question.showModal();
  await new Promise((closed) => question.addEventListener("close", closed, { once: true }));
  if (question.returnValue !== "delete") return;
  let problem = "";
  try {
    const answer = await (await call(jobPath(me.id), { method: "DELETE" })).json();
    if (answer.dryRun) problem = `This is a dry run: ${me.id} was not deleted.`;
  } catch (error) {
    problem = `${me.id} cannot be deleted: ${error.message}`;
  }
  element("delete-problem").textContent = problem; // whatever is looked at now: it has the name
  if (problem) return;
  list();
  setTimeout(list, 2 * AGAIN_MS); // one that had ended does not move
  if (shown !== me) return;
  say("job", `${me.id} is being deleted.`);
  me.stop.abort();
  me.stop = new AbortController();
  follow(me, true);
}

// ---- a request

// What the last request was, in this tab only: it may hold secrets.
const KEPT = ["path", "headers", "body"];

function keep() {
  try { sessionStorage.setItem("request", JSON.stringify(KEPT.map((id) => element(id).value))); } catch { /* it is not kept */ }
}

function recall() {
  try {
    const kept = JSON.parse(sessionStorage.getItem("request"));
    kept?.forEach((text, at) => { element(KEPT[at]).value = text; });
  } catch { /* there is none */ }
}

// Throws for a line that is no header.
function headers() {
  const all = new Headers();
  for (const line of element("headers").value.split("\n").filter((line) => line.trim())) {
    const colon = line.indexOf(":");
    if (colon < 1) throw new Error(`"${line}" is not a header: the form is Name: value`);
    all.append(line.slice(0, colon).trim(), line.slice(colon + 1).trim());
  }
  if (element("body").value.trim() && !all.has("Content-Type")) all.set("Content-Type", "application/json");
  return all;
}

// What an error says of the Job.
function outcomeOf(answer, text) {
  const { message, reason } = errorOf(text);
  const isUnknown = (answer.status >= 502 && answer.status <= 504) || reason === "InternalError";
  return `. ${isUnknown ? "It is not known whether a Job was created" : "No Job was created"}: ${message}`;
}

async function send(event) {
  event.preventDefault();
  if (isSending()) return;
  for (const id of ["problem", "code", "answer"]) element(id).textContent = "";
  element("answer").hidden = true;
  const path = element("path").value.trim();
  const body = element("body").value;
  let sent;
  try {
    sent = headers();
    if (!/^\/job(\/|\?|$)/.test(path)) throw new Error("The path must begin with /job");
    if (body.trim()) JSON.parse(body);
  } catch (error) {
    element("problem").textContent = error.message;
    return;
  }
  keep();
  sending(true);
  say("code", "Sending…");
  try {
    const answer = await fetch(address(path), { method: "POST", headers: sent, body: body.trim() ? body : undefined });
    const text = await answer.text();
    const created = answer.ok && text ? JSON.parse(text) : {};
    let outcome = "";
    if (answer.status === 204) outcome = ". The filter has no output for this request; no Job was created.";
    else if (!answer.ok) outcome = outcomeOf(answer, text);
    else if (created.dryRun || !created.id) outcome = ". A dry run creates no Job.";
    element("code").textContent = `Reply: ${answer.status} ${answer.statusText}${outcome}`;
    element("answer").hidden = false;
    element("answer").textContent = pretty(text);
    element("answer").scrollIntoView({ block: "nearest" });
    if (!outcome) {
      history.replaceState(null, "", `#${created.id}`);
      show(created.id);
      list();
    }
  } catch (error) {
    element("code").textContent = "";
    element("problem").textContent = `The dispatcher did not answer; it is not known whether a Job was created: ${error.message}`;
  } finally {
    sending(false);
  }
}

// The button keeps its focus, which it would lose if it were disabled.
const isSending = () => element("send").getAttribute("aria-disabled") === "true";
const sending = (now) => element("send").setAttribute("aria-disabled", String(now));

// ---- the HTTP interface

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
      element("operations").append(make("details", "", title, prose("p", operation.description || ""), table(["Code", "Meaning"], rows)));
    }
  }
}

element("request").addEventListener("submit", send);
element("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = element("name").value.trim();
  if (!id) return close();
  history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  show(id);
});
element("close").addEventListener("click", leave);
element("one").addEventListener("keydown", (event) => { if (event.key === "Escape" && shown) leave(); });
element("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is that of a Job
  element("path").focus();
});
element("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = element("search").value.trim();
  if (text !== searched) [searched, rowsWanted] = [text, FIRST_ROWS];
  list();
});
element("delete").addEventListener("click", remove);
element("show-log").addEventListener("click", () => chooseLog("", "Log"));
element("state").addEventListener("change", () => { rowsWanted = FIRST_ROWS; list(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) list(); });
element("more").addEventListener("click", () => { rowsWanted += MORE_ROWS; list(); });
addEventListener("hashchange", showAddressed);
recall();
element("jobs").hidden = !enabled.includes("list");
list();
if (location.hash) showAddressed();
showContract().catch((error) => element("operations").append(make("p", `Cannot show the interface: ${error.message}`)));
