//! Values of options that have a form of their own.

use crate::auth::Public;
use crate::http::is_header_name;
use crate::logger::Format;
use crate::manifest::is_label;
use log::LevelFilter;
use std::net::IpAddr;
use std::time::Duration;

/// Each is looked for in every request without an Idempotency-Key.
const MAX_IDEMPOTENCY_HEADERS: usize = 16;

/// What is switched on: by `--enable`, because each needs more rights, or shows more, than dispatching does; and the page for people.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Enabled {
    /// By `--docs`.
    pub(crate) docs: bool,
    pub(crate) delete: bool,
    pub(crate) list: bool,
    pub(crate) logs: bool,
    pub(crate) pods: bool,
}

impl Enabled {
    #[cfg(test)]
    pub(crate) const ALL: Enabled = Enabled { docs: true, delete: true, list: true, logs: true, pods: true };

    /// The words of `--enable`, with commas between them.
    pub(crate) fn words(self) -> String {
        let all = [("delete", self.delete), ("list", self.list), ("logs", self.logs), ("pods", self.pods)];
        all.iter().filter(|(_, is_on)| *is_on).map(|(word, _)| *word).collect::<Vec<_>>().join(",")
    }
}

/// Bodies other than JSON that are taken (`--accept`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Accept {
    /// `application/x-www-form-urlencoded`, as an object.
    pub(crate) form: bool,
    /// `text/plain`, with JSON in it.
    pub(crate) text: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DryRun {
    None,
    /// Answer with the manifest, call nothing.
    Client,
    /// The API server validates, nothing is stored.
    Server,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Listen {
    /// IPv6 and IPv4.
    All,
    Ip(IpAddr),
}

/// `all`, or an IP address.
pub(super) fn listen(text: &str) -> Result<Listen, String> {
    match text {
        "all" => Ok(Listen::All),
        ip => ip.trim_matches(['[', ']']).parse().map(Listen::Ip).map_err(|_| "must be an IP address or all".into()),
    }
}

/// `none`, `client` or `server`, as kubectl has it.
pub(super) fn dry_run(text: &str) -> Result<DryRun, String> {
    match text {
        "none" => Ok(DryRun::None),
        "client" => Ok(DryRun::Client),
        "server" => Ok(DryRun::Server),
        _ => Err("must be none, client or server".into()),
    }
}

pub(super) fn log_level(text: &str) -> Result<LevelFilter, String> {
    text.parse().map_err(|_| "must be error, warn, info, debug, trace or off".into())
}

/// `text` or `json`.
pub(super) fn log_format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("must be text or json".into()),
    }
}

pub(super) fn namespace(text: &str) -> Result<String, String> {
    if is_label(text) { Ok(text.to_owned()) } else { Err("is not a DNS-1123 label".into()) }
}

/// Words with commas between them.
pub(super) fn enabled(text: &str) -> Result<Enabled, String> {
    let mut enabled = Enabled::default();
    for word in text.split(',').map(str::trim) {
        match word {
            "delete" => enabled.delete = true,
            "list" => enabled.list = true,
            "logs" => enabled.logs = true,
            "pods" => enabled.pods = true,
            _ => return Err(format!("has the unknown value {word:?}: expected delete, list, logs or pods")),
        }
    }
    Ok(enabled)
}

/// Words with commas between them.
pub(super) fn public(text: &str) -> Result<Public, String> {
    let mut public = Public::default();
    for word in text.split(',').map(str::trim) {
        match word {
            "metrics" => public.metrics = true,
            "docs" => public.docs = true,
            _ => return Err(format!("has the unknown value {word:?}: expected docs or metrics")),
        }
    }
    Ok(public)
}

/// Words with commas between them.
pub(super) fn accept(text: &str) -> Result<Accept, String> {
    let mut accept = Accept::default();
    for word in text.split(',').map(str::trim) {
        match word {
            "form" => accept.form = true,
            "text" => accept.text = true,
            _ => return Err(format!("has the unknown value {word:?}: expected form or text")),
        }
    }
    Ok(accept)
}

/// The values of an option that may be repeated, and may have several values with commas between them.
pub(super) fn list(text: &str) -> Vec<&str> {
    text.split([',', '\n']).map(str::trim).filter(|value| !value.is_empty()).collect()
}

/// `30`, `30s`, `500ms`, `1m30s`, `2h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(unit_at);
        let number: u32 = number.parse().ok()?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let unit = match &after[..end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(number)?)?;
        rest = &after[end..];
    }
    (!text.is_empty()).then_some(total)
}

/// Names of headers with commas between them, in lower case; `+` joins those that are one key together.
pub(super) fn header_names(text: &str) -> Result<Vec<Vec<String>>, String> {
    let joined = |names: &str| names.split('+').map(|name| name.trim().to_ascii_lowercase()).collect::<Vec<_>>();
    let all: Vec<_> = text.split(',').map(joined).collect();
    match all.iter().flatten().find(|name| !is_header_name(name)) {
        Some(name) => Err(format!("has {name:?}, which is not a name of a header")),
        None if all.iter().flatten().count() > MAX_IDEMPOTENCY_HEADERS => {
            Err(format!("has more than {MAX_IDEMPOTENCY_HEADERS} names"))
        }
        None => Ok(all),
    }
}
