//! The access log: one line for each request that was answered, and for each connection that was rejected.
//!
//! ```text
//! TIME LEVEL ID METHOD "PATH" CODE DURATIONms JOB client=ADDRESS [forwarded=ADDRESS] [caller="NAME"] [tries=N] [reason=REASON] [trace=ID]
//!     [message="TEXT"]
//! ```
//!
//! What there is none of is left out, or `-`. In JSON the line has this text as its message, and the [fields](Line::visit) beside it.

use crate::answered::Record;
use crate::auth::Caller;
use crate::http::Request;
use crate::logger::about;
use crate::metrics::METRICS;
use crate::route::Route;
use crate::status::{Reason, Status};
use crate::trace::TraceParent;
use log::kv::{self, Source, Value, VisitSource};
use log::{Level, error, log_enabled, warn};
use std::fmt;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const MAX_REQUEST_ID: usize = 64;
/// Methods that OpenTelemetry knows; others are `_OTHER`.
const METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// The other end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    /// As text, for each of its requests has it in its line.
    address: Box<str>,
    /// What it says in `X-Forwarded-For` is logged.
    is_proxy: bool,
}

impl Peer {
    pub(super) fn new(address: IpAddr, is_proxy: bool) -> Self {
        Peer { address: address.to_canonical().to_string().into(), is_proxy }
    }
}

pub(super) struct Line<'a> {
    pub(super) id: &'a str,
    pub(super) peer: &'a Peer,
    /// None if it cannot be read.
    pub(super) request: Option<&'a Request>,
    /// None if it has not proved who it is, or was not asked.
    pub(super) caller: Option<&'a Caller>,
    pub(super) code: u16,
    /// Since the whole request was received, if it was.
    pub(super) took: Option<Duration>,
    /// Of a probe that was answered: machines poll it.
    pub(super) is_probe: bool,
    pub(super) record: &'a Record,
}

impl Line<'_> {
    /// Logs a request and counts it, with the name of its route.
    pub(super) fn count_and_write(self, route: &'static str) {
        let Record { tries, waited, reason, .. } = *self.record;
        METRICS.request(route, self.code, word(reason), self.took.map(|took| took.saturating_sub(waited)));
        if tries > 1 {
            METRICS.retried(self.code, tries)
        }
        self.write()
    }

    pub(super) fn write(self) {
        let _about = about(self.id);
        if let Some(note) = &self.record.note {
            match self.code {
                500 | 502 => error!("{}: {note}", self.code), // the operator must act
                400.. => warn!("{}: {note}", self.code),
                _ => warn!("{note}"),
            }
        }
        let level = if self.is_probe { Level::Debug } else { Level::Info };
        if log_enabled!(level) {
            let (line, target) = (format_args!("{self}"), module_path!());
            let record = log::Record::builder().level(level).target(target).key_values(&self).args(line).build();
            log::logger().log(&record)
        }
    }

    fn method_and_path(&self) -> (&str, &str) {
        self.request.map_or(("-", "-"), |request| (request.method(), request.path()))
    }

    fn took(&self) -> Duration {
        self.took.unwrap_or_default()
    }

    fn forwarded_for(&self) -> Option<&str> {
        self.request.filter(|_| self.peer.is_proxy)?.forwarded_for()
    }

    fn trace_id(&self) -> Option<&str> {
        Some(TraceParent::of(self.request?)?.trace_id())
    }
}

/// Begins the series that alerts use: whatever may become of a dispatch, and a defect on every route.
pub(super) fn begin_series() {
    let errors = Reason::ALL.map(|reason| (reason.code_and_word().0, word(Some(reason))));
    METRICS.may_answer("/job", [(200, None), (201, None), (204, None)].into_iter().chain(errors));
    for route in Route::NAMES.into_iter().chain(["other"]) {
        METRICS.may_answer(route, [(500, word(Some(Reason::InternalError)))].into_iter())
    }
}

fn word(reason: Option<Reason>) -> Option<&'static str> {
    reason.map(|reason| reason.code_and_word().1)
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { job, tries, reason, message, .. } = self.record;
        let ((method, path), ms, job) =
            (self.method_and_path(), self.took().as_millis(), job.as_deref().unwrap_or("-"));
        write!(f, "{method} {path:?} {} {ms}ms {job} client={}", self.code, self.peer.address)?;
        if let Some(address) = self.forwarded_for() {
            write!(f, " forwarded={address}")?
        }
        if let Some(caller) = self.caller {
            f.write_str(" caller=")?;
            f.write_str(&caller.shown)?
        }
        if *tries > 1 {
            write!(f, " tries={tries}")?
        }
        if let Some(reason) = word(*reason) {
            write!(f, " reason={reason}")?
        }
        if let Some(trace) = self.trace_id() {
            write!(f, " trace={trace}")?
        }
        match message {
            Some(message) => write!(f, " message={message:?}"),
            None => Ok(()),
        }
    }
}

/// Names are those of OpenTelemetry's semantic conventions (HTTP, Kubernetes) where those have one.
impl Source for Line<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), kv::Error> {
        let Record { job, tries, reason, message, .. } = self.record;
        let mut put = |name: &'static str, value: Value<'kvs>| visitor.visit_pair(name.into(), value);
        let (method, path) = self.method_and_path();
        let is_known = METHODS.contains(&method);
        put("http.request.method", if is_known { method } else { "_OTHER" }.into())?;
        if !is_known {
            put("http.request.method_original", method.into())?
        }
        put("url.path", path.into())?;
        put("http.response.status_code", self.code.into())?;
        put("http.server.request.duration", self.took().as_secs_f64().into())?;
        put("network.peer.address", (&*self.peer.address).into())?;
        put("client.address", self.forwarded_for().unwrap_or(&self.peer.address).into())?;
        if *tries > 0 {
            put("tries", (*tries).into())?
        }
        for (name, text) in [
            ("enduser.id", self.caller.map(|caller| &*caller.name)),
            ("k8s.job.name", job.as_deref()),
            ("error.type", word(*reason)),
            ("error.message", message.as_deref()),
            ("trace_id", self.trace_id()),
        ] {
            if let Some(text) = text {
                put(name, text.into())?
            }
        }
        Ok(())
    }
}

/// The name of a route in the metrics.
pub(super) fn name_of(route: &Result<Route, Status>) -> &'static str {
    route.as_ref().map_or("other", Route::name)
}

/// The caller's request id if it is valid, else a new one.
pub(super) fn request_id(theirs: Option<&[u8]>) -> String {
    let is_sane = |id: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(plain)
    };
    match theirs.and_then(|id| std::str::from_utf8(id).ok()).filter(|id| is_sane(id)) {
        Some(id) => id.to_owned(),
        None => {
            // a random start, then a counter: unique, without a system call for each
            static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(crate::random::random()));
            format!("{:016x}", NEXT.fetch_add(1, Relaxed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_request_ids_are_kept() {
        for id in ["a", "A.b_c-9", &"x".repeat(64)] {
            assert_eq!(request_id(Some(id.as_bytes())), id);
        }
        for id in ["", "a b", "a\n", "é", &"x".repeat(65)] {
            assert_ne!(request_id(Some(id.as_bytes())), id);
        }
        assert_ne!(request_id(None), request_id(None));
        assert_eq!(request_id(None).len(), 16);
    }

    fn request(headers: &[u8], places: Vec<(std::ops::Range<usize>, std::ops::Range<usize>)>) -> Request {
        let bytes = [b"POST /job/a\"", headers].concat();
        Request { method_len: 4, path: 5..12, head_len: bytes.len(), headers: places, bytes, ..Request::default() }
    }

    /// The text, and the fields.
    fn shown(line: &Line<'_>) -> (String, String) {
        struct Fields(String);
        impl<'kvs> VisitSource<'kvs> for Fields {
            fn visit_pair(&mut self, key: kv::Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
                self.0 += &format!("{key}={value} ");
                Ok(())
            }
        }
        let mut fields = Fields(String::new());
        line.visit(&mut fields).unwrap();
        (line.to_string(), fields.0.trim_end().to_owned())
    }

    #[test]
    fn lines() {
        let took = Some(Duration::from_millis(7));
        let [peer, client] = [true, false].map(|is_proxy| Peer::new(IpAddr::from([10, 0, 0, 7]), is_proxy));
        let plain = request(b"", Vec::new());
        let created = Record { job: Some("a".into()), tries: 3, ..Record::default() };
        let line = Line {
            id: "i",
            peer: &peer,
            request: Some(&plain),
            caller: None,
            code: 201,
            took,
            is_probe: false,
            record: &created,
        };
        let (text, fields) = shown(&line);
        assert_eq!(text, r#"POST "/job/a\"" 201 7ms a client=10.0.0.7 tries=3"#);
        assert_eq!(
            fields,
            "http.request.method=POST url.path=/job/a\" http.response.status_code=201 http.server.request.duration=0.007 \
             network.peer.address=10.0.0.7 client.address=10.0.0.7 tries=3 k8s.job.name=a"
        );

        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = ["x-forwarded-for", "203.0.113.9", "traceparent", trace];
        let mut at = 12;
        let mut place = |text: &str| {
            at += text.len();
            at - text.len()..at
        };
        let places = headers.chunks(2).map(|pair| (place(pair[0]), place(pair[1]))).collect();
        let traced = request(headers.concat().as_bytes(), places);
        let message = Some("not \"this\"".into());
        let refused = Record { reason: Some(Reason::FilterError), message, tries: 1, ..Record::default() };
        let who = Caller::named("ci \"x\"");
        let line = Line { request: Some(&traced), caller: Some(&who), code: 422, record: &refused, ..line };
        let (text, fields) = shown(&line);
        let want = r#"POST "/job/a\"" 422 7ms - client=10.0.0.7 forwarded=203.0.113.9 caller="ci \"x\"" reason=FilterError trace=4bf92f3577b34da6a3ce929d0e0e4736 message="not \"this\"""#;
        assert_eq!(text, want);
        assert!(fields.ends_with(
            "network.peer.address=10.0.0.7 client.address=203.0.113.9 tries=1 enduser.id=ci \"x\" error.type=FilterError error.message=not \"this\" \
             trace_id=4bf92f3577b34da6a3ce929d0e0e4736"
        ));
        let (text, fields) = shown(&Line { peer: &client, ..line });
        assert!(!text.contains("forwarded") && fields.contains(" client.address=10.0.0.7 "), "{text} {fields}");

        let late = Record { reason: Some(Reason::RequestTimeout), message: Some("late".into()), ..Record::default() };
        let line = Line { request: None, caller: None, took: None, code: 408, record: &late, ..line };
        assert_eq!(line.to_string(), r#"- "-" 408 0ms - client=10.0.0.7 reason=RequestTimeout message="late""#);
    }
}
