//! A caller that waits for the end of a Job: when it looks at the Job again, and what it gets then.

use crate::account::Reservation;
use crate::answered::{Answered, Record};
use crate::dispatch::Waiting;
use crate::jobs::News;
use crate::kube::Job;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long before the end of a wait a Job is requested while no watch is up, so that the answer leaves in time; or a quarter of the wait.
const QUESTION: Duration = Duration::from_secs(2);
/// How long it is asked for at least: the watch may have ended in the last moment. Also how long before the end a call is made while the watch
/// is up: for pods, or for a Job that is being deleted.
pub(super) const LEAST_QUESTION: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Look {
    pub(super) waiting: Box<Waiting>,
    pub(super) since: Instant,
    /// When its time is over.
    pub(super) end: Instant,
    /// The time is nearly over, and the Job is asked for.
    asks: bool,
    /// It was woken with these.
    pub(super) news: Option<News>,
    /// The answer of another caller, with the pods of the Job.
    pub(super) answer: Option<Arc<[u8]>>,
    /// There are no pods for it.
    pub(super) lacks_pods: bool,
    /// News that came while it was already looking is lost.
    pub(super) has_missed: bool,
    /// For all of it but the Job.
    _memory: Reservation,
    /// For the text of the Job that it has seen.
    pub(super) text: Arc<Reservation>,
}

/// What decides what a look comes to, beside the caller's own.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) now: Instant,
    /// The Job of this name as it is now, where that takes no call.
    pub(super) job: Option<Arc<Job>>,
    /// The watch is up.
    pub(super) is_current: bool,
    /// The answer has the Job's pods, which take a call.
    pub(super) with_pods: bool,
    /// The dispatcher stops, or needs the caller's place.
    pub(super) must_end: bool,
}

/// What a look comes to.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    /// It is answered with the Job as it is now.
    Job(Arc<Job>),
    /// The Job is gone.
    Gone,
    /// It is answered with what was last known.
    Unconfirmed,
    /// It waits on, and looks again at this time.
    Nothing {
        until: Instant,
        /// An older version is not news.
        version: u64,
        /// The Job is asked for.
        asks: bool,
        /// A call has just found the Job.
        was_found: bool,
    },
}

impl Look {
    pub(super) fn new(waiting: Box<Waiting>, arrived: Instant, memory: Reservation, text: Arc<Reservation>) -> Self {
        let (since, end) = (Instant::now(), arrived + waiting.time());
        Look {
            waiting,
            since,
            end,
            asks: false,
            news: None,
            answer: None,
            lacks_pods: false,
            has_missed: false,
            _memory: memory,
            text,
        }
    }

    /// A call, or the cache, has just returned the Job, which has not ended.
    pub(super) fn begin(&self, was_found: bool) -> Seen {
        let until = self.end - self.shortly(QUESTION);
        Seen::Nothing { until, version: self.waiting.seen().version, asks: false, was_found }
    }

    /// As long before the end, or a quarter of the wait.
    fn shortly(&self, time: Duration) -> Duration {
        (self.waiting.time() / 4).min(time)
    }

    /// It is answered with this when it looks again: there has to be memory for the answer first.
    pub(super) fn answer_later(&mut self, news: News) {
        (self.news, self.asks) = (Some(news), true)
    }

    /// Looks again: it was woken, or its time is over.
    pub(super) fn again(&mut self, facts: Facts) -> Seen {
        match self.news.take() {
            Some(News::Is(job)) if self.waiting.is_about(&job) => {
                if job.situation.state.is_final() || self.asks || facts.must_end {
                    return Seen::Job(job);
                }
                self.waiting.see(job);
                return self.begin(true);
            }
            Some(News::Is(_) | News::Gone) => return Seen::Gone,
            Some(News::Unknown) => return Seen::Unconfirmed,
            None => (),
        }
        let job = facts.job.filter(|job| self.waiting.is_about(job));
        let call = if facts.is_current { LEAST_QUESTION } else { QUESTION };
        // what takes a call begins before the end, so that the answer leaves in time
        let takes_call = job.is_none() || facts.with_pods;
        let over = if takes_call { self.end - self.shortly(call) } else { self.end };
        let is_over = facts.now >= over;
        match job {
            Some(job) if is_over || self.asks || facts.must_end || job.situation.state.is_final() => {
                return Seen::Job(job);
            }
            None if self.asks || facts.must_end => return Seen::Unconfirmed,
            _ => self.asks = is_over,
        }
        let until = if self.asks { self.end.max(facts.now + LEAST_QUESTION) } else { over };
        let asks = self.asks || std::mem::take(&mut self.has_missed);
        Seen::Nothing { until, version: 0, asks, was_found: false } // the version that it has may be of another history by now
    }

    /// With the answer of another caller.
    pub(super) fn answer_as(self, json: &[u8]) -> Answered {
        let waited = self.since.elapsed();
        after(waited, self.waiting.answer_as(json.to_vec()))
    }

    /// `last`: the Job as it was when it was last heard of, and how long that is ago. Not for [`Seen::Nothing`].
    pub(super) fn answer(self, seen: &Seen, last: Option<(Arc<Job>, Duration)>) -> Answered {
        let waited = self.since.elapsed();
        let answered = match seen {
            Seen::Job(job) => self.waiting.answer(job),
            Seen::Gone => self.waiting.answer_gone(),
            Seen::Unconfirmed | Seen::Nothing { .. } => self.waiting.answer_unconfirmed(last, waited),
        };
        after(waited, answered)
    }
}

fn after(waited: Duration, answered: Answered) -> Answered {
    Answered { record: Record { waited, ..answered.record }, ..answered }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Account, ByKind, Kind};
    use crate::kube::{JobState, Situation};

    const WAIT: Duration = Duration::from_secs(20);

    fn job(uid: &str, version: u64, state: JobState) -> Arc<Job> {
        let situation = Situation { state, ..Situation::default() };
        Arc::new(Job { name: "a".into(), uid: uid.into(), version, situation, ..Job::default() })
    }

    fn look(is_lookup: bool) -> Look {
        let waiting = Waiting::of(job("u", 5, JobState::Running), WAIT, is_lookup);
        let memory = || Account::new(ByKind::default(), 1).try_reserve(Kind::Parked, 1).unwrap();
        Look::new(waiting, Instant::now(), memory(), Arc::new(memory()))
    }

    /// After so many seconds of its wait.
    fn facts(look: &Look, seconds: f32, job: Option<Arc<Job>>) -> Facts {
        let now = look.end - WAIT + Duration::from_secs_f32(seconds);
        Facts { now, job, is_current: true, with_pods: false, must_end: false }
    }

    /// What is said, or after how many seconds it looks again, and whether it asks.
    fn shown(look: &Look, seen: &Seen) -> String {
        match seen {
            Seen::Job(job) => format!("{} {}", job.uid, job.situation.state.name()),
            Seen::Gone => "gone".into(),
            Seen::Unconfirmed => "unconfirmed".into(),
            Seen::Nothing { until, asks, .. } => {
                format!("{:.1} {asks}", (*until + WAIT - look.end).as_secs_f32())
            }
        }
    }

    #[test]
    fn news_end_the_wait_for_those_whom_they_concern() {
        let is = |uid, state| News::Is(job(uid, 9, state));
        for (is_lookup, news, want) in [
            (true, is("u", JobState::Succeeded), "u succeeded"),
            (true, is("u", JobState::Running), "18.0 false"),
            (true, is("v", JobState::Failed), "v failed"),
            (false, is("u", JobState::Succeeded), "u succeeded"),
            (false, is("v", JobState::Succeeded), "gone"),
            (false, News::Gone, "gone"),
            (true, News::Unknown, "unconfirmed"),
        ] {
            let mut look = look(is_lookup);
            look.news = Some(news.clone());
            let facts = facts(&look, 3.0, None);
            let seen = look.again(facts);
            assert_eq!(shown(&look, &seen), want, "{is_lookup} {news:?}");
        }
    }

    #[test]
    fn what_takes_a_call_is_asked_for_before_the_end() {
        let running = || Some(job("u", 5, JobState::Running));
        for (seconds, job, is_current, with_pods, want) in [
            (18.0, running(), true, false, "20.0 false"),
            (20.0, running(), true, false, "u running"),
            (18.0, running(), true, true, "19.5 false"),
            (19.5, running(), true, true, "u running"),
            (18.0, None, true, false, "19.5 false"),
            (18.0, None, false, false, "20.0 true"),
            (19.9, None, true, false, "20.4 true"),
            (18.0, Some(super::tests::job("v", 9, JobState::Running)), true, true, "19.5 false"),
        ] {
            let mut look = look(false);
            let facts = Facts { is_current, with_pods, ..facts(&look, seconds, job) };
            let seen = look.again(facts);
            assert_eq!(shown(&look, &seen), want, "{seconds} {is_current} {with_pods}");
        }
    }

    #[test]
    fn one_that_has_asked_is_answered_with_what_there_is() {
        for (news, job, want) in [
            (Some(News::Is(job("u", 9, JobState::Running))), None, "u running"),
            (Some(News::Unknown), Some(job("u", 5, JobState::Running)), "unconfirmed"),
            (None, Some(job("u", 5, JobState::Running)), "u running"),
            (None, None, "unconfirmed"),
        ] {
            let mut look = look(true);
            let unknown = Facts { is_current: false, ..facts(&look, 18.0, None) };
            let seen = look.again(unknown);
            assert_eq!(shown(&look, &seen), "20.0 true");
            look.news = news;
            let facts = facts(&look, 20.0, job);
            let seen = look.again(facts);
            assert_eq!(shown(&look, &seen), want);
        }
    }

    #[test]
    fn one_who_waits_for_memory_for_its_answer_is_not_put_back() {
        for (news, want) in [(News::Is(job("u", 5, JobState::Running)), "u running"), (News::Unknown, "unconfirmed")] {
            let mut look = look(true);
            look.answer_later(news);
            let facts = facts(&look, 18.0, None);
            let seen = look.again(facts);
            assert_eq!(shown(&look, &seen), want);
        }
    }

    #[test]
    fn in_a_shutdown_everybody_is_answered() {
        let is = |uid| News::Is(job(uid, 9, JobState::Running));
        for (news, job, want) in [
            (None, Some(job("u", 5, JobState::Running)), "u running"),
            (None, Some(job("v", 9, JobState::Running)), "unconfirmed"),
            (None, None, "unconfirmed"),
            (Some(is("u")), None, "u running"),
            (Some(is("v")), None, "gone"),
        ] {
            let mut look = look(false);
            look.news = news;
            let facts = Facts { must_end: true, ..facts(&look, 3.0, job) };
            let seen = look.again(facts);
            assert_eq!(shown(&look, &seen), want);
        }
    }

    #[test]
    fn one_whose_news_were_lost_asks_at_once() {
        let mut look = look(true);
        look.has_missed = true;
        let facts = facts(&look, 18.0, Some(job("u", 5, JobState::Running)));
        let seen = look.again(facts.clone());
        assert_eq!(shown(&look, &seen), "20.0 true");
        let seen = look.again(facts);
        assert_eq!(shown(&look, &seen), "20.0 false", "once");
    }
}
