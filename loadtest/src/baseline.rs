//! Baseline: reads from Redis or a database with the clients that Talos uses, without Talos.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use clap::Args;
use serde_json::Value;
use sqlx::{AnyConnection, Connection, Executor, Row};
use tokio::sync::Semaphore;

use crate::LoadError;
use crate::key_file;
use crate::stats::{Outcome, Snapshot};

/// Reads the row of a key by its primary key.
const SELECT: &str = "SELECT * FROM api_keys WHERE network_id = $1 AND key_id = $2";
const NETWORK: &str = "00000000-0000-0000-0000-000000000000";

/// Reads each row or entry once, as a lookup does.
#[derive(Args)]
pub(crate) struct Options {
    /// Database URL, in sqlx's form.
    #[arg(long, required_unless_present = "redis")]
    database: Option<String>,
    /// Redis URL, `redis://host:port`; all its entries are read.
    #[arg(long)]
    redis: Option<String>,
    /// File of the keys whose rows are read.
    #[arg(long, required_unless_present = "redis")]
    keys: Option<PathBuf>,
    /// Number of concurrent reads.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Maximum number of connections to the database.
    #[arg(long, default_value_t = 25)]
    connections: usize,
}

/// Runs the round.
pub(crate) async fn run(options: Options) -> Result<Value, LoadError> {
    match (&options.redis, &options.database, &options.keys) {
        (Some(redis), ..) => read_redis(redis, options.streams).await,
        (_, Some(database), Some(keys)) => {
            let ids = key_file::read(keys)?.into_iter().map(|key| key.id).collect();
            read_database(database, ids, options.streams, options.connections).await
        }
        _ => Err("give --redis, or --database and --keys".into()),
    }
}

/// State shared by the readers of a round.
struct Round {
    names: Vec<String>,
    next: Cell<usize>,
    outcome: RefCell<Outcome>,
}

impl Round {
    fn new(names: Vec<String>) -> Rc<Self> {
        Rc::new(Self { names, next: Cell::new(0), outcome: RefCell::new(Outcome::new()) })
    }

    fn next(&self) -> Option<&str> {
        let n = self.next.replace(self.next.get() + 1);
        self.names.get(n).map(String::as_str)
    }

    fn record(&self, found: Result<bool, String>, started: Instant) {
        let mut outcome = self.outcome.borrow_mut();
        match found {
            Ok(true) => outcome.succeeded(true, started.elapsed()),
            Ok(false) => outcome.wrong(|| "no row or entry".to_owned()),
            Err(error) => outcome.failed(|| error),
        }
    }
}

async fn read_redis(address: &str, streams: usize) -> Result<Value, LoadError> {
    let client = redis::Client::open(address)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let names: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await?;
    let round = Round::new(names);
    let snapshot = Snapshot::take(&[]);
    let mut readers = Vec::new();
    for _ in 0..streams {
        let (round, mut connection) = (Rc::clone(&round), connection.clone());
        readers.push(tokio::task::spawn_local(async move {
            while let Some(name) = round.next() {
                let started = Instant::now();
                let found = redis::cmd("GET").arg(name).query_async::<Option<Vec<u8>>>(&mut connection).await;
                round.record(found.map(|value| value.is_some()).map_err(|error| error.to_string()), started);
            }
        }));
    }
    for reader in readers {
        reader.await?;
    }
    let report = round.outcome.borrow().report(&snapshot.window());
    Ok(report)
}

async fn read_database(
    dsn: &str,
    ids: Vec<String>,
    streams: usize,
    connections: usize,
) -> Result<Value, LoadError> {
    sqlx::any::install_default_drivers();
    let mut idle = Vec::new();
    for _ in 0..connections.min(streams) {
        let mut connection = AnyConnection::connect(dsn).await?;
        // Prepares the statement before the measurement.
        connection.fetch_optional(sqlx::query(SELECT).bind(NETWORK).bind("")).await?;
        idle.push(connection);
    }
    let permits = Rc::new(Semaphore::new(idle.len()));
    let idle = Rc::new(RefCell::new(idle));
    let round = Round::new(ids);
    let snapshot = Snapshot::take(&[]);
    let mut readers = Vec::new();
    for _ in 0..streams {
        let (round, permits, idle) = (Rc::clone(&round), Rc::clone(&permits), Rc::clone(&idle));
        readers.push(tokio::task::spawn_local(async move {
            while let Some(id) = round.next() {
                let started = Instant::now();
                let Ok(_permit) = permits.acquire().await else { return };
                let Some(mut connection) = idle.borrow_mut().pop() else { return };
                let found = connection.fetch_optional(sqlx::query(SELECT).bind(NETWORK).bind(id)).await;
                idle.borrow_mut().push(connection);
                let found =
                    found.and_then(|row| row.map(|row| row.try_get::<String, _>("key_id")).transpose());
                let found = found.map(|read| read.as_deref() == Some(id)).map_err(|error| error.to_string());
                round.record(found, started);
            }
        }));
    }
    for reader in readers {
        reader.await?;
    }
    let report = round.outcome.borrow().report(&snapshot.window());
    Ok(report)
}
