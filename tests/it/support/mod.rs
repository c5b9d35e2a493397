//! Test support: a real cluster, the real binary, a scripted API server, and plain HTTP between them.
#![allow(dead_code)] // the tests and the programs beside them each use their part

pub(crate) mod api;
pub(crate) mod assets;
pub(crate) mod certificates;
pub(crate) mod cluster;
pub(crate) mod component;
pub(crate) mod container;
pub(crate) mod contract;
pub(crate) mod dispatcher;
pub(crate) mod follow;
pub(crate) mod go;
pub(crate) mod helm;
pub(crate) mod http;
pub(crate) mod kubelet;
pub(crate) mod logs;
pub(crate) mod namespace;
pub(crate) mod scripted;
pub(crate) mod webhook;

// of the programs in tests/bench; their own tests run with the others
#[path = "../../bench/support/chaos/mod.rs"]
pub(crate) mod chaos;
#[path = "../../bench/support/load/mod.rs"]
pub(crate) mod load;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Timeout of everything that the tests wait for; a loaded machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Interval of polling.
const LOOK: Duration = Duration::from_millis(20);

/// Polls until `seen` returns something.
pub(crate) fn eventually<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(thing) = seen() {
            return thing;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(LOOK);
    }
}

/// A file of the repository.
pub(crate) fn path(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name).display().to_string()
}

/// Standard output of a command that must succeed.
pub(crate) fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}:\n{stdout}{stderr}");
    stdout
}

/// A folder that is removed on drop.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

/// The parent of all folders of this process; removed when the process has ended, however it ended.
static FOLDERS: LazyLock<(PathBuf, Child)> = LazyLock::new(|| {
    let root = std::env::temp_dir().join(format!("k8s-job-dispatcher-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    let sweep = component::remove_at_end(&root);
    (root, sweep)
});

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = FOLDERS.0.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
