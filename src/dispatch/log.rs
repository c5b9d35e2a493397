//! Decides whose log a caller gets. Pure.

use super::unknown_parameter;
use crate::http::{Request, pairs};
use crate::kube::{Job, Pod, Pods, Which};
use crate::status::{Reason, Status};

const TAIL: u32 = 100;
/// Characters of a pod's name, a DNS-1123 subdomain.
const MAX_NAME: usize = 253;
/// Seconds: images are pulled, quotas freed.
const RETRY_AFTER: u32 = 2;

/// What a caller asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogQuery {
    /// None: of the newest pod.
    pod: Option<String>,
    /// None: of its default container.
    container: Option<String>,
    /// Lines, the last ones.
    tail: u32,
    /// Of the container's run before.
    previous: bool,
}

impl LogQuery {
    /// Errors: 400, naming the parameter; 404 for what no pod is called.
    pub(super) fn of(request: &Request) -> Result<Self, Status> {
        let mut query = LogQuery { pod: None, container: None, tail: TAIL, previous: false };
        for (name, value) in pairs(request.query().as_bytes()) {
            let bad = |what: &str| Status::new(Reason::BadRequest, format!("{name} is not {what}"));
            match &*name {
                "pod" => query.pod = Some(value.into_owned()),
                "container" => query.container = Some(value.into_owned()),
                "tail" => query.tail = value.parse().map_err(|_| bad("a number of lines"))?,
                "previous" => query.previous = value.parse().map_err(|_| bad("true or false"))?,
                _ => return Err(unknown_parameter(&name, &["pod", "container", "tail", "previous"])),
            }
        }
        match &query.pod {
            // it becomes part of a field selector
            Some(pod) if pod.len() > MAX_NAME || !pod.bytes().all(is_of_name) => Err(no_such_pod()),
            _ => Ok(query),
        }
    }

    /// The only pod that is asked for.
    pub(super) fn pod(&self) -> Option<&str> {
        self.pod.as_deref()
    }

    /// The pod and the container whose log is asked for.
    ///
    /// Errors: 404 if it is not there and will not be; 409 if it is not there yet.
    pub(super) fn choose(&self, job: &Job, pods: &Pods) -> Result<Which, Status> {
        let gone = |what: &str| Err(Status::new(Reason::NotFound, what));
        let pod = match &self.pod {
            None => pods.pods.first(),
            Some(name) => pods.pods.iter().find(|pod| pod.name == *name),
        };
        // where each try is a pod, the run before is that of the pod before
        let name_in = |pod: &Pod| self.container.clone().unwrap_or_else(|| pod.default_container.clone());
        let has_run_before =
            |pod: &Pod| pod.containers.iter().any(|container| container.name == name_in(pod) && container.has_previous);
        let before = pods.pods.get(1).filter(|_| self.previous && self.pod.is_none());
        let (pod, previous) = match (pod, before) {
            (Some(pod), Some(before)) if !has_run_before(pod) => (Some(before), false),
            (pod, _) => (pod, self.previous),
        };
        let Some(pod) = pod else {
            return match self.pod {
                Some(_) => Err(no_such_pod()),
                None if job.situation.state.is_final() || job.is_being_deleted => gone("the Job has no pods any more"),
                None => Err(not_started("the Job has no pod yet")),
            };
        };
        let name = &name_in(pod);
        if !pod.has_container(name) {
            return gone("the pod has no such container");
        }
        let status = pod.containers.iter().find(|container| container.name == *name);
        if previous && !pod.is_cut && !status.is_some_and(|container| container.has_previous) {
            return gone("the container has no run before its present one");
        }
        let which = |has_ended| {
            let (pod, container) = (pod.name.clone(), name.clone());
            Ok(Which { pod, container, tail: self.tail, previous, has_ended })
        };
        match status {
            Some(container) if container.has_log() => which(previous || !container.is_running()),
            // there was no room for its status
            None if pod.is_cut => which(pod.has_ended()),
            _ if pod.has_ended() => gone("the container was never started"),
            _ => {
                let why = status.map_or("", |container| &container.reason);
                let why = if matches!(why, "" | "PodInitializing") { &pod.reason } else { why };
                Err(match why {
                    "" => not_started("the container has not started"),
                    why => not_started(&format!("the container has not started: {why}")),
                })
            }
        }
    }
}

/// Of a DNS-1123 subdomain.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte)
}

fn no_such_pod() -> Status {
    Status::new(Reason::NotFound, "the Job has no such pod")
}

pub(super) fn not_started(message: &str) -> Status {
    Status::new(Reason::NotStarted, message).with_retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::{JobState, Pods, Situation};
    use serde_json::{Value, json};

    fn query(text: &str) -> Result<LogQuery, String> {
        let mut request = Request::of::<&str>(&[]);
        request.query = 0..text.len();
        request.bytes = text.as_bytes().to_vec();
        LogQuery::of(&request).map_err(|status| status.message)
    }

    fn pod(name: &str, created: &str, status: Value) -> Value {
        json!({
            "metadata": {"name": name, "creationTimestamp": created, "ownerReferences": [{"uid": "u"}]},
            "spec": {"containers": [{"name": "main"}, {"name": "side"}]},
            "status": status,
        })
    }

    /// What is chosen, or code and message.
    fn choice(text: &str, state: JobState, pods: Value) -> Result<(String, String), (u16, String)> {
        let list = json!({"kind": "PodList", "items": pods}).to_string();
        let pods = Pods::default().with_page(&mut list.as_bytes(), "u").unwrap();
        let job = Job { situation: Situation { state, ..Situation::default() }, ..Job::default() };
        let which = query(text).unwrap().choose(&job, &pods);
        which.map(|which| (which.pod, which.container)).map_err(|status| (status.code(), status.message))
    }

    #[test]
    fn queries() {
        let want = LogQuery { pod: Some("p".into()), container: Some("c".into()), tail: 7, previous: true };
        assert_eq!(query("pod=p&container=c&tail=7&previous=true"), Ok(want));
        assert_eq!(query("").unwrap().tail, 100);
        assert!(
            query("tial=1").unwrap_err().starts_with("unknown query parameter \"tial\"; known for this request: pod, ")
        );
        for odd in ["pod=a,b", &format!("pod={}", "a".repeat(5000))] {
            assert_eq!(query(odd), Err("the Job has no such pod".into()));
        }
        for text in ["tail=-1", "tail=x", "tail=4294967296", "previous=1", "previous="] {
            let message = query(text).unwrap_err();
            assert!(message.starts_with(text.split('=').next().unwrap()), "{message}");
        }
    }

    #[test]
    fn whose_log() {
        let statuses = json!([
            {"name": "main", "state": {"running": {"startedAt": "S"}}},
            {"name": "side", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}},
        ]);
        let runs = |name, created| pod(name, created, json!({"phase": "Running", "containerStatuses": statuses}));
        let two = || json!([runs("old", "2025"), runs("new", "2026")]);
        let chosen = |pod: &str, container: &str| Ok((pod.to_owned(), container.to_owned()));
        let refused = |code: u16, message: &str| Err((code, message.to_owned()));
        let choice_of_two = |text| choice(text, JobState::Running, two());
        assert_eq!(choice_of_two(""), chosen("new", "main"));
        assert_eq!(choice_of_two("pod=old&container=side"), chosen("old", "side"));
        assert_eq!(choice_of_two("previous=true&container=side"), chosen("new", "side"));
        assert_eq!(choice_of_two("previous=true"), chosen("old", "main"), "each try is a pod");
        let alone = json!([runs("new", "2026")]);
        let of_one = choice("previous=true", JobState::Running, alone);
        assert_eq!(of_one, refused(404, "the container has no run before its present one"));
        let named = choice_of_two("previous=true&pod=new");
        assert_eq!(named, refused(404, "the container has no run before its present one"));
        let pending = pod("new", "2027", json!({"phase": "Pending"}));
        let retried = json!([runs("old", "2025"), pending]);
        assert_eq!(choice("", JobState::Starting, retried.clone()), refused(409, "the container has not started"));
        assert_eq!(choice("previous=true", JobState::Starting, retried), chosen("old", "main"));
        assert_eq!(choice_of_two("pod=other"), refused(404, "the Job has no such pod"));
        assert_eq!(choice_of_two("container=other"), refused(404, "the pod has no such container"));
        assert_eq!(choice("", JobState::Waiting, json!([])), refused(409, "the Job has no pod yet"));
        assert_eq!(choice("", JobState::Failed, json!([])), refused(404, "the Job has no pods any more"));
        let one = |status| choice("", JobState::Starting, json!([pod("p", "2026", status)]));
        assert_eq!(one(json!({"phase": "Pending"})), refused(409, "the container has not started"));
        let pulls = json!({"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
        assert_eq!(one(pulls), refused(409, "the container has not started: ImagePullBackOff"));
        let unschedulable = json!({"phase": "Pending", "conditions": [{"reason": "Unschedulable"}]});
        assert_eq!(one(unschedulable), refused(409, "the container has not started: Unschedulable"));
        assert_eq!(
            one(json!({"phase": "Failed", "reason": "Evicted"})),
            refused(404, "the container was never started")
        );
        let ended = json!({"phase": "Succeeded", "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 0}}}]});
        assert_eq!(one(ended), chosen("p", "main"));
    }
}
