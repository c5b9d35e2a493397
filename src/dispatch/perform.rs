//! Carries out a dispatch: makes its calls, and turns what they come to into an answer. Each thing that a caller may ask for has a function.

use super::action::{Creation, Dispatch};
use super::answer::{AnswerDraft, AnswerOrWait, Waiting, gone};
use super::calls::{Calls, Ended, NextCall, Shared};
use super::list::PodReasons;
use super::log::LogQuery;
use super::next::{self, Answer, Call, Intent, Naming};
use super::page::reasons;
use super::prefer::Wait;
use crate::account::Reservation;
use crate::answered::{Answered, Record};
use crate::config::DryRun;
use crate::http::Reply;
use crate::kube::{Client, Job, JobKey, LOG_ANSWER, LONG_ANSWER, Log};
use crate::manifest::Name;
use crate::random::random;
use crate::status::{Reason, Status, internal_error};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of an answer's pods at most.
const PODS: usize = 128 << 10;

/// A dispatch, and how far it has come.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) dispatch: Dispatch,
    so_far: SoFar,
}

/// What is known and was done before.
#[derive(Debug, Default)]
struct SoFar {
    /// The next call, after a pause, or once there is memory for its answer.
    next_call: Option<NextCall>,
    /// Of the API server.
    warnings: u32,
    /// While it pauses.
    memory: Option<Reservation>,
    /// For a long answer.
    answer_memory: Option<Reservation>,
    /// The Job that is asked for, as it is now: its pods or a log are all that is still to be asked for.
    known: Option<Arc<Job>>,
    /// The Job that is asked for, which had ended when it was last heard of, and how long that is ago. It is the answer if no call can be made.
    ended: Option<(Arc<Job>, Duration)>,
    /// The answer should have the Job's pods.
    with_pods: bool,
    /// When the answer has to leave, if that is before the request's own time is over.
    until: Option<Instant>,
}

impl Work {
    /// To find out why the pods of these Jobs wait, for a page.
    pub(crate) fn for_page(starting: Vec<JobKey>) -> Box<Self> {
        Work::boxed(Dispatch::PodReasons(starting))
    }

    pub(super) fn boxed(dispatch: Dispatch) -> Box<Self> {
        Box::new(Work { dispatch, so_far: SoFar::default() })
    }

    fn of_known(dispatch: Dispatch, job: Arc<Job>) -> Box<Self> {
        Box::new(Work { dispatch, so_far: SoFar { known: Some(job), ..SoFar::default() } })
    }

    /// What is still to be done for an answer with the pods of this Job, for a caller that has waited.
    pub(crate) fn for_pods(waiting: Waiting, job: Arc<Job>) -> Box<Self> {
        let (name, wait) = waiting.into_lookup();
        Work::of_known(Dispatch::Lookup(name, wait), job)
    }

    /// `last`: the Job as it was when it was last heard of, and how long that is ago. `with_pods`: the answer should have the Job's pods.
    pub(crate) fn or_ended(mut self: Box<Self>, last: Option<(Arc<Job>, Duration)>, with_pods: bool) -> Box<Self> {
        self.so_far.with_pods = with_pods;
        self.so_far.ended = last.filter(|(job, _)| job.situation.state.is_final());
        self
    }

    /// Bytes that a long answer needs before the next call; 0 for a usual one.
    pub(crate) fn answer_bytes(&self) -> usize {
        match (&self.dispatch, &self.so_far.next_call) {
            (Dispatch::Log(..), _) => LOG_ANSWER.max(if self.is_long() { LONG_ANSWER } else { 0 }),
            _ if self.is_long() => LONG_ANSWER,
            _ => self
                .so_far
                .known
                .as_ref()
                .map_or(0, |job| if job.is_long() { (job.answer_bytes() + PODS).min(LONG_ANSWER) } else { 0 }),
        }
    }

    fn is_long(&self) -> bool {
        self.so_far.next_call.as_ref().is_some_and(|next_call| next_call.is_long)
    }

    /// It has memory for a long answer.
    pub(crate) fn give(&mut self, memory: Option<Reservation>) {
        self.so_far.answer_memory = memory
    }

    /// Answers by then.
    pub(crate) fn by(mut self: Box<Self>, until: Instant) -> Box<Self> {
        self.so_far.until = Some(until);
        self
    }

    /// When the answer has to leave, if that is before the request's own time is over.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.so_far.until
    }

    /// The Job's name, and how often the API server was tried, if it was.
    pub(crate) fn tried(&self) -> Option<(&str, u32)> {
        self.so_far.next_call.as_ref().map(|next_call| (&next_call.name[..], next_call.attempts.retries.into()))
    }

    /// Answers with what is known already; gives back what needs a call. `with_pods`: the answer has the Job's pods.
    pub(crate) fn found(self: Box<Self>, job: &Arc<Job>, with_pods: bool) -> Result<AnswerOrWait, Box<Self>> {
        match self.dispatch {
            Dispatch::Lookup(name, wait) if !with_pods || wait.is_some_and(|wait| wait.goes_on(job)) => {
                Ok(AnswerDraft { name, code: 200, wait, ..AnswerDraft::default() }.or_wait(job.clone()))
            }
            dispatch => Err(Work::of_known(dispatch, job.clone())),
        }
    }

    /// The name of the Job that is read; empty if none is.
    pub(crate) fn name(&self) -> &str {
        match &self.dispatch {
            Dispatch::Lookup(name, _) | Dispatch::Log(name, _) => name,
            Dispatch::Create(_) | Dispatch::Delete(_) | Dispatch::PodReasons(_) | Dispatch::Nothing => "",
        }
    }

    /// The answer when no call can be made: with what is known of the Job if that is enough.
    pub(crate) fn failure(&self, status: Status) -> Answered {
        match &self.dispatch {
            Dispatch::Lookup(name, wait) => self.so_far.failure(name, *wait, status),
            _ => status.into(),
        }
    }
}

impl SoFar {
    /// The next call. Errors: 503 if there was no time for the first one.
    fn begin(&mut self, calls: &Calls<'_>, first: impl FnOnce() -> NextCall) -> Result<NextCall, Status> {
        if let Some(next_call) = self.next_call.take() {
            return Ok(next_call);
        }
        if Instant::now() >= calls.until {
            return Err(Status::new(Reason::Overloaded, "no time was left to call the API server"));
        }
        calls.shared.budget.deposit();
        Ok(first())
    }

    fn count_warnings(&mut self, calls: &mut Calls<'_>) -> u32 {
        self.warnings += calls.client.take_warnings();
        self.warnings
    }

    /// To be continued.
    fn pause(
        mut self,
        dispatch: Dispatch,
        next_call: NextCall,
        memory: Option<Reservation>,
        pause: Duration,
    ) -> Progress {
        (self.next_call, self.memory) = (Some(next_call), memory);
        Progress::Pause(Box::new(Work { dispatch, so_far: self }), pause)
    }

    /// To be continued when there is memory for a long answer.
    fn wait_for_memory(mut self, dispatch: Dispatch, next_call: NextCall) -> Progress {
        self.next_call = Some(next_call);
        Progress::Long(Box::new(Work { dispatch, so_far: self }))
    }

    /// The answer to a lookup when a call has failed, or cannot be made: with what is known of the Job if that is enough.
    fn failure(&self, name: &str, wait: Option<Wait>, status: Status) -> Answered {
        let draft = || AnswerDraft { name: name.to_owned(), code: 200, wait, ..AnswerDraft::default() };
        let answered = match (&self.known, &self.ended) {
            (Some(job), _) => AnswerDraft { lacks_pods: true, ..draft() }.answer(Some(job)),
            (None, Some((job, age))) if matches!(status.code(), 502..=504) => {
                let age = Some(*age);
                AnswerDraft { age, lacks_pods: self.with_pods, ..draft() }.answer(Some(job))
            }
            _ => Answered::from(status.clone()),
        };
        let note = match answered.reply.code {
            200 => Some(format!("answered with what is known: {}", status.note.unwrap_or(status.message))),
            _ => status.note,
        };
        Answered { record: Record { note, ..answered.record }, ..answered }
    }
}

/// The result of [`perform`].
#[derive(Debug)]
pub(crate) enum Progress {
    Done(Answered),
    /// To be continued after this time.
    Pause(Box<Work>, Duration),
    /// To be continued when there is memory for its [answer](Work::answer_bytes).
    Long(Box<Work>),
    /// To be answered when its Job has ended.
    Wait(Box<Waiting>),
    /// To be answered with a page that has these.
    Reasons(Box<PodReasons>),
}

impl From<AnswerOrWait> for Progress {
    fn from(either: AnswerOrWait) -> Self {
        match either {
            AnswerOrWait::Answer(answered) => Progress::Done(answered),
            AnswerOrWait::Wait(waiting) => Progress::Wait(waiting),
        }
    }
}

impl From<Status> for Progress {
    fn from(status: Status) -> Self {
        Progress::Done(status.into())
    }
}

/// Makes calls until there is an answer, or a pause before the next. Without a client (`--dry-run=client`) it makes none.
pub(crate) fn perform(shared: Shared<'_>, client: Option<&mut Client>, work: Box<Work>, until: Instant) -> Progress {
    let Work { dispatch, mut so_far } = *work;
    let Some(client) = client else { return Progress::Done(shown(dispatch)) };
    client.take_warnings(); // of a readiness check, which are not this caller's
    so_far.memory = None;
    let mut calls = Calls { shared, client, memory: so_far.answer_memory.take(), until };
    let progress = match dispatch {
        Dispatch::Nothing => Progress::Done(Reply::empty(204).into()),
        Dispatch::Create(creation) => create(&mut calls, creation, so_far),
        Dispatch::Lookup(name, wait) => look_up(&mut calls, name, wait, so_far),
        Dispatch::Log(name, query) => read_log(&mut calls, name, query, so_far),
        Dispatch::Delete(name) => delete(&mut calls, name, so_far),
        Dispatch::PodReasons(starting) => Progress::Reasons(reasons(&mut calls, starting).into()),
    };
    match progress {
        Progress::Done(answered) if answered.memory.is_none() => {
            Progress::Done(Answered { memory: calls.memory, ..answered })
        }
        progress => progress,
    }
}

fn create(calls: &mut Calls<'_>, mut creation: Creation, mut so_far: SoFar) -> Progress {
    let is_dry_run = calls.shared.config.dry_run == DryRun::Server;
    let Creation { manifest, fingerprint, nonce, delivery, depth, body, wait } = &mut creation;
    let naming = match manifest.name {
        Name::Given(_) => Naming::Given,
        Name::Keyed(_) => Naming::Keyed,
        Name::Generated(_) => Naming::Random,
    };
    let intent = Intent::Create { fingerprint, nonce, delivery: delivery.as_deref(), naming, is_dry_run };
    let first = || NextCall::new(manifest.choose_name(random()), Call::Create);
    let next_call = match so_far.begin(calls, first) {
        Ok(next_call) => next_call,
        Err(status) => return status.into(),
    };
    let ended = calls.make(intent, next_call, Some(manifest));
    let warnings = so_far.count_warnings(calls);
    let (name, tries, answer) = match ended {
        Ended::Pause { next_call, memory, pause } => {
            return so_far.pause(Dispatch::Create(creation), next_call, memory, pause);
        }
        Ended::Long(next_call) => return so_far.wait_for_memory(Dispatch::Create(creation), next_call),
        Ended::Answer { name, tries, answer } => (name, tries, answer),
    };
    let draft = |code| {
        let wait = wait.filter(|_| !is_dry_run);
        AnswerDraft {
            name: name.clone(),
            code,
            depth: Some(*depth),
            body: *body,
            is_dry_run,
            warnings,
            wait,
            tries,
            ..AnswerDraft::default()
        }
    };
    match answer {
        Ok(Answer::Created(job)) if job.fingerprint.as_deref() != Some(&**fingerprint) => {
            draft(201).unmarked().or_wait(Arc::new(*job)).into()
        }
        Ok(Answer::Created(job)) => draft(201).or_wait(Arc::new(*job)).into(),
        Ok(Answer::Same(job) | Answer::Valid(job)) => draft(200).or_wait(Arc::new(*job)).into(),
        Ok(Answer::Gone) => Progress::Done(gone(AnswerDraft { wait: None, is_dry_run: false, ..draft(201) })),
        Ok(Answer::Found(_) | Answer::WithPods(..) | Answer::Log(_) | Answer::Deleting(_)) => internal_error().into(),
        Err(status) => Progress::Done(Answered::from(status).about(name, tries)),
    }
}

/// Answers with a Job, and with its pods where they belong to the answer.
fn look_up(calls: &mut Calls<'_>, name: String, wait: Option<Wait>, mut so_far: SoFar) -> Progress {
    let known = so_far.known.clone();
    let mut next_call = match so_far.begin(calls, || NextCall::of(name.clone(), known)) {
        Ok(next_call) => next_call,
        Err(status) => return Progress::Done(so_far.failure(&name, wait, status)),
    };
    loop {
        let ended = calls.make(Intent::Lookup, next_call, None);
        let warnings = so_far.count_warnings(calls);
        let (tries, answer) = match ended {
            Ended::Pause { next_call, memory, pause } => {
                return so_far.pause(Dispatch::Lookup(name, wait), next_call, memory, pause);
            }
            Ended::Long(next_call) => return so_far.wait_for_memory(Dispatch::Lookup(name, wait), next_call),
            Ended::Answer { tries, answer, .. } => (tries, answer),
        };
        let draft = || AnswerDraft { name: name.clone(), code: 200, warnings, wait, tries, ..AnswerDraft::default() };
        return match answer {
            Ok(Answer::Found(job))
                if calls.shared.config.enabled.pods && !wait.is_some_and(|wait| wait.goes_on(&job)) =>
            {
                so_far.known = Some(Arc::new(*job));
                next_call = NextCall::of(name.clone(), so_far.known.clone());
                continue;
            }
            Ok(Answer::Found(job)) => draft().or_wait(Arc::new(*job)).into(),
            Ok(Answer::WithPods(job, pods)) => {
                Progress::Done(AnswerDraft { pods: Some(pods), ..draft() }.answer(Some(&job)))
            }
            Ok(_) => internal_error().into(),
            Err(status) => Progress::Done(so_far.failure(&name, wait, status).about(name, tries)),
        };
    }
}

fn read_log(calls: &mut Calls<'_>, name: String, query: LogQuery, mut so_far: SoFar) -> Progress {
    let known = so_far.known.clone();
    let next_call = match so_far.begin(calls, || NextCall::of(name.clone(), known)) {
        Ok(next_call) => next_call,
        Err(status) => return status.into(),
    };
    match calls.make(Intent::Log(&query), next_call, None) {
        Ended::Pause { next_call, memory, pause } => so_far.pause(Dispatch::Log(name, query), next_call, memory, pause),
        Ended::Long(next_call) => so_far.wait_for_memory(Dispatch::Log(name, query), next_call),
        Ended::Answer { tries, answer: Ok(Answer::Log(log)), .. } => {
            let Some(Log { text, memory }) = Arc::into_inner(log) else { return internal_error().into() };
            let answered = Answered::from(Reply::text("text/plain; charset=utf-8", text)).about(name, tries);
            Progress::Done(Answered { memory: Some(memory), ..answered })
        }
        Ended::Answer { answer: Ok(_), .. } => internal_error().into(),
        Ended::Answer { tries, answer: Err(status), .. } => Progress::Done(Answered::from(status).about(name, tries)),
    }
}

fn delete(calls: &mut Calls<'_>, name: String, mut so_far: SoFar) -> Progress {
    let next_call = match so_far.begin(calls, || NextCall::of(name.clone(), None)) {
        Ok(next_call) => next_call,
        Err(status) => return status.into(),
    };
    let ended = calls.make(Intent::Delete, next_call, None);
    let warnings = so_far.count_warnings(calls);
    match ended {
        Ended::Pause { next_call, memory, pause } => so_far.pause(Dispatch::Delete(name), next_call, memory, pause),
        Ended::Long(next_call) => so_far.wait_for_memory(Dispatch::Delete(name), next_call),
        Ended::Answer { tries, answer: Ok(Answer::Deleting(job)), .. } => {
            let is_dry_run = calls.shared.config.dry_run == DryRun::Server;
            let draft = AnswerDraft { name, code: 202, is_dry_run, warnings, tries, ..AnswerDraft::default() };
            Progress::Done(draft.answer(Some(&Job::clone(&job).being_deleted())))
        }
        Ended::Answer { answer: Ok(_), .. } => internal_error().into(),
        Ended::Answer { tries, answer: Err(status), .. } => Progress::Done(Answered::from(status).about(name, tries)),
    }
}

/// With `--dry-run=client`.
fn shown(dispatch: Dispatch) -> Answered {
    match dispatch {
        Dispatch::Create(Creation { mut manifest, .. }) => {
            let name = manifest.choose_name(random());
            let answered = Answered::from(Reply::json(200, manifest.json)).about(name, 0);
            Answered { memory: manifest.reservation, ..answered }
        }
        Dispatch::Nothing => Reply::empty(204).into(),
        Dispatch::Lookup(..) | Dispatch::Log(..) | Dispatch::PodReasons(_) | Dispatch::Delete(_) => {
            next::no_such_job().into()
        }
    }
}
