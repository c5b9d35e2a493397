//! The cache of our Jobs, and the callers that wait for their end. One thread follows them by a watch (`jobs/follow.rs`); a Job that it cannot report is requested
//! by a call (`jobs/ask.rs`).
//!
//! A waiter registers while nothing can take its place in the table, parks there, then looks at the cache again. The watch updates the cache, then
//! takes the waiters. In every interleaving at least one side sees the other. Perhaps both do, so a waiter is something that can be woken once.

mod ask;
mod cache;
mod evidence;
mod follow;
mod known;
mod questions;
mod waiters;

pub(crate) use known::{Before, Known, NoPage};

use crate::kube::{End, Job, JobState};
use crate::metrics::METRICS;
use questions::Questions;
use std::sync::Arc;
use waiters::Waiters;

/// `W`: what it takes to wake a waiter.
#[derive(Debug)]
pub(crate) struct Jobs<W> {
    pub(crate) known: Known,
    waiters: Waiters<W>,
    questions: Questions,
}

/// News for a waiter.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// The Job as it is now. It has ended, or the waiter has asked, or it is another of the same name.
    Is(Arc<Job>),
    /// A call has found no Job of ours.
    Gone,
    /// It was asked for, without an answer.
    Unknown,
}

/// Where waiters are woken.
pub(crate) trait Host<W> {
    fn wake(&self, waiter: W, news: News);
    /// Starts a thread that [answers](Jobs::answer).
    fn start_asking(&self);
}

impl<W: Copy + PartialEq> Jobs<W> {
    pub(crate) fn new(max_bytes: usize) -> Self {
        METRICS.watch_may_end(&End::CAUSES);
        METRICS.jobs_may_end(&[JobState::Succeeded, JobState::Failed].map(JobState::name));
        let known = Known::new(max_bytes);
        let waiters = Waiters::new(known.evidence.clone());
        Jobs { known, waiters, questions: Questions::default() }
    }

    /// Somebody asks for a Job. Returns true the first time: the caller starts the thread that [follows](Jobs::follow).
    pub(crate) fn want(&self) -> bool {
        self.known.begin_to_follow()
    }

    /// There is no thread for it.
    pub(crate) fn want_no_more(&self) {
        self.known.follow_no_more()
    }

    /// Registers a waiter for the end of this Job. It can be woken from now on, and [looks](Jobs::look) at the Job once more.
    ///
    /// `version`: an older version is not news; 0 where the waiter cannot say.
    pub(crate) fn register(&self, seen: &Job, version: u64, waiter: W) {
        self.waiters.register(&seen.name, &seen.uid, version, waiter)
    }

    /// One waits no longer. Returns whether it waited: if not, news is on its way to it.
    pub(crate) fn leave(&self, name: &str, waiter: &W) -> bool {
        self.waiters.leave(name, waiter)
    }

    pub(crate) fn waiters(&self) -> usize {
        self.waiters.len()
    }

    /// The thread that follows has ended by a defect.
    pub(crate) fn lose(&self) {
        self.known.doubt(&mut self.known.cache_mut(), "a defect of the dispatcher")
    }

    /// The watch has begun, and reports this Job.
    #[cfg(test)]
    pub(crate) fn is_reported(&self, job: Job, host: &dyn Host<W>) {
        self.known.begin_to_follow();
        self.known.cache_mut().finish(0);
        self.known.evidence.go_live();
        self.change(job, host)
    }

    /// The news for a waiter since it saw this Job; None if it continues to wait. If the cache does not know the Job, it is requested, unless a call
    /// has just found it.
    pub(crate) fn look(&self, seen: &Job, waiter: &W, was_found: bool, host: &dyn Host<W>) -> Option<News> {
        let name = &seen.name;
        let change = self.change_of(name, &seen.uid, seen.version);
        if let Change::Ended(job) = change {
            return Some(News::Is(job));
        }
        if !was_found && matches!(change, Change::Lost) {
            self.waiters.ask_for(name, waiter);
            self.ask_soon(name, host)
        }
        None
    }

    /// The news of a Job since this version, as far as the cache knows.
    fn change_of(&self, name: &str, uid: &str, version: u64) -> Change {
        let cache = self.known.cache();
        match cache.get(name) {
            Some(job) if *job.uid == *uid && job.situation.state.is_final() => Change::Ended(job.clone()),
            Some(job) if *job.uid == *uid || job.version < version => Change::None,
            // another Job has its name now; or the watch has passed it, and it is not there
            other => match cache.ended(name, uid) {
                Some(last) => Change::Ended(last.clone()),
                None if other.is_some() || self.known.evidence.is_live() && cache.has_passed(version) => Change::Lost,
                None => Change::None,
            },
        }
    }

    /// The watch reports a Job: wakes its waiters if it has ended, and requests it for those that wait for an earlier Job of the same name.
    fn change(&self, job: Job, host: &dyn Host<W>) {
        let job = self.known.change(job);
        self.notify(&job, host)
    }

    fn notify(&self, job: &Arc<Job>, host: &dyn Host<W>) {
        if job.situation.state.is_final() {
            self.tell_end(job, host)
        }
        if self.waiters.ask(&job.name, |one| one.uid != job.uid && one.version < job.version) {
            self.ask_soon(&job.name, host)
        }
    }

    fn tell_end(&self, job: &Arc<Job>, host: &dyn Host<W>) {
        for waiter in self.waiters.take_those(&job.name, |one| one.uid == job.uid && one.version <= job.version) {
            host.wake(waiter, News::Is(job.clone()))
        }
    }

    /// The watch reports that a Job is gone, or has lost our label.
    fn delete(&self, job: Job, host: &dyn Host<W>) {
        let last = Arc::new(job);
        self.known.cache_mut().delete(Job::clone(&last));
        match last.situation.state.is_final() {
            true => self.tell_end(&last, host),
            false => self.doubt_waiters(&last.name, &last.uid, last.version, host),
        }
    }

    /// Wakes all waiters with news, after a time in which the watch reported nothing.
    fn tell_all(&self, host: &dyn Host<W>) {
        for (name, uid, version) in self.waiters.jobs() {
            match self.change_of(&name, &uid, version) {
                Change::Ended(job) => self.tell_end(&job, host),
                Change::Lost => self.doubt_waiters(&name, &uid, version, host),
                Change::None => (),
            }
        }
    }
}

/// What has become of a Job that somebody waits for.
enum Change {
    None,
    Ended(Arc<Job>),
    /// It is gone, or not ours, or unknown for want of memory.
    Lost,
}

#[cfg(test)]
mod tests;
