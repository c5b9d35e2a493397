//! The cache of our Jobs, and whether it may answer.

use super::cache::Cache;
use super::evidence::Evidence;
use crate::kube::{Job, JobState, Patience};
use crate::metrics::METRICS;
use log::warn;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Known {
    cache: RwLock<Cache>,
    pub(super) evidence: Arc<Evidence>,
    /// There is a thread that [follows](super::Jobs::follow), so that what calls find is worth keeping.
    is_followed: AtomicBool,
    /// Kubernetes denies the right to list.
    pub(super) is_forbidden: AtomicBool,
}

/// What was known before a call, to judge its answer by.
#[derive(Debug, Default)]
pub(crate) struct Before {
    passed: u64,
    known: Option<Arc<Job>>,
    forgotten: u32,
}

/// Why there is no page of Jobs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NoPage {
    /// Kubernetes denies the right to list.
    Forbidden,
    /// They are being listed, or the watch is being confirmed.
    NotNow,
}

impl Known {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Known {
            cache: RwLock::new(Cache::new(max_bytes)),
            evidence: Arc::new(Evidence::new()),
            is_followed: AtomicBool::new(false),
            is_forbidden: AtomicBool::new(false),
        }
    }

    /// These Jobs, and a watch that is up.
    #[cfg(test)]
    pub(crate) fn of(jobs: impl Iterator<Item = Job>) -> Self {
        let known = Known::new(64 << 20);
        known.begin_to_follow();
        let mut cache = known.cache_mut();
        for (number, job) in jobs.enumerate() {
            cache.change(Job { version: number as u64 + 1, is_ours: true, ..job });
        }
        cache.finish(1 << 40);
        drop(cache);
        known.evidence.go_live();
        known
    }

    pub(super) fn cache(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cache_mut(&self) -> RwLockWriteGuard<'_, Cache> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the client of the thread that follows.
    pub(super) fn patience(&self) -> Patience {
        let evidence = self.evidence.clone();
        Arc::new(move |silent| evidence.may_wait(silent))
    }

    /// Returns whether nobody followed before: the caller starts the thread.
    pub(super) fn begin_to_follow(&self) -> bool {
        !self.is_followed.load(SeqCst) && !self.is_followed.swap(true, SeqCst)
    }

    /// There is no thread for it.
    pub(super) fn follow_no_more(&self) {
        self.is_followed.store(false, SeqCst)
    }

    /// The Job as it is now; None if that takes a call. A Job that is being deleted may be gone, so it takes one.
    pub(crate) fn now(&self, name: &str) -> Option<Arc<Job>> {
        self.evidence.want();
        let job = self.cache().get(name).filter(|job| !job.is_being_deleted).cloned()?;
        self.evidence.is_current().then_some(job)
    }

    /// Whether the watch reports every change.
    pub(crate) fn is_current(&self) -> bool {
        self.evidence.is_current()
    }

    /// The Job as it was when something was last heard of it, and how long that was ago.
    pub(crate) fn last(&self, name: &str) -> Option<(Arc<Job>, Duration)> {
        let silence = self.evidence.silence()?;
        Some((self.cache().get(name)?.clone(), silence))
    }

    /// Hands over the Jobs behind this creation time and name, the newest first, until `see` returns false. Returns whether some are missing for
    /// want of memory.
    pub(crate) fn page(
        &self,
        position: Option<(&str, &str)>,
        see: &mut dyn FnMut(&Arc<Job>) -> bool,
    ) -> Result<bool, NoPage> {
        self.evidence.want_list();
        let cache = self.cache();
        if !(cache.is_whole() && (self.evidence.is_current() || self.evidence.is_listed())) {
            return Err(if self.is_forbidden.load(SeqCst) { NoPage::Forbidden } else { NoPage::NotNow });
        }
        let _ = cache.after(position).all(see); // false: it was enough
        Ok(cache.is_truncated())
    }

    /// Before a call for the Job of this name.
    pub(crate) fn before(&self, name: &str) -> Before {
        if !self.is_followed.load(SeqCst) {
            return Before::default();
        }
        let cache = self.cache();
        Before { passed: cache.passed(), known: cache.get(name).cloned(), forgotten: cache.forgotten() }
    }

    /// A call has created this Job.
    pub(crate) fn created(&self, before: &Before, job: &Job) {
        self.learn(before, job, job.version <= before.passed)
    }

    /// A call has found this Job.
    pub(crate) fn found(&self, before: &Before, job: &Job) {
        let is_older = |known: &Arc<Job>| known.uid == job.uid && job.version < known.version;
        self.learn(before, job, before.known.as_ref().is_some_and(is_older))
    }

    /// A call has asked for the deletion of this Job, which was accepted.
    pub(crate) fn deleted(&self, job: &Job) {
        if self.evidence.is_live() {
            self.cache_mut().learn_deletion(job)
        }
    }

    /// `is_older`: than it can be in the history of what was known before.
    fn learn(&self, before: &Before, job: &Job, is_older: bool) {
        if !self.is_followed.load(SeqCst) {
            return;
        }
        // a deletion, and a new Job of the name, may be on their way: then all is listed once in vain
        let is_another = |known: &Arc<Job>| known.uid != job.uid && !known.is_being_deleted;
        let mut cache = self.cache_mut();
        if cache.forgotten() == before.forgotten && (is_older || before.known.as_ref().is_some_and(is_another)) {
            self.doubt(
                &mut cache,
                &format!("the Job {:?} differs from, or is older than, what the watch reported", job.name),
            )
        }
        match job.is_ours {
            // the watch may have reported a newer one, which is ours again
            false if cache.get(&job.name).is_some_and(|known| known.version > job.version) => (),
            false => cache.remove(&job.name),
            // without a watch nothing would report that it is gone
            true if self.evidence.is_live() => count_end(job, cache.learn(job)),
            true => (),
        }
    }

    /// Takes over what a list or the watch reports. Returns what is known now.
    pub(super) fn change(&self, job: Job) -> Arc<Job> {
        let (job, has_ended) = self.cache_mut().change(job);
        count_end(&job, has_ended);
        job
    }

    /// A call has found no Job of this name.
    pub(crate) fn not_found(&self, before: &Before, name: &str) {
        let mut cache = self.cache_mut();
        let version = cache.get(name).map(|job| job.version);
        // what has come meanwhile may be a new one
        if version.is_some() && version == before.known.as_ref().map(|job| job.version) {
            cache.remove(name)
        }
    }

    /// Forgets all, and has all listed again. `cache`: locked, so that nothing is answered from it meanwhile.
    pub(super) fn doubt(&self, cache: &mut Cache, why: &str) {
        if !self.evidence.is_doubted() {
            warn!("all Jobs are listed again: {why}")
        }
        self.evidence.doubt();
        cache.forget()
    }

    /// How many Jobs there are, by state; none as long as not all are known.
    pub(crate) fn count(&self) -> impl Iterator<Item = (JobState, usize)> {
        let cache = self.cache();
        cache.is_whole().then(|| cache.count()).into_iter().flatten()
    }

    pub(crate) fn cached_bytes(&self) -> usize {
        self.cache().bytes()
    }

    /// How long the watch has said nothing; zero if there is none.
    pub(crate) fn silence(&self) -> Duration {
        self.evidence.silence().unwrap_or_default()
    }
}

fn count_end(job: &Job, has_ended: bool) {
    if has_ended {
        METRICS.job_ended(job.situation.state.name(), job.duration())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(uid: &str, version: u64) -> Job {
        Job { name: "a".into(), uid: uid.into(), version, is_ours: true, ..Job::default() }
    }

    /// The watch has reported a Job of version 5, and has passed version 8.
    fn known() -> Known {
        let known = Known::new(1 << 20);
        assert!(known.begin_to_follow() && !known.begin_to_follow());
        let mut cache = known.cache_mut();
        cache.change(job("u", 5));
        cache.finish(8);
        known.evidence.go_live();
        drop(cache);
        assert!(known.now("a").is_some());
        known
    }

    fn is_forgotten(known: &Known) -> bool {
        known.now("a").is_none() && known.evidence.is_doubted()
    }

    #[test]
    fn an_answer_of_another_history_forgets_all() {
        let wrongs: [fn(&Known, &Before); 5] = [
            |known, before| known.created(before, &job("v", 8)),
            |known, before| known.created(before, &job("v", 9)),
            |known, before| known.found(before, &job("u", 4)),
            |known, before| known.found(before, &job("v", 9)),
            |known, before| known.found(before, &job("v", 3)),
        ];
        for (number, wrong) in wrongs.into_iter().enumerate() {
            let known = known();
            let before = known.before("a");
            wrong(&known, &before);
            assert!(is_forgotten(&known), "{number}");
        }
        let rights: [fn(&Known, &Before); 4] = [
            |known, before| known.found(before, &job("u", 5)),
            |known, before| known.found(before, &job("u", 9)),
            |known, before| known.created(before, &Job { name: "b".into(), ..job("v", 9) }),
            |known, before| known.found(before, &Job { name: "b".into(), ..job("v", 2) }),
        ];
        for (number, right) in rights.into_iter().enumerate() {
            let known = known();
            let before = known.before(if number < 2 { "a" } else { "b" });
            right(&known, &before);
            assert!(!is_forgotten(&known), "{number}");
        }
    }

    #[test]
    fn a_call_that_was_sent_before_all_was_forgotten_proves_nothing() {
        let known = known();
        let before = known.before("a");
        known.cache_mut().forget();
        known.created(&before, &job("v", 3));
        assert!(!known.evidence.is_doubted());
    }

    #[test]
    fn a_job_that_is_being_deleted_takes_a_call() {
        let known = known();
        known.deleted(&job("u", 5));
        assert!(known.now("a").is_none() && known.last("a").is_none());
        known.found(&known.before("a"), &job("v", 9));
        assert!(known.now("a").is_some(), "a new one of the name of one that we have deleted");
        known.not_found(&Before::default(), "a");
        assert!(known.now("a").is_some(), "it came after the call was sent");
        known.not_found(&known.before("a"), "a");
        assert!(known.now("a").is_none() && !known.evidence.is_doubted());
    }

    #[test]
    fn a_job_that_lost_our_label_is_not_known() {
        let known = known();
        known.found(&known.before("a"), &Job { is_ours: false, ..job("u", 9) });
        assert!(known.now("a").is_none() && !known.evidence.is_doubted());
    }

    #[test]
    fn a_page_is_made_of_what_is_current() {
        let known = known();
        let names = |known: &Known| {
            let mut names = Vec::new();
            known.page(None, &mut |job| {
                names.push(job.name.clone());
                true
            })?;
            Ok(names)
        };
        assert_eq!(names(&known), Ok(vec!["a".into()]));
        known.evidence.end_live();
        assert_eq!(names(&known), Err(NoPage::NotNow));
        known.evidence.list();
        assert!(names(&known).is_ok(), "where there is no watch");
        known.cache_mut().forget();
        known.is_forbidden.store(true, SeqCst);
        assert_eq!(names(&known), Err(NoPage::Forbidden));
    }
}
