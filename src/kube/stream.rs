//! Lists and watches our Jobs as a stream: neither a page nor an event is held whole (Kubernetes API Concepts, "Efficient detection of
//! changes").

use super::answer::deserializer;
use super::client::{Call, Client, Verb};
use super::failure::{Failure, Refusal, RefusalKind};
use super::job::{Job, JobObject};
use super::scalar::Scalar;
use super::url::escaped;
use log::{debug, warn};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::fmt;
use std::io::{BufReader, Read};
use std::time::{Duration, Instant};
use ureq::BodyReader;

/// Bytes of one event or item of a list: etcd limits a Job to 1.5 MiB, and `<` becomes six bytes in Go's JSON.
const MAX_OBJECT: usize = 10 << 20;
const BUFFER: usize = 8 << 10;
/// Jobs of a page: the API server holds it whole.
const PAGE: usize = 200;
/// Bytes of a token for the next page, which goes into a URL; the API server's have some hundred.
const MAX_TOKEN: usize = 4 << 10;
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

/// What follows a page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) version: u64,
    /// The token for the next page; None for the last.
    pub(crate) next: Option<String>,
    is_list: bool,
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
        let reader = match self.open(Verb::Watch, &path, time + MARGIN) {
            Ok(reader) => reader,
            Err(End::Unsupported(said)) if matches!(from, From::Version(_)) => return End::failed(said),
            Err(end) => return end,
        };
        let mut goes_on = see(Event::Begun);
        let left = Cell::new(MAX_OBJECT);
        let mut bounded = BufReader::with_capacity(BUFFER, Bounded { reader, left: &left });
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
        End::failed("what it tells is of another history")
    }

    /// Lists a page of Jobs. `token`: of the page before.
    pub(crate) fn list(
        &mut self,
        namespace: &str,
        token: Option<&str>,
        see: &mut dyn FnMut(Event),
    ) -> Result<Page, End> {
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
    ) -> Result<Page, End> {
        let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs?{LABEL}&{what}");
        let reader = self.open(Verb::List, &path, time)?;
        see(Event::Begun);
        let left = Cell::new(MAX_OBJECT);
        let mut bounded = BufReader::with_capacity(BUFFER, Bounded { reader, left: &left });
        let mut page = Page::default();
        let list = List { page: &mut page, see, left: &left };
        let mut json = deserializer(&mut bounded);
        // to the end of the answer, so that its connection is used again
        let read = list.deserialize(&mut json).and_then(|()| json.end());
        read.map_err(|error| End::failed(error.to_string()))?;
        match page.is_list {
            true => Ok(page),
            false => Err(End::failed("the response is not a JobList with a version")),
        }
    }

    /// The body of a successful answer.
    fn open(&mut self, verb: Verb, path: &str, time: Duration) -> Result<BodyReader<'static>, End> {
        let call = Call { verb, path, body: None, until: Instant::now() + time };
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

/// The Job, if it has our label and all that is needed to tell it from others. One that has not hides no other.
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

/// Reads no more than what is left, which is set anew for each object.
struct Bounded<'l, R> {
    reader: R,
    left: &'l Cell<usize>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left.get() == 0 {
            return Err(std::io::Error::other(format!("an object has more than {MAX_OBJECT} bytes")));
        }
        let most = into.len().min(self.left.get());
        let read = self.reader.read(&mut into[..most])?;
        self.left.set(self.left.get() - read);
        Ok(read)
    }
}

/// A page in JSON: hands over each Job as it comes.
struct List<'l> {
    page: &'l mut Page,
    see: &'l mut dyn FnMut(Event),
    left: &'l Cell<usize>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Kind,
    Metadata,
    Items,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
    r#continue: Option<String>,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JobList")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let List { page, see, left } = self;
        let mut is_list = false;
        while let Some(field) = members.next_key()? {
            match field {
                Field::Kind => is_list = members.next_value::<Scalar>()?.text() == Some("JobList"),
                Field::Metadata => {
                    let ListMetadata { resource_version, r#continue } = members.next_value()?;
                    page.version = resource_version.parse().map_err(serde::de::Error::custom)?;
                    page.next = r#continue.filter(|token| !token.is_empty());
                    if page.next.as_ref().is_some_and(|token| token.len() > MAX_TOKEN) {
                        return Err(serde::de::Error::custom(format!("continue has more than {MAX_TOKEN} bytes")));
                    }
                }
                Field::Items => members.next_value_seed(Items { see: &mut *see, left })?,
                Field::Other => _ = members.next_value::<IgnoredAny>()?,
            }
        }
        page.is_list = is_list && page.version > 0;
        Ok(())
    }
}

struct Items<'l> {
    see: &'l mut dyn FnMut(Event),
    left: &'l Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jobs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.left.set(MAX_OBJECT);
        while let Some(object) = items.next_element::<JobObject>()? {
            // items may omit their kind
            if matches!(object.kind.text(), None | Some("Job"))
                && let Ok(job) = readable(object)
            {
                (self.see)(Event::Changed(job.into()))
            }
            self.left.set(MAX_OBJECT)
        }
        Ok(())
    }

    // null
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(json: &str) -> Result<(Page, Vec<String>), String> {
        let (mut page, mut names, left) = (Page::default(), Vec::new(), Cell::new(MAX_OBJECT));
        let mut see = |event: Event| match event {
            Event::Changed(job) => names.push(job.name.into_string()),
            other => panic!("{other:?}"),
        };
        let list = List { page: &mut page, see: &mut see, left: &left };
        let mut bounded = Bounded { reader: json.as_bytes(), left: &left };
        let done = list.deserialize(&mut deserializer(&mut bounded));
        done.map_err(|error| error.to_string())?;
        Ok((page, names))
    }

    /// A Job as an item of a list. `more`: further members of it, each with its comma before it.
    fn item(name: &str, more: &str) -> String {
        let labels = r#""app.kubernetes.io/managed-by":"k8s-job-dispatcher""#;
        format!(r#"{{"metadata":{{"name":"{name}","uid":"u","resourceVersion":"3","labels":{{{labels}}}}}{more}}}"#)
    }

    fn list(metadata: &str, items: &[String]) -> String {
        format!(r#"{{"kind":"JobList","metadata":{{{metadata}}},"items":[{}]}}"#, items.join(","))
    }

    #[test]
    fn a_page_has_jobs_a_version_and_perhaps_a_successor() {
        let items = [item("a", ""), item("b", r#","kind":"Job","status":{"active":1}"#)];
        let (page, names) = listed(&list(r#""resourceVersion":"17","continue":"t""#, &items)).unwrap();
        assert_eq!((page.version, page.next.as_deref(), names), (17, Some("t"), vec!["a".to_owned(), "b".to_owned()]));
        let (page, names) = listed(&list(r#""resourceVersion":"18","continue":"""#, &[])).unwrap();
        assert_eq!((page.version, page.next, names.len(), page.is_list), (18, None, 0, true));
        assert!(listed(&list(r#""resourceVersion":"x""#, &[])).is_err());
        assert!(listed(r#"{"metadata":{"resourceVersion":"1"},"items":[{"#).is_err());
        for other in [r#"{"metadata":{"resourceVersion":"18"}}"#, r#"{"kind":"JobList"}"#, r#"{"kind":"Status"}"#] {
            assert!(!listed(other).unwrap().0.is_list, "{other}");
        }
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
            item("good", r#","spec":{"suspend":"yes"}"#),
        ];
        let (_, names) = listed(&list(r#""resourceVersion":"17""#, &odd)).unwrap();
        assert_eq!(names, ["good"]);
        let object = |json: &str| serde_json::from_str::<JobObject>(json).unwrap();
        assert!(event("ADDED", object(r#"{"kind":"Pod","metadata":{"name":"a"}}"#)).unwrap_err().contains("\"Pod\""));
        assert!(event("LOST", object(r#"{"kind":"Job","metadata":{"name":"a"}}"#)).is_err());
        let lost = event("DELETED", object(r#"{"kind":"Job","metadata":{"name":"a"}}"#)).unwrap();
        assert!(matches!(lost, Some(Event::Unreadable(name)) if name == "a"));
        assert!(event("DELETED", object(r#"{"kind":"Job","metadata":{}}"#)).unwrap().is_none());
    }

    #[test]
    fn objects_have_a_bound_and_lists_have_none() {
        let job = |size: usize| item("a", &format!(r#","x":"{}""#, "x".repeat(size)));
        let list = |jobs: &[String]| list(r#""resourceVersion":"1""#, jobs);
        let large = job(MAX_OBJECT / 2);
        assert_eq!(listed(&list(&[large.clone(), large.clone(), large])).unwrap().1.len(), 3);
        assert!(listed(&list(&[job(MAX_OBJECT)])).unwrap_err().contains("more than"));
    }

    #[test]
    fn tokens_are_escaped() {
        assert_eq!(escaped("aZ9-_.~ +/=é"), "aZ9-_.~%20%2B%2F%3D%C3%A9");
    }
}
