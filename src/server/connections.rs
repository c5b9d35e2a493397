//! OWNS the connections that wait for their client: one epoll set with one-shot events, a slot each, no thread.

use super::connection::{Connection, Interest};
use crate::metrics::METRICS;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Slots that are looked at to find who gives way (as Redis evicts keys: no index, no lock over all).
const SAMPLE: usize = 16;

/// A connection's place. Its number travels with the connection while a worker has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Slot(usize);

#[derive(Debug)]
pub(super) struct Lobby {
    epoll: OwnedFd,
    slots: Vec<Mutex<Option<Box<Connection>>>>,
    free: Mutex<Vec<Slot>>,
    /// Bytes of requests that have no answer yet, all connections together.
    held: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lobby {
    pub(super) fn new(connections: usize) -> std::io::Result<Self> {
        Ok(Lobby {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            slots: (0..connections).map(|_| Mutex::new(None)).collect(),
            free: Mutex::new((0..connections).rev().map(Slot).collect()),
            held: AtomicUsize::new(0),
        })
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Counts bytes of a request that is whole, until it is answered.
    pub(super) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Relaxed);
    }

    pub(super) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }

    /// Connections, waiting or worked on.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - lock(&self.free).len()
    }

    /// Connections that nobody works on. Looks at every slot.
    pub(super) fn waiting(&self) -> usize {
        self.slots.iter().filter(|slot| lock(slot).is_some()).count()
    }

    /// Takes a new connection in. When all slots are taken, one that waits for its client gives way.
    ///
    /// Errors: the connection, where nobody gave way.
    pub(super) fn enter(&self, stream: TcpStream, random: u64) -> Result<(), TcpStream> {
        let free = lock(&self.free).pop();
        let Some(slot) = free.or_else(|| self.give_way(random)) else { return Err(stream) };
        let connection = Box::new(Connection::new(stream, Instant::now()));
        let mut place = lock(&self.slots[slot.0]);
        let flags = flags(Interest::Readable);
        match epoll::add(&self.epoll, connection.stream(), EventData::new_u64(slot.0 as u64), flags) {
            Ok(()) => *place = Some(connection),
            Err(_) => {
                drop(place);
                lock(&self.free).push(slot)
            }
        }
        Ok(())
    }

    /// Closes the one that has waited longest of a few that wait for their client. None: none of them does.
    pub(super) fn give_way(&self, random: u64) -> Option<Slot> {
        let mut waiting = Vec::with_capacity(SAMPLE);
        let mut state = random;
        for _ in 0..SAMPLE {
            // Knuth's linear congruential generator; its upper half is random enough to pick a slot
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let slot = (state >> 33) as usize % self.slots.len();
            if let Some(connection) = lock(&self.slots[slot]).as_deref() {
                waiting.push((connection.waits_since(), slot))
            }
        }
        waiting.sort_unstable();
        let found = waiting.into_iter().find(|(_, slot)| {
            let mut place = lock(&self.slots[*slot]);
            match place.take_if(|connection| connection.may_give_way()) {
                Some(connection) => {
                    self.held.fetch_sub(connection.held(), Relaxed);
                    METRICS.connection_gave_way();
                    true
                }
                None => false,
            }
        });
        found.map(|(_, slot)| Slot(slot))
    }

    /// Gives a slot back whose connection has given way.
    pub(super) fn free(&self, slot: Slot) {
        lock(&self.free).push(slot)
    }

    /// The slot of a connection to which something has happened.
    pub(super) fn next(&self, timeout: Option<Duration>) -> Option<Slot> {
        let mut events = [MaybeUninit::uninit(); 1];
        let timeout =
            timeout.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() });
        let (events, _) = epoll::wait(&self.epoll, &mut events, timeout.as_ref()).ok()?;
        events.first().map(|event| Slot(event.data.u64() as usize))
    }

    /// Whether there is a connection to which something has happened.
    pub(super) fn has_next(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&now)) == Ok(1)
    }

    /// Takes a waiting connection out, to work on it. None: somebody else has it, or it is closed.
    pub(super) fn take(&self, slot: Slot) -> Option<Box<Connection>> {
        let connection = lock(&self.slots[slot.0]).take()?;
        self.held.fetch_sub(connection.held(), Relaxed);
        Some(connection)
    }

    /// Puts a connection back to wait.
    pub(super) fn put(&self, slot: Slot, connection: Box<Connection>, interest: Interest) {
        let mut place = lock(&self.slots[slot.0]);
        let data = EventData::new_u64(slot.0 as u64);
        if epoll::modify(&self.epoll, connection.stream(), data, flags(interest)).is_ok() {
            self.held.fetch_add(connection.held(), Relaxed);
            *place = Some(connection);
        } else {
            drop(place);
            self.close(slot, connection)
        }
    }

    pub(super) fn close(&self, slot: Slot, connection: Box<Connection>) {
        drop(connection);
        self.free(slot)
    }

    /// Takes out, one after the other, the waiting connections for which `wanted` holds.
    pub(super) fn take_each(&self, wanted: impl Fn(&Connection) -> bool, mut see: impl FnMut(Slot, Box<Connection>)) {
        for number in 0..self.slots.len() {
            let is_wanted = lock(&self.slots[number]).as_deref().is_some_and(&wanted);
            if is_wanted && let Some(connection) = self.take(Slot(number)) {
                see(Slot(number), connection)
            }
        }
    }
}

fn flags(interest: Interest) -> EventFlags {
    let flags = match interest {
        Interest::Readable => EventFlags::IN | EventFlags::RDHUP,
        Interest::Writable => EventFlags::OUT,
    };
    flags | EventFlags::ONESHOT
}
