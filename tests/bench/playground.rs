//! A cluster and a dispatcher to try, until Ctrl-C. Run by `tests/playground`.

#![allow(clippy::unwrap_used)] // what cannot be started ends it

#[path = "../it/support/mod.rs"]
mod support;

use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::dispatcher::Dispatcher;
use support::kubelet::ending;
use support::logs::Logs;
use support::namespace::Namespace;

/// There are no nodes: the tests' kubelet ends the pods.
const PODS_END_AFTER: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

fn main() {
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, is_over.clone()).unwrap();
    }
    let namespace = Namespace::with(json!({}), &["create", "get", "list", "watch", "delete"]);
    namespace.allow_too(&[("", "pods", "list"), ("", "pods/log", "get")]);
    let logs = Logs::new(&namespace);
    logs.write("Hello world\n");
    let filter = std::fs::read_to_string(ending(&namespace, "src/default.jq", PODS_END_AFTER)).unwrap();
    let filter = format!("{filter}\n| .spec.template.spec.nodeName = {:?}", logs.node);
    let filter = namespace.folder.write("node.jq", &filter);
    let args = ["--enable=delete,list,logs,pods", "--from-file", filter.to_str().unwrap()];
    let mut dispatcher = Dispatcher::for_namespace(&namespace, &args);
    let (address, kubectl) = (dispatcher.address, namespace.cluster.kubectl());
    println!(
        "
A real API server, and a dispatcher in front of it. Jobs end after {PODS_END_AFTER:?}, and all logs are the same, for there is no real node. Open

  http://{address}/docs

or try, in another terminal:

  curl -sS http://{address}/job -H 'Content-Type: application/json' -d '{{\"id\": \"hello\", \"args\": [\"Hello\", \"world\"]}}'
  curl -sS 'http://{address}/job/demo-job-hello?wait=10s'
  curl -sS http://{address}/job/demo-job-hello/log
  curl -sS http://{address}/job
  curl -sS -X DELETE http://{address}/job/demo-job-hello
  export KUBECONFIG={kubeconfig}
  alias kubectl={kubectl}
  kubectl -n {name} get jobs,pods

Ctrl-C takes all down. The dispatcher's log:
",
        kubeconfig = namespace.cluster.kubeconfig.display(),
        kubectl = kubectl.get_program().display(),
        name = namespace.name,
    );
    let mut shown = 0;
    while !is_over.load(Ordering::Relaxed) && dispatcher.is_running() {
        let log = dispatcher.log();
        log[shown..].iter().for_each(|line| println!("{line}"));
        shown = log.len();
        std::thread::sleep(LOOK);
    }
}
