//! A request and its connection, from the first byte of the request to the last byte of its reply.
//!
//! [`Stage`] says what comes next, and [`Waits`] what a parked exchange waits for; there is no other state. The table
//! (`connections.rs`) owns the exchange whenever no thread does; queues hold its [`Slot`].

use super::connection::{Connection, Interest};
use super::serve::route_on;
use super::slot::Slot;
use crate::budget::Reservation;
use crate::config::Enabled;
use crate::dispatch::{Begun, Waiting, Work};
use crate::http::Request;
use crate::route::Route;
use crate::status::{Reason, Status};
use std::mem;
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
    /// Of the request, once that is whole.
    pub(super) route: Result<Route, Status>,
    /// When the whole request was received.
    pub(super) arrived: Instant,
    pub(super) stage: Stage,
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
    Look(Look),
}

/// A caller that waits for the end of a Job.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) waiting: Box<Waiting>,
    pub(super) since: Instant,
    /// The time is nearly over, and the Job is asked for.
    pub(super) asks: bool,
    pub(super) _memory: Reservation,
}

/// What a parked exchange waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Waits {
    /// Its client sends, reads, or begins its next request.
    Client(Interest),
    /// For the request, the rest of which stays unread.
    Memory,
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
}

/// How far a shutdown is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Shutdown {
    /// Requests are still accepted.
    IsAnnounced,
    Begins,
    /// Requests that were begun had time to arrive.
    NothingArrives,
    /// Calls had time to pause.
    NothingPauses,
    Ends,
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
    /// The caller is answered with the Job as it is.
    EndWait,
    Close,
}

impl Waits {
    /// What its connection is armed for.
    pub(super) fn interest(self, connection: &Connection) -> Option<Interest> {
        match self {
            Waits::Client(interest) => Some(interest),
            Waits::Memory => Some(Interest::Nothing),
            Waits::Job => Some(connection.parked_interest()),
            Waits::Worker | Waits::Permit | Waits::LargeRun | Waits::Turn | Waits::Time => None,
        }
    }

    /// Whether it waits for its client, or together with it.
    pub(super) fn is_at_rest(self) -> bool {
        matches!(self, Waits::Client(_) | Waits::Memory | Waits::Job)
    }

    /// Whether it waits for its turn, or for its next try.
    pub(super) fn is_queued(self) -> bool {
        matches!(self, Waits::Permit | Waits::LargeRun | Waits::Turn | Waits::Time)
    }
}

/// Its deadline has passed.
pub(super) fn on_deadline(waits: Waits) -> Then {
    match waits {
        Waits::Client(_) | Waits::Memory => Then::Expire,
        Waits::Worker | Waits::Permit | Waits::LargeRun | Waits::Turn => {
            Then::Refuse(Reason::Overloaded, "was queued for too long")
        }
        Waits::Time => Then::Run,
        Waits::Job => Then::EndWait,
    }
}

/// The dispatcher stops. `is_unfinished`: part of its request was received. `is_idle`: nothing of it was.
pub(super) fn on_shutdown(shutdown: Shutdown, waits: Waits, is_unfinished: bool, is_idle: bool) -> Then {
    match waits {
        Waits::Job => Then::EndWait,
        Waits::Client(_) if is_idle && shutdown >= Shutdown::Begins => Then::Close,
        Waits::Client(_) if is_unfinished && shutdown >= Shutdown::NothingArrives => {
            Then::Refuse(Reason::ShuttingDown, "the request did not arrive before the shutdown")
        }
        Waits::Memory if shutdown >= Shutdown::NothingArrives => {
            Then::Refuse(Reason::ShuttingDown, "shutting down; no memory was available in time")
        }
        Waits::Client(_) | Waits::Memory => Then::Stay,
        Waits::Time if shutdown == Shutdown::NothingPauses => Then::Run,
        Waits::Worker | Waits::Permit | Waits::LargeRun | Waits::Turn | Waits::Time => match shutdown {
            Shutdown::Ends => Then::Refuse(Reason::ShuttingDown, "shutting down"),
            Shutdown::IsAnnounced | Shutdown::Begins | Shutdown::NothingArrives | Shutdown::NothingPauses => Then::Stay,
        },
    }
}

impl Exchange {
    pub(super) fn new(slot: Slot, connection: Connection) -> Box<Self> {
        Box::new(Exchange {
            slot,
            deadline: connection.deadline(),
            arrived: connection.waits_since(),
            connection,
            request: Request::default(),
            route: NONE,
            stage: Stage::Receive,
            waits: Waits::Client(Interest::Readable),
        })
    }

    /// Its request is whole.
    pub(super) fn begin(&mut self, request: Request, enabled: Enabled) {
        self.route = route_on(&request, enabled, self.connection.is_reserved());
        self.request = request;
        self.arrived = Instant::now();
        self.stage = match &self.route {
            Ok(Route::List) => Stage::List { has_turn: false },
            Ok(route) if route.is_dispatch() => Stage::Plan,
            Ok(_) | Err(_) => Stage::Answer,
        }
    }

    /// Its request is answered, and its memory free.
    pub(super) fn end(&mut self) {
        (self.request, self.route, self.stage) = (Request::default(), NONE, Stage::Receive)
    }

    /// What is to be done, which the caller of this does now, or puts back.
    pub(super) fn take_stage(&mut self) -> Stage {
        mem::take(&mut self.stage)
    }

    /// Whether it takes a permit to go on.
    pub(super) fn needs_permit(&self) -> bool {
        matches!(self.stage, Stage::Plan | Stage::Call(_))
    }

    /// Whether the API server was called for it.
    pub(super) fn has_begun(&self) -> bool {
        matches!(&self.stage, Stage::Call(work) if work.tried().is_some())
    }

    /// While it waits for the end of a Job.
    pub(super) fn look(&self) -> Option<&Look> {
        if let Stage::Look(look) = &self.stage { Some(look) } else { None }
    }

    /// Whether it waits for its client, not for us.
    pub(super) fn is_evictable(&self) -> bool {
        matches!(self.waits, Waits::Client(_)) && self.connection.is_evictable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Waits; 8] = [
        Waits::Client(Interest::Readable),
        Waits::Memory,
        Waits::Worker,
        Waits::Permit,
        Waits::LargeRun,
        Waits::Turn,
        Waits::Time,
        Waits::Job,
    ];

    #[test]
    fn nothing_outlives_a_shutdown_but_a_reply_that_its_client_reads() {
        for waits in ALL {
            for (is_unfinished, is_idle) in [(true, false), (false, true)] {
                let then = on_shutdown(Shutdown::Ends, waits, is_unfinished, is_idle);
                assert_ne!(then, Then::Stay, "{waits:?}");
                assert_ne!(then, Then::Run, "{waits:?}: there is no time for it");
            }
        }
        let reading = on_shutdown(Shutdown::Ends, Waits::Client(Interest::Writable), false, false);
        assert_eq!(reading, Then::Stay);
    }

    #[test]
    fn a_shutdown_takes_back_no_more_than_it_has_to() {
        for waits in [Waits::Worker, Waits::Permit, Waits::LargeRun, Waits::Turn] {
            assert_eq!(on_shutdown(Shutdown::NothingPauses, waits, false, false), Then::Stay, "{waits:?}");
        }
        for waits in ALL {
            let then = on_shutdown(Shutdown::IsAnnounced, waits, false, true);
            let want = if waits == Waits::Job { Then::EndWait } else { Then::Stay };
            assert_eq!(then, want, "{waits:?}");
        }
        for shutdown in [Shutdown::Begins, Shutdown::NothingArrives] {
            assert_eq!(on_shutdown(shutdown, Waits::Time, false, false), Then::Stay);
        }
        assert_eq!(on_shutdown(Shutdown::NothingPauses, Waits::Time, false, false), Then::Run, "its last try");
        for waits in [Waits::Client(Interest::Readable), Waits::Memory] {
            assert_eq!(on_shutdown(Shutdown::Begins, waits, true, false), Then::Stay, "{waits:?}");
        }
    }

    #[test]
    fn every_deadline_ends_the_wait() {
        assert!(ALL.iter().all(|waits| on_deadline(*waits) != Then::Stay));
    }
}
