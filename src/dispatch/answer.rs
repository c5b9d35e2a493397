//! The JSON object that tells callers of a Job.

use crate::kube::{Job, Situation};
use serde::Serialize;
use serde_json::value::RawValue;

/// What an answer has beside the Job.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beside {
    pub(super) is_dry_run: bool,
    /// Of the API server.
    pub(super) warnings: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'j> {
    id: &'j str,
    state: crate::kube::State,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<&'j str>,
    status: &'j RawValue,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    #[serde(skip_serializing_if = "is_zero")]
    warnings: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// As JSON text. `id`: the Job's name.
pub(super) fn object(id: &str, job: &Job, beside: Beside) -> Vec<u8> {
    let Situation { state, reason, message, finished } = &job.situation;
    let object = Object {
        id,
        state: *state,
        reason: reason.as_deref(),
        message: message.as_deref(),
        created: job.created.as_deref(),
        started: job.started.as_deref(),
        finished: finished.as_deref(),
        status: &job.status,
        dry_run: beside.is_dry_run,
        warnings: beside.warnings,
    };
    serde_json::to_vec(&object).expect("strings, numbers and JSON can be written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::State;

    #[test]
    fn only_what_is_known_is_told() {
        let text = |job: &Job, beside| String::from_utf8(object("a", job, beside)).unwrap();
        let nothing = Job::default();
        assert_eq!(text(&nothing, Beside::default()), r#"{"id":"a","state":"waiting","status":{}}"#);
        let beside = Beside { is_dry_run: true, warnings: 2 };
        let want = r#"{"id":"a","state":"waiting","status":{},"dryRun":true,"warnings":2}"#;
        assert_eq!(text(&nothing, beside), want);
        let some = |text: &str| Some(text.to_owned());
        let situation =
            Situation { state: State::Failed, reason: some("R"), message: some("\"m\""), finished: some("F") };
        let status = RawValue::from_string("{\"failed\":1}".into()).unwrap();
        let job = Job { situation, created: some("C"), started: some("S"), status, ..nothing };
        let want = r#"{"id":"a","state":"failed","reason":"R","message":"\"m\"","created":"C","started":"S","finished":"F","status":{"failed":1}}"#;
        assert_eq!(text(&job, Beside::default()), want);
    }
}
