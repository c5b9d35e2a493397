//! Programs that end with the test process, however it ends.
//!
//! A shell starts it and waits for the end of its own standard input, which is a pipe that only this process holds: when we end it, or
//! are killed, the pipe closes, and the shell ends the program by its pid. A word on the pipe names a signal to send; after TERM the shell only
//! waits.

use super::PATIENCE;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

const GUARD: &str = r#"
    log=$1; shift
    "$@" </dev/null >>"$log" 2>&1 & pid=$!
    end=KILL
    while read -r signal; do
      [ "$signal" = TERM ] && { end=TERM; break; }
      kill "-$signal" "$pid"
    done
    kill "-$end" "$pid" 2>/dev/null
    wait"#;

#[derive(Debug)]
pub(crate) struct Component {
    shell: Child,
    name: String,
    log: PathBuf,
    folder: PathBuf,
    program: PathBuf,
    args: Vec<String>,
}

impl Component {
    /// Its output goes to `NAME.log` in `folder`.
    pub(crate) fn start(folder: &Path, name: &str, program: &Path, args: &[String]) -> Self {
        let log = folder.join(format!("{name}.log"));
        File::options().create(true).append(true).open(&log).unwrap();
        let shell = Command::new("sh")
            .args(["-c", GUARD, name])
            .arg(&log)
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (folder, program) = (folder.to_owned(), program.to_owned());
        Component { shell, name: name.to_owned(), log, folder, program, args: args.to_vec() }
    }

    /// The same again.
    pub(crate) fn start_again(&mut self) {
        self.kill();
        *self = Self::start(&self.folder, &self.name, &self.program, &self.args)
    }

    /// Ends the program as a power cut would.
    pub(crate) fn kill(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }

    /// Asks the program to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        if let Some(mut stdin) = self.shell.stdin.take() {
            let _ = stdin.write_all(b"TERM\n");
        }
        let _ = self.shell.wait();
    }

    /// Holds the program up for this time.
    pub(crate) fn stall(&mut self, time: Duration) {
        let stdin = self.shell.stdin.as_mut().unwrap();
        stdin.write_all(b"STOP\n").unwrap();
        std::thread::sleep(time);
        stdin.write_all(b"CONT\n").unwrap()
    }

    /// Does this while the program is stopped.
    pub(crate) fn while_stopped(&mut self, act: impl FnOnce()) {
        let shell = self.shell.id();
        let stdin = self.shell.stdin.as_mut().unwrap();
        stdin.write_all(b"STOP\n").unwrap();
        // the shell's only child is the program; its state follows its name, which is in parentheses
        let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
        super::eventually("the program to stop", || {
            let child = read(format!("/proc/{shell}/task/{shell}/children"));
            let stat = read(format!("/proc/{}/stat", child.trim()));
            stat.rsplit(')').next().filter(|rest| rest.trim_start().starts_with('T')).map(|_| ())
        });
        act();
        stdin.write_all(b"CONT\n").unwrap()
    }

    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Polls until `seen` returns something; prints the end of the log on time-out.
    pub(crate) fn wait<T>(&self, what: &str, seen: impl FnMut() -> Option<T>) -> T {
        self.wait_for(what, PATIENCE, seen)
    }

    /// The same, with this patience.
    pub(crate) fn wait_for<T>(&self, what: &str, patience: Duration, mut seen: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + patience;
        loop {
            if let Some(thing) = seen() {
                return thing;
            }
            if Instant::now() > end {
                let log = self.log();
                let lines: Vec<_> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(30)..].join("\n");
                panic!("waited {patience:?} for {what}; {} says:\n{tail}", self.name);
            }
            std::thread::sleep(super::LOOK);
        }
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process that we started ourselves and that is killed when this is dropped, or when our own process has ended, however it ended.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

/// A shell that kills the processes registered with it when this process has ended.
static REAPER: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    const REAP: &str = r#"
        pids=
        while read -r sign pid; do
          [ "$sign" = + ] && pids="$pids $pid " || pids=$(printf %s "$pids" | sed "s/ $pid //")
        done
        [ -z "$pids" ] || kill -9 $pids"#;
    let shell =
        Command::new("sh").args(["-c", REAP]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Mutex::new(shell.unwrap().stdin.unwrap())
});

fn register_with_reaper(sign: char, pid: u32) {
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = writeln!(reaper, "{sign} {pid}");
}

/// A process that another program started for us: killed if our own ends before this is dropped.
#[derive(Debug)]
pub(crate) struct Guarded(u32);

impl Guarded {
    pub(crate) fn new(pid: u32) -> Self {
        register_with_reaper('+', pid);
        Guarded(pid)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        register_with_reaper('-', self.0)
    }
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.spawn().unwrap();
        register_with_reaper('+', child.id());
        Process(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        register_with_reaper('-', self.0.id());
    }
}

/// Removes `folder` when this process has ended, however it ended.
pub(crate) fn remove_at_end(folder: &Path) -> Child {
    const SWEEP: &str =
        r#"read -r _; for n in 1 2 3 4 5 6 7 8 9; do rm -rf "$1" 2>/dev/null; sleep 0.2; [ -e "$1" ] || exit; done"#;
    Command::new("sh")
        .args(["-c", SWEEP, "sweep"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
