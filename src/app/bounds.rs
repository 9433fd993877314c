//! How much a stranger may take of us: every bound on connections, in one place.

use std::time::Duration;

/// Most connections of one listener; further ones wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 10_000;
/// Most of them from one address, or from one /64 of IPv6; further ones are closed at once.
pub const MAX_PER_ADDRESS: u32 = 5_000;
/// How long a client may take for the TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after accepting failed, as it does when descriptors are used up.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take to send the head of a request, or leave a connection idle.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a silent HTTP/2 connection is asked whether it is still there, and how long it may take to say so.
pub const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Most streams of one HTTP/2 connection at once: Envoy sends all Checks of a worker over one.
pub const MAX_STREAMS: u32 = 1_024;
/// Most Checks that Envoy has given up before we read them. More, and the connection is closed, with all that is in
/// flight on it: after a moment in which the machine gave us no time, that would make it worse. Browsers and other
/// strangers reach the other planes only.
pub const MAX_CANCELLED: usize = 10_240;
/// Largest head of a request, in bytes.
pub const MAX_HEADERS: u32 = 64 * 1024;
/// How long what is under way may take once we are told to stop.
pub const DRAIN: Duration = Duration::from_secs(10);
