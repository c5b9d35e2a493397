//! The API server: its address, and our credentials for it.

use super::circuit::Circuit;
use super::credentials::{BadFiles, Credentials};
use std::path::PathBuf;
use std::time::Duration;

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
}
