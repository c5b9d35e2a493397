//! The poller for other Unixes: poll(2). One of the waiting threads polls for all; the others wait for what it finds. Simple and not
//! fast: it is for trying things on a laptop.

use super::{Alarm, PollEvent, timespec};
use crate::server::connection::Interest;
use crate::server::slot::Slot;
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::{BTreeMap, VecDeque};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(in crate::server) struct Poller {
    state: Mutex<State>,
    /// Something is ready, or nobody polls any more.
    changed: Condvar,
    /// Interrupts the thread that polls.
    alarm: Alarm,
}

#[derive(Debug, Default)]
struct State {
    /// A duplicate of each place's socket, so that it stays open while it is polled.
    sockets: BTreeMap<u32, Registered>,
    ready: VecDeque<PollEvent>,
    is_polling: bool,
}

#[derive(Debug)]
struct Registered {
    slot: Slot,
    stream: Arc<TcpStream>,
    /// None: not armed.
    interest: Option<Interest>,
}

impl Poller {
    pub(in crate::server) fn new() -> std::io::Result<Self> {
        Ok(Poller { state: Mutex::default(), changed: Condvar::new(), alarm: Alarm::new()? })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the socket of a slot, armed for one event.
    pub(in crate::server) fn add(&self, stream: &TcpStream, slot: Slot, interest: Interest) -> std::io::Result<()> {
        let stream = Arc::new(stream.try_clone()?);
        self.lock().sockets.insert(slot.index, Registered { slot, stream, interest: Some(interest) });
        self.alarm.ring();
        Ok(())
    }

    /// Arms the socket of a slot for one more event.
    pub(in crate::server) fn modify(&self, stream: &TcpStream, slot: Slot, interest: Interest) -> std::io::Result<()> {
        if let Some(socket) = self.lock().sockets.get_mut(&slot.index) {
            (socket.slot, socket.interest) = (slot, Some(interest));
            self.alarm.ring();
            return Ok(());
        }
        self.add(stream, slot, interest)
    }

    /// Removes the socket of a place, before it is closed.
    pub(in crate::server) fn remove(&self, index: u32) {
        let mut state = self.lock();
        state.sockets.remove(&index);
        self.alarm.ring() // the thread that polls has a duplicate too
    }

    /// Returns None when `timeout` is over.
    pub(in crate::server) fn wait(&self, timeout: Option<Duration>) -> Option<PollEvent> {
        let end = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.lock();
        loop {
            if let Some(event) = state.ready.pop_front() {
                return Some(event);
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if !state.is_polling {
                state.is_polling = true;
                state = self.poll(state, left);
                state.is_polling = false;
                self.changed.notify_all()
            } else if left != Some(Duration::ZERO) {
                let left = left.unwrap_or(Duration::MAX);
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            if left == Some(Duration::ZERO) {
                return state.ready.pop_front();
            }
        }
    }

    /// Polls all armed sockets once, without the lock.
    fn poll<'a>(&'a self, state: MutexGuard<'a, State>, timeout: Option<Duration>) -> MutexGuard<'a, State> {
        let armed: Vec<(Slot, Arc<TcpStream>, PollFlags)> = state
            .sockets
            .values()
            .filter_map(|socket| Some((socket.slot, socket.stream.clone(), flags(socket.interest?))))
            .collect();
        drop(state);
        let mut polled: Vec<PollFd<'_>> = armed.iter().map(|(_, stream, flags)| PollFd::new(stream, *flags)).collect();
        polled.push(PollFd::new(&self.alarm.read, PollFlags::IN));
        let timeout = timeout.map(timespec);
        let found = poll(&mut polled, timeout.as_ref());
        let ready: Vec<bool> = polled.iter().map(|one| found.is_ok() && !one.revents().is_empty()).collect();
        drop(polled);
        let mut state = self.lock();
        for ((slot, ..), _) in armed.iter().zip(&ready).filter(|(_, is_ready)| **is_ready) {
            let State { sockets, ready, .. } = &mut *state;
            let same = sockets.get_mut(&slot.index).filter(|socket| socket.slot == *slot);
            if let Some(socket) = same.filter(|socket| socket.interest.is_some()) {
                socket.interest = None;
                ready.push_back(PollEvent::Ready(*slot))
            }
        }
        while self.alarm.silence() {}
        state
    }

    /// Makes one call of [`Poller::wait`] return.
    pub(in crate::server) fn wake(&self) {
        self.lock().ready.push_back(PollEvent::Woken);
        self.changed.notify_one();
        self.alarm.ring()
    }

    /// Whether [`Poller::wait`] would return at once.
    pub(in crate::server) fn has_ready(&self) -> bool {
        let state = self.lock();
        if state.ready.is_empty() && !state.is_polling {
            let mut state = state;
            state.is_polling = true;
            state = self.poll(state, Some(Duration::ZERO));
            state.is_polling = false;
            self.changed.notify_all();
            return !state.ready.is_empty();
        }
        !state.ready.is_empty()
    }
}

fn flags(interest: Interest) -> PollFlags {
    match interest {
        // the end of a connection is input for poll(2)
        Interest::Readable | Interest::Hangup => PollFlags::IN,
        Interest::Writable => PollFlags::OUT,
        Interest::Nothing => PollFlags::empty(), // but a reset
    }
}
