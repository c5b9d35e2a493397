//! Kinds of requests.

use super::super::http::{self, JSON};
use serde_json::json;

/// On each Job: the number of the request that it was made for.
pub(super) const REQUEST: &str = "chaos/request";
const ATTEMPT: &str = "chaos/attempt";
const DRAWN: &str = "drawn";
/// Of the replicas: draws a name where the request asks for it.
pub(super) const FILTER: &str = r#"if .metadata.name == "drawn" then .metadata.name += "-\(cuid2)" end"#;
pub(super) const DELIVERIES: &str = "--idempotency-headers=X-GitHub-Delivery";

/// Where the name of a request's Job comes from, which decides what its caller may do after a failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Named,
    Keyed,
    /// The filter draws the name, and there is a key.
    Drawn,
    /// By the id of a delivery. Two requests, with two paths, have one id; each attempt has another body.
    Delivered,
    /// Without a key: its caller does not repeat it.
    Random,
}

impl Kind {
    pub(super) fn of(request: usize) -> Self {
        match request % 10 {
            0..3 => Kind::Named,
            3..5 => Kind::Keyed,
            5 => Kind::Drawn,
            6 | 7 => Kind::Delivered,
            _ => Kind::Random,
        }
    }

    /// Whether each time makes the same Job.
    pub(super) fn is_repeatable(self) -> bool {
        self != Kind::Random
    }
}

/// What is sent, at this attempt.
pub(super) fn message(request: usize, attempt: usize) -> String {
    let kind = Kind::of(request);
    let metadata = match kind {
        Kind::Named => json!({"name": format!("named-{request}")}),
        Kind::Keyed => json!({"generateName": "keyed-"}),
        Kind::Drawn => json!({"name": DRAWN}),
        Kind::Delivered => json!({"generateName": "delivered-"}),
        Kind::Random => json!({"generateName": "random-"}),
    };
    let mut manifest = json!({
        "metadata": metadata,
        "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "job", "image": "busybox"}],
        }}},
    });
    manifest["metadata"]["annotations"] = json!({ REQUEST: request.to_string() });
    let (target, key) = match kind {
        Kind::Named | Kind::Random => ("/job", String::new()),
        Kind::Keyed | Kind::Drawn => ("/job", format!("Idempotency-Key: key-{request}\r\n")),
        Kind::Delivered => {
            manifest["metadata"]["annotations"][ATTEMPT] = json!(attempt.to_string());
            let path = if request.is_multiple_of(2) { "/job/build" } else { "/job/scan" };
            (path, format!("X-GitHub-Delivery: delivery-{}\r\n", request / 2))
        }
    };
    http::request("POST", target, &format!("{JSON}{key}"), &manifest.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_requests_have_the_id_of_one_delivery() {
        let line = |request: usize, begin: &str| {
            let text = super::message(request, 0);
            text.lines().find(|line| line.starts_with(begin)).map(str::to_owned)
        };
        let is_delivered = |request: usize| super::Kind::of(request) == super::Kind::Delivered;
        assert!(is_delivered(16) && is_delivered(17));
        assert_eq!(line(16, "X-GitHub-Delivery: "), line(17, "X-GitHub-Delivery: "));
        assert_ne!(line(16, "X-GitHub-Delivery: "), line(26, "X-GitHub-Delivery: "));
        assert_ne!(line(16, "POST "), line(17, "POST "));
        let differs = |request: usize| super::message(request, 0) != super::message(request, 1);
        assert!(differs(16) && !differs(13));
    }
}
