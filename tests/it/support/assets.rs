//! Where the programs that the tests run beside ours come from: named by a variable, or built from a Go module under `tests`.

use super::go::{Program, built};
use std::path::PathBuf;

const PROGRAMS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"];
const NEEDED: [&str; 2] = ["etcd", "kube-apiserver"];

/// The folder with etcd, kube-apiserver, kube-controller-manager and kubectl: `KUBEBUILDER_ASSETS`, as for controller-runtime, or built
/// from `tests/cluster`.
pub(crate) fn cluster() -> PathBuf {
    let Some(folder) = named("KUBEBUILDER_ASSETS") else {
        // the version is what kubectl version and the API server's /version say
        let version = Some(("k8s.io/component-base/version.gitVersion", "k8s.io/kubernetes "));
        let way_out = "set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver (and kube-controller-manager and kubectl, \
            where a test needs them), as for controller-runtime's envtest; then no Go is needed";
        return built(&Program { name: "cluster", what: "the API server", package: ".", version, way_out }, &PROGRAMS);
    };
    for program in NEEDED {
        assert!(
            folder.join(program).exists(),
            "KUBEBUILDER_ASSETS is {}, where there is no {program}",
            folder.display()
        );
    }
    folder
}

/// Helm: `HELM` names the program, else it is built from `tests/helm`.
pub(crate) fn helm() -> PathBuf {
    let way_out = "set HELM to a Helm 4 of yours";
    let package = "helm.sh/helm/v4/cmd/helm";
    let program = Program { name: "helm", what: "Helm", package, version: None, way_out };
    named("HELM").unwrap_or_else(|| built(&program, &[]).join("helm"))
}

/// Kueue's controller, built from `tests/kueue`.
pub(crate) fn kueue() -> PathBuf {
    let way_out = "leave out the test of Kueue";
    let package = "sigs.k8s.io/kueue/cmd/kueue";
    built(&Program { name: "kueue", what: "Kueue", package, version: None, way_out }, &[]).join("kueue")
}

fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
