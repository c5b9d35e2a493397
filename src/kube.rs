//! OWNS ureq and rustls: one client per thread for calls to the API server, with their outcomes as values.
//! Knows neither jq nor our routes.

mod answer;
mod credentials;
mod resolver;
mod tls;

pub(crate) use answer::{Job, Outcome, Refusal, RefusalKind};

use crate::metrics::METRICS;
use credentials::{Credentials, Current};
use log::{debug, warn};
use resolver::Numeric;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::config::AutoHeaderValue;
use ureq::http::{HeaderValue, Method, Request, Response, Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Body, Error, Timeout};

/// Connecting takes one round trip and a TLS handshake.
const CONNECT: Duration = Duration::from_secs(2);
/// A probe of the kubelet waits a second by default.
const READY: Duration = Duration::from_secs(1);
/// Shorter than the 90 s after which the API server closes an idle connection.
const MAX_IDLE: Duration = Duration::from_secs(15);
/// Bytes of a response: etcd limits a Job to 1.5 MiB, and it grows a little as JSON.
const MAX_ANSWER: u64 = 4 << 20;
/// An answer of more is never held whole: of a Job what we look at, of a refusal its beginning.
const WHOLE: u64 = 64 << 10;
/// Buffers of a connection, which each thread has. The input's holds the head of an answer: the API server bounds its warnings to 4 Ki
/// characters, and the rest is below 1 KiB. A body passes through either in pieces.
const INPUT_BUFFER: usize = 8 << 10;
const OUTPUT_BUFFER: usize = 4 << 10;
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
    /// `base` comes from [`check_url`].
    ///
    /// Errors: each file that cannot be used, named.
    pub(crate) fn new(base: &str, token: Option<PathBuf>, ca: Option<PathBuf>) -> Result<Self, Vec<String>> {
        let _ = rustls::crypto::ring::default_provider().install_default(); // an error: it is installed already
        let base = base.to_owned();
        let is_https = base.starts_with("https://");
        Ok(ApiServer { base, is_https, credentials: Credentials::load(token, ca)? })
    }
    pub(crate) fn base(&self) -> &str {
        &self.base
    }
}

/// The URL with its scheme in lower case, without a trailing slash.
///
/// Errors: why this is not the URL of an API server.
pub(crate) fn check_url(url: &str) -> Result<String, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        Err("it must begin with http:// or https://".into())
    } else if uri.host().is_none_or(str::is_empty) {
        Err("it names no host".into())
    } else if authority.contains('@') {
        Err("it must not hold credentials; use --token-file".into())
    } else if uri.query().is_some() || url.contains('#') {
        Err("it must not have a query or fragment".into())
    } else {
        Ok(uri.to_string().trim_end_matches('/').to_owned())
    }
}

/// Whether the URL's host is this machine.
pub(crate) fn is_loopback(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
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
            Ok(answer) => answer::to_create(name, answer.code, answer.retry_after, &answer.body),
            Err(outcome) => outcome,
        }
    }

    /// Gets the Job of this name, which is a DNS-1123 label.
    pub(crate) fn get(&mut self, namespace: &str, name: &str, until: Instant) -> Outcome {
        let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs/{name}");
        match self.call(Verb::Get, &path, None, until) {
            Ok(answer) => answer::to_get(name, answer.code, answer.retry_after, &answer.body),
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
                Ok(answer) => warn!("not ready: the API server's /readyz says {}", answer.code),
                Err(outcome) => warn!("not ready: {outcome:?}"),
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
            Err(outcome) => debug!("{method} {path} {took:?} {outcome:?}"),
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
            return Err(Outcome::TimedOut("no time was left for a call".into()));
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
        Answer::read(response.map_err(outcome_of)?)
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
    let roots = RootCerts::Specific(current.roots.clone());
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
        .output_buffer_size(OUTPUT_BUFFER)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .user_agent(USER_AGENT)
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build();
    let connector = ().chain(TcpConnector::default()).chain(current.tls.clone());
    Agent::with_parts(config, connector, Numeric::default())
}

struct Answer {
    code: u16,
    retry_after: Option<u32>,
    body: Vec<u8>,
}

impl Answer {
    fn read(mut response: Response<Body>) -> Result<Self, Outcome> {
        for warning in response.headers().get_all(header::WARNING) {
            warn!("the API server warns: {:?}", String::from_utf8_lossy(warning.as_bytes()));
        }
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()).and_then(|text| text.trim().parse().ok());
        let code = response.status().as_u16();
        let mut rest = response.body_mut().with_config().limit(MAX_ANSWER).reader();
        let mut body = Vec::new();
        let failed = |error: std::io::Error| outcome_of(error.into());
        (&mut rest).take(WHOLE).read_to_end(&mut body).map_err(failed)?;
        if body.len() as u64 == WHOLE && (200..300).contains(&code) {
            let whole = std::io::Cursor::new(body).chain(std::io::BufReader::new(rest));
            body = answer::gist(whole).map_err(|error| match error.is_io() {
                true => failed(error.into()),
                false => Outcome::InvalidResponse(error.to_string()),
            })?;
        }
        Ok(Answer { code, retry_after, body })
    }
}

fn outcome_of(error: Error) -> Outcome {
    let text = error.to_string();
    match error {
        Error::Timeout(Timeout::Resolve | Timeout::Connect) => Outcome::Disconnected(text),
        Error::Timeout(_) => Outcome::TimedOut(text),
        Error::Protocol(_) | Error::Http(_) | Error::LargeResponseHeader(..) | Error::BodyExceedsLimit(_) => {
            Outcome::InvalidResponse(text)
        }
        _ => Outcome::Disconnected(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_an_api_server() {
        for good in [
            "http://127.0.0.1:8001",
            "https://[::1]:6443/",
            "https://host/k8s/clusters/c",
            "https://kubernetes.default.svc",
        ] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "host",
            "ftp://host",
            "http://",
            "https://user:pw@host",
            "http://host/?a",
            "http://host/#a",
            "http://a b",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scheme_is_case_insensitive() {
        assert_eq!(check_url("HTTPS://Host:1/x").unwrap(), "https://Host:1/x");
    }

    #[test]
    fn loopback_is_known() {
        for yes in ["http://127.0.0.1:8001", "http://localhost", "http://[::1]:80"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["http://10.0.0.1", "http://localhost.example.com", "http://[::2]"] {
            assert!(!is_loopback(no), "{no}");
        }
    }
}
