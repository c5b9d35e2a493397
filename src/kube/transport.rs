//! What lies below ureq: name resolution, TCP and TLS. Of HTTP/1.1, ureq still writes requests, reads heads and frames bodies, and it keeps the
//! connection for the next call.

mod resolver;
mod socket;
pub(super) mod tls;

pub(super) use resolver::Numeric;
pub(crate) use socket::Patience;
pub(super) use socket::Sockets;
