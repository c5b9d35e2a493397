//! OWNS the table of open connections and its epoll set: one slot each, one-shot events. An idle connection holds no thread.

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

/// Slots sampled to find a connection to evict (as Redis evicts keys: no index, no lock over all).
const SAMPLE: usize = 16;

/// A connection's index in the table. It stays reserved while a worker has the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Slot(usize);

#[derive(Debug)]
pub(super) struct Connections {
    epoll: OwnedFd,
    slots: Vec<Mutex<Option<Box<Connection>>>>,
    free: Mutex<Vec<Slot>>,
    /// Bytes of unanswered requests, of all connections together.
    reserved_bytes: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    pub(super) fn new(connections: usize) -> std::io::Result<Self> {
        Ok(Connections {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            slots: (0..connections).map(|_| Mutex::new(None)).collect(),
            free: Mutex::new((0..connections).rev().map(Slot).collect()),
            reserved_bytes: AtomicUsize::new(0),
        })
    }

    pub(super) fn reserved_bytes(&self) -> usize {
        self.reserved_bytes.load(Relaxed)
    }

    /// Reserves the bytes of a whole request until it is answered.
    pub(super) fn reserve(&self, bytes: usize) {
        self.reserved_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn release(&self, bytes: usize) {
        self.reserved_bytes.fetch_sub(bytes, Relaxed);
    }

    /// Open connections: waiting for their client or being served.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - lock(&self.free).len()
    }

    /// Connections that wait for their client. Visits every slot.
    pub(super) fn waiting(&self) -> usize {
        self.slots.iter().filter(|slot| lock(slot).is_some()).count()
    }

    /// Inserts a new connection. When all slots are taken, evicts one that waits for its client.
    ///
    /// Errors: the connection, if none could be evicted.
    pub(super) fn insert(&self, stream: TcpStream, random: u64) -> Result<(), TcpStream> {
        let free = lock(&self.free).pop();
        let Some(slot) = free.or_else(|| self.evict_one(random)) else { return Err(stream) };
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

    /// Closes the longest-waiting connection of a random sample. Returns its slot, or None if none is evictable.
    pub(super) fn evict_one(&self, random: u64) -> Option<Slot> {
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
            match place.take_if(|connection| connection.is_evictable()) {
                Some(connection) => {
                    self.reserved_bytes.fetch_sub(connection.reserved_bytes(), Relaxed);
                    METRICS.connection_evicted();
                    true
                }
                None => false,
            }
        });
        found.map(|(_, slot)| Slot(slot))
    }

    /// Frees the slot of an evicted connection.
    pub(super) fn free(&self, slot: Slot) {
        lock(&self.free).push(slot)
    }

    /// The slot of a ready connection.
    pub(super) fn next(&self, timeout: Option<Duration>) -> Option<Slot> {
        let mut events = [MaybeUninit::uninit(); 1];
        let timeout =
            timeout.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() });
        let (events, _) = epoll::wait(&self.epoll, &mut events, timeout.as_ref()).ok()?;
        events.first().map(|event| Slot(event.data.u64() as usize))
    }

    /// Whether a connection is ready.
    pub(super) fn has_next(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&now)) == Ok(1)
    }

    /// Takes a waiting connection to serve it. Returns None if another thread has it or it is closed.
    pub(super) fn take(&self, slot: Slot) -> Option<Box<Connection>> {
        let connection = lock(&self.slots[slot.0]).take()?;
        self.reserved_bytes.fetch_sub(connection.reserved_bytes(), Relaxed);
        Some(connection)
    }

    /// Puts a connection back to wait for its next event.
    pub(super) fn put(&self, slot: Slot, connection: Box<Connection>, interest: Interest) {
        let mut place = lock(&self.slots[slot.0]);
        let data = EventData::new_u64(slot.0 as u64);
        if epoll::modify(&self.epoll, connection.stream(), data, flags(interest)).is_ok() {
            self.reserved_bytes.fetch_add(connection.reserved_bytes(), Relaxed);
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

    /// Takes each waiting connection for which `wanted` holds.
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
