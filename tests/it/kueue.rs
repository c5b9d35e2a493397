use crate::recipes::{is_complete, try_apply};
use crate::support::certificates::Authority;
use crate::support::cluster::{Cluster, free_port};
use crate::support::component::{Component, remove_at_end};
use crate::support::dispatcher::Dispatcher;
use crate::support::kubelet::ending;
use crate::support::namespace::Namespace;
use crate::support::{Folder, assets, eventually, go, said};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const KUEUE: &str = "/etc/kueue";
/// Kueue looks for a certificate here, whatever its configuration says of metrics.
const METRICS_CERTIFICATES: &str = "/etc/kueue/metrics/certs";

/// Kueue's controller, until this is dropped.
struct Kueue {
    _controller: Component,
    _folder: Folder,
    _certificates: Certificates,
}

/// Files outside of our folders: they go when this does, or with our process.
struct Certificates {
    _sweep: std::process::Child,
}

impl Certificates {
    fn new((certificate, key): &(String, String)) -> Self {
        assert!(!Path::new(KUEUE).exists(), "{KUEUE} is there already, and it is not ours");
        fs::create_dir_all(METRICS_CERTIFICATES)
            .unwrap_or_else(|error| panic!("cannot make {METRICS_CERTIFICATES}: {error}; run this test as root"));
        write_certificate(Path::new(METRICS_CERTIFICATES), certificate, key);
        Certificates { _sweep: remove_at_end(Path::new(KUEUE)) }
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(KUEUE);
    }
}

fn write_certificate(folder: &Path, certificate: &str, key: &str) {
    fs::write(folder.join("tls.crt"), certificate).unwrap();
    fs::write(folder.join("tls.key"), key).unwrap();
}

/// Kueue's own YAML, from its module.
fn source() -> PathBuf {
    let folder = said(go::go(&go::module("kueue")).args(["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kueue"]));
    PathBuf::from(folder.trim()).join("config/components")
}

impl Kueue {
    fn start(cluster: &'static Cluster) -> Self {
        let program = assets::kueue();
        let (source, folder) = (source(), Folder::new());
        let kubectl = |args: &[&str], file: &Path| said(cluster.kubectl().args(args).arg("--filename").arg(file));
        kubectl(&["apply", "--server-side"], &source.join("crd/bases"));
        kubectl(&["wait", "--for=condition=established", "--timeout=60s"], &source.join("crd/bases"));
        cluster.admin.create("/api/v1/namespaces", json!({"metadata": {"name": "kueue-system"}}));
        let authority = Authority::new("kueue");
        let server = authority.server();
        write_certificate(&folder.0, &server.0, &server.1);
        let [webhook, health] = [free_port(), free_port()];

        let ca_file = folder.write("ca.crt", &authority.pem);
        let from_file = format!("--from-file=ca.crt={}", ca_file.display());
        let mut secret = cluster.kubectl();
        secret.args([
            "create",
            "secret",
            "generic",
            "ca",
            &from_file,
            "--dry-run=client",
            "--output=jsonpath={.data.ca\\.crt}",
        ]);
        let bundle = said(&mut secret);
        let manifests =
            kubectl(&["create", "--dry-run=client", "--output=json"], &source.join("webhook/manifests.yaml"));
        for manifest in serde_json::Deserializer::from_str(&manifests).into_iter::<Value>() {
            install_webhooks(cluster, manifest.unwrap(), webhook, &bundle);
        }
        let config = json!({
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "namespace": "kueue-system",
            "health": {"healthProbeBindAddress": format!("127.0.0.1:{health}")},
            "metrics": {"bindAddress": "0"},
            "webhook": {"host": "127.0.0.1", "port": webhook, "certDir": folder.0},
            "leaderElection": {"leaderElect": false},
            "internalCertManagement": {"enable": false},
            "integrations": {"frameworks": ["batch/job"]},
        });
        let config = folder.write("config.json", &config.to_string());
        let certificates = Certificates::new(&server);
        let args = [
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", cluster.kubeconfig.display()),
            "--feature-gates=VisibilityOnDemand=false".to_owned(),
        ];
        let controller = Component::start(&folder.0, "kueue", &program, &args);
        // its health answers before its webhooks do
        controller.wait("Kueue to be ready", || std::net::TcpStream::connect(("127.0.0.1", webhook)).ok());
        Kueue { _controller: controller, _folder: folder, _certificates: certificates }
    }
}

/// Those for Jobs and for Kueue's own objects, at an address on this machine instead of a Service.
fn install_webhooks(cluster: &Cluster, mut manifest: Value, port: u16, bundle: &str) {
    let items = match manifest["items"].as_array_mut() {
        Some(items) => items.iter_mut().map(Value::take).collect(),
        None => vec![manifest],
    };
    for mut item in items {
        let is_wanted = |webhook: &Value| {
            let rules = webhook["rules"].as_array().unwrap().iter();
            let mut groups = rules.flat_map(|rule| rule["apiGroups"].as_array().unwrap());
            groups.all(|group| group == "batch" || group == "kueue.x-k8s.io")
        };
        let webhooks = item["webhooks"].as_array_mut().unwrap();
        webhooks.retain(is_wanted);
        for webhook in webhooks {
            let path = webhook["clientConfig"]["service"]["path"].as_str().unwrap();
            let url = format!("https://127.0.0.1:{port}{path}");
            webhook["clientConfig"] = json!({"url": url, "caBundle": bundle});
        }
        let resource = format!("{}s", item["kind"].as_str().unwrap().to_lowercase());
        cluster.admin.create(&format!("/apis/admissionregistration.k8s.io/v1/{resource}"), item);
    }
}

/// In a process of its own, because Kueue's webhooks see every Job of the cluster.
#[test]
#[ignore = "builds Kueue: cargo test --test it -- --ignored kueue::"]
fn a_job_waits_suspended_until_the_one_before_has_ended() {
    let namespace = Namespace::new();
    let _kueue = Kueue::start(namespace.cluster);
    eventually("Kueue to take its queues", || try_apply(&namespace, "kueue/queues.yaml").ok());
    let filter = ending(&namespace, "deploy/recipes/kueue/filter.jq", Duration::from_secs(2));
    let dispatcher = Dispatcher::for_namespace(&namespace, &["--from-file", filter.to_str().unwrap()]);
    let post = || {
        let reply = dispatcher.post("/job", r#"{"phrase": "hi"}"#);
        assert_eq!(reply.code, 201, "{:?}", String::from_utf8_lossy(&reply.body));
        format!("/job/{}", reply.json()["id"].as_str().unwrap())
    };
    let first = post();
    eventually("the first Job to start", || (dispatcher.get(&first).json()["status"]["active"] == 1).then_some(()));
    let second = post();
    eventually("the second Job to be seen suspended", || {
        assert!(!is_complete(&dispatcher.get(&first)), "the first Job ended before the second was seen suspended");
        let status = dispatcher.get(&second).json()["status"].clone();
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.find(|condition| condition["type"] == "Suspended" && condition["status"] == "True").map(|_| ())
    });
    eventually("the second Job to start and end", || {
        let is_active = dispatcher.get(&second).json()["status"]["active"] == 1;
        assert!(!is_active || is_complete(&dispatcher.get(&first)), "both run at once");
        is_complete(&dispatcher.get(&second)).then_some(())
    });
}
