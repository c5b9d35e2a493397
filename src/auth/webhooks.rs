//! Paths that only a signature opens (`--webhook PATH=SCHEME:FILE`).

use super::caller::{Caller, CallerKind};
use super::followed::Followed;
use super::signature::{Scheme, Secrets, Wrong};
use crate::http::Request;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Webhook {
    /// As `$PATH` is: decoded, without a slash at the end.
    pub(super) path: String,
    pub(super) scheme: Scheme,
    secrets: Followed<Secrets>,
    caller: Arc<Caller>,
}

impl Webhook {
    /// Errors: usage, then what is wrong with the file.
    pub(super) fn parse(text: &str) -> Result<Result<Self, Vec<String>>, String> {
        let (path, rest) = text.split_once('=').ok_or("is not PATH=SCHEME:FILE")?;
        let path = path.trim_end_matches('/');
        let is_odd = |segment: &str| matches!(segment, "" | "." | "..");
        let mut segments = path.split('/');
        if (segments.next(), segments.next()) != (Some(""), Some("job")) || segments.any(is_odd) {
            return Err(format!("has {path:?}, which is not a path of a POST: /job, or one below it"));
        }
        if path.contains('%') {
            return Err("has a percent sign in its path, which is to be written decoded".to_owned());
        }
        let (scheme, file) = Scheme::parse(rest)?;
        if file.is_empty() {
            return Err("has no file with secrets".to_owned());
        }
        let of_files = scheme.clone();
        let make = Box::new(move |files: &[_]| of_files.secrets(files));
        Ok(Followed::open(PathBuf::from(file), false, make).map(|secrets| {
            let caller = Caller::new(CallerKind::Webhook, path);
            let caller = Arc::new(Caller { is_shown_replies: scheme == Scheme::Slack, ..caller });
            Webhook { path: path.to_owned(), scheme, secrets, caller }
        }))
    }

    /// Whether a POST to this decoded path is to it: by whole segments.
    pub(super) fn is_for(&self, path: &str) -> bool {
        path.strip_prefix(&*self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The caller, if it knows a secret. `now`: gives seconds since 1970.
    ///
    /// Errors: why not, for the log.
    pub(super) fn verify<'a>(
        &'a self,
        request: &'a Request,
        now: &dyn Fn() -> u64,
    ) -> Result<&'a Arc<Caller>, Wrong<'a>> {
        self.scheme.verify(request, &self.secrets.current(), now).map(|()| &self.caller)
    }
}
