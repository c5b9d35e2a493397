//! One TLS configuration for the clients of all threads: one set of roots, one session cache. Otherwise each ureq agent would have its
//! own, a hundred kilobytes per thread, and with time-outs per request one for every connection.

use std::fmt;
use std::sync::Arc;
use ureq::Error;
use ureq::unversioned::transport::{ConnectionDetails, Connector, RustlsConnector, Transport};

/// ureq does not promise this interface, so its version is pinned in `Cargo.toml`.
#[derive(Clone, Default)]
pub(super) struct SharedTls(Arc<RustlsConnector>);

impl fmt::Debug for SharedTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedTls")
    }
}

impl<In: Transport> Connector<In> for SharedTls {
    type Out = <RustlsConnector as Connector<In>>::Out;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        // our requests differ only in their time-outs; ureq caches the TLS configuration only if it is the agent's
        let of_the_agent = ConnectionDetails {
            request_level: false,
            uri: details.uri,
            addrs: details.addrs.clone(),
            config: details.config,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        self.0.connect(&of_the_agent, chained)
    }
}
