//! OWNS ureq and rustls: one client per thread for calls to the API server, with their failures as values.
//! Knows neither jq nor our routes.

mod answer;
mod bound;
mod circuit;
mod client;
mod create;
mod credentials;
mod delete;
mod errors;
mod failure;
mod get;
mod job;
mod leaves;
mod log;
mod metadata;
mod pods;
mod refusal;
mod scalar;
mod stream;
mod transport;
mod url;

pub(crate) use bound::{LONG_ANSWER, USUAL_ANSWER};
pub(crate) use client::Client;
pub(crate) use failure::{Failure, Refusal, RefusalKind};
#[cfg(test)]
pub(crate) use job::Situation;
pub(crate) use job::{Job, State};
pub(crate) use log::{LOG_ANSWER, Log, Which};
pub(crate) use pods::{Pod, Pods};
pub(crate) use stream::{End, Event, From};
pub(crate) use transport::Patience;
pub(crate) use url::{check_url, is_loopback};

use circuit::Circuit;
use credentials::Credentials;
use errors::cannot_reach;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;
use ureq::http::Uri;

/// Connecting takes one round trip and a TLS handshake.
const CONNECT: Duration = Duration::from_secs(2);

/// Address and credentials of the API server; shared by all threads.
#[derive(Debug)]
pub(crate) struct ApiServer {
    /// Scheme, authority and path prefix, without a trailing slash.
    base: String,
    is_https: bool,
    credentials: Credentials,
    circuit: Circuit,
}

/// Whether a Job is stored, or only validated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Create {
    Store,
    DryRun,
}

impl ApiServer {
    /// `base`: as [`check_url`] returns it.
    ///
    /// Errors: each file that cannot be used, named.
    pub(crate) fn new(base: &str, token: Option<PathBuf>, ca: Option<PathBuf>) -> Result<Self, Vec<String>> {
        let base = base.to_owned();
        let is_https = base.starts_with("https://");
        Ok(ApiServer { base, is_https, credentials: Credentials::load(token, ca)?, circuit: Circuit::default() })
    }
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Why no connection can be made now, and what to do; None if one can.
    pub(crate) fn check_reachable(&self) -> Option<String> {
        let uri: Uri = self.base.parse().ok()?;
        let host = uri.host()?.trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if self.is_https { 443 } else { 80 });
        let addresses = match (host, port).to_socket_addrs() {
            Ok(addresses) => addresses,
            Err(error) => return Some(cannot_reach(&self.base, &error)),
        };
        let mut last = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(_) => return None,
                Err(error) => last = Some(cannot_reach(&self.base, &error)),
            }
        }
        last
    }
}
