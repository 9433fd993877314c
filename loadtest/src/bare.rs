//! What a tier answers to a bare client: Talos uses the same clients, and can't be quicker than they are.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use clap::Args;
use serde_json::Value;
use sqlx::{AnyConnection, Connection, Executor, Row};
use tokio::sync::Semaphore;

use crate::Failure;
use crate::keys;
use crate::outcome::{Look, Outcome};

/// The row of a key, by its whole primary key; keys of one network.
const SELECT: &str = "SELECT * FROM api_keys WHERE network_id = $1 AND key_id = $2";
const NETWORK: &str = "00000000-0000-0000-0000-000000000000";

/// Reads what a lookup reads, each row or entry once, and nothing else.
#[derive(Args)]
pub struct Options {
    /// A database, as sqlx names it.
    #[arg(long, required_unless_present = "redis")]
    database: Option<String>,
    /// A Redis, as `redis://host:port`: every entry that is in it.
    #[arg(long)]
    redis: Option<String>,
    /// Keys whose rows are read.
    #[arg(long, required_unless_present = "redis")]
    keys: Option<PathBuf>,
    /// Reads that are under way at once.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Most connections to the database.
    #[arg(long, default_value_t = 25)]
    connections: usize,
}

/// Reads them as the options say.
pub async fn run(options: Options) -> Result<Value, Failure> {
    match (&options.redis, &options.database, &options.keys) {
        (Some(redis), ..) => of_redis(redis, options.streams).await,
        (_, Some(database), Some(keys)) => {
            let ids = keys::read(keys)?.into_iter().map(|key| key.id).collect();
            of_database(database, ids, options.streams, options.connections).await
        }
        _ => Err("nothing to read from".into()),
    }
}

/// What the readers of a round have in common.
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

    fn note(&self, found: Result<bool, String>, begun: Instant) {
        let mut outcome = self.outcome.borrow_mut();
        match found {
            Ok(true) => outcome.right(true, begun.elapsed()),
            Ok(false) => outcome.wrong(|| "nothing was found".to_owned()),
            Err(error) => outcome.failed(|| error),
        }
    }
}

async fn of_redis(address: &str, streams: usize) -> Result<Value, Failure> {
    let client = redis::Client::open(address)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let names: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await?;
    let round = Round::new(names);
    let look = Look::now(&[]);
    let mut readers = Vec::new();
    for _ in 0..streams {
        let (round, mut connection) = (Rc::clone(&round), connection.clone());
        readers.push(tokio::task::spawn_local(async move {
            while let Some(name) = round.next() {
                let begun = Instant::now();
                let found = redis::cmd("GET").arg(name).query_async::<Option<Vec<u8>>>(&mut connection).await;
                round.note(found.map(|value| value.is_some()).map_err(|error| error.to_string()), begun);
            }
        }));
    }
    for reader in readers {
        reader.await?;
    }
    let told = round.outcome.borrow().tell(&look.until_now());
    Ok(told)
}

async fn of_database(
    dsn: &str,
    ids: Vec<String>,
    streams: usize,
    connections: usize,
) -> Result<Value, Failure> {
    sqlx::any::install_default_drivers();
    let mut idle = Vec::new();
    for _ in 0..connections.min(streams) {
        let mut connection = AnyConnection::connect(dsn).await?;
        // Prepared before anything is counted.
        connection.fetch_optional(sqlx::query(SELECT).bind(NETWORK).bind("")).await?;
        idle.push(connection);
    }
    let places = Rc::new(Semaphore::new(idle.len()));
    let idle = Rc::new(RefCell::new(idle));
    let round = Round::new(ids);
    let look = Look::now(&[]);
    let mut readers = Vec::new();
    for _ in 0..streams {
        let (round, places, idle) = (Rc::clone(&round), Rc::clone(&places), Rc::clone(&idle));
        readers.push(tokio::task::spawn_local(async move {
            while let Some(id) = round.next() {
                let begun = Instant::now();
                let Ok(_place) = places.acquire().await else { return };
                let Some(mut connection) = idle.borrow_mut().pop() else { return };
                let found = connection.fetch_optional(sqlx::query(SELECT).bind(NETWORK).bind(id)).await;
                idle.borrow_mut().push(connection);
                let found =
                    found.and_then(|row| row.map(|row| row.try_get::<String, _>("key_id")).transpose());
                let found = found.map(|read| read.as_deref() == Some(id)).map_err(|error| error.to_string());
                round.note(found, begun);
            }
        }));
    }
    for reader in readers {
        reader.await?;
    }
    let told = round.outcome.borrow().tell(&look.until_now());
    Ok(told)
}
