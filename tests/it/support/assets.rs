//! Where etcd, kube-apiserver, kube-controller-manager and kubectl come from: `KUBEBUILDER_ASSETS`, as for controller-runtime, or built
//! from `tests/cluster` once per machine.

use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAMS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"];
const NEEDED: [&str; 2] = ["etcd", "kube-apiserver"];
const TELL: Duration = Duration::from_secs(5);
const WAY_OUT: &str = "set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver (and kube-controller-manager and kubectl, where a test needs them), \
    as for controller-runtime's envtest; then no Go is needed";

/// The folder with the programs.
pub(crate) fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty()) {
        let folder = PathBuf::from(folder);
        for program in NEEDED {
            assert!(
                folder.join(program).exists(),
                "KUBEBUILDER_ASSETS is {}, where there is no {program}",
                folder.display()
            );
        }
        return folder;
    }
    built()
}

fn built() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster");
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum", "main.go"] {
        hash.update(fs::read(source.join(file)).unwrap());
    }
    let key: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let cache = cache().join("k8s-job-dispatcher");
    fs::create_dir_all(&cache).unwrap();
    let folder = cache.join(format!("cluster-{key}"));

    // whoever comes second waits for the first, and finds what that has built
    let lock = File::create(cache.join(format!("cluster-{key}.lock"))).unwrap();
    if lock.try_lock().is_err() {
        tell("waiting for another test run that builds the API server");
        lock.lock().unwrap();
    }
    if !folder.join("kubectl").exists() {
        let unfinished = cache.join(format!("cluster-{key}.unfinished"));
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir_all(&unfinished).unwrap();
        build(&source, &unfinished.join("cluster"));
        for program in PROGRAMS {
            std::os::unix::fs::symlink("cluster", unfinished.join(program)).unwrap();
        }
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&unfinished, &folder).unwrap();
    }
    folder
}

fn cache() -> PathBuf {
    let from = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("XDG_CACHE_HOME").or_else(|| Some(from("HOME")?.join(".cache"))).expect("HOME or XDG_CACHE_HOME is set")
}

/// To the terminal, also where a test's output is captured.
fn tell(what: &str) {
    let _ = writeln!(std::io::stderr(), "test cluster: {what}");
}

fn go(source: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(source).stdin(Stdio::null());
    go
}

fn build(source: &Path, binary: &Path) {
    let deps = go(source).args(["list", "-deps", "."]).output();
    let deps = deps.unwrap_or_else(|error| panic!("cannot run go: {error}; install Go 1.26 or newer, or {WAY_OUT}"));
    let error = String::from_utf8_lossy(&deps.stderr);
    assert!(deps.status.success(), "go list failed:\n{error}\nGo 1.26 or newer is needed; or {WAY_OUT}");
    let all = deps.stdout.split(|byte| *byte == b'\n').count();
    tell(&format!("building the API server, once per machine; this takes minutes ({all} packages)"));

    // what kubectl version and the API server's /version say
    let modules = fs::read_to_string(source.join("go.mod")).unwrap();
    let version = modules.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes ")).unwrap();
    let flags = format!("-s -w -X k8s.io/component-base/version.gitVersion={version}");
    let mut child = go(source)
        .args(["build", "-v", "-trimpath", "-ldflags", &flags, "-o"])
        .arg(binary)
        .arg(".")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (start, mut told) = (Instant::now(), Instant::now());
    let mut last_lines = Vec::new();
    for (done, line) in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).enumerate() {
        if told.elapsed() > TELL {
            told = Instant::now();
            tell(&format!("{done} of at most {all} packages after {} s", start.elapsed().as_secs()));
        }
        last_lines.push(line);
        if last_lines.len() > 20 {
            last_lines.remove(0);
        }
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "go build failed:\n{}\nyou can also {WAY_OUT}", last_lines.join("\n"));
    tell(&format!("built in {} s", start.elapsed().as_secs()));
}
