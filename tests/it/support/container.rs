//! The image, run by podman as a kubelet runs it. `tests/image` makes it first.

use super::component::Guarded;
use super::dispatcher::Dispatcher;
use super::namespace::Namespace;
use super::{Folder, said};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Half of the chart's limit: what well-meant requests need is a third of this.
const MEMORY: &str = "64m";

pub(crate) struct Container {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) name: String,
    /// The dispatcher's pid, outside of its namespace.
    pub(crate) pid: u32,
    _guard: Guarded,
}

pub(crate) fn podman(args: &[&str]) -> Command {
    let mut podman = Command::new("podman");
    podman.args(args).stdin(Stdio::null());
    podman
}

/// The image under test.
pub(crate) fn image() -> String {
    std::env::var("IMAGE").expect("IMAGE names the image: run tests/image")
}

impl Container {
    /// In front of the test cluster, and removed by podman when it ends.
    pub(crate) fn start(namespace: &Namespace, account: &ServiceAccount, args: &[&str]) -> Self {
        let port = namespace.cluster.url.rsplit(':').next().unwrap();
        let volume = format!("--volume={}:{SERVICE_ACCOUNT}:ro", account.folder.0.display());
        let port = format!("--env=KUBERNETES_SERVICE_PORT={port}");
        Self::start_with(&["--rm", "--env=KUBERNETES_SERVICE_HOST=127.0.0.1", &port, &volume], args)
    }

    /// Without a cluster, for `--dry-run=client` or `--server`; when it ends, podman can still say why.
    pub(crate) fn start_alone(args: &[&str]) -> Self {
        Self::start_with(&[], args)
    }

    /// With read-only root, without capabilities, new privileges and root, in little memory.
    fn start_with(options: &[&str], args: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("dispatcher-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let mut command = podman(&["--runtime=runc", "run", "--network=host", "--name", &name]);
        command
            .args(["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"])
            .args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000", "--memory", MEMORY])
            .arg("--env=PORT=0")
            .args(options)
            .arg(image())
            .args(args)
            .current_dir(std::env::temp_dir()) // where conmon leaves a file if the kernel kills the container
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let dispatcher = Dispatcher::start_command(command);
        let pid = said(&mut podman(&["inspect", "--format={{.State.Pid}}", &name])).trim().parse().unwrap();
        Container { dispatcher, name, pid, _guard: Guarded::new(pid) }
    }

    /// Whether the kernel killed it for want of memory.
    pub(crate) fn was_killed(&self) -> bool {
        said(&mut podman(&["inspect", "--format={{.State.OOMKilled}}", &self.name])).trim() == "true"
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = podman(&["rm", "--force", "--time=0", "--ignore", &self.name]).stdout(Stdio::null()).status();
    }
}

/// The folder that a kubelet mounts: each file is a link into a folder that `..data` links to, and a rotation swaps that one link.
pub(crate) struct ServiceAccount {
    folder: Folder,
    rotations: AtomicU32,
}

impl ServiceAccount {
    pub(crate) fn new(ca_pem: &str, namespace: &str, token: &str) -> Self {
        let account = ServiceAccount { folder: Folder::new(), rotations: AtomicU32::new(0) };
        for file in ["token", "ca.crt", "namespace"] {
            symlink(format!("..data/{file}"), account.folder.0.join(file)).unwrap();
        }
        account.rotate(ca_pem, namespace, token);
        account
    }

    pub(crate) fn rotate(&self, ca_pem: &str, namespace: &str, token: &str) {
        let root = &self.folder.0;
        let data = format!("..2026_11_25_{}", self.rotations.fetch_add(1, Relaxed));
        fs::create_dir(root.join(&data)).unwrap();
        for (file, text) in [("token", token), ("ca.crt", ca_pem), ("namespace", namespace)] {
            fs::write(root.join(&data).join(file), text).unwrap();
        }
        symlink(&data, root.join("..data_tmp")).unwrap();
        let before = fs::read_link(root.join("..data"));
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        if let Ok(before) = before {
            fs::remove_dir_all(root.join(before)).unwrap()
        }
    }
}
