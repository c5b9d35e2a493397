//! The HTTP server: accepts, lets the crew serve, and stops in good order.
//!
//! ```text
//! accept -> lobby (waits for its client, holds no thread) -> crew: parse, route, serve -> reply -> lobby
//! ```

mod chunked;
mod connection;
mod crew;
mod lobby;
mod parse;
mod reply;
mod serve;
mod tasks;

use serve::request_id;

use crate::config::{Config, Listen};
use crate::dispatch::random;
use crate::metrics::METRICS;
use crate::status::{Reason, Status};
use crew::Crew;
use lobby::Lobby;
use log::{error, info, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serve::Server;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};
use tasks::MAX_IN_HAND;

/// Connections that the kernel holds while we are busy; it takes the smaller of this and its own limit.
const BACKLOG: i32 = 4096;
/// Descriptors for what is no connection of a client: calls, files, sockets of our own.
const OTHER_DESCRIPTORS: u64 = MAX_IN_HAND as u64 + 64;
/// How long requests in hand may take after SIGTERM: less than the 30 s that a pod has by default.
const DRAIN: Duration = Duration::from_secs(25);
/// How long, of that, requests that are not whole yet have to become so.
const UNFINISHED: Duration = Duration::from_secs(5);
const SWEEP: Duration = Duration::from_millis(500);
const DRAIN_SWEEP: Duration = Duration::from_millis(10);
/// After an accept that failed for want of something.
const PAUSE: Duration = Duration::from_millis(20);
/// Accepted in a row before a signal is looked for.
const MAX_ACCEPTS: u32 = 64;

/// Serves until SIGTERM or SIGINT. A second signal ends the process at once.
///
/// Errors: what could not be done, named.
pub(crate) fn run(mut config: Config) -> Result<(), String> {
    let mut signals = signals().map_err(|error| format!("cannot handle signals: {error}"))?;
    let listener = listen(config.listen, config.port)?;
    let address = listener.local_addr().map_err(|error| format!("cannot tell the address: {error}"))?;
    info!("listening on {address}"); // the first line: whoever asked for port 0 reads the port from it
    for warning in std::mem::take(&mut config.warnings) {
        warn!("{warning}");
    }
    match &config.api_server {
        Some(server) => info!("Jobs go to namespace {} of {}", config.namespace, server.base()),
        None => info!("dry run: manifests are shown, nothing is called"),
    }
    let connections = max_connections(config.max_connections);
    let shutdown_delay = config.shutdown_delay;
    let lobby = Lobby::new(connections).map_err(|error| format!("cannot make an epoll set: {error}"))?;
    let crew = Crew::new(Server::new(config), lobby);
    crew.start().map_err(|error| format!("cannot start threads: {error}"))?;
    let sweeper = crew.clone();
    let sweep = move || {
        loop {
            thread::sleep(SWEEP);
            sweeper.sweep()
        }
    };
    thread::Builder::new()
        .name("sweeper".into())
        .spawn(sweep)
        .map_err(|error| format!("cannot start threads: {error}"))?;

    accept_until(&listener, &crew, &mut signals, None);
    crew.server.is_stopping.store(true, Relaxed);
    info!("stopping; still accepting for {shutdown_delay:?}");
    accept_until(&listener, &crew, &mut signals, Some(Instant::now() + shutdown_delay));
    drain(listener, &crew);
    Ok(())
}

/// A socket on which a byte comes for each signal.
fn signals() -> std::io::Result<UnixStream> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    let is_second = Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, is_second.clone())?;
        signal_hook::flag::register(signal, is_second.clone())?;
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

fn listen(listen: Listen, port: u16) -> Result<TcpListener, String> {
    let bound = |address: IpAddr| bind(SocketAddr::new(address, port));
    let cannot = |address: &dyn std::fmt::Display, error| format!("cannot listen on {address} port {port}: {error}");
    match listen {
        Listen::Ip(address) => bound(address).map_err(|error| cannot(&address, error)),
        Listen::All => match bound(Ipv6Addr::UNSPECIFIED.into()) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => Err(cannot(&"all addresses", error)),
            Err(_) => bound(Ipv4Addr::UNSPECIFIED.into()).map_err(|error| cannot(&"all addresses", error)),
            Ok(listener) => Ok(listener),
        },
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?; // one listener for IPv6 and IPv4
    }
    socket.set_reuse_address(true)?; // a restart need not wait for old connections to be forgotten
    socket.set_tcp_nodelay(true)?; // connections inherit it: a reply is one write, not to be held back
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Raises the descriptor limit as far as it goes, and fits the connections below it.
fn max_connections(wanted: usize) -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let possible = usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(usize::MAX).max(1);
    if possible < wanted {
        warn!("{possible} connections at once instead of {wanted}: the limit of open files is {limit}");
    }
    wanted.min(possible)
}

/// Accepts until a signal comes, or, when `end` is given, until then.
fn accept_until(listener: &TcpListener, crew: &Crew, signals: &mut UnixStream, end: Option<Instant>) {
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return;
        }
        let timeout = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        let mut ready = [PollFd::new(listener, PollFlags::IN), PollFd::new(&*signals, PollFlags::IN)];
        if poll(&mut ready, timeout.as_ref()).is_err() {
            continue; // a signal: its byte is on the socket
        }
        if end.is_none() && signals.read(&mut [0; 8]).is_ok_and(|bytes| bytes > 0) {
            return;
        }
        for _ in 0..MAX_ACCEPTS {
            if !accept(listener, crew) {
                break;
            }
        }
    }
}

/// False: nobody waits at the door.
fn accept(listener: &TcpListener, crew: &Crew) -> bool {
    match listener.accept() {
        Ok((stream, _)) => {
            if let Err(stream) = crew.lobby.enter(stream, random()) {
                turn_away(&stream)
            }
            true
        }
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock => false,
            ErrorKind::Interrupted | ErrorKind::ConnectionAborted => true,
            _ => {
                // most likely no descriptor is left; the newcomer waits in the kernel while somebody gives way
                match crew.lobby.give_way(random()) {
                    Some(slot) => crew.lobby.free(slot),
                    None => {
                        error!("cannot accept: {error}");
                        thread::sleep(PAUSE)
                    }
                }
                true
            }
        },
    }
}

/// All connections are being worked on. What can be said without waiting is said.
fn turn_away(stream: &TcpStream) {
    let frame = reply::Frame { id: request_id(None), is_head: false, is_http_10: false, close: true };
    let status = Status::new(Reason::Overloaded, "too many connections");
    METRICS.connection_refused();
    info!("{} turned away {} {:?}", frame.id, status.code(), status.message);
    let mut bytes = Vec::new();
    reply::print(&mut bytes, &status.into(), &frame);
    let _ = rustix::net::send(stream, &bytes, rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL);
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

/// Takes in who is still at the door, then lets requests in hand finish; connections without one are closed.
fn drain(listener: TcpListener, crew: &Crew) {
    while accept(&listener, crew) {}
    drop(listener);
    crew.is_draining.store(true, Relaxed);
    let begin = Instant::now();
    while crew.lobby.len() > 0 && begin.elapsed() < DRAIN {
        crew.sweep();
        if begin.elapsed() > UNFINISHED {
            crew.turn_unfinished_away();
        }
        thread::sleep(DRAIN_SWEEP)
    }
    crew.turn_queued_away();
    match crew.lobby.len() {
        0 => info!("stopped"),
        left => warn!("stopped with {left} connections open"),
    }
}
