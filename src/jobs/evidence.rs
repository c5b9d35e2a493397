//! Whether what is known of Jobs is how they are: the one rule for all answers that are not made by a call.
//!
//! The cache answers only while the watch is current: it is up, something was received within [`CURRENT`], and nothing has shown that the API
//! server has another history than the cache. That a watch was accepted proves nothing, and bookmarks come once a minute; so while somebody is
//! interested, the watch is confirmed after [`SILENCE`] (`jobs/follow.rs`).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How long ago the watch may have been heard while it is current; also how old a list may be where there is no watch.
pub(super) const CURRENT: Duration = Duration::from_secs(10);
/// The silence after which a watch is confirmed while somebody is interested, and after which a list that has just begun has failed.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// Bookmarks come once a minute, so a watch that is silent for longer is dead.
const DEAD: Duration = Duration::from_secs(90);
/// How long a reader stays interested.
const INTEREST: Duration = Duration::from_secs(10);
const INTEREST_NOTED: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Evidence {
    start: Instant,
    /// When the watch was last heard, and when all Jobs were last listed for want of a watch.
    heard: Moment,
    listed: Moment,
    /// When somebody has last asked for a Job.
    wanted: Moment,
    /// When somebody has last asked for a page of Jobs.
    list_wanted: Moment,
    /// Callers that wait for the end of a Job.
    pub(super) waiters: AtomicUsize,
    /// The watch is up, and the cache has all its events.
    is_live: AtomicBool,
    /// The cache does not belong to the API server's history, or is incomplete for another reason: all is to be listed again.
    is_doubted: AtomicBool,
    /// The last wait for the API server ended because it was silent for too long.
    was_silent: AtomicBool,
}

/// A moment in milliseconds since the start, from 1 on; 0 is never.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Evidence {
    pub(super) fn new() -> Self {
        Evidence {
            start: Instant::now(),
            heard: Moment::default(),
            listed: Moment::default(),
            wanted: Moment::default(),
            list_wanted: Moment::default(),
            waiters: AtomicUsize::new(0),
            is_live: AtomicBool::new(false),
            is_doubted: AtomicBool::new(false),
            was_silent: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64 + 1
    }

    fn note(&self, moment: &Moment) {
        moment.0.store(self.now(), SeqCst)
    }

    /// None: never.
    fn since(&self, moment: &Moment) -> Option<Duration> {
        match moment.0.load(SeqCst) {
            0 => None,
            then => Some(Duration::from_millis(self.now().saturating_sub(then))),
        }
    }

    fn is_within(&self, moment: &Moment, time: Duration) -> bool {
        self.since(moment).is_some_and(|since| since < time)
    }

    /// The watch was heard.
    pub(super) fn hear(&self) {
        self.note(&self.heard)
    }

    /// How long the watch was not heard. None: it was never heard.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.since(&self.heard)
    }

    /// Somebody asks for a Job.
    pub(super) fn want(&self) {
        // not for each request, so that cores do not contend
        if !self.is_within(&self.wanted, INTEREST_NOTED) {
            self.note(&self.wanted)
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.waiters.load(SeqCst) > 0 || self.is_within(&self.wanted, INTEREST)
    }

    /// Whether the cache may answer.
    pub(super) fn is_current(&self) -> bool {
        self.is_live.load(SeqCst) && self.is_within(&self.heard, CURRENT)
    }

    pub(super) fn is_live(&self) -> bool {
        self.is_live.load(SeqCst)
    }

    /// The cache has all Jobs, and the watch is up. The caller holds the lock of the cache.
    pub(super) fn go_live(&self) {
        if !self.is_doubted() {
            self.hear();
            self.listed.0.store(0, SeqCst);
            self.is_live.store(true, SeqCst)
        }
    }

    /// The watch has ended.
    pub(super) fn end_live(&self) {
        self.is_live.store(false, SeqCst)
    }

    /// All Jobs were listed, and there is no watch.
    pub(super) fn list(&self) {
        self.note(&self.listed)
    }

    /// Whether all Jobs were listed lately, and no watch has begun since.
    pub(super) fn is_listed(&self) -> bool {
        self.is_within(&self.listed, CURRENT)
    }

    /// Whether somebody has asked for a page of Jobs lately, for which all are to be listed.
    pub(super) fn is_list_wanted(&self) -> bool {
        self.is_within(&self.list_wanted, INTEREST) && !self.is_listed()
    }

    /// Somebody asks for a page of Jobs.
    pub(super) fn want_list(&self) {
        self.want();
        self.note(&self.list_wanted)
    }

    /// The cache is not what the API server has.
    pub(super) fn doubt(&self) {
        self.is_doubted.store(true, SeqCst);
        self.is_live.store(false, SeqCst);
        self.listed.0.store(0, SeqCst)
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.is_doubted.load(SeqCst)
    }

    /// All is about to be listed again; a doubt from now on ends that.
    pub(super) fn end_doubt(&self) {
        self.is_doubted.store(false, SeqCst)
    }

    /// Whether to wait on for an API server that is silent for so long.
    pub(super) fn may_wait(&self, silent: Duration) -> bool {
        let is_idle = || self.is_live() && silent < DEAD && !self.is_wanted();
        let is_silent = silent >= SILENCE && !is_idle();
        if is_silent {
            self.was_silent.store(true, SeqCst)
        }
        !is_silent && !self.is_doubted()
    }

    /// Whether the last wait for the API server ended by its silence, and not by a broken connection.
    pub(super) fn take_silence(&self) -> bool {
        self.was_silent.swap(false, SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_current_while_it_goes_on_was_heard_and_is_not_doubted() {
        let evidence = Evidence::new();
        evidence.hear();
        assert!(!evidence.is_current(), "it has not begun");
        evidence.go_live();
        assert!(evidence.is_current());
        evidence.heard.0.store(1, SeqCst);
        let evidence = Evidence { start: Instant::now().checked_sub(CURRENT).unwrap(), ..evidence };
        assert!(evidence.is_live() && !evidence.is_current(), "it is silent");
        evidence.hear();
        assert!(evidence.is_current());
        evidence.doubt();
        evidence.go_live();
        assert!(!evidence.is_current() && !evidence.may_wait(Duration::ZERO), "another history");
        evidence.end_doubt();
        evidence.go_live();
        assert!(evidence.is_current());
        evidence.end_live();
        assert!(!evidence.is_current());
    }

    #[test]
    fn silence_is_borne_longer_while_nobody_asks() {
        let evidence = Evidence::new();
        assert!(evidence.may_wait(SILENCE / 2) && !evidence.may_wait(SILENCE), "the beginning of a list");
        evidence.go_live();
        assert!(evidence.may_wait(DEAD / 2) && !evidence.may_wait(DEAD));
        evidence.waiters.store(1, SeqCst);
        assert!(evidence.may_wait(SILENCE / 2) && !evidence.may_wait(SILENCE), "somebody waits");
        evidence.waiters.store(0, SeqCst);
        let evidence = Evidence { start: Instant::now().checked_sub(2 * INTEREST).unwrap(), ..evidence };
        evidence.want();
        assert!(!evidence.may_wait(SILENCE), "somebody has asked");
        assert!(evidence.is_wanted() && !evidence.is_listed());
        evidence.list();
        assert!(evidence.is_listed());
    }
}
