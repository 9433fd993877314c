//! Limits on connections to all planes: how many, how long, how much memory. Sizes of messages and
//! bodies stand beside the code that parses them.

use std::time::Duration;

use http2_server::MemoryLimits;

use crate::authz::ConnectionLimits;

/// Open connections of one listener; further ones wait in the kernel's queue.
pub(super) const MAX_CONNECTIONS: usize = 10_000;
/// Open connections of one listener from one address, or from one /64 of IPv6. A further one is
/// closed at once.
pub(super) const MAX_CONNECTIONS_PER_ADDRESS: u32 = 5_000;
/// Connections that may wait in the kernel's queue to be accepted, if `net.core.somaxconn` allows
/// it. After a restart a whole mesh connects at once; a client that finds the queue full retries
/// only after 1, 3 and 7 seconds.
pub(super) const LISTEN_BACKLOG: u32 = 4_096;
/// Pause after a failed accept, for example when no file descriptors are left.
pub(super) const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Time for a client to complete the TLS handshake.
pub(super) const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that a client may send in its TLS handshake: several long certificates. No more than each
/// connection is guaranteed in [`HTTP_MEMORY`] and [`AUTHZ_MEMORY`].
pub(super) const MAX_TLS_HANDSHAKE: usize = GUARANTEED_MEMORY;
/// Time for a client to send the header of a request, or the first byte of a new connection. On the
/// authz plane also the time for a whole frame, a header block, and the message of a call.
pub(super) const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Time from the header of a request to the last byte of the response, which a client may be slow
/// to read. Reading the body (`http/body.rs`) and handling the request (`http/middleware.rs`) have
/// shorter limits of their own.
pub(super) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that a connection may stay without a request. Load balancers keep idle ones for a minute.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Time for a client to close an idle connection after it was told to.
pub(super) const IDLE_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the last bytes to reach a client whose connection is closed for a fault of its own.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Time for requests in flight to complete once the process is told to stop.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence on an HTTP/2 connection after which a PING is sent.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Time for the client to acknowledge that PING.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Size of a request's header, in bytes.
pub(super) const MAX_HEADER_LIST_SIZE: u32 = 64 * 1024;
/// Bytes of a request's body that may arrive over HTTP/2 before they are read.
pub(super) const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes of all bodies of an HTTP/2 connection that may arrive before they are read.
pub(super) const HTTP2_CONNECTION_WINDOW: u32 = 256 * 1024;
/// Concurrent streams of an HTTP/2 connection to an HTTP plane.
pub(super) const MAX_CONCURRENT_STREAMS: u32 = 128;
/// Requests that a client of an HTTP plane may cancel on one connection, if these are more than
/// half of all its requests.
pub(super) const MAX_CANCELLED_REQUESTS: u64 = 200;

/// Limits of a connection to the authz plane.
pub(super) const AUTHZ: ConnectionLimits = ConnectionLimits {
    read_timeout: HEADER_READ_TIMEOUT,
    keepalive_interval: KEEPALIVE_INTERVAL,
    keepalive_timeout: KEEPALIVE_TIMEOUT,
    // Envoy sends all Checks of a worker thread over one connection.
    max_concurrent_streams: 1_024,
    // Per half minute, beside completed streams: resets, pings, settings. The limit is high, as
    // closing the connection fails everything in flight on it, and a machine that was starved of
    // CPU time for a moment sees many Checks cancelled. Strangers reach the HTTP planes only.
    abuse_budget: 10_240,
    max_header_list_size: MAX_HEADER_LIST_SIZE,
    // Counts whether the client answers pings meanwhile or not.
    write_timeout: Duration::from_secs(20),
    fallback_timeout: EXCHANGE_TIMEOUT,
    watch_timeout: Duration::from_secs(3_600),
    max_fallback_streams: 128,
    // Bytes, overhead included.
    max_pending: 4 * 1024 * 1024,
    drain_timeout: DRAIN_TIMEOUT,
    close_timeout: CLOSE_TIMEOUT,
};

/// Memory that each connection has for certain, in bytes.
const GUARANTEED_MEMORY: usize = 32 * 1024;

/// Memory of connections to the HTTP planes, in bytes: headers, bodies, responses that clients have
/// not read. A connection has room for two of the largest body, once as it came and once parsed. It
/// never gets more than is left for all others.
pub(super) const HTTP_MEMORY: MemoryLimits =
    MemoryLimits { connection: 16 * 1024 * 1024, guaranteed: GUARANTEED_MEMORY, process: 64 * 1024 * 1024 };

/// Memory of connections to the authz plane, in bytes: HTTP/2 buffers and tables, incomplete
/// messages, waiting calls, unread responses. A connection has room for four messages of the
/// largest size, the process for as many such connections. The guaranteed part is enough for Checks
/// that are answered at once, and for a health check.
pub(super) const AUTHZ_MEMORY: MemoryLimits =
    MemoryLimits { connection: 16 * 1024 * 1024, guaranteed: GUARANTEED_MEMORY, process: 64 * 1024 * 1024 };
