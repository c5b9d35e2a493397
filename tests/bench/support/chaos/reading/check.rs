//! What the dispatcher reported of Jobs, compared with their history. Pure.

mod lists;
#[cfg(test)]
mod tests;
mod waits;

use super::history::{History, Job, SLACK, Time, is_final, seconds};

/// A reported state was true this long before the request, at the earliest.
pub(super) const BOUND: Time = 2_000;
/// The same while the watch is silenced.
pub(super) const SILENT_BOUND: Time = 12_000;
/// When a trouble is over, the dispatcher needs this time to see again: its `Retry-After`, or its API server's backlog.
pub(super) const RECOVERY: Time = 1_000;
/// And this, where its lists and watches have failed: its pauses grow to this. Meanwhile it lists when somebody asks, every ten seconds.
pub(super) const BACKOFF: Time = 10_000;
/// At the end of a wait the dispatcher may ask for this long, or that much earlier, if the watch does not report.
pub(super) const QUESTION: Time = 5_000;
/// `--request-timeout`: how long calls before a wait may take.
pub(super) const REQUEST: Time = 15_000;

/// What was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ask {
    Get,
    /// A page of the list with this number.
    Page(usize),
    Post,
    Delete,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Says {
    /// The Job's state, and its age in seconds if that could not be confirmed.
    State(String, Option<u64>),
    /// 404.
    NoSuchJob,
    /// To a POST: there is a Job, without its state.
    NoState,
    /// Names and states; whether it is the last page of a list of all.
    Jobs(Vec<(String, String)>, bool),
    /// Nothing of any Job, as 503.
    Nothing,
}

/// An answer, and what was asked.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) ask: Ask,
    /// Of the Job; of a page empty.
    pub(crate) name: String,
    /// How long the caller wanted to wait.
    pub(crate) wait: Option<Time>,
    pub(crate) replica: usize,
    pub(crate) sent: Time,
    pub(crate) answered: Time,
    pub(crate) says: Says,
    /// Whether the dispatcher said that it did not wait to the end.
    pub(crate) is_cut_short: bool,
    /// Request and answer, as text.
    pub(crate) text: String,
}

/// Why a replica could not see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// Its watch may be open, and says nothing.
    Silenced,
    /// It has no watch.
    Missing,
    /// It begins its watch again. This excuses only that it asks before the end of a wait.
    Cut,
    /// There is no API server; the recorder could not see either.
    Outage,
}

/// A time in which something was wrong.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) trouble: Trouble,
    pub(crate) replicas: Vec<usize>,
    pub(crate) from: Time,
    pub(crate) to: Time,
}

/// All that the checks need.
pub(crate) struct Run<'r> {
    pub(crate) history: &'r History,
    pub(crate) spans: &'r [Span],
}

/// A wrong answer, with its kind, and all that is needed to understand it.
#[derive(Clone, Debug)]
pub(crate) struct Wrong {
    pub(crate) sent: Time,
    pub(crate) kind: &'static str,
    pub(crate) words: String,
}

/// What is wrong with an answer: its kind, and more.
type Why = (&'static str, String);

/// All that is wrong, in the order of the requests.
pub(crate) fn check(history: &History, spans: &[Span], answers: &[Answer]) -> Vec<Wrong> {
    let run = Run { history, spans };
    let mut wrong = Vec::new();
    for answer in answers {
        let found = run.report(answer).into_iter().chain(run.waiting(answer));
        wrong.extend(found.map(|why| run.wrong(answer, why)))
    }
    wrong.extend(run.lists(answers));
    wrong.sort_by_key(|wrong| wrong.sent);
    wrong
}

impl Run<'_> {
    /// Whether this trouble was within this time, the recovery included.
    pub(super) fn had(&self, replica: usize, troubles: &[Trouble], from: Time, to: Time) -> bool {
        self.had_with(RECOVERY, replica, troubles, from, to)
    }

    pub(super) fn had_with(&self, recovery: Time, replica: usize, troubles: &[Trouble], from: Time, to: Time) -> bool {
        let is_meant = |span: &Span| troubles.contains(&span.trouble) && span.replicas.contains(&replica);
        self.spans.iter().any(|span| is_meant(span) && span.from <= to && span.to + recovery >= from)
    }

    /// The beginning of the time in which a report must have been true. A report at the end of a wait is of that moment.
    pub(super) fn begin(&self, answer: &Answer) -> Time {
        let moment = answer.answered.min(answer.sent + answer.wait.unwrap_or(0));
        let (from, to) = (moment.saturating_sub(BOUND), answer.answered);
        let is_silenced = self.had(answer.replica, &[Trouble::Silenced], from, to);
        let is_list = matches!(answer.ask, Ask::Page(_));
        let is_old_list = is_list && self.had_with(BACKOFF, answer.replica, &[Trouble::Missing], from, to);
        let bound = if is_silenced || is_old_list { SILENT_BOUND } else { BOUND };
        let age = match answer.says {
            Says::State(_, Some(age)) => age * 1000 + BOUND,
            _ => 0,
        };
        let begin = moment.saturating_sub(bound + age);
        let outages = self.spans.iter().filter(|span| span.trouble == Trouble::Outage);
        let spanned = outages.filter(|span| span.from <= answer.answered && span.to >= begin);
        spanned.map(|span| span.from.saturating_sub(bound)).fold(begin, Time::min)
    }

    /// Whether what is reported was true.
    fn report(&self, answer: &Answer) -> Option<Why> {
        let (begin, end) = (self.begin(answer), answer.answered);
        let was = |test: &dyn Fn(Option<&Job>) -> bool| self.history.was(&answer.name, begin, end, test);
        let is_there = |job: Option<&Job>| job.is_some_and(|job| job.is_labelled);
        let kind = match &answer.says {
            Says::State(state, _) => {
                // a POST finds its Job by its annotations, without the label too
                let is_shown = |job: &Job| job.is_labelled || answer.ask == Ask::Post;
                let is_state = |job: Option<&Job>| job.is_some_and(|job| is_shown(job) && job.state == state);
                let was_deleted = || was(&|job| job.is_some_and(|job| job.is_labelled && !job.has_ended()));
                match () {
                    _ if was(&is_state) => None,
                    _ if answer.ask == Ask::Delete && state == "deleting" && was_deleted() => None,
                    _ if state == "deleting" => Some("not deleting"),
                    _ if !was(&is_there) => Some("not there"),
                    _ if is_final(state) => Some("not ended"),
                    _ => Some("not in this state"),
                }
            }
            Says::NoSuchJob if !was(&|job| !is_there(job)) => Some("not missing"),
            Says::NoState if !was(&|job| !is_there(job)) => Some("not gone"),
            _ => None,
        };
        let why = kind.map(|kind| (kind, format!("from {} to {}", seconds(begin), seconds(end))));
        why.or_else(|| self.deletion(answer))
    }

    /// After an accepted DELETE the Job is gone, or being deleted.
    fn deletion(&self, answer: &Answer) -> Option<Why> {
        let is_accepted = answer.ask == Ask::Delete && matches!(answer.says, Says::State(..));
        let end = answer.answered + BOUND;
        let is_lost = |job: Option<&Job>| job.is_none_or(|job| job.is_deleted || !job.is_labelled);
        let outage = self.had(answer.replica, &[Trouble::Outage], answer.sent, end);
        let is_wrong = is_accepted && !outage && !self.history.was(&answer.name, answer.sent, end, is_lost);
        is_wrong.then(|| ("not deleted", "although a DELETE was accepted".to_owned()))
    }

    pub(super) fn wrong(&self, answer: &Answer, (kind, more): Why) -> Wrong {
        Wrong { sent: answer.sent, kind, words: format!("{more}: {}", self.context(answer)) }
    }

    /// All that is needed to understand it.
    pub(super) fn context(&self, answer: &Answer) -> String {
        let from = self.begin(answer).min(answer.sent.saturating_sub(BOUND));
        let to = answer.answered + BOUND;
        let Answer { name, replica, sent, answered, text, .. } = answer;
        format!(
            "{text}, replica {replica}, sent at {}, answered at {}; history of {name}: {}; {}",
            seconds(*sent),
            seconds(*answered),
            self.history.words(name, from, to),
            self.troubles(*replica, from, to)
        )
    }

    fn troubles(&self, replica: usize, from: Time, to: Time) -> String {
        let within = self.spans.iter().filter(|span| span.from <= to && span.to + SILENT_BOUND >= from);
        let meant = within.filter(|span| span.replicas.contains(&replica));
        let words = |span: &Span| format!("{:?} from {} to {}", span.trouble, seconds(span.from), seconds(span.to));
        let words: Vec<_> = meant.map(words).collect();
        if words.is_empty() { "no trouble".to_owned() } else { words.join(", ") }
    }

    /// Slack of the recorder, where a time that it saw is compared with an answer's.
    pub(super) fn is_after(answered: Time, deadline: Time) -> bool {
        answered > deadline + SLACK
    }
}
