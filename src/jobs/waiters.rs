//! Callers that wait for the end of a Job, and their news.

use super::evidence::Evidence;
use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The waiters, by the name of the Job. `W`: what it takes to wake one.
#[derive(Debug)]
pub(super) struct Waiters<W> {
    all: Mutex<HashMap<Box<str>, Vec<Waiter<W>>>>,
    /// Has their number.
    evidence: Arc<Evidence>,
}

#[derive(Debug)]
pub(super) struct Waiter<W> {
    /// Of the Job when the wait began: another one of the same name may come.
    pub(super) uid: Box<str>,
    /// Of the Job when the wait began: an older version is not news.
    pub(super) version: u64,
    /// When the wait began: the response to a call that was sent before is not news.
    pub(super) since: Instant,
    /// It wants the Job as a call finds it, whatever its state.
    pub(super) asks: bool,
    wakes: W,
}

impl<W: PartialEq> Waiters<W> {
    pub(super) fn new(evidence: Arc<Evidence>) -> Self {
        Waiters { all: Mutex::default(), evidence }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Box<str>, Vec<Waiter<W>>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn register(&self, name: &str, uid: &str, version: u64, wakes: W) {
        let since = Instant::now();
        let waiter = Waiter { uid: uid.into(), version, since, asks: false, wakes };
        let mut all = self.all();
        match all.get_mut(name) {
            Some(waiters) => waiters.push(waiter),
            None => _ = all.insert(name.into(), vec![waiter]),
        }
        self.evidence.waiters.fetch_add(1, SeqCst);
    }

    /// One waits no longer. Returns whether it waited.
    pub(super) fn leave(&self, name: &str, wakes: &W) -> bool {
        !self.take_those(name, |one| one.wakes == *wakes).is_empty()
    }

    /// Marks those that `is_meant`: they want the Job as a call finds it. Returns whether there are any.
    pub(super) fn ask(&self, name: &str, is_meant: impl Fn(&Waiter<W>) -> bool) -> bool {
        let mut all = self.all();
        let meant = all.get_mut(name).into_iter().flatten().filter(|one| is_meant(one));
        meant.map(|one| one.asks = true).count() > 0
    }

    /// Marks this one.
    pub(super) fn ask_for(&self, name: &str, wakes: &W) {
        self.ask(name, |one| one.wakes == *wakes);
    }

    /// All who wait for a Job of this name and are meant. They wait no longer.
    pub(super) fn take_those(&self, name: &str, is_meant: impl Fn(&Waiter<W>) -> bool) -> Vec<W> {
        let mut all = self.all();
        let Some(waiters) = all.get_mut(name) else { return Vec::new() };
        let taken: Vec<W> = waiters.extract_if(.., |one| is_meant(one)).map(|one| one.wakes).collect();
        if waiters.is_empty() {
            all.remove(name);
        }
        self.evidence.waiters.fetch_sub(taken.len(), SeqCst);
        taken
    }

    /// All versions may be of another history from now on: whatever comes is news.
    pub(super) fn forget_versions(&self) {
        self.all().values_mut().flatten().for_each(|one| one.version = 0)
    }

    /// The Jobs that are waited for: name, uid, and the newest version that somebody has seen.
    pub(super) fn jobs(&self) -> Vec<(Box<str>, Box<str>, u64)> {
        let mut jobs: Vec<(Box<str>, Box<str>, u64)> = Vec::new();
        for (name, waiters) in &*self.all() {
            let first = jobs.len();
            for one in waiters {
                match jobs[first..].iter_mut().find(|(_, uid, _)| *uid == one.uid) {
                    Some((_, _, version)) => *version = one.version.max(*version),
                    None => jobs.push((name.clone(), one.uid.clone(), one.version)),
                }
            }
        }
        jobs
    }

    pub(super) fn len(&self) -> usize {
        self.evidence.waiters.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_taken_once() {
        let waiters = Waiters::new(Arc::new(Evidence::new()));
        for (name, waiter) in [("a", 1), ("a", 2), ("b", 3), ("b", 4)] {
            waiters.register(name, "u", 7, waiter)
        }
        assert!(waiters.leave("b", &3) && !waiters.leave("b", &3) && !waiters.leave("c", &3));
        let take = |name, to: u64| waiters.take_those(name, |one| *one.uid == *"u" && one.version <= to);
        assert_eq!((take("a", 6), waiters.len()), (vec![], 3), "an older version is not news");
        assert_eq!((take("a", 7), take("a", 7), take("b", 8)), (vec![1, 2], vec![], vec![4]));
        for (uid, version, waiter) in [("u", 1, 5), ("u", 2, 6), ("v", 3, 7)] {
            waiters.register("a", uid, version, waiter)
        }
        assert_eq!(waiters.jobs(), [("a".into(), "u".into(), 2), ("a".into(), "v".into(), 3)]);
        waiters.ask_for("a", &6);
        assert!(waiters.ask("a", |one| *one.uid == *"v") && !waiters.ask("b", |_| true));
        assert_eq!(waiters.take_those("a", |one| one.asks), [6, 7]);
        waiters.leave("a", &5);
        assert!(waiters.jobs().is_empty() && waiters.len() == 0);
    }
}
