//! The table of open connections: a place for each, which owns its exchange whenever no thread does.

use super::connection::{Accepted, Connection, Interest};
use super::deadlines::Deadlines;
use super::exchange::{Exchange, Then, Waits};
use super::poller::{PollEvent, Poller};
use super::shutdown::{Shutdown, latest};
use super::slot::Slot;
use crate::metrics::METRICS;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Connections above the limit, for probes and metrics alone: a kubelet must not end the pod because others hold all places.
pub(super) const RESERVED: usize = 16;
/// Slots sampled to find a connection to evict (as Redis evicts keys: no index, no lock over all).
const SAMPLE: usize = 16;

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
    pub(super) deadlines: Deadlines,
    pub(super) shutdown: Shutdown,
    /// Sleeps until the last connection is closed.
    closer: OnceLock<Thread>,
    poller: Poller,
    places: Vec<Mutex<Place>>,
    free: Mutex<Vec<u32>>,
    /// The last slots, which are for probes: which are free, and which are used, the oldest first.
    reserved: Mutex<Reserved>,
    /// How long an idle connection is kept.
    idle: Duration,
}

#[derive(Debug)]
struct Place {
    /// Of the current wait, or of the last one.
    slot: Slot,
    /// None: it is free, or a thread has it.
    parked: Option<Box<Exchange>>,
    /// The time of its entry among the deadlines, which is not later than that of the exchange.
    entry: Option<Instant>,
}

impl Place {
    /// None if this wait is over.
    fn parked(&mut self, slot: Slot) -> Option<&mut Box<Exchange>> {
        if self.slot == slot { self.parked.as_mut() } else { None }
    }
}

#[derive(Debug)]
struct Reserved {
    free: Vec<u32>,
    used: VecDeque<u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    pub(super) fn new(connections: usize, idle: Duration) -> std::io::Result<Self> {
        let all = (connections + RESERVED) as u32;
        let ordinary = connections as u32;
        Ok(Connections {
            deadlines: Deadlines::default(),
            shutdown: Shutdown::default(),
            closer: OnceLock::new(),
            poller: Poller::new()?,
            places: (0..all)
                .map(|index| Mutex::new(Place { slot: Slot::new(index), parked: None, entry: None }))
                .collect(),
            free: Mutex::new((0..ordinary).rev().collect()),
            reserved: Mutex::new(Reserved { free: (ordinary..all).collect(), used: VecDeque::new() }),
            idle,
        })
    }

    fn place(&self, index: u32) -> MutexGuard<'_, Place> {
        lock(&self.places[index as usize])
    }

    /// The maximum number of connections, without those for probes.
    pub(super) fn capacity(&self) -> usize {
        self.places.len() - RESERVED
    }

    /// Open connections: waiting for their client or being served.
    pub(super) fn len(&self) -> usize {
        self.places.len() - lock(&self.free).len() - lock(&self.reserved).free.len()
    }

    /// Connections that wait for their client, or with it; and those whose requests wait for their turn. Visits every place.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let waits = |place: &Mutex<Place>| lock(place).parked.as_ref().map(|exchange| exchange.waits);
        let all = self.places.iter().filter_map(waits);
        all.fold((0, 0), |(at_rest, queued), waits| {
            (at_rest + usize::from(waits.is_at_rest()), queued + usize::from(waits.is_queued()))
        })
    }

    /// How many wait for this.
    #[cfg(test)]
    pub(super) fn count(&self, waits: Waits) -> usize {
        let is_it = |place: &&Mutex<Place>| lock(place).parked.as_ref().is_some_and(|one| one.waits == waits);
        self.places.iter().filter(is_it).count()
    }

    fn put(&self, place: &mut Place, exchange: Box<Exchange>) {
        place.slot = exchange.slot;
        place.parked = Some(exchange);
        self.enter(place)
    }

    /// Enters the deadline of a place, unless it has an earlier entry. A shutdown brings it forward.
    fn enter(&self, place: &mut Place) {
        if let Some(exchange) = &mut place.parked
            && let Some(latest) = latest(exchange.waits, exchange.received(), self.shutdown.stopping())
        {
            exchange.deadline = exchange.deadline.min(latest)
        }
        if let Some(exchange) = &place.parked
            && place.entry.is_none_or(|entry| exchange.deadline < entry)
        {
            self.deadlines.enter(place.slot.index, exchange.deadline, place.entry);
            place.entry = Some(exchange.deadline)
        }
    }

    /// Brings all deadlines forward: the shutdown is further.
    pub(super) fn shorten(&self) {
        (0..self.places.len() as u32).for_each(|index| self.enter(&mut self.place(index)))
    }

    /// Sleeps until the last connection is closed, or until then. Returns how many are open.
    pub(super) fn wait_until_closed(&self, end: Instant) -> usize {
        let _ = self.closer.set(thread::current()); // there is one
        loop {
            let (open, left) = (self.len(), end.saturating_duration_since(Instant::now()));
            if open == 0 || left.is_zero() {
                return open;
            }
            thread::park_timeout(left)
        }
    }

    /// The entry of this place was due: takes its exchange, if that is.
    pub(super) fn take_overdue(&self, index: u32) -> Option<Box<Exchange>> {
        let now = Instant::now();
        let mut place = self.place(index);
        place.entry = None;
        let taken = place.parked.take_if(|exchange| exchange.deadline <= now);
        self.enter(&mut place);
        taken
    }

    /// Inserts a new connection. When all slots are taken, evicts one that waits for its client.
    ///
    /// Errors: the connection, if none could be evicted.
    pub(super) fn insert(&self, accepted: Accepted, random: u64) -> Result<(), Accepted> {
        let free = lock(&self.free).pop();
        let Some(index) = free.or_else(|| self.evict_one(random)) else { return Err(accepted) };
        self.add(index, Connection::new(accepted, Instant::now(), self.idle));
        Ok(())
    }

    /// Inserts a new connection in a place for probes; where all are taken, the oldest is taken out, and returned.
    ///
    /// Errors: the connection, if all of them are being served.
    pub(super) fn insert_reserved(&self, accepted: Accepted) -> Result<Option<Box<Exchange>>, Accepted> {
        let mut oldest = None;
        let index = {
            let mut reserved = lock(&self.reserved);
            let index = match reserved.free.pop() {
                Some(index) => index,
                None => {
                    let order = reserved.used.iter().position(|index| {
                        oldest = self.place(*index).parked.take_if(|one| one.waits.is_at_rest());
                        oldest.is_some()
                    });
                    let Some(index) = order.and_then(|order| reserved.used.remove(order)) else { return Err(accepted) };
                    self.poller.remove(index);
                    index
                }
            };
            reserved.used.push_back(index);
            index
        };
        self.add(index, Connection::reserved(accepted, Instant::now(), self.idle));
        Ok(oldest)
    }

    fn add(&self, index: u32, connection: Connection) {
        let mut place = self.place(index);
        let slot = place.slot.renewed();
        match self.poller.add(connection.stream(), slot, Interest::Readable) {
            Ok(()) => self.put(&mut place, Exchange::new(slot, connection)),
            Err(_) => {
                drop(place);
                self.free(index)
            }
        }
    }

    /// Closes the longest-waiting evictable connection of a random sample, or of all where the sample has none. Returns its place, or None if
    /// there is none.
    pub(super) fn evict_one(&self, random: u64) -> Option<u32> {
        let mut state = random;
        let sample = std::iter::repeat_with(|| {
            // Knuth's linear congruential generator; its upper half is random enough to pick a place
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) as usize % self.capacity()) as u32
        });
        self.evict_of(&mut sample.take(SAMPLE)).or_else(|| self.evict_of(&mut (0..self.capacity() as u32)))
    }

    fn evict_of(&self, places: &mut dyn Iterator<Item = u32>) -> Option<u32> {
        let mut waiting = self.longest_first(places, |_| true).into_iter();
        waiting.find_map(|Slot { index, .. }| {
            let evicted = self.place(index).parked.take_if(|exchange| exchange.on_eviction() == Then::Close)?;
            self.poller.remove(index); // before it is closed
            drop(evicted);
            METRICS.connection_evicted();
            Some(index)
        })
    }

    /// The slots of those whose clients have read nothing for a while, the longest first.
    pub(super) fn stalled(&self, now: Instant) -> Vec<Slot> {
        self.longest_first(&mut (0..self.places.len() as u32), |connection| connection.is_stalled(now))
    }

    /// The slots of those parked there for whom `is_meant` holds, the longest wait for their client first.
    fn longest_first(
        &self,
        places: &mut dyn Iterator<Item = u32>,
        is_meant: impl Fn(&Connection) -> bool,
    ) -> Vec<Slot> {
        let since = |index| {
            let place = self.place(index);
            let exchange = place.parked.as_ref().filter(|exchange| is_meant(&exchange.connection))?;
            Some((exchange.connection.waits_since(), place.slot))
        };
        let mut waiting: Vec<_> = places.filter_map(since).collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Takes the exchange that has waited longest for the end of a Job.
    pub(super) fn take_oldest_waiter(&self) -> Option<Box<Exchange>> {
        let since = |index: u32| {
            let place = self.place(index);
            let waiter = place.parked.as_ref().filter(|exchange| exchange.on_eviction() == Then::Run)?;
            Some((waiter.look()?.since, place.slot))
        };
        loop {
            let (_, slot) = (0..self.capacity() as u32).filter_map(since).min()?;
            let taken = self.take(slot);
            if taken.is_some() {
                return taken; // its wait is not over meanwhile
            }
        }
    }

    /// Frees the place of a closed connection.
    pub(super) fn free(&self, index: u32) {
        if (index as usize) < self.capacity() {
            lock(&self.free).push(index)
        } else {
            let mut reserved = lock(&self.reserved);
            reserved.used.retain(|used| *used != index);
            reserved.free.push(index)
        }
        if let Some(closer) = self.closer.get() {
            closer.unpark()
        }
    }

    /// Waits for a connection to become ready. Returns None when `timeout` is over, or a signal came.
    pub(super) fn next_ready(&self, timeout: Option<Duration>) -> Option<Next> {
        self.poller.wait(timeout).map(|event| match event {
            PollEvent::Ready(slot) => Next::Ready(slot),
            PollEvent::Woken => Next::Woken,
        })
    }

    /// Makes one call of [`Connections::next_ready`] return [`Next::Woken`].
    pub(super) fn wake_worker(&self) {
        self.poller.wake()
    }

    /// Whether a connection is ready.
    pub(super) fn has_next(&self) -> bool {
        self.poller.has_ready()
    }

    /// Takes an exchange whose connection is ready, unless it `stays`, waiting for this. Returns None also if the wait is over.
    pub(super) fn take_unless(
        &self,
        slot: Slot,
        stays: impl FnOnce(&Exchange) -> Option<Interest>,
    ) -> Option<Box<Exchange>> {
        let mut place = self.place(slot.index);
        let exchange = place.parked(slot)?;
        if let Some(interest) = stays(exchange)
            && self.poller.modify(exchange.connection.stream(), slot, interest).is_ok()
        {
            return None;
        }
        place.parked.take()
    }

    /// Takes a parked exchange. Returns None if the wait is over.
    pub(super) fn take(&self, slot: Slot) -> Option<Box<Exchange>> {
        self.take_unless(slot, |_| None)
    }

    /// Lets an exchange wait. `queue` puts its slot where what it waits for finds it; nothing takes the exchange before that is done.
    ///
    /// Returns the exchange if `queue` returns false: it need not wait.
    pub(super) fn park(
        &self,
        mut exchange: Box<Exchange>,
        waits: Waits,
        deadline: Instant,
        queue: impl FnOnce(Slot) -> bool,
    ) -> Option<Box<Exchange>> {
        let mut place = self.place(exchange.slot.index);
        let slot = place.slot.renewed();
        if let Some(interest) = exchange.interest(waits)
            && self.poller.modify(exchange.connection.stream(), slot, interest).is_err()
        {
            drop(place);
            self.close(exchange);
            return None;
        }
        if !queue(slot) {
            return Some(exchange);
        }
        (exchange.slot, exchange.waits, exchange.deadline) = (slot, waits, deadline);
        self.put(&mut place, exchange);
        None
    }

    pub(super) fn close(&self, exchange: Box<Exchange>) {
        let index = exchange.slot.index;
        self.poller.remove(index);
        drop(exchange);
        self.free(index)
    }

    /// Takes each parked exchange for which `wanted` holds.
    pub(super) fn take_each(&self, wanted: impl Fn(&Exchange) -> bool, mut see: impl FnMut(Box<Exchange>)) {
        for place in &self.places {
            let taken = lock(place).parked.take_if(|exchange| wanted(exchange));
            if let Some(exchange) = taken {
                see(exchange)
            }
        }
    }
}
