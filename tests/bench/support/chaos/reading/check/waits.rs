//! Whether callers that waited were answered in time. Pure.

use super::super::history::{Job, Time, is_final, seconds};
use super::{Answer, Ask, BACKOFF, BOUND, QUESTION, REQUEST, Run, SILENT_BOUND, Says, Trouble, Why};

const ANY: [Trouble; 3] = [Trouble::Silenced, Trouble::Missing, Trouble::Outage];
/// An answer this long before the end of its wait is early.
const EARLY: Time = 100;
/// Pods, and a Job that is being deleted, are asked for this long before the end of a wait, or a quarter of it.
const CALL: Time = 500;

impl Run<'_> {
    pub(super) fn waiting(&self, answer: &Answer) -> Option<Why> {
        let wait = answer.wait.filter(|_| !matches!(answer.says, Says::Nothing))?;
        self.overdue(answer, wait).or_else(|| self.late(answer)).or_else(|| self.early(answer, wait))
    }

    /// The wait was over.
    fn overdue(&self, answer: &Answer, wait: Time) -> Option<Why> {
        let Answer { sent, answered, replica, .. } = *answer;
        // the wait of a POST begins when its Job is created
        let before = match () {
            _ if self.had(replica, &ANY, sent.saturating_sub(BOUND), answered) => REQUEST,
            _ if answer.ask == Ask::Post => BOUND,
            _ => 0,
        };
        let question = if self.asks(answer) { QUESTION } else { BOUND };
        let deadline = sent + before + wait + question;
        Self::is_after(answered, deadline)
            .then(|| ("overdue", format!("its wait was over, and {} too", seconds(deadline))))
    }

    /// The Job had ended, or was gone.
    fn late(&self, answer: &Answer) -> Option<Why> {
        let end = self.end(answer)?;
        let deadline = match self.had(answer.replica, &ANY, end.saturating_sub(BOUND), answer.answered) {
            false => end + BOUND,
            true => {
                let blind = self.spans.iter().filter(|span| span.from <= answer.answered && span.to >= end);
                blind.map(|span| span.to).fold(end, Time::max) + SILENT_BOUND
            }
        };
        let is_late = Self::is_after(answer.answered, deadline);
        is_late.then(|| ("late", format!("the Job's end at {} was reported after {}", seconds(end), seconds(deadline))))
    }

    /// When the Job had ended or was gone, while its caller waited.
    fn end(&self, answer: &Answer) -> Option<Time> {
        let entries = self.history.entries(&answer.name);
        let seen = &entries[..entries.partition_point(|entry| entry.at <= answer.answered)];
        let is_end = |place: &usize| seen[*place].job.as_ref().is_none_or(|job| !job.is_labelled || job.has_ended());
        // a caller finds the next Job of this name, if that is created soon
        let is_replaced = |place: &usize| {
            let next = seen.get(place + 1).filter(|next| next.job.is_some() && next.at <= seen[*place].at + BOUND);
            answer.ask == Ask::Get && seen[*place].job.as_ref().is_none_or(|job| !job.is_labelled) && next.is_some()
        };
        // a later Job of its name does not make good an end that was seen
        let ends = (0..seen.len()).filter(|place| is_end(place) && !is_replaced(place));
        let first = ends.map(|place| seen[place].at).find(|at| *at >= answer.sent + BOUND);
        let last = (0..seen.len()).rev().take_while(is_end).last().map(|place| seen[place].at);
        // before a POST its Job may have been absent
        let last = last.filter(|at| answer.ask != Ask::Post || *at > answer.sent).map(|at| at.max(answer.sent));
        first.into_iter().chain(last).min()
    }

    /// Whether a Job of this name went or ended while its caller waited.
    fn went(&self, answer: &Answer) -> bool {
        let entries = self.history.entries(&answer.name).iter();
        let is_end = |job: Option<&Job>| job.is_none_or(|job| !job.is_labelled || job.has_ended());
        let mut meanwhile = entries.filter(|entry| entry.at > answer.sent && entry.since <= answer.answered);
        meanwhile.any(|entry| is_end(entry.job.as_ref()))
    }

    /// Whether it may have had no watch at the end of a wait, and asked.
    fn asks(&self, answer: &Answer) -> bool {
        let all = [&ANY[..], &[Trouble::Cut]].concat();
        self.had_with(BACKOFF, answer.replica, &all, answer.sent.saturating_sub(BOUND), answer.answered)
    }

    /// Nothing had happened, and the wait was not over.
    fn early(&self, answer: &Answer, wait: Time) -> Option<Why> {
        let Says::State(state, _) = &answer.says else { return None };
        let earlier = match answer.ask {
            _ if self.asks(answer) => QUESTION.min(wait / 4),
            Ask::Post if state != "deleting" => 0,
            _ => CALL.min(wait / 4),
        };
        let is_early =
            !is_final(state) && !answer.is_cut_short && answer.answered + EARLY + earlier < answer.sent + wait;
        // a Job that went or ended meanwhile may be the one that was waited for, and one that came meanwhile another
        let lasted = || match answer.ask {
            Ask::Post => !self.went(answer),
            _ => self.history.stayed(&answer.name, self.begin(answer), answer.answered),
        };
        (is_early && lasted()).then(|| ("early", format!("its wait of {} s was not over", seconds(wait))))
    }
}
