//! The connection to the API server, as ureq's transport: ureq's own takes eight more system calls for a call, and 45 KB more.
//!
//! What is written is sent when an answer is waited for, so head and body are one write. A time-out is set only when it differs much from
//! the last one. A kept connection is looked at once before it is used again. Buffers are as long as they have to be.

use super::tls::Session;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};
use rustls::ClientConfig;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Error, Timeout};

/// Bytes of input at first: most answers are shorter.
const INPUT: usize = 4 << 10;
/// Bytes that are written at least, unless an answer is waited for.
const FLUSH: usize = 12 << 10;
/// How much later than asked for a time-out may come: this, or a sixteenth of it.
const TOLERANCE: Duration = Duration::from_millis(10);

/// How often a [`Patience`] is asked.
const TICK: Duration = Duration::from_millis(250);
/// Of a connection with a [`Patience`]: how long it may be idle before the kernel asks whether the peer is there, between two such questions, and
/// how long what was sent may be unacknowledged.
#[cfg(target_os = "linux")]
const KEEP_ALIVE: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(5), Duration::from_secs(20)];

/// Decides whether to wait on for a server that has said nothing for this long.
pub(crate) type Patience = Arc<dyn Fn(Duration) -> bool + Send + Sync>;

/// Makes connections. `tls`: for HTTPS.
pub(in crate::kube) struct Sockets {
    pub(in crate::kube) tls: Arc<ClientConfig>,
    /// Set when a connection could not be made; shared with the resolver.
    pub(in crate::kube) failed: Arc<AtomicBool>,
    /// For a watch.
    pub(in crate::kube) patience: Option<Patience>,
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sockets")
    }
}

impl<In: Transport> Connector<In> for Sockets {
    type Out = Socket;

    fn connect(&self, details: &ConnectionDetails<'_>, _chained: Option<In>) -> Result<Option<Socket>, Error> {
        let socket = self.open(details);
        self.failed.store(socket.is_err(), Relaxed);
        socket.map(Some)
    }
}

impl Sockets {
    fn open(&self, details: &ConnectionDetails<'_>) -> Result<Socket, Error> {
        let end = Instant::now() + *details.timeout.after;
        let stream = connect_tcp(details, end)?;
        stream.set_nodelay(true)?;
        let mut socket = Socket::new(stream, details.config.input_buffer_size(), details.config.output_buffer_size());
        if let Some(patience) = &self.patience {
            keep_alive(&socket.stream).map_err(std::io::Error::from)?;
            socket.patience = Some(patience.clone())
        }
        if details.needs_tls() {
            let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']);
            socket.start_tls(Session::new(self.tls.clone(), host)?, end, details.timeout)?;
        }
        Ok(socket)
    }
}

/// Tries each address of the host, with an equal share of the time that is left.
fn connect_tcp(details: &ConnectionDetails<'_>, end: Instant) -> Result<TcpStream, Error> {
    let mut last = Error::ConnectionFailed;
    for (number, address) in details.addrs.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(details.addrs.len() - number).unwrap_or(1);
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::TimedOut => last = Error::Timeout(Timeout::Connect),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// So that a peer that has gone without a word is noticed while nothing is sent.
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    #[cfg(target_os = "linux")]
    {
        let [idle, interval, unacknowledged] = KEEP_ALIVE;
        sockopt::set_tcp_keepidle(stream, idle)?;
        sockopt::set_tcp_keepintvl(stream, interval)?;
        sockopt::set_tcp_user_timeout(stream, unacknowledged.as_millis() as u32)?;
    }
    Ok(())
}

pub(in crate::kube) struct Socket {
    stream: TcpStream,
    tls: Option<Box<Session>>,
    /// Allocated when it is needed. Unread bytes are those from `start` to `end`.
    input: Vec<u8>,
    max_input: usize,
    start: usize,
    end: usize,
    /// Whether some input was read since the last arrived.
    has_progress: bool,
    /// The first `filled` bytes wait to be sent.
    output: Vec<u8>,
    output_step: usize,
    filled: usize,
    /// Of reading and writing, as they are set.
    timeouts: [Option<Duration>; 2],
    patience: Option<Patience>,
    /// An answer has arrived since [`Transport::is_open`] was asked.
    was_used: bool,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

type SetTimeout = fn(&TcpStream, Option<Duration>) -> std::io::Result<()>;
const READING: (usize, SetTimeout) = (0, TcpStream::set_read_timeout);
const WRITING: (usize, SetTimeout) = (1, TcpStream::set_write_timeout);

impl Socket {
    fn new(stream: TcpStream, max_input: usize, output_step: usize) -> Self {
        Socket {
            stream,
            tls: None,
            input: Vec::new(),
            max_input,
            start: 0,
            end: 0,
            has_progress: false,
            output: Vec::new(),
            output_step,
            filled: 0,
            timeouts: [None, None],
            patience: None,
            was_used: true,
        }
    }

    /// Does the handshake, until `end` at the latest.
    fn start_tls(&mut self, mut session: Session, end: Instant, timeout: NextTimeout) -> Result<(), Error> {
        while session.is_handshaking() {
            let left = NextTimeout { after: end.saturating_duration_since(Instant::now()).into(), ..timeout };
            self.set_timeout(WRITING, left)?;
            self.set_timeout(READING, left)?;
            session.step(&mut self.stream).map_err(|error| failed(error, left))?
        }
        self.tls = Some(Box::new(session));
        Ok(())
    }

    /// Errors: no time is left.
    fn set_timeout(&mut self, (which, set): (usize, SetTimeout), timeout: NextTimeout) -> Result<(), Error> {
        let wanted = *timeout.after;
        if wanted.is_zero() {
            return Err(Error::Timeout(timeout.reason));
        }
        let is_close = |kept: Duration| kept >= wanted && kept - wanted <= TOLERANCE.max(wanted / 16);
        if !self.timeouts[which].is_some_and(is_close) {
            match set(&self.stream, Some(wanted)) {
                Ok(()) => self.timeouts[which] = Some(wanted),
                // macOS refuses when the server has closed; its answer may be readable still
                Err(error) if error.kind() == ErrorKind::InvalidInput => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn flush(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        if self.filled == 0 {
            return Ok(());
        }
        self.set_timeout(WRITING, timeout)?;
        let output = &self.output[..std::mem::take(&mut self.filled)];
        let sent = match &mut self.tls {
            Some(session) => session.send(&mut self.stream, output),
            None => self.stream.write_all(output),
        };
        sent.map_err(|error| failed(error, timeout))
    }

    /// Receives something, at the end of the connection nothing, within the time and as long as there is patience.
    fn receive_within(&mut self, timeout: NextTimeout) -> Result<usize, Error> {
        let Some(patience) = self.patience.clone() else {
            self.set_timeout(READING, timeout)?;
            return self.receive().map_err(|error| failed(error, timeout));
        };
        let begin = Instant::now();
        loop {
            let left = timeout.after.saturating_sub(begin.elapsed());
            self.set_timeout(READING, NextTimeout { after: left.min(TICK).into(), ..timeout })?;
            match self.receive() {
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
                        && left > TICK
                        && patience(begin.elapsed()) => {}
                received => return received.map_err(|error| failed(error, timeout)),
            }
        }
    }

    fn receive(&mut self) -> std::io::Result<usize> {
        let into = &mut self.input[self.end..];
        if let Some(session) = &mut self.tls {
            return session.receive(&mut self.stream, into);
        }
        loop {
            match self.stream.read(into) {
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                amount => return amount,
            }
        }
    }

    /// Makes room for at least one byte of input, unless `max_input` of them are unread, and for `output_step` bytes of output.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start)
        }
        if self.end == self.input.len() {
            self.input.resize((2 * self.end).max(INPUT).min(self.max_input), 0)
        }
        if self.output.len() < self.filled + self.output_step {
            self.output.resize(self.filled + self.output_step, 0)
        }
    }
}

fn failed(error: std::io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

impl Buffers for Socket {
    fn output(&mut self) -> &mut [u8] {
        self.make_room();
        &mut self.output[self.filled..]
    }
    fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }
    fn input_append_buf(&mut self) -> &mut [u8] {
        self.make_room();
        &mut self.input[self.end..]
    }
    fn input_appended(&mut self, amount: usize) {
        self.end += amount
    }
    fn input_consume(&mut self, amount: usize) {
        self.has_progress = amount > 0;
        self.start += amount
    }
    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.make_room();
        (&mut self.input[self.end..], &mut self.output[self.filled..])
    }
    fn can_use_input(&self) -> bool {
        self.start < self.end && self.has_progress
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.filled += amount;
        if self.filled < FLUSH { Ok(()) } else { self.flush(timeout) }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.flush(timeout)?;
        self.make_room();
        if self.end == self.max_input {
            return Err(Error::LargeResponseHeader(self.end, self.max_input));
        }
        let amount = self.receive_within(timeout)?;
        self.end += amount;
        self.was_used = true;
        Ok(amount > 0)
    }

    fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// ureq asks after an answer, when nothing can have happened since, and before the next request.
    fn is_open(&mut self) -> bool {
        std::mem::take(&mut self.was_used)
            || recv(&self.stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) == Err(Errno::AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Socket::new(client, 100, 10), listener.accept().unwrap().0)
    }

    fn within(milliseconds: u64) -> NextTimeout {
        NextTimeout { after: Duration::from_millis(milliseconds).into(), ..NextTimeout::default() }
    }

    fn put(socket: &mut Socket, text: &[u8]) {
        socket.output()[..text.len()].copy_from_slice(text);
        socket.transmit_output(text.len(), within(20_000)).unwrap()
    }

    #[test]
    fn what_is_written_is_sent_when_an_answer_is_waited_for() {
        let (mut socket, mut server) = pair();
        put(&mut socket, b"head");
        put(&mut socket, b"body");
        server.set_nonblocking(true).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        server.set_nonblocking(false).unwrap();
        server.write_all(b"answer").unwrap();
        assert!(socket.await_input(within(20_000)).unwrap());
        assert_eq!(socket.input(), b"answer");
        let mut both = [0; 8];
        server.read_exact(&mut both).unwrap();
        assert_eq!(&both, b"headbody");
    }

    #[test]
    fn input_is_kept_until_it_is_consumed() {
        let (mut socket, mut server) = pair();
        server.write_all(b"abc").unwrap();
        assert!(socket.maybe_await_input(within(20_000)).unwrap());
        socket.input_consume(2);
        assert!(socket.can_use_input());
        socket.input_consume(0);
        server.write_all(b"d").unwrap();
        assert!(socket.maybe_await_input(within(20_000)).unwrap(), "no progress: more is needed");
        assert_eq!(socket.input(), b"cd");
        drop(server);
        socket.input_consume(0);
        assert!(!socket.maybe_await_input(within(20_000)).unwrap(), "the end");
    }

    #[test]
    fn no_answer_in_time_is_a_timeout() {
        let (mut socket, _server) = pair();
        assert!(matches!(socket.await_input(within(20)), Err(Error::Timeout(_))));
        assert!(matches!(socket.await_input(within(0)), Err(Error::Timeout(_))));
    }

    #[test]
    fn a_watch_waits_as_long_as_its_patience_lasts() {
        let (mut socket, mut server) = pair();
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = asked.clone();
        socket.patience = Some(Arc::new(move |silent| {
            counter.fetch_add(1, Relaxed);
            silent < 3 * TICK
        }));
        let begin = Instant::now();
        assert!(matches!(socket.await_input(within(20_000)), Err(Error::Timeout(_))));
        assert!(begin.elapsed() >= 3 * TICK && asked.load(Relaxed) >= 3, "{:?}", begin.elapsed());
        server.write_all(b"x").unwrap();
        assert!(socket.await_input(within(20_000)).unwrap(), "the connection can still be read");
    }

    #[test]
    fn a_timeout_is_set_when_it_changes_much() {
        let (mut socket, _server) = pair();
        let mut set = |milliseconds| {
            socket.set_timeout(READING, within(milliseconds)).unwrap();
            socket.timeouts[0].unwrap().as_millis()
        };
        assert_eq!(
            [set(10_000), set(9_900), set(9_500), set(9_000), set(9_100)],
            [10_000, 10_000, 10_000, 9_000, 9_100]
        );
    }

    #[test]
    fn a_connection_is_open_until_something_arrives_unasked() {
        let (mut socket, mut server) = pair();
        assert!(socket.is_open() && socket.is_open());
        server.write_all(b"x").unwrap();
        let begin = std::time::Instant::now();
        while socket.is_open() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the byte does not arrive");
        }
        let (mut socket, server) = pair();
        drop(server);
        socket.was_used = false;
        let begin = std::time::Instant::now();
        while socket.is_open() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the end does not arrive");
        }
    }
}
