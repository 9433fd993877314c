//! One stream's protocol, without its transport: what to send, and what a message changes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message;
use talos_proto::edge::{
    Ask, Change, Extension, FromModule, FromServer, Knowledge, ModuleHello, NoEntryReason, ServerHello, Tick,
    Use, Used, from_module, from_server,
};

use crate::cache::{Bounds, CacheKey};
use crate::clock::{Clock, Moment};
use crate::entry::Entry;
#[cfg(feature = "sim")]
use crate::mutants::{self, Mutant};
use crate::settings::Settings;
use crate::state::{Question, State};

/// Version of the protocol.
const PROTOCOL: u32 = 1;
/// Length of the server's seed in bytes.
const SEED_LEN: usize = 64;
/// Largest message to the server in bytes.
pub(crate) const MAX_SENT_BYTES: usize = 16 * 1024;
/// Ticks without an answer after which the stream is given up.
const MAX_TICKS: usize = 16;
/// Ticks without an answer up to which the server seems to read.
const MAX_UNREAD_TICKS: usize = 3;
/// Time between two ticks, unless the server says another.
const DEFAULT_TICK: Duration = Duration::from_millis(500);
/// Bounds of the time between two ticks.
const TICK_RANGE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// Time after a miss before the server is asked: the Check of the same request shall come first.
const ASK_DELAY_MICROS: u64 = 20_000;
/// Bounds of the time for which nothing is asked after an answer without an entry.
const MAX_PAUSE_MICROS: u64 = 600_000_000;
/// Most uses in one row.
const MAX_USES: u64 = 10_000_000;

/// Problem for which the stream is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    /// The server's first message isn't its Hello.
    #[error("the server did not begin with its hello")]
    NoHello,
    /// The server speaks another version.
    #[error("the server chose protocol {0}, which this module does not speak")]
    Version(u32),
    /// The seed has another length.
    #[error("the server's seed is not 64 bytes long")]
    Seed,
    /// An answer names no tick that waits for one.
    #[error("the server answered a tick that was not sent")]
    UnknownTick,
    /// The server doesn't answer.
    #[error("the server answered none of the last {MAX_TICKS} ticks")]
    Silent,
}

/// Protocol of one stream.
pub(crate) struct Session {
    clock: Clock,
    max_bytes: u64,
    /// Set by the server's Hello.
    state: Option<Arc<State>>,
    /// Generation of the newest settings, whether they can be followed or not.
    newest: u64,
    settings: Option<Arc<Settings>>,
    ticks: VecDeque<(u64, Moment)>,
    next_id: u64,
    asked: HashMap<u64, CacheKey>,
    max_asks: usize,
    max_used_rows: usize,
    tick: Duration,
}

impl Session {
    /// Creates the state before the first message.
    pub(crate) fn new(clock: Clock, max_bytes: u64) -> Self {
        Self {
            clock,
            max_bytes,
            state: None,
            newest: 0,
            settings: None,
            ticks: VecDeque::new(),
            next_id: 1,
            asked: HashMap::new(),
            max_asks: 0,
            max_used_rows: 0,
            tick: DEFAULT_TICK,
        }
    }

    /// Returns the first message.
    pub(crate) fn hello(envoy: &str) -> FromModule {
        message(from_module::Message::Hello(ModuleHello {
            min_protocol: PROTOCOL,
            max_protocol: PROTOCOL,
            module_version: env!("CARGO_PKG_VERSION").to_owned(),
            envoy_version: envoy.to_owned(),
        }))
    }

    /// Returns what the stream has told so far, for the threads of Envoy.
    pub(crate) const fn state(&self) -> Option<&Arc<State>> {
        self.state.as_ref()
    }

    /// Returns the time between two ticks.
    pub(crate) const fn tick_interval(&self) -> Duration {
        self.tick
    }

    /// Applies a message.
    ///
    /// # Errors
    /// Fails if the stream must be ended.
    pub(crate) fn receive(&mut self, message: FromServer) -> Result<(), ProtocolError> {
        use from_server::Message as M;
        let Some(state) = self.state.clone() else {
            let Some(M::Hello(hello)) = message.message else { return Err(ProtocolError::NoHello) };
            return self.begin(&hello);
        };
        match message.message {
            Some(M::Settings(settings)) => {
                self.newest = settings.generation;
                self.settings = Settings::read(settings).map(Arc::new);
                state.set_settings(self.settings.clone());
            }
            Some(M::Knowledge(knowledge)) => self.learn(&state, &knowledge)?,
            Some(M::Forget(forget)) => apply(&state, &forget.changes),
            Some(M::Entry(entry)) => {
                if let Some(key) = self.asked.remove(&entry.id) {
                    match Entry::read(entry) {
                        Some(entry) => state.insert(key, entry),
                        None => state.pause_asking(key, MAX_PAUSE_MICROS),
                    }
                }
            }
            Some(M::NoEntry(answer)) => {
                if let Some(key) = self.asked.remove(&answer.id) {
                    // What isn't cached there any more may be used until its end.
                    if answer.reason() != NoEntryReason::NoEntryNotCached {
                        state.remove(&key);
                    }
                    state.pause_asking(key, answer.wait_micros.min(MAX_PAUSE_MICROS));
                }
            }
            // A second Hello says nothing; others aren't known.
            Some(M::Hello(_)) | None => {}
        }
        Ok(())
    }

    fn begin(&mut self, hello: &ServerHello) -> Result<(), ProtocolError> {
        if hello.protocol != PROTOCOL {
            return Err(ProtocolError::Version(hello.protocol));
        }
        if hello.index_seed.len() != SEED_LEN {
            return Err(ProtocolError::Seed);
        }
        let limits = hello.limits.unwrap_or_default();
        let number = |limit: u32| usize::try_from(limit).unwrap_or(0);
        self.max_asks = number(limits.max_asks_in_flight);
        self.max_used_rows = number(limits.max_used_rows);
        if limits.tick_micros > 0 {
            self.tick = Duration::from_micros(limits.tick_micros).clamp(TICK_RANGE[0], TICK_RANGE[1]);
        }
        let bounds = Bounds { bytes: self.max_bytes.min(limits.max_bytes), entries: limits.max_entries };
        self.state = Some(Arc::new(State::new(self.clock.clone(), &hello.index_seed, bounds)));
        Ok(())
    }

    /// Applies the changes of an answer, and only then extends the lease. It counts from the
    /// moment before the question was sent: by then the server's knowledge was as old as it says,
    /// or younger.
    fn learn(&mut self, state: &State, knowledge: &Knowledge) -> Result<(), ProtocolError> {
        let place = self.ticks.iter().position(|(id, _)| *id == knowledge.tick);
        let place = place.ok_or(ProtocolError::UnknownTick)?;
        // Earlier ones aren't answered any more: answers come in order.
        let Some((_, asked_at)) = self.ticks.drain(..=place).next_back() else {
            return Err(ProtocolError::UnknownTick);
        };
        #[cfg(feature = "sim")]
        let asked_at = match mutants::is_on(Mutant::EdgeFromTheArrival) {
            true => self.clock.moment(),
            false => asked_at,
        };
        apply(state, &knowledge.changes);
        if knowledge.generation != self.newest {
            // Settings that haven't come yet are in force.
            state.set_settings(None);
        } else if state.settings().is_none() && self.settings.is_some() {
            state.set_settings(self.settings.clone());
        }
        if let Some(age) = knowledge.age_micros {
            state.extend(earlier(asked_at, age));
        }
        Ok(())
    }

    /// Returns the next tick. The moment is noted before it is sent.
    ///
    /// # Errors
    /// Fails if too many have no answer.
    pub(crate) fn tick(&mut self) -> Result<FromModule, ProtocolError> {
        if self.ticks.len() >= MAX_TICKS {
            return Err(ProtocolError::Silent);
        }
        let id = self.take_id();
        self.ticks.push_back((id, self.clock.moment()));
        Ok(message(from_module::Message::Tick(Tick { id })))
    }

    /// Returns the questions that may be asked now.
    pub(crate) fn asks(&mut self) -> Vec<FromModule> {
        let Some(state) = self.state.clone() else { return vec![] };
        let room = self.max_asks.saturating_sub(self.asked.len());
        let questions = state.take_questions(room, ASK_DELAY_MICROS);
        questions.into_iter().map(|question| self.ask(question)).collect()
    }

    fn ask(&mut self, question: Question) -> FromModule {
        let id = self.take_id();
        self.asked.insert(id, question.key);
        let extension = |(key, value)| Extension { key, value };
        message(from_module::Message::Ask(Ask {
            id,
            index: question.key.index.to_vec().into(),
            host: question.host.into(),
            rule: None,
            generation: question.generation,
            extensions: question.extensions.into_iter().map(extension).collect(),
            policy: question.key.policy.to_vec().into(),
        }))
    }

    /// Returns the uses since the last call.
    pub(crate) fn uses(&self) -> Vec<FromModule> {
        // While the server doesn't read, they wait: what is sent and not read takes memory.
        let Some(state) = self.state.as_ref().filter(|_| self.ticks.len() <= MAX_UNREAD_TICKS) else {
            return vec![];
        };
        let (mut messages, mut rows, mut bytes) = (vec![], vec![], 0);
        for entry in state.take_used() {
            let row = Use {
                counted_as: Some(entry.counted_as.clone()),
                count: entry.uses.swap(0, Ordering::AcqRel).min(MAX_USES),
                last_micros: entry.last_use.load(Ordering::Relaxed),
                client: entry.last_client.lock().map(|client| client.to_string()).unwrap_or_default(),
            };
            // With its tag and length.
            let len = row.encoded_len() + 8;
            if !rows.is_empty() && (rows.len() >= self.max_used_rows || bytes + len > MAX_SENT_BYTES - 64) {
                messages.push(std::mem::take(&mut rows));
                bytes = 0;
            }
            rows.push(row);
            bytes += len;
        }
        messages.push(rows);
        let used =
            |uses: Vec<Use>| (!uses.is_empty()).then(|| message(from_module::Message::Used(Used { uses })));
        messages.into_iter().filter_map(used).collect()
    }

    fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

fn message(message: from_module::Message) -> FromModule {
    FromModule { message: Some(message) }
}

fn apply(state: &State, changes: &[Change]) {
    changes.iter().for_each(|change| state.raise(change.slot, change.value));
}

/// Returns the moment that lies so much earlier by both clocks.
fn earlier(moment: Moment, micros: u64) -> Moment {
    use crate::clock::BootTime;
    Moment {
        boot: BootTime::from_micros(moment.boot.as_micros().saturating_sub(micros)),
        wall: moment.wall.minus(Duration::from_micros(micros)),
    }
}

#[cfg(test)]
#[path = "session/tests.rs"]
mod tests;
