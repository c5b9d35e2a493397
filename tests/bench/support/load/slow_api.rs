//! An API server that takes its time, on as many connections as there are.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Answers each POST with 201 and the Job that was posted, after a delay; everything else at once.
pub(crate) struct SlowApi {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// In milliseconds.
    delay: AtomicU64,
    is_over: AtomicBool,
}

impl SlowApi {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.is_over.load(Relaxed) {
                    return;
                }
                let state = shared.clone();
                super::small_thread().spawn(move || serve(&stream, &state)).unwrap();
            }
        });
        SlowApi { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The delay from now on; at first there is none.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.state.delay.store(delay.as_millis() as u64, Relaxed);
    }
}

impl Drop for SlowApi {
    fn drop(&mut self) {
        self.state.is_over.store(true, Relaxed);
        let _ = TcpStream::connect(self.address); // wakes the listener
    }
}

/// None: the connection is of no more use.
fn serve(mut stream: &TcpStream, state: &State) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (code, body) = if first.starts_with("POST ") {
            thread::sleep(Duration::from_millis(state.delay.load(Relaxed)));
            ("201 Created", body)
        } else if first.starts_with("GET /readyz") {
            ("200 OK", b"ok".to_vec())
        } else {
            let status = crate::support::scripted::status(404, "NotFound", "not found", serde_json::json!({}));
            ("404 Not Found", status.into_bytes())
        };
        let head =
            format!("HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(&body).ok()?;
    }
}
