//! Right answers, and each kind of wrong answer.

use super::super::history::{History, Job, SLACK, Time};
use super::{Answer, Ask, Says, Span, Trouble};

/// In words.
fn check(history: &History, spans: &[Span], answers: &[Answer]) -> Vec<String> {
    super::check(history, spans, answers).iter().map(|one| format!("{}: {}", one.kind, one.words)).collect()
}

fn job(uid: &str, state: &'static str) -> Job {
    Job { uid: uid.into(), version: 1, is_labelled: true, is_deleted: state == "deleting", state }
}

/// `a`: waiting from 10 s, running from 20 s, succeeded from 30 s, gone from 60 s, suspended as another Job from 70 s. `b`: suspended from 5 s on.
fn history() -> History {
    let mut history = History::default();
    let mut add = |name: &str, at: Time, job: Option<Job>| history.add(name, at - SLACK, at, job);
    add("b", 5_000, Some(job("ub", "suspended")));
    add("a", 10_000, Some(job("ua", "waiting")));
    add("a", 20_000, Some(job("ua", "running")));
    add("a", 30_000, Some(job("ua", "succeeded")));
    add("a", 60_000, None);
    add("a", 70_000, Some(job("uc", "suspended")));
    history
}

fn answer(ask: Ask, wait: Option<Time>, sent: Time, answered: Time, says: Says) -> Answer {
    let name = if matches!(ask, Ask::Page(_)) { "" } else { "a" };
    let text = "GET".to_owned();
    Answer { ask, name: name.into(), wait, replica: 0, sent, answered, says, is_cut_short: false, text }
}

fn state(state: &str) -> Says {
    Says::State(state.into(), None)
}

fn span(trouble: Trouble, from: Time, to: Time) -> Span {
    Span { trouble, replicas: vec![0], from, to }
}

fn right(spans: &[Span], answer: Answer) {
    assert_eq!(check(&history(), spans, &[answer]), [""; 0])
}

fn wrong(spans: &[Span], answer: Answer, words: &str) {
    let wrong = check(&history(), spans, std::slice::from_ref(&answer));
    assert!(wrong.len() == 1 && wrong[0].contains(words), "{answer:?}: {wrong:?}, instead of {words}")
}

#[test]
fn a_state_is_at_most_two_seconds_old() {
    let get = |at: Time, says: Says| answer(Ask::Get, None, at, at + 100, says);
    right(&[], get(15_000, state("waiting")));
    right(&[], get(21_900, state("waiting")));
    wrong(&[], get(22_100, state("waiting")), "not in this state");
    right(&[], get(19_500, state("running"))); // seen late by the recorder
    wrong(&[], get(19_300, state("running")), "not in this state");
    wrong(&[], get(15_000, state("deleting")), "not deleting");
    wrong(&[], get(25_000, state("succeeded")), "not ended");
    wrong(&[], get(5_000, state("waiting")), "not there");
    wrong(&[], get(80_000, state("succeeded")), "not ended"); // the Job before of its name
    right(&[], get(80_000, Says::Nothing));
}

#[test]
fn a_state_is_at_most_twelve_seconds_old_while_the_watch_is_silenced() {
    let get = |at: Time, says: Says| answer(Ask::Get, None, at, at + 100, says);
    let silenced = [span(Trouble::Silenced, 25_000, 40_000)];
    right(&silenced, get(39_000, state("running")));
    wrong(&silenced, get(42_500, state("running")), "not in this state");
    wrong(&[span(Trouble::Missing, 25_000, 40_000)], get(39_000, state("running")), "not in this state");
    let other = [Span { replicas: vec![1], ..silenced[0].clone() }];
    wrong(&other, get(39_000, state("running")), "not in this state");
}

#[test]
fn an_age_makes_an_answer_older() {
    let get = |at: Time, age: u64| answer(Ask::Get, None, at, at + 100, Says::State("running".into(), Some(age)));
    right(&[], get(39_000, 5));
    wrong(&[], get(39_500, 5), "not in this state");
}

#[test]
fn an_outage_is_spanned() {
    let outage = [span(Trouble::Outage, 25_000, 45_000)];
    let get = |at: Time| answer(Ask::Get, None, at, at + 100, state("running"));
    right(&outage, get(46_000));
    wrong(&outage, get(47_500), "not in this state");
}

#[test]
fn a_missing_job_was_missing() {
    let get = |at: Time| answer(Ask::Get, None, at, at + 100, Says::NoSuchJob);
    right(&[], get(65_000));
    right(&[], get(71_900));
    wrong(&[], get(40_000), "not missing");
    wrong(&[], get(72_100), "not missing");
    let mut history = history();
    history.add("b", 40_000 - SLACK, 40_000, Some(Job { is_labelled: false, ..job("ub", "suspended") }));
    let about_b = |says: Says| vec![Answer { name: "b".into(), ..answer(Ask::Get, None, 45_000, 45_100, says) }];
    assert_eq!(check(&history, &[], &about_b(Says::NoSuchJob)), [""; 0]);
    assert_eq!(check(&history, &[], &about_b(state("suspended"))).len(), 1, "its label was lost");
}

#[test]
fn a_wait_is_answered_in_time() {
    let wait = |sent: Time, answered: Time, says: Says| answer(Ask::Get, Some(20_000), sent, answered, says);
    right(&[], wait(25_000, 30_100, state("succeeded")));
    right(&[], wait(25_000, 32_400, state("succeeded")));
    wrong(&[], wait(25_000, 32_600, state("succeeded")), "late: the Job's end at 30.000 was reported after 32.000");
    let missing = [span(Trouble::Missing, 29_000, 36_000)];
    right(&missing, wait(25_000, 44_000, state("succeeded")));
    wrong(&[], wait(55_000, 76_000, state("suspended")), "late"); // of its name there is another since
    let mut history = history();
    history.add("a", 90_000 - SLACK, 90_000, None);
    history.add("a", 91_000 - SLACK, 91_000, Some(job("ud", "suspended")));
    let next = |ask: Ask| [answer(ask, Some(20_000), 75_000, 95_000, state("suspended"))];
    assert_eq!(check(&history, &[], &next(Ask::Get)), [""; 0], "the next Job of its name");
    assert!(check(&history, &[], &next(Ask::Post))[0].starts_with("late"), "it is not the Job of the POST");
    right(&[], wait(75_000, 95_000, state("suspended")));
    wrong(&[], wait(75_000, 97_600, state("suspended")), "overdue");
    let cut = [span(Trouble::Cut, 94_000, 94_000)];
    right(&cut, wait(75_000, 99_600, state("suspended")));
    right(&[span(Trouble::Cut, 89_000, 89_000)], wait(75_000, 90_000, state("suspended")));
    wrong(&cut, wait(75_000, 101_000, state("suspended")), "overdue");
    wrong(&[], wait(75_000, 80_000, state("suspended")), "early");
    right(&[], Answer { is_cut_short: true, ..wait(75_000, 80_000, state("suspended")) });
    right(&[], wait(75_000, 94_500, state("suspended"))); // for its pods
    history.add("a", 92_000 - SLACK, 92_000, Some(job("ud", "deleting")));
    let post = |answered: Time| [answer(Ask::Post, Some(4_000), 91_500, answered, state("deleting"))];
    assert_eq!(check(&history, &[], &post(95_000)), [""; 0], "a Job that is being deleted is asked for");
    assert!(check(&history, &[], &post(94_800))[0].starts_with("early"));
    let suspended = [answer(Ask::Post, Some(20_000), 75_000, 94_500, state("suspended"))];
    assert!(check(&self::history(), &[], &suspended)[0].starts_with("early"), "nothing was asked");
}

#[test]
fn a_state_at_the_end_of_a_wait_is_of_that_moment() {
    let wait = |says: Says| answer(Ask::Post, Some(9_000), 14_000, 23_000, says);
    right(&[], wait(state("running")));
    wrong(&[], wait(state("waiting")), "not in this state");
    wrong(&[], wait(Says::NoState), "not gone");
    let mut history = history();
    history.add("b", 40_000 - SLACK, 40_000, Some(Job { is_labelled: false, ..job("ub", "suspended") }));
    let repeated = Answer { name: "b".into(), ..answer(Ask::Post, None, 45_000, 45_100, state("suspended")) };
    assert_eq!(check(&history, &[], &[repeated]), [""; 0], "it is found by its annotations");
    right(&[], answer(Ask::Post, Some(9_000), 56_000, 60_100, Says::NoState));
}

#[test]
fn a_deletion_deletes() {
    right(&[], answer(Ask::Delete, None, 59_000, 59_100, state("succeeded")));
    wrong(&[], answer(Ask::Delete, None, 50_000, 50_100, state("succeeded")), "not deleted");
    let mut history = history();
    history.add("a", 80_000 - SLACK, 80_000, None);
    let delete = [answer(Ask::Delete, None, 79_900, 80_000, state("deleting"))];
    assert_eq!(check(&history, &[], &delete), [""; 0]);
    let get = [answer(Ask::Get, None, 79_900, 80_000, state("deleting"))];
    assert_eq!(check(&history, &[], &get).len(), 1, "it has no deletionTimestamp");
}

#[test]
fn lists_neither_lose_nor_invent_nor_double() {
    let page = |sent: Time, jobs: &[(&str, &str)], is_last: bool| {
        let jobs = jobs.iter().map(|(name, state)| (name.to_string(), state.to_string())).collect();
        answer(Ask::Page(7), None, sent, sent + 100, Says::Jobs(jobs, is_last))
    };
    let found = |pages: &[Answer], words: &str| {
        let wrong = check(&history(), &[], pages);
        assert!(wrong.len() == 1 && wrong[0].contains(words), "{wrong:?}, instead of {words}")
    };
    let (a, b) = (("a", "succeeded"), ("b", "suspended"));
    assert_eq!(check(&history(), &[], &[page(40_000, &[a], false), page(40_200, &[b], true)]), [""; 0]);
    assert_eq!(check(&history(), &[], &[page(61_000, &[b], true)]), [""; 0], "a went meanwhile");
    assert_eq!(check(&history(), &[], &[page(40_000, &[a], false)]), [""; 0], "the list was given up");
    let old = [page(37_000, &[("a", "running"), b], true)];
    assert_eq!(check(&history(), &[span(Trouble::Missing, 20_000, 28_000)], &old), [""; 0], "it pauses after failures");
    assert_eq!(check(&history(), &[span(Trouble::Missing, 20_000, 24_000)], &old).len(), 1);
    found(&[page(40_000, &[a], true)], "not listed: 1 pages have b 0 times");
    found(&[page(40_000, &[a, b], false), page(40_200, &[b], true)], "not once, as listed: 2 pages have b 2 times");
    found(&[page(40_000, &[("a", "running"), b], true)], "not so, as listed: a as running");
    found(&[page(65_000, &[a, b], true)], "not so, as listed: a as succeeded");
    found(&[page(65_000, &[("c", "running"), b], true)], "not so, as listed: c as running");
}
