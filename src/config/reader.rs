//! Reads settings from arguments and environment, and collects what is wrong with them.

use super::values::duration;
use crate::cli::{Args, Key, OPTIONS, text};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Longer durations are typing errors; shorter ones fit every clock.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// Why there is no [`Config`](super::Config).
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Problems {
    /// Bad options and variables.
    pub(crate) usage: Vec<String>,
    /// What could not be done.
    pub(crate) failed: Vec<String>,
}

/// Reads settings one by one and collects the problems.
pub(super) struct Reader<'a> {
    pub(super) args: &'a Args,
    pub(super) environment: &'a dyn Fn(&str) -> Option<OsString>,
    pub(super) problems: Problems,
}

impl Reader<'_> {
    pub(super) fn variable(&self, name: &str) -> Option<OsString> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    /// A setting as text, and the option or variable that it came from.
    pub(super) fn text(&mut self, key: Key) -> Option<(String, String)> {
        let (_, long, _, variable) = OPTIONS[key as usize];
        let (value, spelled) = match self.args.get(key) {
            Some(value) if key == Key::Filter => (value.clone(), "FILTER".to_owned()),
            Some(value) => (value.clone(), format!("--{long}")),
            None => (self.variable(variable).filter(|_| !variable.is_empty())?, variable.to_owned()),
        };
        match text(&value) {
            Ok(value) => Some((value, spelled)),
            Err(error) => {
                self.problems.usage.push(format!("{spelled}: {error}"));
                None
            }
        }
    }

    pub(super) fn parsed<T>(&mut self, key: Key, default: T, parse: impl FnOnce(&str) -> Result<T, String>) -> T {
        let Some((value, spelled)) = self.text(key) else { return default };
        parse(&value).unwrap_or_else(|why| {
            self.problems.usage.push(format!("{spelled}: {value:?} {why}"));
            default
        })
    }

    pub(super) fn number(&mut self, key: Key, default: usize, min: usize, max: usize) -> usize {
        self.parsed(key, default, |value| match value.parse() {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(format!("is not a number from {min} to {max}")),
        })
    }

    pub(super) fn boolean(&mut self, key: Key, default: bool) -> bool {
        self.parsed(key, default, |value| value.parse().map_err(|_| "must be true or false".to_owned()))
    }

    pub(super) fn duration(&mut self, key: Key, default: Duration, min: Duration) -> Duration {
        self.parsed(key, default, |value| match duration(value) {
            Some(duration) if duration >= min && duration <= MAX_DURATION => Ok(duration),
            Some(_) => Err(format!("is not between {min:?} and {}h", MAX_DURATION.as_secs() / 3600)),
            None => Err("is not a duration like 30s, 500ms or 1m30s".into()),
        })
    }

    pub(super) fn path(&mut self, key: Key) -> Option<PathBuf> {
        self.text(key).map(|(path, _)| PathBuf::from(path))
    }
}
