//! A page of our Jobs, from what the watch tells. Pure.

use super::answer::{Told, object};
use crate::filter::hex;
use crate::http::{Reply, Request, query_pairs};
use crate::kube::{Job, State};
use crate::status::{Reason, Status};
use std::sync::Arc;

const LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;
/// Bytes of a page: five hundred ordinary Jobs. What does not fit is on the next; one large Job is a page of its own.
pub(crate) const MAX_PAGE: usize = 256 << 10;
/// Each is looked for in every Job.
const MAX_LABELS: usize = 16;

/// What a caller asks for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Query {
    limit: usize,
    /// Creation time and name of the last Job of the page before.
    after: Option<(String, String)>,
    state: Option<State>,
    /// All of these.
    labels: Vec<(String, String)>,
    /// The rest of the query, as sent, for the next page.
    rest: String,
}

impl Query {
    /// Errors: 400, naming the parameter. Unknown parameters are ignored.
    pub(crate) fn of(request: &Request) -> Result<Self, Status> {
        let bad = |what: &str, why: &str| Status::new(Reason::BadRequest, format!("{what} {why}"));
        let mut query = Query { limit: LIMIT, ..Query::default() };
        for (name, value) in query_pairs(request.query()) {
            match &*name {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                    query.limit = limit.ok_or_else(|| bad("limit", "is not a number from 1 to 500"))?
                }
                "continue" => {
                    let after = position(&value).ok_or_else(|| bad("continue", "is not of an answer before"))?;
                    query.after = Some(after)
                }
                "state" => {
                    let state = State::ALL.into_iter().find(|state| state.name() == value);
                    query.state = Some(state.ok_or_else(|| bad("state", "is no state of a Job"))?)
                }
                "label" => {
                    let (key, value) = value.split_once('=').ok_or_else(|| bad("label", "has no form key=value"))?;
                    if query.labels.len() >= MAX_LABELS {
                        return Err(bad("label", "is there more than 16 times"));
                    }
                    query.labels.push((key.to_owned(), value.to_owned()))
                }
                _ => (),
            }
        }
        // as sent, but for what would end the reference in a `Link`
        let is_rest = |pair: &&str| query_pairs(pair).any(|(name, _)| name != "continue");
        let rest: Vec<_> = request.query().split('&').filter(is_rest).collect();
        query.rest = rest.join("&").replace('<', "%3C").replace('>', "%3E").replace('"', "%22");
        Ok(query)
    }

    /// Whether the Job is one of those that are asked for.
    fn wants(&self, name: &str, job: &Job) -> bool {
        self.state.is_none_or(|state| job.situation.state == state)
            && self.labels.iter().all(|(key, value)| job.label(key) == Some(value))
            && self.after.as_ref().is_none_or(|(created, last)| order((created, last), key_of(name, job)).is_lt())
    }

    /// Those of a page, and the one behind it, in order. `jobs`: all that are known.
    pub(crate) fn choose<'j>(&self, jobs: impl Iterator<Item = (&'j str, &'j Arc<Job>)>) -> Chosen {
        let mut first: Vec<(&str, &Arc<Job>)> = Vec::new();
        for (name, job) in jobs.filter(|(name, job)| self.wants(name, job)) {
            let key = key_of(name, job);
            let place = first.partition_point(|(name, job)| order(key_of(name, job), key).is_lt());
            if place <= self.limit {
                first.insert(place, (name, job));
                first.truncate(self.limit + 1)
            }
        }
        first.into_iter().map(|(name, job)| (name.to_owned(), job.clone())).collect()
    }

    /// `is_truncated`: some Jobs are not known.
    pub(crate) fn page(&self, chosen: Chosen, is_truncated: bool) -> Reply {
        let mut body = b"{\"items\":[".to_vec();
        let (mut last, mut has_more) = (None, false);
        for (number, (name, job)) in chosen.iter().enumerate() {
            let object = object(&Told { name: name.clone(), ..Told::default() }, job);
            has_more = number >= self.limit || number > 0 && body.len() + object.len() > MAX_PAGE;
            if has_more {
                break;
            }
            if number > 0 {
                body.push(b',')
            }
            body.extend(object);
            last = Some(key_of(name, job))
        }
        body.push(b']');
        let next = last.filter(|_| has_more).map(token);
        if let Some(next) = &next {
            body.extend(format!(",\"continue\":\"{next}\"").as_bytes())
        }
        if is_truncated {
            body.extend(b",\"truncated\":true")
        }
        body.push(b'}');
        let reply = Reply::json(200, body);
        match next {
            None => reply,
            Some(next) => {
                let rest = if self.rest.is_empty() { String::new() } else { format!("{}&", self.rest) };
                reply.with_header("Link", format!("<?{rest}continue={next}>; rel=\"next\"")) // RFC 8288
            }
        }
    }
}

/// Jobs with their names.
pub(crate) type Chosen = Vec<(String, Arc<Job>)>;

type Key<'k> = (&'k str, &'k str);

/// Creation time, which sorts as text, and name.
fn key_of<'j>(name: &'j str, job: &'j Job) -> Key<'j> {
    (job.created.as_deref().unwrap_or_default(), name)
}

/// The newest first.
fn order(one: Key<'_>, other: Key<'_>) -> std::cmp::Ordering {
    other.0.cmp(one.0).then(one.1.cmp(other.1))
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
        Query::of(&request).map_err(|status| status.message)
    }

    fn jobs() -> Vec<(String, Arc<Job>)> {
        let job = |minute: usize| Job { created: Some(format!("2026-11-26T10:{minute:02}:00Z")), ..Job::default() };
        (0..5).map(|number| (format!("job-{number}"), Arc::new(job(number / 2)))).collect()
    }

    fn page(text: &str) -> (Vec<String>, Option<String>, Reply) {
        let jobs = jobs();
        let query = query(text).unwrap();
        let reply = query.page(query.choose(jobs.iter().map(|(name, job)| (&**name, job))), false);
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        let names = body["items"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned());
        (names.collect(), body["continue"].as_str().map(str::to_owned), reply)
    }

    #[test]
    fn pages_have_the_newest_first_and_each_job_once() {
        let (mut all, mut text) = (Vec::new(), "limit=2&x=y&%63ontinue=7a2f".to_owned());
        loop {
            let (names, next, reply) = page(&text);
            all.extend(names);
            let Some(next) = next else {
                assert!(reply.headers.is_empty());
                break;
            };
            let link = format!("<?limit=2&x=y&continue={next}>; rel=\"next\"");
            assert_eq!(reply.headers, [("Link", link.clone())]);
            text = link["<?".len()..link.find('>').unwrap()].to_owned();
        }
        assert_eq!(all, ["job-4", "job-2", "job-3", "job-0", "job-1"]);
    }

    #[test]
    fn pages_are_bounded_in_bytes() {
        let long =
            serde_json::value::RawValue::from_string(format!("{{\"x\":\"{}\"}}", "x".repeat(MAX_PAGE / 3))).unwrap();
        let job = Arc::new(Job { status: long, ..Job::default() });
        let names: Vec<_> = (0..5).map(|number: usize| format!("job-{number}")).collect();
        let query = query("").unwrap();
        let reply = query.page(query.choose(names.iter().map(|name| (&**name, &job))), true);
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!((body["items"].as_array().unwrap().len(), &body["truncated"]), (2, &Value::Bool(true)));
        assert!(body["continue"].is_string() && reply.headers.len() == 1);
    }

    #[test]
    fn bad_queries_are_named() {
        for (text, says) in [
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("limit=x", "limit"),
            ("state=lost", "state"),
            ("label=x", "label"),
            ("continue=zz", "continue"),
            ("continue=abc", "continue"),
            (&"label=a=b&".repeat(17), "label"),
        ] {
            let message = query(text).unwrap_err();
            assert!(message.starts_with(says), "{text}: {message}");
        }
        assert_eq!(query("unknown=1").unwrap().limit, LIMIT);
        assert!(page("state=failed").0.is_empty() && page("label=a=b").0.is_empty());
    }
}
