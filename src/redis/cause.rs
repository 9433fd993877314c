//! Causes for which Redis can't be used: what it or the network said, and the cure.

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

/// Cause for which Redis can't be used, and the text behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Kind.
    pub kind: CauseKind,
    /// Words of the server or of the network. Never has a password.
    pub reason: String,
}

/// Kind of a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CauseKind {
    /// No server answers at the address.
    Unreachable,
    /// TLS fails: an unknown issuer, a wrong name, an expired certificate, or plaintext.
    Tls,
    /// The user or the password is wrong.
    Credentials,
    /// The user lacks a right.
    Rights,
    /// The server is a replica, and takes no writes.
    Replica,
    /// The Sentinels know no primary.
    NoPrimary,
    /// The address is a Sentinel's.
    SentinelAddress,
    /// The cluster is down, or the address and the cluster don't fit together.
    Cluster,
    /// Memory is full, and nothing may be evicted.
    OutOfMemory,
    /// The server has just begun, and loads its data.
    Loading,
    /// Commands take longer than a Check may wait.
    Slow,
    /// The primary that was found can only be reached in plaintext, which isn't allowed.
    Plaintext,
    /// Any other error of the server.
    Server,
}

impl CauseKind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Unreachable,
        Self::Tls,
        Self::Credentials,
        Self::Rights,
        Self::Replica,
        Self::NoPrimary,
        Self::SentinelAddress,
        Self::Cluster,
        Self::OutOfMemory,
        Self::Loading,
        Self::Slow,
        Self::Plaintext,
        Self::Server,
    ];

    /// Returns the name for metrics and `talos status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Credentials => "credentials",
            Self::Rights => "rights",
            Self::Replica => "replica",
            Self::NoPrimary => "no_primary",
            Self::SentinelAddress => "sentinel_address",
            Self::Cluster => "cluster",
            Self::OutOfMemory => "out_of_memory",
            Self::Loading => "loading",
            Self::Slow => "slow",
            Self::Plaintext => "plaintext",
            Self::Server => "server",
        }
    }

    /// Returns what an operator should do.
    pub const fn cure(self) -> &'static str {
        match self {
            Self::Unreachable => "check cache.redis.addrs, the network, and that Redis runs",
            Self::Tls => {
                "check cache.redis.tls: ca_file must hold the issuer in force; it is read again each time"
            }
            Self::Credentials => "check cache.redis.username and cache.redis.password",
            Self::Rights => "give the user the commands, keys and channel that docs/rate-limits.md lists",
            Self::Replica => {
                "promote it, or let cache.redis.addrs lead to the primary; with Sentinels set cache.redis.sentinel.master"
            }
            Self::NoPrimary => "check cache.redis.sentinel.master and the Sentinels",
            Self::SentinelAddress => "set cache.redis.sentinel.master to the name of the primary",
            Self::Cluster => "check CLUSTER INFO; several addresses must be nodes of one cluster",
            Self::OutOfMemory => "raise maxmemory, or set a maxmemory-policy that evicts",
            Self::Loading => "wait until Redis has loaded its data",
            Self::Slow => "look at Redis' latency and load, or raise cache.redis.check_timeout",
            Self::Plaintext => {
                "set cache.redis.tls.enabled to true, or to false for plaintext to any machine"
            }
            Self::Server => "look at what Redis says",
        }
    }

    /// Returns true if only a new connection can show that the cause is gone.
    pub(super) const fn needs_new_connection(self) -> bool {
        !matches!(self, Self::OutOfMemory | Self::Loading | Self::Slow | Self::Server)
    }
}

impl Cause {
    /// Creates a cause.
    pub(super) fn new(kind: CauseKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    /// Creates the cause of a server that doesn't answer.
    pub(super) fn timed_out() -> Self {
        Self::new(CauseKind::Unreachable, "no answer in time")
    }
}

impl From<RedisError> for Cause {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            // The text quotes what the other server sent.
            ErrorKind::Parse => Self::new(CauseKind::Unreachable, "it doesn't speak Redis' protocol"),
            _ => Self::new(kind_of(&error), error.to_string()),
        }
    }
}

/// Returns the kind of an error's cause.
fn kind_of(error: &RedisError) -> CauseKind {
    // A script's errors have the code ERR, and the reason in words.
    let text = error.to_string().to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match error.kind() {
        ErrorKind::AuthenticationFailed => return CauseKind::Credentials,
        ErrorKind::ClusterConnectionNotFound => return CauseKind::Unreachable,
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown => return CauseKind::Replica,
            ServerErrorKind::NoPerm => return CauseKind::Rights,
            ServerErrorKind::BusyLoading => return CauseKind::Loading,
            ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::TryAgain
            | ServerErrorKind::CrossSlot => return CauseKind::Cluster,
            _ => {}
        },
        _ => {}
    }
    match error.code() {
        Some("NOAUTH" | "WRONGPASS") => return CauseKind::Credentials,
        Some("OOM") => return CauseKind::OutOfMemory,
        _ => {}
    }
    if says(&["acl failure", "no permissions", "can't run this command or subcommand", "noperm"]) {
        CauseKind::Rights
    } else if says(&["noauth", "wrongpass", "invalid username-password", "password"]) {
        CauseKind::Credentials
    } else if says(&["cluster support disabled", "clusterdown"]) {
        CauseKind::Cluster
    } else if says(&["certificate", "tls", "handshake", "peer is incompatible", "corrupt message"]) {
        CauseKind::Tls
    } else if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
        CauseKind::Unreachable
    } else {
        CauseKind::Server
    }
}
