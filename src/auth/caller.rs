//! A caller, once it has proved who it is.

use serde_json::{Value, json};

#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Caller {
    pub(super) kind: CallerKind,
    pub(crate) name: String,
    /// Its name as JSON, and as the log shows it: made once.
    pub(crate) json: String,
    pub(crate) shown: String,
    /// In Kubernetes. Empty for others.
    pub(super) groups: Vec<String>,
    /// Its reply has no body if it succeeds: the sender would show it to people.
    pub(crate) is_shown_replies: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CallerKind {
    /// Of `--auth tokens`.
    Token,
    /// Of Kubernetes.
    ServiceAccount,
    /// Of Kubernetes, and not a service account.
    User,
    Webhook,
}

impl Caller {
    pub(super) fn new(kind: CallerKind, name: &str) -> Self {
        let (json, shown) = (Value::from(name).to_string(), format!("{name:?}"));
        Caller { kind, name: name.to_owned(), json, shown, groups: Vec::new(), is_shown_replies: false }
    }

    #[cfg(test)]
    pub(crate) fn named(name: &str) -> Self {
        Caller::new(CallerKind::Token, name)
    }

    /// `$REQUEST.caller`.
    pub(crate) fn describe(&self) -> Value {
        let kind = match self.kind {
            CallerKind::Token => "token",
            CallerKind::ServiceAccount => "serviceaccount",
            CallerKind::User => "user",
            CallerKind::Webhook => "webhook",
        };
        json!({"kind": kind, "name": self.name, "groups": self.groups})
    }
}
