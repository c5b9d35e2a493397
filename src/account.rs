//! The memory that requests hold, one account for the whole process: reserved before it is used, released by dropping the reservation.
//!
//! A reservation has one kind at a time. For three kinds a request can wait (`server/memory.rs`); before it does, what it keeps becomes
//! [`Kind::Parked`], for which nobody waits. So no request waits while it holds what others wait for. Each kind has a floor, which the other
//! kinds leave to it; all kinds share the rest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Requests of up to 16 KiB, and heads that are not whole.
    Small,
    /// Larger requests, what large runs give, and manifests made by them.
    Large,
    /// Answers, from when they are read or built until their clients have read them.
    Answer,
    /// What requests keep while they wait for memory, a pause, or a Job.
    Parked,
    /// Metrics on their way.
    Metrics,
}

impl Kind {
    pub(crate) const ALL: [Kind; 5] = [Kind::Small, Kind::Large, Kind::Answer, Kind::Parked, Kind::Metrics];

    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Small => "small",
            Kind::Large => "large",
            Kind::Answer => "answer",
            Kind::Parked => "parked",
            Kind::Metrics => "metrics",
        }
    }
}

/// Bytes by kind.
pub(crate) type ByKind = [usize; Kind::ALL.len()];

#[derive(Debug)]
pub(crate) struct Account {
    size: usize,
    /// What the others leave to a kind. At least the largest reservation that can be waited for.
    floors: ByKind,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    bytes: ByKind,
    /// Bytes that are held, or that others leave to their kind.
    taken: usize,
}

/// Reserved bytes.
#[derive(Debug)]
pub(crate) struct Reservation {
    account: Arc<Account>,
    kind: Kind,
    bytes: usize,
}

impl Account {
    /// `shared`: bytes beside the floors.
    pub(crate) fn new(floors: ByKind, shared: usize) -> Arc<Self> {
        let taken = floors.iter().sum();
        let held = Mutex::new(Held { bytes: ByKind::default(), taken });
        Arc::new(Account { size: taken + shared, floors, held })
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(crate) fn floor(&self, kind: Kind) -> usize {
        self.floors[kind as usize]
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserved bytes, by kind.
    pub(crate) fn reserved_bytes(&self) -> ByKind {
        self.held().bytes
    }

    /// Lets a kind hold so many bytes, whether or not they are there.
    fn set(&self, held: &mut Held, kind: Kind, bytes: usize) {
        let (before, floor) = (held.bytes[kind as usize], self.floors[kind as usize]);
        held.taken = held.taken - before.max(floor) + bytes.max(floor);
        held.bytes[kind as usize] = bytes
    }

    fn give(&self, held: &mut Held, kind: Kind, bytes: usize) {
        self.set(held, kind, held.bytes[kind as usize] - bytes)
    }

    fn take(&self, held: &mut Held, kind: Kind, bytes: usize) -> bool {
        let before = held.bytes[kind as usize];
        let Some(all) = before.checked_add(bytes).filter(|all| *all <= self.size) else { return false };
        self.set(held, kind, all);
        let fits = held.taken <= self.size;
        if !fits {
            self.set(held, kind, before)
        }
        fits
    }

    /// Returns None if so many bytes of this kind are not available now.
    pub(crate) fn try_reserve(self: &Arc<Self>, kind: Kind, bytes: usize) -> Option<Reservation> {
        self.take(&mut self.held(), kind, bytes).then(|| Reservation { account: self.clone(), kind, bytes })
    }
}

impl Reservation {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Releases what exceeds `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        if surplus > 0 {
            self.bytes -= surplus;
            self.account.give(&mut self.account.held(), self.kind, surplus)
        }
    }

    /// Becomes a reservation of so many bytes of this kind. Returns false, and stays as it is, if they are not available now.
    pub(crate) fn try_become(&mut self, kind: Kind, bytes: usize) -> bool {
        let mut held = self.account.held();
        self.account.give(&mut held, self.kind, self.bytes);
        let fits = self.account.take(&mut held, kind, bytes);
        if fits {
            drop(held);
            (self.kind, self.bytes) = (kind, bytes)
        } else {
            let before = held.bytes[self.kind as usize];
            self.account.set(&mut held, self.kind, before + self.bytes)
        }
        fits
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Arc<Account> {
        Account::new([10, 20, 30, 0, 5], 35) // 100 bytes
    }

    #[test]
    fn what_is_reserved_is_released_once() {
        let account = account();
        let mut one = account.try_reserve(Kind::Small, 30).unwrap();
        assert!(account.try_reserve(Kind::Small, 16).is_none(), "the others have floors of 55");
        one.shrink(40);
        one.shrink(20);
        assert_eq!((one.bytes(), account.reserved_bytes()), (20, [20, 0, 0, 0, 0]));
        assert!(one.try_become(Kind::Parked, 5));
        assert_eq!((one.bytes(), one.kind(), account.reserved_bytes()), (5, Kind::Parked, [0, 0, 0, 5, 0]));
        assert!(!one.try_become(Kind::Large, 1000) && one.kind() == Kind::Parked);
        assert!(one.try_become(Kind::Large, 85 - 30), "its own bytes count as free");
        drop(one);
        assert_eq!(account.reserved_bytes(), [0; 5]);
    }

    #[test]
    fn a_floor_is_left_to_its_kind() {
        let account = account();
        let others = [(Kind::Parked, 35), (Kind::Small, 10), (Kind::Large, 20), (Kind::Metrics, 5)];
        let held = others.map(|(kind, bytes)| account.try_reserve(kind, bytes).unwrap());
        assert!(Kind::ALL.iter().all(|kind| *kind == Kind::Answer || account.try_reserve(*kind, 1).is_none()));
        assert!(account.try_reserve(Kind::Answer, 31).is_none());
        let answer = account.try_reserve(Kind::Answer, 30).unwrap();
        assert_eq!(account.reserved_bytes().iter().sum::<usize>(), 100);
        drop((held, answer));
        assert_eq!(account.try_reserve(Kind::Answer, 65).map(|one| one.bytes()), Some(65), "and the shared rest");
    }
}
