//! The table of open connections: one slot each. An idle connection holds no thread.

use super::connection::{Connection, Interest};
use super::memory::Ticket;
use super::poller::{Event, Poller};
use crate::budget::Reservation;
use crate::metrics::METRICS;
use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections above the limit, for probes and metrics alone: a kubelet must not end the pod because others hold all places.
pub(super) const RESERVED: usize = 16;
/// Slots sampled to find a connection to evict (as Redis evicts keys: no index, no lock over all).
const SAMPLE: usize = 16;

/// A connection's index in the table. It stays reserved while a worker has the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Slot(pub(super) usize);

/// What a worker does next.
#[derive(Debug)]
pub(super) enum Next {
    /// This connection is ready.
    Ready(Slot),
    /// Another thread has handed something over.
    Woken,
}

#[derive(Debug)]
pub(super) struct Connections {
    poller: Poller,
    slots: Vec<Mutex<Option<Box<Connection>>>>,
    free: Mutex<Vec<Slot>>,
    /// The last slots, which are for probes: which are free, and which are used, the oldest first.
    reserved: Mutex<Reserved>,
    /// How long an idle connection is kept.
    idle: Duration,
}

#[derive(Debug)]
struct Reserved {
    free: Vec<Slot>,
    used: VecDeque<Slot>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    pub(super) fn new(connections: usize, idle: Duration) -> std::io::Result<Self> {
        Ok(Connections {
            poller: Poller::new()?,
            slots: (0..connections + RESERVED).map(|_| Mutex::new(None)).collect(),
            free: Mutex::new((0..connections).rev().map(Slot).collect()),
            reserved: Mutex::new(Reserved {
                free: (connections..connections + RESERVED).map(Slot).collect(),
                used: VecDeque::new(),
            }),
            idle,
        })
    }

    /// The maximum number of connections, without those for probes.
    pub(super) fn capacity(&self) -> usize {
        self.slots.len() - RESERVED
    }

    /// Open connections: waiting for their client or being served.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - lock(&self.free).len() - lock(&self.reserved).free.len()
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
        self.place(slot, Connection::new(stream, Instant::now(), self.idle));
        Ok(())
    }

    /// Inserts a new connection in a place for probes; where all are taken, the oldest is taken out, and returned.
    ///
    /// Errors: the connection, if all of them are being served.
    pub(super) fn insert_reserved(&self, stream: TcpStream) -> Result<Option<Box<Connection>>, TcpStream> {
        let mut oldest = None;
        let slot = {
            let mut reserved = lock(&self.reserved);
            let slot = match reserved.free.pop() {
                Some(slot) => slot,
                None => {
                    let place = reserved.used.iter().position(|slot| {
                        oldest = lock(&self.slots[slot.0]).take();
                        oldest.is_some()
                    });
                    let Some(slot) = place.and_then(|place| reserved.used.remove(place)) else { return Err(stream) };
                    self.poller.remove(slot.0);
                    slot
                }
            };
            reserved.used.push_back(slot);
            slot
        };
        self.place(slot, Connection::reserved(stream, Instant::now(), self.idle));
        Ok(oldest)
    }

    fn place(&self, slot: Slot, connection: Connection) {
        let connection = Box::new(connection);
        let mut place = lock(&self.slots[slot.0]);
        match self.poller.add(connection.stream(), slot.0, Interest::Readable) {
            Ok(()) => *place = Some(connection),
            Err(_) => {
                drop(place);
                self.free(slot)
            }
        }
    }

    /// Closes the longest-waiting evictable connection of a random sample, or of all where the sample has none. Returns its slot, or None if
    /// there is none.
    pub(super) fn evict_one(&self, random: u64) -> Option<Slot> {
        let mut state = random;
        let sample = std::iter::repeat_with(|| {
            // Knuth's linear congruential generator; its upper half is random enough to pick a slot
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % self.capacity()
        });
        self.evict_of(sample.take(SAMPLE)).or_else(|| self.evict_of(0..self.capacity()))
    }

    fn evict_of(&self, slots: impl Iterator<Item = usize>) -> Option<Slot> {
        let mut waiting = Vec::new();
        for slot in slots {
            if let Some(connection) = lock(&self.slots[slot]).as_deref() {
                waiting.push((connection.waits_since(), slot))
            }
        }
        waiting.sort_unstable();
        let evicted = waiting.into_iter().find(|(_, slot)| {
            let evicted = lock(&self.slots[*slot]).take_if(|connection| connection.is_evictable());
            if evicted.is_some() {
                self.poller.remove(*slot);
                METRICS.connection_evicted();
            }
            evicted.is_some()
        });
        evicted.map(|(_, slot)| Slot(slot))
    }

    /// Takes the connection that has waited longest for the end of a Job.
    pub(super) fn take_oldest_waiter(&self) -> Option<(Slot, Box<Connection>)> {
        let since = |slot: usize| Some((lock(&self.slots[slot]).as_deref()?.parked()?.since, slot));
        let (_, slot) = (0..self.capacity()).filter_map(since).min()?;
        let connection = self.take_if(Slot(slot), |connection| connection.parked().is_some())?;
        Some((Slot(slot), connection))
    }

    /// Frees the slot of a closed connection.
    pub(super) fn free(&self, slot: Slot) {
        if slot.0 < self.capacity() {
            return lock(&self.free).push(slot);
        }
        let mut reserved = lock(&self.reserved);
        reserved.used.retain(|used| *used != slot);
        reserved.free.push(slot)
    }

    /// Waits for a connection to become ready. Returns None when `timeout` is over, or a signal came.
    pub(super) fn next(&self, timeout: Option<Duration>) -> Option<Next> {
        self.poller.wait(timeout).map(|event| match event {
            Event::Ready(slot) => Next::Ready(Slot(slot)),
            Event::Woken => Next::Woken,
        })
    }

    /// Makes one call of [`Connections::next`] return [`Next::Woken`].
    pub(super) fn wake_worker(&self) {
        self.poller.wake()
    }

    /// Whether a connection is ready.
    pub(super) fn has_next(&self) -> bool {
        self.poller.has_ready()
    }

    /// Takes a ready connection to serve it, unless it `stays`, waiting for this. Returns None also if another thread has it or it is closed.
    pub(super) fn take_unless(
        &self,
        slot: Slot,
        stays: impl FnOnce(&Connection) -> Option<Interest>,
    ) -> Option<Box<Connection>> {
        let mut place = lock(&self.slots[slot.0]);
        if let Some(connection) = place.as_deref()
            && let Some(interest) = stays(connection)
            && self.poller.modify(connection.stream(), slot.0, interest).is_ok()
        {
            return None;
        }
        place.take()
    }

    /// Takes a waiting connection, if it `is_wanted`.
    pub(super) fn take_if(&self, slot: Slot, is_wanted: impl FnOnce(&Connection) -> bool) -> Option<Box<Connection>> {
        lock(&self.slots[slot.0]).take_if(|connection| is_wanted(connection))
    }

    /// Puts a connection back to wait for its next event.
    pub(super) fn put(&self, slot: Slot, connection: Box<Connection>, interest: Interest) {
        let mut place = lock(&self.slots[slot.0]);
        if self.poller.modify(connection.stream(), slot.0, interest).is_ok() {
            *place = Some(connection);
        } else {
            drop(place);
            self.close(slot, connection)
        }
    }

    /// Gives memory to a connection that waits for it, and makes it ready. Drops the memory if the connection waits no longer.
    pub(super) fn grant(&self, slot: Slot, ticket: Ticket, memory: Reservation) {
        let mut place = lock(&self.slots[slot.0]);
        if let Some(connection) = place.as_deref_mut().filter(|connection| connection.ticket() == Some(ticket)) {
            connection.grant(memory);
            // Writable at once: nothing is being sent to it. If this fails, its deadline closes it.
            let _ = self.poller.modify(connection.stream(), slot.0, Interest::Writable);
        }
    }

    pub(super) fn close(&self, slot: Slot, connection: Box<Connection>) {
        self.poller.remove(slot.0);
        drop(connection);
        self.free(slot)
    }

    /// Takes each waiting connection for which `wanted` holds.
    pub(super) fn take_each(&self, wanted: impl Fn(&Connection) -> bool, mut see: impl FnMut(Slot, Box<Connection>)) {
        for number in 0..self.slots.len() {
            if let Some(connection) = self.take_if(Slot(number), &wanted) {
                see(Slot(number), connection)
            }
        }
    }
}
