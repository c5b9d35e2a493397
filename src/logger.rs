//! OWNS env_logger: one line per event on standard error.

use log::LevelFilter;
use std::io::Write;

/// Libraries say what they send and receive at debug and trace, the token too.
const LIBRARIES: LevelFilter = LevelFilter::Warn;

/// Ours at `level`, the libraries' warnings at most. `RUST_LOG` is not read.
pub(crate) fn start(level: LevelFilter) {
    env_logger::Builder::new()
        .filter_level(level.min(LIBRARIES))
        .filter_module(env!("CARGO_CRATE_NAME"), level)
        .format(|out, record| writeln!(out, "{} {:<5} {}", out.timestamp_millis(), record.level(), record.args()))
        .init();
    // where, not what: a panic's text may quote anything
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => log::error!("defect at {}:{}", place.file(), place.line()),
        None => log::error!("defect"),
    }));
}
