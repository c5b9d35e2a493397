//! Whether calls are worth making. After three in a row that could not connect none is made until a connection, with its TLS handshake,
//! can be made again, which is tried once a second.

use super::{ApiServer, Client};
use log::{info, warn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// Calls in a row that could not connect, after which no more are made.
const MAX_FAILURES: u32 = 3;

/// How often an API server that cannot be reached is looked at.
const PROBE: Duration = Duration::from_secs(1);
const PROBE_STACK: usize = 256 << 10;

#[derive(Debug, Default)]
pub(super) struct Circuit {
    failures: AtomicU32,
    is_open: AtomicBool,
}

impl Circuit {
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(SeqCst)
    }

    /// A call could not connect. Returns whether this opens the circuit.
    pub(super) fn failed(&self) -> bool {
        self.failures.fetch_add(1, SeqCst) + 1 >= MAX_FAILURES && !self.is_open.swap(true, SeqCst)
    }

    /// A call had a connection.
    pub(super) fn connected(&self) {
        if self.failures.load(SeqCst) > 0 {
            self.failures.store(0, SeqCst)
        }
    }

    pub(super) fn close(&self) {
        self.failures.store(0, SeqCst);
        self.is_open.store(false, SeqCst)
    }
}

/// Makes calls possible again when the API server accepts connections. Callers' own calls would wait in vain.
pub(super) fn wait_for(server: Arc<ApiServer>) {
    warn!("{} cannot be reached: no calls until it accepts connections", server.base);
    let waiting = server.clone();
    let wait = move || {
        // ureq's resolver panics when the system has no more threads
        let probe = || catch_unwind(AssertUnwindSafe(|| Client::new(waiting.clone()).can_connect()));
        loop {
            thread::sleep(PROBE);
            if probe().is_ok_and(|can_connect| can_connect) {
                break;
            }
        }
        waiting.circuit.close();
        info!("{} accepts connections again", waiting.base)
    };
    if let Err(error) = thread::Builder::new().name("api-probe".into()).stack_size(PROBE_STACK).spawn(wait) {
        warn!("cannot start a thread: {error}");
        server.circuit.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_open_it_once() {
        let circuit = Circuit::default();
        assert!(!circuit.failed() && !circuit.failed());
        circuit.connected();
        assert!(!circuit.failed() && !circuit.failed() && !circuit.is_open());
        assert!(circuit.failed() && circuit.is_open());
        assert!(!circuit.failed(), "it is open already");
        circuit.close();
        assert!(!circuit.is_open() && !circuit.failed());
    }
}
