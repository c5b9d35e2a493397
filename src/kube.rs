//! OWNS ureq and rustls: one client per thread for calls to the API server, with their outcomes as values.
//! Knows neither jq nor our routes.

mod answer;
mod credentials;
mod errors;
mod identity;
mod resolver;
mod socket;
mod tls;
mod url;

pub(crate) use answer::{Job, Outcome, Refusal, RefusalKind};
pub(crate) use url::{check_url, is_loopback};

use crate::metrics::METRICS;
use credentials::{Credentials, Current};
use errors::{cannot_reach, outcome_of};
use log::{debug, warn};
use resolver::Numeric;
use socket::Sockets;
use std::io::Read;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use ureq::Agent;
use ureq::config::AutoHeaderValue;
use ureq::http::{HeaderValue, Method, Request, Response, Uri, header};
use ureq::{Body, BodyReader};

/// Connecting takes one round trip and a TLS handshake.
const CONNECT: Duration = Duration::from_secs(2);
/// A probe of the kubelet waits a second by default.
const READY: Duration = Duration::from_secs(1);
/// Shorter than the 90 s after which the API server closes an idle connection.
const MAX_IDLE: Duration = Duration::from_secs(15);
/// Bytes of a response: etcd limits a Job to 1.5 MiB, and it grows a little as JSON.
const MAX_ANSWER: u64 = 4 << 20;
/// Bytes of a response that are held. Of a longer one only the parts that we need: of a Job some fields, of a refusal its beginning.
const MAX_HELD: u64 = 64 << 10;
/// The largest buffers of a connection, one per thread. The input's may have to hold a whole head: the API server limits its warnings to
/// 4 Ki characters, which are 12 KiB in CJK, and quotes may double that. A body passes through either in pieces.
const INPUT_BUFFER: usize = 33 << 10;
const MAX_HEAD: usize = 32 << 10;
const OUTPUT_BUFFER: usize = 4 << 10;
/// Warnings of one response that are logged, and bytes of each.
const MAX_WARNINGS: usize = 16;
const MAX_WARNING: usize = 1024;
const USER_AGENT: &str = concat!("k8s-job-dispatcher/", env!("CARGO_PKG_VERSION"));

/// Address and credentials of the API server; shared by all threads.
#[derive(Debug)]
pub(crate) struct ApiServer {
    /// Scheme, authority and path prefix, without a trailing slash.
    base: String,
    is_https: bool,
    credentials: Credentials,
}

/// Whether a Job is stored, or only validated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Create {
    Store,
    DryRun,
}

/// A kind of call.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Create,
    Get,
    Ready,
}

impl Verb {
    fn word_and_method(self) -> (&'static str, Method) {
        match self {
            Verb::Create => ("create", Method::POST),
            Verb::Get => ("get", Method::GET),
            Verb::Ready => ("readyz", Method::GET),
        }
    }
}

impl ApiServer {
    /// `base`: as [`check_url`] returns it.
    ///
    /// Errors: each file that cannot be used, named.
    pub(crate) fn new(base: &str, token: Option<PathBuf>, ca: Option<PathBuf>) -> Result<Self, Vec<String>> {
        let base = base.to_owned();
        let is_https = base.starts_with("https://");
        Ok(ApiServer { base, is_https, credentials: Credentials::load(token, ca)? })
    }
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Why no connection can be made now, and what to do; None if one can.
    pub(crate) fn check_reachable(&self) -> Option<String> {
        let uri: Uri = self.base.parse().ok()?;
        let host = uri.host()?.trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if self.is_https { 443 } else { 80 });
        let addresses = match (host, port).to_socket_addrs() {
            Ok(addresses) => addresses,
            Err(error) => return Some(cannot_reach(&self.base, &error)),
        };
        let mut last = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(_) => return None,
                Err(error) => last = Some(cannot_reach(&self.base, &error)),
            }
        }
        last
    }
}

/// One thread's connection to the API server: a pool of one, so that no lock is contended.
#[derive(Debug)]
pub(crate) struct Client {
    server: Arc<ApiServer>,
    agent: Agent,
    generation: u64,
    waited: Duration,
}

impl Client {
    pub(crate) fn new(server: Arc<ApiServer>) -> Self {
        let current = server.credentials.current();
        Client { agent: agent(&server, &current), generation: current.generation, waited: Duration::ZERO, server }
    }

    /// How long calls have taken since the last call of this method.
    pub(crate) fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// Posts a Job of this name.
    pub(crate) fn create(
        &mut self,
        namespace: &str,
        name: &str,
        manifest: &[u8],
        how: Create,
        until: Instant,
    ) -> Outcome {
        let dry_run = if how == Create::DryRun { "&dryRun=All" } else { "" };
        let path = format!(
            "/apis/batch/v1/namespaces/{namespace}/jobs?fieldManager=k8s-job-dispatcher&fieldValidation=Strict{dry_run}"
        );
        match self.call(Verb::Create, &path, Some(manifest), until) {
            Ok(answer) => answer.outcome_of_create(name),
            Err(outcome) => outcome,
        }
    }

    /// Gets the Job of this name, which is a DNS-1123 label.
    pub(crate) fn get(&mut self, namespace: &str, name: &str, until: Instant) -> Outcome {
        let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs/{name}");
        match self.call(Verb::Get, &path, None, until) {
            Ok(answer) => answer.outcome_of_get(name),
            Err(outcome) => outcome,
        }
    }

    /// Whether the API server is ready for us. 403 counts: it answers, and only hides its health.
    pub(crate) fn is_ready(&mut self) -> bool {
        let until = Instant::now() + READY;
        let answer = self.call(Verb::Ready, "/readyz", None, until);
        let is_ready = matches!(answer, Ok(Answer { code: 200 | 403, .. })) && Instant::now() < until;
        if !is_ready {
            match answer {
                Ok(answer) => warn!("not ready: {}/readyz returns {}", self.server.base, answer.code),
                Err(outcome) => warn!("not ready: {outcome}"),
            }
        }
        is_ready
    }

    /// Makes one call. After a 401, reads the token again and retries once; after a failed handshake, reads the CA bundle again.
    fn call(&mut self, verb: Verb, path: &str, body: Option<&[u8]>, until: Instant) -> Result<Answer, Outcome> {
        let current = self.server.credentials.current();
        let first = self.call_once(&current, verb, path, body, until);
        match &first {
            Ok(answer) if answer.code == 401 && current.token.is_some() => {
                let current = self.server.credentials.read_again();
                self.call_once(&current, verb, path, body, until)
            }
            Err(Outcome::Disconnected(_)) if self.server.is_https => {
                self.server.credentials.read_again(); // for the caller's next try
                first
            }
            _ => first,
        }
    }

    fn call_once(
        &mut self,
        current: &Current,
        verb: Verb,
        path: &str,
        body: Option<&[u8]>,
        until: Instant,
    ) -> Result<Answer, Outcome> {
        if current.generation != self.generation {
            self.agent = agent(&self.server, current);
            self.generation = current.generation;
        }
        let (word, method) = verb.word_and_method();
        let started = Instant::now();
        let answer = self.exchange(current, &method, path, body, until);
        let took = started.elapsed();
        self.waited += took;
        METRICS.call(word, answer.as_ref().ok().map(|answer| answer.code), took);
        match &answer {
            Ok(answer) => debug!("{method} {path} {} {took:?}", answer.code),
            Err(outcome) => debug!("{method} {path} {took:?} {outcome}"),
        }
        answer
    }

    fn exchange(
        &self,
        current: &Current,
        method: &Method,
        path: &str,
        body: Option<&[u8]>,
        until: Instant,
    ) -> Result<Answer, Outcome> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Outcome::TimedOut("no time was left for another call".into()));
        }
        let uri: Uri = format!("{}{path}", self.server.base)
            .parse()
            .map_err(|error| Outcome::InvalidResponse(format!("cannot make a URL: {error}")))?;
        let mut request = Request::new(body.unwrap_or_default());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(token) = &current.token {
            headers.insert(header::AUTHORIZATION, token.0.clone());
        }
        let response = match body {
            Some(body) => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                self.agent.run(self.timed(request.map(|_| body), left))
            }
            None => self.agent.run(self.timed(request.map(|_| ()), left)),
        };
        read(response.map_err(|error| outcome_of(&self.server.base, error))?, &self.server)
    }

    /// One time-out for all of a call, and a shorter one for connecting.
    fn timed<B: ureq::AsSendBody>(&self, request: Request<B>, left: Duration) -> Request<B> {
        self.agent
            .configure_request(request)
            .timeout_connect(Some(left.min(CONNECT)))
            .timeout_per_call(Some(left))
            .build()
    }
}

fn agent(server: &ApiServer, current: &Current) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .https_only(server.is_https)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        .max_idle_age(MAX_IDLE)
        .input_buffer_size(INPUT_BUFFER)
        .max_response_header_size(MAX_HEAD)
        .output_buffer_size(OUTPUT_BUFFER)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .user_agent(USER_AGENT)
        .build();
    let connector = Sockets { tls: current.tls.clone() };
    Agent::with_parts(config, connector, Numeric::default())
}

type Answer = answer::Answer<BodyReader<'static>>;

fn read(response: Response<Body>, server: &Arc<ApiServer>) -> Result<Answer, Outcome> {
    let (head, body) = response.into_parts();
    for warning in head.headers.get_all(header::WARNING).iter().take(MAX_WARNINGS) {
        let warning = &warning.as_bytes()[..warning.len().min(MAX_WARNING)];
        warn!("the API server warns: {:?}", String::from_utf8_lossy(warning));
    }
    let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let server = server.clone();
    let mut answer = Answer {
        code: head.status.as_u16(),
        retry_after: retry_after.and_then(|value| answer::retry_after(value, SystemTime::now())),
        body: Vec::new(),
        rest: None,
        is_unbounded: !head.headers.contains_key(header::CONTENT_LENGTH)
            && !head.headers.contains_key(header::TRANSFER_ENCODING),
        read_error: Box::new(move |error| outcome_of(&server.base, error.into())),
    };
    let mut rest = body.into_with_config().limit(MAX_ANSWER).reader();
    let read = (&mut rest).take(MAX_HELD).read_to_end(&mut answer.body);
    read.map_err(|error| (answer.read_error)(error))?;
    if answer.body.len() as u64 == MAX_HELD && head.status.is_success() {
        answer.rest = Some(rest)
    }
    Ok(answer)
}
