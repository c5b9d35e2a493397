//! A page of our Jobs, from the cache. Pure.

use super::answer::{AnswerDraft, object};
use super::unknown_parameter;
use crate::config::Enabled;
use crate::hash::hex;
use crate::http::{Reply, Request, pairs};
use crate::jobs::{Known, NoPage};
use crate::kube::{Job, JobKey, JobState, MAX_JOBS};
use crate::manifest::{MAX_NAME, is_label};
use crate::status::{Reason, Status};
use std::sync::Arc;

const LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;
/// Bytes of a page: five hundred ordinary Jobs. What does not fit is on the next; one large Job is a page of its own.
pub(crate) const MAX_PAGE: usize = 256 << 10;
/// Each is looked for in every Job.
const MAX_LABELS: usize = 16;
/// Jobs that are looked at for a page: some milliseconds, in which the watch cannot write.
const MAX_LOOKED_AT: usize = 2000;

/// What a caller asks for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Query {
    limit: usize,
    /// Creation time and name of the last Job of the page before.
    after: Option<(String, String)>,
    state: Option<JobState>,
    /// All of these.
    labels: Vec<(String, String)>,
    /// Part of its name.
    name: Option<String>,
    /// Whether the page says how many Jobs there are, by state.
    counts: bool,
    /// Whether it says why pods wait.
    pods: bool,
    /// The rest of the query, as sent, for the next page.
    rest: String,
}

impl Query {
    /// `enabled`: whether pods may be read.
    ///
    /// Errors: 400, naming the parameter.
    pub(crate) fn of(request: &Request, enabled: Enabled) -> Result<Self, Status> {
        let bad = |what: &str, why: &str| Status::new(Reason::BadRequest, format!("{what} {why}"));
        let mut query = Query { limit: LIMIT, ..Query::default() };
        for (name, value) in pairs(request.query().as_bytes()) {
            match &*name {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                    query.limit = limit.ok_or_else(|| bad("limit", "must be a number from 1 to 500"))?
                }
                "continue" => {
                    let after =
                        position(&value).ok_or_else(|| bad("continue", "is not a token from an earlier response"))?;
                    query.after = Some(after)
                }
                "state" => {
                    let state = JobState::ALL.into_iter().find(|state| state.name() == value);
                    let names = || JobState::ALL.map(JobState::name).join(", ");
                    query.state = Some(state.ok_or_else(|| bad("state", &format!("must be one of {}", names())))?)
                }
                "label" => {
                    let (key, value) =
                        value.split_once('=').ok_or_else(|| bad("label", "must have the form key=value"))?;
                    if query.labels.len() >= MAX_LABELS {
                        return Err(bad("label", "may be given up to 16 times"));
                    }
                    query.labels.push((key.to_owned(), value.to_owned()))
                }
                "name" if value.len() > MAX_NAME => return Err(bad("name", "is longer than a Job's name")),
                "name" => query.name = Some(value.into_owned()),
                "counts" => query.counts = value.parse().map_err(|_| bad("counts", "must be true or false"))?,
                "pods" if enabled.pods => {
                    query.pods = value.parse().map_err(|_| bad("pods", "must be true or false"))?
                }
                _ => {
                    let known = ["limit", "continue", "state", "label", "name", "counts", "pods"];
                    let known = &known[..known.len() - usize::from(!enabled.pods)];
                    return Err(unknown_parameter(&name, known));
                }
            }
        }
        // as sent, except characters that would end the reference in a `Link`
        let is_rest = |pair: &&str| pairs(pair.as_bytes()).any(|(name, _)| name != "continue");
        let rest: Vec<_> = request.query().split('&').filter(is_rest).collect();
        query.rest = rest.join("&").replace('<', "%3C").replace('>', "%3E").replace('"', "%22");
        Ok(query)
    }

    /// Whether the Job is one of those that are asked for.
    fn wants(&self, job: &Job) -> bool {
        self.state.is_none_or(|state| job.situation.state == state)
            && self.name.as_ref().is_none_or(|part| job.name.contains(&**part))
            && self.labels.iter().all(|(key, value)| job.label(key) == Some(value))
    }

    /// A page where there are no Jobs.
    pub(crate) fn empty_page(&self) -> Reply {
        let counts = if self.counts { counts(JobState::ALL.map(|state| (state, 0)).into_iter()) } else { Vec::new() };
        Reply::json(200, [b"{\"items\":[]", &counts[..], b"}"].concat())
    }

    /// A page of what is known. It has fewer Jobs than are asked for, perhaps none, where looking for them would take too long.
    /// `reasons`: why pods wait, once that is known.
    pub(crate) fn page(&self, known: &Known, reasons: Option<&PodReasons>) -> Result<Page, NoPage> {
        let (mut body, mut items, mut looked_at) = (b"{\"items\":[".to_vec(), 0, 0);
        let mut starting = Vec::new();
        // the last Job that was looked at, and whether there are more behind it
        let (mut last, mut has_more): (Option<Arc<Job>>, bool) = (None, false);
        let position = self.after.as_ref().map(|(created, name)| (&created[..], &name[..]));
        let is_truncated = known.page(position, &mut |job| {
            let wants = self.wants(job);
            has_more = looked_at >= MAX_LOOKED_AT || wants && items >= self.limit;
            if wants && !has_more {
                let pod_reason = reasons.and_then(|reasons| reasons.of(job)).map(Box::from);
                let draft = AnswerDraft { name: job.name.to_string(), pod_reason, ..AnswerDraft::default() };
                let object = object(&draft, Some(job));
                has_more = items > 0 && body.len() + object.len() > MAX_PAGE;
                if !has_more {
                    if items > 0 {
                        body.push(b',')
                    }
                    body.extend(object);
                    items += 1;
                    let starts = job.situation.state == JobState::Starting && is_label(&job.name);
                    if self.pods && starts && starting.len() < MAX_JOBS {
                        starting.push(JobKey { name: job.name.clone(), uid: job.uid.clone() })
                    }
                }
            }
            if !has_more {
                looked_at += 1;
                last = Some(job.clone())
            }
            !has_more
        })?;
        body.push(b']');
        let next = last.filter(|_| has_more).map(|job| token(key_of(&job)));
        if let Some(next) = &next {
            body.extend(format!(",\"continue\":\"{next}\"").as_bytes())
        }
        if is_truncated {
            body.extend(b",\"truncated\":true")
        }
        if self.counts {
            body.extend(counts(known.count()))
        }
        if reasons.is_some_and(|reasons| reasons.are_unavailable) {
            body.extend(b",\"podsUnavailable\":true")
        }
        body.push(b'}');
        let mut reply = Reply::json(200, body);
        if let Some(next) = next {
            let rest = if self.rest.is_empty() { String::new() } else { format!("{}&", self.rest) };
            reply = reply.with_header("Link", format!("<?{rest}continue={next}>; rel=\"next\"")) // RFC 8288
        }
        Ok(Page { reply, starting: if reasons.is_none() { starting } else { Vec::new() } })
    }
}

/// Why there is none.
pub(crate) fn no_page(why: NoPage) -> Status {
    match why {
        NoPage::Forbidden => Status::new(Reason::BadGateway, "the dispatcher lacks permission for this"),
        NoPage::NotNow => {
            Status::new(Reason::ServiceUnavailable, "the Jobs are not known at the moment").with_retry_after(1)
        }
    }
}

/// A page of Jobs.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) reply: Reply,
    /// Jobs for which it is asked why their pods wait, before the page is made again; empty if that is not wanted, or known.
    pub(crate) starting: Vec<JobKey>,
}

/// Why pods of Jobs wait.
#[derive(Debug)]
pub(crate) struct PodReasons {
    /// With the uid of each Job.
    pub(super) reasons: Vec<(Box<str>, Box<str>)>,
    /// They could not be read.
    pub(super) are_unavailable: bool,
}

impl PodReasons {
    /// While the Job starts.
    fn of(&self, job: &Job) -> Option<&str> {
        let is_it = |(uid, _): &&(Box<str>, Box<str>)| *uid == job.uid;
        let reason = self.reasons.iter().find(is_it).filter(|_| job.situation.state == JobState::Starting);
        reason.map(|(_, reason)| &**reason)
    }
}

/// A member of a page.
fn counts(all: impl Iterator<Item = (JobState, usize)>) -> Vec<u8> {
    let all: Vec<_> = all.map(|(state, number)| format!("\"{}\":{number}", state.name())).collect();
    format!(",\"counts\":{{{}}}", all.join(",")).into_bytes()
}

type Key<'k> = (&'k str, &'k str);

/// Creation time, which sorts as text, and name.
fn key_of(job: &Job) -> Key<'_> {
    (job.created.as_deref().unwrap_or_default(), &job.name)
}

/// Where a page ends, for any replica.
fn token((created, name): Key<'_>) -> String {
    hex(format!("{created}/{name}").as_bytes())
}

fn position(token: &str) -> Option<(String, String)> {
    if !token.len().is_multiple_of(2) {
        return None;
    }
    let digits: Vec<u8> = token.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let text = String::from_utf8_lossy(&bytes);
    text.split_once('/').map(|(created, name)| (created.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn query(text: &str) -> Result<Query, String> {
        let mut request = Request::of::<&str>(&[]);
        request.query = 0..text.len();
        request.bytes = text.as_bytes().to_vec();
        Query::of(&request, Enabled::default()).map_err(|status| status.message)
    }

    fn jobs() -> Known {
        let job = |number: usize| Job {
            name: format!("job-{number}").into(),
            created: Some(format!("2026-11-26T10:{:02}:00Z", number / 2).into()),
            ..Job::default()
        };
        Known::of((0..5).map(job))
    }

    fn page(known: &Known, text: &str) -> (Vec<String>, Option<String>, Reply) {
        let reply = query(text).unwrap().page(known, None).unwrap().reply;
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        let names = body["items"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned());
        (names.collect(), body["continue"].as_str().map(str::to_owned), reply)
    }

    #[test]
    fn pages_have_the_newest_first_and_each_job_once() {
        let (mut all, mut text) = (Vec::new(), "limit=2&%63ontinue=7a2f".to_owned());
        loop {
            let (names, next, reply) = page(&jobs(), &text);
            all.extend(names);
            let Some(next) = next else {
                assert!(reply.headers.is_empty());
                break;
            };
            let link = format!("<?limit=2&continue={next}>; rel=\"next\"");
            assert_eq!(reply.headers, [("Link", link.clone())]);
            text = link["<?".len()..link.find('>').unwrap()].to_owned();
        }
        assert_eq!(all, ["job-4", "job-2", "job-3", "job-0", "job-1"]);
    }

    #[test]
    fn pages_are_bounded_in_bytes() {
        let long =
            || serde_json::value::RawValue::from_string(format!("{{\"x\":\"{}\"}}", "x".repeat(MAX_PAGE / 3))).unwrap();
        let job = |number: usize| Job { name: format!("job-{number}").into(), status: long(), ..Job::default() };
        let (names, next, reply) = page(&Known::of((0..5).map(job)), "");
        assert_eq!((names.len(), next.is_some(), reply.headers.len()), (2, true, 1));
    }

    #[test]
    fn the_work_for_a_page_is_bounded() {
        let job = |number: usize| {
            let state = if number == 0 { JobState::Failed } else { JobState::Running };
            let situation = crate::kube::Situation { state, ..Default::default() };
            Job { name: "x".into(), created: Some(format!("{number:05}").into()), situation, ..Job::default() }
        };
        let jobs = (0..2 * MAX_LOOKED_AT + 1).map(|number| Job { name: format!("job-{number}").into(), ..job(number) });
        let known = Known::of(jobs);
        let (mut found, mut pages, mut text) = (Vec::new(), 0, "state=failed".to_owned());
        loop {
            let (names, next, _) = page(&known, &text);
            (pages, found) = (pages + 1, [found, names].concat());
            let Some(next) = next else { break };
            text = format!("state=failed&continue={next}")
        }
        assert_eq!((found, pages), (vec!["job-0".to_owned()], 3));
    }

    #[test]
    fn a_page_says_why_pods_wait_once_that_is_known() {
        let job = |number: usize| {
            let state = if number.is_multiple_of(2) { JobState::Starting } else { JobState::Running };
            let situation = crate::kube::Situation { state, ..Default::default() };
            let name = || format!("job-{number}").into();
            Job { name: name(), uid: name(), created: Some(format!("{number:05}").into()), situation, ..Job::default() }
        };
        let known = Known::of((0..200).map(job));
        let query = Query { pods: true, counts: true, name: Some("job-1".into()), ..query("limit=500").unwrap() };
        let Page { starting, reply } = query.page(&known, None).unwrap();
        let items = |reply: &Reply| serde_json::from_slice::<Value>(&reply.body).unwrap();
        assert_eq!((starting.len(), items(&reply)["items"].as_array().unwrap().len()), (MAX_JOBS, 111));
        assert_eq!(items(&reply)["counts"]["starting"], 100, "of all Jobs");
        let reasons = ["job-10", "job-11"].map(|uid| (uid.into(), "ErrImagePull".into())).into();
        let reasons = PodReasons { reasons, are_unavailable: true };
        let Page { starting, reply } = query.page(&known, Some(&reasons)).unwrap();
        assert!(starting.is_empty());
        let reply = items(&reply);
        let why: Vec<_> =
            reply["items"].as_array().unwrap().iter().filter(|job| job.get("podReason").is_some()).collect();
        assert_eq!((why.len(), &why[0]["id"], &why[0]["podReason"]), (1, &"job-10".into(), &"ErrImagePull".into()));
        assert_eq!(reply["podsUnavailable"], true);
    }

    #[test]
    fn bad_queries_are_named() {
        for (text, says) in [
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("limit=x", "limit"),
            ("state=lost", "state"),
            ("label=x", "label"),
            ("counts=1", "counts"),
            (&format!("name={}", "x".repeat(64)), "name"),
            ("continue=zz", "continue"),
            ("continue=abc", "continue"),
            (&"label=a=b&".repeat(17), "label"),
        ] {
            let message = query(text).unwrap_err();
            assert!(message.starts_with(says), "{text}: {message}");
        }
        let unknown =
            "unknown query parameter \"lable\"; known for this request: limit, continue, state, label, name, counts";
        assert_eq!(query("limit=1&lable=a"), Err(unknown.into()));
        assert!(page(&jobs(), "state=failed").0.is_empty() && page(&jobs(), "label=a=b").0.is_empty());
    }
}
