//! OWNS token and CA bundle: files that the kubelet rotates. They are read again periodically, by path each time: it swaps symlinks.

use super::transport::tls;
use log::warn;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use ureq::http::HeaderValue;

/// As client-go: tokens live for at least ten minutes and are rotated at four fifths of that.
const READ_AGAIN: Duration = Duration::from_secs(60);
/// A token is a kilobyte or two, a bundle a few hundred kilobytes at most.
const MAX_FILE: u64 = 1 << 20;

/// The current credentials.
#[derive(Clone, Debug)]
pub(super) struct Current {
    /// The value of the `Authorization` header.
    pub(super) token: Option<Token>,
    /// With the roots of the CA bundle.
    pub(super) tls: Arc<ClientConfig>,
    /// Changes with the CA bundle, so that clients rebuild their agents.
    pub(super) generation: u64,
}

/// A bearer token; its `Debug` shows nothing of it.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct Token(pub(super) HeaderValue);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

#[derive(Debug)]
struct Cached {
    current: Current,
    /// The token before this one.
    previous: Option<Token>,
    bundle: Vec<u8>,
    read_at: Instant,
}

/// What is wrong with the files, each of which is named.
#[derive(Debug)]
pub(crate) struct BadFiles {
    pub(crate) token: Option<String>,
    pub(crate) ca: Option<String>,
}

#[derive(Debug)]
pub(super) struct Credentials {
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    cached: RwLock<Cached>,
}

impl Credentials {
    /// Errors: each file that cannot be used, named.
    pub(super) fn load(token_file: Option<PathBuf>, ca_file: Option<PathBuf>) -> Result<Self, BadFiles> {
        let token = token_file.as_deref().map(read_token).transpose();
        let bundle = match ca_file.as_deref() {
            Some(file) => read_bundle(file),
            None => tls::config(RootCertStore::empty()).map(|tls| (Vec::new(), tls)).map_err(|error| error.to_string()),
        };
        match (token, bundle) {
            (Ok(token), Ok((bundle, tls))) => {
                let current = Current { token, tls, generation: 0 };
                let cached = RwLock::new(Cached { current, previous: None, bundle, read_at: Instant::now() });
                Ok(Credentials { token_file, ca_file, cached })
            }
            (token, bundle) => Err(BadFiles { token: token.err(), ca: bundle.err() }),
        }
    }

    /// Where the token comes from, for an operator whose token is rejected.
    pub(super) fn token_source(&self) -> String {
        match &self.token_file {
            Some(file) => format!("the token is that of `{}`", file.display()),
            None => "no token is sent; see --token-file".to_owned(),
        }
    }

    /// The credentials, read again if they are a minute old.
    pub(super) fn current(&self) -> Current {
        let is_old = {
            let cached = self.cached.read().unwrap_or_else(PoisonError::into_inner);
            if cached.read_at.elapsed() < READ_AGAIN {
                return cached.current.clone();
            }
            cached.read_at
        };
        // one thread reads; the others use the cached credentials
        let is_ours = {
            let mut cached = self.cached.write().unwrap_or_else(PoisonError::into_inner);
            let is_ours = cached.read_at == is_old;
            cached.read_at = Instant::now();
            is_ours
        };
        if is_ours {
            self.read_again()
        } else {
            self.cached.read().unwrap_or_else(PoisonError::into_inner).current.clone()
        }
    }

    /// The credentials with another token than those that the API server has rejected: the file's, read again, else the one before. None if
    /// there is no other.
    pub(super) fn other_than(&self, rejected: &[Token]) -> Option<Current> {
        let is_other = |token: &Token| !rejected.contains(token);
        let current = self.read_again();
        if current.token.as_ref().is_none_or(is_other) {
            return Some(current);
        }
        let cached = self.cached.read().unwrap_or_else(PoisonError::into_inner);
        let previous = cached.previous.clone().filter(is_other)?;
        Some(Current { token: Some(previous), ..current })
    }

    /// Reads the files now. Keeps the old value of what cannot be read.
    pub(super) fn read_again(&self) -> Current {
        let token = self.token_file.as_deref().map(read_token).transpose();
        let bundle = self.ca_file.as_deref().map(read_bundle).transpose();
        let mut cached = self.cached.write().unwrap_or_else(PoisonError::into_inner);
        cached.read_at = Instant::now();
        match token {
            Ok(token) if token == cached.current.token => (),
            Ok(token) => cached.previous = std::mem::replace(&mut cached.current.token, token),
            Err(error) => warn!("keeping the previous token: {error}"),
        }
        match bundle {
            Ok(Some((bundle, tls))) if bundle != cached.bundle => {
                cached.bundle = bundle;
                cached.current.tls = tls;
                cached.current.generation += 1;
            }
            Ok(_) => (),
            Err(error) => warn!("keeping the previous CA bundle: {error}"),
        }
        cached.current.clone()
    }
}

fn read_file(what: &str, path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot read {what} `{}`: {error}", path.display());
    let length = std::fs::metadata(path).map_err(cannot)?.len();
    if length > MAX_FILE {
        return Err(format!("{what} `{}` is larger than {MAX_FILE} bytes", path.display()));
    }
    std::fs::read(path).map_err(cannot)
}

fn read_token(path: &Path) -> Result<Token, String> {
    let bytes = read_file("token file", path)?;
    let token = bytes.trim_ascii();
    if token.is_empty() {
        return Err(format!("token file `{}` is empty", path.display()));
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
        .map_err(|_| format!("token file `{}` holds no token: it has control characters", path.display()))?;
    value.set_sensitive(true);
    Ok(Token(value))
}

/// The bytes of a CA file, and the configuration of TLS with its certificates.
fn read_bundle(path: &Path) -> Result<(Vec<u8>, Arc<ClientConfig>), String> {
    let bytes = read_file("CA file", path)?;
    let mut roots = RootCertStore::empty();
    for (number, certificate) in CertificateDer::pem_slice_iter(&bytes).enumerate() {
        let certificate = certificate.map_err(|error| format!("CA file `{}` is not PEM: {error}", path.display()))?;
        let unusable = |error| {
            let (number, why) = (number + 1, tls::words(&error));
            format!("CA file `{}`: certificate {number} cannot be used: {why}", path.display())
        };
        roots.add(certificate).map_err(unusable)?;
    }
    if roots.is_empty() {
        return Err(format!("CA file `{}` has no certificate", path.display()));
    }
    let tls = tls::config(roots).map_err(|error| error.to_string())?;
    Ok((bytes, tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("credentials-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn authority() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn rotated_credentials_are_reloaded_and_bad_ones_ignored() {
        let folder = Folder::new("rotated");
        let token = folder.write("token", "first\n");
        let ca = folder.write("ca.crt", &authority());
        let credentials = Credentials::load(Some(token), Some(ca)).unwrap();
        let header = |current: &Current| current.token.as_ref().unwrap().0.to_str().unwrap().to_owned();
        assert_eq!(header(&credentials.current()), "Bearer first");

        folder.write("token", "second");
        folder.write("ca.crt", &(authority() + &authority()));
        assert_eq!(header(&credentials.current()), "Bearer first", "not before its time");
        let current = credentials.read_again();
        assert_eq!((header(&current).as_str(), current.generation), ("Bearer second", 1));
        let second = current.tls;

        folder.write("token", "");
        folder.write("ca.crt", "nothing");
        let current = credentials.read_again();
        assert_eq!((header(&current).as_str(), current.generation), ("Bearer second", 1));
        assert!(Arc::ptr_eq(&current.tls, &second), "the bundle is kept");
        assert_eq!(format!("{:?}", current.token), "Some(Token)");
    }

    #[test]
    fn after_a_rejected_token_the_files_counts_then_the_one_before() {
        let folder = Folder::new("rejected");
        let file = folder.write("token", "first");
        let credentials = Credentials::load(Some(file.clone()), None).unwrap();
        let token = |current: Current| current.token;
        let first = token(credentials.current());
        let other = |rejected: &Option<Token>| {
            let rejected: Vec<_> = rejected.iter().cloned().collect();
            credentials.other_than(&rejected).and_then(token)
        };
        assert!(other(&first).is_none(), "the file has no other");
        folder.write("token", "sec"); // written in part
        let part = other(&first);
        assert!(part.is_some() && part != first);
        assert!(other(&part) == first, "the one before");
        let both: Vec<_> = [&first, &part].into_iter().flatten().cloned().collect();
        assert!(credentials.other_than(&both).is_none(), "each once");
        folder.write("token", "second");
        let second = other(&part);
        assert!(second.is_some() && second != first && second != part);
        std::fs::remove_file(file).unwrap();
        assert!(other(&first) == second, "a file that is gone changes nothing");
    }

    #[test]
    fn each_unusable_file_is_named() {
        let folder = Folder::new("bad");
        let missing = folder.0.join("missing");
        let bad = Credentials::load(Some(missing.clone()), Some(missing.clone())).unwrap_err();
        let missing = missing.display();
        let os = "No such file or directory (os error 2)";
        assert_eq!(bad.token, Some(format!("cannot read token file `{missing}`: {os}")));
        assert_eq!(bad.ca, Some(format!("cannot read CA file `{missing}`: {os}")));

        for (text, says) in [
            ("", "has no certificate"),
            ("garbage", "has no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "is not PEM"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "certificate 1 cannot be used: invalid certificate: it is not an X.509 certificate",
            ),
        ] {
            let bad = Credentials::load(None, Some(folder.write("ca.crt", text))).unwrap_err();
            assert!(bad.ca.as_ref().is_some_and(|error| error.contains(says)), "{text:?} gave {bad:?}");
        }
        let bad = Credentials::load(Some(folder.write("token", " \n")), None).unwrap_err();
        assert!(bad.token.as_ref().is_some_and(|error| error.ends_with("is empty")), "{bad:?}");
    }
}
