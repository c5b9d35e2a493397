//! Callers of the dispatcher, which keep every answer.

use super::super::super::http::{JSON, Reply, request};
use super::super::super::kubelet::ends;
use super::super::super::load::{Client, Rng};
use super::check::{Answer, Ask, Says};
use super::history::Time;
use super::{REPLICAS, Shared};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::{self, Scope};
use std::time::Duration;

/// They ask, and pause.
const READERS: usize = 24;
/// They wait, and pause.
const WAITERS: usize = 20;
/// On average.
const PAUSE: Duration = Duration::from_millis(350);
/// The longest wait.
const WAIT_SECONDS: usize = 9;
/// Of how many names callers ask for one: the newest, which change; and those that have changed while a watch was silent.
const NEWEST: usize = 30;
const NEWER: usize = 100;
const STATES: [&str; 4] = ["&state=running", "&state=succeeded", "&state=suspended", "&state=deleting"];
/// Characters of an answer that are kept.
const TEXT: usize = 300;

static LISTS: AtomicUsize = AtomicUsize::new(0);
static POSTS: AtomicUsize = AtomicUsize::new(0);

pub(super) struct Callers<'c> {
    pub(super) shared: &'c Shared,
    pub(super) addresses: [SocketAddr; REPLICAS],
    pub(super) seed: u64,
}

/// One of them.
struct Caller<'c> {
    shared: &'c Shared,
    clients: [Client; REPLICAS],
    rng: Rng,
}

/// What is sent.
struct Question<'q> {
    ask: Ask,
    name: &'q str,
    wait: Option<Time>,
    replica: usize,
    method: &'static str,
    target: String,
    headers: String,
    body: String,
}

impl Callers<'_> {
    pub(super) fn start<'s>(&'s self, scope: &'s Scope<'s, '_>) {
        for number in 0..READERS + WAITERS {
            let mut caller = Caller {
                shared: self.shared,
                clients: self.addresses.map(Client::new),
                rng: Rng::new(self.seed.wrapping_add(1_000 + number as u64)),
            };
            scope.spawn(move || {
                while !self.shared.is_over.load(Relaxed) {
                    if number < READERS {
                        caller.read()
                    } else {
                        caller.wait()
                    }
                    let pause = caller.rng.below(2 * PAUSE.as_millis() as usize);
                    thread::sleep(Duration::from_millis(pause as u64))
                }
            });
        }
    }
}

impl Caller<'_> {
    fn read(&mut self) {
        match self.rng.below(100) {
            0..6 => self.list(),
            6..10 => self.delete(),
            10..16 => self.post(None),
            _ => {
                let name = self.name();
                self.get(&name, None)
            }
        }
    }

    fn wait(&mut self) {
        let wait = Some(1_000 * (1 + self.rng.below(WAIT_SECONDS)) as Time);
        match self.rng.below(3) {
            0 => self.post(wait),
            _ => {
                let name = self.name();
                self.get(&name, wait)
            }
        }
    }

    /// Of a Job, mostly of a new one.
    fn name(&mut self) -> String {
        let names = self.shared.names.lock().unwrap();
        let most = match self.rng.below(4) {
            0 => names.len(),
            1 => names.len().min(NEWEST),
            _ => names.len().min(NEWER),
        };
        names[names.len() - 1 - self.rng.below(most)].clone()
    }

    fn get(&mut self, name: &str, wait: Option<Time>) {
        let seconds = wait.unwrap_or(0) / 1000;
        let (query, headers) = match wait {
            None => (String::new(), String::new()),
            Some(_) if self.rng.below(2) == 0 => (format!("?wait={seconds}s"), String::new()),
            Some(_) => (String::new(), format!("Prefer: wait={seconds}\r\n")),
        };
        let target = format!("/job/{name}{query}");
        let replica = self.rng.below(REPLICAS);
        self.ask(Question { ask: Ask::Get, name, wait, replica, method: "GET", target, headers, body: String::new() });
    }

    fn delete(&mut self) {
        let name = self.name();
        // those that stay are for the lists
        if name.starts_with("kept-") {
            return;
        }
        let (target, replica) = (format!("/job/{name}"), self.rng.below(REPLICAS));
        let (headers, body) = (String::new(), String::new());
        self.ask(Question {
            ask: Ask::Delete,
            name: &name,
            wait: None,
            replica,
            method: "DELETE",
            target,
            headers,
            body,
        });
    }

    fn post(&mut self, wait: Option<Time>) {
        // some repeat what was sent before
        let number = match self.rng.below(4) {
            0 => POSTS.load(Relaxed).saturating_sub(1 + self.rng.below(NEWEST)),
            _ => POSTS.fetch_add(1, Relaxed),
        };
        let name = format!("job-{number}");
        let prefer = wait.map(|wait| format!("Prefer: wait={}\r\n", wait / 1000)).unwrap_or_default();
        let (headers, body) = (format!("{JSON}{prefer}"), manifest(&name, number).to_string());
        let (target, replica) = ("/job".to_owned(), self.rng.below(REPLICAS));
        self.remember(&name);
        self.ask(Question { ask: Ask::Post, name: &name, wait, replica, method: "POST", target, headers, body });
    }

    fn remember(&self, name: &str) {
        let mut names = self.shared.names.lock().unwrap();
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned())
        }
    }

    /// All pages, all from one replica or from both.
    fn list(&mut self) {
        let (list, limit) = (LISTS.fetch_add(1, Relaxed), 10 + self.rng.below(190));
        let (replica, is_one) = (self.rng.below(REPLICAS), self.rng.below(2) == 0);
        let state = match self.rng.below(4) {
            0 => STATES[self.rng.below(STATES.len())],
            _ => "",
        };
        let query = format!("/job?limit={limit}{state}");
        let mut target = query.clone();
        loop {
            let replica = if is_one { replica } else { self.rng.below(REPLICAS) };
            let (headers, body) = (String::new(), String::new());
            let ask = Ask::Page(list);
            let reply = self.ask(Question { ask, name: "", wait: None, replica, method: "GET", target, headers, body });
            let Some(reply) = reply.filter(|reply| reply.code == 200) else { return };
            match reply.json()["continue"].as_str() {
                Some(token) => target = format!("{query}&continue={token}"),
                None => return,
            }
        }
    }

    /// Asks, and keeps the answer.
    fn ask(&mut self, question: Question) -> Option<Reply> {
        let Question { ask, name, wait, replica, method, target, headers, body } = question;
        let text = request(method, &target, &headers, &body);
        let sent = self.shared.clock.now();
        let reply = self.clients[replica].ask(text.as_bytes());
        let answered = self.shared.clock.now();
        let what = match (&ask, wait) {
            (Ask::Page(_), _) => "page".to_owned(),
            (_, Some(_)) => format!("{method} with wait"),
            _ => method.to_owned(),
        };
        let code = match &reply {
            Ok(reply) => reply.code.to_string(),
            Err(why) => (*why).to_owned(),
        };
        self.shared.count(format!("{what} {code}"));
        let said = reply.as_ref().map(|reply| String::from_utf8_lossy(&reply.body).into_owned()).unwrap_or_default();
        let prefer = headers.replace(JSON, "").replace("\r\n", " ");
        let said: String = said.chars().take(TEXT).collect();
        let answer = Answer {
            name: name.to_owned(),
            wait,
            replica,
            sent,
            answered,
            says: reply.as_ref().map_or(Says::Nothing, |reply| says(&ask, name, &target, reply)),
            is_cut_short: reply.as_ref().is_ok_and(|reply| is_cut_short(&ask, wait, reply)),
            text: format!("{method} {target} {prefer}gave {code} {said}"),
            ask,
        };
        if let Says::State(_, Some(_)) = answer.says {
            self.shared.count("answers with stateAge")
        }
        self.shared.answers.lock().unwrap().push(answer);
        reply.ok()
    }
}

/// A POST is answered at once when too many wait.
fn is_cut_short(ask: &Ask, wait: Option<Time>, reply: &Reply) -> bool {
    let is_granted = reply.header("Preference-Applied").is_some();
    reply.header("Retry-After").is_some() || *ask == Ask::Post && wait.is_some() && !is_granted
}

fn says(ask: &Ask, name: &str, target: &str, reply: &Reply) -> Says {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match (reply.code, ask) {
        (404, Ask::Get | Ask::Delete) => Says::NoSuchJob,
        (200, Ask::Page(_)) => {
            let page = reply.json();
            let jobs = page["items"].as_array().into_iter().flatten();
            let jobs = jobs.map(|job| (text(&job["id"]), text(&job["state"]))).collect();
            Says::Jobs(jobs, page["continue"].is_null() && !target.contains("state="))
        }
        (200..=202, _) => {
            let job = reply.json();
            let is_whole = job["status"].is_null() && job["message"].is_string();
            match job["state"].as_str() {
                _ if job["id"] != name => Says::State(format!("another Job: {}", job["id"]), None),
                Some(state) => Says::State(state.to_owned(), job["stateAge"].as_u64()),
                None if *ask == Ask::Post && is_whole => Says::NoState,
                None => Says::State("none, or no message".to_owned(), None),
            }
        }
        _ => Says::Nothing,
    }
}

/// The manifest of this number: the same each time.
fn manifest(name: &str, number: usize) -> Value {
    let rng = &mut Rng::new(number as u64);
    let milliseconds = |least: usize, rng: &mut Rng| Duration::from_millis((least + rng.below(4 * least)) as u64);
    let (annotations, more) = match rng.below(6) {
        0 => (ends(milliseconds(500, rng), 0, "the end"), json!({"ttlSecondsAfterFinished": 1 + rng.below(4)})),
        1 | 2 => (ends(milliseconds(1_000, rng), 0, "the end"), json!({})),
        3 => (ends(milliseconds(500, rng), 1, "a failure"), json!({"ttlSecondsAfterFinished": 20})),
        4 => (ends(milliseconds(8_000, rng), 0, "the end"), json!({})),
        _ => (json!({}), json!({"suspend": true})),
    };
    let mut spec = json!({
        "backoffLimit": 0,
        "template": {
            "metadata": {"annotations": annotations},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "job", "image": "busybox"}]},
        },
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec})
}
