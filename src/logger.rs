//! OWNS env_logger: one line per event on standard error.

use log::{Level, LevelFilter};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write;
use std::time::SystemTime;

/// At debug and trace, libraries log what they send and receive, including the token.
const LIBRARIES: LevelFilter = LevelFilter::Warn;

/// Logs our records at `level`, and at most warnings of libraries. `RUST_LOG` is not read.
pub(crate) fn start(level: LevelFilter) {
    env_logger::Builder::new()
        .filter_level(level.min(LIBRARIES))
        .filter_module(env!("CARGO_CRATE_NAME"), level)
        .format(|out, record| {
            let level = match record.level() {
                Level::Error => "ERROR",
                Level::Warn => "WARN ",
                Level::Info => "INFO ",
                Level::Debug => "DEBUG",
                Level::Trace => "TRACE",
            };
            STAMP.with_borrow_mut(|stamp| {
                let stamp = stamp.now(&|| out.timestamp_millis().to_string()).as_bytes();
                out.write_all(stamp)
            })?;
            writeln!(out, " {level} {}", record.args())
        })
        .init();
    // only the location: a panic's message may quote a body
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => log::error!("defect at {}:{}", place.file(), place.line()),
        None => log::error!("defect"),
    }));
}

thread_local! {
    static STAMP: RefCell<Stamp> = const { RefCell::new(Stamp { second: u64::MAX, text: String::new() }) };
}

/// A timestamp in milliseconds. Its text up to the second is printed once a second.
struct Stamp {
    second: u64,
    text: String,
}

impl Stamp {
    /// `print` prints the time as `2026-01-31T23:59:59.123Z`.
    fn now(&mut self, print: &dyn Fn() -> String) -> &str {
        const END: usize = ".123Z".len();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if now.as_secs() != self.second {
            // the second may have changed meanwhile: then this one stands for its last millisecond
            *self = Stamp { second: now.as_secs(), text: print() }
        }
        let end = self.text.len().saturating_sub(END);
        self.text.truncate(end);
        let _ = write!(self.text, ".{:03}Z", now.subsec_millis()); // writing to memory does not fail
        &self.text
    }
}
