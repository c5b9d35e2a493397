//! A kubelet's server for logs, to which the API server passes them on: its node runs nothing.

use super::certificates::Authority;
use super::namespace::Namespace;
use super::scripted::read;
use super::webhook::tls;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A node whose containers all have the same log, until this is dropped.
pub(crate) struct Logs<'n> {
    /// Of the node.
    pub(crate) node: String,
    namespace: &'n Namespace,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    log: Vec<u8>,
    asked: Vec<String>,
}

impl<'n> Logs<'n> {
    pub(crate) fn new(namespace: &'n Namespace) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = Arc::new(tls(&Authority::new("kubelet")));
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (tls, state) = (tls.clone(), shared.clone());
                thread::spawn(move || serve(stream, tls, &state));
            }
        });
        let node = format!("node-of-{}", namespace.name);
        namespace.admin().create(
            "/api/v1/nodes",
            json!({"metadata": {"name": node}, "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            }}),
        );
        Logs { node, namespace, state }
    }

    /// What all containers have written.
    pub(crate) fn write(&self, log: impl AsRef<[u8]>) {
        self.state.lock().unwrap().log = log.as_ref().to_vec()
    }

    /// The targets of the API server's requests.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

impl Drop for Logs<'_> {
    fn drop(&mut self) {
        self.namespace.admin().try_call("DELETE", &format!("/api/v1/nodes/{}", self.node), None);
    }
}

/// Serves one request, then closes the connection.
fn serve(stream: TcpStream, tls: Arc<ServerConfig>, state: &Mutex<State>) {
    let connection = ServerConnection::new(tls).unwrap();
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    let Some(request) = read(&mut reader) else { return };
    let number = |name: &str| -> Option<usize> {
        let pairs = request.target.split(['?', '&']);
        pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1.parse().ok()
    };
    let mut log = state.lock().unwrap().log.clone();
    if let Some(tail) = number("tailLines") {
        let lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
        log = lines[lines.len().saturating_sub(tail)..].concat()
    }
    log.truncate(number("limitBytes").unwrap_or(usize::MAX));
    state.lock().unwrap().asked.push(request.target);
    let stream = reader.get_mut();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", log.len());
    let _ = stream.write_all(&[head.as_bytes(), &log].concat());
    stream.conn.send_close_notify();
    let _ = stream.flush();
}
