//! Changes of the log's file that somebody else makes.

/// Change of the file that somebody else made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutsideChange {
    /// The file has another name now, or another file has its name.
    Moved,
    /// The file was removed.
    Removed,
    /// The file is shorter than what was written to it.
    Truncated,
    /// The file is longer than what was written to it.
    Extended,
}

impl OutsideChange {
    /// All changes.
    pub const ALL: [Self; 4] = [Self::Moved, Self::Removed, Self::Truncated, Self::Extended];

    /// Returns the name in the log, in metrics and in the status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Removed => "removed",
            Self::Truncated => "truncated",
            Self::Extended => "extended",
        }
    }
}
