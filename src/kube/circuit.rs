//! Whether calls are worth making. After three in a row that could not connect none is made until a connection, with its TLS handshake,
//! can be made again, which is tried once a second.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

/// Calls in a row that could not connect, after which no more are made.
const MAX_FAILURES: u32 = 3;

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
