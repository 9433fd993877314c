//! Results of polls: the server that answered, the proof of its answer, and evidence of an outage.

use crate::clock::Moment;
use crate::store::StoreError;
use crate::store::server::ServerId;

/// Identity of every SQLite file: files are told apart by device and inode.
pub(super) const FILE_SERVER_ID: &str = "file";

/// Server that polls come from.
#[derive(Debug, Clone)]
pub struct Server {
    /// Identity of the server.
    pub id: ServerId,
    /// Address and version, for people.
    pub name: String,
    /// Time since when polls come from it.
    pub since: Moment,
}

impl Server {
    /// Returns true if it is SQLite's file instead of a server.
    pub fn is_file(&self) -> bool {
        self.id == ServerId::new(FILE_SERVER_ID)
    }
}

/// Proof that a statement was answered by the primary, as of the moment before its connection was
/// opened.
#[derive(Debug, Clone)]
pub struct Proof {
    connected: Moment,
    server: ServerId,
}

impl Proof {
    pub(super) const fn new(connected: Moment, server: ServerId) -> Self {
        Self { connected, server }
    }

    /// Returns the server that answered.
    pub const fn server(&self) -> &ServerId {
        &self.server
    }

    /// Returns the moment from which a result counts whose read began at `began`.
    pub fn valid_from(&self, began: Moment) -> Moment {
        began.earlier(self.connected)
    }
}

/// Failed poll.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct PollError {
    /// Last error.
    pub error: StoreError,
    /// Evidence of an outage.
    pub evidence: Evidence,
}

/// Evidence of an outage that a failed poll gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// None: no new connection was tried, and an old one may just be dead.
    None,
    /// A new connection hasn't answered yet. That is enough if the old one answered lately.
    NoResponse,
    /// A new connection failed, or didn't answer in the time that opening one takes.
    Outage,
}
