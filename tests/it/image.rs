use crate::dispatch::manifest;
use crate::support::container::{Container, ServiceAccount, image, podman};
use crate::support::helm;
use crate::support::kubelet::ends;
use crate::support::namespace::Namespace;
use crate::support::{eventually, path, said};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
#[ignore = "tests/image makes the image and runs this"]
fn it_contains_binary_and_licences_and_has_labels() {
    let text = said(&mut podman(&["image", "inspect", &image()]));
    let inspected: Value = serde_json::from_str(&text).unwrap();
    let config = &inspected[0]["Config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], json!(["/k8s-job-dispatcher"]));
    let labels = &config["Labels"];
    assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(labels["org.opencontainers.image.licenses"], env!("CARGO_PKG_LICENSE"));
    assert_eq!(labels["org.opencontainers.image.revision"].as_str().unwrap().len(), 40);

    let container = said(&mut podman(&["create", &image()]));
    let listing = std::process::Command::new("sh")
        .args([
            "-c",
            r#"podman export "$1" | tar --list --verbose --numeric-owner | grep '^-'"#,
            "sh",
            container.trim(),
        ])
        .output()
        .unwrap();
    said(&mut podman(&["rm", container.trim()]));
    let listing = String::from_utf8(listing.stdout).unwrap();
    let files: Vec<(&str, &str)> = listing
        .lines()
        .map(|line| (&line[..10], line.rsplit(' ').next().unwrap()))
        // what podman puts into every container
        .filter(|(_, name)| !["dev/", "etc/", "proc/", "run/", "sys/"].iter().any(|folder| name.starts_with(folder)))
        .collect();
    let want = [
        ("-rwxr-xr-x", "k8s-job-dispatcher"),
        ("-rw-r--r--", "licenses/LICENSE-APACHE"),
        ("-rw-r--r--", "licenses/LICENSE-MIT"),
        ("-rw-r--r--", "licenses/THIRD-PARTY-NOTICES"),
    ];
    assert_eq!(files, want);
}

#[test]
#[ignore = "tests/image makes the image and runs this"]
fn it_works_as_a_kubelet_runs_it() {
    let namespace = Namespace::new();
    let (cluster, admin) = (namespace.cluster, namespace.admin());
    cluster.needs_controller_manager();
    let account = ServiceAccount::new(&cluster.ca_pem, &namespace.name, &namespace.token());
    let mut container = Container::start(&namespace, &account, &["."]);
    let dispatcher = &container.dispatcher;
    let status = std::fs::read_to_string(format!("/proc/{}/status", container.pid)).unwrap();
    for line in ["Uid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "NSpid:"] {
        assert!(status.contains(line), "no {line} in {status}");
    }
    let in_its_namespace = status.lines().find(|line| line.starts_with("NSpid:")).unwrap();
    assert_eq!(in_its_namespace.split_whitespace().next_back(), Some("1"), "it is PID 1");
    let readonly = said(&mut podman(&["inspect", "--format={{.HostConfig.ReadonlyRootfs}}", &container.name]));
    assert_eq!(readonly.trim(), "true");
    assert_eq!(dispatcher.get("/health/ready").code, 200);

    let job = |name| manifest(json!({"name": name}), ends(Duration::from_millis(300), 0, "the end"));
    assert_eq!(dispatcher.post("/job", &job("first")).code, 201);
    eventually("the Job to be complete", || {
        let reply = dispatcher.get("/job/first");
        assert_eq!(reply.code, 200);
        (reply.json()["status"]["succeeded"] == 1).then_some(())
    });

    // the token is rotated, and the one before is worth nothing any more
    let accounts = format!("/api/v1/namespaces/{}/serviceaccounts", namespace.name);
    admin.delete(&format!("{accounts}/dispatcher"));
    admin.create(&accounts, json!({"metadata": {"name": "dispatcher"}}));
    eventually("the old token to be refused", || (dispatcher.post("/job", &job("between")).code == 502).then_some(()));
    account.rotate(&cluster.ca_pem, &namespace.name, &namespace.token());
    assert_eq!(dispatcher.post("/job", &job("after")).code, 201);

    said(&mut podman(&["kill", "--signal=TERM", &container.name]));
    assert_eq!(container.dispatcher.wait().code(), Some(0));
    container.dispatcher.logged("stopped");
}

#[test]
#[ignore = "tests/image makes the image and runs this"]
fn it_works_with_the_charts_permissions_which_allow_nothing_else() {
    let namespace = Namespace::with(json!({"pod-security.kubernetes.io/enforce": "restricted"}), &["create", "get"]);
    let (cluster, admin) = (namespace.cluster, namespace.admin());
    said(&mut helm::helm_in(&namespace, &["install", helm::NAME, &path("deploy/chart")]));
    let token = namespace.token_of(helm::NAME);
    let account = ServiceAccount::new(&cluster.ca_pem, &namespace.name, &token);
    let container = Container::start(&namespace, &account, &[]);
    let created = eventually("RBAC to be known", || {
        let reply = container.dispatcher.post("/job", r#"{"id": "a"}"#);
        (reply.code != 502).then_some(reply)
    });
    assert_eq!((created.code, &created.json()["id"]), (201, &json!("demo-job-a")));
    assert_eq!(container.dispatcher.get("/job/demo-job-a").code, 200);
    assert_eq!(container.dispatcher.get("/health/ready").code, 200);

    let api = admin.with_token(&token);
    let (name, jobs) = (&namespace.name, namespace.jobs());
    for (method, path) in [
        ("GET", format!("{jobs}/demo-job-a/status")),
        ("PATCH", format!("{jobs}/demo-job-a")),
        ("PUT", format!("{jobs}/demo-job-a")),
        ("DELETE", format!("{jobs}/demo-job-a")),
        ("DELETE", jobs.clone()),
        ("POST", format!("/apis/batch/v1/namespaces/{name}/cronjobs")),
        ("POST", "/apis/batch/v1/namespaces/default/jobs".to_owned()),
        ("GET", "/apis/batch/v1/namespaces/default/jobs/demo-job-a".to_owned()),
        ("GET", format!("/api/v1/namespaces/{name}/pods")),
        ("POST", format!("/api/v1/namespaces/{name}/pods")),
        ("GET", format!("/api/v1/namespaces/{name}/secrets")),
        ("GET", format!("/api/v1/namespaces/{name}/configmaps")),
        ("POST", format!("/api/v1/namespaces/{name}/serviceaccounts/{}/token", helm::NAME)),
        ("GET", "/api/v1/namespaces".to_owned()),
        ("GET", "/api/v1/nodes".to_owned()),
    ] {
        let body = (method != "GET" && method != "DELETE").then(|| json!({"metadata": {"name": "x"}}));
        let (code, answer) = api.call(method, &path, body.as_ref());
        assert_eq!(code, 403, "{method} {path} gave {answer}");
    }
}
