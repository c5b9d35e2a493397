//! The poller for Linux: one epoll set; the kernel hands each event to one of the waiting threads.

use super::{Alarm, PollEvent, timespec};
use crate::server::connection::Interest;
use crate::server::slot::Slot;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// No slot has this token.
const ALARM: u64 = u64::MAX;

#[derive(Debug)]
pub(in crate::server) struct Poller {
    epoll: OwnedFd,
    alarm: Alarm,
}

impl Poller {
    pub(in crate::server) fn new() -> std::io::Result<Self> {
        let poller = Poller { epoll: epoll::create(CreateFlags::CLOEXEC)?, alarm: Alarm::new()? };
        // level-triggered: one event for as long as bytes are left
        epoll::add(&poller.epoll, &poller.alarm.read, EventData::new_u64(ALARM), EventFlags::IN)?;
        Ok(poller)
    }

    /// Adds the socket of a slot, armed for one event.
    pub(in crate::server) fn add(&self, stream: &TcpStream, slot: Slot, interest: Interest) -> std::io::Result<()> {
        Ok(epoll::add(&self.epoll, stream, EventData::new_u64(slot.token()), flags(interest))?)
    }

    /// Arms the socket of a slot for one more event.
    pub(in crate::server) fn modify(&self, stream: &TcpStream, slot: Slot, interest: Interest) -> std::io::Result<()> {
        Ok(epoll::modify(&self.epoll, stream, EventData::new_u64(slot.token()), flags(interest))?)
    }

    /// Removes the socket of a place. Here the kernel does so when the socket is closed.
    pub(in crate::server) fn remove(&self, _index: u32) {}

    /// Returns None when `timeout` is over, or a signal came.
    pub(in crate::server) fn wait(&self, timeout: Option<Duration>) -> Option<PollEvent> {
        let mut events = [MaybeUninit::uninit(); 1];
        let timeout = timeout.map(timespec);
        let (events, _) = epoll::wait(&self.epoll, &mut events, timeout.as_ref()).ok()?;
        match events.first()?.data.u64() {
            ALARM => self.alarm.silence().then_some(PollEvent::Woken),
            token => Some(PollEvent::Ready(Slot::of_token(token))),
        }
    }

    /// Makes one call of [`Poller::wait`] return.
    pub(in crate::server) fn wake(&self) {
        self.alarm.ring()
    }

    /// Whether [`Poller::wait`] would return at once.
    pub(in crate::server) fn has_ready(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&now)) == Ok(1)
    }
}

fn flags(interest: Interest) -> EventFlags {
    let flags = match interest {
        Interest::Readable => EventFlags::IN | EventFlags::RDHUP,
        Interest::Writable => EventFlags::OUT,
        Interest::Hangup => EventFlags::RDHUP,
        Interest::Nothing => EventFlags::empty(), // but a reset
    };
    flags | EventFlags::ONESHOT
}
