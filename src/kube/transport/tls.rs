//! A TLS session over a connection that blocks. ureq's own keeps as many bytes of input again as a whole head may have, for each thread.

use rustls::crypto::ring::cipher_suite::*;
use rustls::crypto::{CryptoProvider, KeyProvider, ring};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::SigningKey;
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// The configuration of all sessions: they share the roots, and the cache for resuming sessions.
///
/// Errors: rustls's.
pub(in crate::kube) fn config(roots: RootCertStore) -> std::result::Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// What is needed of ring, for each of its algorithms is kilobytes of code: AES, which every API server has, because Go's `crypto/tls` does;
/// and no keys of our own.
fn provider() -> CryptoProvider {
    let cipher_suites = vec![
        TLS13_AES_256_GCM_SHA384,
        TLS13_AES_128_GCM_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    CryptoProvider { cipher_suites, key_provider: &NoKeys, ..ring::default_provider() }
}

/// We have no client certificates: the API server knows us by our token.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> std::result::Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General("no keys are used".into()))
    }
}

/// What is wrong, in an operator's words: the library has those of its own types.
pub(in crate::kube) fn words(error: &rustls::Error) -> String {
    use CertificateError as Why;
    let rustls::Error::InvalidCertificate(why) = error else { return error.to_string() };
    let why = match why {
        Why::BadEncoding => "it is not an X.509 certificate",
        Why::UnknownIssuer => "it is not signed by a CA of the bundle",
        Why::Expired | Why::ExpiredContext { .. } => "it has expired",
        Why::NotValidYet | Why::NotValidYetContext { .. } => "it is not valid yet",
        Why::NotValidForName | Why::NotValidForNameContext { .. } => {
            "it is for another name or address: subjectAltName must have that of the URL, and the common name does not count"
        }
        Why::BadSignature => "its signature is wrong: the bundle has a CA of the same name with another key",
        _ => {
            "it is not accepted: it may itself be a CA's (CA:TRUE), be made for another purpose than a server's, or be signed with SHA-1 or an \
             RSA key below 2048 bits"
        }
    };
    format!("invalid certificate: {why}")
}

pub(super) struct Session(ClientConnection);

impl Session {
    /// `host`: a name or an IP address. The handshake is yet to come: see [`Session::step`].
    pub(super) fn new(config: Arc<ClientConfig>, host: &str) -> Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(Error::other)?;
        Ok(Session(ClientConnection::new(config, name).map_err(Error::other)?))
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Continues the handshake until it has read once.
    pub(super) fn step(&mut self, tcp: &mut TcpStream) -> Result<()> {
        self.write_pending(tcp)?;
        if self.is_handshaking() && self.read_once(tcp)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.write_pending(tcp)
    }

    /// Sends all `bytes`: at most 16 KiB, so that they are one record.
    pub(super) fn send(&mut self, tcp: &mut TcpStream, bytes: &[u8]) -> Result<()> {
        self.0.writer().write_all(bytes)?;
        self.write_pending(tcp)
    }

    /// Waits for bytes. Returns 0 when the server has ended the session in order.
    pub(super) fn receive(&mut self, tcp: &mut TcpStream, into: &mut [u8]) -> Result<usize> {
        loop {
            match self.0.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => (),
                received => return received,
            }
            self.read_once(tcp)?; // rustls remembers an end, and whether it was in order
            self.write_pending(tcp)?
        }
    }

    fn read_once(&mut self, tcp: &mut TcpStream) -> Result<usize> {
        let amount = loop {
            match self.0.read_tls(tcp) {
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                amount => break amount?,
            }
        };
        if let Err(error) = self.0.process_new_packets() {
            let _ = self.write_pending(tcp); // the alert that says why
            return Err(Error::new(ErrorKind::InvalidData, words(&error)));
        }
        Ok(amount)
    }

    fn write_pending(&mut self, tcp: &mut TcpStream) -> Result<()> {
        while self.0.wants_write() {
            match self.0.write_tls(tcp) {
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                written => _ = written?,
            }
        }
        Ok(())
    }
}
