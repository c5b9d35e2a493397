//! Helm, and the chart.

use super::assets;
use super::namespace::Namespace;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

pub(crate) const NAME: &str = "k8s-job-dispatcher";

/// A file of the repository.
pub(crate) fn path(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name).display().to_string()
}

/// Helm without a cluster and without anything of the user's.
pub(crate) fn helm(args: &[&str]) -> Command {
    static HELM: LazyLock<std::path::PathBuf> = LazyLock::new(assets::helm);
    let mut helm = Command::new(&*HELM);
    helm.args(args).env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    helm
}

/// Helm, on the test cluster as admin, in this namespace.
pub(crate) fn helm_in(namespace: &Namespace, args: &[&str]) -> Command {
    let mut helm = helm(args);
    helm.args(["--namespace", &namespace.name]).env("KUBECONFIG", &namespace.cluster.kubeconfig);
    helm.env("HOME", &namespace.folder.0);
    helm
}

/// Standard output of what must not fail.
pub(crate) fn said(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}:\n{stdout}{stderr}");
    stdout.into_owned()
}
