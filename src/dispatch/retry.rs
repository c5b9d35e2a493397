//! When a call is made again: after a random pause, and only while retries are a small part of all calls.

use crate::account::{Account, Kind, Reservation};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// The longest first pause, and how the following ones grow: full jitter, so that callers do not come back together
/// (Marc Brooker, "Exponential Backoff And Jitter").
const FIRST: Duration = Duration::from_millis(50);
const GROWTH: u32 = 4;
const LONGEST: Duration = Duration::from_secs(2);

/// The pause before a retry, the first of which has number 1. `retry_after`: seconds that the API server asks for. `random`: any number.
pub(super) fn pause(number: u8, retry_after: Option<u32>, random: u64) -> Duration {
    let most = FIRST.saturating_mul(GROWTH.saturating_pow(u32::from(number.saturating_sub(1)))).min(LONGEST);
    let jitter = most.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64);
    Duration::from_secs(retry_after.unwrap_or(0).into()) + jitter
}

/// A bucket of tokens for all dispatches, as gRPC and AWS throttle retries: each dispatch adds a fifth of a token, each retry takes one, and
/// so does the look for a Job that may have been created. So an API server in trouble gets at most a fifth more calls.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    /// In fifths of tokens.
    fifths: AtomicU32,
}

/// Retries without a dispatch before: enough for a moment's trouble of an idle dispatcher.
const MAX_TOKENS: u32 = 20;
/// Bytes that a dispatch without a manifest holds beside its request.
const LEAST: usize = 512;

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { fifths: AtomicU32::new(5 * MAX_TOKENS) }
    }
}

impl RetryBudget {
    pub(super) fn deposit(&self) {
        let more = |fifths| (fifths < 5 * MAX_TOKENS).then_some(fifths + 1);
        let _ = self.fifths.fetch_update(Relaxed, Relaxed, more); // an error: it is full
    }

    /// Takes a token. Returns whether there was one.
    pub(super) fn withdraw(&self) -> bool {
        self.fifths.fetch_update(Relaxed, Relaxed, |fifths| fifths.checked_sub(5)).is_ok()
    }

    /// Takes a token, and reserves memory for a dispatch that holds so many bytes while it pauses. Returns None if there is none of either.
    pub(super) fn withdraw_pause(&self, account: &Arc<Account>, bytes: usize) -> Option<Reservation> {
        let memory = account.try_reserve(Kind::Parked, bytes + LEAST)?;
        self.withdraw().then_some(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::ByKind;

    fn account(bytes: usize) -> Arc<Account> {
        Account::new(ByKind::default(), bytes)
    }

    #[test]
    fn pauses_are_random_and_grow_up_to_two_seconds() {
        let most = |number| pause(number, None, u64::MAX).as_secs_f64();
        for (number, seconds) in [(1, 0.05), (2, 0.2), (3, 0.8), (4, 2.0), (200, 2.0)] {
            assert!((most(number) - seconds).abs() < 1e-6, "{number}: {}", most(number));
            assert_eq!(pause(number, None, 0), Duration::ZERO);
        }
        assert_eq!(pause(1, Some(3), 0), Duration::from_secs(3));
        assert!(pause(1, Some(3), u64::MAX) > Duration::from_millis(3049));
    }

    #[test]
    fn retries_add_at_most_a_fifth() {
        let (budget, account) = (RetryBudget::default(), account(1 << 20));
        for _ in 0..MAX_TOKENS {
            assert!(budget.withdraw());
        }
        assert!(!budget.withdraw() && budget.withdraw_pause(&account, 0).is_none());
        let mut retries = 0;
        for _ in 0..1000 {
            budget.deposit();
            retries += u32::from(budget.withdraw());
        }
        assert_eq!(retries, 200);
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!((0..1000).filter(|_| budget.withdraw_pause(&account, 0).is_some()).count(), MAX_TOKENS as usize);
    }

    #[test]
    fn what_waits_has_a_bound() {
        let (budget, account) = (RetryBudget::default(), account(4000));
        let waiting: Vec<_> = (0..MAX_TOKENS).map_while(|_| budget.withdraw_pause(&account, 500)).collect();
        assert_eq!(waiting.len(), 3);
        drop(waiting);
        assert!(budget.withdraw_pause(&account, 500).is_some());
    }
}
