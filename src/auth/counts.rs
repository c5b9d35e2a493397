//! How callers have authenticated, for the metrics. A series begins when it may count something.

use crate::metrics::{Count, METRICS};
use std::sync::OnceLock;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Means {
    Tokens,
    TokenReview,
    Webhook,
    /// Without anything that a means could look at.
    Nothing,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    Ok,
    Unauthorized,
    Forbidden,
    /// The API server could not say.
    Unavailable,
}

use Outcome::{Forbidden, Ok, Unauthorized, Unavailable};

impl Means {
    pub(super) const ALL: [Means; 4] = [Means::Tokens, Means::TokenReview, Means::Webhook, Means::Nothing];

    fn word(self) -> &'static str {
        match self {
            Means::Tokens => "tokens",
            Means::TokenReview => "token-review",
            Means::Webhook => "webhook",
            Means::Nothing => "none",
        }
    }

    fn outcomes(self) -> &'static [Outcome] {
        match self {
            Means::Tokens | Means::Webhook => &[Ok, Unauthorized],
            Means::TokenReview => &[Ok, Unauthorized, Forbidden, Unavailable],
            Means::Nothing => &[Unauthorized],
        }
    }
}

#[inline(never)] // once for each
fn series(means: &'static str, outcome: &'static str) -> Count {
    METRICS.authentications(means, outcome)
}

/// One for each means and outcome.
#[derive(Debug, Default)]
pub(super) struct Counts([[OnceLock<Count>; 4]; 4]);

impl Counts {
    fn of(&self, means: Means, outcome: Outcome) -> &Count {
        let word = match outcome {
            Ok => "ok",
            Unauthorized => "unauthorized",
            Forbidden => "forbidden",
            Unavailable => "unavailable",
        };
        self.0[means as usize][outcome as usize].get_or_init(|| series(means.word(), word))
    }

    /// Begins the series of a means.
    pub(super) fn begin(&self, means: Means) {
        means.outcomes().iter().for_each(|outcome| _ = self.of(means, *outcome))
    }

    #[inline(never)] // it is called at many places
    pub(super) fn add(&self, means: Means, outcome: Outcome) {
        self.of(means, outcome).inc()
    }
}
