//! The table of open connections: one slot each. An idle connection holds no thread.

use super::connection::{Connection, Interest};
use super::memory::Ticket;
use super::poller::{Event, Poller};
use crate::budget::Reservation;
use crate::metrics::METRICS;
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    /// How long an idle connection is kept.
    idle: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    pub(super) fn new(connections: usize, idle: Duration) -> std::io::Result<Self> {
        Ok(Connections {
            poller: Poller::new()?,
            slots: (0..connections).map(|_| Mutex::new(None)).collect(),
            free: Mutex::new((0..connections).rev().map(Slot).collect()),
            idle,
        })
    }

    /// The maximum number of connections.
    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
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
        let connection = Box::new(Connection::new(stream, Instant::now(), self.idle));
        let mut place = lock(&self.slots[slot.0]);
        match self.poller.add(connection.stream(), slot.0, Interest::Readable) {
            Ok(()) => *place = Some(connection),
            Err(_) => {
                drop(place);
                self.free(slot)
            }
        }
        Ok(())
    }

    /// Closes the longest-waiting evictable connection of a random sample. Returns its slot, or None if there is none.
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

    /// Frees the slot of an evicted connection.
    pub(super) fn free(&self, slot: Slot) {
        lock(&self.free).push(slot)
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
