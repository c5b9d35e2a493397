//! The recipes for senders: their YAML, rendered by the chart, decides how the dispatcher runs, and requests come as the senders send them.

use crate::support::dispatcher::Dispatcher;
use crate::support::helm::{NAME, helm};
use crate::support::http::{JSON, Reply, request};
use crate::support::namespace::Namespace;
use crate::support::{Folder, eventually, path, said};
use ring::hmac;
use serde_json::{Value, json};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

const SECRET: &str = "whsec_of-the-test";

/// A dispatcher with the options that the recipe's values give it in the chart, and SECRET in each of its mounted files.
struct Recipe {
    dispatcher: Dispatcher,
    namespace: Namespace,
    secrets: Folder,
}

impl Recipe {
    fn new(name: &str) -> Self {
        Recipe::with(name, |_| ())
    }

    /// `prepare`: done to the namespace before the dispatcher starts.
    fn with(name: &str, prepare: impl FnOnce(&Namespace)) -> Self {
        let (namespace, secrets) = (Namespace::new(), Folder::new());
        let values = path(&format!("deploy/recipes/{name}/values.yaml"));
        let yaml = said(&mut helm(&["template", NAME, &path("deploy/chart"), "--skip-tests", "--values", &values]));
        let mut args = vec!["--from-file".to_owned(), path(&format!("deploy/recipes/{name}/filter.jq"))];
        let options = ["auth", "auth-audience", "webhook", "public", "accept", "idempotency-headers"];
        let rendered =
            yaml.lines().filter_map(|line| line.trim().strip_prefix("- ")).map(|line| line.trim_matches('"'));
        args.extend(rendered.filter(|line| options.iter().any(|name| line.starts_with(&format!("--{name}=")))).map(
            |option| {
                let mount = |what: &str| secrets.0.join(what).display().to_string();
                option
                    .replace("/etc/k8s-job-dispatcher-webhooks", &mount("webhooks"))
                    .replace("/etc/k8s-job-dispatcher-tokens", &mount("tokens"))
            },
        ));
        assert!(args.len() > 2, "the chart gives no option for {name}:\n{yaml}");
        for option in &args {
            if let Some((_, file)) = option.split_once("=/job").and_then(|(_, rest)| rest.split_once(":/")) {
                let file = format!("/{file}");
                fs::create_dir_all(std::path::Path::new(&file).parent().unwrap()).unwrap();
                fs::write(file, SECRET).unwrap()
            }
        }
        let tokens = secrets.0.join("tokens");
        fs::create_dir_all(&tokens).unwrap();
        fs::write(tokens.join("alertmanager"), SECRET).unwrap();
        prepare(&namespace);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Recipe { dispatcher: Dispatcher::for_namespace(&namespace, &args), namespace, secrets }
    }

    fn post(&self, target: &str, headers: &str, body: &str) -> Reply {
        self.dispatcher.send(request("POST", target, headers, body))
    }

    /// The same request to other paths, which nothing guards, comes to nothing.
    fn nothing_elsewhere(&self, headers: &str, body: &str) {
        for path in ["/job", "/job/other"] {
            assert_eq!(self.post(path, headers, body).code, 204, "{path} is open");
        }
    }

    /// The container of the only Job.
    fn container(&self) -> (String, Value) {
        let jobs = self.namespace.admin().get(&format!("/apis/batch/v1/namespaces/{}/jobs", self.namespace.name)).1;
        let jobs = jobs["items"].as_array().unwrap();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        let name = jobs[0]["metadata"]["name"].as_str().unwrap().to_owned();
        (name, jobs[0]["spec"]["template"]["spec"]["containers"][0].clone())
    }
}

fn hex(text: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), text.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn github_builds_each_push_once() {
    let recipe = Recipe::new("github");
    let body = json!({
        "ref": "refs/heads/main", "after": "59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5", "deleted": false,
        "repository": {"full_name": "Octo/Hello.World", "clone_url": "https://github.com/Octo/Hello.World.git"},
    });
    let body = body.to_string();
    let headers = |signature: &str, delivery: &str| {
        format!(
            "{JSON}X-GitHub-Event: push\r\nX-GitHub-Hook-ID: 1\r\nX-GitHub-Delivery: {delivery}\r\nX-Hub-Signature-256: sha256={signature}\r\n"
        )
    };
    let signature = hex(&body);
    assert_eq!(recipe.post("/job/github", &headers(&signature, "1"), &body).code, 201);
    assert_eq!(recipe.post("/job/github", &headers(&signature, "1"), &body).code, 200, "a redelivery");
    assert_eq!(recipe.post("/job/github", &headers(&"0".repeat(64), "1"), &body).code, 401);
    recipe.nothing_elsewhere(&headers(&signature, "2"), &body);
    let (name, container) = recipe.container();
    assert_eq!(name, "build-octo-hello-world-59b20b8d5c6f");
    assert_eq!(
        container["args"],
        json!(["https://github.com/Octo/Hello.World.git", "59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5"])
    );
    let ping = json!({"zen": "Keep it logically awesome."}).to_string();
    let headers = format!("{JSON}X-GitHub-Event: ping\r\nX-Hub-Signature-256: sha256={}\r\n", hex(&ping));
    assert_eq!(recipe.post("/job/github", &headers, &ping).code, 204);
}

#[test]
fn gitlab_builds_each_push_once() {
    let recipe = Recipe::new("gitlab");
    let body = json!({
        "object_kind": "push", "ref": "refs/heads/main", "checkout_sha": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7", "project_id": 15,
        "project": {"git_http_url": "http://example.com/mike/diaspora.git"},
    });
    let headers = |token: &str| format!("{JSON}X-Gitlab-Event: Push Hook\r\nX-Gitlab-Token: {token}\r\n");
    assert_eq!(recipe.post("/job/gitlab", &headers("other"), &body.to_string()).code, 401);
    assert_eq!(recipe.post("/job/gitlab", &headers(SECRET), &body.to_string()).code, 201);
    assert_eq!(recipe.post("/job/gitlab", &headers(SECRET), &body.to_string()).code, 200);
    recipe.nothing_elsewhere(&headers(SECRET), &body.to_string());
    assert_eq!(recipe.container().0, "build-15-da1560886d4f");
}

#[test]
fn a_slack_command_starts_a_job() {
    let recipe = Recipe::new("slack");
    let send = |text: &str, time: u64| {
        let body = format!(
            "token=x&team_id=T0001&command=%2Fdeploy&text={text}&user_id=U2147483697&trigger_id=13345224609.738474920.8088930838d88f008e0"
        );
        let signature = hex(&format!("v0:{time}:{body}"));
        let headers = format!(
            "Content-Type: application/x-www-form-urlencoded\r\nX-Slack-Signature: v0={signature}\r\nX-Slack-Request-Timestamp: {time}\r\n"
        );
        recipe.nothing_elsewhere(&headers, &body);
        recipe.post("/job/slack", &headers, &body)
    };
    let reply = send("web-shop+", now());
    assert_eq!((reply.code, reply.body.len()), (200, 0));
    assert_eq!(recipe.container().1["args"], json!(["web-shop"]));
    assert_eq!(send("%24%28rm%29", now()).error(), (422, "FilterError".into()), "what a user types is checked");
    assert_eq!(send("web-shop", now() - 400).code, 401);
}

#[test]
fn a_paid_invoice_of_stripe_gets_a_receipt() {
    let recipe = Recipe::new("stripe");
    let send = |kind: &str, key: &str| {
        let body = json!({"id": "evt_1MqqbKLt4dXK03v5qaIbiNCC", "object": "event", "type": kind, "data": {"object": {"id": "in_1MtHbELkdIwHu7ixl4OzzPMv"}}});
        let (body, time) = (format!("{body:#}"), now()); // Stripe's are indented
        let signature = hex(&format!("{time}.{body}"));
        let signature = if key == SECRET { signature } else { "0".repeat(64) };
        let headers = format!("{JSON}Stripe-Signature: t={time},v1={signature}\r\n");
        recipe.nothing_elsewhere(&headers, &body);
        recipe.post("/job/stripe", &headers, &body)
    };
    assert_eq!(send("invoice.paid", SECRET).code, 201);
    assert_eq!(send("invoice.paid", SECRET).code, 200);
    assert_eq!(send("invoice.created", SECRET).code, 204);
    assert_eq!(send("invoice.paid", "other").code, 401);
    assert_eq!(recipe.container().1["args"], json!(["in_1MtHbELkdIwHu7ixl4OzzPMv"]));
}

#[test]
fn a_service_account_dispatches_by_its_role() {
    let recipe = Recipe::with("service-account", |namespace| {
        namespace.may_review();
        crate::recipes::try_apply(namespace, "service-account/caller.yaml").unwrap();
        namespace.wait_for_call("nightly", "create");
    });
    let post = |account: &str, day: &str| {
        let token = recipe.namespace.token_with(account, Some("k8s-job-dispatcher"));
        recipe.post("/job", &format!("{JSON}Authorization: Bearer {token}\r\n"), &json!({ "day": day }).to_string())
    };
    assert_eq!(post("nightly", "2026-11-30").code, 201);
    assert!(recipe.container().0.starts_with("report-2026-11-30-"));
    assert_eq!(post("nightly", "today").error(), (422, "FilterError".into()));
    assert_eq!(post("default", "2026-11-30").error(), (403, "Forbidden".into()));
    // the CronJob's pods have the token and the address
    let cron = format!("/apis/batch/v1/namespaces/{}/cronjobs/nightly", recipe.namespace.name);
    let pod = recipe.namespace.admin().get(&cron).1["spec"]["jobTemplate"]["spec"]["template"]["spec"].clone();
    assert_eq!(pod["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"], "k8s-job-dispatcher");
}

#[test]
fn alertmanager_starts_a_runbook_with_its_token() {
    let recipe = Recipe::new("alertmanager");
    let body = json!({
        "version": "4", "status": "firing", "receiver": "runbooks",
        "alerts": [{"status": "firing", "fingerprint": "c1a7b9f0d3e2c4b5", "startsAt": "2026-11-30T10:00:00Z",
            "labels": {"alertname": "DiskFull", "instance": "node-7", "runbook": "automatic"}}],
    });
    let send = |token: &str| {
        recipe.post("/job/alerts", &format!("{JSON}Authorization: Bearer {token}\r\n"), &body.to_string())
    };
    assert_eq!([send("other").code, send(SECRET).code, send(SECRET).code], [401, 201, 200]);
    fs::write(recipe.secrets.0.join("tokens/prometheus"), "another-token").unwrap();
    eventually("another caller to have a token", || (send("another-token").code != 401).then_some(()));
    assert_eq!(send("another-token").code, 204, "only Alertmanager's token starts runbooks");
    assert_eq!(recipe.container().1["args"], json!(["--", "DiskFull", "node-7"]));
    // what is sent is what Alertmanager's configuration says: its path, and its file with the token
    let config = fs::read_to_string(path("deploy/recipes/alertmanager/alertmanager.yaml")).unwrap();
    assert!(config.contains("/job/alerts\n") && config.contains("/alertmanager\n"), "{config}");
}
