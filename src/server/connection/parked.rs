//! A connection whose answer waits for the end of a Job. It holds no thread.

use super::{Connection, Interest};
use crate::budget::Reservation;
use crate::dispatch::Waiting;
use crate::http::Request;
use crate::route::Route;
use crate::status::Status;
#[cfg(target_os = "linux")]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
#[cfg(not(target_os = "linux"))]
use rustix::net::{RecvFlags, recv};
use std::time::Instant;

/// What becomes the answer.
#[derive(Debug)]
pub(in crate::server) struct Parked {
    pub(in crate::server) waiting: Box<Waiting>,
    /// Only what the log and the head of the answer need.
    pub(in crate::server) request: Request,
    pub(in crate::server) route: Result<Route, Status>,
    /// When the whole request was received.
    pub(in crate::server) arrived: Instant,
    pub(in crate::server) since: Instant,
    /// Its time is nearly over, and the Job is asked for.
    pub(in crate::server) asks: bool,
    pub(in crate::server) _memory: Reservation,
}

impl Parked {
    /// When it has waited as long as its caller may.
    pub(in crate::server) fn end(&self) -> Instant {
        self.arrived + self.waiting.time()
    }
}

impl Connection {
    pub(in crate::server) fn park(&mut self, parked: Box<Parked>, until: Instant) {
        self.parked = Some(parked);
        self.deadline = until
    }

    pub(in crate::server) fn parked(&self) -> Option<&Parked> {
        self.parked.as_deref()
    }

    pub(in crate::server) fn unpark(&mut self) -> Option<Box<Parked>> {
        self.parked.take()
    }

    /// Whether its client has ended the connection, or its half of it; where the system does not tell that, only while nothing is unread.
    pub(in crate::server) fn has_left(&self) -> bool {
        #[cfg(target_os = "linux")]
        {
            let mut polled = [PollFd::new(&self.stream, PollFlags::RDHUP)];
            poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
        }
        #[cfg(not(target_os = "linux"))]
        match recv(&self.stream, &mut [0; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Ok((_, bytes)) => bytes == 0,
            Err(_) => self.is_reset(),
        }
    }

    /// What it waits for, beside the end of the Job. Where the end of a connection is input, what is unread hides it.
    pub(in crate::server) fn parked_interest(&self) -> Interest {
        let hides = cfg!(any(not(target_os = "linux"), feature = "portable-poller")) && self.has_unread();
        if hides { Interest::Nothing } else { Interest::Hangup }
    }
}
