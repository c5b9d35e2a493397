use super::*;
use crate::kube::{JobState, Situation};
use std::cell::{Cell, RefCell};

fn job(version: u64, state: JobState) -> Job {
    let situation = Situation { state, ..Situation::default() };
    Job { name: "a".into(), uid: "u".into(), version, situation, is_ours: true, ..Job::default() }
}

/// What happens in one order: the waiter is answered so often.
struct World {
    jobs: Jobs<u8>,
    taken: RefCell<Vec<(u8, News)>>,
    /// Its connection stands where a wake-up finds it.
    can_be_woken: Cell<bool>,
    answered: Cell<u32>,
    asked: Cell<u32>,
}

impl World {
    fn new() -> Self {
        let world = World {
            jobs: Jobs::new(1 << 20),
            taken: RefCell::default(),
            can_be_woken: Cell::new(false),
            answered: Cell::new(0),
            asked: Cell::new(0),
        };
        let mut cache = world.jobs.known.cache_mut();
        cache.change(job(1, JobState::Running));
        cache.finish(1);
        drop(cache);
        world.jobs.known.evidence.go_live();
        world
    }

    fn answer(&self) {
        if self.can_be_woken.take() {
            self.answered.update(|answered| answered + 1)
        }
    }

    /// The answer to all that was asked for: there is no such Job.
    fn settle(&self) {
        if self.asked.take() > 0 {
            self.jobs.ask_nothing(self)
        }
    }
}

impl Host<u8> for World {
    fn wake(&self, waiter: u8, news: News) {
        self.taken.borrow_mut().push((waiter, news))
    }
    fn start_asking(&self) {
        self.asked.update(|asked| asked + 1)
    }
}

type Step = fn(&World);

/// In one step: nobody can take its place in the table meanwhile.
const PARK: Step = |world| {
    world.jobs.register(&job(1, JobState::Running), 1, 7);
    world.can_be_woken.set(true)
};
const LOOK: Step = |world| {
    if world.jobs.look(&job(1, JobState::Running), &7, false, world).is_some() && world.jobs.leave("a", &7) {
        world.answer()
    }
};
const WRITE: Step = |world| _ = world.jobs.known.cache_mut().change(job(2, JobState::Succeeded));
const NOTIFY: Step = |world| {
    let known = world.jobs.known.cache().get("a").cloned();
    world.jobs.notify(&known.unwrap_or_else(|| Arc::new(job(2, JobState::Succeeded))), world)
};
const DELETE: Step = |world| world.jobs.known.cache_mut().delete(job(2, JobState::Running));
const DOUBT: Step = |world| world.jobs.doubt_waiters("a", "u", 2, world);
const SETTLE: Step = World::settle;
const WAKE: Step = |world| world.taken.take().iter().for_each(|_| world.answer());
const END: Step = |world| {
    SETTLE(world);
    WAKE(world)
};

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

/// How often the waiter is answered, in each order, when all that it asked for is answered at the end.
fn answered(one: &[Step], other: &[Step]) -> Vec<u32> {
    let run = |steps: Vec<Step>| {
        let world = World::new();
        steps.iter().for_each(|step| step(&world));
        END(&world);
        world.answered.get()
    };
    orders(one, other).into_iter().map(run).collect()
}

#[test]
fn each_waiter_is_answered_once_in_every_order() {
    let watch = [WRITE, NOTIFY, WAKE];
    assert_eq!(answered(&[PARK, LOOK], &watch), [1; 10]);
    assert!(answered(&[PARK], &watch).contains(&0), "without the second look");
    assert!(answered(&[PARK, LOOK], &[NOTIFY, WAKE, WRITE]).contains(&0), "in another order");
}

#[test]
fn a_deletion_is_reported_once_in_every_order() {
    let answered = answered(&[PARK, LOOK], &[DELETE, DOUBT, SETTLE, WAKE]);
    assert!(answered.iter().all(|answered| *answered == 1), "{answered:?}");
}

/// The news of a waiter of version 1 after this.
fn news_after(steps: &[Step]) -> Vec<News> {
    let world = World::new();
    PARK(&world);
    steps.iter().for_each(|step| step(&world));
    world.taken.take().into_iter().map(|(_, news)| news).collect()
}

#[test]
fn the_end_of_another_job_of_the_name_is_no_end_but_a_question() {
    let another: Step = |world| {
        let other = Job { uid: "v".into(), ..job(5, JobState::Succeeded) };
        world.jobs.change(other, world)
    };
    assert!(news_after(&[another]).is_empty());
    assert!(matches!(news_after(&[another, SETTLE])[..], [News::Unknown]));
    let before: Step = |world| world.jobs.change(Job { uid: "v".into(), ..job(1, JobState::Succeeded) }, world);
    assert!(news_after(&[before, SETTLE]).is_empty(), "an older version is not news");
}

#[test]
fn a_version_of_another_history_keeps_no_end_from_a_waiter() {
    let news_after = |version: u64| {
        let world = World::new();
        world.jobs.register(&job(99, JobState::Running), version, 7);
        world.jobs.change(job(4, JobState::Succeeded), &world);
        world.taken.take().len()
    };
    assert_eq!((news_after(99), news_after(0)), (0, 1));
}

#[test]
fn after_a_gap_all_waiters_with_news_are_woken() {
    let list_again: Step = |world| {
        world.jobs.begin();
        world.jobs.finish(9);
        world.jobs.go_live(world)
    };
    assert!(matches!(news_after(&[list_again, SETTLE])[..], [News::Unknown]), "it is not in the list: it is asked for");
    let with_end: Step = |world| {
        world.jobs.begin();
        world.jobs.known.cache_mut().change(job(4, JobState::Failed));
        world.jobs.finish(9);
        world.jobs.go_live(world)
    };
    let News::Is(job) = &news_after(&[with_end])[0] else { panic!("its end is not reported") };
    assert_eq!(job.version, 4);
}

#[test]
fn an_event_of_another_history_puts_all_in_doubt() {
    let world = World::new();
    assert!(world.jobs.is_in_order(1) && world.jobs.is_in_order(7));
    world.jobs.known.cache_mut().advance(9);
    assert!(!world.jobs.is_in_order(8) && world.jobs.known.evidence.is_doubted());
    assert!(world.jobs.known.cache().get("a").is_none(), "all is forgotten at once");
    assert!(!world.jobs.is_in_order(10), "until all is listed again");
    world.jobs.known.evidence.end_doubt();
    world.jobs.begin();
    assert!(world.jobs.is_in_order(3), "the beginning comes in any order");
}

#[test]
fn a_job_is_asked_for_once_for_all_that_wait() {
    let world = World::new();
    for waiter in 1..=5 {
        world.jobs.register(&job(1, JobState::Running), 1, waiter);
        world.jobs.ask_for("a", &waiter, std::time::Instant::now(), &world)
    }
    assert_eq!(world.asked.get(), 1, "one thread is started");
    world.settle();
    assert_eq!(world.taken.take().len(), 5);
    assert_eq!(world.jobs.waiters(), 0);
}
