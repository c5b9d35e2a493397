//! What the API server has said of tokens (`--auth token-review`), for a while; and how often it is asked. Pure.
//!
//! A token is known by its digest. A caller that is known to be good does not depend on what others send: while its answer is fresh nothing
//! is asked, and for a new answer a part of the rate is kept that strangers do not get.

use super::caller::Caller;
use crate::hash::Digest;
use crate::kube::User;
use std::sync::Arc;
use std::time::{Duration, Instant};

const YES: Duration = Duration::from_secs(60);
/// Short, so that a token which is granted a right soon has it.
const NO: Duration = Duration::from_secs(5);
/// How long it is remembered after that whom a token belonged to.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Requests a second that ask the API server; each asks who calls, and whether that caller may.
const RATE: u32 = 20;
/// Of those, what is kept for callers that were good before.
const KEPT: f64 = 5.0;
/// Requests that ask at the same time: they hold permits for calls, of which there are 56.
const MAX_ASKING: usize = 14;
/// Bytes of all entries.
const MAX_BYTES: usize = 1 << 20;
/// Bytes of an entry, beside its texts.
const ENTRY: usize = 256;

/// What a caller wants to do: the verb and the subresource of the virtual resource.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) verb: &'static str,
    pub(crate) subresource: &'static str,
}

/// Who has a token, as the API server says.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(super) caller: Arc<Caller>,
    /// For the question what it may do.
    pub(crate) user: Arc<User>,
}

/// What is known of a request's token.
#[derive(Debug)]
pub(crate) enum Answer {
    Yes(Arc<Caller>),
    /// The token is nobody's.
    NoToken,
    /// Its owner may not.
    NoRight(Arc<Caller>),
    /// The API server has to be asked: what it may do, if it is known whose the token is.
    Ask(Option<Known>),
}

struct Entry {
    token: Digest,
    /// None: nobody.
    known: Option<Known>,
    until: Instant,
    rights: Vec<(Wanted, bool, Instant)>,
    bytes: usize,
}

/// The bounded cache, and the rate.
pub(super) struct Reviews {
    /// In the order in which they came. There are few: strangers are forgotten after five seconds.
    entries: Vec<Entry>,
    asking: usize,
    /// Requests that may ask now.
    tokens: f64,
    filled_at: Instant,
}

impl Reviews {
    pub(super) fn new(now: Instant) -> Self {
        Reviews { entries: Vec::new(), asking: 0, tokens: RATE.into(), filled_at: now }
    }

    fn entry(&self, token: &Digest) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.token == *token)
    }

    /// `wanted`: None if it suffices to be somebody.
    pub(super) fn answer(&self, token: &Digest, wanted: Option<Wanted>, now: Instant) -> Answer {
        let Some(entry) = self.entry(token).filter(|entry| entry.until > now) else { return Answer::Ask(None) };
        let Some(known) = &entry.known else { return Answer::NoToken };
        let Some(wanted) = wanted else { return Answer::Yes(known.caller.clone()) };
        match entry.rights.iter().find(|(right, _, until)| *right == wanted && *until > now) {
            Some((_, true, _)) => Answer::Yes(known.caller.clone()),
            Some((_, false, _)) => Answer::NoRight(known.caller.clone()),
            None => Answer::Ask(Some(known.clone())),
        }
    }

    /// A request with this token asks the API server. Returns false if too many do. In either case it says later that it
    /// [has asked](Reviews::has_asked).
    pub(super) fn begin_asking(&mut self, token: &Digest, now: Instant) -> bool {
        let refill = now.saturating_duration_since(self.filled_at).as_secs_f64() * f64::from(RATE);
        (self.tokens, self.filled_at) = ((self.tokens + refill).min(RATE.into()), now);
        let was_good = self.entry(token).is_some_and(|entry| entry.rights.iter().any(|(_, may, _)| *may));
        let needed = if was_good { 1.0 } else { 1.0 + KEPT };
        let most = if was_good { MAX_ASKING } else { MAX_ASKING - MAX_ASKING / 4 };
        self.asking += 1;
        let may = self.tokens >= needed && self.asking <= most;
        if may {
            self.tokens -= 1.0
        }
        may
    }

    pub(super) fn has_asked(&mut self) {
        self.asking = self.asking.saturating_sub(1)
    }

    /// The API server has said whose a token is.
    pub(super) fn is_of(&mut self, token: Digest, known: Option<Known>, now: Instant) {
        let until = now + if known.is_some() { YES } else { NO };
        // the caller has the user's texts too, and its name twice more
        let bytes = ENTRY + known.as_ref().map_or(0, |known| 4 * known.user.text_bytes());
        let is_kept = |entry: &Entry| entry.until > now || entry.known.is_some() && entry.until + REMEMBERED > now;
        self.entries.retain(|entry| entry.token != token && is_kept(entry));
        let mut all: usize = self.entries.iter().map(|entry| entry.bytes).sum();
        // strangers first, then the oldest
        while all + bytes > MAX_BYTES && !self.entries.is_empty() {
            let stranger = self.entries.iter().position(|entry| entry.known.is_none());
            all -= self.entries.remove(stranger.unwrap_or(0)).bytes
        }
        self.entries.push(Entry { token, known, until, rights: Vec::new(), bytes })
    }

    /// The API server has said whether the owner of a token may do this.
    pub(super) fn may(&mut self, token: &Digest, wanted: Wanted, may: bool, now: Instant) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.token == *token) {
            entry.rights.retain(|(right, ..)| *right != wanted); // so there are no more than there are rights
            entry.rights.push((wanted, may, now + if may { YES } else { NO }))
        }
    }
}

impl std::fmt::Debug for Reviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviews").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::caller::CallerKind;
    use super::*;

    const GET: Wanted = Wanted { verb: "get", subresource: "" };
    const LOG: Wanted = Wanted { verb: "get", subresource: "log" };

    fn known() -> Option<Known> {
        let caller = Arc::new(Caller::new(CallerKind::User, "a"));
        Some(Known { caller, user: Arc::default() })
    }

    fn word(answer: Answer) -> &'static str {
        match answer {
            Answer::Yes(_) => "yes",
            Answer::NoToken => "no token",
            Answer::NoRight(_) => "no right",
            Answer::Ask(None) => "ask",
            Answer::Ask(Some(_)) => "ask for the right",
        }
    }

    #[test]
    fn yes_holds_for_a_minute_and_no_for_five_seconds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut reviews = Reviews::new(start);
        let (good, bad) = ([1; 32], [2; 32]);
        reviews.is_of(good, known(), start);
        reviews.is_of(bad, None, start);
        let say = |reviews: &Reviews, token: &Digest, wanted, seconds| word(reviews.answer(token, wanted, at(seconds)));
        assert_eq!(say(&reviews, &good, None, 59), "yes");
        assert_eq!(say(&reviews, &good, Some(GET), 0), "ask for the right");
        reviews.may(&good, GET, true, start);
        reviews.may(&good, LOG, false, start);
        assert_eq!(say(&reviews, &good, Some(GET), 59), "yes");
        assert_eq!(say(&reviews, &good, Some(GET), 60), "ask");
        assert_eq!(say(&reviews, &good, Some(LOG), 4), "no right");
        assert_eq!(say(&reviews, &good, Some(LOG), 5), "ask for the right");
        assert_eq!(say(&reviews, &bad, None, 4), "no token");
        assert_eq!(say(&reviews, &bad, None, 5), "ask");
        assert_eq!(say(&reviews, &[3; 32], None, 0), "ask");
        reviews.may(&[3; 32], GET, true, start); // it was forgotten meanwhile
        assert_eq!(say(&reviews, &[3; 32], Some(GET), 0), "ask");
    }

    #[test]
    fn strangers_leave_a_part_of_the_rate_to_callers_that_were_good() {
        let start = Instant::now();
        let mut reviews = Reviews::new(start);
        let good = [1; 32];
        reviews.is_of(good, known(), start);
        reviews.may(&good, GET, true, start);
        let mut ask = |reviews: &mut Reviews, token: &Digest, now| {
            let may = reviews.begin_asking(token, now);
            reviews.has_asked();
            may
        };
        let number = |seed: u8, reviews: &mut Reviews, ask: &mut dyn FnMut(&mut Reviews, &Digest, Instant) -> bool| {
            (0..100).filter(|_| ask(reviews, &[seed; 32], start)).count()
        };
        assert_eq!(number(9, &mut reviews, &mut ask), 15);
        assert_eq!(number(1, &mut reviews, &mut ask), 5, "also when its answer is old");
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| ask(&mut reviews, &[9; 32], later)).count(), 15, "a second later");
    }

    #[test]
    fn few_ask_at_the_same_time() {
        let start = Instant::now();
        let mut reviews = Reviews::new(start);
        let mut begin = || {
            let may = reviews.begin_asking(&[9; 32], start);
            if !may {
                reviews.has_asked()
            }
            may
        };
        assert_eq!((0..20).filter(|_| begin()).count(), 11);
        reviews.has_asked();
        assert_eq!((0..20).filter(|_| reviews.begin_asking(&[9; 32], start)).count(), 1);
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_strangers_first() {
        let start = Instant::now();
        let mut reviews = Reviews::new(start);
        reviews.is_of([255; 32], known(), start);
        for number in 0..10_000u32 {
            let mut token = [0; 32];
            token[..4].copy_from_slice(&number.to_be_bytes());
            reviews.is_of(token, None, start)
        }
        let bytes: usize = reviews.entries.iter().map(|entry| entry.bytes).sum();
        assert!(bytes <= MAX_BYTES && bytes + ENTRY > MAX_BYTES, "{bytes}");
        assert_eq!(word(reviews.answer(&[255; 32], None, start)), "yes", "a good caller is remembered");
    }
}
