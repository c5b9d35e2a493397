use crate::dispatch::manifest;
use crate::support::cluster::ApiServer;
use crate::support::dispatcher::{AS_IS, Dispatcher, command};
use crate::support::http::{JSON, request};
use crate::support::namespace::Namespace;
use crate::support::{Folder, certificates, eventually};
use serde_json::{Value, json};
use std::process::Stdio;

fn named(name: &str) -> String {
    manifest(json!({"name": name}), json!({}))
}

fn error(code: u16, reason: &str) -> (u16, String) {
    (code, reason.to_owned())
}

fn fields(error: &Value) -> Vec<(Option<&str>, Option<&str>)> {
    let causes = error["error"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    causes.iter().map(|cause| (cause["field"].as_str(), cause["reason"].as_str())).collect()
}

#[test]
fn an_invalid_manifest_names_fields_without_values() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let mut broken: Value = serde_json::from_str(&named("a")).unwrap();
    broken["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "X", "value": "a-secret"}]);
    broken["spec"]["template"]["spec"]["restartPolicy"] = json!("Sometimes");
    let reply = dispatcher.post("/job", &broken.to_string());
    assert_eq!(reply.error(), error(422, "Invalid"));
    assert_eq!(fields(&reply.json()), [(Some("spec.template.spec.restartPolicy"), Some("FieldValueNotSupported"))]);
    dispatcher.logged("spec.template.spec.restartPolicy: Unsupported value");

    broken["spec"]["parallelism"] = json!("a-secret");
    let reply = dispatcher.post("/job", &broken.to_string());
    assert_eq!(reply.error(), error(422, "Invalid"));
    assert_eq!(fields(&reply.json()), [(Some("spec.parallelism"), Some("FieldValueTypeInvalid"))]);
    assert!(!String::from_utf8_lossy(&reply.body).contains("a-secret"));

    let mut unknown: Value = serde_json::from_str(&named("a")).unwrap();
    unknown["spec"]["nonsense"] = json!(1);
    let reply = dispatcher.post("/job", &unknown.to_string());
    assert_eq!(reply.error(), error(422, "Invalid"));
    assert_eq!(fields(&reply.json()), [(Some("spec.nonsense"), None)]);

    let reply = dispatcher.post("/job", &named("Not_A_Label"));
    assert_eq!(reply.error(), error(422, "Invalid"));
    assert_eq!(fields(&reply.json()), [(Some("metadata.name"), Some("FieldValueInvalid"))]);
    assert_eq!(namespace.job_names(), [""; 0]);
}

#[test]
fn a_denial_by_an_admission_policy_is_422() {
    let namespace = Namespace::new();
    let admin = namespace.admin();
    let api = "/apis/admissionregistration.k8s.io/v1";
    let name = &namespace.name;
    let policy = json!({
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}]},
            "validations": [{"expression": "object.metadata.name != 'forbidden'", "message": "not this name", "reason": "Forbidden"}],
        },
    });
    let binding = json!({
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}},
    });
    admin.create(&format!("{api}/validatingadmissionpolicies"), policy);
    admin.create(&format!("{api}/validatingadmissionpolicybindings"), binding);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--dry-run=server"]);
    let reply = eventually("the policy to be in force", || {
        let reply = dispatcher.post("/job", &named("forbidden"));
        (reply.code != 200).then_some(reply)
    });
    assert_eq!(reply.error(), error(422, "Forbidden"));
    assert_eq!(dispatcher.post("/job", &named("allowed")).code, 200);
    admin.delete(&format!("{api}/validatingadmissionpolicybindings/{name}"));
    admin.delete(&format!("{api}/validatingadmissionpolicies/{name}"));
}

#[test]
fn an_exhausted_quota_gives_429_with_retry_after() {
    let namespace = Namespace::new();
    namespace.limit_jobs(1);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    assert_eq!(dispatcher.post("/job", &named("first")).code, 201);
    let reply = dispatcher.post("/job", &named("second"));
    assert_eq!((reply.error(), reply.header("Retry-After")), (error(429, "QuotaExceeded"), Some("10")));
    dispatcher.logged("exceeded quota: jobs");
}

#[test]
fn errors_that_the_operator_must_correct_are_bad_gateways() {
    for verbs in [&["get"][..], &["create"][..]] {
        let namespace = Namespace::with(json!({}), verbs);
        let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
        let (post, get) = (dispatcher.post("/job", &named("a")), dispatcher.get("/job/a"));
        if verbs == ["get"] {
            assert_eq!((post.error(), get.error()), (error(502, "BadGateway"), error(404, "NotFound")));
            dispatcher.logged("cannot create resource");
        } else {
            assert_eq!((post.code, get.error()), (201, error(502, "BadGateway")));
            dispatcher.logged("cannot get resource");
        }
    }
    let namespace = Namespace::new();
    let everywhere = json!({
        "metadata": {"name": format!("everywhere-{}", namespace.name)},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "dispatcher", "namespace": namespace.name}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    namespace.admin().create(bindings, everywhere.clone());
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--namespace=there-is-none"]);
    let reply = eventually("RBAC to be known", || {
        let reply = dispatcher.post("/job", &named("a"));
        dispatcher.log().iter().any(|line| line.contains("namespaces \\\"there-is-none\\\" not found")).then_some(reply)
    });
    assert_eq!(reply.error(), error(502, "BadGateway"));
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("namespace"));
    namespace.admin().delete(&format!("{bindings}/{}", everywhere["metadata"]["name"].as_str().unwrap()));
}

#[test]
fn the_same_request_under_an_exhausted_quota_finds_its_job() {
    let namespace = Namespace::new();
    namespace.limit_jobs(1);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    assert_eq!(dispatcher.post("/job", &named("a")).code, 201);
    eventually("the quota to be exhausted", || {
        let (_, quota) = namespace.admin().get(&format!("/api/v1/namespaces/{}/resourcequotas/jobs", namespace.name));
        (quota["status"]["used"]["count/jobs.batch"] == "1").then_some(())
    });
    let again = dispatcher.post("/job", &named("a"));
    assert_eq!((again.code, &again.json()["id"]), (200, &json!("a")));
    assert_eq!(dispatcher.post("/job?other", &named("a")).error(), error(409, "AlreadyExists"));
    let other = dispatcher.post("/job", &named("b"));
    assert_eq!((other.error(), other.header("Retry-After")), (error(429, "QuotaExceeded"), Some("10")));
    let generated = dispatcher.post("/job", &manifest(json!({"generateName": "a-"}), json!({})));
    assert_eq!(generated.error(), error(429, "QuotaExceeded"));
    assert_eq!(namespace.job_names(), ["a"]);
}

#[test]
fn no_output_is_204_and_creates_no_job() {
    let namespace = Namespace::new();
    for filter in ["empty", "halt", "select(.kind == \"no\")"] {
        let dispatcher = Dispatcher::for_namespace(&namespace, &[filter]);
        let reply = dispatcher.post("/job", "{}");
        assert_eq!((reply.code, reply.body.len(), reply.header("Content-Length")), (204, 0, None), "{filter}");
        dispatcher.logged("POST \"/job\" 204");
        let metrics = String::from_utf8(dispatcher.get("/metrics").body).unwrap();
        assert!(metrics.contains("filter_runs_total{outcome=\"empty\"} 1"), "{metrics}");
    }
    assert_eq!(namespace.job_names(), [""; 0]);
}

#[test]
fn a_terminating_namespace_gives_503() {
    let namespace = Namespace::new();
    let admin = namespace.admin();
    // something that keeps it from going away
    let path = format!("/api/v1/namespaces/{}/configmaps", namespace.name);
    admin.create(&path, json!({"metadata": {"name": "kept", "finalizers": ["tests/kept"]}}));
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    admin.delete(&format!("/api/v1/namespaces/{}", namespace.name));
    let reply = dispatcher.post("/job", &named("a"));
    admin.patch(&format!("{path}/kept"), json!({"metadata": {"finalizers": null}}));
    assert_eq!((reply.error(), reply.header("Retry-After")), (error(503, "ServiceUnavailable"), Some("1")));
}

#[test]
fn a_job_that_is_being_deleted_gives_409_with_retry_after() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let body = manifest(json!({"name": "a", "finalizers": ["tests/kept"]}), json!({}));
    assert_eq!(dispatcher.post("/job", &body).code, 201);
    let path = format!("{}/a", namespace.jobs());
    namespace.admin().delete(&path);
    let reply = dispatcher.post("/job", &body);
    assert_eq!((reply.error(), reply.header("Retry-After")), (error(409, "AlreadyExists"), Some("1")));
    namespace.admin().patch(&path, json!({"metadata": {"finalizers": null}}));
}

#[test]
fn a_rejected_token_is_read_again_at_once() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    assert_eq!(dispatcher.post("/job", &named("before")).code, 201);
    // rotated on disk, and the old one is worth nothing any more
    let accounts = format!("/api/v1/namespaces/{}/serviceaccounts", namespace.name);
    namespace.admin().delete(&format!("{accounts}/dispatcher"));
    namespace.admin().create(&accounts, json!({"metadata": {"name": "dispatcher"}}));
    eventually("the old token to be refused", || {
        let reply = dispatcher.post("/job", &named("between"));
        (reply.code != 201 && reply.code != 200).then(|| assert_eq!(reply.error(), error(502, "BadGateway")))
    });
    namespace.token_file();
    assert_eq!(dispatcher.post("/job", &named("after")).code, 201);
}

#[test]
fn a_bad_token_then_a_good_one() {
    let namespace = Namespace::new();
    let dispatcher = {
        let command = Dispatcher::command_for(&namespace, &namespace.cluster.url, &[AS_IS]);
        namespace.folder.write("token", "not-a-token");
        Dispatcher::start_command(command)
    };
    let reply = dispatcher.post("/job", &named("a"));
    assert_eq!(reply.error(), error(502, "BadGateway"), "never the caller's own 401");
    assert!(!dispatcher.log().join("\n").contains("not-a-token"));
    assert_eq!(dispatcher.get("/health/ready").code, 503);
    namespace.token_file();
    assert_eq!(dispatcher.post("/job", &named("a")).code, 201);
    eventually("ready", || (dispatcher.get("/health/ready").code == 200).then_some(()));
}

#[test]
fn only_the_given_ca_is_trusted() {
    let namespace = Namespace::new();
    let mut command = Dispatcher::command_for(&namespace, &namespace.cluster.url, &[AS_IS]);
    let other = certificates::Authority::new("somebody else").pem;
    let bundle = namespace.folder.write("ca.crt", &other);
    command.arg("--certificate-authority").arg(&bundle);
    let dispatcher = Dispatcher::start_command(command);
    assert_eq!(dispatcher.post("/job", &named("a")).error(), error(502, "BadGateway"));
    dispatcher.logged("invalid certificate: it is not signed by a CA of the bundle");
    assert_eq!(dispatcher.get("/health/ready").code, 503);
    // the bundle is followed when it changes
    namespace.folder.write("ca.crt", &format!("{other}{}", namespace.cluster.ca_pem));
    eventually("the new bundle to be used", || (dispatcher.post("/job", &named("a")).code == 201).then_some(()));
}

#[test]
fn the_api_server_goes_and_comes_back() {
    let namespace = Namespace::new();
    let mut server = namespace.cluster.another_api_server();
    let dispatcher = Dispatcher::start_command(Dispatcher::command_for(&namespace, &server.url, &[AS_IS]));
    assert_eq!(dispatcher.post("/job", &named("before")).code, 201);
    for (number, end) in [ApiServer::kill, ApiServer::stop].into_iter().enumerate() {
        eventually("ready", || (dispatcher.get("/health/ready").code == 200).then_some(()));
        end(&mut server);
        assert_eq!(dispatcher.post("/job", &named("between")).error(), error(502, "BadGateway"));
        let reply = dispatcher.get("/job/before");
        assert_eq!((reply.error(), reply.header("Retry-After")), (error(503, "ServiceUnavailable"), Some("1")));
        eventually("not ready", || (dispatcher.get("/health/ready").code == 503).then_some(()));
        assert_eq!(dispatcher.get("/health/live").code, 200);
        server.start_again();
        let name = named(&format!("after-{number}"));
        eventually("calls to be made again", || (dispatcher.post("/job", &name).code == 201).then_some(()));
    }
    eventually("ready again", || (dispatcher.get("/health/ready").code == 200).then_some(()));
}

#[test]
fn kubectl_proxy_in_front_needs_no_token() {
    let namespace = Namespace::new();
    let folder = Folder::new();
    let proxy = namespace.cluster.start_kubectl(&folder.0, &["proxy", "--port=0"]);
    let url = proxy.wait("kubectl proxy", || {
        let log = proxy.log();
        let address = log.split("Starting to serve on ").nth(1)?.lines().next()?.to_owned();
        Some(format!("http://{address}"))
    });
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &url, "--namespace", &namespace.name]);
    assert_eq!(dispatcher.post("/job", &named("a")).code, 201);
    assert_eq!(dispatcher.get("/job/a").code, 200);
    assert_eq!(dispatcher.get("/health/ready").code, 200);
}

#[test]
fn in_a_cluster_the_address_comes_from_the_environment() {
    let namespace = Namespace::new();
    let (host, port) = namespace.cluster.url.trim_start_matches("https://").split_once(':').unwrap();
    let mut command = command(&["--port=0", AS_IS, "--namespace", &namespace.name]);
    command
        .env("KUBERNETES_SERVICE_HOST", host)
        .env("KUBERNETES_SERVICE_PORT", port)
        .env("TOKEN_FILE", namespace.token_file())
        .env("CERTIFICATE_AUTHORITY", &namespace.cluster.ca_file)
        .stdin(Stdio::null());
    let dispatcher = Dispatcher::start_command(command);
    assert!(dispatcher.log()[0].contains("listening on [::]:"), "{:?}", dispatcher.log());
    assert_eq!(dispatcher.post("/job", &named("a")).code, 201);
}

#[test]
fn in_a_cluster_the_service_account_is_used() {
    let namespace = Namespace::new();
    let (host, port) = namespace.cluster.url.trim_start_matches("https://").split_once(':').unwrap();
    let folder = Folder::new();
    folder.write("token", &namespace.token());
    folder.write("ca.crt", &namespace.cluster.ca_pem);
    folder.write("namespace", &namespace.name);
    let mut command = command(&["--port=0", AS_IS]);
    command
        .env("KUBERNETES_SERVICE_HOST", host)
        .env("KUBERNETES_SERVICE_PORT", port)
        .env("SERVICE_ACCOUNT_FOLDER", &folder.0);
    let dispatcher = Dispatcher::start_command(command);
    assert_eq!(dispatcher.post("/job", &named("a")).code, 201);
    assert_eq!(namespace.job_names(), ["a"]);
}

#[test]
fn errors_in_the_filters_output_are_reported() {
    let dispatcher = Dispatcher::start(&[".", "--dry-run=client"]);
    for (body, code, reason) in [
        ("[]", 500, "FilterOutput"),
        ("{}", 500, "FilterOutput"),
        (r#"{"spec":{},"kind":"Pod"}"#, 500, "FilterOutput"),
        (r#"{"spec":{},"metadata":{"namespace":"other"}}"#, 500, "FilterOutput"),
        (r#"{"spec":{},"metadata":{"name":"A"}}"#, 422, "Invalid"),
        ("{", 400, "BadRequest"),
        ("", 400, "BadRequest"),
    ] {
        assert_eq!(dispatcher.post("/job", body).error(), error(code, reason), "{body}");
    }
    dispatcher.logged("ERROR");
    let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
    assert_eq!(dispatcher.post("/job", &deep).error(), error(400, "BadRequest"));
    let large = format!(r#"{{"spec":{{"x":"{}"}}}}"#, "x".repeat(1 << 20));
    assert_eq!(dispatcher.post("/job", &large).error(), error(422, "FilterLimit"));
    assert_eq!(dispatcher.send(request("POST", "/job", "", "{}")).error(), error(415, "UnsupportedMediaType"));
    let encoded = format!("{JSON}Content-Encoding: gzip\r\n");
    assert_eq!(dispatcher.send(request("POST", "/job", &encoded, "{}")).error(), error(415, "UnsupportedMediaType"));
}

#[test]
fn filter_errors_reach_the_caller() {
    for (filter, code, reason, message, details) in [
        ("error(\"no such team\")", 422, "FilterError", "no such team", None),
        ("error({team: 1})", 422, "FilterError", "{\"team\":1}", Some(json!({"team": 1}))),
        ("error(null)", 422, "FilterError", "null", None),
        (".x.y", 422, "FilterError", "cannot index string (\"secret-whi...) with string (\"y\")", None),
        ("def f: 1 + f; f", 422, "FilterLimit", "the filter exceeds the limit of recursion for this request", None),
        ("., .", 500, "FilterOutput", "the filter's output cannot be sent: the filter has more than one output", None),
    ] {
        let dispatcher = Dispatcher::start(&[filter, "--dry-run=client"]);
        let reply = dispatcher.post("/job", r#"{"x": "secret-which-is-long"}"#);
        assert_eq!(reply.error(), error(code, reason), "{filter}");
        let json = reply.json();
        assert_eq!(json["error"]["message"], message, "{filter}");
        assert_eq!(json["error"].get("details"), details.as_ref(), "{filter}");
        assert_eq!(dispatcher.get("/health/live").code, 200, "lives on after {filter}");
    }
}
