//! Seam for the simulation of several instances (`tests/sim` of the product): the protocol of one
//! stream without its transport, and the use of what it has told without Envoy.

use std::cell::Cell;
use std::time::Duration;

use talos_proto::edge::{FromModule, FromServer};

use crate::clock::{BootTime, Clock, Moment, Timestamp};
use crate::config::RouteSettings;
use crate::session::Session;
use crate::state::Lookup;

/// Reads boot time and wall time in microseconds.
pub type Read = fn() -> (u64, i64);

/// Bytes that entries may take.
const MAX_BYTES: u64 = 1 << 20;

thread_local! {
    static READ: Cell<Option<Read>> = const { Cell::new(None) };
}

fn moment() -> Moment {
    let (boot, wall) = READ.get().map_or((0, 0), |read| read());
    Moment { boot: BootTime::from_micros(boot), wall: Timestamp::from_micros(wall) }
}

/// Protocol of one stream, on one thread.
pub struct Stream {
    session: Session,
    route: RouteSettings,
}

impl Stream {
    /// Creates the state before the first message; the clocks are read by `read`.
    pub fn new(read: Read) -> Self {
        READ.set(Some(read));
        let route = RouteSettings { accelerate: true, extensions: vec![], fingerprint: [0; 32] };
        Self { session: Session::new(Clock::read_by(moment), MAX_BYTES), route }
    }

    /// Returns the first message.
    pub fn hello() -> FromModule {
        Session::hello("simulated")
    }

    /// Returns true once the server has said its Hello.
    pub fn has_begun(&self) -> bool {
        self.session.state().is_some()
    }

    /// Returns the time between two ticks.
    pub const fn tick_interval(&self) -> Duration {
        self.session.tick_interval()
    }

    /// Applies a message.
    ///
    /// # Errors
    /// The reason for which the stream must be ended.
    pub fn receive(&mut self, message: FromServer) -> Result<(), String> {
        self.session.receive(message).map_err(|error| error.to_string())
    }

    /// Returns the next tick.
    ///
    /// # Errors
    /// The reason for which the stream must be ended.
    pub fn tick(&mut self) -> Result<FromModule, String> {
        self.session.tick().map_err(|error| error.to_string())
    }

    /// Returns the questions that may be asked now.
    pub fn asks(&mut self) -> Vec<FromModule> {
        self.session.asks()
    }

    /// Decides about a request with this credential as the filter does, and returns true if it
    /// would let it pass. Otherwise the server is asked about it soon.
    pub fn passes(&self, credential: &str) -> bool {
        let Some(state) = self.session.state() else { return false };
        let settings = state.settings();
        let Some(settings) = &*settings else { return false };
        let lookup = Lookup { credential: credential.as_bytes(), route: &self.route, host: None, settings };
        let found = state.find(lookup);
        if let Ok(found) = &found {
            state.refresh_if_due(found, lookup);
        }
        found.is_ok()
    }
}
