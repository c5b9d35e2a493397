//! An admission webhook that the test cluster's API server calls, for the Jobs of one namespace.

use super::api::Api;
use super::certificates::Authority;
use super::eventually;
use super::namespace::Namespace;
use super::scripted::read;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
/// The longest that the API server accepts; a loaded machine is slow.
const TIMEOUT_SECONDS: u32 = 30;

/// What the webhook does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// Returns an AdmissionReview whose response has these fields, and the request's uid.
    Review(Value),
    /// Returns this HTTP code and body.
    Http(u16, &'static str),
    /// Closes the connection after reading the request.
    HangUp,
    /// Does not respond until the API server closes the connection.
    Silence,
}

impl Behaviour {
    pub(crate) fn allow() -> Self {
        Self::allow_with_warnings(&[])
    }

    pub(crate) fn allow_with_warnings(warnings: &[String]) -> Self {
        Behaviour::Review(json!({"allowed": true, "warnings": warnings}))
    }

    /// `status`: the Status that goes with the denial, with whichever fields it has.
    pub(crate) fn deny(status: Value) -> Self {
        Behaviour::Review(json!({"allowed": false, "status": status}))
    }
}

/// A webhook that is configured for creations of Jobs in one namespace, until this is dropped.
pub(crate) struct Webhook {
    /// As it appears in the API server's messages.
    pub(crate) name: String,
    configuration: String,
    admin: Api,
    state: Arc<Mutex<State>>,
}

struct State {
    behaviour: Behaviour,
    calls: usize,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Webhook {
    /// Allows everything at first. Returns once the API server calls it.
    pub(crate) fn new(namespace: &Namespace) -> Self {
        Self::with_timeout(namespace, TIMEOUT_SECONDS)
    }

    pub(crate) fn with_timeout(namespace: &Namespace, seconds: u32) -> Self {
        let authority = Authority::new("webhook");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { behaviour: Behaviour::allow(), calls: 0 }));
        let (tls, shared) = (Arc::new(tls(&authority)), state.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (tls, state) = (tls.clone(), shared.clone());
                thread::spawn(move || serve(stream, tls, &state));
            }
        });
        let webhook = Webhook {
            name: format!("{}.webhook.test", namespace.name),
            configuration: format!("{CONFIGURATIONS}/{}", namespace.name),
            admin: namespace.admin().clone(),
            state,
        };
        let configuration = json!({
            "metadata": {"name": namespace.name},
            "webhooks": [{
                "name": webhook.name,
                "clientConfig": {"url": format!("https://{address}/"), "caBundle": base64(authority.pem.as_bytes())},
                "rules": [{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": seconds,
            }],
        });
        webhook.admin.create(CONFIGURATIONS, configuration);
        // the API server reads configurations from a cache
        eventually("the API server to call the webhook", || {
            namespace.try_create_job("probe");
            (webhook.calls() > 0).then_some(())
        });
        webhook
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        lock(&self.state).behaviour = behaviour;
    }

    /// How often it was called so far.
    pub(crate) fn calls(&self) -> usize {
        lock(&self.state).calls
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.admin.try_call("DELETE", &self.configuration, None);
    }
}

pub(super) fn tls(authority: &Authority) -> ServerConfig {
    let (certificate, key) = authority.server();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()
}

/// Serves one request, then closes the connection.
fn serve(stream: TcpStream, tls: Arc<ServerConfig>, state: &Mutex<State>) {
    let connection = ServerConnection::new(tls).unwrap();
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    let Some(request) = read(&mut reader) else { return };
    let behaviour = {
        let mut state = lock(state);
        state.calls += 1;
        state.behaviour.clone()
    };
    let (code, body) = match behaviour {
        Behaviour::Review(response) => (200, review(&request.body, response)),
        Behaviour::Http(code, body) => (code, body.to_owned()),
        Behaviour::HangUp => return,
        Behaviour::Silence => return drop(reader.read_to_end(&mut Vec::new())),
    };
    let stream = reader.get_mut();
    let head = format!(
        "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

fn review(request: &str, mut response: Value) -> String {
    let request: Value = serde_json::from_str(request).unwrap();
    response["uid"] = request["request"]["uid"].clone();
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        let digit = |place: usize| char::from(ALPHABET[bits >> (18 - 6 * place) & 63]);
        text.extend((0..4).map(|place| if place <= chunk.len() { digit(place) } else { '=' }));
    }
    text
}
