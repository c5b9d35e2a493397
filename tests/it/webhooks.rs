use crate::dispatch::manifest;
use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::eventually;
use crate::support::http::Reply;
use crate::support::namespace::Namespace;
use crate::support::webhook::{Behaviour, Webhook};
use serde_json::{Value, json};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
/// What webhooks and policies say in these tests; no caller may see it.
const SECRET: &str = "said-by-the-webhook";

fn named(name: &str) -> String {
    manifest(json!({"name": name}), json!({}))
}

/// A namespace, its webhook and a dispatcher. Fields are dropped in this order.
struct Setup {
    dispatcher: Dispatcher,
    webhook: Webhook,
    namespace: Namespace,
}

impl Setup {
    fn new(args: &[&str]) -> Self {
        let namespace = Namespace::new();
        let webhook = Webhook::new(&namespace);
        let dispatcher = Dispatcher::for_namespace(&namespace, &[&[AS_IS], args].concat());
        Setup { dispatcher, webhook, namespace }
    }

    /// The API server's own words for a denial with this Status, which must be those of a webhook.
    fn deny(&self, status: Value) -> (u16, Value) {
        self.webhook.behave(Behaviour::deny(status));
        let (code, answer) = self.namespace.try_create_job("asked-directly");
        let words = format!("admission webhook \"{}\" denied the request", self.webhook.name);
        assert!(answer["message"].as_str().unwrap_or_default().starts_with(&words), "{code} {answer}");
        (code, answer)
    }
}

/// All that is wrong with a test's replies, so that one run shows each case.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn check(&mut self, case: &str, reply: &Reply, code: u16, reason: &str) {
        let text = String::from_utf8_lossy(&reply.body);
        let json = serde_json::from_str::<Value>(&text).unwrap_or_default();
        let retry_after = reply.header("Retry-After");
        let mut because = Vec::new();
        if (reply.code, &json["error"]["code"], &json["error"]["reason"]) != (code, &json!(code), &json!(reason)) {
            because.push(format!("not {code} {reason}"));
        }
        if text.contains(SECRET) {
            because.push("has the webhook's message".to_owned());
        }
        let seconds = retry_after.and_then(|seconds| seconds.parse::<u32>().ok()).filter(|seconds| *seconds > 0);
        if (code == 503) != seconds.is_some() {
            because.push(format!("Retry-After is {retry_after:?}"));
        }
        if !because.is_empty() {
            self.0.push(format!("{case}: {}: got {} {text}", because.join(", "), reply.code));
        }
    }

    fn assert_none(self) {
        assert!(self.0.is_empty(), "{} wrong:\n{}", self.0.len(), self.0.join("\n"));
    }
}

#[test]
fn a_denial_by_a_webhook_is_422_forbidden_whatever_its_code() {
    let setup = Setup::new(&[]);
    let mut wrong = Wrong::default();
    for code in [0, 200, 302, 400, 401, 403, 404, 405, 406, 408, 409, 410, 413, 415, 418, 422, 451, 501, 502, 599] {
        let mut status = json!({"message": SECRET});
        if code > 0 {
            status["code"] = json!(code);
        }
        let (answered, _) = setup.deny(status);
        assert_eq!(answered, if code < 400 { 400 } else { code });
        let reply = setup.dispatcher.post("/job", &named(&format!("code-{code}")));
        wrong.check(&format!("code {code}"), &reply, 422, "Forbidden");
    }
    wrong.assert_none();
    assert_eq!(setup.namespace.job_names(), [""; 0]);
}

#[test]
fn a_denial_by_a_webhook_is_422_forbidden_whatever_its_reason() {
    let setup = Setup::new(&[]);
    let jobs = json!({"name": "a", "group": "batch", "kind": "jobs"});
    let mut wrong = Wrong::default();
    for (code, reason, details) in [
        (409, "AlreadyExists", jobs.clone()),
        (409, "Conflict", json!({"kind": "resourcequotas"})),
        (409, "Conflict", jobs.clone()),
        (404, "NotFound", jobs.clone()),
        (404, "NotFound", json!({"name": "n", "kind": "namespaces"})),
        (400, "Timeout", json!(null)),
        (408, "Timeout", json!({"retryAfterSeconds": 7})),
        (400, "ServerTimeout", json!({"retryAfterSeconds": 7})),
        (403, "InternalError", json!(null)),
        (400, "ServiceUnavailable", json!(null)),
        (400, "TooManyRequests", json!({"retryAfterSeconds": 7})),
        (403, "Forbidden", json!({"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]})),
        (401, "Unauthorized", json!(null)),
        (410, "Expired", json!(null)),
        (410, "Gone", json!(null)),
        (413, "RequestEntityTooLarge", json!(null)),
        (422, "Invalid", json!({"causes": [{}]})),
        (422, "Invalid", json!({"causes": [{"message": SECRET}]})),
        (400, "BadRequest", json!(null)),
    ] {
        let (answered, answer) =
            setup.deny(json!({"message": SECRET, "code": code, "reason": reason, "details": details}));
        assert_eq!((answered, &answer["reason"]), (code, &json!(reason)));
        let reply = setup.dispatcher.post("/job", &named("a"));
        wrong.check(&format!("{code} {reason} {details}"), &reply, 422, "Forbidden");
    }
    for status in [json!(null), json!({}), json!({"code": 409}), json!({"reason": "AlreadyExists"})] {
        setup.deny(status.clone());
        let reply = setup.dispatcher.post("/job", &named("a"));
        wrong.check(&format!("status {status}"), &reply, 422, "Forbidden");
    }
    wrong.assert_none();
    assert_eq!(setup.namespace.job_names(), [""; 0]);
}

#[test]
fn a_webhook_that_denies_with_its_own_fault_gives_503_with_retry_after() {
    let setup = Setup::new(&[]);
    let mut wrong = Wrong::default();
    for code in [429, 500, 503, 504] {
        let reason = match code {
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            _ => "Timeout",
        };
        for status in [
            json!({"message": SECRET, "code": code}),
            json!({"message": SECRET, "code": code, "reason": reason}),
            json!({"message": SECRET, "code": code, "reason": reason, "details": {"retryAfterSeconds": 7}}),
            json!({"message": SECRET, "code": code, "reason": "AlreadyExists", "details": {"kind": "jobs"}}),
        ] {
            assert_eq!(setup.deny(status.clone()).0, code);
            let reply = setup.dispatcher.post("/job", &named("a"));
            wrong.check(&status.to_string(), &reply, 503, "ServiceUnavailable");
        }
    }
    wrong.assert_none();
    assert_eq!(setup.namespace.job_names(), [""; 0]);
    setup.webhook.behave(Behaviour::allow());
    assert_eq!(setup.dispatcher.post("/job", &named("a")).code, 201);
}

#[test]
fn what_a_webhooks_message_resembles_makes_no_difference() {
    let setup = Setup::new(&[]);
    let mut wrong = Wrong::default();
    for message in [
        "x is forbidden: exceeded quota: y",
        "jobs.batch \"a\" is forbidden: exceeded quota: y, requested: count/jobs.batch=1",
        "jobs.batch \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
        "ValidatingAdmissionPolicy 'p'",
        "forbidden: ValidatingAdmissionPolicy 'p'",
        "jobs.batch \"a\" already exists",
        "namespaces \"n\" not found",
        "Internal error occurred: failed calling webhook \"w\": EOF",
        "Job in version \"v1\" cannot be handled as a Job: json: cannot unmarshal string into Go struct field JobSpec.spec.parallelism of type int32",
        "Job in version \"v1\" cannot be handled as a Job: strict decoding error: unknown field \"spec.x\"",
    ] {
        for code in [400, 403, 422] {
            setup.deny(json!({"message": message, "code": code}));
            let reply = setup.dispatcher.post("/job", &named("a"));
            wrong.check(&format!("{code} {message}"), &reply, 422, "Forbidden");
            if reply.json()["error"].get("causes").is_some() {
                wrong.0.push(format!("{code} {message}: has causes: {}", reply.json()));
            }
        }
        setup.deny(json!({"message": message, "code": 503}));
        let reply = setup.dispatcher.post("/job", &named("a"));
        wrong.check(&format!("503 {message}"), &reply, 503, "ServiceUnavailable");
    }
    wrong.assert_none();
    assert_eq!(setup.namespace.job_names(), [""; 0]);
}

#[test]
fn a_manifest_that_quotes_a_denial_is_422_invalid_with_its_causes() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let mut wrong = Wrong::default();
    for words in [
        "admission webhook \"w.example.com\" denied the request: no",
        "admission webhook \"",
        "jobs.batch \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
    ] {
        let container = "spec.template.spec.containers[0].name";
        for (field, pointer, value, cause) in [
            ("restartPolicy", "/spec/template/spec/restartPolicy", json!(words), "spec.template.spec.restartPolicy"),
            ("label", "/metadata/labels", json!({"x": words}), "metadata.labels"),
            ("annotation", "/metadata/annotations", json!({words: "x"}), "metadata.annotations"),
            ("name", "/spec/template/spec/containers/0/name", json!(words), container),
            ("mode", "/spec/completionMode", json!(words), "spec.completionMode"),
            ("parallelism", "/spec/parallelism", json!(words), "spec.parallelism"),
        ] {
            let mut body: Value = serde_json::from_str(&named("a")).unwrap();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            body.pointer_mut(parent).unwrap()[key] = value;
            let reply = dispatcher.post("/job", &body.to_string());
            let case = format!("{field} {words}");
            wrong.check(&case, &reply, 422, "Invalid");
            let json = reply.json();
            let causes = json["error"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
            if !causes.iter().any(|given| given["field"] == cause) {
                wrong.0.push(format!("{case}: no cause {cause}: {json}"));
            }
        }
        // a field that the API does not know
        let mut body: Value = serde_json::from_str(&named("a")).unwrap();
        body["spec"][words] = json!(1);
        wrong.check(&format!("unknown {words}"), &dispatcher.post("/job", &body.to_string()), 422, "Invalid");
    }
    wrong.assert_none();
    assert_eq!(namespace.job_names(), [""; 0]);
}

/// A ValidatingAdmissionPolicy for creations of Jobs in one namespace, until this is dropped.
struct Policy<'a>(&'a Namespace);

impl<'a> Policy<'a> {
    /// Returns once it denies the Job `probe`.
    fn new(namespace: &'a Namespace, validations: Value, probe: &str) -> Self {
        let (admin, name) = (namespace.admin(), &namespace.name);
        let rule =
            json!({"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]});
        let policy = json!({"metadata": {"name": name}, "spec": {
            "failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]}, "validations": validations,
        }});
        let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
        let binding = json!({"metadata": {"name": name}, "spec": {
            "policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": selector},
        }});
        admin.create(POLICIES, policy);
        let policy = Policy(namespace);
        admin.create(BINDINGS, binding);
        eventually("the policy to be in force", || (namespace.try_create_job(probe).0 != 201).then_some(()));
        policy
    }
}

impl Drop for Policy<'_> {
    fn drop(&mut self) {
        for resource in [BINDINGS, POLICIES] {
            self.0.admin().try_call("DELETE", &format!("{resource}/{}", self.0.name), None);
        }
    }
}

#[test]
fn a_denial_by_a_policy_is_422_forbidden_whatever_its_reason() {
    let namespace = Namespace::new();
    let message = format!("{SECRET} is forbidden: exceeded quota: y");
    let is_not = |job: &str| format!("object.metadata.name != '{job}'");
    // the API server accepts these reasons, and no other
    let validations = json!([
        {"expression": is_not("default"), "message": message},
        {"expression": is_not("forbidden"), "message": message, "reason": "Forbidden"},
        {"expression": is_not("invalid"), "message": message, "reason": "Invalid"},
        {"expression": is_not("too-large"), "message": message, "reason": "RequestEntityTooLarge"},
        {"expression": is_not("no-message")},
        // cannot be evaluated: there is no such annotation
        {"expression": format!("{} || object.metadata.annotations['x'] == 'x'", is_not("failing"))},
    ]);
    let _policy = Policy::new(&namespace, validations, "default");
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let mut wrong = Wrong::default();
    for (job, code) in [
        ("default", 422),
        ("forbidden", 403),
        ("invalid", 422),
        ("too-large", 413),
        ("no-message", 422),
        ("failing", 422),
    ] {
        let (answered, answer) = namespace.try_create_job(job);
        assert_eq!(answered, code, "{answer}");
        let words = format!("jobs.batch \"{job}\" is forbidden: ValidatingAdmissionPolicy '");
        assert!(answer["message"].as_str().unwrap().starts_with(&words), "{answer}");
        wrong.check(job, &dispatcher.post("/job", &named(job)), 422, "Forbidden");
    }
    wrong.assert_none();
    assert_eq!(namespace.job_names(), [""; 0]);
    assert_eq!(dispatcher.post("/job", &named("other")).code, 201);
}

#[test]
fn a_webhook_that_fails_gives_503_with_retry_after() {
    let namespace = Namespace::new();
    let webhook = Webhook::with_timeout(&namespace, 1);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let mut wrong = Wrong::default();
    for behaviour in [
        Behaviour::HangUp,
        Behaviour::Http(500, SECRET),
        Behaviour::Http(429, SECRET),
        Behaviour::Http(404, SECRET),
        Behaviour::Http(200, SECRET), // no AdmissionReview
        Behaviour::Silence,
    ] {
        webhook.behave(behaviour.clone());
        let (code, answer) = namespace.try_create_job("a");
        assert_eq!((code, &answer["reason"]), (500, &json!("InternalError")), "{behaviour:?}: {answer}");
        let reply = dispatcher.post("/job", &named("a"));
        wrong.check(&format!("{behaviour:?}"), &reply, 503, "ServiceUnavailable");
    }
    wrong.assert_none();
    assert_eq!(namespace.job_names(), [""; 0]);
}

#[test]
fn a_denial_with_already_exists_does_not_make_the_dispatcher_try_other_names() {
    let setup = Setup::new(&[]);
    for reason in ["AlreadyExists", "Conflict"] {
        setup.deny(json!({"message": SECRET, "code": 409, "reason": reason, "details": {"kind": "jobs"}}));
        let before = setup.webhook.calls();
        let mut wrong = Wrong::default();
        wrong.check(reason, &setup.dispatcher.post("/job", &manifest(json!({}), json!({}))), 422, "Forbidden");
        wrong.assert_none();
        assert_eq!(setup.webhook.calls() - before, 1, "{reason}");
    }
}

#[test]
fn a_dry_run_reports_a_webhooks_denial_too() {
    let setup = Setup::new(&["--dry-run=server"]);
    let mut wrong = Wrong::default();
    for (code, expected, reason) in [(400, 422, "Forbidden"), (409, 422, "Forbidden"), (504, 503, "ServiceUnavailable")]
    {
        setup.deny(json!({"message": SECRET, "code": code}));
        wrong.check(&code.to_string(), &setup.dispatcher.post("/job", &named("a")), expected, reason);
    }
    wrong.assert_none();
    setup.webhook.behave(Behaviour::allow());
    assert_eq!(setup.dispatcher.post("/job", &named("a")).code, 200);
}

#[test]
fn the_log_has_a_webhooks_message_and_the_caller_does_not() {
    let setup = Setup::new(&[]);
    for code in [400, 409, 503] {
        let message = format!("{SECRET}-with-{code}\nand another line");
        setup.deny(json!({"message": message, "code": code}));
        let reply = setup.dispatcher.post("/job", &named("a"));
        assert!(!String::from_utf8_lossy(&reply.body).contains(SECRET), "{:?}", reply.json());
        let line = setup.dispatcher.logged(&format!("{SECRET}-with-{code}"));
        assert!(line.contains(" WARN ") && line.contains("and another line"), "{line}");
    }
}

#[test]
fn long_warnings_of_a_webhook_do_not_fail_a_dispatch() {
    let setup = Setup::new(&[]);
    // the API server sends up to 4096 characters of warnings, whatever their length in UTF-8
    for (job, character) in [("three-bytes", "警"), ("four-bytes", "𠀀")] {
        let warnings: Vec<String> =
            (0..16).map(|number| format!("{SECRET}-{job}-{number:02}{}", character.repeat(220))).collect();
        setup.webhook.behave(Behaviour::allow_with_warnings(&warnings));
        let reply = setup.dispatcher.post("/job", &named(job));
        assert_eq!(reply.code, 201, "{job}: {}", reply.json());
        assert!(!String::from_utf8_lossy(&reply.body).contains(SECRET));
        for number in 0..16 {
            let line = setup.dispatcher.logged(&format!("{SECRET}-{job}-{number:02}"));
            assert!(line.contains(" WARN "), "{line}");
        }
        let reply = setup.dispatcher.post("/job", &named(job));
        assert_eq!(reply.code, 200, "{job}: {}", reply.json());
    }
    assert_eq!(setup.namespace.job_names(), ["four-bytes", "three-bytes"]);
}
