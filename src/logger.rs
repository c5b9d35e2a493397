//! OWNS env_logger: one line per event on standard error.

use log::LevelFilter;
use std::io::Write;

/// At debug and trace, libraries log what they send and receive, including the token.
const LIBRARIES: LevelFilter = LevelFilter::Warn;

/// Logs our records at `level`, and at most warnings of libraries. `RUST_LOG` is not read.
pub(crate) fn start(level: LevelFilter) {
    env_logger::Builder::new()
        .filter_level(level.min(LIBRARIES))
        .filter_module(env!("CARGO_CRATE_NAME"), level)
        .format(|out, record| writeln!(out, "{} {:<5} {}", out.timestamp_millis(), record.level(), record.args()))
        .init();
    // only the location: a panic's message may quote a body
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => log::error!("defect at {}:{}", place.file(), place.line()),
        None => log::error!("defect"),
    }));
}
