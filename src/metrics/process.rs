//! The process itself, under the names of Prometheus' client libraries (`process_*`). Read from `/proc` when the metrics are scraped; on other
//! systems than Linux only the time of its start.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use std::fmt::Error;
use std::time::{Duration, SystemTime};

/// Places in `/proc/self/stat` behind the name of the program, which is in parentheses (proc_pid_stat(5)).
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const VIRTUAL_MEMORY: usize = 20;
const RESIDENT_PAGES: usize = 21;

#[derive(Debug)]
pub(super) struct Process {
    /// Since the epoch.
    started: Duration,
}

/// What `/proc` says.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    virtual_memory: u64,
    resident_memory: u64,
}

impl Process {
    /// Begins now.
    pub(super) fn new() -> Self {
        Process { started: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        let (bytes, seconds) = (Some(&Unit::Bytes), Some(&Unit::Seconds));
        gauge("process_start_time", "Start of the process, since the epoch", seconds, self.started.as_secs_f64())?;
        // unlimited is left out
        if let Some(most) = getrlimit(Resource::Nofile).current {
            gauge("process_max_fds", "Maximum number of open file descriptors", None, most as f64)?
        }
        if let Some(most) = getrlimit(Resource::As).current {
            gauge("process_virtual_memory_max", "Maximum size of virtual memory", bytes, most as f64)?
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            let open = open.count().saturating_sub(1); // that of the folder itself
            gauge("process_open_fds", "Open file descriptors", None, open as f64)?
        }
        let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let Some(stat) = stat(&text, clock_ticks_per_second(), page_size() as u64) else { return Ok(()) };
        gauge("process_resident_memory", "Resident memory", bytes, stat.resident_memory as f64)?;
        gauge("process_virtual_memory", "Virtual memory", bytes, stat.virtual_memory as f64)?;
        let cpu = ConstCounter::new(stat.cpu_seconds);
        let help = "User and system CPU time spent";
        cpu.encode(encoder.encode_descriptor("process_cpu", help, seconds, cpu.metric_type())?)
    }
}

/// `text`: of `/proc/self/stat`. `ticks`: of its clock in a second. `page`: bytes.
fn stat(text: &str, ticks: u64, page: u64) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(") ")?; // the name may have parentheses
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |place: usize| fields.get(place)?.parse::<u64>().ok();
    Some(Stat {
        cpu_seconds: (field(USER_TIME)? + field(SYSTEM_TIME)?) as f64 / ticks as f64,
        virtual_memory: field(VIRTUAL_MEMORY)?,
        resident_memory: field(RESIDENT_PAGES)? * page,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read() {
        let line = "7 (k8s) job) S 1 7 7 0 -1 4194560 900 0 0 0 123 77 0 0 20 0 12 0 5155 9437184 1200 18446744073709551615 1 1 0\n";
        let want = Stat { cpu_seconds: 2.0, virtual_memory: 9_437_184, resident_memory: 1200 * 4096 };
        assert_eq!(stat(line, 100, 4096), Some(want));
        assert_eq!([stat("", 100, 4096), stat("7 (x) S 1", 100, 4096)], [None, None]);
    }
}
