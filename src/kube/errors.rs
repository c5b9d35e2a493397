//! Says what went wrong with a call, and what to do, in an operator's words.

use super::failure::Failure;
use super::url::is_loopback;
use std::io::ErrorKind;
use ureq::{Error, Timeout};

/// Why a call to the API server at `base` failed. `could_connect`: whether there was a connection, with TLS where that is
/// needed.
pub(super) fn failure_of(base: &str, error: Error, could_connect: bool) -> Failure {
    match failure_of_error(base, error) {
        Failure::Disconnected(why) | Failure::TimedOut(why) if !could_connect => Failure::Unreachable(why),
        failure => failure,
    }
}

fn failure_of_error(base: &str, error: Error) -> Failure {
    match error {
        Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            Failure::Unreachable(format!("cannot reach {base}: it does not accept connections{}", remedy(base)))
        }
        Error::Timeout(_) => Failure::TimedOut(format!("{base} did not respond in time")),
        Error::Io(error) => Failure::Disconnected(cannot_reach(base, &error)),
        Error::HostNotFound => Failure::Unreachable(format!("cannot reach {base}: no such host{}", remedy(base))),
        Error::ConnectionFailed => Failure::Unreachable(format!("cannot reach {base}{}", remedy(base))),
        Error::Protocol(_) | Error::Http(_) | Error::LargeResponseHeader(..) => {
            Failure::InvalidResponse(format!("cannot read the response of {base}: {error}"))
        }
        Error::BodyExceedsLimit(_) => Failure::InvalidResponse(format!("the response of {base} is too long: {error}")),
        error => Failure::Disconnected(format!("no response from {base}: {error}")),
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
        let text = |base, error| failure_of(base, error, false).to_string();
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
        assert!(matches!(failure_of("http://x", refused(), false), Failure::Unreachable(_)));
        assert!(matches!(
            failure_of("http://x", Error::Io(ErrorKind::ConnectionReset.into()), true),
            Failure::Disconnected(_)
        ));
        assert!(matches!(failure_of("http://x", Error::BodyExceedsLimit(5), true), Failure::InvalidResponse(_)));
        assert!(matches!(failure_of("http://x", Error::Timeout(Timeout::PerCall), true), Failure::TimedOut(_)));
        assert!(matches!(failure_of("http://x", Error::Timeout(Timeout::PerCall), false), Failure::Unreachable(_)));
    }
}
