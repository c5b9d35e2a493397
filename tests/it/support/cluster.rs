//! The cluster: etcd, kube-apiserver, kube-controller-manager. One for all tests of a run.

use super::api::Api;
use super::certificates::{Authority, key};
use super::component::Component;
use super::{Folder, assets, kubelet};
use serde_json::json;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

/// How long the first API server runs after the others, so that its watchers see what was done through them.
const LAST_WORDS: Duration = Duration::from_millis(500);
const ADMIN: &str = "admin-of-the-tests";
/// Usual start-up time on an idle machine.
const READY_IN: Duration = Duration::from_secs(10);
/// The most that an API server may take to start: one of a hundred thousand Jobs is ready when its watch cache has them all, for which
/// Kubernetes gives it a minute (its hook `storage-readiness`).
const START: Duration = Duration::from_secs(90);
const CONTROLLERS: &str = "job-controller,serviceaccount-controller,root-ca-certificate-publisher-controller,resourcequota-controller,\
    ttl-after-finished-controller,garbage-collector-controller,namespace-controller,deployment-controller,replicaset-controller,\
    validatingadmissionpolicy-status-controller";

pub(crate) struct Cluster {
    folder: Folder,
    programs: PathBuf,
    etcd_url: String,
    pub(crate) ca_file: PathBuf,
    pub(crate) ca_pem: String,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) url: String,
    pub(crate) admin: Api,
    has_controllers: bool,
    /// etcd is the first, its API server the last.
    running: Mutex<Vec<Component>>,
}

/// An API server, which can be killed and started again.
pub(crate) struct ApiServer {
    component: Component,
    program: PathBuf,
    folder: PathBuf,
    name: String,
    args: Vec<String>,
    pub(crate) url: String,
    admin: Api,
}

/// The cluster of this test run; the first caller starts it.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: LazyLock<Cluster> = LazyLock::new(Cluster::start);
    &CLUSTER
}

/// A port that is free at this moment. The programs that need one do not report which they chose, so the kernel is asked for one.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let programs = assets::cluster();
        let start = Instant::now();
        let folder = Folder::new();
        let write = |name: &str, text: &str| {
            let path = folder.0.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let authority = Authority::new("test cluster");
        let (certificate, server_key) = authority.server();
        let ca_file = write("ca.crt", &authority.pem);
        write("server.crt", &certificate);
        write("server.key", &server_key);
        let service_accounts = key();
        write("sa.key", &service_accounts.serialize_pem());
        write("sa.pub", &service_accounts.public_key_pem());
        write("tokens.csv", &format!("{ADMIN},admin,admin,system:masters\n"));

        let [client, peer] = [free_port(), free_port()].map(|port| format!("http://127.0.0.1:{port}"));
        let etcd = Component::start(
            &folder.0,
            "etcd",
            &programs.join("etcd"),
            &[
                format!("--data-dir={}", folder.0.join("etcd").display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
                "--unsafe-no-fsync".to_owned(),
                "--log-level=error".to_owned(),
            ],
        );
        let client_address = client.trim_start_matches("http://").to_owned();
        etcd.wait("etcd", || TcpStream::connect(&client_address).ok());
        let server = ApiServer::start(&programs, &folder.0, "kube-apiserver", &client, &authority.pem, &[]);
        let kubeconfig = write("kubeconfig", &kubeconfig(&server.url, &ca_file));
        let has_controllers = programs.join("kube-controller-manager").exists();
        let mut running = vec![etcd];
        if has_controllers {
            running.push(controller_manager(&programs, &folder.0, &kubeconfig, &ca_file));
        }
        let (url, admin) = (server.url.clone(), server.admin.clone());
        if has_controllers {
            server.component.wait("the default service account", || {
                admin
                    .try_call("GET", "/api/v1/namespaces/default/serviceaccounts/default", None)
                    .filter(|(code, _)| *code == 200)
            });
        }
        kubelet::start(admin.clone());
        running.push(server.component);
        let took = start.elapsed();
        let late = if took > READY_IN { ", which is late" } else { "" };
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("test cluster: ready in {took:.1?}{late}\n").as_bytes(),
        );
        Cluster {
            programs,
            etcd_url: client,
            ca_file,
            ca_pem: authority.pem,
            kubeconfig,
            url,
            admin,
            has_controllers,
            running: Mutex::new(running),
            folder,
        }
    }

    /// One more API server for the same cluster, for a test that has to kill it.
    pub(crate) fn another_api_server(&self) -> ApiServer {
        self.api_server_with(&[], &self.ca_pem)
    }

    /// One more API server with these further flags, the last of which count. `ca_pem`: the CA that signs its certificate.
    pub(crate) fn api_server_with(&self, flags: &[String], ca_pem: &str) -> ApiServer {
        let name = format!("kube-apiserver-{}", free_port());
        ApiServer::start(&self.programs, &self.folder.0, &name, &self.etcd_url, ca_pem, flags)
    }

    /// Holds etcd up: what the API servers are asked takes so much longer.
    pub(crate) fn stall_etcd(&self, time: Duration) {
        self.running.lock().unwrap()[0].stall(time)
    }

    /// A copy of what etcd has stored, as it is at one moment.
    pub(crate) fn back_up(&self) -> Folder {
        let copy = Folder::new();
        self.running.lock().unwrap()[0]
            .while_stopped(|| copy_folder(&self.folder.0.join("etcd"), &copy.0.join("etcd")));
        copy
    }

    /// Restores etcd from a copy, as Kubernetes prescribes: all API servers are stopped, etcd is restored, then they are started, and the
    /// controller manager too. `others`: further API servers. `is_back`: called when the first one is ready.
    pub(crate) fn restore(&self, copy: &Folder, others: &mut [ApiServer], is_back: impl FnOnce()) {
        let mut running = self.running.lock().unwrap();
        let [etcd, controllers @ .., server] = &mut running[..] else {
            panic!("the cluster has etcd and an API server")
        };
        controllers.iter_mut().for_each(Component::kill);
        others.iter_mut().for_each(ApiServer::kill);
        std::thread::sleep(LAST_WORDS);
        server.kill();
        etcd.kill();
        let data = self.folder.0.join("etcd");
        std::fs::remove_dir_all(&data).unwrap();
        copy_folder(&copy.0.join("etcd"), &data);
        etcd.start_again();
        etcd.wait("etcd", || TcpStream::connect(self.etcd_url.trim_start_matches("http://")).ok());
        server.start_again();
        server.wait("/readyz", || self.admin.try_call("GET", "/readyz", None).filter(|(code, _)| *code == 200));
        is_back();
        others.iter_mut().for_each(ApiServer::launch_again);
        controllers.iter_mut().for_each(Component::start_again);
        others.iter().for_each(ApiServer::wait)
    }

    pub(crate) fn needs_controller_manager(&self) {
        assert!(self.has_controllers, "this test needs kube-controller-manager in KUBEBUILDER_ASSETS");
    }

    fn kubectl_program(&self) -> PathBuf {
        let program = self.programs.join("kubectl");
        assert!(program.exists(), "this test needs kubectl in KUBEBUILDER_ASSETS");
        program
    }

    /// kubectl, as admin.
    pub(crate) fn kubectl(&self) -> Command {
        let mut kubectl = Command::new(self.kubectl_program());
        kubectl.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.folder.0);
        kubectl
    }

    pub(crate) fn start_kubectl(&self, folder: &Path, args: &[&str]) -> Component {
        let args =
            args.iter().map(|arg| arg.to_string()).chain([format!("--kubeconfig={}", self.kubeconfig.display())]);
        Component::start(folder, "kubectl", &self.kubectl_program(), &args.collect::<Vec<_>>())
    }
}

fn copy_folder(from: &Path, to: &Path) {
    super::said(Command::new("cp").args(["-a", "--sparse=always"]).args([from, to]));
}

impl ApiServer {
    fn start(programs: &Path, folder: &Path, name: &str, etcd: &str, ca_pem: &str, flags: &[String]) -> Self {
        let port = free_port();
        let file = |name: &str| folder.join(name).display().to_string();
        let mut args = vec![
            format!("--etcd-servers={etcd}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--cert-dir={}", file("certs")),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--allow-privileged=true".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
        ];
        args.extend_from_slice(flags);
        let program = programs.join("kube-apiserver");
        let url = format!("https://127.0.0.1:{port}");
        let server = ApiServer {
            component: Component::start(folder, name, &program, &args),
            admin: Api::new(&url, ca_pem, ADMIN),
            program,
            folder: folder.to_owned(),
            name: name.to_owned(),
            args,
            url,
        };
        server.wait();
        server
    }

    pub(crate) fn wait(&self) {
        let ready = || self.admin.try_call("GET", "/readyz", None).filter(|(code, _)| *code == 200);
        self.component.wait_for("/readyz", START, ready);
    }

    pub(crate) fn kill(&mut self) {
        self.component.kill();
    }

    pub(crate) fn stop(&mut self) {
        self.component.stop();
    }

    /// Stops it for this time (SIGSTOP): its connections stay open, and say nothing.
    pub(crate) fn silence(&mut self, time: Duration) {
        self.component.stall(time)
    }

    /// As admin. `ca_pem`: the CA that signs its certificate now.
    pub(crate) fn admin_with(&self, ca_pem: &str) -> Api {
        Api::new(&self.url, ca_pem, ADMIN)
    }

    /// The same again, on the same port, ready.
    pub(crate) fn start_again(&mut self) {
        self.launch_again();
        self.wait();
    }

    /// The same again, on the same port, which may not be ready for long.
    pub(crate) fn launch_again(&mut self) {
        self.component = Component::start(&self.folder, &self.name, &self.program, &self.args);
    }
}

fn controller_manager(programs: &Path, folder: &Path, kubeconfig: &Path, ca_file: &Path) -> Component {
    let args = [
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials".to_owned(),
        "--secure-port=0".to_owned(),
        format!("--service-account-private-key-file={}", folder.join("sa.key").display()),
        format!("--root-ca-file={}", ca_file.display()),
        format!("--controllers={CONTROLLERS}"),
    ];
    Component::start(folder, "kube-controller-manager", &programs.join("kube-controller-manager"), &args)
}

fn kubeconfig(url: &str, ca_file: &Path) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": {"server": url, "certificate-authority": ca_file}}],
        "users": [{"name": "admin", "user": {"token": ADMIN}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
        "current-context": "tests",
    })
    .to_string()
}
