//! State of the deny list's file (`consistency.deny_file`), as status and metrics report it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;

use crate::clock::BootTime;

/// State of the file.
#[derive(Default)]
pub struct DenyFile {
    is_stale: AtomicBool,
    held: AtomicU64,
    /// Keys that were refused and no longer are.
    pub lifted: Counter,
    shrunk: ArcSwapOption<Shrunk>,
}

/// A list that lost so many keys that it needed a second look, and got into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shrunk {
    /// Keys refused before.
    pub from: u64,
    /// Keys refused since.
    pub to: u64,
    /// Since when.
    pub at: BootTime,
}

impl DenyFile {
    /// Notes whether what the file says is in force.
    pub fn set_current(&self, is_current: bool) {
        self.is_stale.store(!is_current, Ordering::Relaxed);
    }

    /// Whether what the file says is in force; true without a file.
    pub fn is_current(&self) -> bool {
        !self.is_stale.load(Ordering::Relaxed)
    }

    /// Notes how many keys are still refused although the file no longer names them.
    pub fn set_held(&self, keys: usize) {
        self.held.store(keys as u64, Ordering::Relaxed);
    }

    /// How many keys are still refused although the file no longer names them.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Notes that a list which needed a second look is in force.
    pub fn set_shrunk(&self, shrunk: Shrunk) {
        self.shrunk.store(Some(Arc::new(shrunk)));
    }

    /// The last list that needed a second look and is in force.
    pub fn shrunk(&self) -> Option<Shrunk> {
        self.shrunk.load().as_deref().copied()
    }
}
