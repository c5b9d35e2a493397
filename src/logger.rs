//! OWNS env_logger: one line per event on standard error, as text or as JSON.
//!
//! A line that is logged while a thread works on a request begins with the request's id: see [`about`].

use crate::second::Second;
use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Record};
use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::Write;
use std::time::SystemTime;

/// At debug and trace, libraries log what they send and receive, including the token.
const LIBRARIES: LevelFilter = LevelFilter::Warn;

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Format {
    #[default]
    Text,
    /// One object per line.
    Json,
}

/// Logs our records at `level`, and at most warnings of libraries. `RUST_LOG` is not read.
pub(crate) fn start(level: LevelFilter, format: Format) {
    env_logger::Builder::new()
        .filter_level(level.min(LIBRARIES))
        .filter_module(env!("CARGO_CRATE_NAME"), level)
        .format(move |out, record| {
            let now = SystemTime::now();
            let mut line = LINE.take(); // nothing is borrowed while the record is formatted
            line.clear();
            if format == Format::Json {
                line.push_str(r#"{"time":""#)
            }
            let start = line.len();
            STAMP.with_borrow_mut(|stamp| {
                // if the second changes meanwhile, this line alone has the next one
                let text = stamp.text(now, || out.timestamp_millis().to_string());
                text.truncate(text.len().saturating_sub(".123Z".len()));
                let _ = write!(text, ".{:03}Z", millisecond(now)); // writing to memory does not fail
                line.push_str(text)
            });
            let _ = match format {
                Format::Text => write_text(&mut line, record),
                Format::Json => write_json(&mut line, start, record),
            };
            let written = out.write_all(line.as_bytes());
            line.shrink_to(USUAL);
            LINE.set(line);
            written
        })
        .init();
    // only the location: a panic's message may quote a body
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => log::error!("defect at {}:{}", place.file(), place.line()),
        None => log::error!("defect"),
    }));
}

/// Behind the time.
fn write_text(line: &mut String, record: &Record<'_>) -> fmt::Result {
    line.push_str(match record.level() {
        Level::Error => " ERROR ",
        Level::Warn => " WARN  ",
        Level::Info => " INFO  ",
        Level::Debug => " DEBUG ",
        Level::Trace => " TRACE ",
    });
    ID.with_borrow(|id| {
        if !id.is_empty() {
            line.push_str(id);
            line.push(' ')
        }
    });
    writeln!(line, "{}", record.args())
}

/// Behind the time, which begins at `start`. Time and severity as Google's collectors read them, and as Elastic's do.
fn write_json(line: &mut String, start: usize, record: &Record<'_>) -> fmt::Result {
    let (severity, level) = match record.level() {
        Level::Error => ("ERROR", "error"),
        Level::Warn => ("WARNING", "warn"),
        Level::Info => ("INFO", "info"),
        Level::Debug => ("DEBUG", "debug"),
        Level::Trace => ("DEBUG", "trace"),
    };
    let time = line[start..].to_owned();
    write!(
        line,
        r#"","@timestamp":"{time}","severity":"{severity}","log.level":"{level}","message":{}"#,
        quoted(&record.args().to_string())
    )?;
    let id = ID.with_borrow(|id| (!id.is_empty()).then(|| quoted(id)));
    if let Some(id) = id {
        write!(line, r#","request_id":{id}"#)?
    }
    record.key_values().visit(&mut Members(line)).map_err(|_| fmt::Error)?;
    line.push_str("}\n");
    Ok(())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Members of an object, each with a comma before it.
struct Members<'o>(&'o mut String);

impl<'kvs> VisitSource<'kvs> for Members<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let value = match (value.to_u64(), value.to_f64()) {
            (Some(number), _) => number.to_string(),
            (None, Some(number)) => number.to_string(),
            (None, None) => quoted(&value.to_string()),
        };
        Ok(write!(self.0, ",{}:{value}", quoted(key.as_str()))?)
    }
}

/// Bytes of the buffer for a line that are kept.
const USUAL: usize = 512;

thread_local! {
    /// As it is written.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
    /// As `2026-01-31T23:59:59.123Z`.
    static STAMP: RefCell<Second> = const { RefCell::new(Second::new()) };
    /// Of the request that the thread works on; empty if there is none.
    static ID: RefCell<String> = const { RefCell::new(String::new()) };
}

fn millisecond(now: SystemTime) -> u32 {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_millis()
}

/// While it exists, what this thread logs is about a request.
#[derive(Debug)]
pub(crate) struct About(());

/// What this thread logs from now on is about the request with this id, until the result is dropped. There is one at a time.
pub(crate) fn about(id: &str) -> About {
    ID.with_borrow_mut(|about| {
        about.clear();
        about.push_str(id)
    });
    About(())
}

impl Drop for About {
    fn drop(&mut self) {
        ID.with_borrow_mut(String::clear)
    }
}
