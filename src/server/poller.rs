//! Waits for connections to become ready: one-shot events, each with the number of a slot. epoll on Linux, poll(2) elsewhere.
//!
//! Both have the same interface: `add` and `modify` arm a socket for one event; `wait` returns the next ready slot, or a wake-up.

#[cfg(all(target_os = "linux", not(feature = "portable-poller")))]
mod epoll;
#[cfg(any(not(target_os = "linux"), feature = "portable-poller"))]
mod portable;

#[cfg(all(target_os = "linux", not(feature = "portable-poller")))]
pub(super) use epoll::Poller;
#[cfg(any(not(target_os = "linux"), feature = "portable-poller"))]
pub(super) use portable::Poller;

use super::slot::Slot;
use rustix::event::Timespec;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What [`Poller::wait`] returns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PollEvent {
    /// The socket of this slot is ready, or its client has disconnected.
    Ready(Slot),
    /// Another thread has called [`Poller::wake`].
    Woken,
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}

/// A socket that carries one byte per wake-up.
#[derive(Debug)]
struct Alarm {
    write: UnixStream,
    read: UnixStream,
}

impl Alarm {
    fn new() -> std::io::Result<Self> {
        let (write, read) = UnixStream::pair()?;
        write.set_nonblocking(true)?;
        read.set_nonblocking(true)?;
        Ok(Alarm { write, read })
    }

    /// A full socket needs no further byte.
    fn ring(&self) {
        let _ = (&self.write).write(&[0]);
    }

    /// Takes one byte. Returns false if there is none.
    fn silence(&self) -> bool {
        loop {
            match (&self.read).read(&mut [0]) {
                Ok(bytes) => return bytes > 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Interest;
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    const NOW: Option<Duration> = Some(Duration::ZERO);
    const SOON: Option<Duration> = Some(Duration::from_secs(20));

    #[test]
    fn each_armed_socket_gives_one_event() {
        let poller = Poller::new().unwrap();
        let (server, mut client) = pair();
        let slot = Slot::new(5);
        poller.add(&server, slot, Interest::Readable).unwrap();
        assert_eq!(poller.wait(NOW), None);
        client.write_all(b"x").unwrap();
        assert_eq!(poller.wait(SOON), Some(PollEvent::Ready(slot)));
        assert_eq!(poller.wait(NOW), None, "not before it is armed again");
        poller.modify(&server, slot, Interest::Readable).unwrap();
        assert!(poller.has_ready());
        assert_eq!(poller.wait(SOON), Some(PollEvent::Ready(slot)));
        poller.modify(&server, slot, Interest::Nothing).unwrap();
        assert_eq!(poller.wait(NOW), None, "input is of no interest");
        poller.modify(&server, slot, Interest::Writable).unwrap();
        assert_eq!(poller.wait(SOON), Some(PollEvent::Ready(slot)));
        poller.remove(slot.index);
        drop(server);
        assert_eq!(poller.wait(NOW), None);
    }

    #[test]
    fn a_thread_that_waits_sees_what_others_arm() {
        let poller = Poller::new().unwrap();
        let (server, mut client) = pair();
        client.write_all(b"x").unwrap();
        std::thread::scope(|scope| {
            let waiting = [scope.spawn(|| poller.wait(SOON)), scope.spawn(|| poller.wait(SOON))];
            poller.add(&server, Slot::new(1), Interest::Readable).unwrap();
            poller.wake();
            let mut events = waiting.map(|thread| thread.join().unwrap());
            events.sort_by_key(|event| matches!(event, Some(PollEvent::Woken)));
            assert_eq!(events, [Some(PollEvent::Ready(Slot::new(1))), Some(PollEvent::Woken)]);
        });
    }
}
