//! Says what went wrong with a call, and what to do, in an operator's words.

use super::answer::Outcome;
use super::url::is_loopback;
use std::fmt;
use std::io::ErrorKind;
use ureq::{Error, Timeout};

/// For the log.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Created(_) => f.write_str("created"),
            Outcome::Found(_) => f.write_str("found"),
            Outcome::Deleted => f.write_str("deleted"),
            Outcome::Pods(_) => f.write_str("pods"),
            Outcome::Log(_) => f.write_str("a log"),
            Outcome::TooLong => f.write_str("the Job's status is long"),
            Outcome::Refused(refusal) => f.write_str(&refusal.said),
            Outcome::NotCalled => f.write_str("not called: it could not be reached before"),
            Outcome::Unreachable(why)
            | Outcome::Disconnected(why)
            | Outcome::TimedOut(why)
            | Outcome::InvalidResponse(why) => f.write_str(why),
        }
    }
}

/// The outcome of a call to the API server at `base` that failed. `could_connect`: whether there was a connection, with TLS where that is
/// needed.
pub(super) fn outcome_of(base: &str, error: Error, could_connect: bool) -> Outcome {
    match outcome_of_error(base, error) {
        Outcome::Disconnected(why) | Outcome::TimedOut(why) if !could_connect => Outcome::Unreachable(why),
        outcome => outcome,
    }
}

fn outcome_of_error(base: &str, error: Error) -> Outcome {
    match error {
        Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            Outcome::Unreachable(format!("cannot reach {base}: it does not accept connections{}", remedy(base)))
        }
        Error::Timeout(_) => Outcome::TimedOut(format!("{base} did not respond in time")),
        Error::Io(error) => Outcome::Disconnected(cannot_reach(base, &error)),
        Error::HostNotFound => Outcome::Unreachable(format!("cannot reach {base}: no such host{}", remedy(base))),
        Error::ConnectionFailed => Outcome::Unreachable(format!("cannot reach {base}{}", remedy(base))),
        Error::Protocol(_) | Error::Http(_) | Error::LargeResponseHeader(..) => {
            Outcome::InvalidResponse(format!("cannot read the response of {base}: {error}"))
        }
        Error::BodyExceedsLimit(_) => Outcome::InvalidResponse(format!("the response of {base} is too long: {error}")),
        error => Outcome::Disconnected(format!("no response from {base}: {error}")),
    }
}

/// What an I/O error means.
pub(super) fn cannot_reach(base: &str, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => format!("cannot reach {base}: connection refused{}", remedy(base)),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            format!("cannot reach {base}: it does not accept connections{}", remedy(base))
        }
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => {
            format!("{base} closed the connection: {error}")
        }
        ErrorKind::InvalidData => format!("no TLS connection to {base}: {error}; see --certificate-authority"),
        _ => format!("cannot reach {base}: {error}{}", remedy(base)),
    }
}

fn remedy(base: &str) -> &'static str {
    if base.starts_with("http://") && is_loopback(base) { "; is kubectl proxy running?" } else { "; see --server" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_address_and_the_remedy() {
        let text = |base, error| outcome_of(base, error, false).to_string();
        let refused = || Error::Io(ErrorKind::ConnectionRefused.into());
        assert_eq!(
            text("http://127.0.0.1:8001", refused()),
            "cannot reach http://127.0.0.1:8001: connection refused; is kubectl proxy running?"
        );
        assert_eq!(
            text("https://10.0.0.1", refused()),
            "cannot reach https://10.0.0.1: connection refused; see --server"
        );
        assert_eq!(
            text("https://nowhere", Error::HostNotFound),
            "cannot reach https://nowhere: no such host; see --server"
        );
        assert!(matches!(outcome_of("http://x", refused(), false), Outcome::Unreachable(_)));
        assert!(matches!(
            outcome_of("http://x", Error::Io(ErrorKind::ConnectionReset.into()), true),
            Outcome::Disconnected(_)
        ));
        assert!(matches!(outcome_of("http://x", Error::BodyExceedsLimit(5), true), Outcome::InvalidResponse(_)));
        assert!(matches!(outcome_of("http://x", Error::Timeout(Timeout::PerCall), true), Outcome::TimedOut(_)));
        assert!(matches!(outcome_of("http://x", Error::Timeout(Timeout::PerCall), false), Outcome::Unreachable(_)));
    }
}
