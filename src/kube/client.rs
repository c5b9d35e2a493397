//! One thread's calls to the API server; and, while it cannot be reached, one thread that looks whether it can (`circuit.rs`).

use super::api_server::{ApiServer, CONNECT};
use super::credentials::Current;
use super::errors::failure_of;
use super::failure::Failure;
use super::refusal;
use super::request::{ApiRequest, Verb};
use super::response::ApiResponse;
use super::transport::{Numeric, Patience, Sockets};
use crate::metrics::METRICS;
use log::{debug, info, warn};
use std::fmt;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use ureq::Agent;
use ureq::config::AutoHeaderValue;
use ureq::http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use ureq::{Body, BodyReader};

/// A probe of the kubelet waits a second by default.
const READY: Duration = Duration::from_secs(1);
/// Shorter than the 90 s after which the API server closes an idle connection.
const MAX_IDLE: Duration = Duration::from_secs(15);
/// Bytes of a response: etcd limits a Job to 1.5 MiB, and `<` becomes six bytes in Go's JSON.
const MAX_ANSWER: u64 = 10 << 20;
/// Bytes of a response that are held. Of a longer one only the parts that we need: of a Job some fields, of a refusal its beginning.
const MAX_HELD: u64 = 64 << 10;
/// The largest buffers of a connection, one per thread. The input's may have to hold a whole head: the API server limits its warnings to
/// 4 Ki characters, which are 12 KiB in CJK, and quotes may double that. A body passes through either in pieces.
const INPUT_BUFFER: usize = 33 << 10;
const MAX_HEAD: usize = 32 << 10;
const OUTPUT_BUFFER: usize = 4 << 10;
/// A call that had less time, and no connection at its end, says nothing about the API server.
const MIN_CONNECT: Duration = Duration::from_millis(500);
/// Warnings of one response that are logged, and bytes of each.
const MAX_WARNINGS: usize = 16;
const MAX_WARNING: usize = 1024;
/// Tokens that are tried for one call: what we have, the file's, and the one before.
const MAX_TOKENS: usize = 3;
/// How often an API server that cannot be reached is looked at.
const PROBE: Duration = Duration::from_secs(1);
const PROBE_STACK: usize = 256 << 10;
const USER_AGENT: &str = concat!("k8s-job-dispatcher/", env!("CARGO_PKG_VERSION"));

/// One thread's connection to the API server: a pool of one, so that no lock is contended.
pub(crate) struct Client {
    server: Arc<ApiServer>,
    agent: Agent,
    generation: u64,
    waited: Duration,
    /// The last attempt to connect failed.
    failed: Arc<AtomicBool>,
    /// Warnings of the API server.
    warnings: u32,
    /// For a watch.
    patience: Option<Patience>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.server.base).finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) fn new(server: Arc<ApiServer>) -> Self {
        Client::with_patience(server, None)
    }

    /// For a watch. `patience`: asked while the API server says nothing.
    pub(crate) fn with_patience(server: Arc<ApiServer>, patience: Option<Patience>) -> Self {
        let current = server.credentials.current();
        let failed = Arc::default();
        let agent = agent(&server, &current, &failed, &patience);
        Client { agent, generation: current.generation, waited: Duration::ZERO, failed, warnings: 0, patience, server }
    }

    /// How long calls have taken since the last call of this method.
    pub(crate) fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// How long calls have taken since [`Client::take_waited`].
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    /// How many warnings the API server gave since the last call of this method.
    pub(crate) fn take_warnings(&mut self) -> u32 {
        std::mem::take(&mut self.warnings)
    }

    /// Whether calls are not made, because several in a row could not connect.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.server.circuit.is_open()
    }

    /// Whether the API server is ready for us. 403 counts: it answers, and only hides its health.
    pub(crate) fn is_ready(&mut self) -> bool {
        let until = Instant::now() + READY;
        let response = self.call_uncounted(ApiRequest { verb: Verb::Ready, path: "/readyz", body: None, until });
        let is_ready = matches!(response, Ok(ApiResponse { code: 200 | 403, .. })) && Instant::now() < until;
        if !is_ready {
            match response {
                Ok(ApiResponse { code, token_source, .. }) => {
                    let source = token_source.map(|source| format!("; {source}")).unwrap_or_default();
                    warn!("not ready: {}/readyz returns {code}{source}", self.server.base)
                }
                Err(failure) => warn!("not ready: {failure}"),
            }
        }
        is_ready
    }

    /// Whether the API server accepts connections, with the CA bundle as it is now.
    pub(super) fn can_connect(&mut self) -> bool {
        let current = self.server.credentials.read_again();
        let request = ApiRequest { verb: Verb::Ready, path: "/readyz", body: None, until: Instant::now() + READY };
        let response = self.call_once(&current, request);
        !matches!(response, Err(Failure::Unreachable(_)))
    }

    /// Makes one call, unless several in a row could not connect. When none can be made, reads the CA bundle again, and tries once more if it
    /// has changed.
    pub(super) fn call(&mut self, request: ApiRequest<'_>) -> Result<ApiResponse, Failure> {
        if self.server.circuit.is_open() {
            return Err(Failure::NotCalled);
        }
        let left = request.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(no_time());
        }
        let current = self.server.credentials.current();
        let mut response = self.call_again_after_401(&current, request);
        if self.server.is_https && matches!(response, Err(Failure::Unreachable(_))) {
            let now = self.server.credentials.read_again();
            if now.generation != current.generation {
                response = self.call_again_after_401(&now, request)
            }
        }
        match &response {
            Err(Failure::Unreachable(_)) if left >= MIN_CONNECT && self.server.circuit.failed() => {
                wait_for(self.server.clone())
            }
            Err(Failure::Unreachable(_)) => (),
            _ => self.server.circuit.connected(),
        }
        response
    }

    /// Makes one call, whatever became of those before, and does not count it among them.
    pub(super) fn call_uncounted(&mut self, request: ApiRequest<'_>) -> Result<ApiResponse, Failure> {
        let current = self.server.credentials.current();
        self.call_again_after_401(&current, request)
    }

    /// Makes one call. After a 401, reads the token again and makes it once more; then with the previous token, for the new one may have been
    /// written in part only.
    fn call_again_after_401(&mut self, current: &Current, request: ApiRequest<'_>) -> Result<ApiResponse, Failure> {
        let mut response = self.call_once(current, request);
        let mut rejected: Vec<_> = current.token.iter().cloned().collect();
        while matches!(response, Ok(ApiResponse { code: 401, .. })) && (1..MAX_TOKENS).contains(&rejected.len()) {
            let Some(other) = self.server.credentials.other_than(&rejected) else { break };
            response = self.call_once(&other, request);
            rejected.extend(other.token);
        }
        response
    }

    fn call_once(&mut self, current: &Current, request: ApiRequest<'_>) -> Result<ApiResponse, Failure> {
        self.use_credentials(current);
        let (word, method) = request.verb.word_and_method();
        let started = Instant::now();
        let response = self.exchange(current, &method, request);
        let took = started.elapsed();
        self.waited += took;
        METRICS.call(word, response.as_ref().ok().map(|response| response.code), took);
        match &response {
            Ok(response) => debug!("{method} {} {} {took:?}", request.path, response.code),
            Err(failure) => debug!("{method} {} {took:?} {failure}", request.path),
        }
        response
    }

    /// Begins a call whose response is read as it comes. A code other than 200 is a refusal.
    pub(super) fn stream(&mut self, request: ApiRequest<'_>) -> Result<BodyReader<'static>, Failure> {
        if self.server.circuit.is_open() {
            return Err(Failure::NotCalled);
        }
        let mut current = self.server.credentials.current();
        let mut rejected: Vec<_> = current.token.iter().cloned().collect();
        loop {
            self.use_credentials(&current);
            let (word, method) = request.verb.word_and_method();
            let started = Instant::now();
            let response = self.send(&current, &method, request);
            let code = response.as_ref().ok().map(|response| response.status().as_u16());
            METRICS.call(word, code, started.elapsed());
            let response = response?;
            if code == Some(200) {
                return Ok(response.into_body().into_with_config().limit(u64::MAX).reader());
            }
            if code == Some(401)
                && (1..MAX_TOKENS).contains(&rejected.len())
                && let Some(other) = self.server.credentials.other_than(&rejected)
            {
                rejected.extend(other.token.clone());
                current = other;
                continue;
            }
            return Err(Failure::Refused(response_of(response, request.verb, &self.server)?.refusal("")));
        }
    }

    fn exchange(
        &mut self,
        current: &Current,
        method: &Method,
        request: ApiRequest<'_>,
    ) -> Result<ApiResponse, Failure> {
        let response = self.send(current, method, request)?;
        self.warnings += log_warnings(response.headers());
        response_of(response, request.verb, &self.server)
    }

    fn send(&mut self, current: &Current, method: &Method, request: ApiRequest<'_>) -> Result<Response<Body>, Failure> {
        let ApiRequest { verb, path, body, until } = request;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(no_time());
        }
        let uri: Uri = format!("{}{path}", self.server.base)
            .parse()
            .map_err(|error| Failure::InvalidResponse(format!("cannot make a URL: {error}")))?;
        let mut request = Request::new(body.unwrap_or_default());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if matches!(verb, Verb::Log) {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")); // others compress what is text
        }
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
        let could_connect = !self.failed.swap(false, Relaxed);
        response.map_err(|error| failure_of(&self.server.base, error, could_connect))
    }

    fn use_credentials(&mut self, current: &Current) {
        if current.generation != self.generation {
            self.agent = agent(&self.server, current, &self.failed, &self.patience);
            self.generation = current.generation;
        }
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

fn no_time() -> Failure {
    Failure::TimedOut("no time was left for another call".into())
}

/// Makes calls possible again when the API server accepts connections. Callers' own calls would wait in vain.
fn wait_for(server: Arc<ApiServer>) {
    warn!("{} cannot be reached: no calls until it accepts connections", server.base);
    let waiting = server.clone();
    let wait = move || {
        // ureq's resolver panics when the system has no more threads
        let probe = || catch_unwind(AssertUnwindSafe(|| Client::new(waiting.clone()).can_connect()));
        loop {
            thread::sleep(PROBE);
            if probe().is_ok_and(|can_connect| can_connect) {
                break;
            }
        }
        waiting.circuit.close();
        info!("{} accepts connections again", waiting.base)
    };
    if let Err(error) = thread::Builder::new().name("api-probe".into()).stack_size(PROBE_STACK).spawn(wait) {
        warn!("cannot start a thread: {error}");
        server.circuit.close()
    }
}

fn agent(server: &ApiServer, current: &Current, failed: &Arc<AtomicBool>, patience: &Option<Patience>) -> Agent {
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
    let connector = Sockets { tls: current.tls.clone(), failed: failed.clone(), patience: patience.clone() };
    let resolver = Numeric::new(failed.clone());
    Agent::with_parts(config, connector, resolver)
}

/// Returns how many there are.
fn log_warnings(headers: &HeaderMap) -> u32 {
    let all = headers.get_all(header::WARNING);
    for warning in all.iter().take(MAX_WARNINGS) {
        let warning = &warning.as_bytes()[..warning.len().min(MAX_WARNING)];
        warn!("the API server warns: {:?}", String::from_utf8_lossy(warning));
    }
    all.iter().count() as u32
}

fn response_of(response: Response<Body>, verb: Verb, server: &Arc<ApiServer>) -> Result<ApiResponse, Failure> {
    let (head, body) = response.into_parts();
    let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    if let Some(coding) = head.headers.get(header::CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        return Err(Failure::InvalidResponse(format!("the response has the Content-Encoding {coding:?}")));
    }
    let server = server.clone();
    let code = head.status.as_u16();
    let mut response = ApiResponse {
        code,
        token_source: (code == 401).then(|| server.credentials.token_source()),
        retry_after: retry_after.and_then(|value| refusal::retry_after(value, SystemTime::now())),
        body: Vec::new(),
        rest: None,
        is_unbounded: !head.headers.contains_key(header::CONTENT_LENGTH)
            && !head.headers.contains_key(header::TRANSFER_ENCODING),
        read_error: Box::new(move |error| failure_of(&server.base, error.into(), true)),
    };
    let limit = if matches!(verb, Verb::Pods) { u64::MAX } else { MAX_ANSWER }; // nothing is held of a list
    let mut rest = body.into_with_config().limit(limit).reader();
    let read = (&mut rest).take(MAX_HELD).read_to_end(&mut response.body);
    read.map_err(|error| (response.read_error)(error))?;
    if response.body.len() as u64 == MAX_HELD && head.status.is_success() {
        response.rest = Some(rest)
    }
    Ok(response)
}
