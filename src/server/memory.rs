//! Memory for requests and their answers, and the requests that wait for it, in order of arrival. While one of a kind waits, none of that
//! kind overtakes it.
//!
//! | kind | floor, with the default options | why |
//! |---|---|---|
//! | small | 1.5 MiB | a thousand requests of 1.5 KiB |
//! | large | 3.03 MiB | the largest request, and what a large run makes of it |
//! | answer | 5.25 MiB | the longest answer with a Job, while it is read and written |
//! | parked | 1.5 MiB | 2 KiB for each caller that may wait for a Job, and a hundred requests that wait unread |
//! | metrics | 64 KiB | a few scrapers, whatever others hold |
//!
//! All kinds share 5.5 MiB more.

use super::parse::MAX_HEAD;
use super::queue::Queue;
use super::slot::Slot;
use crate::account::{Account, ByKind, Kind, Reservation};
use crate::kube::LONG_ANSWER;
use std::sync::Arc;

/// Bytes up to which a request is small. Small ones do not wait for large ones.
pub(super) const SMALL: usize = 16 << 10;
const SMALL_FLOOR: usize = 3 << 19;
const METRICS_FLOOR: usize = 64 << 10;
/// Bytes for each caller that may wait for a Job.
const WAITER: usize = 2 << 10;
/// Bytes for requests that wait unread: others must not take all of what one needs to wait.
const UNREAD: usize = 512 << 10;
/// Bytes beside the floors.
const SHARED: usize = 11 << 19;

#[derive(Debug)]
pub(super) struct Memory {
    pub(super) account: Arc<Account>,
    /// How many bytes each waits for, by kind.
    queues: [Queue<usize>; Kind::ALL.len()],
    max_waiting: usize,
    /// Bytes that a large run may add to its request.
    pub(super) for_run: usize,
}

impl Memory {
    /// `max_body`: bytes of the largest body; `max_output`: bytes of what a large run makes of it. `connections`: their maximum number, half of
    /// which may wait.
    pub(super) fn new(max_body: usize, max_output: usize, connections: usize) -> Self {
        let large = 2 * MAX_HEAD + max_body + max_output;
        let mut floors = ByKind::default();
        for (kind, floor) in [
            (Kind::Small, SMALL_FLOOR),
            (Kind::Large, large),
            (Kind::Answer, LONG_ANSWER),
            (Kind::Parked, UNREAD + WAITER * connections.div_ceil(2)),
            (Kind::Metrics, METRICS_FLOOR),
        ] {
            floors[kind as usize] = floor
        }
        Memory {
            account: Account::new(floors, SHARED),
            queues: Default::default(),
            max_waiting: connections.div_ceil(2),
            for_run: max_output,
        }
    }

    fn queue(&self, kind: Kind) -> &Queue<usize> {
        &self.queues[kind as usize]
    }

    /// None: not available now, or others have waited longer.
    pub(super) fn try_reserve(&self, kind: Kind, bytes: usize) -> Option<Reservation> {
        if self.queue(kind).len() > 0 { None } else { self.account.try_reserve(kind, bytes) }
    }

    /// So many bytes of this kind in place of what there is. Returns false if they are not available now, or others have waited longer.
    pub(super) fn try_become(&self, memory: &mut Option<Reservation>, kind: Kind, bytes: usize) -> bool {
        match memory {
            Some(memory) if memory.kind() == kind && memory.bytes() >= bytes => {
                memory.shrink(bytes);
                true
            }
            Some(memory) => self.queue(kind).len() == 0 && memory.try_become(kind, bytes),
            None => {
                *memory = self.try_reserve(kind, bytes);
                memory.is_some()
            }
        }
    }

    /// Whether another request may wait.
    pub(super) fn may_wait(&self) -> bool {
        self.queued() < self.max_waiting
    }

    /// Requests that wait.
    pub(super) fn queued(&self) -> usize {
        self.queues.iter().map(Queue::len).sum()
    }

    /// Whether requests wait.
    pub(super) fn is_short(&self) -> bool {
        self.queues.iter().any(|queue| queue.len() > 0)
    }

    /// Requests that wait for memory of this kind.
    pub(super) fn queued_for(&self, kind: Kind) -> usize {
        self.queue(kind).len()
    }

    /// Whether requests wait for memory of this kind.
    pub(super) fn is_short_of(&self, kind: Kind) -> bool {
        self.queued_for(kind) > 0
    }

    /// Queues an exchange that needs so many bytes. The caller then calls [`Memory::next_grant`]: bytes may have been released.
    ///
    /// Returns whether no other waits for this kind.
    pub(super) fn wait_for_grant(&self, slot: Slot, kind: Kind, bytes: usize) -> bool {
        self.queue(kind).push(slot, bytes) == 1
    }

    /// An exchange that has waited longest for its kind of memory, with that, if it is available now.
    pub(super) fn next_grant(&self) -> Option<(Slot, Reservation)> {
        if !self.is_short() {
            return None;
        }
        Kind::ALL.into_iter().find_map(|kind| self.queue(kind).pop_if(|bytes| self.account.try_reserve(kind, *bytes)))
    }

    /// An exchange waits no longer.
    pub(super) fn leave(&self, slot: Slot, kind: Kind) {
        self.queue(kind).leave(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_a_kind_wait_in_order_of_arrival() {
        let memory = Memory::new(2 << 20, 1 << 20, 4);
        let most = (3 << 20) + 2 * MAX_HEAD + SHARED;
        let first = memory.try_reserve(Kind::Large, most).unwrap();
        assert!(memory.try_reserve(Kind::Large, 1).is_none() && memory.may_wait());
        let slots = [Slot::new(7), Slot::new(8)];
        assert!(
            memory.wait_for_grant(slots[0], Kind::Large, 2 << 20) && !memory.wait_for_grant(slots[1], Kind::Large, 1)
        );
        assert!(!memory.may_wait(), "half of the connections wait");
        let mut small = memory.try_reserve(Kind::Small, SMALL);
        assert!(small.is_some(), "another kind does not wait behind them");
        drop(first);
        assert!(memory.try_reserve(Kind::Large, 1).is_none(), "a new one does not overtake");
        assert!(!memory.try_become(&mut small, Kind::Large, 1));
        let (slot, reservation) = memory.next_grant().unwrap();
        assert_eq!((slot, reservation.bytes()), (slots[0], 2 << 20));
        memory.leave(slots[1].renewed(), Kind::Large);
        assert!(memory.is_short_of(Kind::Large), "that is another wait");
        memory.leave(slots[1], Kind::Large);
        assert!(memory.next_grant().is_none() && memory.try_become(&mut small, Kind::Large, 1));
    }

    #[test]
    fn each_kind_can_have_its_largest_reservation_whatever_others_hold() {
        let memory = Memory::new(25 << 20, 1 << 20, 4);
        let mut held = Vec::new();
        for kind in [Kind::Parked, Kind::Metrics] {
            for bytes in [1 << 20, 1 << 10, 1] {
                held.extend(std::iter::from_fn(|| memory.try_reserve(kind, bytes)))
            }
        }
        for (kind, bytes) in
            [(Kind::Small, SMALL), (Kind::Large, 2 * MAX_HEAD + (25 << 20) + (1 << 20)), (Kind::Answer, LONG_ANSWER)]
        {
            assert!(memory.try_reserve(kind, bytes).is_some(), "{kind:?}");
        }
    }

    /// The table in `docs/operating.md` says what the process may hold; the rest of its rows is measured.
    #[test]
    fn the_documentation_has_the_account_and_the_sum() {
        const PAGE: &str = include_str!("../../docs/operating.md");
        let memory = Memory::new(2 << 20, 1 << 20, 1024);
        let mib = |bytes: usize| format!("{:.1}", bytes as f64 / f64::from(1 << 20)).replace(".0", "");
        let floors = Kind::ALL.map(|kind| memory.account.floor(kind));
        let shared = memory.account.size() - floors.iter().sum::<usize>();
        let numbers = floors.into_iter().chain([shared]).map(mib).collect::<Vec<_>>().join(" + ");
        let row = format!("| requests and their answers: small, large, answers, parked, metrics, shared | {numbers} |");
        assert!(PAGE.contains(&row), "docs/operating.md lacks {row}");
        let sum_of = |row: &str| -> f64 {
            let numbers = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default();
            numbers.split('+').filter_map(|number| number.trim().trim_matches('*').parse::<f64>().ok()).sum()
        };
        let table = PAGE.split("| the program at rest |").nth(1).and_then(|rest| rest.split("| **both** |").next());
        let rows: Vec<_> = table.unwrap().lines().map(sum_of).collect();
        let [parts @ .., process, _sockets] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(format!("{:.1}", parts.iter().sum::<f64>()), format!("{process:.1}"));
    }
}
