//! Carries out what a page of Jobs needs a call for.

use super::calls::{Calls, Shared};
use super::list::{PodReasons, Query, no_page};
use crate::answered::{Answered, Record};
use crate::kube::JobKey;

/// A page that says why pods wait; where they cannot be read, it says that.
pub(super) fn page(calls: &mut Calls<'_>, query: &Query, starting: Vec<JobKey>) -> Answered {
    let Shared { config, known, .. } = calls.shared;
    let (reasons, note) = match calls.client.waiting_pods(&config.namespace, &starting, calls.until) {
        Ok(reasons) => {
            let reasons = starting.into_iter().zip(reasons).filter_map(|(job, reason)| Some((job, reason?)));
            (PodReasons { reasons: reasons.collect(), ..PodReasons::default() }, None)
        }
        Err(failure) => {
            let note = format!("answered with what is known: {failure}");
            (PodReasons { are_unavailable: true, ..PodReasons::default() }, Some(note))
        }
    };
    match query.page(known, Some(&reasons)) {
        Ok(page) => Answered { record: Record { note, ..Record::default() }, ..page.reply.into() },
        Err(why) => no_page(why).into(),
    }
}
