use super::*;
use serde_json::{Value, json};

fn refused(code: u16, body: &str) -> Refusal {
    refusal("a", code, None, body.as_bytes())
}

fn status(reason: &str, message: &str, details: Value) -> String {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "message": message, "details": details})
        .to_string()
}

#[test]
fn refusals_are_classified_by_code_reason_and_message() {
    let jobs = json!({"name": "a", "group": "batch", "kind": "jobs"});
    for (code, body, why) in [
        (409, status("AlreadyExists", "jobs.batch \"a\" already exists", jobs.clone()), RefusalKind::NameTaken),
        (
            409,
            status("AlreadyExists", "object is being deleted: jobs.batch \"a\" already exists", jobs.clone()),
            RefusalKind::NameTaken,
        ),
        (
            409,
            status("Conflict", "Operation cannot be fulfilled on resourcequotas", json!({"kind": "resourcequotas"})),
            RefusalKind::Conflict,
        ),
        (409, "conflict".to_owned(), RefusalKind::NameTaken),
        (
            409,
            status(
                "Conflict",
                "Operation cannot be fulfilled on jobs.batch \"a\": the object has been modified",
                jobs.clone(),
            ),
            RefusalKind::Conflict,
        ),
        (
            403,
            status(
                "Forbidden",
                "jobs.batch \"a\" is forbidden: exceeded quota: rq, requested: count/jobs.batch=1",
                jobs.clone(),
            ),
            RefusalKind::Quota,
        ),
        (
            403,
            status("Forbidden", "jobs.batch \"a\" is forbidden: status unknown for quota: rq", jobs.clone()),
            RefusalKind::Quota,
        ),
        (
            403,
            status(
                "Forbidden",
                "jobs.batch is forbidden: User \"system:serviceaccount:n:s\" cannot create resource \"jobs\" in API group \"batch\" in the namespace \"n\"",
                jobs.clone(),
            ),
            RefusalKind::NotAllowed,
        ),
        (
            403,
            status("Forbidden", "admission webhook \"w.example.com\" denied the request: no", json!(null)),
            RefusalKind::Policy,
        ),
        (
            403,
            status(
                "Forbidden",
                "admission webhook \"w\" denied the request: x is forbidden: exceeded quota: y",
                json!(null),
            ),
            RefusalKind::Policy,
        ),
        (
            403,
            status(
                "Forbidden",
                "jobs.batch \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
                jobs.clone(),
            ),
            RefusalKind::Policy,
        ),
        (
            403,
            status(
                "Forbidden",
                "jobs.batch \"a\" is forbidden: unable to create new content",
                json!({"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}),
            ),
            RefusalKind::NamespaceTerminating,
        ),
        (
            404,
            status("NotFound", "namespaces \"n\" not found", json!({"name": "n", "kind": "namespaces"})),
            RefusalKind::NoSuchNamespace,
        ),
        (404, status("NotFound", "jobs.batch \"a\" not found", jobs), RefusalKind::NoSuchJob),
        (404, "404 page not found".to_owned(), RefusalKind::Unexpected),
        (401, status("Unauthorized", "Unauthorized", json!(null)), RefusalKind::NotAuthenticated),
        (413, status("RequestEntityTooLarge", "limit is 3145728", json!(null)), RefusalKind::TooLarge),
        (429, "Too many requests, please try again later.".to_owned(), RefusalKind::Busy),
        (500, status("InternalError", "x", json!({})), RefusalKind::Fault),
        (
            500,
            status(
                "InternalError",
                "Internal error occurred: failed calling webhook \"w.example.com\": failed to call webhook: Post \"https://w/?timeout=10s\": context deadline exceeded",
                json!({"causes": [{"message": "failed calling webhook"}]}),
            ),
            RefusalKind::WebhookUnreachable,
        ),
        (500, status("InternalError", "failed calling webhook \"w\"", json!({})), RefusalKind::Fault),
        (504, status("Timeout", "x", json!({})), RefusalKind::Slow),
        (200, "<html>".to_owned(), RefusalKind::Unexpected),
        (502, String::new(), RefusalKind::Unexpected),
        (302, String::new(), RefusalKind::Unexpected),
    ] {
        assert_eq!(refused(code, &body).kind, why, "{code} {body}");
    }
}

#[test]
fn causes_come_from_details_or_from_the_message() {
    let field =
        |field: &str, reason: Option<&str>| Cause { field: Some(field.into()), reason: reason.map(str::to_owned) };
    let details = json!({"kind": "Job", "causes": [{"reason": "FieldValueRequired", "message": "secret", "field": "spec.template.spec.restartPolicy"}, {"message": "x"}]});
    let refusal = refused(422, &status("Invalid", "x", details));
    assert_eq!(refusal.causes, [field("spec.template.spec.restartPolicy", Some("FieldValueRequired")),]);
    let message = "Job in version \"v1\" cannot be handled as a Job: json: cannot unmarshal string into Go struct field JobSpec.spec.parallelism of type int32";
    assert_eq!(
        refused(400, &status("BadRequest", message, json!(null))).causes,
        [field("spec.parallelism", Some("FieldValueTypeInvalid"))]
    );
    let message = "Job in version \"v1\" cannot be handled as a Job: strict decoding error: unknown field \"spec.x\", unknown field \"y\"";
    assert_eq!(
        refused(400, &status("BadRequest", message, json!(null))).causes,
        [field("spec.x", None), field("y", None)]
    );
}

#[test]
fn retry_after_comes_from_header_or_details() {
    let body = status("TooManyRequests", "x", json!({"retryAfterSeconds": 7}));
    assert_eq!(refused(429, &body).retry_after, Some(7));
    assert_eq!(refusal("a", 429, Some(3), body.as_bytes()).retry_after, Some(3));
}

#[test]
fn a_denial_is_recognized_by_its_words_whatever_the_code() {
    let kind = |code, message: &str| refused(code, &status("Invalid", message, json!({"causes": [{}]}))).kind;
    let webhook =
        "admission webhook \"w.example.com\" denied the request: jobs.batch \"a\" is forbidden: exceeded quota: x";
    let policy = "jobs.batch \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no";
    for code in [400, 401, 403, 404, 409, 410, 413, 418, 422, 451] {
        assert_eq!(kind(code, webhook), RefusalKind::Policy, "{code}");
        assert_eq!(kind(code, policy), RefusalKind::Policy, "{code}");
    }
    for code in [429, 500, 503, 504] {
        assert_eq!(kind(code, webhook), RefusalKind::WebhookFault, "{code}");
    }
    assert_eq!(refused(422, &status("Invalid", policy, json!({"causes": [{}]}))).causes, [], "no empty causes");
    let mutating = "policy 'p' with binding 'b' denied request: expression 'x' resulted in error: y";
    assert_eq!(kind(403, mutating), RefusalKind::Policy);
    // anywhere else, the words are quoted from a manifest
    for message in [
        "Job.batch \"a\" is invalid: spec.x: Invalid value: \"admission webhook \\\"w\\\" denied\"",
        "jobs.batch \"b\" is forbidden: ValidatingAdmissionPolicy 'p'",
        "Job \"jobs.batch \\\"a\\\" is forbidden: exceeded quota: x\" is invalid",
        "Admission webhook \"w\" denied",
    ] {
        assert_eq!(kind(422, message), RefusalKind::Invalid, "{message}");
        assert_eq!(kind(403, message), RefusalKind::NotAllowed, "{message}");
    }
}

#[test]
fn a_status_with_fields_of_unexpected_types_is_read_as_far_as_possible() {
    for (body, kind, retry_after) in [
        (json!({"kind": "Status", "reason": 5, "message": ["x"], "details": "none"}), RefusalKind::NotAllowed, None),
        (json!({"kind": "Status", "details": {"retryAfterSeconds": "5", "causes": {}}}), RefusalKind::NotAllowed, None),
        (json!({"kind": "Status", "details": {"retryAfterSeconds": -5}}), RefusalKind::NotAllowed, None),
        (json!({"kind": "Status", "details": {"retryAfterSeconds": 1e30}}), RefusalKind::NotAllowed, None),
        (
            json!({"kind": "Status", "details": {"retryAfterSeconds": 99999999999u64}}),
            RefusalKind::NotAllowed,
            Some(300),
        ),
        (
            json!({"kind": "Status", "details": {"causes": [5, {"reason": []}], "retryAfterSeconds": 7}}),
            RefusalKind::NotAllowed,
            Some(7),
        ),
        (
            json!({"kind": "Status", "details": null, "message": "jobs.batch \"a\" is forbidden: exceeded quota: q", "code": "x"}),
            RefusalKind::Quota,
            None,
        ),
        (json!([1]), RefusalKind::NotAllowed, None),
    ] {
        let refusal = refused(403, &body.to_string());
        assert_eq!((refusal.kind, refusal.retry_after, refusal.causes), (kind, retry_after, vec![]), "{body}");
    }
    let cut =
        &status("Forbidden", &format!("admission webhook \"w\" denied the request: {}", "x".repeat(9000)), json!(null))
            [..5000];
    assert_eq!(refused(403, cut).kind, RefusalKind::Policy, "a message that is too long to be read whole");
    let cut = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"admission webhook \"w\" denied the requ"#;
    assert_eq!(refused(403, cut).kind, RefusalKind::Policy);
}

#[test]
fn one_odd_cause_does_not_hide_the_others() {
    let details = json!({"causes": [1, null, {"field": "spec.x", "reason": "R"}, {"field": 5}]});
    let causes = refused(422, &status("Invalid", "x", details)).causes;
    assert_eq!(causes, [Cause { field: Some("spec.x".into()), reason: Some("R".into()) }]);
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_000 - 2_500); // 2.5 s before the date below
    for (value, want) in [
        ("7", Some(7)),
        (" 7 ", Some(7)),
        ("0", Some(1)),
        ("999999999999999999999999", Some(300)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(3)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", Some(3)),
        ("Sun, 06 Nov 1994 07:49:37 GMT", Some(1)),
        ("Sat, 06 Nov 2094 08:49:37 GMT", Some(300)),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
    ] {
        assert_eq!(retry_after(value, now), want, "{value}");
    }
}
