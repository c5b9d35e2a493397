//! A request and its connection, from the first byte of the request to the last byte of its reply.
//!
//! [`Stage`] says what comes next, and [`Waits`] what a parked exchange waits for; there is no other state. The table
//! (`connections.rs`) owns the exchange whenever no thread does; queues hold its [`Slot`].

use super::access_log::request_id;
use super::connection::{Connection, Interest};
use super::look::Look;
use super::serve::{Server, purpose};
use super::shared::Key;
use super::slot::Slot;
use crate::account::{Kind, Reservation};
use crate::auth::{Caller, Verdict};
use crate::dispatch::{Begun, PodReasons, Work};
use crate::hash::Digest;
use crate::http::Request;
use crate::route::{Route, is_form};
use crate::status::{Reason, Status};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

/// Of no request. It holds no memory.
const NONE: Result<Route, Status> = Ok(Route::Live);

#[derive(Debug)]
pub(super) struct Exchange {
    /// Of its present wait, or of its last one.
    pub(super) slot: Slot,
    pub(super) connection: Connection,
    /// Empty while it is received.
    pub(super) request: Request,
    /// Of the request, once that is whole: the caller's, or a new one.
    pub(super) id: String,
    /// Of the request, once that is whole.
    pub(super) route: Result<Route, Status>,
    /// Who has sent it, if that was asked.
    pub(super) caller: Option<Arc<Caller>>,
    /// When the whole request was received.
    pub(super) received_at: Instant,
    /// From when on its time counts: since it was received, or since it has waited for the end of a Job and needs a call.
    pub(super) arrived: Instant,
    pub(super) stage: Stage,
    /// For its answer.
    pub(super) memory: Option<Reservation>,
    /// For a page of Jobs, once it is known why their pods wait.
    pub(super) reasons: Option<Box<PodReasons>>,
    /// It asks this for others too.
    pub(super) reads_for: Option<Key>,
    /// While it is parked, or was last.
    pub(super) waits: Waits,
    pub(super) deadline: Instant,
}

/// What comes next.
#[derive(Debug, Default)]
pub(super) enum Stage {
    /// Receive a request, once the reply to the one before is sent: the connection knows how far that is.
    #[default]
    Receive,
    /// Ask the API server who has this token.
    Review(Digest),
    /// Its caller may not.
    Refused(Box<Status>),
    /// Make JSON of its form.
    Form,
    /// Answer at once.
    Answer,
    /// Make a page of Jobs. `has_turn`: those that were queued before it are answered.
    List { has_turn: bool },
    /// Decide what to do, with a small run of the filter.
    Plan,
    /// Decide that with a large run.
    LargeRun(Begun),
    /// Call the API server.
    Call(Box<Work>),
    /// Answer when the Job has ended.
    Look(Box<Look>),
}

/// What a parked exchange waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Waits {
    /// Its client sends, reads, or begins its next request.
    Client(Interest),
    /// For a request, the rest of which stays unread; or for a large run or an answer.
    Memory(Kind),
    /// Any worker runs it.
    Worker,
    /// To call the API server.
    Permit,
    LargeRun,
    /// To make a page of Jobs.
    Turn,
    /// A pause.
    Time,
    /// The end of a Job.
    Job,
    /// The pods of a Job, for which another exchange asks.
    Pods,
    /// Who has a token, for which another exchange asks.
    Caller,
}

/// How far an exchange that waits for its client has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Received {
    /// Between requests.
    Nothing,
    /// Of its request.
    Part,
    /// Its client reads the reply, or has not ended the connection since.
    All,
}

/// What happens to a parked exchange.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Then {
    Stay,
    /// A worker runs it.
    Run,
    /// Its connection says what was late, and closes.
    Expire,
    Refuse(Reason, &'static str),
    Close,
}

impl Waits {
    #[cfg(test)]
    pub(super) const ALL: [Waits; 10] = [
        Waits::Client(Interest::Readable),
        Waits::Memory(Kind::Large),
        Waits::Worker,
        Waits::Permit,
        Waits::LargeRun,
        Waits::Turn,
        Waits::Time,
        Waits::Job,
        Waits::Pods,
        Waits::Caller,
    ];

    /// Whether it waits for its client, or together with it.
    pub(super) fn is_at_rest(self) -> bool {
        matches!(self, Waits::Client(_) | Waits::Memory(_) | Waits::Job | Waits::Pods)
    }

    /// Whether it waits for its turn, or for its next try.
    pub(super) fn is_queued(self) -> bool {
        matches!(self, Waits::Permit | Waits::LargeRun | Waits::Turn | Waits::Time | Waits::Caller)
    }
}

/// Its deadline has passed, which a shutdown may have brought forward.
pub(super) fn on_deadline(waits: Waits, received: Received, is_stopping: bool) -> Then {
    let refuse = |message| Then::Refuse(Reason::ShuttingDown, message);
    match (waits, received) {
        (Waits::Client(_), Received::Nothing) => Then::Close,
        (Waits::Client(_), Received::Part) if is_stopping => refuse("the request did not arrive before the shutdown"),
        (Waits::Client(_), Received::Part | Received::All) => Then::Expire,
        (Waits::Memory(_), _) if is_stopping => refuse("shutting down; no memory was available in time"),
        (Waits::Memory(_), _) => Then::Refuse(Reason::Overloaded, "no memory was available in time"),
        (Waits::Worker | Waits::Permit | Waits::LargeRun | Waits::Turn, _) if is_stopping => refuse("shutting down"),
        (Waits::Worker | Waits::Permit | Waits::LargeRun | Waits::Turn, _) => {
            Then::Refuse(Reason::Overloaded, "was queued for too long")
        }
        (Waits::Time | Waits::Job | Waits::Pods | Waits::Caller, _) => Then::Run,
    }
}

/// Its client has left. The stage decides, not what it waits for: what changes something is carried out.
/// `reads`: it changes nothing.
pub(super) fn on_client_left(stage: &Stage, reads: bool) -> Then {
    match stage {
        Stage::Receive | Stage::Refused(_) | Stage::Answer | Stage::List { has_turn: false } | Stage::Look(_) => {
            Then::Close
        }
        Stage::Review(_) | Stage::Plan | Stage::Call(_) if reads => Then::Close,
        Stage::Review(_) | Stage::Form | Stage::Plan | Stage::Call(_) | Stage::LargeRun(_) => Then::Stay,
        Stage::List { has_turn: true } => Then::Stay, // it is about to be answered
    }
}

/// Another connection needs its place. `is_unused`: it has nothing that was received and not answered.
pub(super) fn on_eviction(waits: Waits, is_unused: bool) -> Then {
    match waits {
        Waits::Client(_) if is_unused => Then::Close,
        Waits::Job | Waits::Pods => Then::Run,
        Waits::Client(_) | Waits::Memory(_) | Waits::Worker => Then::Stay,
        Waits::Permit | Waits::LargeRun | Waits::Turn | Waits::Time | Waits::Caller => Then::Stay,
    }
}

impl Exchange {
    pub(super) fn new(slot: Slot, connection: Connection) -> Box<Self> {
        Box::new(Exchange {
            slot,
            deadline: connection.deadline(),
            received_at: connection.waits_since(),
            arrived: connection.waits_since(),
            connection,
            request: Request::default(),
            id: String::new(),
            route: NONE,
            caller: None,
            stage: Stage::Receive,
            memory: None,
            reasons: None,
            reads_for: None,
            waits: Waits::Client(Interest::Readable),
        })
    }

    /// Its request is whole.
    pub(super) fn begin(&mut self, request: Request, server: &Server) {
        let route = server.route(&request, self.connection.is_reserved());
        self.id = request_id(request.header("x-request-id"));
        self.request = request;
        self.received_at = Instant::now();
        self.arrived = self.received_at;
        let verdict = match &route {
            Ok(route) => server.config.auth.check(purpose(route), &self.request),
            Err(_) => Verdict::Admitted(None), // it is refused, whoever calls
        };
        // a place for probes is not for waiting
        let verdict = match verdict {
            Verdict::Ask(_) if self.connection.is_reserved() => {
                Verdict::Refused(Status::new(Reason::Overloaded, "too many connections"))
            }
            verdict => verdict,
        };
        self.route = route.flatten();
        self.judge(verdict, server.config.accept.form)
    }

    /// It is known who calls, or has to be asked. `takes_forms`: see `--accept`.
    pub(super) fn judge(&mut self, verdict: Verdict, takes_forms: bool) {
        self.stage = match (verdict, &self.route) {
            (Verdict::Refused(status), _) => Stage::Refused(Box::new(status)),
            (Verdict::Ask(token), _) => Stage::Review(token),
            (Verdict::Admitted(caller), route) => {
                self.caller = caller;
                match route {
                    Ok(Route::Dispatch(_)) if takes_forms && is_form(&self.request) => Stage::Form,
                    Ok(Route::List) => Stage::List { has_turn: false },
                    Ok(route) if route.is_dispatch() => Stage::Plan,
                    Ok(_) | Err(_) => Stage::Answer,
                }
            }
        }
    }

    /// Its request is answered, and its memory free.
    pub(super) fn end(&mut self) {
        (self.request, self.route, self.stage, self.memory) = (Request::default(), NONE, Stage::Receive, None);
        (self.reasons, self.caller) = (None, None);
        self.id.clear()
    }

    /// What is to be done, which the caller of this does now, or puts back.
    pub(super) fn take_stage(&mut self) -> Stage {
        mem::take(&mut self.stage)
    }

    /// It has the memory that it has waited for.
    pub(super) fn grant(&mut self, memory: Reservation) {
        match self.stage {
            Stage::Receive => self.connection.grant(memory),
            Stage::Form | Stage::LargeRun(_) => self.request.reservation = Some(memory),
            _ => self.memory = Some(memory),
        }
    }

    /// Whether it reads Jobs or a log.
    pub(super) fn reads(&self) -> bool {
        matches!(self.route, Ok(Route::Job(_) | Route::List | Route::Log(_)))
    }

    /// Whether it takes a permit to go on.
    pub(super) fn needs_permit(&self) -> bool {
        match self.stage {
            Stage::Plan => !self.reads(), // the Job may be known
            Stage::Call(_) => true,
            _ => false,
        }
    }

    /// Whether the API server was called for it.
    pub(super) fn has_begun(&self) -> bool {
        matches!(&self.stage, Stage::Call(work) if work.tried().is_some())
    }

    /// While it waits for the end of a Job.
    pub(super) fn look(&self) -> Option<&Look> {
        if let Stage::Look(look) = &self.stage { Some(look) } else { None }
    }

    /// What happens if its client has left.
    pub(super) fn on_client_left(&self) -> Then {
        on_client_left(&self.stage, self.reads())
    }

    /// What its connection is armed for while it waits for this. None: a worker comes soon, or what its client does makes no difference.
    pub(super) fn interest(&self, waits: Waits) -> Option<Interest> {
        match waits {
            Waits::Client(interest) => Some(interest),
            Waits::Memory(_) if matches!(self.stage, Stage::Receive) => Some(Interest::Nothing),
            Waits::Memory(_) | Waits::Job | Waits::Pods | Waits::Caller | Waits::Permit | Waits::Turn | Waits::Time => {
                (self.on_client_left() == Then::Close).then(|| self.connection.parked_interest())
            }
            Waits::Worker | Waits::LargeRun => None,
        }
    }

    /// How far it is while it waits for its client.
    pub(super) fn received(&self) -> Received {
        if self.connection.is_unfinished() {
            Received::Part
        } else if self.connection.is_idle() {
            Received::Nothing
        } else {
            Received::All
        }
    }

    /// What happens if another connection needs its place.
    pub(super) fn on_eviction(&self) -> Then {
        on_eviction(self.waits, matches!(self.waits, Waits::Client(_)) && self.connection.is_evictable())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVED: [Received; 3] = [Received::Nothing, Received::Part, Received::All];

    #[test]
    fn every_deadline_ends_the_wait() {
        for (waits, received, is_stopping) in Waits::ALL.iter().flat_map(|waits| {
            RECEIVED
                .into_iter()
                .flat_map(move |received| [true, false].map(|is_stopping| (*waits, received, is_stopping)))
        }) {
            assert_ne!(on_deadline(waits, received, is_stopping), Then::Stay, "{waits:?}, {received:?}");
        }
    }

    #[test]
    fn a_post_is_carried_out_although_its_client_has_left() {
        let begun = crate::dispatch::Begun::default();
        for (stage, reads, want) in [
            (Stage::Receive, false, Then::Close),
            (Stage::List { has_turn: false }, false, Then::Close),
            (Stage::Plan, true, Then::Close),
            (Stage::Plan, false, Then::Stay),
            (Stage::LargeRun(begun), false, Then::Stay),
        ] {
            assert_eq!(on_client_left(&stage, reads), want, "{stage:?}");
        }
    }

    #[test]
    fn a_place_is_taken_from_one_that_needs_nothing_or_can_be_answered() {
        for waits in Waits::ALL {
            let then = [true, false].map(|is_unused| on_eviction(waits, is_unused));
            let want = match waits {
                Waits::Client(_) => [Then::Close, Then::Stay],
                Waits::Job | Waits::Pods => [Then::Run, Then::Run],
                _ => [Then::Stay, Then::Stay],
            };
            assert_eq!(then, want, "{waits:?}");
        }
    }
}
