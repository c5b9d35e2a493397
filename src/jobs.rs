//! What is known of our Jobs, and who waits for their end. One thread follows them by a watch (`jobs/follow.rs`).
//!
//! Who begins to wait first registers, then becomes one who can be woken, then looks at the Job once more; who has news of a Job first
//! writes them down, then looks for those who wait. So in whatever order that happens, one of the two sees the other. Perhaps both: so a
//! waiter is something that can be woken once.

mod cache;
mod follow;
mod waiters;

use crate::dispatch::Query;
use crate::http::Reply;
use crate::kube::{Job, State};
use cache::Cache;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};
use waiters::Waiters;

/// How old a list may be when the watch is interrupted; when the API server ends it, it begins again within two seconds.
const MAX_SILENCE: Duration = Duration::from_secs(10);

/// `W`: what it takes to wake one who waits.
#[derive(Debug)]
pub(crate) struct Jobs<W> {
    cache: RwLock<Cache>,
    waiters: Waiters<W>,
    /// Somebody has asked for a Job, so that there is a watch.
    is_wanted: AtomicBool,
    /// The watch goes on, and all that it has told is written down.
    is_live: AtomicBool,
    /// Kubernetes denies the right to watch, so that nothing would be forgotten.
    is_forbidden: AtomicBool,
    /// When the watch has last said something.
    heard: Mutex<Option<Instant>>,
}

/// What one who waits is told.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// The Job has ended, or is gone; this is its last state.
    Last(Arc<Job>),
    /// The Job is gone, or the watch has lost sight of it.
    Unknown,
}

impl<W: PartialEq> Jobs<W> {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Jobs {
            cache: RwLock::new(Cache::new(max_bytes)),
            waiters: Waiters::default(),
            is_wanted: AtomicBool::new(false),
            is_live: AtomicBool::new(false),
            is_forbidden: AtomicBool::new(false),
            heard: Mutex::default(),
        }
    }

    fn cache(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache_mut(&self) -> RwLockWriteGuard<'_, Cache> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody asks for a Job. Returns true the first time: the caller starts the thread that [follows](Jobs::follow).
    pub(crate) fn want(&self) -> bool {
        !self.is_wanted.load(SeqCst) && !self.is_wanted.swap(true, SeqCst)
    }

    /// There is no thread for it.
    pub(crate) fn want_no_more(&self) {
        self.is_wanted.store(false, SeqCst)
    }

    /// The Job as it is now, as far as the watch tells; None if an answer needs a call.
    pub(crate) fn known(&self, name: &str) -> Option<Arc<Job>> {
        if self.is_live.load(SeqCst) { self.newest(name) } else { None }
    }

    /// The Job as it was when something was last heard of it.
    pub(crate) fn newest(&self, name: &str) -> Option<Arc<Job>> {
        self.cache().get(name).cloned()
    }

    /// A page of the Jobs that are known, if the watch has told of all and goes on, or begins again at the moment.
    ///
    /// Errors: whether Kubernetes denies the right to know them; else they are not known yet.
    pub(crate) fn page(&self, query: &Query) -> Result<Reply, bool> {
        let cache = self.cache();
        let is_current = self.is_live() || cache.is_whole() && self.silence() < MAX_SILENCE;
        if !is_current {
            return Err(self.is_forbidden.load(SeqCst));
        }
        let (chosen, is_truncated) = (query.choose(cache.all()), cache.is_truncated());
        drop(cache);
        Ok(query.page(chosen, is_truncated))
    }

    /// A call of ours has found this Job, which is ours.
    pub(crate) fn learn(&self, name: &str, job: &Job) {
        if self.is_wanted.load(SeqCst) && !self.is_forbidden.load(SeqCst) {
            self.cache_mut().learn(name, job)
        }
    }

    /// A call of ours has found no Job of this name. While the watch goes on, it knows better: the answer may be older than a new one.
    pub(crate) fn not_found(&self, name: &str) {
        if self.is_wanted.load(SeqCst) && !self.is_live.load(SeqCst) {
            self.cache_mut().remove(name)
        }
    }

    /// Somebody is about to wait for the end of this Job, and [looks](Jobs::look) at it once more when it can be woken.
    pub(crate) fn register(&self, name: &str, seen: &Job, waiter: W) {
        self.waiters.register(name, seen, waiter)
    }

    /// One waits no longer.
    pub(crate) fn leave(&self, name: &str, waiter: &W) {
        self.waiters.leave(name, waiter)
    }

    pub(crate) fn waiters(&self) -> usize {
        self.waiters.len()
    }

    /// How many Jobs are known, by state.
    pub(crate) fn count(&self) -> [(State, usize); State::ALL.len()] {
        self.cache().count()
    }

    pub(crate) fn cached_bytes(&self) -> usize {
        self.cache().bytes()
    }

    /// How long the watch has said nothing; zero if there is none.
    pub(crate) fn silence(&self) -> Duration {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.map_or(Duration::ZERO, |heard| heard.elapsed())
    }

    /// Whether the watch goes on, so that what is [newest](Jobs::newest) is how it is.
    pub(crate) fn is_live(&self) -> bool {
        self.is_live.load(SeqCst)
    }

    /// Whether what the watch has not told of is not there.
    pub(crate) fn knows_all(&self) -> bool {
        self.is_live.load(SeqCst) && self.cache().has_passed(0)
    }

    /// The watch has ended by a defect.
    pub(crate) fn lose(&self) {
        self.is_live.store(false, SeqCst);
        self.is_forbidden.store(false, SeqCst);
        self.cache_mut().begin() // it begins with all Jobs again
    }

    /// What there is to tell one who waits since it saw this Job; None if that goes on. A waiter that was taken meanwhile, and of whose
    /// news nothing is left, is told that they are not known.
    pub(crate) fn look(&self, name: &str, seen: &Job, waiter: &W) -> Option<News> {
        let was_taken = || (!self.waiters.is_waiting(name, waiter)).then_some(News::Unknown);
        self.news(name, &seen.uid, seen.version).or_else(was_taken)
    }

    fn news(&self, name: &str, uid: &str, version: u64) -> Option<News> {
        let cache = self.cache();
        match cache.get(name) {
            Some(job) if job.uid == uid => job.situation.state.is_final().then(|| News::Last(job.clone())),
            Some(job) if job.version < version => None,
            // another Job has its name now; or what the watch has passed, and has not, is gone
            other => match cache.last(name, uid) {
                Some(last) => Some(News::Last(last.clone())),
                None if other.is_some() || self.is_live.load(SeqCst) && cache.has_passed(version) => {
                    Some(News::Unknown)
                }
                None => None,
            },
        }
    }

    /// The watch tells of a Job. Returns it, as it is known now.
    fn write(&self, name: &str, job: Job) -> Arc<Job> {
        self.cache_mut().change(name, job)
    }

    /// Tells those who wait for this Job, if it has ended, and those who wait for one before it of the same name.
    fn tell(&self, name: &str, job: &Arc<Job>, wake: &dyn Fn(W, News)) {
        if job.situation.state.is_final() {
            self.tell_last(name, job, job.version, wake)
        }
        for waiter in self.waiters.take(name, |uid, version| uid != job.uid && version < job.version) {
            wake(waiter, News::Unknown)
        }
    }

    /// Tells those who wait for this Job since this version or an older one, that this was its last state.
    fn tell_last(&self, name: &str, job: &Arc<Job>, to: u64, wake: &dyn Fn(W, News)) {
        for waiter in self.waiters.take(name, |uid, version| uid == job.uid && version <= to) {
            wake(waiter, News::Last(job.clone()))
        }
    }

    /// Tells all for whom there are news, after a time in which the watch told nothing.
    fn tell_all(&self, wake: &dyn Fn(W, News)) {
        for (name, uid, version) in self.waiters.jobs() {
            let is_lost = || self.cache().get(&name).is_none().then_some(News::Unknown);
            if let Some(news) = self.news(&name, &uid, version).or_else(is_lost) {
                for waiter in self.waiters.take(&name, |of, since| of == uid && since <= version) {
                    wake(waiter, news.clone())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::Situation;
    use std::cell::{Cell, RefCell};

    fn job(version: u64, state: State) -> Job {
        Job { version, situation: Situation { state, ..Situation::default() }, ..Job::default() }
    }

    /// What happens in one order: the waiter is answered so often.
    struct World {
        jobs: Jobs<u8>,
        written: RefCell<Option<Arc<Job>>>,
        taken: RefCell<Vec<u8>>,
        /// Its connection stands where a wake-up finds it.
        can_be_woken: Cell<bool>,
        answered: Cell<u32>,
    }

    impl World {
        fn wake(&self) {
            if self.can_be_woken.take() {
                self.answered.update(|answered| answered + 1)
            }
        }
    }

    type Step = fn(&World);

    const REGISTER: Step = |world| world.jobs.register("a", &job(1, State::Running), 7);
    const PUT: Step = |world| world.can_be_woken.set(true);
    const LOOK: Step = |world| {
        if world.jobs.look("a", &job(1, State::Running), &7).is_some() {
            world.jobs.leave("a", &7);
            world.wake()
        }
    };
    const WRITE: Step = |world| *world.written.borrow_mut() = Some(world.jobs.write("a", job(2, State::Succeeded)));
    const TAKE: Step = |world| {
        let job = world.written.borrow().clone().expect("it was written");
        world.jobs.tell("a", &job, &|waiter, _| world.taken.borrow_mut().push(waiter))
    };
    const DELETE: Step = |world| {
        let last = world.jobs.cache_mut().delete("a", job(2, State::Running));
        *world.written.borrow_mut() = Some(last)
    };
    const TAKE_LAST: Step = |world| {
        let job = world.written.borrow().clone().expect("it was deleted");
        world.jobs.tell_last("a", &job, 2, &|waiter, _| world.taken.borrow_mut().push(waiter))
    };
    const WAKE: Step = |world| world.taken.take().iter().for_each(|_| world.wake());

    /// All orders of the steps of two threads.
    fn orders(one: &[Step], other: &[Step]) -> Vec<Vec<Step>> {
        let after = |step: Step, rest: Vec<Vec<Step>>| {
            rest.into_iter().map(move |rest| std::iter::once(step).chain(rest).collect::<Vec<_>>())
        };
        match (one.split_first(), other.split_first()) {
            (None, _) => vec![other.to_vec()],
            (_, None) => vec![one.to_vec()],
            (Some((first, ones)), Some((second, others))) => {
                after(*first, orders(ones, other)).chain(after(*second, orders(one, others))).collect()
            }
        }
    }

    /// How often the waiter is answered, in each order.
    fn answered(one: &[Step], other: &[Step]) -> Vec<u32> {
        let run = |steps: Vec<Step>| {
            let world = World {
                jobs: Jobs::new(1 << 20),
                written: RefCell::default(),
                taken: RefCell::default(),
                can_be_woken: Cell::new(false),
                answered: Cell::new(0),
            };
            world.jobs.write("a", job(1, State::Running));
            steps.iter().for_each(|step| step(&world));
            world.answered.get()
        };
        orders(one, other).into_iter().map(run).collect()
    }

    #[test]
    fn each_is_answered_once_in_every_order() {
        let watch = [WRITE, TAKE, WAKE];
        assert_eq!(answered(&[REGISTER, PUT, LOOK], &watch), [1; 20]);
        assert_eq!(answered(&[REGISTER, PUT, LOOK], &[DELETE, TAKE_LAST, WAKE]), [1; 20]);
        assert!(answered(&[REGISTER, PUT], &watch).contains(&0), "without the look after registering");
        assert!(answered(&[REGISTER, LOOK, PUT], &watch).contains(&0));
        assert!(answered(&[LOOK, REGISTER, PUT], &watch).contains(&0));
    }

    #[test]
    fn what_is_gone_is_told() {
        let jobs = Jobs::new(1 << 20);
        let told = RefCell::new(Vec::new());
        let wake = |waiter: u8, news: News| told.borrow_mut().push((waiter, matches!(news, News::Unknown)));
        let seen = jobs.write("a", job(5, State::Running));
        jobs.register("a", &seen, 1);
        assert!(jobs.look("a", &seen, &1).is_none());
        jobs.tell_all(&wake);
        assert!(told.borrow().is_empty(), "it goes on");
        jobs.cache_mut().begin();
        let gone = jobs.cache_mut().finish(8);
        jobs.is_live.store(true, SeqCst);
        assert_eq!((gone.len(), gone[0].1.situation.state), (1, State::Deleting));
        jobs.tell_all(&wake);
        assert_eq!(*told.borrow(), [(1, true)]);
        jobs.register("a", &job(9, State::Running), 2);
        assert!(jobs.look("a", &job(9, State::Running), &2).is_none(), "newer than what the watch has told");
        assert!(matches!(jobs.look("a", &job(8, State::Running), &2), Some(News::Unknown)));
    }

    #[test]
    fn another_job_of_the_same_name_is_another_job() {
        let jobs = Jobs::new(1 << 20);
        let of = |uid: &str, version, state| Job { uid: uid.into(), ..job(version, state) };
        let told = RefCell::new(Vec::new());
        let wake = |waiter: u8, news: News| told.borrow_mut().push((waiter, matches!(news, News::Unknown)));
        jobs.register("a", &of("first", 1, State::Running), 1);
        jobs.register("a", &of("second", 5, State::Running), 2);
        let second = jobs.write("a", of("second", 6, State::Succeeded));
        assert!(matches!(jobs.look("a", &of("first", 1, State::Running), &1), Some(News::Unknown)));
        jobs.tell("a", &second, &wake);
        assert_eq!(*told.borrow(), [(2, false), (1, true)]);
    }

    #[test]
    fn nothing_is_learnt_before_somebody_asks() {
        let jobs: Jobs<u8> = Jobs::new(1 << 20);
        jobs.learn("a", &job(1, State::Running));
        assert!(jobs.newest("a").is_none());
        assert!(jobs.want() && !jobs.want());
        jobs.learn("a", &job(1, State::Running));
        assert!(jobs.newest("a").is_some() && jobs.known("a").is_none(), "the watch is not live");
        jobs.is_live.store(true, SeqCst);
        jobs.not_found("a");
        assert!(jobs.known("a").is_some(), "the watch knows better");
        jobs.is_live.store(false, SeqCst);
        jobs.not_found("a");
        assert!(jobs.newest("a").is_none());
    }
}
