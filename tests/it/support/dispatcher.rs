//! The real binary.

use super::component::Process;
use super::eventually;
use super::http::{JSON, Line, Reply, request};
use super::namespace::Namespace;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// A filter that takes the manifest from the body.
pub(crate) const AS_IS: &str = ".";

pub(crate) struct Dispatcher {
    process: Process,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

/// The binary under test; `DISPATCHER` names another.
pub(crate) fn binary() -> OsString {
    std::env::var_os("DISPATCHER").unwrap_or_else(|| env!("CARGO_BIN_EXE_k8s-job-dispatcher").into())
}

/// The binary, with nothing of our environment, nor of a service account that this machine may have.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(args)
        .env_clear()
        .env("SERVICE_ACCOUNT_FOLDER", "/nonexistent/serviceaccount")
        .envs(std::env::var_os("PRETEND_CORES").map(|cores| ("PRETEND_CORES", cores))) // see tests/measure
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs the binary to its end.
pub(crate) fn run(args: &[&str], environment: &[(&str, &str)]) -> Output {
    command(args).envs(environment.iter().copied()).output().unwrap()
}

impl Dispatcher {
    /// Listens on a free port of 127.0.0.1, unless `args` say otherwise.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_command(command(&[&["--port=0"], args].concat()))
    }

    /// In front of the test cluster, with the namespace's own token.
    pub(crate) fn for_namespace(namespace: &Namespace, args: &[&str]) -> Self {
        Self::start_command(Self::command_for(namespace, &namespace.cluster.url, args))
    }

    pub(crate) fn command_for(namespace: &Namespace, server: &str, args: &[&str]) -> Command {
        let token = namespace.token_file();
        let mut command = command(&["--port=0", "--server", server, "--namespace", &namespace.name]);
        command
            .arg("--token-file")
            .arg(token)
            .arg("--certificate-authority")
            .arg(&namespace.cluster.ca_file)
            .args(args);
        command
    }

    pub(crate) fn start_command(mut command: Command) -> Self {
        let mut process = Process::start(&mut command);
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(process.0.stderr.take().unwrap());
        let lines = log.clone();
        thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line)));
        let first = eventually("the first line of the log", || {
            let gone = process.0.try_wait().unwrap();
            let lines = log.lock().unwrap().clone();
            assert!(gone.is_none(), "the dispatcher ended with {gone:?}: {lines:?}");
            lines.first().cloned()
        });
        let address = first.split("listening on ").nth(1).unwrap_or_else(|| panic!("no address in {first:?}"));
        let address = address.split('"').next().unwrap(); // in JSON there is more
        let mut address: SocketAddr = address.parse().unwrap();
        if address.ip().is_unspecified() {
            address.set_ip("127.0.0.1".parse().unwrap());
        }
        Dispatcher { process, address, log }
    }

    pub(crate) fn line(&self) -> Line {
        Line::connect(self.address)
    }

    /// Sends one request on a line of its own.
    pub(crate) fn send(&self, text: impl AsRef<[u8]>) -> Reply {
        let mut line = self.line();
        line.send(text);
        line.receive().expect("a reply")
    }

    pub(crate) fn post(&self, target: &str, body: &str) -> Reply {
        self.send(request("POST", target, JSON, body))
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        self.send(request("GET", target, "", ""))
    }

    /// The value of a metric; None if there is none, or no metrics.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = String::from_utf8(self.get("/metrics").body).unwrap();
        let value = |line: &str| {
            line.strip_prefix("k8s_job_dispatcher_")?.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned)
        };
        Some(text.lines().find_map(value)?.parse().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process.0), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_none()
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the dispatcher to end", || self.process.0.try_wait().unwrap())
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a line with these words.
    pub(crate) fn logged(&self, words: &str) -> String {
        eventually(&format!("the log to say {words:?}"), || self.log().into_iter().find(|line| line.contains(words)))
    }
}

/// Debug forms of internal types, which no line of the log may have.
const DEBUG_FORMS: [&str; 11] = [
    "Some(",
    "Ok(",
    "Err(",
    "Disconnected(",
    "TimedOut(",
    "InvalidResponse(",
    "Refused(",
    "Refusal {",
    "Status {",
    "Io(",
    "Error {",
];

/// The code in a line of the access log.
fn code_of(line: &str) -> Option<u16> {
    let (request, _) = line.split_once(" client=")?;
    request.rsplit(' ').nth(2)?.parse().ok()
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        if !thread::panicking() {
            for line in self.log().iter().filter(|line| !line.contains("filter says")) {
                let form = DEBUG_FORMS.iter().find(|form| line.contains(**form));
                assert!(form.is_none(), "a line of the log has the debug form {form:?}: {line}");
                let is_error = code_of(line).is_some_and(|code| code >= 400);
                assert!(!is_error || line.contains(" reason="), "an error without its reason: {line}");
            }
        }
        if thread::panicking() {
            let log = self.log();
            eprintln!("the dispatcher's log ends with:\n{}", log[log.len().saturating_sub(30)..].join("\n"));
        }
    }
}
