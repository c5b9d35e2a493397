//! Programs built from Go modules, once per machine: `tests/NAME` has the module, the user's cache the binary.

use super::path;
use ring::digest::{Context, SHA256};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A program to build.
pub(crate) struct Program {
    /// Folder under `tests`, and the binary's name.
    pub(crate) name: &'static str,
    /// Its name in progress messages.
    pub(crate) what: &'static str,
    /// Go's package of `main`.
    pub(crate) package: &'static str,
    /// Variable for the linker to set to a module's version: `-X VARIABLE=VERSION`.
    pub(crate) version: Option<(&'static str, &'static str)>,
    /// Advice if it cannot be built.
    pub(crate) way_out: &'static str,
}

/// The module of a program.
pub(crate) fn module(name: &str) -> PathBuf {
    path(&format!("tests/{name}")).into()
}

/// The folder that holds the built program. `aliases`: further names for it.
pub(crate) fn built(program: &Program, aliases: &[&str]) -> PathBuf {
    let source = module(program.name);
    let mut hash = Context::new(&SHA256);
    for file in ["go.mod", "go.sum", "main.go"] {
        hash.update(&fs::read(source.join(file)).unwrap_or_default());
    }
    let key: String = hash.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let key = format!("{}-{key}", program.name);
    let cache = cache().join("k8s-job-dispatcher");
    fs::create_dir_all(&cache).unwrap();
    let folder = cache.join(&key);

    // a second test run waits for the first, and finds what it has built
    let lock = File::create(cache.join(format!("{key}.lock"))).unwrap();
    if lock.try_lock().is_err() {
        report(&format!("waiting for another test run that builds {}", program.what));
        lock.lock().unwrap();
    }
    if !folder.exists() {
        let unfinished = cache.join(format!("{key}.unfinished"));
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir_all(&unfinished).unwrap();
        build(program, &source, &unfinished.join(program.name));
        for alias in aliases {
            std::os::unix::fs::symlink(program.name, unfinished.join(alias)).unwrap();
        }
        fs::rename(&unfinished, &folder).unwrap();
    }
    folder
}

fn cache() -> PathBuf {
    let from = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("XDG_CACHE_HOME").or_else(|| Some(from("HOME")?.join(".cache"))).expect("HOME or XDG_CACHE_HOME is set")
}

/// Prints to the terminal, also if the test's output is captured.
fn report(what: &str) {
    let _ = writeln!(std::io::stderr(), "tests: {what}");
}

/// go, run in the module.
pub(crate) fn go(source: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(source).stdin(Stdio::null());
    go
}

fn build(program: &Program, source: &Path, binary: &Path) {
    let Program { what, package, version, way_out, .. } = program;
    let deps = go(source).args(["list", "-deps", package]).output();
    let deps = deps.unwrap_or_else(|error| panic!("cannot run go: {error}; install Go 1.26 or newer, or {way_out}"));
    let error = String::from_utf8_lossy(&deps.stderr);
    assert!(deps.status.success(), "go list failed:\n{error}\nGo 1.26 or newer is needed; or {way_out}");
    let all = deps.stdout.split(|byte| *byte == b'\n').count();
    report(&format!("building {what}, once per machine; this takes minutes ({all} packages)"));

    let mut flags = "-s -w".to_owned();
    if let Some((variable, module)) = version {
        let modules = fs::read_to_string(source.join("go.mod")).unwrap();
        let version = modules.lines().find_map(|line| line.trim().strip_prefix(module)).unwrap().trim();
        flags = format!("{flags} -X {variable}={version}");
    }
    let mut child = go(source)
        .args(["build", "-v", "-trimpath", "-ldflags", &flags, "-o"])
        .arg(binary)
        .arg(package)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (start, mut reported) = (Instant::now(), Instant::now());
    let mut last_lines = Vec::new();
    for (done, line) in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).enumerate() {
        if reported.elapsed() > REPORT_INTERVAL {
            reported = Instant::now();
            report(&format!("{done} of at most {all} packages after {} s", start.elapsed().as_secs()));
        }
        last_lines.push(line);
        if last_lines.len() > 20 {
            last_lines.remove(0);
        }
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "go build failed:\n{}\nyou can also {way_out}", last_lines.join("\n"));
    report(&format!("built {what} in {} s", start.elapsed().as_secs()));
}
