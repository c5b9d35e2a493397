//! The Jobs that are known: by the watch, and by the answers to our own calls. Pure.
//!
//! All of it belongs to one history of the API server: where that is in doubt, all is [forgotten](Cache::forget). Within it, versions decide what
//! is newer, so that nobody sees a Job's state go back in time, in whatever order the news come.

use crate::kube::{Job, JobState};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

/// Bytes of an entry beside its strings, as the allocator rounds them up: `tests/measure` compares the sum with the process.
const ENTRY: usize = 360;
/// When the cache is full, so much of it is kept: so that it is not cleared for each new Job.
const KEPT: usize = 7;
const OF: usize = 8;
/// When Jobs are missing, all are listed again once no more than this is held.
const ROOM: usize = 6;
/// How many of the last that ended are kept, and bytes of each: half a megabyte at most.
const MAX_ENDED: usize = 64;
const MAX_ENDED_SIZE: usize = 8 << 10;

#[derive(Debug)]
pub(crate) struct Cache {
    by_name: HashSet<Entry>,
    by_age: BTreeSet<Aged>,
    /// How many are in each state, without those that we have deleted.
    counts: [usize; JobState::ALL.len()],
    bytes: usize,
    max_bytes: usize,
    /// All changes up to this version are known; 0 until all Jobs were listed.
    passed: u64,
    /// All Jobs were listed.
    is_whole: bool,
    /// Some were evicted because there were too many.
    is_truncated: bool,
    /// Grows whenever all is forgotten.
    forgotten: u32,
    /// The last that ended, the newest at the end: one of them may be gone before a caller that has just requested it waits.
    ended: VecDeque<Arc<Job>>,
}

/// A Job by its name.
#[derive(Debug)]
struct Entry {
    job: Arc<Job>,
    /// By a list or the watch, and not only by the answer to a call of ours.
    is_told: bool,
    /// We have deleted it, and the watch has not reported that: it may be gone. It is not listed.
    is_deleted: bool,
}

impl Borrow<str> for Entry {
    fn borrow(&self) -> &str {
        &self.job.name
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.job.name.hash(state)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.job.name == other.job.name
    }
}

impl Eq for Entry {}

/// A Job by its age, the newest first, then by its name.
#[derive(Debug)]
struct Aged(Arc<Job>);

impl Ord for Aged {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.created.cmp(&self.0.created).then_with(|| self.0.name.cmp(&other.0.name))
    }
}

impl PartialOrd for Aged {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Aged {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Aged {}

fn size(job: &Job) -> usize {
    ENTRY + job.text_bytes()
}

impl Cache {
    pub(super) fn new(max_bytes: usize) -> Self {
        Cache {
            by_name: HashSet::new(),
            by_age: BTreeSet::new(),
            counts: Default::default(),
            bytes: 0,
            max_bytes,
            passed: 0,
            is_whole: false,
            is_truncated: false,
            forgotten: 0,
            ended: VecDeque::new(),
        }
    }

    /// The Job of this name. None also for a Job that we have deleted, and for one that only a call of ours has returned, if the watch should have
    /// reported it since.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Job>> {
        let entry = self.by_name.get(name)?;
        let is_known = !entry.is_deleted && (entry.is_told || entry.job.version > self.passed);
        is_known.then_some(&entry.job)
    }

    /// All changes up to this version are known.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether a Job of this version that is not known is gone.
    pub(super) fn has_passed(&self, version: u64) -> bool {
        self.is_whole && !self.is_truncated && self.passed >= version
    }

    /// Those behind this creation time and name, the newest first.
    pub(super) fn after(&self, position: Option<(&str, &str)>) -> impl Iterator<Item = &Arc<Job>> {
        let first = position.map(|(created, name)| {
            let created = (!created.is_empty()).then(|| created.into());
            Aged(Arc::new(Job { name: name.into(), created, ..Job::default() }))
        });
        let from = first.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.by_age.range((from, Bound::Unbounded)).map(|aged| &aged.0)
    }

    /// Whether some were evicted because there were too many.
    pub(super) fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// Whether Jobs are missing for which there is room now.
    pub(super) fn has_room_again(&self) -> bool {
        self.is_truncated && self.bytes <= self.max_bytes / OF * ROOM
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many Jobs are in each state.
    pub(super) fn count(&self) -> [(JobState, usize); JobState::ALL.len()] {
        JobState::ALL.map(|state| (state, self.counts[state as usize]))
    }

    /// All Jobs were listed.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// How often all was forgotten.
    pub(super) fn forgotten(&self) -> u32 {
        self.forgotten
    }

    /// Forgets all: it may be of another history, or nothing reports changes any more.
    pub(super) fn forget(&mut self) {
        let (max_bytes, forgotten) = (self.max_bytes, self.forgotten.wrapping_add(1));
        *self = Cache { forgotten, ..Cache::new(max_bytes) }
    }

    /// All Jobs of this version were listed.
    pub(super) fn finish(&mut self, version: u64) {
        self.is_whole = true;
        self.advance(version)
    }

    /// The watch has reported all changes up to this version.
    pub(super) fn advance(&mut self, version: u64) {
        self.passed = self.passed.max(version)
    }

    /// By a list or the watch. Returns what is known now, and whether it was known before and has ended since.
    pub(super) fn change(&mut self, job: Job) -> (Arc<Job>, bool) {
        if self.is_whole {
            self.advance(job.version) // in a list they come in any order
        }
        let (job, has_ended) = match self.by_name.get(&*job.name) {
            // a deletion is never undone, though the watch may report a change before it
            Some(known) if known.is_deleted && known.job.uid == job.uid && !job.is_being_deleted => {
                (Arc::new(job), false)
            }
            // a call keeps few labels
            Some(known) if (known.job.version, known.job.labels.len()) >= (job.version, job.labels.len()) => {
                let known = known.job.clone();
                self.put(known.clone(), true);
                (known, false)
            }
            _ => {
                let job = Arc::new(job);
                let has_ended = self.put(job.clone(), true);
                (job, has_ended)
            }
        };
        if job.situation.state.is_final() {
            self.remember(job.clone())
        }
        (job, has_ended)
    }

    /// By the watch: the Job is gone, or no longer ours.
    pub(super) fn delete(&mut self, job: Job) {
        self.advance(job.version);
        let is_it = |known: &Entry| known.job.uid == job.uid || known.job.version <= job.version;
        if self.by_name.get(&*job.name).is_some_and(is_it) {
            self.remove(&job.name)
        }
        if job.situation.state.is_final() {
            self.remember(Arc::new(job))
        }
    }

    fn remember(&mut self, job: Arc<Job>) {
        if self.ended.len() >= MAX_ENDED {
            self.ended.pop_front();
        }
        if size(&job) <= MAX_ENDED_SIZE {
            self.ended.push_back(job)
        }
    }

    /// The last state of a Job that has ended lately.
    pub(super) fn ended(&self, name: &str, uid: &str) -> Option<&Arc<Job>> {
        self.ended.iter().rev().find(|job| *job.name == *name && *job.uid == *uid)
    }

    /// By the answer to a call of ours. What the watch has already passed is not believed: the Job may be gone since. Returns whether the Job was
    /// known before and has ended since.
    pub(super) fn learn(&mut self, job: &Job) -> bool {
        let version = self.by_name.get(&*job.name).map_or(0, |known| known.job.version);
        job.version > self.passed.max(version) && self.put(Arc::new(job.clone()), false)
    }

    /// We have deleted this Job.
    pub(super) fn learn_deletion(&mut self, job: &Job) {
        if let Some(entry) = self.by_name.take(&*job.name) {
            let is_deleted = entry.is_deleted || entry.job.uid == job.uid;
            if is_deleted && !entry.is_deleted {
                self.counts[entry.job.situation.state as usize] -= 1
            }
            if is_deleted {
                self.by_age.remove(&Aged(entry.job.clone()));
            }
            self.by_name.insert(Entry { is_deleted, ..entry });
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(Entry { job, is_deleted, .. }) = self.by_name.take(name) {
            self.bytes -= size(&job);
            self.counts[job.situation.state as usize] -= usize::from(!is_deleted);
            self.by_age.remove(&Aged(job));
        }
    }

    /// Returns whether the Job was known before and has ended since.
    fn put(&mut self, job: Arc<Job>, is_told: bool) -> bool {
        let before = self.by_name.get(&*job.name).map(|known| &known.job).filter(|before| before.uid == job.uid);
        let has_ended = job.situation.state.is_final() && before.is_some_and(|job| !job.situation.state.is_final());
        self.remove(&job.name);
        self.bytes += size(&job);
        self.counts[job.situation.state as usize] += 1;
        self.by_age.insert(Aged(job.clone()));
        self.by_name.insert(Entry { job, is_told, is_deleted: false });
        if self.bytes > self.max_bytes {
            self.shrink()
        }
        has_ended
    }

    /// Evicts those first that ended first, then the oldest.
    fn shrink(&mut self) {
        let key = |Job { situation, created, .. }: &Job| {
            let ended = situation.finished.clone().filter(|_| situation.state.is_final());
            (!situation.state.is_final(), ended.or_else(|| created.clone()))
        };
        let mut all: Vec<_> = self.by_name.iter().map(|Entry { job, .. }| (key(job), job.name.clone())).collect();
        all.sort_unstable();
        for (_, name) in all {
            if self.bytes <= self.max_bytes / OF * KEPT {
                break;
            }
            self.remove(&name)
        }
        self.is_truncated = true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::Situation;

    fn job(name: &str, version: u64, state: JobState) -> Job {
        let situation = Situation { state, finished: Some(format!("{version:03}").into()), ..Situation::default() };
        let created = Some(format!("{version:03}").into());
        Job { name: name.into(), uid: "u".into(), version, situation, created, ..Job::default() }
    }

    fn state(cache: &Cache, name: &str) -> Option<JobState> {
        cache.get(name).map(|job| job.situation.state)
    }

    #[test]
    fn the_end_of_a_job_is_seen_once() {
        let mut cache = Cache::new(1 << 20);
        assert!(!cache.change(job("a", 1, JobState::Succeeded)).1, "it had ended before");
        cache.finish(1);
        assert!(!cache.change(job("b", 2, JobState::Waiting)).1);
        assert!(cache.change(job("b", 3, JobState::Failed)).1);
        assert!(!cache.change(job("b", 4, JobState::Failed)).1, "a later change");
        cache.change(job("c", 5, JobState::Running));
        assert!(cache.learn(&job("c", 6, JobState::Succeeded)), "a call has seen it first");
        assert!(!cache.learn(&job("c", 6, JobState::Succeeded)) && !cache.change(job("c", 6, JobState::Succeeded)).1);
        let another = Job { uid: "another".into(), ..job("c", 8, JobState::Failed) };
        assert!(!cache.change(another).1, "of the same name");
    }

    #[test]
    fn the_newest_version_counts_whoever_tells_it() {
        let mut cache = Cache::new(1 << 20);
        cache.finish(1);
        cache.learn(&job("a", 5, JobState::Waiting));
        assert_eq!(state(&cache, "a"), Some(JobState::Waiting), "before the watch reports it");
        assert_eq!(cache.change(job("a", 4, JobState::Starting)).0.situation.state, JobState::Waiting);
        cache.change(job("a", 6, JobState::Running));
        cache.learn(&job("a", 5, JobState::Waiting));
        assert_eq!(state(&cache, "a"), Some(JobState::Running));
        cache.learn_deletion(&job("a", 5, JobState::Waiting));
        assert_eq!((state(&cache, "a"), cache.after(None).count()), (None, 0), "we have just deleted it");
        cache.delete(job("a", 7, JobState::Running));
        assert!(cache.ended("a", "u").is_none() && state(&cache, "a").is_none());
        cache.learn(&job("a", 6, JobState::Running));
        assert_eq!(state(&cache, "a"), None, "the answer to a call that was made before it was deleted");
        cache.learn(&job("a", 8, JobState::Waiting));
        assert_eq!(state(&cache, "a"), Some(JobState::Waiting), "a new one");
        cache.advance(9);
        assert_eq!(state(&cache, "a"), None, "the watch has passed it without a word");
        assert!(cache.bytes() > ENTRY);
        cache.remove("a");
        assert_eq!((cache.bytes(), cache.by_age.len()), (0, 0));
    }

    #[test]
    fn a_deletion_is_not_undone_by_a_change_before_it() {
        let mut cache = Cache::new(1 << 20);
        cache.change(job("a", 1, JobState::Running));
        cache.learn_deletion(&job("a", 1, JobState::Running));
        let known = |cache: &Cache| (state(cache, "a"), cache.after(None).count());
        assert_eq!(known(&cache), (None, 0), "it may be gone");
        assert_eq!(
            cache.change(job("a", 2, JobState::Succeeded)).0.situation.state,
            JobState::Succeeded,
            "a waiter is woken"
        );
        assert_eq!(known(&cache), (None, 0));
        cache.change(job("a", 3, JobState::Deleting).being_deleted());
        assert_eq!(known(&cache), (Some(JobState::Deleting), 1), "the watch reports it, with a deletionTimestamp");
        cache.learn_deletion(&job("a", 1, JobState::Running));
        cache.learn_deletion(&Job { uid: "another".into(), ..job("a", 1, JobState::Running) });
        cache.change(Job { uid: "another".into(), ..job("a", 4, JobState::Running) });
        assert_eq!(known(&cache), (Some(JobState::Running), 1), "a new one of the same name");
        cache.remove("a");
        assert_eq!((cache.bytes(), cache.by_age.len()), (0, 0));
    }

    #[test]
    fn a_list_is_whole_when_it_is_finished() {
        let mut cache = Cache::new(1 << 20);
        cache.change(job("stays", 2, JobState::Running));
        assert_eq!((cache.passed(), cache.is_whole()), (0, false));
        cache.finish(8);
        assert!(cache.get("stays").is_some());
        assert_eq!((cache.passed(), cache.has_passed(8), cache.has_passed(9)), (8, true, false));
        cache.change(job("ends", 12, JobState::Succeeded));
        assert!(cache.ended("ends", "u").is_some() && cache.ended("ends", "v").is_none());
        cache.forget();
        assert_eq!((cache.bytes(), cache.passed(), cache.is_whole(), cache.forgotten()), (0, 0, false, 1));
        assert!(cache.ended("ends", "u").is_none() && !cache.has_passed(0), "of a history that may be another");
    }

    #[test]
    fn ended_jobs_are_evicted_first_and_listed_again_when_there_is_room() {
        let mut cache = Cache::new(20 * (ENTRY + 30));
        for number in 1..=10 {
            cache.change(job(&format!("running-{number}"), number, JobState::Running));
            cache.change(job(&format!("ended-{number}"), 100 + number, JobState::Succeeded));
        }
        for number in 1..=5 {
            cache.change(job(&format!("new-{number}"), 200 + number, JobState::Waiting));
        }
        assert!(cache.bytes() <= 20 * (ENTRY + 30) && !cache.has_passed(1));
        let known = |cache: &Cache, prefix: &str, to: u64| {
            (1..=to).filter(|n| cache.get(&format!("{prefix}-{n}")).is_some()).count()
        };
        assert_eq!((known(&cache, "running", 10), known(&cache, "new", 5)), (10, 5));
        assert!(cache.get("ended-1").is_none() && cache.get("ended-10").is_some());
        let counted = cache.count().iter().map(|(_, number)| number).sum::<usize>();
        assert_eq!(counted, 15 + known(&cache, "ended", 10));
        assert!(cache.is_truncated() && !cache.has_room_again());
        (1..=10).for_each(|number| cache.remove(&format!("running-{number}")));
        assert!(cache.has_room_again());
    }

    #[test]
    fn pages_begin_anywhere_and_have_the_newest_first() {
        let mut cache = Cache::new(1 << 20);
        for (name, version) in [("b", 1), ("a", 1), ("c", 3), ("d", 2)] {
            cache.change(job(name, version, JobState::Running));
        }
        cache.change(Job { version: 4, ..job("d", 2, JobState::Failed) });
        let after = |position| cache.after(position).map(|job| &job.name[..]).collect::<Vec<_>>().join("");
        assert_eq!(after(None), "cdab");
        assert_eq!((after(Some(("002", "d"))), after(Some(("002", "x")))), ("ab".into(), "ab".into()));
        assert_eq!((after(Some(("001", "b"))), after(Some(("", "")))), (String::new(), String::new()));
    }
}
