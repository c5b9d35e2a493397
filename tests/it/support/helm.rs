//! Helm, and the chart.

use super::assets;
use super::namespace::Namespace;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

pub(crate) const NAME: &str = "k8s-job-dispatcher";

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
