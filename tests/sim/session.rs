//! Session of a simulated server: every call may be slow, lost on its way, or lost on its way back.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::AnyArguments;
use sqlx::{Error, SqlStr};
use tokio::time::sleep;

use crate::dialect::{self, Role};
use crate::scheduler;
use crate::server::{Results, SqlError};
use crate::shim;
use crate::trace::{Fate, What};
use crate::world::{Direction, World};

/// Pause between two attempts to take the lock.
const LOCK_RETRY: Duration = Duration::from_millis(3);

/// Session of an instance on a server.
pub struct Session {
    world: Arc<World>,
    instance: usize,
    number: u64,
    server: usize,
    transaction: Option<Transaction>,
    /// True once the connection was reset.
    is_broken: bool,
}

/// Transaction of a session.
#[derive(Clone, Copy, PartialEq)]
enum Transaction {
    Reads,
    Writes,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "session {} on server {}", self.number, self.server)
    }
}

fn reset() -> Error {
    Error::Io(io::Error::new(io::ErrorKind::ConnectionReset, "the connection was reset"))
}

impl Session {
    /// Opens a session on the server that the address leads to now.
    pub async fn open() -> Result<Self, Error> {
        let (world, instance) = (World::current(), scheduler::current_thread());
        let number = {
            let mut state = world.state();
            state.sessions += 1;
            state.sessions
        };
        let mut session =
            Self { world, instance, number, server: usize::MAX, transaction: None, is_broken: false };
        session.travel(Direction::ToServer, What::Step("connect")).await?;
        {
            let state = session.world.state();
            let net = &state.nets[instance];
            let server = net.route.unwrap_or(state.address);
            let is_down = state.servers[server].is_down;
            if net.is_exhausted {
                return Err(SqlError::too_many_connections().into());
            }
            if net.is_refusing || is_down {
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens").into());
            }
            session.server = server;
        }
        session.travel(Direction::ToClient, What::Step("connected")).await?;
        Ok(session)
    }

    pub fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Sends a message one way.
    async fn travel(&mut self, direction: Direction, what: What) -> Result<(), Error> {
        match self.fate(direction, &what) {
            Fate::Arrives(delay) if delay.is_zero() => Ok(()),
            Fate::Arrives(delay) => {
                sleep(delay).await;
                Ok(())
            }
            Fate::Resets(delay) => {
                sleep(delay).await;
                self.is_broken = true;
                self.roll_back();
                self.world.note(Some(self.instance), format!("{}: reset", what.name()));
                Err(reset())
            }
            Fate::Vanishes => pending().await,
        }
    }

    fn fate(&self, direction: Direction, what: &What) -> Fate {
        let now = self.world.now();
        let state = &mut *self.world.state();
        let net = &state.nets[self.instance];
        let slow = net.slow.filter(|slow| slow.direction.is_none_or(|only| only == direction));
        let slow = slow.filter(|slow| state.random.percent(slow.percent));
        let (least, end) = slow.map_or(net.latency, |slow| slow.latency);
        let delay = Duration::from_millis(state.random.within(least, end));
        let is_server_down = state.servers.get(self.server).is_some_and(|server| server.is_down);
        let is_dead = self.number < net.dead_before || net.is_silent;
        let is_reset = self.is_broken || self.number < net.reset_before || is_server_down;
        let fate = match (is_dead, is_reset || state.random.percent(net.resets)) {
            (true, _) => Fate::Vanishes,
            (false, true) => Fate::Resets(delay),
            (false, false) => Fate::Arrives(delay),
        };
        state.trace.add_call(now, self.instance, self.number, what.clone(), fate);
        fate
    }

    /// Executes a statement.
    pub async fn execute(
        &mut self,
        query: SqlStr,
        arguments: Option<AnyArguments>,
    ) -> Result<Results, Error> {
        let text = query.as_str();
        let arguments = arguments.map(|arguments| arguments.values.0).unwrap_or_default();
        let statement = dialect::convert(text, arguments.len());
        self.travel(Direction::ToServer, What::Statement(Arc::clone(&statement.name))).await?;
        let results = {
            let (now, wall) = (self.world.now(), shim::server_wall(self.world.now()));
            let state = &mut *self.world.state();
            // A proxy that splits reads takes what begins a transaction for a write.
            let is_read = self.transaction.is_none() && statement.is_read;
            let reader = state.nets[self.instance].reader.filter(|_| is_read);
            let server = &mut state.servers[reader.unwrap_or(self.server)];
            let is_primary = server.role == Role::Primary;
            let writes = self.transaction == Some(Transaction::Writes);
            if writes && is_primary && !server.has_lock(self.number) {
                // It was idle for too long.
                self.is_broken = true;
                self.transaction = None;
                Err(SqlError::terminated().into())
            } else {
                server.execute(self.number, (&statement, arguments), (now, wall))
            }
        };
        if let Err(error) = &results {
            self.world.note(Some(self.instance), format!("{}: {error}", statement.name));
            assert!(is_expected(error), "the simulated database can't execute {text:?}: {error}");
        }
        self.travel(Direction::ToClient, What::Step("answer")).await?;
        results
    }

    pub async fn ping(&mut self) -> Result<(), Error> {
        self.travel(Direction::ToServer, What::Step("ping")).await?;
        self.travel(Direction::ToClient, What::Step("pong")).await
    }

    /// Begins a transaction; one that writes waits for the lock.
    pub async fn begin(&mut self, statement: Option<SqlStr>) -> Result<(), Error> {
        let writes = statement.is_some_and(|statement| statement.as_str().contains("idle_in_transaction"));
        self.travel(Direction::ToServer, What::Step(if writes { "begin to write" } else { "begin" })).await?;
        while writes && !self.take_lock() {
            sleep(LOCK_RETRY).await;
        }
        self.transaction = Some(if writes { Transaction::Writes } else { Transaction::Reads });
        self.travel(Direction::ToClient, What::Step("begun")).await
    }

    fn take_lock(&self) -> bool {
        let now = self.world.now();
        let state = &mut *self.world.state();
        let server = &mut state.servers[self.server];
        server.role != Role::Primary || server.lock(self.number, now)
    }

    /// Commits. The answer may be lost, as any.
    pub async fn commit(&mut self) -> Result<(), Error> {
        let Some(transaction) = self.transaction else {
            return Ok(());
        };
        self.travel(Direction::ToServer, What::Step("commit")).await?;
        self.transaction = None;
        if transaction == Transaction::Writes {
            self.commit_writes()?;
        }
        self.travel(Direction::ToClient, What::Step("committed")).await
    }

    fn commit_writes(&mut self) -> Result<(), Error> {
        let now = self.world.now();
        let is_deposed = {
            let state = &mut *self.world.state();
            let is_deposed = self.server != state.address;
            let before = if is_deposed { state.servers[self.server].keys_if(self.number) } else { None };
            if !state.servers[self.server].commit(self.number)? {
                self.is_broken = true;
                return Err(SqlError::terminated().into());
            }
            if let Some(before) = before {
                let after = state.servers[self.server].keys();
                state.history.record_split(&before, &after);
                state.history.deposed_commits.push((self.instance, now));
            }
            state.trace.add(now, Some(self.instance), format!("commits on server {}", self.server));
            is_deposed
        };
        if !is_deposed {
            self.world.record_truth();
        }
        Ok(())
    }

    pub async fn rollback(&mut self) -> Result<(), Error> {
        self.travel(Direction::ToServer, What::Step("rollback")).await?;
        self.roll_back();
        self.travel(Direction::ToClient, What::Step("rolled back")).await
    }

    /// Rolls back at once, unless the server can't hear of it: then it waits for its timeout.
    pub fn roll_back(&mut self) {
        if self.transaction.take() != Some(Transaction::Writes) {
            return;
        }
        let state = &mut *self.world.state();
        let net = &state.nets[self.instance];
        if !net.is_silent && self.number >= net.dead_before {
            state.servers[self.server].roll_back(self.number);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.roll_back();
    }
}

/// Returns true for an error that a real database would give as well.
fn is_expected(error: &Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.is_unique_violation() || error.try_downcast_ref::<SqlError>().is_some())
}
