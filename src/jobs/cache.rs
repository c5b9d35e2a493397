//! What is known of our Jobs: by the watch, and by the answers to our own calls. Pure.
//!
//! Versions decide what is newer, so that nobody sees a Job's state go back in time, in whatever order the news come.

use crate::kube::{Job, State};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Bytes of an entry beside its strings, as the allocator rounds them up: `tests/measure` compares the sum with the process.
const ENTRY: usize = 370;
/// When the cache is full, so much of it is kept: so that it is not cleared for each new Job.
const KEPT: usize = 7;
const OF: usize = 8;
/// How many of the last that ended or went are kept, and bytes of each: half a megabyte at most.
const MAX_LAST: usize = 64;
const MAX_LAST_SIZE: usize = 8 << 10;

#[derive(Debug)]
pub(crate) struct Cache {
    jobs: HashMap<Box<str>, Entry>,
    bytes: usize,
    max_bytes: usize,
    /// All changes up to this version are known.
    version: u64,
    /// Grows with each beginning of the watch.
    generation: u32,
    /// The watch has told of all Jobs since it last began.
    is_whole: bool,
    /// Some were forgotten because there were too many.
    is_truncated: bool,
    /// The last that ended or went, the newest at the end: one of them may have left the cache before somebody who has just asked for it
    /// waits.
    last: VecDeque<(Box<str>, Arc<Job>)>,
}

#[derive(Debug)]
struct Entry {
    job: Arc<Job>,
    /// When the watch has last told of it.
    generation: u32,
}

fn size(name: &str, job: &Job) -> usize {
    ENTRY + name.len() + job.text_bytes()
}

impl Cache {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Cache {
            jobs: HashMap::new(),
            bytes: 0,
            max_bytes,
            version: 0,
            generation: 0,
            is_whole: false,
            is_truncated: false,
            last: VecDeque::new(),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Job>> {
        self.jobs.get(name).map(|entry| &entry.job)
    }

    /// All changes up to this version are known.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Whether a Job of this version, of which nothing is known, is gone.
    pub(crate) fn has_passed(&self, version: u64) -> bool {
        self.is_whole && !self.is_truncated && self.version >= version
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Arc<Job>)> {
        self.jobs.iter().map(|(name, entry)| (&**name, &entry.job))
    }

    /// Whether some were forgotten because there were too many.
    pub(crate) fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many Jobs are in each state.
    pub(crate) fn count(&self) -> [(State, usize); State::ALL.len()] {
        let mut counts = State::ALL.map(|state| (state, 0));
        for entry in self.jobs.values() {
            counts[entry.job.situation.state as usize].1 += 1
        }
        counts
    }

    /// The watch begins anew, with all Jobs that there are.
    pub(crate) fn begin(&mut self) {
        self.generation += 1;
        (self.is_whole, self.is_truncated) = (false, false)
    }

    /// Whether all is known up to [its version](Cache::version).
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The watch has told of all Jobs that there were at this version. Those that it has not told of are gone, but for newer ones: returns
    /// them, with their last state.
    pub(crate) fn finish(&mut self, version: u64) -> Vec<(Box<str>, Arc<Job>)> {
        let generation = self.generation;
        let is_gone = |entry: &Entry| entry.generation != generation && entry.job.version <= version;
        let gone: Vec<_> = self.jobs.extract_if(|_, entry| is_gone(entry)).collect();
        self.bytes -= gone.iter().map(|(name, entry)| size(name, &entry.job)).sum::<usize>();
        self.is_whole = true;
        self.advance(version);
        gone.into_iter().map(|(name, entry)| (name, Arc::new((*entry.job).clone().being_deleted()))).collect()
    }

    /// Forgets all, because nothing tells of changes any more.
    pub(crate) fn clear(&mut self) {
        self.jobs.clear();
        self.last.clear();
        (self.bytes, self.is_whole) = (0, false)
    }

    /// The watch has told of all changes up to this version.
    pub(crate) fn advance(&mut self, version: u64) {
        self.version = self.version.max(version)
    }

    /// By the watch. Returns what is known now.
    pub(crate) fn change(&mut self, name: &str, job: Job) -> Arc<Job> {
        if self.is_whole {
            self.advance(job.version) // at the beginning they come in any order
        }
        if let Some(entry) = self.jobs.get_mut(name)
            && entry.job.version >= job.version
        {
            entry.generation = self.generation;
            return entry.job.clone();
        }
        // a deletion is never undone, though the watch may tell of a change before it
        let is_deleted = |known: &Arc<Job>| known.uid == job.uid && known.is_being_deleted && !job.is_being_deleted;
        let job = if self.get(name).is_some_and(is_deleted) { job.being_deleted() } else { job };
        let job = self.put(name, Arc::new(job), self.generation);
        if job.situation.state.is_final() {
            self.remember(name, job.clone())
        }
        job
    }

    /// By the watch: the Job is gone. Returns its last state.
    pub(crate) fn delete(&mut self, name: &str, job: Job) -> Arc<Job> {
        if self.is_whole {
            self.advance(job.version)
        }
        if self.get(name).is_some_and(|known| known.uid == job.uid || known.version <= job.version) {
            self.remove(name)
        }
        let last = Arc::new(job.being_deleted());
        self.remember(name, last.clone());
        last
    }

    fn remember(&mut self, name: &str, job: Arc<Job>) {
        if self.last.len() >= MAX_LAST {
            self.last.pop_front();
        }
        if size(name, &job) <= MAX_LAST_SIZE {
            self.last.push_back((name.into(), job))
        }
    }

    /// The last state of a Job that has left the cache lately.
    pub(crate) fn last(&self, name: &str, uid: &str) -> Option<&Arc<Job>> {
        self.last.iter().rev().find(|(known, job)| **known == *name && job.uid == uid).map(|(_, job)| job)
    }

    /// By the answer to a call of ours. What the watch has already passed is not believed: the Job may be gone since.
    pub(crate) fn learn(&mut self, name: &str, job: &Job) {
        if job.is_being_deleted
            && let Some(entry) = self.jobs.get(name).filter(|entry| entry.job.uid == job.uid)
        {
            let (known, generation) = ((*entry.job).clone().being_deleted(), entry.generation);
            self.put(name, Arc::new(known), generation);
        }
        if job.version > self.version.max(self.get(name).map_or(0, |known| known.version)) {
            self.put(name, Arc::new(job.clone()), self.generation.wrapping_sub(1));
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(entry) = self.jobs.remove(name) {
            self.bytes -= size(name, &entry.job)
        }
    }

    fn put(&mut self, name: &str, job: Arc<Job>, generation: u32) -> Arc<Job> {
        self.remove(name);
        self.bytes += size(name, &job);
        self.jobs.insert(name.into(), Entry { job: job.clone(), generation });
        if self.bytes > self.max_bytes {
            self.shrink()
        }
        job
    }

    /// Forgets those first that ended first, then the oldest.
    fn shrink(&mut self) {
        let key = |entry: &Entry| {
            let Job { situation, created, .. } = &*entry.job;
            let ended = situation.finished.clone().filter(|_| situation.state.is_final());
            (!situation.state.is_final(), ended.or_else(|| created.clone()))
        };
        let mut all: Vec<_> = self.jobs.iter().map(|(name, entry)| (key(entry), name.clone())).collect();
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

    fn job(version: u64, state: State) -> Job {
        let situation = Situation { state, finished: Some(format!("{version:03}")), ..Situation::default() };
        Job { uid: "u".into(), version, situation, created: Some(format!("{version:03}")), ..Job::default() }
    }

    fn state(cache: &Cache, name: &str) -> Option<State> {
        cache.get(name).map(|job| job.situation.state)
    }

    #[test]
    fn the_newest_version_counts_whoever_tells_it() {
        let mut cache = Cache::new(1 << 20);
        cache.finish(0);
        cache.learn("a", &job(5, State::Waiting));
        assert_eq!(state(&cache, "a"), Some(State::Waiting), "before the watch tells of it");
        assert_eq!(cache.change("a", job(4, State::Starting)).situation.state, State::Waiting);
        cache.change("a", job(6, State::Running));
        cache.learn("a", &job(5, State::Waiting));
        assert_eq!(state(&cache, "a"), Some(State::Running));
        cache.learn("a", &job(5, State::Waiting).being_deleted());
        assert_eq!(state(&cache, "a"), Some(State::Deleting), "we have just deleted it");
        assert_eq!(cache.delete("a", job(7, State::Running)).situation.state, State::Deleting);
        assert_eq!(cache.last("a", "u").map(|job| job.version), Some(7));
        assert!(cache.last("a", "v").is_none() && cache.last("b", "u").is_none());
        cache.learn("a", &job(6, State::Running));
        assert_eq!(state(&cache, "a"), None, "the answer to a call that was made before it was deleted");
        cache.learn("a", &job(8, State::Waiting));
        assert_eq!(state(&cache, "a"), Some(State::Waiting), "a new one");
        assert!(cache.bytes() > ENTRY);
        cache.remove("a");
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn a_deletion_is_not_undone_by_a_change_before_it() {
        let mut cache = Cache::new(1 << 20);
        cache.change("a", job(1, State::Running));
        cache.learn("a", &Job::clone(&job(1, State::Running)).being_deleted());
        let state = |cache: &Cache| cache.get("a").unwrap().situation.state;
        assert_eq!(state(&cache), State::Deleting);
        cache.change("a", job(2, State::Running));
        assert_eq!(state(&cache), State::Deleting);
        cache.change("a", Job { uid: "another".into(), ..job(3, State::Running) });
        assert_eq!(state(&cache), State::Running, "a new one of the same name");
    }

    #[test]
    fn a_new_beginning_forgets_what_is_gone_when_it_is_whole() {
        let mut cache = Cache::new(1 << 20);
        cache.change("gone", job(1, State::Running));
        cache.change("stays", job(2, State::Running));
        cache.begin();
        cache.change("stays", job(2, State::Running));
        cache.learn("ours", &job(9, State::Waiting));
        cache.learn("gone-since", &job(7, State::Waiting));
        assert!(cache.get("gone").is_some(), "it is not whole yet");
        let gone: Vec<_> = cache.finish(8).into_iter().map(|(name, job)| (name, job.situation.state)).collect();
        assert!(gone.len() == 2 && gone.contains(&("gone".into(), State::Deleting)), "{gone:?}");
        let known = ["gone", "gone-since", "stays", "ours"].map(|name| cache.get(name).is_some());
        assert_eq!(known, [false, false, true, true]);
        assert_eq!((cache.version(), cache.has_passed(8), cache.has_passed(9)), (8, true, false));
        cache.begin();
        cache.change("stays", job(9, State::Running));
        assert_eq!((cache.version(), cache.is_whole()), (8, false), "others may have changed before");
        cache.begin();
        cache.finish(10);
        assert_eq!((cache.bytes(), cache.is_whole()), (0, true));
    }

    #[test]
    fn ended_jobs_are_forgotten_first() {
        let mut cache = Cache::new(20 * (ENTRY + 20));
        for number in 1..=10 {
            cache.change(&format!("running-{number}"), job(number, State::Running));
            cache.change(&format!("ended-{number}"), job(100 + number, State::Succeeded));
        }
        for number in 1..=5 {
            cache.change(&format!("new-{number}"), job(200 + number, State::Waiting));
        }
        assert!(cache.bytes() <= 20 * (ENTRY + 20) && !cache.has_passed(1));
        let known = |prefix: &str, to: u64| (1..=to).filter(|n| cache.get(&format!("{prefix}-{n}")).is_some()).count();
        assert_eq!((known("running", 10), known("new", 5)), (10, 5));
        assert!(cache.get("ended-1").is_none() && cache.get("ended-10").is_some());
        let counted = cache.count().iter().map(|(_, number)| number).sum::<usize>();
        assert_eq!(counted, 15 + known("ended", 10));
    }
}
