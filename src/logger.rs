//! OWNS env_logger: one line per event on standard error.

use crate::second::Second;
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
                let now = SystemTime::now();
                // if the second changes meanwhile, this line alone has the next one
                let text = stamp.text(now, || out.timestamp_millis().to_string());
                text.truncate(text.len().saturating_sub(".123Z".len()));
                let _ = write!(text, ".{:03}Z", millisecond(now)); // writing to memory does not fail
                out.write_all(text.as_bytes())
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
    /// As `2026-01-31T23:59:59.123Z`.
    static STAMP: RefCell<Second> = const { RefCell::new(Second::new()) };
}

fn millisecond(now: SystemTime) -> u32 {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_millis()
}
