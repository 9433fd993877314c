//! Progress of a connection between ticks.

/// Ticks at which nothing has moved.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    /// Consecutive ticks at which the same frame or header block was incomplete.
    pub read_ticks: u32,
    /// Bytes written since the connection began.
    pub written: u64,
    /// Value that `written` must reach, and the ticks at which it hadn't.
    pub write_goal: Option<(u64, u32)>,
}

impl Stall {
    /// Notes that nothing is incomplete.
    #[inline]
    pub(crate) const fn received(&mut self) {
        self.read_ticks = 0;
    }

    /// Notes that so many bytes were written.
    #[inline]
    pub(crate) const fn wrote(&mut self, count: usize) {
        self.written += count as u64;
    }
}
