//! OWNS prometheus_client: the counters and histograms behind `GET /metrics`. One global instance, like the log.
//!
//! Every label has few values: they come from enums and tables of ours, never from a request.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::fmt::Write;
use std::sync::LazyLock;
use std::time::Duration;

const PREFIX: &str = "k8s_job_dispatcher";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Seconds. A health check takes a tenth of a millisecond, a dispatch some milliseconds, and 15 s at most unless that was changed.
const REQUEST_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds. An ordinary run takes a tenth of a millisecond; it ends after 2 s unless that was changed.
const FILTER_SECONDS: [f64; 12] = [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 2.0];

/// Codes of dispatches that alerts use.
const ALERTED: [u16; 5] = [429, 500, 502, 503, 504];

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    route: &'static str,
    code: Code,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RouteLabel {
    route: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct CallLabels {
    verb: &'static str,
    code: Code,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RetriedLabels {
    code: Code,
    tries: u32,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct VerbLabel {
    verb: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct BuildLabels {
    version: &'static str,
}

/// An HTTP code; 0 means no response.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Code(u16);

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self.0 {
            code @ 100..=599 => write!(encoder, "{code}"),
            0 => encoder.write_str("none"),
            _ => encoder.write_str("other"),
        }
    }
}

/// Values at this moment, read when the metrics are scraped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) connections_waiting: usize,
    pub(crate) connections_working: usize,
    pub(crate) dispatches_in_flight: usize,
    pub(crate) dispatches_queued: usize,
    pub(crate) unfinished_bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabel, Histogram, fn() -> Histogram>,
    retried: Family<RetriedLabels, Counter>,
    filter_runs: Family<OutcomeLabel, Counter>,
    filter_seconds: Histogram,
    calls: Family<CallLabels, Counter>,
    call_seconds: Family<VerbLabel, Histogram, fn() -> Histogram>,
    connections: Family<StateLabel, Gauge>,
    evicted: Counter,
    rejected: Counter,
    dispatches: Family<StateLabel, Gauge>,
    unfinished_bytes: Gauge,
}

impl Metrics {
    fn new() -> Self {
        let request_seconds = || Histogram::new(REQUEST_SECONDS);
        let mut metrics = Metrics {
            registry: Registry::with_prefix(PREFIX),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(request_seconds),
            retried: Family::default(),
            filter_runs: Family::default(),
            filter_seconds: Histogram::new(FILTER_SECONDS),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(request_seconds),
            connections: Family::default(),
            evicted: Counter::default(),
            rejected: Counter::default(),
            dispatches: Family::default(),
            unfinished_bytes: Gauge::default(),
        };
        metrics.register();
        // created at start: `rate` does not see the first event of a new series
        for code in ALERTED {
            drop(metrics.requests.get_or_create(&RequestLabels { route: "/job", code: Code(code) }));
        }
        metrics
    }

    fn register(&mut self) {
        let build: Family<BuildLabels, Gauge> = Family::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        let registry = &mut self.registry;
        registry.register("build_info", "The version that runs; the value is 1", build);
        registry.register("requests", "Requests answered, by route and code", self.requests.clone());
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
        registry.register("connections", "Open client connections", self.connections.clone());
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
        registry.register(
            "dispatches",
            "Requests that may call the API server: in flight, or queued",
            self.dispatches.clone(),
        );
        registry.register_with_unit(
            "unfinished",
            "Bytes reserved for requests that are not answered yet",
            Unit::Bytes,
            self.unfinished_bytes.clone(),
        );
    }

    /// Counts a reply. `took`: None for a request that was rejected before it was served.
    pub(crate) fn request(&self, route: &'static str, code: u16, took: Option<Duration>) {
        self.requests.get_or_create(&RequestLabels { route, code: Code(code) }).inc();
        if let Some(took) = took {
            self.request_seconds.get_or_create(&RouteLabel { route }).observe(took.as_secs_f64());
        }
    }

    /// Counts a dispatch that took more than one try.
    pub(crate) fn retried(&self, code: u16, tries: u32) {
        self.retried.get_or_create(&RetriedLabels { code: Code(code), tries }).inc();
    }

    /// Counts a run. `took`: None for a run that did not start.
    pub(crate) fn filter_run(&self, outcome: &'static str, took: Option<Duration>) {
        self.filter_runs.get_or_create(&OutcomeLabel { outcome }).inc();
        if let Some(took) = took {
            self.filter_seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts a call to the API server. `code`: None if there was no response.
    pub(crate) fn call(&self, verb: &'static str, code: Option<u16>, took: Duration) {
        self.calls.get_or_create(&CallLabels { verb, code: Code(code.unwrap_or(0)) }).inc();
        self.call_seconds.get_or_create(&VerbLabel { verb }).observe(took.as_secs_f64());
    }

    pub(crate) fn connection_evicted(&self) {
        self.evicted.inc();
    }

    pub(crate) fn connection_rejected(&self) {
        self.rejected.inc();
    }

    /// All metrics as text, and the media type: OpenMetrics if `accept` asks for it, else Prometheus' text format.
    pub(crate) fn print(&self, gauges: Gauges, accept: &[u8]) -> (&'static str, String) {
        for (family, state, value) in [
            (&self.connections, "waiting", gauges.connections_waiting),
            (&self.connections, "working", gauges.connections_working),
            (&self.dispatches, "in_flight", gauges.dispatches_in_flight),
            (&self.dispatches, "queued", gauges.dispatches_queued),
        ] {
            family.get_or_create(&StateLabel { state }).set(value as i64);
        }
        self.unfinished_bytes.set(gauges.unfinished_bytes as i64);
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
        metrics.request("/job", 201, Some(Duration::from_millis(3)));
        metrics.request("/job", 503, None);
        metrics.call("create", None, Duration::from_secs(2));
        metrics.call("create", Some(999), Duration::from_secs(2));
        metrics.filter_run("output", Some(Duration::from_micros(60)));
        metrics.connection_evicted();
        let gauges = Gauges { connections_waiting: 3, ..Gauges::default() };
        let (media_type, text) = metrics.print(gauges, b"*/*");
        assert!(media_type.starts_with("text/plain; version=0.0.4"));
        for line in [
            "# TYPE k8s_job_dispatcher_requests_total counter",
            "k8s_job_dispatcher_requests_total{route=\"/job\",code=\"201\"} 1",
            "k8s_job_dispatcher_requests_total{route=\"/job\",code=\"503\"} 1",
            "k8s_job_dispatcher_request_duration_seconds_count{route=\"/job\"} 1",
            "k8s_job_dispatcher_request_duration_seconds_bucket{route=\"/job\",le=\"0.0025\"} 0",
            "k8s_job_dispatcher_request_duration_seconds_bucket{route=\"/job\",le=\"0.005\"} 1",
            "k8s_job_dispatcher_api_requests_total{verb=\"create\",code=\"none\"} 1",
            "k8s_job_dispatcher_api_requests_total{verb=\"create\",code=\"other\"} 1",
            "k8s_job_dispatcher_filter_runs_total{outcome=\"output\"} 1",
            "k8s_job_dispatcher_connections{state=\"waiting\"} 3",
            "k8s_job_dispatcher_connections_evicted_total 1",
            "k8s_job_dispatcher_unfinished_bytes 0",
        ] {
            assert!(text.lines().any(|printed| printed == line), "no {line} in\n{text}");
        }
        let (media_type, text) = metrics.print(gauges, b"application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
        assert_eq!(media_type, OPEN_METRICS);
        assert_ne!(metrics.print(gauges, b"application/openmetrics-text;q=0,text/plain").0, OPEN_METRICS);
        assert!(text.contains("# TYPE k8s_job_dispatcher_requests counter\n") && text.ends_with("# EOF\n"), "{text}");
    }
}
