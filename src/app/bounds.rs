//! How much a stranger may take of us: every bound on connections, in one place.

use std::time::Duration;

use crate::authz::MemoryLimits;

/// Most connections of one listener; further ones wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 10_000;
/// Most of them from one address, or from one /64 of IPv6; further ones are closed at once.
pub const MAX_PER_ADDRESS: u32 = 5_000;
/// Most connections that wait in the kernel's queue to be accepted, if `net.core.somaxconn` lets as many wait: all of a
/// mesh may come at once after a restart, and who finds the queue full tries again a second later, or three, or seven.
pub const BACKLOG: u32 = 4_096;
/// How long a client may take for the TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after accepting failed, as it does when descriptors are used up.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take to send the head of a request, or anything at all at first; of the authz plane, to send
/// all of a frame, of a head and of a call's message.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take from the head of a request to the last byte of the answer, which it may be slow to read. The
/// body has a bound of its own within that (`http/body.rs`), as has what we do (`http/guard.rs`).
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may leave a connection without a request. Load balancers keep theirs for a minute.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long it may take to end a connection itself once we have told it to.
pub const GOODBYE: Duration = Duration::from_secs(5);
/// How long it may take to hear that, when it was slow.
pub const LAST_WORDS: Duration = Duration::from_millis(500);
/// Requests that a client of an HTTP plane may give up on one connection, if these are more than half of all.
pub const MAX_GIVEN_UP: u64 = 200;
/// Most streams of one HTTP/2 connection to an HTTP plane at once.
pub const MAX_HTTP_STREAMS: u32 = 128;
/// How long an HTTP/2 connection may be silent before it is asked whether it is still there, and how long it may take to
/// say so.
pub const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Most streams of one HTTP/2 connection at once: Envoy sends all Checks of a worker over one.
pub const MAX_STREAMS: u32 = 1_024;
/// Most frames of an authz connection that make nothing but work, for each half minute and beside calls that are
/// answered: calls that are given up, pings, settings. More, and the connection is closed, with all that is in flight
/// on it: after a moment in which the machine gave us no time, that would make it worse. Browsers and other strangers
/// reach the other planes only.
pub const MAX_UNREST: u32 = 10_240;
/// Largest head of a request, in bytes.
pub const MAX_HEADERS: u32 = 64 * 1024;
/// How long what is under way may take once we are told to stop.
pub const DRAIN: Duration = Duration::from_secs(10);
/// How long a client of the authz plane may leave an answer, or a part of it, without taking it:
/// whether it answers pings meanwhile or not.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a call of the authz plane that isn't a Check may take, from its head to the end of its
/// answer.
pub const CALL_TIMEOUT: Duration = EXCHANGE_TIMEOUT;
/// How long a health check may be watched by one call.
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Most calls of an authz connection at once that aren't Checks.
pub const MAX_OTHER_CALLS: u32 = 128;
/// Most answers of an authz connection that wait for its client's windows, in bytes, overhead
/// counted.
pub const MAX_QUEUED: usize = 4 * 1024 * 1024;
/// Memory that connections of the authz plane may hold, in bytes: buffers and tables of HTTP/2,
/// messages that aren't complete, calls that wait, answers that aren't taken. Four messages of the
/// largest size fit into one connection's, so many connections into the process'. What each has for
/// certain is enough for Checks that are answered at once, and for a health check.
pub const MEMORY: MemoryLimits =
    MemoryLimits { connection: 16 * 1024 * 1024, guaranteed: 32 * 1024, process: 64 * 1024 * 1024 };
