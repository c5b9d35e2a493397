//! A TCP proxy in front of API servers, which cuts connections after a random number of bytes.

use super::super::load::Rng;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Of this many connections, one is cut within its first bytes.
const ONE_IN: usize = 4;
/// Bytes after which a connection is cut at the latest.
const LATEST: usize = 60_000;

/// How often a frozen connection looks whether it still is.
const THAW: Duration = Duration::from_millis(20);

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    targets: Mutex<Vec<SocketAddr>>,
    rng: Mutex<Rng>,
    open: Mutex<Vec<TcpStream>>,
    cuts: AtomicUsize,
    cuts_some: bool,
    /// Connections that were open at the first moment pass nothing on until the second.
    frozen: Mutex<Option<(Instant, Instant)>>,
}

impl Proxy {
    /// Each connection goes to one of the targets.
    pub(crate) fn start(targets: Vec<SocketAddr>, seed: u64, cuts_some: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            targets: Mutex::new(targets),
            rng: Mutex::new(Rng::new(seed)),
            open: Mutex::default(),
            cuts: AtomicUsize::new(0),
            cuts_some,
            frozen: Mutex::default(),
        });
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                thread::spawn(move || state.serve(stream));
            }
        });
        Proxy { address, state }
    }

    /// Cuts all connections that are open.
    pub(crate) fn cut_all(&self) {
        for stream in self.state.open.lock().unwrap().drain(..) {
            self.state.cuts.fetch_add(1, Relaxed);
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// For this time, connections that are open pass nothing on, and are not closed, as when a firewall has forgotten them; new ones do.
    pub(crate) fn freeze_all(&self, time: Duration) {
        let now = Instant::now();
        *self.state.frozen.lock().unwrap() = Some((now, now + time))
    }

    /// How many connections were cut so far.
    pub(crate) fn cuts(&self) -> usize {
        self.state.cuts.load(Relaxed)
    }
}

impl State {
    fn serve(&self, client: TcpStream) {
        let (target, limits) = {
            let mut rng = self.rng.lock().unwrap();
            let targets = self.targets.lock().unwrap();
            let target = targets[rng.below(targets.len())];
            let is_cut = self.cuts_some && rng.below(ONE_IN) == 0;
            let limit = if is_cut { 1 + rng.below(LATEST) } else { usize::MAX };
            // either what is asked or what is answered
            (target, if rng.below(2) == 0 { [limit, usize::MAX] } else { [usize::MAX, limit] })
        };
        let Ok(server) = TcpStream::connect(target) else { return };
        let opened = Instant::now();
        let both = [client, server];
        let clones = || Some([both[0].try_clone().ok()?, both[1].try_clone().ok()?]);
        let (Some([a, b]), Some([c, d])) = (clones(), clones()) else { return };
        {
            let mut open = self.open.lock().unwrap();
            open.retain(|stream| stream.peer_addr().is_ok());
            open.extend(both[0].try_clone());
        }
        thread::scope(|scope| {
            scope.spawn(|| self.copy(a, b, limits[0], opened));
            self.copy(d, c, limits[1], opened)
        });
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, mut left: usize, opened: Instant) {
        let mut buffer = [0; 8192];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            while self.is_frozen(opened) {
                thread::sleep(THAW)
            }
            let part = read.min(left);
            if to.write_all(&buffer[..part]).is_err() {
                break;
            }
            left = left.saturating_sub(part);
            if left == 0 {
                self.cuts.fetch_add(1, Relaxed);
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn is_frozen(&self, opened: Instant) -> bool {
        self.frozen.lock().unwrap().is_some_and(|(from, until)| opened <= from && Instant::now() < until)
    }
}
