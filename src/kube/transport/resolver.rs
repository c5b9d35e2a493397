//! Resolves IP addresses without a resolver; in a cluster the API server's host is one. ureq's own resolver starts a thread for every
//! call with a time-out; it is used for names only.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

#[derive(Debug)]
pub(in crate::kube) struct Numeric {
    by_name: DefaultResolver,
    /// Set when a name could not be resolved, so that no connection was made.
    failed: Arc<AtomicBool>,
}

impl Numeric {
    pub(in crate::kube) fn new(failed: Arc<AtomicBool>) -> Self {
        Numeric { by_name: DefaultResolver::default(), failed }
    }
}

impl Resolver for Numeric {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let Ok(address) = host.parse::<IpAddr>() else {
            let addresses = self.by_name.resolve(uri, config, timeout);
            self.failed.store(addresses.is_err(), Relaxed);
            return addresses;
        };
        let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let mut addresses = self.empty();
        addresses.push(SocketAddr::new(address, uri.port_u16().unwrap_or(default_port)));
        Ok(addresses)
    }
}
