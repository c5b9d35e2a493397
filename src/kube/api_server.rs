//! The API server: its address, and our credentials for it.

use super::circuit::Circuit;
use super::credentials::{BadFiles, Credentials};
use super::errors::cannot_reach;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;
use ureq::http::Uri;

/// Connecting takes one round trip and a TLS handshake.
pub(super) const CONNECT: Duration = Duration::from_secs(2);

/// Address and credentials of the API server; shared by all threads.
#[derive(Debug)]
pub(crate) struct ApiServer {
    /// Scheme, authority and path prefix, without a trailing slash.
    pub(super) base: String,
    pub(super) is_https: bool,
    pub(super) credentials: Credentials,
    pub(super) circuit: Circuit,
}

impl ApiServer {
    /// `base`: as [`check_url`](super::check_url) returns it.
    ///
    /// Errors: each file that cannot be used, named.
    pub(crate) fn new(base: &str, token: Option<PathBuf>, ca: Option<PathBuf>) -> Result<Self, BadFiles> {
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
