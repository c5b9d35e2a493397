//! A proxy in front of an API server that ends TLS, and answers lists and watches of Jobs as a real API server does in trouble.

use super::super::super::api::Api;
use super::super::super::certificates::Authority;
use super::super::super::webhook::tls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

type ToClient = BufReader<StreamOwned<ServerConnection, TcpStream>>;
type ToServer = BufReader<StreamOwned<ClientConnection, TcpStream>>;

/// What the front answers to lists and watches of Jobs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mood {
    /// What the API server answers.
    Quiet,
    Gone,
    Busy,
    Slow,
    /// As `Slow`, but only to watches that begin with all Jobs.
    SlowAtFirst,
}

/// Answers of a real API server.
struct Recorded {
    /// The event that ends a watch.
    gone: String,
    gone_status: String,
    slow: String,
}

pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    /// The authority that has signed its certificate.
    pub(crate) pem: String,
    state: Arc<State>,
}

struct State {
    target: SocketAddr,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    mood: Mutex<Mood>,
    recorded: Recorded,
    injected: AtomicUsize,
}

impl Recorded {
    /// Asks an API server for a version that is too old, and for one that is yet to come.
    fn new(admin: &Api, jobs: &str) -> Self {
        let mut event = Value::Null;
        admin.watch(&format!("{jobs}?watch=1&timeoutSeconds=1&resourceVersion=1"), |one| event = one);
        assert_eq!(event["object"]["code"], 410, "the API server gave {event} for a version that is too old");
        let path = format!("{jobs}?resourceVersion=999999999999&resourceVersionMatch=NotOlderThan");
        let (code, slow) = admin.call("GET", &path, None);
        assert_eq!(code, 504, "the API server gave {slow} for a version that is yet to come");
        Recorded { gone_status: event["object"].to_string(), gone: event.to_string(), slow: slow.to_string() }
    }
}

impl Front {
    /// In front of the API server at `target`, whose certificate is signed by `ca_pem`. `admin`: of this API server, which knows no versions
    /// from before its start.
    pub(crate) fn start(target: SocketAddr, ca_pem: &str, admin: &Api, jobs: &str) -> Self {
        let authority = Authority::new("front");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let state = Arc::new(State {
            target,
            server: Arc::new(tls(&authority)),
            client: Arc::new(client.with_root_certificates(roots).with_no_client_auth()),
            mood: Mutex::new(Mood::Quiet),
            recorded: Recorded::new(admin, jobs),
            injected: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                thread::spawn(move || state.serve(stream));
            }
        });
        Front { address, pem: authority.pem, state }
    }

    pub(crate) fn be(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood
    }

    /// How many answers were its own.
    pub(crate) fn injected(&self) -> usize {
        self.state.injected.load(Relaxed)
    }
}

impl State {
    /// One request after the other; both sides are closed at the end.
    fn serve(&self, client: TcpStream) -> Option<()> {
        let connection = ServerConnection::new(self.server.clone()).ok()?;
        client.set_nodelay(true).ok()?;
        let mut client = BufReader::new(StreamOwned::new(connection, client));
        let mut server: Option<ToServer> = None;
        loop {
            let (first, head, length) = head(&mut client)?;
            let mut body = vec![0; length];
            client.read_exact(&mut body).ok()?;
            if let Some(answer) = self.own(&first) {
                self.injected.fetch_add(1, Relaxed);
                client.get_mut().write_all(answer.as_bytes()).ok()?;
                client.get_mut().flush().ok()?;
                continue;
            }
            let server = match &mut server {
                Some(server) => server,
                none => none.insert(self.connect()?),
            };
            server.get_mut().write_all(&[head.as_bytes(), &body].concat()).ok()?;
            server.get_mut().flush().ok()?;
            pass(server, &mut client)?
        }
    }

    fn connect(&self) -> Option<ToServer> {
        let stream = TcpStream::connect(self.target).ok()?;
        stream.set_nodelay(true).ok()?;
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(self.client.clone(), name).ok()?;
        Some(BufReader::new(StreamOwned::new(connection, stream)))
    }

    /// The answer to a list or watch of Jobs, if it is not that of the API server. `first`: the first line of the request.
    fn own(&self, first: &str) -> Option<String> {
        let target = first.strip_prefix("GET ")?.split(' ').next()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mood = *self.mood.lock().unwrap();
        if !path.ends_with("/jobs") || mood == Mood::Quiet {
            return None;
        }
        let json = |code: &str, body: &str| {
            let length = body.len();
            format!("HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        // a watch is refused before it begins, or ended by an event
        let is_event = query.contains("watch=") && self.injected.load(Relaxed).is_multiple_of(2);
        Some(match mood {
            Mood::Quiet => return None,
            Mood::SlowAtFirst if !query.contains("sendInitialEvents=true") => return None,
            Mood::Gone if is_event => json("200 OK", &format!("{}\n", self.recorded.gone)),
            Mood::Gone => json("410 Gone", &self.recorded.gone_status),
            Mood::Busy => BUSY.to_owned(),
            Mood::Slow | Mood::SlowAtFirst => json("504 Gateway Timeout", &self.recorded.slow),
        })
    }
}

/// As an API server answers whose slots are taken (`--max-requests-inflight`).
const BUSY: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\n\
    X-Content-Type-Options: nosniff\r\nContent-Length: 43\r\n\r\nToo many requests, please try again later.\n";

/// The first line, the whole head, and the length of the body.
fn head(from: &mut impl BufRead) -> Option<(String, String, usize)> {
    let (mut first, mut head, mut length) = (String::new(), String::new(), 0);
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok().filter(|read| *read > 0)?;
        head.push_str(&line);
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?
        }
        if line.trim().is_empty() {
            return Some((first, head, length));
        }
        if first.is_empty() {
            first = line
        }
    }
}

/// Passes a response on as it comes.
fn pass(server: &mut ToServer, client: &mut ToClient) -> Option<()> {
    let (_, head, length) = head(server)?;
    let client = client.get_mut();
    client.write_all(head.as_bytes()).ok()?;
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return copy(server, client, length);
    }
    loop {
        let mut line = String::new();
        server.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        client.write_all(line.as_bytes()).ok()?;
        copy(server, client, length + "\r\n".len())?;
        if length == 0 {
            return Some(());
        }
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write, mut left: usize) -> Option<()> {
    let mut buffer = [0; 8192];
    while left > 0 {
        let most = left.min(buffer.len());
        let read = from.read(&mut buffer[..most]).ok().filter(|read| *read > 0)?;
        to.write_all(&buffer[..read]).ok()?;
        left -= read
    }
    to.flush().ok()
}
