//! Lists and watches our Jobs as a stream: neither a page nor an event is held whole (Kubernetes API Concepts, "Efficient detection of
//! changes").

use super::client::Client;
use super::failure::{Failure, Refusal, RefusalKind};
use super::items::{Items, ListMetadata, MAX_OBJECT, ObjectReader, each_item};
use super::job::{Job, JobObject};
use super::request::{ApiRequest, Verb};
use super::response::deserializer;
use super::scalar::Scalar;
use super::url::escaped;
use log::{debug, warn};
use serde::{Deserialize, Deserializer};
use std::cell::Cell;
use std::io::BufReader;
use std::time::{Duration, Instant};
use ureq::BodyReader;

const BUFFER: usize = 8 << 10;
/// Jobs of a page: the API server holds it whole.
const PAGE: usize = 200;
/// Bytes of a Job's name.
const MAX_NAME: usize = 253;
/// How long a page may take.
const PAGE_TIME: Duration = Duration::from_secs(30);
/// How much longer than it was asked for a watch may last.
const MARGIN: Duration = Duration::from_secs(30);
const LABEL: &str = "labelSelector=app.kubernetes.io%2Fmanaged-by%3Dk8s-job-dispatcher";

/// What a list or a watch says.
#[derive(Debug)]
pub(crate) enum Event {
    /// The API server has accepted it.
    Begun,
    /// A Job exists, is new or has changed.
    Changed(Box<Job>),
    /// A Job is gone, or has lost our label; this was its last state.
    Deleted(Box<Job>),
    /// The Job of this name is new or has changed, and cannot be read.
    Unreadable(String),
    /// All changes up to this version have been sent.
    Bookmark {
        version: u64,
        /// And all Jobs that there were at the beginning.
        is_whole: bool,
    },
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    /// With all Jobs that there are.
    Beginning,
    /// After this version.
    Version(u64),
}

/// Why a list or a watch ended.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// The API server has ended it in order.
    Closed,
    /// The version is too old.
    Expired,
    /// Kubernetes denies the right to do it.
    Forbidden(String),
    /// The API server cannot begin a watch with all Jobs.
    Unsupported(String),
    /// The connection broke, was silent for too long, or could not be made; or the API server is in trouble.
    Failed {
        why: String,
        /// Seconds that the API server asks to wait.
        retry_after: Option<u32>,
    },
}

#[derive(Deserialize)]
struct AnyEvent {
    r#type: String,
    /// A Job, a bookmark or a Status.
    object: JobObject,
}

impl End {
    pub(crate) const CAUSES: [&str; 5] = ["closed", "expired", "forbidden", "unsupported", "failed"];

    /// For the metrics.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Expired => "expired",
            End::Forbidden(_) => "forbidden",
            End::Unsupported(_) => "unsupported",
            End::Failed { .. } => "failed",
        }
    }

    fn failed(why: impl Into<String>) -> Self {
        End::Failed { why: why.into(), retry_after: None }
    }
}

impl Client {
    /// Watches for `time`. `see` is called with each event, and returns whether to go on.
    pub(crate) fn watch(
        &mut self,
        namespace: &str,
        from: From,
        time: Duration,
        see: &mut dyn FnMut(Event) -> bool,
    ) -> End {
        let begin = match from {
            From::Beginning => "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=".to_owned(),
            From::Version(version) => format!("resourceVersion={version}"),
        };
        let path = format!(
            "/apis/batch/v1/namespaces/{namespace}/jobs?watch=1&{LABEL}&allowWatchBookmarks=true&timeoutSeconds={}&{begin}",
            time.as_secs()
        );
        let mut reader = match self.open(Verb::Watch, &path, time + MARGIN) {
            Ok(reader) => reader,
            Err(End::Unsupported(said)) if matches!(from, From::Version(_)) => return End::failed(said),
            Err(end) => return end,
        };
        let mut goes_on = see(Event::Begun);
        let left = Cell::new(MAX_OBJECT);
        let mut bounded = BufReader::with_capacity(BUFFER, ObjectReader { reader: &mut reader, left: &left });
        let mut events = deserializer(&mut bounded).into_iter::<AnyEvent>();
        while goes_on {
            left.set(MAX_OBJECT);
            let AnyEvent { r#type, object } = match events.next() {
                None => return End::Closed,
                Some(Ok(event)) => event,
                Some(Err(error)) => return End::failed(error.to_string()),
            };
            if r#type == "ERROR" {
                return match object.code {
                    Scalar::Number(410) => End::Expired,
                    code => End::failed(format!("an event of type ERROR with code {code:?}")),
                };
            }
            match event(&r#type, object) {
                Ok(event) => goes_on = event.is_none_or(&mut *see),
                Err(error) => return End::failed(error),
            }
        }
        End::failed("its events belong to another history")
    }

    /// Lists a page of Jobs. `token`: of the page before.
    pub(crate) fn list(
        &mut self,
        namespace: &str,
        token: Option<&str>,
        see: &mut dyn FnMut(Event),
    ) -> Result<ListMetadata, End> {
        let next = token.map(|token| format!("&continue={}", escaped(token))).unwrap_or_default();
        self.list_of(namespace, &format!("limit={PAGE}{next}"), PAGE_TIME, see)
    }

    /// The version that the API server's present history has reached: of a list of at most one Job. `time`: how long it may take.
    pub(crate) fn version(&mut self, namespace: &str, time: Duration) -> Result<u64, End> {
        self.list_of(namespace, "limit=1", time, &mut |_| ()).map(|page| page.version)
    }

    fn list_of(
        &mut self,
        namespace: &str,
        what: &str,
        time: Duration,
        see: &mut dyn FnMut(Event),
    ) -> Result<ListMetadata, End> {
        let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs?{LABEL}&{what}");
        let mut reader = self.open(Verb::List, &path, time)?;
        see(Event::Begun);
        match each_item(&mut reader, &mut JobItems(see)) {
            Ok(ListMetadata { version: 0, .. }) => {
                Err(End::failed("the version of the JobList is absent or not a number"))
            }
            Ok(metadata) => Ok(metadata),
            Err(error) => Err(End::failed(error.to_string())),
        }
    }

    /// The body of a successful response.
    fn open(&mut self, verb: Verb, path: &str, time: Duration) -> Result<BodyReader<'static>, End> {
        let call = ApiRequest { verb, path, body: None, until: Instant::now() + time };
        match self.stream(call) {
            Ok(reader) => Ok(reader),
            Err(Failure::Refused(Refusal { kind, retry_after, said, .. })) => Err(match kind {
                RefusalKind::NotAllowed => End::Forbidden(said),
                RefusalKind::Invalid => End::Unsupported(said),
                RefusalKind::Gone => End::Expired,
                _ => End::Failed { why: said, retry_after },
            }),
            Err(failure) => Err(End::failed(failure.to_string())),
        }
    }
}

/// None for what is not one of our Jobs.
///
/// Errors: the object is not a Job, or the type is unknown.
fn event(kind: &str, object: JobObject) -> Result<Option<Event>, String> {
    if object.kind.text() != Some("Job") {
        return Err(format!(
            "an event of type {kind:?} with {:?} instead of a Job",
            object.kind.text().unwrap_or_default()
        ));
    }
    if kind == "BOOKMARK" {
        let (version, is_whole) = (object.metadata.version(), object.metadata.is_initial_end());
        return Ok(Some(Event::Bookmark { version, is_whole }));
    }
    let unreadable = |name: String| (!name.is_empty()).then_some(Event::Unreadable(name));
    match kind {
        "ADDED" | "MODIFIED" => Ok(readable(object).map_or_else(unreadable, |job| Some(Event::Changed(job.into())))),
        "DELETED" => Ok(readable(object).map_or_else(unreadable, |job| Some(Event::Deleted(job.into())))),
        _ => Err(format!("an event of the unknown type {kind:?}")),
    }
}

/// The Job, if it has our label and all that is needed to distinguish it from others. One that lacks them does not hide others.
///
/// Errors: its name.
fn readable(object: JobObject) -> Result<Job, String> {
    let mut name = object.metadata.name.text().unwrap_or_default().to_owned();
    name.truncate(name.floor_char_boundary(MAX_NAME));
    match object.job() {
        Ok(job) if job.is_ours && !job.name.is_empty() && !job.uid.is_empty() && job.version > 0 => Ok(job),
        Ok(_) => {
            debug!("a list or watch of our Jobs has {name:?}, which lacks our label, its name, uid or version");
            Err(name)
        }
        Err(error) => {
            warn!("the Job {name:?} is skipped, because its status cannot be read: {error}");
            Err(name)
        }
    }
}

/// Hands over each Job of a list.
struct JobItems<'l>(&'l mut dyn FnMut(Event));

impl Items for JobItems<'_> {
    const KIND: &'static str = "JobList";

    fn add<'de, D: Deserializer<'de>>(&mut self, item: D) -> Result<(), D::Error> {
        let object = JobObject::deserialize(item)?;
        // items may omit their kind
        if matches!(object.kind.text(), None | Some("Job"))
            && let Ok(job) = readable(object)
        {
            (self.0)(Event::Changed(job.into()))
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(json: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut see = |event: Event| match event {
            Event::Changed(job) => names.push(job.name.into_string()),
            other => panic!("{other:?}"),
        };
        each_item(&mut json.as_bytes(), &mut JobItems(&mut see)).unwrap();
        names
    }

    /// A Job as an item of a list. `more`: further members of it, each with its comma before it.
    fn item(name: &str, more: &str) -> String {
        let labels = r#""app.kubernetes.io/managed-by":"k8s-job-dispatcher""#;
        format!(r#"{{"metadata":{{"name":"{name}","uid":"u","resourceVersion":"3","labels":{{{labels}}}}}{more}}}"#)
    }

    #[test]
    fn what_is_not_a_readable_job_of_ours_hides_no_other() {
        let odd = [
            item("a", r#","status":{"active":"1"}"#),
            item("a", r#","kind":"Pod""#),
            item("", ""),
            item("a", "").replace("k8s-job-dispatcher", "other"),
            item("a", "").replace(r#""uid":"u""#, r#""uid":7"#),
            item("a", "").replace(r#""resourceVersion":"3""#, r#""resourceVersion":{"x":[1]}"#),
            item("good", r#","spec":{"suspend":"yes"},"kind":"Job","status":{"active":1}"#),
        ];
        let list = format!(r#"{{"kind":"JobList","metadata":{{}},"items":[{}]}}"#, odd.join(","));
        assert_eq!(listed(&list), ["good"]);
        let object = |json: &str| serde_json::from_str::<JobObject>(json).unwrap();
        assert!(event("ADDED", object(r#"{"kind":"Pod","metadata":{"name":"a"}}"#)).unwrap_err().contains("\"Pod\""));
        assert!(event("LOST", object(r#"{"kind":"Job","metadata":{"name":"a"}}"#)).is_err());
        let lost = event("DELETED", object(r#"{"kind":"Job","metadata":{"name":"a"}}"#)).unwrap();
        assert!(matches!(lost, Some(Event::Unreadable(name)) if name == "a"));
        assert!(event("DELETED", object(r#"{"kind":"Job","metadata":{}}"#)).unwrap().is_none());
    }

    #[test]
    fn tokens_are_escaped() {
        assert_eq!(escaped("aZ9-_.~ +/=é"), "aZ9-_.~%20%2B%2F%3D%C3%A9");
    }
}
