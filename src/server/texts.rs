//! Memory for the text of Jobs that callers wait for. Callers that have seen the same Job share its text, and one reservation for it.

use crate::account::{Account, Kind, Reservation};
use crate::kube::Job;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Entries after which those that nobody has any more are removed.
const PRUNE: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Texts(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    /// Beside the address of the Job, by which they are sorted: it does not change while somebody holds the reservation.
    reservations: Vec<(usize, Weak<Reservation>)>,
    prune_at: usize,
}

impl Texts {
    /// The reservation for the text of this Job, which is held as long as the Job. None: there is no memory for it.
    pub(super) fn reserve(&self, job: &Arc<Job>, account: &Arc<Account>) -> Option<Arc<Reservation>> {
        let address = Arc::as_ptr(job).addr();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = size_of::<Job>() + job.text_bytes();
        // where it is smaller, it is of a Job that was there before
        let find = |all: &All| all.reservations.binary_search_by_key(&address, |(address, _)| *address);
        let shared = find(&all).ok().and_then(|at| all.reservations[at].1.upgrade());
        if let Some(shared) = shared.filter(|shared| shared.bytes() >= bytes) {
            return Some(shared);
        }
        let shared = Arc::new(account.try_reserve(Kind::Parked, bytes)?);
        if all.reservations.len() >= all.prune_at.max(PRUNE) {
            all.reservations.retain(|(_, shared)| shared.strong_count() > 0);
            all.prune_at = 2 * all.reservations.len()
        }
        let entry = (address, Arc::downgrade(&shared));
        match find(&all) {
            Ok(at) => all.reservations[at] = entry,
            Err(at) => all.reservations.insert(at, entry),
        }
        Some(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::ByKind;

    #[test]
    fn the_text_of_a_job_is_paid_for_once() {
        let (texts, account) = (Texts::default(), Account::new(ByKind::default(), 1500));
        let job = || Arc::new(Job { name: "x".repeat(1000).into(), ..Job::default() });
        let (one, other) = (job(), job());
        let held: Vec<_> = (0..100).map_while(|_| texts.reserve(&one, &account)).collect();
        assert_eq!(held.len(), 100);
        assert!(texts.reserve(&other, &account).is_none(), "that is another text");
        drop(held);
        assert!(texts.reserve(&other, &account).is_some());
        assert_eq!(account.reserved_bytes(), [0; 5]);
    }

    #[test]
    fn a_reservation_that_is_too_small_is_of_another_job() {
        let (texts, account) = (Texts::default(), Account::new(ByKind::default(), 1 << 20));
        let mut job = Arc::new(Job::default());
        let small = texts.reserve(&job, &account).unwrap();
        Arc::get_mut(&mut job).unwrap().name = "x".repeat(1000).into();
        assert!(texts.reserve(&job, &account).unwrap().bytes() > small.bytes() + 900);
    }

    #[test]
    fn what_nobody_holds_is_removed() {
        let (texts, account) = (Texts::default(), Account::new(ByKind::default(), 1 << 20));
        let jobs: Vec<_> = (0..1000).map(|_| Arc::new(Job::default())).collect();
        assert!(jobs.iter().all(|job| texts.reserve(job, &account).is_some()));
        assert!(texts.0.lock().unwrap().reservations.len() <= PRUNE);
    }
}
