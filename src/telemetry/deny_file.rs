//! State of the deny file (`consistency.deny_file`), for status and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;

use crate::clock::BootTime;

/// State of the deny file.
#[derive(Default)]
pub struct DenyFile {
    is_stale: AtomicBool,
    held: AtomicU64,
    /// Keys that were removed from the list and are no longer refused by it.
    pub lifted: Counter,
    shrunk: ArcSwapOption<Shrunk>,
}

/// A list with far fewer keys than the one before, which was put into force after a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shrunk {
    /// Number of keys refused before.
    pub from: u64,
    /// Number of keys refused since.
    pub to: u64,
    /// Time at which it was put into force.
    pub at: BootTime,
}

impl DenyFile {
    /// Sets whether the content of the file is in force.
    pub fn set_current(&self, is_current: bool) {
        self.is_stale.store(!is_current, Ordering::Relaxed);
    }

    /// Returns true if the content of the file is in force; true without a file.
    pub fn is_current(&self) -> bool {
        !self.is_stale.load(Ordering::Relaxed)
    }

    /// Sets the number of keys that are refused although the file no longer names them.
    pub fn set_held(&self, keys: usize) {
        self.held.store(keys as u64, Ordering::Relaxed);
    }

    /// Number of keys that are refused although the file no longer names them.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Records that a far shorter list was put into force.
    pub fn set_shrunk(&self, shrunk: Shrunk) {
        self.shrunk.store(Some(Arc::new(shrunk)));
    }

    /// The last far shorter list that was put into force.
    pub fn shrunk(&self) -> Option<Shrunk> {
        self.shrunk.load().as_deref().copied()
    }
}
