//! A namespace for one test, with a service account that has the dispatcher's permissions.

use super::api::Api;
use super::cluster::{Cluster, cluster};
use super::{Folder, eventually};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

const ACCOUNT: &str = "dispatcher";
const TOKEN_LIFE: Duration = Duration::from_secs(600);

pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) cluster: &'static Cluster,
    pub(crate) folder: Folder,
}

impl Namespace {
    /// With the verbs that `docs/security.md` asks for.
    pub(crate) fn new() -> Self {
        Self::with(json!({}), &["create", "get", "list", "watch"])
    }

    pub(crate) fn with(labels: Value, verbs: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cluster = cluster();
        let name = format!("test-{}", NEXT.fetch_add(1, Relaxed));
        let admin = &cluster.admin;
        admin.create("/api/v1/namespaces", json!({"metadata": {"name": name, "labels": labels}}));
        let namespace = Namespace { name, cluster, folder: Folder::new() };
        let name = &namespace.name;
        admin.create(&format!("/api/v1/namespaces/{name}/serviceaccounts"), json!({"metadata": {"name": ACCOUNT}}));
        let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{name}");
        let rules = json!([{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": verbs}]);
        admin.create(&format!("{rbac}/roles"), json!({"metadata": {"name": ACCOUNT}, "rules": rules}));
        admin.create(
            &format!("{rbac}/rolebindings"),
            json!({
                "metadata": {"name": ACCOUNT},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
                "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": name}],
            }),
        );
        for verb in verbs {
            namespace.wait_for_right("batch", "jobs", verb)
        }
        namespace
    }

    /// Changes what the service account may do with Jobs.
    pub(crate) fn allow(&self, verbs: &[&str]) {
        let role = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles/{ACCOUNT}", self.name);
        let rules = json!([{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": verbs}]);
        assert_eq!(self.admin().patch(&role, json!({ "rules": rules })).0, 200);
    }

    /// Adds to what the service account may do. `group`, `resource`, `verb` of each.
    pub(crate) fn allow_too(&self, rights: &[(&str, &str, &str)]) {
        let role = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles/{ACCOUNT}", self.name);
        let mut rules = self.admin().get(&role).1["rules"].as_array().unwrap().clone();
        let rule = |(group, resource, verb)| json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
        rules.extend(rights.iter().copied().map(rule));
        assert_eq!(self.admin().patch(&role, json!({ "rules": rules })).0, 200);
        for (group, resource, verb) in rights {
            self.wait_for_right(group, resource, verb)
        }
    }

    fn wait_for_right(&self, group: &str, resource: &str, verb: &str) {
        let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
        let wanted =
            json!({"namespace": self.name, "verb": verb, "group": group, "resource": resource, "subresource": part});
        self.wait_for(ACCOUNT, wanted)
    }

    /// Makes a service account.
    pub(crate) fn account(&self, name: &str) {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts", self.name);
        self.admin().create(&path, json!({"metadata": {"name": name}}));
    }

    /// Lets a service account do this with the virtual resource of the dispatcher.
    pub(crate) fn may_call(&self, account: &str, verbs: &[&str]) {
        let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}", self.name);
        let name = format!("{account}-may-call");
        let rules = json!([{"apiGroups": ["k8s-job-dispatcher"], "resources": ["jobs", "jobs/log"], "verbs": verbs}]);
        self.admin().create(&format!("{rbac}/roles"), json!({"metadata": {"name": name}, "rules": rules}));
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": self.name}],
        });
        self.admin().create(&format!("{rbac}/rolebindings"), binding);
        self.wait_for_call(account, verbs[0])
    }

    /// Until a service account may do this with the virtual resource.
    pub(crate) fn wait_for_call(&self, account: &str, verb: &str) {
        let wanted = json!({"namespace": self.name, "verb": verb, "group": "k8s-job-dispatcher", "resource": "jobs"});
        self.wait_for(account, wanted)
    }

    /// Lets the dispatcher's service account ask about tokens, as the chart does.
    pub(crate) fn may_review(&self) {
        let binding = json!({
            "metadata": {"name": format!("{}-auth-delegator", self.name)},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.name}],
        });
        self.admin().create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding);
        let wanted = json!({"verb": "create", "group": "authentication.k8s.io", "resource": "tokenreviews"});
        self.wait_for(ACCOUNT, wanted)
    }

    /// The API server reads RBAC from a cache of its own.
    fn wait_for(&self, account: &str, wanted: Value) {
        let user = format!("system:serviceaccount:{}:{account}", self.name);
        let review = json!({"spec": {"resourceAttributes": wanted, "user": user}});
        eventually("RBAC to be known", || {
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let (_, answer) = self.admin().call("POST", path, Some(&review));
            answer["status"]["allowed"].as_bool().filter(|allowed| *allowed)
        });
    }

    pub(crate) fn admin(&self) -> &Api {
        &self.cluster.admin
    }

    /// A bound token for the service account, of the shortest life that the API server gives out.
    pub(crate) fn token(&self) -> String {
        self.token_for(TOKEN_LIFE)
    }

    pub(crate) fn token_for(&self, life: Duration) -> String {
        self.bound_token(ACCOUNT, life)
    }

    /// A token of a service account for this audience; without one for the API server.
    pub(crate) fn token_with(&self, account: &str, audience: Option<&str>) -> String {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", self.name);
        let audiences = audience.map(|audience| vec![audience]);
        let spec = json!({"audiences": audiences, "expirationSeconds": TOKEN_LIFE.as_secs()});
        self.admin().create(&path, json!({ "spec": spec }))["status"]["token"].as_str().unwrap().to_owned()
    }

    /// For another service account of this namespace.
    pub(crate) fn token_of(&self, account: &str) -> String {
        self.bound_token(account, TOKEN_LIFE)
    }

    fn bound_token(&self, account: &str, life: Duration) -> String {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", self.name);
        let answer = self.admin().create(&path, json!({"spec": {"expirationSeconds": life.as_secs()}}));
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    /// A quota of so many Jobs, once it is counted.
    pub(crate) fn limit_jobs(&self, number: u32) {
        self.cluster.needs_controller_manager();
        let quotas = format!("/api/v1/namespaces/{}/resourcequotas", self.name);
        let hard = json!({"count/jobs.batch": number.to_string()});
        self.admin().create(&quotas, json!({"metadata": {"name": "jobs"}, "spec": {"hard": hard}}));
        eventually("the quota to be counted", || {
            let (_, quota) = self.admin().get(&format!("{quotas}/jobs"));
            (quota["status"]["hard"] == hard && quota["status"]["used"]["count/jobs.batch"].is_string()).then_some(())
        });
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.folder.write("token", &self.token())
    }

    pub(crate) fn jobs(&self) -> String {
        format!("/apis/batch/v1/namespaces/{}/jobs", self.name)
    }

    pub(crate) fn job(&self, name: &str) -> Option<Value> {
        let (code, job) = self.admin().get(&format!("{}/{name}", self.jobs()));
        (code == 200).then_some(job)
    }

    /// Asks the API server directly to create a Job, as a dry run. Code and body.
    pub(crate) fn try_create_job(&self, name: &str) -> (u16, Value) {
        let job = json!({"metadata": {"name": name}, "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "job", "image": "busybox"}],
        }}}});
        self.admin().call("POST", &format!("{}?dryRun=All", self.jobs()), Some(&job))
    }

    pub(crate) fn job_names(&self) -> Vec<String> {
        let (_, list) = self.admin().get(&self.jobs());
        let jobs = list["items"].as_array().into_iter().flatten();
        jobs.map(|job| job["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.admin().try_call("DELETE", &format!("/api/v1/namespaces/{}", self.name), None);
    }
}
