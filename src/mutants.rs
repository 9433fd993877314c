//! Checks that the simulation takes out one at a time: a simulator that doesn't notice is too weak.
//!
//! Without the feature `sim` every question is answered with a constant false, so nothing of this
//! is in a release.

/// A check that is taken out, or a step that is made in the wrong order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Changed keys are deleted from the cache; entries have no stamps.
    DeleteOnly,
    /// The lease counts from the end of a poll.
    LeaseFromTheEnd,
    /// The number of the log is read after the row, by another statement.
    NumberAfterTheRow,
    /// Entries are used until their TTL ends.
    TtlOnly,
    /// A poll counts from its start, however old its connection is.
    OldConnection,
    /// The answers of a standby or of a read-only server count. Like the next two, it is made by a
    /// simulated server, which passes the check whatever is true.
    AnyRole,
    /// Entries of the log are compared by number only.
    TagsIgnored,
    /// Reads see what isn't committed.
    DirtyReads,
    /// The answers of any server count, whichever polls come from.
    AnyServer,
    /// A time-out during a stall, or on a connection from before it, counts as an outage.
    AnyTimeout,
    /// An outage that was found before a stall is valid after it.
    OldOutage,
    /// Issuing a key writes no entry of the log.
    IssuesUnlogged,
    /// The log heads that lookups observed needn't be in the log.
    HeadsIgnored,
    /// The number that this process wrote last needn't be in the log.
    WrittenIgnored,
    /// A change isn't applied to the instance that made it.
    NotPublished,
    /// A server's answer that a key is unknown counts after another server has taken over.
    UnknownAnywhere,
    /// The module in Envoy counts its lease from the arrival of an answer. The next four are made
    /// by the simulated stream.
    EdgeFromTheArrival,
    /// Changes that come with an answer are applied when the next one comes.
    EdgeChangesLate,
    /// The age of the lease is measured by a clock that stands still in a suspend.
    EdgeOtherClock,
    /// Entries of one stream are used with the knowledge of the next.
    EdgeTwoStreams,
    /// The server answers with entries that aren't fresh any more.
    EdgeUnchecked,
    /// Entries that others put into Redis count as if they were read just now.
    SharedUnstamped,
    /// The relayed lease counts from the arrival of the response.
    RelayFromTheArrival,
    /// A request is answered by a poll that began before it was read.
    RelayOfBefore,
    /// A change of an actor leaves the rows of its keys fresh.
    ActorsIgnored,
}

impl Mutant {
    /// All mutants.
    pub const ALL: [Self; 25] = [
        Self::DeleteOnly,
        Self::LeaseFromTheEnd,
        Self::NumberAfterTheRow,
        Self::TtlOnly,
        Self::OldConnection,
        Self::AnyRole,
        Self::TagsIgnored,
        Self::DirtyReads,
        Self::AnyServer,
        Self::AnyTimeout,
        Self::OldOutage,
        Self::IssuesUnlogged,
        Self::HeadsIgnored,
        Self::WrittenIgnored,
        Self::NotPublished,
        Self::UnknownAnywhere,
        Self::EdgeFromTheArrival,
        Self::EdgeChangesLate,
        Self::EdgeOtherClock,
        Self::EdgeTwoStreams,
        Self::EdgeUnchecked,
        Self::SharedUnstamped,
        Self::RelayFromTheArrival,
        Self::RelayOfBefore,
        Self::ActorsIgnored,
    ];
}

#[cfg(feature = "sim")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Takes a check out for all code that runs on this thread; `None` puts it back.
    pub fn switch_on(mutant: Option<Mutant>) {
        ON.set(mutant);
    }

    /// Returns true if this check is taken out on this thread.
    pub fn is_on(mutant: Mutant) -> bool {
        ON.get() == Some(mutant)
    }
}

#[cfg(feature = "sim")]
pub use switch::{is_on, switch_on};

/// Returns false: no check is taken out.
#[cfg(not(feature = "sim"))]
pub(crate) const fn is_on(_: Mutant) -> bool {
    false
}
