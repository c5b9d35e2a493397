//! The API server as the tests talk to it.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::time::Duration;
use ureq::Agent;
use ureq::http::Request;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) url: String,
    pub(crate) token: String,
    agent: Agent,
}

impl Api {
    pub(crate) fn new(url: &str, ca_pem: &str, token: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = Certificate::from_pem(ca_pem.as_bytes()).unwrap();
        let tls = TlsConfig::builder().root_certs(RootCerts::from(vec![ca])).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_connect(Some(TIMEOUT))
            .timeout_recv_response(Some(TIMEOUT))
            .tls_config(tls)
            .build();
        Api { url: url.to_owned(), token: token.to_owned(), agent: config.new_agent() }
    }

    pub(crate) fn with_token(&self, token: &str) -> Self {
        Api { token: token.to_owned(), ..self.clone() }
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        media_type: &str,
        body: Option<&Value>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.token))
            .header("Accept", "application/json")
            .header("Content-Type", media_type);
        match body {
            Some(body) => self.agent.run(request.body(body.to_string()).unwrap()),
            None => self.agent.run(request.body(()).unwrap()),
        }
    }

    /// Code and body; no answer is none.
    pub(crate) fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let media_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut response = self.request(method, path, media_type, body).ok()?;
        let text = response.body_mut().read_to_string().ok()?;
        Some((response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.try_call(method, path, body).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, None)
    }

    /// Makes an object, which must work.
    pub(crate) fn create(&self, path: &str, object: Value) -> Value {
        let (code, answer) = self.call("POST", path, Some(&object));
        assert_eq!(code, 201, "POST {path} {object} gave {answer}");
        answer
    }

    pub(crate) fn patch(&self, path: &str, patch: Value) -> (u16, Value) {
        self.call("PATCH", path, Some(&patch))
    }

    pub(crate) fn delete(&self, path: &str) -> (u16, Value) {
        self.call("DELETE", path, Some(&json!({"propagationPolicy": "Background"})))
    }

    /// Calls `see` with each event of a watch, until its stream ends.
    pub(crate) fn watch(&self, path: &str, mut see: impl FnMut(Value)) {
        let Ok(response) = self.request("GET", path, "application/json", None) else { return };
        for line in BufReader::new(response.into_body().into_reader()).lines().map_while(Result::ok) {
            if let Ok(event) = serde_json::from_str(&line) {
                see(event)
            }
        }
    }
}
