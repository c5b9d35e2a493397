//! A scripted API server, for what a real one cannot be made to do. Its responses are recorded from real ones.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What lists and watches of Jobs have in their targets.
const FOLLOWS: [&str; 2] = ["/jobs?", "labelSelector="];

/// What is done with the next request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Code, further header lines (each with its end), body.
    Answer(u16, &'static str, String),
    /// Code and body, after this time.
    Late(Duration, u16, String),
    /// 200 with a Job of the name that the path ends in, and these annotations.
    JobAsAsked(serde_json::Value),
    /// 200 with a Job as the last POST had it.
    JobAsPosted,
    /// 201 without a length: the body ends with the connection.
    Unbounded(String),
    /// 200 with this; the connection stays open, as that of a watch does.
    Stays(String),
    /// 200 with this as a chunk, after which the connection breaks.
    Cut(String),
    /// Closes the connection when the request has been read.
    HangUp,
    /// Sends part of a response, then closes the connection.
    HalfAnswer,
    /// Sends a response in pieces with this pause between them.
    Drip(Duration),
    /// No response; the connection stays open.
    Silence,
}

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) authorization: Option<String>,
    pub(crate) accept_encoding: Option<String>,
    pub(crate) body: String,
}

pub(crate) struct Scripted {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    acts: VecDeque<Act>,
    /// For lists and watches.
    follow_acts: VecDeque<Act>,
    seen: Vec<Seen>,
    followed: Vec<String>,
    /// Connections that are never answered.
    silent: Vec<TcpStream>,
}

impl Scripted {
    /// Answers request by request; when nothing is left to do, with 599, which no test expects.
    pub(crate) fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { acts: acts.into_iter().collect(), ..State::default() }));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                thread::spawn(move || serve(stream, &state));
            }
        });
        Scripted { url, state }
    }

    pub(crate) fn then(&self, act: Act) {
        self.state.lock().unwrap().acts.push_back(act)
    }

    /// For the next list or watch; when nothing is left to do, they are forbidden.
    pub(crate) fn then_follow(&self, act: Act) {
        self.state.lock().unwrap().follow_acts.push_back(act)
    }

    /// The targets of lists and watches.
    pub(crate) fn followed(&self) -> Vec<String> {
        self.state.lock().unwrap().followed.clone()
    }

    /// Except lists and watches.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// Forgets what was to be done, and what was asked for, except lists and watches.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock().unwrap();
        (state.acts, state.seen) = Default::default()
    }

    /// Sends this on the connections that stay open.
    pub(crate) fn say(&self, text: &str) {
        for mut stream in &self.state.lock().unwrap().silent {
            stream.write_all(text.as_bytes()).unwrap()
        }
    }

    /// What was not asked for.
    pub(crate) fn left(&self) -> usize {
        self.state.lock().unwrap().acts.len()
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(seen) = read(&mut reader) {
        let name = seen.target.rsplit('/').next().unwrap_or_default().to_owned();
        let (act, posted) = {
            let mut state = state.lock().unwrap();
            let act = if seen.target.ends_with("/selfsubjectaccessreviews") {
                Act::Answer(201, "", granted(&seen.body))
            } else if FOLLOWS.iter().all(|part| seen.target.contains(part)) {
                state.followed.push(seen.target);
                let forbidden =
                    || Act::Answer(403, "", status(403, "Forbidden", "it is forbidden", serde_json::json!({})));
                state.follow_acts.pop_front().unwrap_or_else(forbidden)
            } else {
                state.seen.push(seen);
                state.acts.pop_front().unwrap_or(Act::Answer(599, "", "nothing is left in the script".into()))
            };
            let posted = state.seen.iter().rfind(|seen| seen.method == "POST").map(|seen| seen.body.clone());
            (act, posted.unwrap_or_default())
        };
        let act = match act {
            Act::Late(time, code, body) => {
                thread::sleep(time);
                Act::Answer(code, "", body)
            }
            Act::JobAsAsked(annotations) => Act::Answer(200, "", job(&name, annotations)),
            Act::JobAsPosted => Act::Answer(200, "", posted),
            act => act,
        };
        let mut stream = &stream;
        match act {
            Act::Late(..) | Act::JobAsAsked(_) | Act::JobAsPosted => unreachable!("they became answers"),
            Act::Answer(code, headers, body) => {
                let answer = format!("HTTP/1.1 {code} X\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            Act::Unbounded(body) => {
                let _ = stream.write_all(format!("HTTP/1.1 201 X\r\nConnection: close\r\n\r\n{body}").as_bytes());
                return;
            }
            Act::Stays(body) => {
                let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}").as_bytes());
                return state.lock().unwrap().silent.push(stream.try_clone().unwrap());
            }
            Act::Cut(body) => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let _ = stream.write_all(format!("{head}{:x}\r\n{body}\r\n", body.len()).as_bytes());
                return;
            }
            Act::HangUp => return,
            Act::HalfAnswer => {
                let _ = stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n{\"kind\":");
                return;
            }
            Act::Drip(pause) => {
                for piece in
                    ["HTTP/1.1 201 Created\r\n", "Content-Length: 100\r\n", "\r\n", "{", "\"", "k", "i", "n", "d"]
                {
                    thread::sleep(pause);
                    if stream.write_all(piece.as_bytes()).is_err() {
                        return;
                    }
                }
                return;
            }
            Act::Silence => return state.lock().unwrap().silent.push(stream.try_clone().unwrap()),
        }
    }
}

/// The next request; None at the end of the connection.
pub(super) fn read(reader: &mut BufReader<impl Read>) -> Option<Seen> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut authorization, mut accept_encoding) = (0, None, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => authorization = Some(value.to_owned()),
            "accept-encoding" => accept_encoding = Some(value.to_owned()),
            _ => (),
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { method, target, authorization, accept_encoding, body: String::from_utf8_lossy(&body).into_owned() })
}

/// A Job as the API server gives it, with our label and these annotations.
pub(crate) fn job(name: &str, annotations: serde_json::Value) -> String {
    serde_json::json!({
        "kind": "Job", "apiVersion": "batch/v1",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "k8s-job-dispatcher"}, "annotations": annotations},
        "spec": {}, "status": {},
    })
    .to_string()
}

/// The answer to a review of access, as a real API server gives it to one who may do everything.
fn granted(review: &str) -> String {
    let mut review: serde_json::Value = serde_json::from_str(review).unwrap();
    review["metadata"] = serde_json::json!({"creationTimestamp": null});
    review["status"] = serde_json::json!({"allowed": true});
    review.to_string()
}

/// A Status object.
pub(crate) fn status(code: u16, reason: &str, message: &str, details: serde_json::Value) -> String {
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "details": details, "code": code,
    })
    .to_string()
}
