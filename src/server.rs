//! The HTTP server: accepts connections, lets the workers serve them, and shuts down in order.
//!
//! ```text
//! accept -> connections (waits for its client, holds no thread) -> worker: parse, route, serve -> reply -> connections
//! ```

mod access;
mod access_log;
mod chunked;
mod connection;
mod connections;
mod deadlines;
mod exchange;
mod look;
mod memory;
mod parse;
mod permits;
mod poller;
mod queue;
mod reply;
mod review;
mod send_buffer;
mod serve;
mod shared;
mod shutdown;
mod slot;
mod texts;
mod workers;

use access_log::{Line, Peer, request_id};

use crate::answered::Answered;
use crate::config::{Config, Listen};
use crate::metrics::METRICS;
use crate::random::random;
use crate::status::{Reason, Status};
use connection::Accepted;
use connections::{Connections, RESERVED};
use log::{error, info, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serve::Server;
use shutdown::DRAIN;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use workers::{MAX_IN_FLIGHT, Workers};

/// Connections that the kernel holds while we are busy; it takes the smaller of this and its own limit.
const BACKLOG: i32 = 4096;
/// File descriptors that are not client connections: API connections, files, sockets of our own.
const OTHER_DESCRIPTORS: u64 = MAX_IN_FLIGHT as u64 + RESERVED as u64 + 64;
/// Bytes of a connection's buffers in the kernel, which doubles them for its own overhead. A cgroup of version 2 counts them: 16.5 KiB for
/// each of 1,024 connections (the smallest send buffer is 4.5 KiB). A client sends as much as the receive buffer in a round trip: at 50 ms
/// the largest body takes 20 of its 30 s.
const RECEIVE_BUFFER: usize = 6 << 10;
const SEND_BUFFER: usize = 2 << 10;
/// Balancers drop connections that are silent while a caller waits: Azure's after 4 minutes, AWS's Network Load Balancer after 350 s.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Of the thread that asks for access: TLS.
const ACCESS_STACK: usize = 256 << 10;
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(20);
/// Connections accepted in a row before signals are checked.
const MAX_ACCEPTS: u32 = 64;

/// Serves until SIGTERM or SIGINT. A second signal ends the process at once.
///
/// Errors: what failed and why, as one line.
pub(crate) fn run(mut config: Config) -> Result<(), String> {
    let mut signals = signals().map_err(|error| format!("cannot handle signals: {error}"))?;
    let listener = listen(config.listen, config.port)?;
    let address = listener.local_addr().map_err(|error| format!("cannot get the address: {error}"))?;
    info!("listening on {address}"); // the first line: a caller that asked for port 0 reads the port from it
    for warning in std::mem::take(&mut config.warnings) {
        warn!("{warning}");
    }
    info!("{}", config.summary());
    let connections = max_connections(config.max_connections);
    let shutdown_delay = config.shutdown_delay;
    let connections = Connections::new(connections, config.idle_timeout)
        .map_err(|error| format!("cannot create a poller: {error}"))?;
    let workers = Workers::new(Server::new(config), connections);
    workers.start().map_err(|error| format!("cannot start threads: {error}"))?;
    if workers.server.config.enabled.list {
        workers.want_watch() // so that the first list finds Jobs
    }
    let deadlines = workers.clone();
    thread::Builder::new()
        .name("deadlines".into())
        .spawn(move || deadlines.end_in_time())
        .map_err(|error| format!("cannot start threads: {error}"))?;

    if let Some(api_server) = workers.server.config.api_server.clone() {
        let checked = workers.clone(); // the dispatcher serves meanwhile
        let check = move || {
            checked.server.access.check(&checked.server.config, &api_server);
            crate::alloc::return_freed_pages()
        };
        let started = thread::Builder::new().name("access".into()).stack_size(ACCESS_STACK).spawn(check);
        started.map_err(|error| format!("cannot start threads: {error}"))?;
    }

    accept_until(&listener, &workers, &mut signals, None);
    workers.connections.shutdown.announce();
    workers.connections.shorten();
    match shutdown_delay {
        Duration::ZERO => info!("stopping"),
        delay => info!("stopping; connections are accepted for another {delay:?}"),
    }
    accept_until(&listener, &workers, &mut signals, Some(Instant::now() + shutdown_delay));
    drain(listener, &workers);
    Ok(())
}

/// A socket that receives one byte for each signal.
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
    // connections inherit what follows
    socket.set_tcp_nodelay(true)?; // a reply is one write, not to be held back
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE_INTERVAL))?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Raises the limit of file descriptors to the hard limit, and returns how many connections fit below it.
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
fn accept_until(listener: &TcpListener, workers: &Workers, signals: &mut UnixStream, end: Option<Instant>) {
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
            if !accept(listener, workers) {
                break;
            }
        }
    }
}

/// Returns false if there is no pending connection.
fn accept(listener: &TcpListener, workers: &Workers) -> bool {
    match listener.accept() {
        Ok((stream, address)) => {
            let peer = Peer::new(address.ip(), workers.server.config.log.forwarded_for);
            match workers.insert(Accepted { stream, peer }) {
                Ok(replaced) => {
                    let connection = replaced.iter().map(|exchange| &exchange.connection);
                    connection.for_each(|connection| reject(connection.stream(), connection.peer()))
                }
                Err(Accepted { stream, peer }) => reject(&stream, &peer),
            }
            workers.grant_memory(); // of an evicted connection
            true
        }
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock => false,
            ErrorKind::Interrupted | ErrorKind::ConnectionAborted => true,
            _ => {
                // most likely no descriptor is left: the new connection waits in the kernel while another is evicted
                if let Some(slot) = workers.connections.evict_one(random()) {
                    workers.connections.free(slot)
                } else if !workers.evict_waiter() {
                    error!("cannot accept: {error}");
                    thread::sleep(PAUSE)
                }
                true
            }
        },
    }
}

/// Answers 503 without blocking: every connection is being served, those for probes too, so none can be evicted.
fn reject(stream: &TcpStream, peer: &Peer) {
    let frame = reply::Frame { id: request_id(None), is_head: false, is_http_10: false, close: true };
    let status = Status::new(Reason::Overloaded, "too many connections");
    METRICS.connection_rejected();
    let Answered { reply, record, .. } = Answered::refused(status);
    let line = Line {
        id: &frame.id,
        peer,
        request: None,
        caller: None,
        code: reply.code,
        took: None,
        is_probe: false,
        record: &record,
    };
    line.write();
    let mut bytes = Vec::new();
    reply::print(&mut bytes, &reply, &frame);
    bytes.extend(&*reply.body);
    let _ = rustix::net::send(stream, &bytes, rustix::net::SendFlags::DONTWAIT); // std ignores SIGPIPE
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

/// Accepts what is pending, then lets requests in flight finish; connections without one are closed.
fn drain(listener: TcpListener, workers: &Workers) {
    while accept(&listener, workers) {}
    drop(listener);
    workers.connections.shutdown.begin();
    workers.connections.shorten();
    match workers.connections.wait_until_closed(Instant::now() + DRAIN) {
        0 => info!("stopped"),
        left => warn!("stopped with {left} connections open"),
    }
}
