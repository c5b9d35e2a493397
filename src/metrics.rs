//! OWNS prometheus_client: the counters and histograms behind `GET /metrics`. One global instance, like the log.
//!
//! Every label has few values: they come from enums and tables of ours, never from a request. Takes strings and numbers: the module that counts
//! something says what it is.

mod process;

use process::Process;
use prometheus_client::encoding::{
    EncodeLabel, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder, prometheus_text, text,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

const PREFIX: &str = "k8s_job_dispatcher";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Seconds. A health check takes a tenth of a millisecond, a dispatch some milliseconds, and 15 s at most unless that was changed.
const REQUEST_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds. An ordinary run takes a tenth of a millisecond; it ends after 2 s unless that was changed.
const FILTER_SECONDS: [f64; 12] = [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 2.0];

/// Seconds.
const JOB_SECONDS: [f64; 12] =
    [1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 4.0 * 3600.0, 12.0 * 3600.0, 24.0 * 3600.0];

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The name and the value of a label, where there is one: one type, because each has ten kilobytes of code.
type Label = [(&'static str, &'static str); 1];
/// The same where there are two.
type Labels = [(&'static str, Value); 2];

/// The labels of an answer.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Answer {
    route: &'static str,
    code: u16,
    /// Of an error.
    reason: Option<&'static str>,
}

impl EncodeLabelSet for Answer {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Answer { route, code, reason } = *self;
        ("route", Value::Text(route)).encode(encoder.encode_label())?;
        ("code", Value::Code(code)).encode(encoder.encode_label())?;
        match reason {
            Some(reason) => ("reason", Value::Text(reason)).encode(encoder.encode_label()),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Value {
    Text(&'static str),
    /// Of HTTP; 0 means no response.
    Code(u16),
    Number(u32),
}

impl EncodeLabelValue for Value {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Value::Text(text) => encoder.write_str(text),
            Value::Code(code @ 100..=599) => write!(encoder, "{code}"),
            Value::Code(0) => encoder.write_str("none"),
            Value::Code(_) => encoder.write_str("other"),
            Value::Number(number) => write!(encoder, "{number}"),
        }
    }
}

/// Values at this moment, read when the metrics are scraped.
#[derive(Debug)]
pub(crate) struct Gauges {
    pub(crate) connections_waiting: usize,
    pub(crate) connections_working: usize,
    pub(crate) dispatches_in_flight: usize,
    pub(crate) dispatches_queued: usize,
    /// Bytes that requests and their answers hold, by kind.
    pub(crate) reserved_bytes: Vec<(&'static str, usize)>,
    /// Jobs that are known, by state; empty as long as not all are.
    pub(crate) jobs: Vec<(&'static str, usize)>,
    pub(crate) cached_bytes: usize,
    /// Callers that are waiting for the end of a Job.
    pub(crate) waiters: usize,
    /// How long the watch has said nothing.
    pub(crate) watch_silence: Duration,
}

/// One series, for what is counted often.
#[derive(Clone, Debug)]
pub(crate) struct Count(Counter);

impl Count {
    pub(crate) fn inc(&self) {
        self.0.inc();
    }
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answer, Counter>,
    request_seconds: Family<Label, Histogram, fn() -> Histogram>,
    retried: Family<Labels, Counter>,
    filter_runs: Family<Label, Counter>,
    filter_seconds: Histogram,
    calls: Family<Labels, Counter>,
    call_seconds: Family<Label, Histogram, fn() -> Histogram>,
    authentications: Family<Labels, Counter>,
    connections: Family<Label, Gauge>,
    evicted: Counter,
    rejected: Counter,
    dispatches: Family<Label, Gauge>,
    reserved_bytes: Family<Label, Gauge>,
    jobs: Family<Label, Gauge>,
    cached_bytes: Gauge,
    waiters: Gauge,
    watch_restarts: Family<Label, Counter>,
    jobs_ended: Family<Label, Counter>,
    job_seconds: Family<Label, Histogram, fn() -> Histogram>,
    watch_silence: Gauge<f64, AtomicU64>,
    /// Held while gauges are set and printed, so that two scrapes do not mix.
    printing: Mutex<()>,
}

impl Metrics {
    fn new() -> Self {
        let request_seconds = || Histogram::new(REQUEST_SECONDS);
        let mut metrics = Metrics {
            registry: Registry::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(request_seconds),
            retried: Family::default(),
            filter_runs: Family::default(),
            filter_seconds: Histogram::new(FILTER_SECONDS),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(request_seconds),
            authentications: Family::default(),
            connections: Family::default(),
            evicted: Counter::default(),
            rejected: Counter::default(),
            dispatches: Family::default(),
            reserved_bytes: Family::default(),
            jobs: Family::default(),
            cached_bytes: Gauge::default(),
            waiters: Gauge::default(),
            watch_restarts: Family::default(),
            jobs_ended: Family::default(),
            job_seconds: Family::new_with_constructor(|| Histogram::new(JOB_SECONDS)),
            watch_silence: Gauge::default(),
            printing: Mutex::default(),
        };
        metrics.registry.register_collector(Box::new(Process::new()));
        metrics.register_work();
        metrics.register_state();
        metrics
    }

    /// What is counted and timed.
    fn register_work(&mut self) {
        let build: Family<Label, Gauge> = Family::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        let registry = self.registry.sub_registry_with_prefix(PREFIX);
        registry.register("build_info", "The version that runs; the value is 1", build);
        registry.register(
            "requests",
            "Requests answered, by route and code; errors also by reason",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Time from receiving the whole request to its reply",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        registry.register(
            "retried_dispatches",
            "Dispatches that took more than one try, by code and number of tries",
            self.retried.clone(),
        );
        registry.register("filter_runs", "Filter runs, by outcome", self.filter_runs.clone());
        registry.register_with_unit(
            "filter_run_duration",
            "Duration of filter runs",
            Unit::Seconds,
            self.filter_seconds.clone(),
        );
        registry.register(
            "api_requests",
            "Requests to the API server; code \"none\" means no response",
            self.calls.clone(),
        );
        registry.register_with_unit(
            "api_request_duration",
            "Duration of requests to the API server",
            Unit::Seconds,
            self.call_seconds.clone(),
        );
        registry.register(
            "authentications",
            "Requests whose callers had to authenticate, by means and outcome",
            self.authentications.clone(),
        );
        registry.register(
            "connections_evicted",
            "Waiting connections closed in favour of new ones",
            self.evicted.clone(),
        );
        registry.register(
            "connections_rejected",
            "New connections rejected because all others were being served",
            self.rejected.clone(),
        );
        registry.register("jobs_ended", "Jobs of the dispatcher that it saw end, by outcome", self.jobs_ended.clone());
        registry.register_with_unit(
            "job_duration",
            "Time from the start of a Job to its end, of Jobs that the dispatcher saw end",
            Unit::Seconds,
            self.job_seconds.clone(),
        );
        registry.register(
            "watch_restarts",
            "Times that the watch of Jobs ended, by cause",
            self.watch_restarts.clone(),
        );
    }

    /// What there is at the moment.
    fn register_state(&mut self) {
        let registry = self.registry.sub_registry_with_prefix(PREFIX);
        registry.register("connections", "Open client connections", self.connections.clone());
        registry.register(
            "dispatches",
            "Requests that may call the API server: in flight, or queued",
            self.dispatches.clone(),
        );
        registry.register_with_unit(
            "reserved",
            "Bytes that requests and their answers hold",
            Unit::Bytes,
            self.reserved_bytes.clone(),
        );
        registry.register("jobs", "Jobs of the dispatcher in its cache, by state", self.jobs.clone());
        registry.register_with_unit("jobs_cache", "Size of the Job cache", Unit::Bytes, self.cached_bytes.clone());
        registry.register("waiters", "Callers that are waiting for the end of a Job", self.waiters.clone());
        registry.register_with_unit(
            "watch_silence",
            "Time since the watch of Jobs last received something; 0 before it begins",
            Unit::Seconds,
            self.watch_silence.clone(),
        );
    }

    /// Requests of this route may have these answers, each with its code and reason: their series begin, for `rate` does not see the first event
    /// of a new one.
    pub(crate) fn may_answer(&self, route: &'static str, answers: impl Iterator<Item = (u16, Option<&'static str>)>) {
        answers.for_each(|(code, reason)| drop(self.requests.get_or_create(&Answer { route, code, reason })))
    }

    /// Counts a reply. `reason`: of an error. `took`: None for a request that was rejected before it was served.
    pub(crate) fn request(&self, route: &'static str, code: u16, reason: Option<&'static str>, took: Option<Duration>) {
        self.requests.get_or_create(&Answer { route, code, reason }).inc();
        if let Some(took) = took {
            self.request_seconds.get_or_create(&[("route", route)]).observe(took.as_secs_f64());
        }
    }

    /// Callers may authenticate by these means, with this outcome: the series begins. Returns what counts them.
    pub(crate) fn authentications(&self, means: &'static str, outcome: &'static str) -> Count {
        let labels = [("means", Value::Text(means)), ("outcome", Value::Text(outcome))];
        Count(self.authentications.get_or_create_owned(&labels))
    }

    /// Counts a dispatch that took more than one try.
    pub(crate) fn retried(&self, code: u16, tries: u32) {
        self.retried.get_or_create(&[("code", Value::Code(code)), ("tries", Value::Number(tries))]).inc();
    }

    /// Counts a run of the filter.
    pub(crate) fn filter_run(&self, outcome: &'static str, took: Duration) {
        self.filter_runs.get_or_create(&[("outcome", outcome)]).inc();
        self.filter_seconds.observe(took.as_secs_f64());
    }

    /// Counts a call to the API server. `code`: None if there was no response.
    pub(crate) fn call(&self, verb: &'static str, code: Option<u16>, took: Duration) {
        self.calls.get_or_create(&[("verb", Value::Text(verb)), ("code", Value::Code(code.unwrap_or(0)))]).inc();
        self.call_seconds.get_or_create(&[("verb", verb)]).observe(took.as_secs_f64());
    }

    /// The watch of Jobs may end for these causes: their series begin.
    pub(crate) fn watch_may_end(&self, causes: &[&'static str]) {
        causes.iter().for_each(|cause| drop(self.watch_restarts.get_or_create(&[("cause", *cause)])))
    }

    /// The watch of Jobs has ended.
    pub(crate) fn watch_ended(&self, cause: &'static str) {
        self.watch_restarts.get_or_create(&[("cause", cause)]).inc();
    }

    /// Jobs may end with these outcomes: their series begin.
    pub(crate) fn jobs_may_end(&self, outcomes: &[&'static str]) {
        outcomes.iter().for_each(|outcome| drop(self.jobs_ended.get_or_create(&[("outcome", *outcome)])))
    }

    /// A Job has ended. `took`: None if its times are not known.
    pub(crate) fn job_ended(&self, outcome: &'static str, took: Option<Duration>) {
        self.jobs_ended.get_or_create(&[("outcome", outcome)]).inc();
        if let Some(took) = took {
            self.job_seconds.get_or_create(&[("outcome", outcome)]).observe(took.as_secs_f64())
        }
    }

    pub(crate) fn connection_evicted(&self) {
        self.evicted.inc();
    }

    pub(crate) fn connection_rejected(&self) {
        self.rejected.inc();
    }

    /// All metrics as text, and the media type: OpenMetrics if `accept` asks for it, else Prometheus' text format.
    pub(crate) fn print(&self, gauges: &Gauges, accept: &[u8]) -> (&'static str, String) {
        let _alone = self.printing.lock().unwrap_or_else(PoisonError::into_inner);
        for (family, state, value) in [
            (&self.connections, "waiting", gauges.connections_waiting),
            (&self.connections, "working", gauges.connections_working),
            (&self.dispatches, "in_flight", gauges.dispatches_in_flight),
            (&self.dispatches, "queued", gauges.dispatches_queued),
        ] {
            family.get_or_create(&[("state", state)]).set(value as i64);
        }
        for (kind, bytes) in &gauges.reserved_bytes {
            self.reserved_bytes.get_or_create(&[("kind", *kind)]).set(*bytes as i64);
        }
        self.jobs.clear();
        for (state, number) in &gauges.jobs {
            self.jobs.get_or_create(&[("state", *state)]).set(*number as i64);
        }
        self.cached_bytes.set(gauges.cached_bytes as i64);
        self.waiters.set(gauges.waiters as i64);
        self.watch_silence.set(gauges.watch_silence.as_secs_f64());
        let wants_open_metrics = String::from_utf8_lossy(accept).split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_it = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
            is_it && !parts.any(|part| part == "q=0")
        });
        let mut out = String::new();
        let (media_type, printed) = match wants_open_metrics {
            true => (OPEN_METRICS, text::encode(&mut out, &self.registry)),
            false => (prometheus_text::CONTENT_TYPE, prometheus_text::encode(&mut out, &self.registry)),
        };
        printed.expect("writing to memory does not fail");
        (media_type, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats() {
        let metrics = Metrics::new();
        metrics.request("/job", 201, None, Some(Duration::from_millis(3)));
        metrics.request("/job", 503, Some("Overloaded"), None);
        metrics.call("create", None, Duration::from_secs(2));
        metrics.call("create", Some(999), Duration::from_secs(2));
        metrics.filter_run("output", Duration::from_micros(60));
        metrics.connection_evicted();
        let gauges = Gauges {
            connections_waiting: 3,
            connections_working: 0,
            dispatches_in_flight: 0,
            dispatches_queued: 0,
            reserved_bytes: vec![("small", 1), ("parked", 4)],
            jobs: vec![("succeeded", 2)],
            cached_bytes: 5,
            waiters: 4,
            watch_silence: Duration::from_millis(1500),
        };
        let (media_type, text) = metrics.print(&gauges, b"*/*");
        assert!(media_type.starts_with("text/plain; version=0.0.4"));
        for line in [
            "# TYPE k8s_job_dispatcher_requests_total counter",
            "k8s_job_dispatcher_requests_total{route=\"/job\",code=\"201\"} 1",
            "k8s_job_dispatcher_requests_total{route=\"/job\",code=\"503\",reason=\"Overloaded\"} 1",
            "k8s_job_dispatcher_request_duration_seconds_count{route=\"/job\"} 1",
            "k8s_job_dispatcher_request_duration_seconds_bucket{route=\"/job\",le=\"0.0025\"} 0",
            "k8s_job_dispatcher_request_duration_seconds_bucket{route=\"/job\",le=\"0.005\"} 1",
            "k8s_job_dispatcher_api_requests_total{verb=\"create\",code=\"none\"} 1",
            "k8s_job_dispatcher_api_requests_total{verb=\"create\",code=\"other\"} 1",
            "k8s_job_dispatcher_filter_runs_total{outcome=\"output\"} 1",
            "k8s_job_dispatcher_connections{state=\"waiting\"} 3",
            "k8s_job_dispatcher_connections_evicted_total 1",
            "k8s_job_dispatcher_reserved_bytes{kind=\"parked\"} 4",
            "k8s_job_dispatcher_jobs{state=\"succeeded\"} 2",
            "k8s_job_dispatcher_waiters 4",
            "k8s_job_dispatcher_watch_silence_seconds 1.5",
            "# TYPE process_cpu_seconds_total counter",
            "# TYPE process_resident_memory_bytes gauge",
        ] {
            assert!(text.lines().any(|printed| printed == line), "no {line} in\n{text}");
        }
        let (media_type, text) = metrics.print(&gauges, b"application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
        assert_eq!(media_type, OPEN_METRICS);
        assert_ne!(metrics.print(&gauges, b"application/openmetrics-text;q=0,text/plain").0, OPEN_METRICS);
        assert!(text.contains("# TYPE k8s_job_dispatcher_requests counter\n") && text.ends_with("# EOF\n"), "{text}");
    }
}
