//! Who waits for the end of which Job.

use crate::kube::Job;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Those who wait, by the name of the Job. `W`: what it takes to wake one.
#[derive(Debug)]
pub(super) struct Waiters<W>(Mutex<HashMap<Box<str>, Vec<Waiter<W>>>>);

#[derive(Debug)]
struct Waiter<W> {
    /// Of the Job when it began to wait: another one of the same name may come.
    uid: String,
    /// Of the Job when it began to wait: what is older is no news.
    version: u64,
    wakes: W,
}

impl<W> Default for Waiters<W> {
    fn default() -> Self {
        Waiters(Mutex::default())
    }
}

impl<W: PartialEq> Waiters<W> {
    fn all(&self) -> MutexGuard<'_, HashMap<Box<str>, Vec<Waiter<W>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn register(&self, name: &str, seen: &Job, wakes: W) {
        let waiter = Waiter { uid: seen.uid.clone(), version: seen.version, wakes };
        let mut all = self.all();
        match all.get_mut(name) {
            Some(waiters) => waiters.push(waiter),
            None => _ = all.insert(name.into(), vec![waiter]),
        }
    }

    pub(super) fn is_waiting(&self, name: &str, wakes: &W) -> bool {
        self.all().get(name).is_some_and(|waiters| waiters.iter().any(|one| one.wakes == *wakes))
    }

    /// One waits no longer.
    pub(super) fn leave(&self, name: &str, wakes: &W) {
        let mut all = self.all();
        let Some(waiters) = all.get_mut(name) else { return };
        waiters.retain(|one| one.wakes != *wakes);
        if waiters.is_empty() {
            all.remove(name);
        }
    }

    /// All who wait for a Job of this name that `is_meant`, by its uid and version, and wait no longer.
    pub(super) fn take(&self, name: &str, is_meant: impl Fn(&str, u64) -> bool) -> Vec<W> {
        let mut all = self.all();
        let Some(waiters) = all.get_mut(name) else { return Vec::new() };
        let taken = waiters.extract_if(.., |one| is_meant(&one.uid, one.version)).map(|one| one.wakes).collect();
        if waiters.is_empty() {
            all.remove(name);
        }
        taken
    }

    /// The Jobs that are waited for: name, uid, and the newest version that somebody has seen.
    pub(super) fn jobs(&self) -> Vec<(Box<str>, String, u64)> {
        let mut jobs: Vec<(Box<str>, String, u64)> = Vec::new();
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
        self.all().values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(uid: &str, version: u64) -> Job {
        Job { uid: uid.into(), version, ..Job::default() }
    }

    #[test]
    fn each_is_taken_once() {
        let waiters = Waiters::default();
        for (name, waiter) in [("a", 1), ("a", 2), ("b", 3), ("b", 4)] {
            waiters.register(name, &job("u", 7), waiter)
        }
        waiters.leave("b", &3);
        waiters.leave("c", &3);
        assert!(waiters.is_waiting("b", &4) && !waiters.is_waiting("b", &3));
        let take = |name, to: u64| waiters.take(name, |uid, version| uid == "u" && version <= to);
        assert_eq!((take("a", 6), waiters.len()), (vec![], 3), "what is older is no news");
        assert_eq!((take("a", 7), take("a", 7), take("b", 8)), (vec![1, 2], vec![], vec![4]));
        for (uid, version, waiter) in [("u", 1, 5), ("u", 2, 6), ("v", 3, 7)] {
            waiters.register("a", &job(uid, version), waiter)
        }
        assert_eq!(waiters.jobs(), [("a".into(), "u".to_owned(), 2), ("a".into(), "v".to_owned(), 3)]);
        assert_eq!(take("a", 9), [5, 6]);
        waiters.leave("a", &7);
        assert!(waiters.jobs().is_empty());
    }
}
