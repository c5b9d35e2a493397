//! What a Job may be, as the chart's ValidatingAdmissionPolicy says it to the API server.

use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::helm::{NAME, helm};
use crate::support::http::Reply;
use crate::support::namespace::Namespace;
use crate::support::{eventually, path, said};
use serde_json::{Value, json};
use std::cell::Cell;
use std::io::Write;
use std::process::Stdio;

/// What the values of a policy allow in these tests.
const ALLOWED: &str = r#"{
  "enabled": true, "serviceAccounts": ["default", "worker"], "secrets": ["db"], "configMaps": ["settings"],
  "persistentVolumeClaims": ["data"], "images": ["registry.example.com/batch/"], "priorityClasses": ["low"],
  "hostPaths": ["/srv/data"], "hostPorts": [8080], "capabilities": ["NET_BIND_SERVICE"]
}"#;

/// A dispatcher whose Jobs a policy is for. Its filter takes the whole manifest from the body.
struct Setup {
    dispatcher: Dispatcher,
    namespace: Namespace,
    yaml: String,
    number: Cell<u32>,
}

impl Setup {
    /// `values`: those of `jobs.policy`.
    fn new(values: &str, filter: &str) -> Self {
        let namespace = Namespace::new();
        let policy = format!("jobs.policy={values}");
        let chart = path("deploy/chart");
        let yaml = said(&mut helm(&[
            "template",
            NAME,
            &chart,
            "--namespace",
            &namespace.name,
            "--show-only",
            "templates/policy.yaml",
            "--set-json",
            &policy,
            "--set",
            "serviceAccount.create=false,serviceAccount.name=dispatcher",
        ]));
        let setup = Setup {
            dispatcher: Dispatcher::for_namespace(&namespace, &[filter]),
            namespace,
            yaml,
            number: Cell::new(0),
        };
        setup.kubectl("apply");
        for class in ["low", "high"] {
            let class = json!({"metadata": {"name": class}, "value": 1});
            setup.namespace.admin().call("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", Some(&class));
        }
        setup
    }

    fn kubectl(&self, verb: &str) {
        let mut kubectl = self.namespace.cluster.kubectl();
        kubectl.args(["--namespace", &self.namespace.name, verb, "--filename=-"]).stdin(Stdio::piped());
        let mut kubectl = kubectl.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        kubectl.stdin.take().unwrap().write_all(self.yaml.as_bytes()).unwrap();
        let output = kubectl.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success() && (verb == "delete" || !said.contains("Warning")), "{said}")
    }

    /// A Job that passes, with this in addition. Objects are merged, other values replaced.
    fn post(&self, addition: &Value) -> Reply {
        self.number.set(self.number.get() + 1);
        let mut job = json!({
            "metadata": {"name": format!("job-{}", self.number.get())},
            "spec": {"suspend": true, "template": {"spec": {
                "restartPolicy": "Never", "automountServiceAccountToken": false,
                "containers": [{"name": "a", "image": "registry.example.com/batch/a:1"}],
            }}},
        });
        merge(&mut job, addition);
        self.dispatcher.post("/job", &job.to_string())
    }

    fn must_pass(&self, addition: Value) {
        let reply = self.post(&addition);
        assert_eq!(
            reply.code,
            201,
            "{addition} gave {:?}, {:?}",
            String::from_utf8_lossy(&reply.body),
            self.dispatcher.log().iter().rev().take(3).collect::<Vec<_>>()
        );
    }

    /// `field`: what the log names.
    fn must_be_denied(&self, addition: Value, field: &str) {
        let before = self.dispatcher.log().len();
        let reply = self.post(&addition);
        assert_eq!((reply.code, reply.json()["error"]["reason"].as_str()), (422, Some("Forbidden")), "{addition}");
        assert!(!String::from_utf8_lossy(&reply.body).contains(field), "the caller is not told");
        let named = || {
            self.dispatcher.log()[before..]
                .iter()
                .any(|line| line.contains(&format!("denied request: {field} ")))
                .then_some(())
        };
        eventually(&format!("the log to name {field} for {addition}"), named)
    }

    /// The API server follows policies with a delay.
    fn wait_until_it_counts(&self) {
        let denied = pod(json!({"hostPID": true}));
        eventually("the policy to count", || {
            (self.post(&denied).json()["error"]["reason"] == "Forbidden").then_some(())
        })
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.kubectl("delete")
        }
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value))
        }
        (into, from) => *into = from.clone(),
    }
}

fn pod(pod: Value) -> Value {
    json!({"spec": {"template": {"spec": pod}}})
}

fn volume(volume: Value) -> Value {
    let mut named = json!({"name": "v"});
    merge(&mut named, &volume);
    pod(json!({"volumes": [named]}))
}

/// As a container, or as an init container beside one that passes.
fn container(list: &str, container: Value) -> Value {
    let mut named = json!({"name": "b", "image": "registry.example.com/batch/b:1"});
    merge(&mut named, &container);
    pod(json!({list: [named]}))
}

const POD: &str = "spec.template.spec";

#[test]
fn names_of_a_pod_have_to_be_allowed() {
    let setup = Setup::new(ALLOWED, AS_IS);
    setup.wait_until_it_counts();
    setup.must_pass(json!({}));
    for (good, bad, field) in [
        (json!({"serviceAccountName": "worker"}), json!({"serviceAccountName": "admin"}), "serviceAccountName"),
        (json!({"serviceAccount": "worker"}), json!({"serviceAccount": "admin"}), "serviceAccountName"),
        (json!({"priorityClassName": "low"}), json!({"priorityClassName": "high"}), "priorityClassName"),
        (
            json!({"imagePullSecrets": [{"name": "db"}]}),
            json!({"imagePullSecrets": [{"name": "db"}, {"name": "other"}]}),
            "imagePullSecrets",
        ),
    ] {
        setup.must_pass(pod(good));
        setup.must_be_denied(pod(bad), &format!("{POD}.{field}"))
    }
    let projected = |source: Value| json!({"projected": {"sources": [{"downwardAPI": {"items": []}}, source]}});
    let csi = |secret: &str| json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": secret}}});
    let provider = |class: &str| json!({"csi": {"driver": "secrets-store.csi.k8s.io", "volumeAttributes": {"secretProviderClass": class}}});
    let attribute = |key: &str, value: &str| json!({"csi": {"driver": "d", "volumeAttributes": {key: value}}});
    let claim = |spec: Value| {
        let mut all = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        merge(&mut all, &spec);
        json!({"ephemeral": {"volumeClaimTemplate": {"spec": all}}})
    };
    let copy = |name: &str| claim(json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": name}}));
    let reference = |name: &str| claim(json!({"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": name}}));
    for (good, bad, field) in [
        (json!({"secret": {"secretName": "db"}}), json!({"secret": {"secretName": "other"}}), "volumes[*].secret"),
        (json!({"configMap": {"name": "settings"}}), json!({"configMap": {"name": "other"}}), "volumes[*].configMap"),
        (
            projected(json!({"secret": {"name": "db"}})),
            projected(json!({"secret": {"name": "other"}})),
            "volumes[*].projected.sources[*].secret",
        ),
        (
            projected(json!({"configMap": {"name": "settings"}})),
            projected(json!({"configMap": {"name": "other"}})),
            "volumes[*].projected.sources[*].configMap",
        ),
        (csi("db"), csi("other"), "volumes[*].csi"),
        (provider("db"), provider("other"), "volumes[*].csi"),
        (
            json!({"persistentVolumeClaim": {"claimName": "data"}}),
            json!({"persistentVolumeClaim": {"claimName": "other"}}),
            "volumes[*].persistentVolumeClaim",
        ),
        (copy("data"), copy("other"), "volumes[*].ephemeral"),
        (reference("data"), reference("other"), "volumes[*].ephemeral"),
        (claim(json!({})), claim(json!({"volumeName": "pv-of-somebody"})), "volumes[*].ephemeral"),
        (json!({"emptyDir": {}}), json!({"nfs": {"server": "s", "path": "/"}}), "volumes[*]"),
        (
            json!({"downwardAPI": {"items": []}}),
            json!({"iscsi": {"targetPortal": "10.0.0.1", "iqn": "iqn.2001-04.com.example:a", "lun": 0}}),
            "volumes[*]",
        ),
        (json!({"emptyDir": {}}), json!({"azureFile": {"secretName": "db", "shareName": "s"}}), "volumes[*]"),
        (json!({"emptyDir": {}}), json!({"gitRepo": {"repository": "r"}}), "volumes[*]"),
        (json!({"emptyDir": {}}), attribute("secretName", "other"), "volumes[*].csi"),
        (attribute("secretname", "db"), attribute("SecretNamespace", "kube-system"), "volumes[*].csi"),
        (claim(json!({})), claim(json!({"selector": {"matchLabels": {"a": "b"}}})), "volumes[*].ephemeral"),
        (
            json!({"hostPath": {"path": "/srv/data/a"}}),
            json!({"hostPath": {"path": "/srv/database"}}),
            "volumes[*].hostPath",
        ),
        (json!({"hostPath": {"path": "/srv/data"}}), json!({"hostPath": {"path": "/"}}), "volumes[*].hostPath"),
        (
            json!({"image": {"reference": "registry.example.com/batch/models:1"}}),
            json!({"image": {"reference": "registry.example.com/other:1"}}),
            "volumes[*].image",
        ),
        (
            json!({"emptyDir": {}}),
            projected(json!({"serviceAccountToken": {"path": "t"}})),
            "volumes[*].projected.sources[*]",
        ),
    ] {
        setup.must_pass(volume(good));
        setup.must_be_denied(volume(bad), &format!("{POD}.{field}"))
    }
}

#[test]
fn containers_and_init_containers_have_the_same_rules() {
    let setup = Setup::new(ALLOWED, AS_IS);
    setup.wait_until_it_counts();
    let env = |source: &str, name: &str| json!({"env": [{"name": "A", "value": "b"}, {"name": "X", "valueFrom": {source: {"name": name, "key": "k"}}}]});
    let env_from = |source: &str, name: &str| json!({"envFrom": [{source: {"name": name}}]});
    let port = |port: u32| json!({"ports": [{"containerPort": 80}, {"containerPort": port, "hostPort": port}]});
    let add = |capability: &str| json!({"securityContext": {"capabilities": {"drop": ["ALL"], "add": [capability]}}});
    for list in ["containers", "initContainers"] {
        for (good, bad, field) in [
            (json!({}), json!({"image": "registry.example.com/other:1"}), "image"),
            (env("secretKeyRef", "db"), env("secretKeyRef", "other"), "env[*].valueFrom.secretKeyRef"),
            (env("configMapKeyRef", "settings"), env("configMapKeyRef", "other"), "env[*].valueFrom.configMapKeyRef"),
            (env_from("secretRef", "db"), env_from("secretRef", "other"), "envFrom[*].secretRef"),
            (env_from("configMapRef", "settings"), env_from("configMapRef", "other"), "envFrom[*].configMapRef"),
            (port(8080), port(22), "ports[*].hostPort"),
            (add("NET_BIND_SERVICE"), add("SYS_ADMIN"), "securityContext.capabilities.add"),
            (
                json!({"securityContext": {"privileged": false}}),
                json!({"securityContext": {"privileged": true}}),
                "securityContext.privileged",
            ),
        ] {
            setup.must_pass(container(list, good));
            let field = format!("{POD}.{list}[*].{field}");
            setup.must_be_denied(container(list, bad), &field)
        }
    }
}

/// What a policy allows by a word, what it denies without it, and the field.
fn words() -> Vec<(&'static str, Value, String)> {
    let toleration = |key: &str| pod(json!({"tolerations": [{"key": key, "operator": "Exists"}]}));
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}]);
    let labels = json!({"app": "x"});
    let template = json!({"metadata": {"labels": labels}});
    vec![
        (
            "serviceAccountToken",
            pod(json!({"automountServiceAccountToken": null})),
            format!("{POD}.automountServiceAccountToken"),
        ),
        (
            "serviceAccountToken",
            pod(json!({"automountServiceAccountToken": true})),
            format!("{POD}.automountServiceAccountToken"),
        ),
        (
            "serviceAccountToken",
            volume(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})),
            format!("{POD}.volumes[*].projected.sources[*]"),
        ),
        ("hostNetwork", pod(json!({"hostNetwork": true})), format!("{POD}.hostNetwork")),
        ("hostPID", pod(json!({"hostPID": true})), format!("{POD}.hostPID")),
        ("hostIPC", pod(json!({"hostIPC": true})), format!("{POD}.hostIPC")),
        (
            "privileged",
            container("containers", json!({"securityContext": {"privileged": true}})),
            format!("{POD}.containers[*].securityContext.privileged"),
        ),
        ("nodeName", pod(json!({"nodeName": "n"})), format!("{POD}.nodeName")),
        ("otherVolumes", volume(json!({"nfs": {"server": "s", "path": "/"}})), format!("{POD}.volumes[*]")),
        ("runtimeClassName", pod(json!({"runtimeClassName": "r"})), format!("{POD}.runtimeClassName")),
        (
            "resourceClaims",
            pod(json!({"resourceClaims": [{"name": "r", "resourceClaimTemplateName": "t"}]})),
            format!("{POD}.resourceClaims"),
        ),
        ("controlPlaneTolerations", toleration("CriticalAddonsOnly"), format!("{POD}.tolerations[*]")),
        ("controlPlaneTolerations", toleration("node-role.kubernetes.io/etcd"), format!("{POD}.tolerations[*]")),
        (
            "controlPlaneTolerations",
            toleration("node-role.kubernetes.io/control-plane"),
            format!("{POD}.tolerations[*]"),
        ),
        ("controlPlaneTolerations", toleration("node-role.kubernetes.io/master"), format!("{POD}.tolerations[*]")),
        (
            "controlPlaneTolerations",
            pod(json!({"tolerations": [{"operator": "Exists"}]})),
            format!("{POD}.tolerations[*]"),
        ),
        ("ownerReferences", json!({"metadata": {"ownerReferences": owner}}), "metadata.ownerReferences".to_owned()),
        ("finalizers", json!({"metadata": {"finalizers": ["example.com/f"]}}), "metadata.finalizers".to_owned()),
        (
            "finalizers",
            json!({"spec": {"template": {"metadata": {"finalizers": ["example.com/f"]}}}}),
            "spec.template.metadata.finalizers".to_owned(),
        ),
        (
            "manualSelector",
            json!({"spec": {"manualSelector": true, "selector": {"matchLabels": labels}, "template": template}}),
            "spec.manualSelector".to_owned(),
        ),
        ("managedBy", json!({"spec": {"managedBy": "example.com/queue"}}), "spec.managedBy".to_owned()),
    ]
}

#[test]
fn without_any_value_a_policy_denies_all_but_images_and_the_default_account() {
    let setup = Setup::new(r#"{"enabled": true}"#, AS_IS);
    setup.wait_until_it_counts();
    setup.must_pass(container("containers", json!({"image": "docker.io/library/busybox"})));
    setup.must_pass(pod(
        json!({"serviceAccountName": "default", "tolerations": [{"key": "spot", "operator": "Exists"}]}),
    ));
    words().into_iter().for_each(|(_, addition, field)| setup.must_be_denied(addition, &field));
    let labels = |instance: &str| json!({"spec": {"template": {"metadata": {"labels": {"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": instance}}}}});
    setup.must_pass(labels("another"));
    setup.must_be_denied(labels(NAME), "spec.template.metadata.labels");
    for (addition, field) in [
        (pod(json!({"serviceAccountName": "worker"})), "serviceAccountName"),
        (pod(json!({"priorityClassName": "low"})), "priorityClassName"),
        (volume(json!({"secret": {"secretName": "db"}})), "volumes[*].secret"),
        (volume(json!({"configMap": {"name": "settings"}})), "volumes[*].configMap"),
        (volume(json!({"hostPath": {"path": "/srv"}})), "volumes[*].hostPath"),
    ] {
        setup.must_be_denied(addition, &format!("{POD}.{field}"))
    }
}

#[test]
fn what_a_policy_allows_by_name_passes() {
    let mut allow: Vec<&str> = words().iter().map(|(word, ..)| *word).collect();
    allow.dedup();
    let setup = Setup::new(&json!({"enabled": true, "allow": allow, "serviceAccounts": ["worker"]}).to_string(), AS_IS);
    let unnamed = pod(json!({"serviceAccountName": null}));
    eventually("the policy to count", || (setup.post(&unnamed).json()["error"]["reason"] == "Forbidden").then_some(()));
    setup.must_be_denied(unnamed, "spec.template.spec.serviceAccountName"); // "default" is not in the list
    for (_, mut addition, _) in words() {
        merge(&mut addition, &pod(json!({"serviceAccountName": "worker"})));
        setup.must_pass(addition)
    }
}

#[test]
fn jobs_of_the_default_filter_pass_and_others_are_not_concerned() {
    let default = std::fs::read_to_string(path("src/default.jq")).unwrap();
    let setup = Setup::new(r#"{"enabled": true}"#, &default);
    let jobs = format!("/apis/batch/v1/namespaces/{}/jobs", setup.namespace.name);
    let admin = setup.namespace.admin();
    let bad = json!({
        "metadata": {"name": "of-somebody-else"},
        "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "automountServiceAccountToken": false, "hostNetwork": true, "containers": [{"name": "a", "image": "a"}]}}},
    });
    let token = setup.namespace.token();
    let as_dispatcher = admin.with_token(&token);
    eventually("the policy to count", || {
        let (code, answer) = as_dispatcher.call("POST", &format!("{jobs}?dryRun=All"), Some(&bad));
        let is_denied = code == 422
            && answer["message"]
                .as_str()
                .is_some_and(|said| said.contains("spec.template.spec.hostNetwork is not allowed"));
        is_denied.then_some(())
    });
    assert_eq!(setup.dispatcher.post("/job", r#"{"id": "hello"}"#).code, 201);
    assert_eq!(admin.call("POST", &jobs, Some(&bad)).0, 201, "the policy is for the dispatcher's Jobs");
    // the controller has found nothing wrong with its expressions
    let name = format!("{}.{NAME}", setup.namespace.name);
    let path = format!("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{name}");
    let status = eventually("the expressions to be checked", || {
        let status = admin.get(&path).1["status"].clone();
        status["observedGeneration"].is_number().then_some(status)
    });
    assert!(status["typeChecking"]["expressionWarnings"].is_null(), "{status}");
}

#[test]
fn policy_yaml_is_the_charts_output() {
    let args =
        ["template", NAME, &path("deploy/chart"), "--namespace", "NAMESPACE", "--set", "jobs.policy.enabled=true"];
    let yaml = said(&mut helm(&[&args[..], &["--show-only", "templates/policy.yaml"]].concat()));
    let file = path("deploy/policy.yaml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &yaml).unwrap()
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), yaml, "UPDATE=1 writes it anew");
    assert_eq!(yaml.matches("NAMESPACE").count(), 5, "{yaml}");
}
