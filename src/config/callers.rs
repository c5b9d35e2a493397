//! Who may call, and by which names.

use super::reader::Reader;
use super::values::{self, DryRun, Enabled, Listen};
use crate::auth::{Auth, Public};
use crate::cli::Key;
use crate::hosts::Hosts;

/// Names by which the dispatcher may be called.
pub(super) fn hosts(reader: &mut Reader<'_>, listen: Listen) -> Hosts {
    let is_loopback = matches!(listen, Listen::Ip(address) if address.is_loopback());
    reader.parsed(Key::AllowedHost, Hosts::default_for(is_loopback), |names| match &values::list(names)[..] {
        [] => Err("has no name".to_owned()),
        names => Hosts::new(names, is_loopback),
    })
}

/// None if there was a problem.
pub(super) fn auth(
    reader: &mut Reader<'_>,
    dry_run: DryRun,
    enabled: Enabled,
    warnings: &mut Vec<String>,
) -> Option<Auth> {
    // an option that is given without a value would leave open what it should close
    let mut given = |key| {
        reader.parsed(key, String::new(), |text| match values::list(text).is_empty() {
            true => Err("has no value".to_owned()),
            false => Ok(text.to_owned()),
        })
    };
    let [means, audiences, webhooks] = [Key::Auth, Key::AuthAudience, Key::Webhook].map(&mut given);
    let public = reader.parsed(Key::Public, Public::default(), values::public);
    let audiences: Vec<_> = values::list(&audiences).into_iter().map(str::to_owned).collect();
    let has_audiences = !audiences.is_empty();
    // a path may have commas
    let webhooks: Vec<_> = webhooks.lines().map(str::trim).filter(|webhook| !webhook.is_empty()).collect();
    let auth = match Auth::new(&values::list(&means), audiences, &webhooks, public) {
        Ok(auth) => auth,
        Err((usage, failed)) => {
            reader.problems.usage.extend(usage);
            reader.problems.failed.extend(failed);
            return None;
        }
    };
    if auth.asks() && dry_run == DryRun::Client {
        reader
            .problems
            .usage
            .push("--auth token-review needs the API server, which --dry-run=client does not call".into())
    }
    if has_audiences && !auth.asks() {
        reader.problems.usage.push("--auth-audience is for --auth token-review, which is not given".into())
    }
    if !auth.is_on() && public != Public::default() {
        reader.problems.usage.push("--public is for --auth, without which everything is public".into())
    }
    if !auth.is_on() && !auth.paths().is_empty() {
        let open = open(enabled).join(", ");
        warnings.push(format!(
            "without --auth, only POSTs to {} need a signature; open to every client that reaches the port: {open}",
            auth.paths()
        ))
    }
    Some(auth)
}

/// The requests that need no credential while only webhooks have one.
fn open(enabled: Enabled) -> Vec<&'static str> {
    let all = [
        (true, "POST to all other paths"),
        (true, "GET /job/{id}"),
        (enabled.list, "GET /job"),
        (enabled.logs, "GET /job/{id}/log"),
        (enabled.delete, "DELETE /job/{id}"),
        (true, "/metrics"),
        (true, "/openapi.json"),
        (enabled.docs, "/docs"),
    ];
    all.into_iter().filter(|(is_on, _)| *is_on).map(|(_, what)| what).collect()
}
