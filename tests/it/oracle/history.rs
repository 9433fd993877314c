//! The history of a run: questions, answers and changes, all by the tests' own clock.

/// Microseconds since the run began, by a monotonic clock.
pub type Micros = u64;

/// From just before something was sent to just after its answer came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    pub began: Micros,
    pub ended: Micros,
}

/// A credential, by its place in the history.
pub type Index = usize;

/// A credential and its life.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Origin of the key; None for a credential that never was one.
    pub origin: Option<Origin>,
    pub end: Option<End>,
    /// Suspensions of the key or of its actor, in the order of time.
    pub pauses: Vec<Pause>,
}

/// A suspension, from the call that made it to the one that took it back.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    pub began: Change,
    pub ended: Option<Change>,
}

/// A change of a suspension.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub instance: usize,
    pub span: Span,
    /// False when the answer was that we failed, or none: then it may have happened, or may still.
    pub acknowledged: bool,
}

/// A creation that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub instance: usize,
    pub span: Span,
    /// True if it may have been asked about, and cached as unknown, before.
    pub imported: bool,
}

/// The change that ended a key, or may have.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub how: How,
    pub instance: usize,
    pub span: Span,
    /// False when the answer was that we failed, or none: then it may have happened, or may still.
    pub acknowledged: bool,
    /// The phase in which the change ended.
    pub phase: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    Revoked,
    SelfRevoked,
    Rotated,
    Deleted,
}

/// A question and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    pub credential: Index,
    pub instance: usize,
    pub asked: Asked,
    pub span: Span,
    pub answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Asked {
    /// A Check, as Envoy asks.
    Check,
    /// Verify with `Cache-Control: no-cache`: the database's own word.
    NoCache,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Allowed,
    Refused,
    /// The instance couldn't tell.
    Unavailable,
}

/// The bound that an instance said was in force.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub instance: usize,
    pub span: Span,
    pub bound: Micros,
    /// Number of outages of the database found by then.
    pub outages: u64,
}

#[derive(Debug, Default)]
pub struct History {
    pub credentials: Vec<Credential>,
    pub verdicts: Vec<Verdict>,
    /// Readings of each instance in the order of time.
    pub readings: Vec<Reading>,
}
