//! Finds out why pods of Jobs wait, for a page of Jobs.

use super::calls::{Calls, Shared};
use super::list::PodReasons;
use crate::kube::JobKey;
use log::warn;
use std::time::{Duration, Instant};

/// A page does without the reasons if they take longer.
const TIME: Duration = Duration::from_secs(2);

pub(super) fn reasons(calls: &mut Calls<'_>, starting: Vec<JobKey>) -> PodReasons {
    let Shared { config, .. } = calls.shared;
    let until = calls.until.min(Instant::now() + TIME);
    match calls.client.waiting_pods(&config.namespace, &starting, until) {
        Ok(reasons) => {
            let reasons = starting.into_iter().zip(reasons).filter_map(|(job, reason)| Some((job.uid, reason?)));
            PodReasons { reasons: reasons.collect(), are_unavailable: false }
        }
        Err(failure) => {
            warn!("the page does without the reasons of pods: {failure}");
            PodReasons { reasons: Vec::new(), are_unavailable: true }
        }
    }
}
