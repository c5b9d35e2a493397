//! What the kernel says about a process, its cgroup and its sockets.

use std::fs;
use std::path::PathBuf;

const MIB: f64 = (1 << 20) as f64;
const PAGE: f64 = 4096.0;

/// The most memory that the process ever had resident, in MiB; None when it is gone.
pub(crate) fn peak(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes * 1024.0 / MIB)
}

/// Memory of all TCP sockets of the machine, in MiB: on loopback both ends, so at most twice what is the dispatcher's.
pub(crate) fn sockets() -> f64 {
    let sockstat = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = sockstat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let pages = tcp.split_whitespace().skip_while(|word| *word != "mem").nth(1);
    pages.and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * PAGE / MIB
}

/// The memory cgroup of a process.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
    is_v1: bool,
}

impl Cgroup {
    /// None where it is not to be seen from here.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let found = |controllers: &str, root: &str, is_v1| {
            groups.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (names, path) = rest.split_once(':')?;
                // the root is not its own
                let is_it = path != "/" && names.split(',').any(|name| name == controllers);
                is_it.then(|| Cgroup { folder: PathBuf::from(format!("{root}{path}")), is_v1 })
            })
        };
        [found("memory", "/sys/fs/cgroup/memory", true), found("", "/sys/fs/cgroup", false)]
            .into_iter()
            .flatten()
            .find(|group| group.peak().is_some())
    }

    /// The most that it ever held, page cache and (v2) socket buffers included, in MiB.
    pub(crate) fn peak(&self) -> Option<f64> {
        let file = if self.is_v1 { "memory.max_usage_in_bytes" } else { "memory.peak" };
        Some(fs::read_to_string(self.folder.join(file)).ok()?.trim().parse::<f64>().ok()? / MIB)
    }

    /// How many of its processes the kernel killed for want of memory.
    pub(crate) fn kills(&self) -> Option<u64> {
        let file = if self.is_v1 { "memory.oom_control" } else { "memory.events" };
        let text = fs::read_to_string(self.folder.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
    }
}
