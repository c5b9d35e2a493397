//! The results of a load.

use super::client::Codes;
use std::fmt;
use std::time::Duration;

/// The results of a scenario.
pub(crate) struct Outcome {
    pub(crate) name: String,
    /// MiB; None if the process ended before it was read.
    pub(crate) peak: Option<f64>,
    /// The same of its cgroup, page cache and (v2) sockets included; None where it has none of its own that can be read.
    pub(crate) cgroup: Option<f64>,
    /// MiB of all sockets, both ends, at most, less what there was before.
    pub(crate) sockets: f64,
    pub(crate) codes: Codes,
    /// How long small requests beside it took, in ms, sorted.
    pub(crate) small: Vec<f64>,
    pub(crate) took: Duration,
    /// Violations, and how often each occurred.
    pub(crate) faults: Codes,
}

impl Outcome {
    pub(super) fn new(name: String) -> Self {
        let (codes, faults) = (Codes::new(), Codes::new());
        Outcome { name, peak: None, cgroup: None, sockets: 0.0, codes, small: Vec::new(), took: Duration::ZERO, faults }
    }

    pub(super) fn count(&mut self, what: &str) {
        *self.codes.entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn fault(&mut self, what: &str) {
        *self.faults.entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn check_peak(&mut self, bound: f64) {
        match self.peak {
            Some(peak) if peak <= bound => (),
            Some(_) => self.fault("too much memory"),
            None => self.fault("nobody knows how much memory"),
        }
    }

    /// A quantile of the small requests' times.
    pub(crate) fn small(&self, part: f64) -> Option<f64> {
        let last = self.small.len().checked_sub(1)?;
        Some(self.small[(last as f64 * part).round() as usize])
    }

    pub(super) fn add(&mut self, other: Outcome) {
        for (what, times) in other.codes {
            *self.codes.entry(what).or_default() += times;
        }
        for (what, times) in other.faults {
            *self.faults.entry(what).or_default() += times;
        }
        self.small.extend(other.small);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { name, sockets, codes, took, .. } = self;
        let peak = self.peak.unwrap_or(f64::NAN);
        write!(
            f,
            "{name} … peak {peak:.1} MiB, sockets {sockets:.1} MiB, {:.1} s, codes {codes:?}",
            took.as_secs_f64()
        )?;
        if let Some(cgroup) = self.cgroup {
            write!(f, ", cgroup's peak {cgroup:.1} MiB")?;
        }
        if let (Some(median), Some(most)) = (self.small(0.5), self.small(0.99)) {
            write!(f, ", small requests: median {median:.1} ms, p99 {most:.1} ms")?;
        }
        if !self.faults.is_empty() {
            write!(f, ", FAULTS {:?}", self.faults)?;
        }
        Ok(())
    }
}
