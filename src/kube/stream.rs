//! Lists and watches our Jobs as a stream: neither a page nor an event is held whole (Kubernetes API Concepts, "Efficient detection of
//! changes").

use super::answer::{Outcome, RefusalKind, deserializer};
use super::client::{Call, Client, Verb};
use super::job::{Job, JobObject};
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
/// How long a page may take.
const PAGE_TIME: Duration = Duration::from_secs(30);
/// How much longer than it was asked for a watch may last.
const MARGIN: Duration = Duration::from_secs(30);
const LABEL: &str = "labelSelector=app.kubernetes.io%2Fmanaged-by%3Dk8s-job-dispatcher";

/// What a watch says.
#[derive(Debug)]
pub(crate) enum Event {
    /// The API server has accepted the watch.
    Begun,
    /// A Job is new or has changed.
    Changed(String, Box<Job>),
    /// A Job is gone; this was its last state.
    Deleted(String, Box<Job>),
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
    /// The API server has ended it, which is ordinary.
    Closed,
    /// The version is too old.
    Expired,
    /// Kubernetes denies the right to do it.
    Forbidden(String),
    /// The API server cannot begin a watch with all Jobs.
    Unsupported,
    /// The connection broke, said nothing for too long, or could not be made; or the API server is in trouble.
    Failed(String),
}

/// What follows a page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) version: u64,
    /// The token for the next page; None for the last.
    pub(crate) next: Option<String>,
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
            End::Unsupported => "unsupported",
            End::Failed(_) => "failed",
        }
    }
}

impl Client {
    /// Watches for `time`. `see` is called with each event.
    pub(crate) fn watch(&mut self, namespace: &str, from: From, time: Duration, see: &mut dyn FnMut(Event)) -> End {
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
            Err(End::Unsupported) if matches!(from, From::Version(_)) => return End::Failed("400 or 422".into()),
            Err(end) => return end,
        };
        see(Event::Begun);
        let left = Cell::new(MAX_OBJECT);
        let mut bounded = BufReader::with_capacity(BUFFER, Bounded { reader, left: &left });
        let mut events = deserializer(&mut bounded).into_iter::<AnyEvent>();
        loop {
            left.set(MAX_OBJECT);
            let AnyEvent { r#type, object } = match events.next() {
                None => return End::Closed,
                Some(Ok(event)) => event,
                Some(Err(error)) if error.is_eof() => return End::Closed, // cut within an event
                Some(Err(error)) => return End::Failed(error.to_string()),
            };
            if r#type == "ERROR" {
                return match object.code {
                    410 => End::Expired,
                    code => End::Failed(format!("an event of type ERROR with code {code}")),
                };
            }
            let event = match event(&r#type, object) {
                Ok(event) => event,
                Err(error) => return End::Failed(error),
            };
            see(event)
        }
    }

    /// Lists a page of Jobs. `token`: of the page before.
    pub(crate) fn list(
        &mut self,
        namespace: &str,
        token: Option<&str>,
        see: &mut dyn FnMut(String, Box<Job>),
    ) -> Result<Page, End> {
        let next = token.map(|token| format!("&continue={}", escaped(token))).unwrap_or_default();
        let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs?{LABEL}&limit={PAGE}{next}");
        let reader = self.open(Verb::List, &path, PAGE_TIME)?;
        let left = Cell::new(MAX_OBJECT);
        let mut bounded = BufReader::with_capacity(BUFFER, Bounded { reader, left: &left });
        let mut page = Page::default();
        let list = List { page: &mut page, see, left: &left };
        let mut json = deserializer(&mut bounded);
        // to the end of the answer, so that its connection is used again
        let read = list.deserialize(&mut json).and_then(|()| json.end());
        read.map_err(|error| End::Failed(error.to_string()))?;
        Ok(page)
    }

    /// The body of a successful answer.
    fn open(&mut self, verb: Verb, path: &str, time: Duration) -> Result<BodyReader<'static>, End> {
        let call = Call { verb, path, body: None, until: Instant::now() + time };
        match self.stream(call) {
            Ok(reader) => Ok(reader),
            Err(Outcome::Refused(refusal)) => Err(match refusal.kind {
                RefusalKind::NotAllowed => End::Forbidden(refusal.said),
                RefusalKind::Invalid => End::Unsupported,
                RefusalKind::Gone => End::Expired,
                _ => End::Failed(refusal.said),
            }),
            Err(outcome) => Err(End::Failed(outcome.to_string())),
        }
    }
}

fn event(kind: &str, object: JobObject) -> Result<Event, String> {
    let name = object.metadata.name.clone();
    let version = object.metadata.version();
    if kind == "BOOKMARK" {
        return Ok(Event::Bookmark { version, is_whole: object.metadata.is_initial_end() });
    }
    let job = object.job().map_err(|error| format!("a Job with an odd status: {error}"))?;
    match kind {
        "ADDED" | "MODIFIED" => Ok(Event::Changed(name, job.into())),
        "DELETED" => Ok(Event::Deleted(name, job.into())),
        _ => Err(format!("an event of the unknown type {kind:?}")),
    }
}

/// Percent-encodes all but letters, digits and `-_.~`.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => escaped.push(byte.into()),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
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
    see: &'l mut dyn FnMut(String, Box<Job>),
    left: &'l Cell<usize>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
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
        while let Some(field) = members.next_key()? {
            match field {
                Field::Metadata => {
                    let ListMetadata { resource_version, r#continue } = members.next_value()?;
                    page.version = resource_version.parse().map_err(serde::de::Error::custom)?;
                    page.next = r#continue.filter(|token| !token.is_empty())
                }
                Field::Items => members.next_value_seed(Items { see: &mut *see, left })?,
                Field::Other => _ = members.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

struct Items<'l> {
    see: &'l mut dyn FnMut(String, Box<Job>),
    left: &'l Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
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
            let name = object.metadata.name.clone();
            (self.see)(name, object.job().map_err(serde::de::Error::custom)?.into());
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
        let mut see = |name: String, _: Box<Job>| names.push(name);
        let list = List { page: &mut page, see: &mut see, left: &left };
        let mut bounded = Bounded { reader: json.as_bytes(), left: &left };
        let done = list.deserialize(&mut deserializer(&mut bounded));
        done.map_err(|error| error.to_string())?;
        Ok((page, names))
    }

    #[test]
    fn a_page_has_jobs_a_version_and_perhaps_a_successor() {
        let text = r#"{"kind":"JobList","metadata":{"resourceVersion":"17","continue":"t"},
            "items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"},"status":{"active":1}}]}"#;
        let (page, names) = listed(text).unwrap();
        assert_eq!((page.version, page.next.as_deref(), names), (17, Some("t"), vec!["a".to_owned(), "b".to_owned()]));
        let (page, names) = listed(r#"{"metadata":{"resourceVersion":"18","continue":""},"items":[]}"#).unwrap();
        assert_eq!((page.version, page.next, names.len()), (18, None, 0));
        assert!(listed(r#"{"metadata":{"resourceVersion":"x"}}"#).is_err());
        assert!(listed(r#"{"metadata":{"resourceVersion":"1"},"items":[{"#).is_err());
    }

    #[test]
    fn objects_have_a_bound_and_lists_have_none() {
        let job = |size: usize| format!(r#"{{"metadata":{{"name":"a","x":"{}"}}}}"#, "x".repeat(size));
        let list =
            |jobs: &[String]| format!(r#"{{"metadata":{{"resourceVersion":"1"}},"items":[{}]}}"#, jobs.join(","));
        let large = job(MAX_OBJECT / 2);
        assert_eq!(listed(&list(&[large.clone(), large.clone(), large])).unwrap().1.len(), 3);
        assert!(listed(&list(&[job(MAX_OBJECT)])).unwrap_err().contains("more than"));
    }

    #[test]
    fn tokens_are_escaped() {
        assert_eq!(escaped("aZ9-_.~ +/=é"), "aZ9-_.~%20%2B%2F%3D%C3%A9");
    }
}
