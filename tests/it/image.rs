use crate::dispatch::manifest;
use crate::support::container::{Container, ServiceAccount, image, podman, said};
use crate::support::eventually;
use crate::support::kubelet::ends;
use crate::support::namespace::Namespace;
use serde_json::{Value, json};
use std::time::Duration;

#[test]
#[ignore = "tests/image makes the image and runs this"]
fn it_holds_the_binary_and_the_licences_and_says_what_it_is() {
    let text = said(&["image", "inspect", &image()]);
    let inspected: Value = serde_json::from_str(&text).unwrap();
    let config = &inspected[0]["Config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], json!(["/k8s-job-dispatcher"]));
    let labels = &config["Labels"];
    assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(labels["org.opencontainers.image.licenses"], env!("CARGO_PKG_LICENSE"));
    assert_eq!(labels["org.opencontainers.image.revision"].as_str().unwrap().len(), 40);

    let container = said(&["create", &image()]);
    let listing = std::process::Command::new("sh")
        .args(["-c", r#"podman export "$1" | tar --list --verbose --numeric-owner | grep '^-'"#, "sh", &container])
        .output()
        .unwrap();
    said(&["rm", &container]);
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
    assert_eq!(said(&["inspect", "--format={{.HostConfig.ReadonlyRootfs}}", &container.name]), "true");
    assert_eq!(dispatcher.get("/health/ready").code, 204);

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

    assert!(podman(&["kill", "--signal=TERM", &container.name]).output().unwrap().status.success());
    assert_eq!(container.dispatcher.wait().code(), Some(0));
    container.dispatcher.logged("stopped");
}
