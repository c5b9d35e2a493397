//! OWNS getrandom: random bits from the kernel.

use std::cell::RefCell;

/// Random bits for names and nonces, from the kernel: as many for one system call as 64 of these numbers need.
pub(crate) fn random() -> u64 {
    const NUMBERS: usize = 64;
    thread_local! {
        static KEPT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    KEPT.with_borrow_mut(|kept| {
        if kept.is_empty() {
            kept.resize(8 * NUMBERS, 0);
            getrandom::fill(kept).expect("the kernel has random bytes, as the TLS library needs too")
        }
        let number = u64::from_ne_bytes(*kept.last_chunk().expect("it holds whole numbers"));
        kept.truncate(kept.len() - 8);
        number
    })
}
