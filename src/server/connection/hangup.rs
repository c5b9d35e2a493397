//! Whether the client of a connection leaves, while it waits for the end of a Job.

use super::{Connection, Interest};
#[cfg(target_os = "linux")]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
#[cfg(not(target_os = "linux"))]
use rustix::net::{RecvFlags, recv};

impl Connection {
    /// Whether its client has ended the connection, or its half of it; where the system does not tell that, only while nothing is unread.
    pub(in crate::server) fn has_left(&self) -> bool {
        #[cfg(target_os = "linux")]
        {
            let mut polled = [PollFd::new(&self.stream, PollFlags::RDHUP)];
            poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
        }
        #[cfg(not(target_os = "linux"))]
        match recv(&self.stream, &mut [0; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Ok((_, bytes)) => bytes == 0,
            Err(_) => self.is_reset(),
        }
    }

    /// What tells that its client leaves. Where the end of a connection is input, what is unread hides it.
    pub(in crate::server) fn parked_interest(&self) -> Interest {
        let hides = cfg!(any(not(target_os = "linux"), feature = "portable-poller")) && self.has_unread();
        if hides { Interest::Nothing } else { Interest::Hangup }
    }
}
