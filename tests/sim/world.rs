//! State that the instances share: the servers, the network, the truth about the keys, and the
//! history.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use talos::key::ActorId;
use talos::mutants::Mutant;

use crate::dialect::Role;
use crate::history::History;
use crate::pipe::Pipe;
use crate::random::Random;
use crate::redis::Redis;
use crate::scheduler::Scheduler;
use crate::server::Server;
use crate::shim;
use crate::trace::Trace;

/// Number of keys that the clients of an instance go on to use.
const MAX_REMEMBERED: usize = 8;

/// Settings of the lease of all instances, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub lease: u64,
    pub poll: u64,
    pub grace: u64,
    /// 0 without Redis: then nobody relays.
    pub relay: u64,
    /// True if the instances share entries through Redis.
    pub has_redis: bool,
    /// Time of one way to the database, in milliseconds: least, and end.
    pub latency: (u64, u64),
}

/// One simulation.
pub struct World {
    pub scheduler: Arc<Scheduler>,
    pub terms: Terms,
    /// Check that is taken out of the code under test.
    pub mutant: Option<Mutant>,
    instances: usize,
    state: Mutex<State>,
}

/// The part that changes.
pub struct State {
    pub random: Random,
    pub servers: Vec<Server>,
    /// Server that new connections reach.
    pub address: usize,
    /// The way from each instance to the database.
    pub nets: Vec<Net>,
    /// The way from each Envoy to its instance.
    pub pipes: Vec<Pipe>,
    /// Time for which a server keeps what it could push to a module, in milliseconds.
    pub push_delay: u64,
    pub redis: Redis,
    /// Number of sessions that were opened.
    pub sessions: u64,
    /// Keys that were issued, and acknowledged.
    pub keys: Vec<IssuedKey>,
    /// Key that was changed last, as an index of `keys`.
    pub changed_key: usize,
    /// Key of each race, as an index of `keys`.
    pub race_keys: BTreeMap<usize, usize>,
    /// Keys that each instance allowed, and then each Envoy, the latest first.
    pub remembered: Vec<Vec<String>>,
    pub history: History,
    pub trace: Trace,
    template: PathBuf,
    folder: PathBuf,
}

/// Key that instances were given.
#[derive(Clone)]
pub struct IssuedKey {
    pub id: String,
    pub credential: String,
    pub actor: ActorId,
}

/// The way from an instance to the database.
#[derive(Debug, Clone)]
pub struct Net {
    /// Time of one way in milliseconds: least, and end.
    pub latency: (u64, u64),
    /// Delay of some messages.
    pub slow: Option<Slow>,
    /// New connections are refused.
    pub is_refusing: bool,
    /// Messages get lost, without an error.
    pub is_silent: bool,
    /// The server has no room for a new connection.
    pub is_exhausted: bool,
    /// Percentage of calls whose connection is reset, before they arrive or after.
    pub resets: u64,
    /// Server that new connections reach, if it isn't the one at the address.
    pub route: Option<usize>,
    /// Server that answers what is read outside of transactions, if another one does.
    pub reader: Option<usize>,
    /// Sessions before this number were reset.
    pub reset_before: u64,
    /// Sessions before this number are dead without an error.
    pub dead_before: u64,
}

/// Direction of a message, between an instance and the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// Delay of some messages.
#[derive(Debug, Clone, Copy)]
pub struct Slow {
    /// Direction; `None` means both.
    pub direction: Option<Direction>,
    /// Time of one way in milliseconds: least, and end.
    pub latency: (u64, u64),
    /// Percentage of messages.
    pub percent: u64,
}

impl Net {
    fn new(latency: (u64, u64)) -> Self {
        Self {
            latency,
            slow: None,
            is_refusing: false,
            is_silent: false,
            is_exhausted: false,
            resets: 0,
            route: None,
            reader: None,
            reset_before: 0,
            dead_before: 0,
        }
    }
}

impl State {
    /// Notes that an instance, or an Envoy, allowed a key.
    pub fn remember(&mut self, thread: usize, key: &str) {
        let remembered = &mut self.remembered[thread];
        remembered.retain(|id| id != key);
        remembered.insert(0, key.to_owned());
        remembered.truncate(MAX_REMEMBERED);
    }

    /// Returns a key that an instance, or an Envoy, allowed lately, as an index of `keys`.
    pub fn remembered(&self, thread: usize, pick: u64) -> Option<usize> {
        let remembered = &self.remembered[thread];
        let id = remembered.get(pick as usize % remembered.len().max(1))?;
        self.keys.iter().position(|key| key.id == *id)
    }

    /// Adds a server with all but the last `lost` transactions of the one at the address; returns
    /// its number.
    pub fn copy(&mut self, lost: usize, mutant: Option<Mutant>) -> usize {
        let number = self.servers.len();
        let commits = self.servers[self.address].commits(lost).to_vec();
        self.servers.push(Server::new(number, mutant, (&self.template, &self.folder), &commits));
        number
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

impl World {
    pub fn new(
        instances: usize,
        seed: u64,
        terms: Terms,
        mutant: Option<Mutant>,
        (template, folder): (&Path, &Path),
    ) -> Self {
        let scheduler = Arc::new(Scheduler::new(instances * 2, seed ^ 0x5eed));
        let state = State {
            random: Random::new(seed ^ 0xfa7e),
            servers: vec![Server::new(0, mutant, (template, folder), &[])],
            address: 0,
            nets: vec![Net::new(terms.latency); instances],
            pipes: (0..instances).map(|_| Pipe::default()).collect(),
            push_delay: 0,
            redis: Redis::new(instances),
            sessions: 0,
            keys: vec![],
            changed_key: 0,
            race_keys: BTreeMap::new(),
            remembered: vec![vec![]; instances * 2],
            history: History::default(),
            trace: Trace::default(),
            template: template.to_owned(),
            folder: folder.to_owned(),
        };
        Self { scheduler, terms, mutant, instances, state: Mutex::new(state) }
    }

    /// Makes this the world of the thread.
    pub fn enter(self: &Arc<Self>) {
        CURRENT.with_borrow_mut(|current| *current = Some(Arc::clone(self)));
    }

    /// Returns the world of the thread.
    pub fn current() -> Arc<Self> {
        CURRENT.with_borrow(|current| current.clone().expect("a thread of a simulation"))
    }

    /// Returns the thread of an instance's Envoy.
    pub fn envoy_thread(&self, instance: usize) -> usize {
        self.instances + instance
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub fn now(&self) -> u64 {
        shim::now().unwrap_or_else(|| self.scheduler.now())
    }

    /// Adds a line to the trace.
    pub fn note(&self, instance: Option<usize>, text: impl Into<String>) {
        let now = self.now();
        self.state().trace.add(now, instance, text.into());
    }

    /// Records which keys may be used now, by the server at the address.
    pub fn record_truth(&self) {
        let now = self.now();
        let state = &mut *self.state();
        let keys: BTreeMap<String, bool> = state.servers[state.address].keys().into_iter().collect();
        state.history.record_truth(now, &keys);
    }

    /// Gives the address to a new server, which lacks the last `lost` transactions. The old one
    /// gets a role, and keeps its sessions; its number is returned.
    pub fn switch_over(&self, lost: usize, role: Role, stays_up: bool) -> usize {
        let now = self.now();
        let before = {
            let state = &mut *self.state();
            let number = state.copy(lost, self.mutant);
            let old = &mut state.servers[state.address];
            (old.role, old.is_down) = (role, !stays_up);
            state.history.switchovers.push(now);
            std::mem::replace(&mut state.address, number)
        };
        self.record_truth();
        before
    }
}
