//! Whether the client of a connection has left, or has reset it.

use super::{Connection, Interest};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
#[cfg(not(target_os = "linux"))]
use rustix::net::{RecvFlags, recv};

impl Connection {
    /// Whether its client has ended the connection, or its half of it; if the system does not report that, only while nothing is unread.
    pub(in crate::server) fn has_left(&self) -> bool {
        #[cfg(target_os = "linux")]
        {
            !self.polled(PollFlags::RDHUP).is_empty()
        }
        #[cfg(not(target_os = "linux"))]
        match recv(&self.stream, &mut [0; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Ok((_, bytes)) => bytes == 0,
            Err(_) => self.is_reset(),
        }
    }

    /// Whether its client has reset it, also where what was sent before is unread.
    pub(in crate::server) fn is_reset(&self) -> bool {
        self.polled(PollFlags::empty()).intersects(PollFlags::ERR | PollFlags::HUP)
    }

    fn polled(&self, wanted: PollFlags) -> PollFlags {
        let mut polled = [PollFd::new(&self.stream, wanted)];
        let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })); // an error: nothing is known
        polled[0].revents()
    }

    /// What reports that its client disconnects. If the end of a connection is input, unread bytes hide it.
    pub(in crate::server) fn parked_interest(&self) -> Interest {
        let hides = cfg!(any(not(target_os = "linux"), feature = "portable-poller")) && self.has_unread();
        if hides { Interest::Nothing } else { Interest::Hangup }
    }
}
