use crate::support::helm::{NAME, helm, helm_in};
use crate::support::namespace::Namespace;
use crate::support::{Folder, eventually, path, said};
use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;

/// All that is off by default, on; and what may be set, set.
const ALL_ON: &str = r#"
image: {repository: registry.example/dispatcher, digest: "sha256:1111111111111111111111111111111111111111111111111111111111111111"}
imagePullSecrets: [{name: registry}]
auth: {tokensSecret: tokens, tokenReview: true, audiences: [dispatcher, other]}
webhooks:
  - {path: /job/github, scheme: github, secretName: github-webhook, secretKey: secret}
  - {path: /job/line, scheme: "hmac-sha256:X-Line-Signature:base64", secretName: line, secretKey: key}
allowedHosts: [jobs.example.com, "*.jobs.svc"]
accept: [form, text]
public: [docs]
filter: {text: "import \"lib\" as lib; lib::job", modules: {lib.jq: "def job: {spec: {}};"}}
jobs:
  guard: {enabled: true, quota: {pods: 10}, max: {cpu: 2}}
  policy: {enabled: true, secrets: [db], images: [registry.example.com/], hostPorts: [8080], allow: [hostPID, finalizers]}
options: {max-body-bytes: 25000000, request-timeout: 20s}
shutdownDelaySeconds: 10
env: [{name: JOB_IMAGE, value: "busybox:1"}]
envFrom: [{secretRef: {name: settings}}]
serviceAccount: {annotations: {a: b}}
service: {annotations: {a: b}}
podAnnotations: {a: b}
podLabels: {team: batch}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: spot, operator: Exists}]
affinity: {podAntiAffinity: {}}
priorityClassName: system-cluster-critical
metrics:
  annotations: false
  serviceMonitor: {enabled: true, labels: {release: prometheus}, authorization: {credentials: {name: tokens, key: prometheus}}}
  prometheusRule: {enabled: true, labels: {release: prometheus}}
  dashboard: {enabled: true}
autoscaling: {enabled: true}
podDisruptionBudget: {enabled: true}
networkPolicy: {enabled: true, from: [{namespaceSelector: {}}]}
extraVolumes: [{name: ca, configMap: {name: ca}}]
extraVolumeMounts: [{name: ca, mountPath: /ca}]
ingress: {enabled: true, className: nginx, annotations: {a: b}, tls: [{hosts: [jobs.example.com], secretName: tls}]}
"#;

/// The other way round of each switch that is on by default.
const ALL_OFF: &str = r#"
replicaCount: 1
nameOverride: other
serviceAccount: {create: false, name: theirs}
rbac: {create: false}
resources: null
topologySpreadConstraints: []
filter: {existingConfigMap: mine, key: main.jq}
metrics: {annotations: false}
"#;

fn template(args: &[&str]) -> String {
    said(&mut helm(&[&["template", NAME, &path("deploy/chart"), "--skip-tests"], args].concat()))
}

/// The objects of some YAML as the API server takes them, by kind; of custom resources none.
fn taken(namespace: &Namespace, yaml: &str) -> Vec<Value> {
    let is_custom = |object: &&str| {
        ["ServiceMonitor", "PrometheusRule"].iter().any(|kind| object.contains(&format!("kind: {kind}")))
    };
    let known: Vec<&str> = yaml.split("\n---\n").filter(|object| !is_custom(object)).collect();
    let mut kubectl = namespace.cluster.kubectl();
    kubectl.args(["--namespace", &namespace.name, "apply", "--dry-run=server", "--output=json", "--filename=-"]);
    let mut kubectl = kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    kubectl.stdin.take().unwrap().write_all(known.join("\n---\n").as_bytes()).unwrap();
    let output = kubectl.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{yaml}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    list["items"].as_array().unwrap().clone()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn kinds(objects: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    kinds
}

fn values(folder: &Folder, text: &str) -> String {
    folder.write("values.yaml", text).display().to_string()
}

#[test]
fn the_chart_passes_lint_with_every_switch_on_and_off() {
    let folder = Folder::new();
    for text in ["", ALL_ON, ALL_OFF] {
        said(&mut helm(&["lint", "--strict", &path("deploy/chart"), "--values", &values(&folder, text)]));
    }
}

#[test]
fn kubernetes_yaml_is_the_charts_output() {
    let yaml = template(&[]);
    let file = path("deploy/kubernetes.yaml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &yaml).unwrap()
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), yaml, "UPDATE=1 writes it anew");
    assert!(!yaml.contains("namespace:") && !yaml.contains("kind: Namespace"), "it names a namespace:\n{yaml}");
}

#[test]
fn every_switch_works() {
    let namespace = Namespace::new();
    let folder = Folder::new();
    let yaml = template(&["--values", &values(&folder, ALL_ON)]);
    assert!(yaml.contains("kind: ServiceMonitor") && yaml.matches("release: prometheus").count() == 2);
    let objects = taken(&namespace, &yaml);
    let want = [
        "ClusterRoleBinding",
        "ConfigMap",
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Ingress",
        "LimitRange",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ResourceQuota",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    assert_eq!(kinds(&objects), want);
    let pod = &of_kind(&objects, "Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 40);
    assert_eq!(pod["enableServiceLinks"], false);
    let container = &pod["containers"][0];
    let args = [
        "--port=8000",
        "--require-access",
        "--shutdown-delay=10s",
        "--from-file=/etc/k8s-job-dispatcher/filter.jq",
        "--auth=tokens=/etc/k8s-job-dispatcher-tokens,token-review",
        "--auth-audience=dispatcher,other",
        "--webhook=/job/github=github:/etc/k8s-job-dispatcher-webhooks/0/secret",
        "--webhook=/job/line=hmac-sha256:X-Line-Signature:base64:/etc/k8s-job-dispatcher-webhooks/1/key",
        "--public=docs",
        "--allowed-host=jobs.example.com,*.jobs.svc,$(DISPATCHER_POD_IPS)",
        "--accept=form,text",
        "--max-body-bytes=25000000",
        "--request-timeout=20s",
    ];
    assert_eq!(container["args"], json!(args));
    assert!(container["image"].as_str().unwrap().starts_with("registry.example/dispatcher@sha256:1111"));
    assert_eq!(of_kind(&objects, "ResourceQuota")["spec"]["hard"], json!({"count/jobs.batch": "100", "pods": "10"}));
    let config_map = |end: &str| {
        let has_end = |object: &&Value| object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with(end));
        objects.iter().find(|object| object["kind"] == "ConfigMap" && has_end(object)).unwrap()
    };
    let dashboard = config_map("-dashboard");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let text = std::fs::read_to_string(path("deploy/chart/files/dashboard.json")).unwrap();
    assert_eq!(dashboard["data"]["k8s-job-dispatcher.json"], text);
    let filter = &config_map("-filter")["data"];
    assert_eq!(*filter, json!({"filter.jq": "import \"lib\" as lib; lib::job", "lib.jq": "def job: {spec: {}};"}));

    let objects = taken(&namespace, &template(&["--values", &values(&folder, ALL_OFF)]));
    assert_eq!(kinds(&objects), ["Deployment", "Service"]);
    let pod = &of_kind(&objects, "Deployment")["spec"]["template"];
    assert_eq!(pod["spec"]["serviceAccountName"], "theirs");
    assert_eq!(pod["spec"]["containers"][0]["args"][3], "--from-file=/etc/k8s-job-dispatcher/main.jq");
    assert_eq!(pod["spec"]["volumes"][0]["configMap"]["name"], "mine");
}

#[test]
fn a_changed_filter_rolls_the_pods() {
    let folder = Folder::new();
    let checksum = |filter: &str| {
        let yaml = template(&["--set-file", &format!("filter.text={}", folder.write("f.jq", filter).display())]);
        yaml.lines().find(|line| line.contains("checksum/filter:")).unwrap().to_owned()
    };
    assert_ne!(checksum(". # one"), checksum(". # two"));
    assert!(!template(&[]).contains("checksum/filter"));
}

#[test]
fn a_changed_existing_configmap_rolls_the_pods() {
    let namespace = Namespace::new();
    let configmaps = format!("/api/v1/namespaces/{}/configmaps", namespace.name);
    let admin = namespace.admin();
    admin.create(&configmaps, json!({"metadata": {"name": "mine"}, "data": {"filter.jq": ". # one"}}));
    let chart = path("deploy/chart");
    let upgrade = || {
        let args = ["upgrade", "--install", NAME, &chart, "--set", "filter.existingConfigMap=mine"];
        said(&mut helm_in(&namespace, &args));
        let deployment = admin.get(&format!("/apis/apps/v1/namespaces/{}/deployments/{NAME}", namespace.name)).1;
        deployment["spec"]["template"]["metadata"]["annotations"]["checksum/filter"].as_str().unwrap().to_owned()
    };
    let (before, same) = (upgrade(), upgrade());
    admin.patch(&format!("{configmaps}/mine"), json!({"data": {"filter.jq": ". # two"}}));
    assert_eq!(before, same);
    assert_ne!(before, upgrade());
}

#[test]
fn unknown_values_are_rejected() {
    for wrong in [
        "nope=1",
        "options.nope=1",
        "jobs.namespace=UPPER",
        "shutdownDelaySeconds=-1",
        "image.pullPolicy=x",
        "networkPolicy.apiServerPorts=",
        "ingress.hosts=",
        "enable={nope}",
        "options.enable=list",
        "filter.key=a/b",
        "public={health}",
        "accept={xml}",
        "webhooks[0].path=/x",
        "auth.nope=x",
        "jobs.policy.allow={nope}",
        "env[0].name=A,env[0].value=5",
        "podLabels.app\\.kubernetes\\.io/name=x",
    ] {
        let output = helm(&["template", &path("deploy/chart"), "--set", wrong]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains("schema"), "{wrong}: {error}");
    }
}

#[test]
fn values_that_exclude_each_other_are_rejected() {
    let folder = Folder::new();
    for wrong in [
        "filter: {modules: {lib.jq: x}}",
        "filter: {text: ., existingConfigMap: mine}",
        "filter: {text: ., modules: {filter.jq: x}}",
        "{enable: [list], watch: false}",
        "auth: {audiences: [x]}",
        "public: [docs]",
        "{jobs: {policy: {enabled: true}}, options: {token-file: /token}}",
        "{auth: {tokenReview: true}, metrics: {serviceMonitor: {enabled: true}}}",
    ] {
        let values = values(&folder, wrong);
        let output = helm(&["template", &path("deploy/chart"), "--values", &values]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success()
                && ["filter.", "enable:", "auth", "public", "metrics.", "jobs.policy"]
                    .iter()
                    .any(|word| error.contains(word)),
            "{wrong}: {error}"
        );
    }
}

#[test]
fn values_that_are_missing_count_as_their_defaults() {
    // what --reuse-values brings from a release of an older chart
    for missing in
        ["watch", "metrics", "jobs", "networkPolicy", "test", "auth", "webhooks", "allowedHosts", "accept", "public"]
    {
        let args = ["template", NAME, &path("deploy/chart")];
        let with = |more: &[&str]| said(&mut helm(&[&args[..], more].concat()));
        assert_eq!(with(&["--set", &format!("{missing}=null")]), with(&[]), "{missing}");
    }
    let folder = Folder::new();
    for (some, all) in [
        ("jobs: {guard: {enabled: true, maxJobs: null, defaultRequest: null}}", "jobs: {guard: {enabled: true}}"),
        (
            "networkPolicy: {enabled: true, apiServerPorts: null, apiServerCIDRs: null, from: null}",
            "networkPolicy: {enabled: true}",
        ),
        ("metrics: {annotations: null, serviceMonitor: null}", "{}"),
    ] {
        let template = |text: &str| template(&["--values", &values(&folder, text)]);
        assert_eq!(template(some), template(all), "{some}");
    }
}

#[test]
fn prometheus_is_not_sent_where_it_has_no_credential() {
    let has = |args: &[&str]| template(args).contains("prometheus.io/scrape");
    let tokens = ["--set", "auth.tokensSecret=tokens"];
    assert!(
        has(&[])
            && has(&[
                "--set-json",
                r#"webhooks=[{"path":"/job/a","scheme":"github","secretName":"a","secretKey":"s"}]"#
            ])
    );
    assert!(!has(&tokens) && has(&[&tokens[..], &["--set", "public={metrics}"]].concat()));
}

#[test]
fn a_dispatcher_that_does_not_watch_has_no_right_to() {
    let yaml = template(&["--set", "watch=false"]);
    assert!(yaml.contains("- --watch=false") && yaml.contains("verbs: [create, get]"), "{yaml}");
    assert!(!template(&[]).contains("--watch"));
}

#[test]
fn users_are_left_to_openshift() {
    let all = |args: &[&str]| said(&mut helm(&[&["template", NAME, &path("deploy/chart")], args].concat()));
    assert!(!template(&[]).contains("runAsUser"), "the image has a numeric user");
    assert!(all(&[]).contains("runAsUser: 65532"), "the pod of helm test");
    assert!(!all(&["--set", "test.runAsUser=null"]).contains("runAsUser"));
}

#[test]
fn the_network_policy_admits_all_pods_of_the_namespace_except_those_of_jobs() {
    let namespace = Namespace::new();
    let of = |args: &[&str]| {
        let objects = taken(&namespace, &template(&[&["--set", "networkPolicy.enabled=true"], args].concat()));
        of_kind(&objects, "NetworkPolicy")["spec"]["ingress"][0]["from"].clone()
    };
    let absent = |key: &str| json!({"key": key, "operator": "DoesNotExist"});
    let all =
        json!([{"podSelector": {"matchExpressions": [absent("batch.kubernetes.io/job-name"), absent("job-name")]}}]);
    assert_eq!(of(&[]), all);
    let with = of(&["--set-json", r#"networkPolicy.from=[{"podSelector":{"matchLabels":{"may-post":"true"}}}]"#]);
    assert_eq!(with[0]["podSelector"]["matchLabels"], json!({"may-post": "true"}));
}

#[test]
fn names_stay_strings_in_yaml() {
    let namespace = Namespace::new();
    let args = ["--set-string", "jobs.namespace=123,nameOverride=1e3,fullnameOverride=456,priorityClassName=null"];
    let yaml = template(&args);
    for text in [r#"namespace: "123""#, r#"name: "456""#, r#"app.kubernetes.io/name: "1e3""#, r#""--namespace=123""#] {
        assert!(yaml.contains(text), "no {text} in\n{yaml}");
    }
    let port = "podAnnotations.prometheus\\.io/port=9";
    let objects = taken(&namespace, &template(&["--set-string", "nameOverride=1e3", "--set-string", port]));
    let annotations = &of_kind(&objects, "Deployment")["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], "9");
    assert_eq!(annotations["prometheus.io/scrape"], "true");
}

#[test]
fn the_charts_options_are_those_of_the_program() {
    // those that the chart sets itself, or that make no sense in a pod
    const NOT_THERE: [&str; 15] = [
        "accept",
        "allowed-host",
        "auth",
        "auth-audience",
        "public",
        "webhook",
        "enable",
        "from-file",
        "port",
        "namespace",
        "shutdown-delay",
        "watch",
        "check",
        "help",
        "version",
    ];
    let schema = std::fs::read_to_string(path("deploy/chart/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut known: Vec<&String> = schema["properties"]["options"]["properties"].as_object().unwrap().keys().collect();
    known.sort_unstable();
    let words = include_str!("../../src/help.txt").split_whitespace();
    let mut options: Vec<&str> = words.filter_map(|word| word.strip_prefix("--")).collect();
    options.retain(|option| !NOT_THERE.contains(option));
    options.sort_unstable();
    options.dedup();
    assert_eq!(known, options);
}

#[test]
fn the_yaml_creates_pods_in_any_namespace_even_a_restricted_one() {
    let namespace = Namespace::with(json!({"pod-security.kubernetes.io/enforce": "restricted"}), &["create", "get"]);
    let apply = ["--namespace", &namespace.name, "apply", "--filename", &path("deploy/kubernetes.yaml")];
    said(namespace.cluster.kubectl().args(apply));
    let pods = format!("/api/v1/namespaces/{}/pods", namespace.name);
    let pods = eventually("two pods", || {
        let pods = namespace.admin().get(&pods).1["items"].as_array().unwrap().clone();
        (pods.len() == 2).then_some(pods)
    });
    assert_eq!(pods[0]["spec"]["serviceAccountName"], NAME);
    assert_may_only_make_and_see_jobs(&namespace, &namespace, NAME);
}

#[test]
fn jobs_may_go_to_another_namespace() {
    let (ours, jobs) = (Namespace::new(), Namespace::new());
    let to = format!("jobs.namespace={}", jobs.name);
    let install = ["install", NAME, &path("deploy/chart"), "--set", &to, "--set", "jobs.guard.enabled=true"];
    let notes = said(&mut helm_in(&ours, &install));
    assert!(notes.contains(&format!("kubectl --namespace {} get jobs", jobs.name)), "{notes}");
    assert!(notes.contains("No filter was given"), "{notes}");
    assert_may_only_make_and_see_jobs(&ours, &jobs, NAME);
    said(&mut helm_in(
        &ours,
        &[
            "upgrade",
            NAME,
            &path("deploy/chart"),
            "--set",
            &to,
            "--set",
            "watch=false",
            "--set",
            "jobs.guard.enabled=true",
        ],
    ));
    assert_may_only(jobs_and(&["create", "get"], &[]), &ours, &jobs, NAME);
    let (code, _) = jobs.admin().get(&format!("/api/v1/namespaces/{}/resourcequotas/{NAME}", jobs.name));
    assert_eq!(code, 200);
    let deployment = ours.admin().get(&format!("/apis/apps/v1/namespaces/{}/deployments/{NAME}", ours.name)).1;
    let args = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    assert_eq!(args[3], format!("--namespace={}", jobs.name));
}

/// What the API server itself says of the rights of a service account of `ours` in `jobs`, and that in `ours` it has none.
fn assert_may_only_make_and_see_jobs(ours: &Namespace, jobs: &Namespace, account: &str) {
    assert_may_only(jobs_and(&["create", "get", "list", "watch"], &[]), ours, jobs, account)
}

/// Rules, as the API server reports them. `more`: resource and verb of each.
fn jobs_and(verbs: &[&str], more: &[(&str, &str)]) -> Value {
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"verbs": verbs, "apiGroups": [group], "resources": [resource]});
    let more = more.iter().map(|(resource, verb)| rule("", resource, &[verb]));
    [rule("batch", "jobs", verbs)].into_iter().chain(more).collect()
}

#[test]
fn what_is_enabled_may_do_that_and_nothing_else() {
    let namespace = Namespace::new();
    let chart = path("deploy/chart");
    let four = ["create", "get", "list", "watch"];
    let five = ["create", "get", "list", "watch", "delete"];
    for (enable, rules) in [
        ("list", jobs_and(&four, &[])),
        ("delete", jobs_and(&five, &[])),
        ("pods", jobs_and(&four, &[("pods", "list")])),
        ("logs", jobs_and(&four, &[("pods", "list"), ("pods/log", "get")])),
        ("pods,logs,list,delete", jobs_and(&five, &[("pods", "list"), ("pods/log", "get")])),
        ("", jobs_and(&four, &[])),
    ] {
        let words: Vec<_> = enable.split(',').filter(|word| !word.is_empty()).collect();
        let set = format!("enable={}", json!(words));
        said(&mut helm_in(&namespace, &["upgrade", "--install", NAME, &chart, "--set-json", &set]));
        assert_may_only(rules, &namespace, &namespace, NAME);
        let path = format!("/apis/apps/v1/namespaces/{}/deployments/{NAME}", namespace.name);
        let args = namespace.admin().get(&path).1["spec"]["template"]["spec"]["containers"][0]["args"].clone();
        let given = args.as_array().unwrap().iter().find_map(|arg| arg.as_str()?.strip_prefix("--enable="));
        assert_eq!(given.unwrap_or_default(), enable);
    }
}

fn assert_may_only(want: Value, ours: &Namespace, jobs: &Namespace, account: &str) {
    let token = ours.token_of(account);
    let api = ours.admin().with_token(&token);
    let rules = |namespace: &Namespace| {
        let review = json!({"spec": {"namespace": namespace.name}});
        let answer = api.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review);
        let rules = answer["status"]["resourceRules"].as_array().unwrap().clone();
        // what every service account may
        let everybody = |name: &Value| name == "clustertrustbundles" || name.as_str().unwrap().starts_with("self");
        let is_everybodys = |rule: &Value| rule["resources"].as_array().unwrap().iter().all(everybody);
        rules.into_iter().filter(|rule| !is_everybodys(rule)).collect::<Vec<_>>()
    };
    // the API server reads RBAC from a cache
    eventually(&format!("the rights to be {want}"), || (json!(rules(jobs)) == want).then_some(()));
    if ours.name != jobs.name {
        assert_eq!(rules(ours), [] as [Value; 0]);
    }
}

#[test]
fn helm_test_checks_readiness() {
    let namespace = Namespace::with(json!({"pod-security.kubernetes.io/enforce": "restricted"}), &["create", "get"]);
    said(&mut helm_in(&namespace, &["install", NAME, &path("deploy/chart")]));
    let mut test = helm_in(&namespace, &["test", NAME, "--timeout", "30s"]);
    let test = test.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // there is no node that would run it
    let pod = format!("/api/v1/namespaces/{}/pods/{NAME}-test", namespace.name);
    let admin = namespace.admin();
    let running = eventually("the test's pod", || Some(admin.get(&pod)).filter(|(code, _)| *code == 200)).1;
    let url = running["spec"]["containers"][0]["command"][2].as_str().unwrap().to_owned();
    assert_eq!(url, format!("http://{NAME}:80/health/ready"));
    admin.patch(&format!("{pod}/status"), json!({"status": {"phase": "Succeeded"}}));
    let output = test.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
