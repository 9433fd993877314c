//! Statements and transactions, as the database at hand wants them.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Connection, Executor};
use tokio::time::timeout_at;

use super::dialect::Dialect;
use super::pool::Lent;
use super::server::NotAuthoritative;
use super::{Inner, StoreError};

/// How long what is read may take, the wait for a connection included.
pub(super) const READ_PATIENCE: Duration = Duration::from_secs(5);
/// How long a transaction may take. Longer, as it may have to wait for others.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a write waits for a poll that settles which server is the primary.
const SETTLING: Duration = Duration::from_secs(1);

/// How often a transaction is tried that the database asks to repeat.
const ATTEMPTS: u32 = 8;
/// The first pause between two attempts; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// What is done in a transaction.
pub(super) type Work<'t, T> = BoxFuture<'t, Result<T, StoreError>>;

/// How a transaction is to end.
pub(super) enum End<T> {
    /// What it did counts.
    Commit(T),
    /// It had nothing to do.
    Rollback(T),
}

/// Runs statements that only read, in a transaction: a pooler may give each statement another server; within a
/// transaction it doesn't, not even between the two messages of one statement.
pub(super) async fn read_in_transaction<T, F>(
    dialect: Dialect,
    connection: &mut AnyConnection,
    work: F,
) -> Result<T, StoreError>
where
    F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
{
    let mut transaction = connection.begin_with(dialect.begin_reading()).await?;
    let result = work(&mut transaction).await?;
    transaction.commit().await?;
    Ok(result)
}

impl Inner {
    /// A statement of ours.
    pub(super) fn query(&self, text: impl Into<String>) -> Query<'static, Any, AnyArguments> {
        let text = self.dialect.statement(text.into());
        sqlx::query(AssertSqlSafe(text)).persistent(self.prepares)
    }

    /// Runs statements that write, as one transaction; again when the database asks for that. `context` is what they
    /// need to know.
    pub(super) async fn write<C, T, F>(&self, context: C, work: F) -> Result<T, StoreError>
    where
        F: for<'t> Fn(&'t Self, &'t mut AnyConnection, &'t C) -> Work<'t, End<T>>,
    {
        let mut pause = FIRST_PAUSE;
        let mut is_first_server = true;
        for _ in 1..ATTEMPTS {
            match self.try_write(&context, &work).await {
                // Nothing was done there, and its connections are closed: a new one may lead to the primary.
                Err(StoreError::NotAuthoritative(_)) if is_first_server => {
                    is_first_server = false;
                    self.poller.settle(SETTLING).await;
                }
                Err(StoreError::Sql(error)) if self.dialect.asks_to_retry(&error) => {
                    // Transactions that collided must not meet again.
                    tokio::time::sleep(self.rng.jittered(pause, 0.5)).await;
                    pause *= 2;
                }
                result => return result,
            }
        }
        self.try_write(&context, &work).await
    }

    async fn try_write<C, T, F>(&self, context: &C, work: &F) -> Result<T, StoreError>
    where
        F: for<'t> Fn(&'t Self, &'t mut AnyConnection, &'t C) -> Work<'t, End<T>>,
    {
        let mut lent = self.writers.lend(WRITE_PATIENCE).await?;
        let Lent { connection, until, .. } = &mut lent;
        let done = timeout_at(*until, async {
            let mut transaction = connection.begin_with(self.dialect.begin()).await?;
            match work(self, &mut transaction, context).await? {
                End::Commit(result) => {
                    transaction.commit().await?;
                    Ok(result)
                }
                End::Rollback(result) => {
                    transaction.rollback().await?;
                    Ok(result)
                }
            }
        })
        .await;
        let done = match done {
            Ok(Err(StoreError::Sql(error))) if self.dialect.is_refused_as_replica(&error) => {
                Ok(Err(NotAuthoritative::RefusedWrite.into()))
            }
            done => done,
        };
        if self.dialect == Dialect::Sqlite && matches!(done, Ok(Err(StoreError::Sql(_)))) {
            // SQLite may have taken back the transaction by itself, as when the disk is full. The driver doesn't notice,
            // and would begin none on that connection ever again.
            lent.broken = true;
        }
        self.writers.take_back(lent, done)
    }

    /// Runs statements that only read, on one connection.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
    {
        self.read_and(work, Ok).await
    }

    /// As [`Inner::read`]; then `check` makes of what was read what is wanted, and may refuse the server that it came
    /// from.
    pub(super) async fn read_and<T, R, F, G>(&self, work: F, check: G) -> Result<R, StoreError>
    where
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
        G: FnOnce(T) -> Result<R, StoreError>,
    {
        let mut lent = self.readers.lend(READ_PATIENCE).await?;
        let Lent { connection, until, .. } = &mut lent;
        let done = timeout_at(*until, async {
            let read = match self.prepares {
                true => work(connection).await?,
                false => read_in_transaction(self.dialect, connection, work).await?,
            };
            check(read)
        })
        .await;
        self.readers.take_back(lent, done)
    }

    /// Locks the row that orders all changes, until the transaction ends: for those that decide by what they count.
    pub(super) async fn lock_order(&self, transaction: &mut AnyConnection) -> Result<(), StoreError> {
        let lock = self.query("UPDATE mutation_counter SET n = n WHERE id = 1");
        transaction.execute(lock).await?;
        Ok(())
    }
}
