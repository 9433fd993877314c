//! Statements and transactions in the dialect of the database.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Connection, Row};
use tokio::time::timeout_at;

use super::clock_skew::database_time;
use super::dialect::Dialect;
use super::pool::Checkout;
use super::server::NotAuthoritative;
use super::{Inner, StoreError};
use crate::clock::Timestamp;

/// Timeout of a read, including the wait for a connection.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of a write, which is longer, as it may wait for other transactions.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a write waits for a poll that finds the primary.
const PRIMARY_WAIT: Duration = Duration::from_secs(1);

/// Attempts of a transaction that the database asks to retry.
const MAX_ATTEMPTS: u32 = 8;
/// First pause between two attempts; each further one is twice as long.
const MIN_RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Future of the statements in a transaction.
pub(super) type Work<'t, T> = BoxFuture<'t, Result<T, StoreError>>;

/// End of a transaction, and its result.
pub(super) enum End<T> {
    /// Commits.
    Commit(T),
    /// Rolls back.
    Rollback(T),
}

/// Runs reads in a transaction. A pooler may run each statement on another server, but not within a
/// transaction, and not between the two messages of one statement there.
pub(super) async fn read_in_transaction<T, F>(
    dialect: Dialect,
    connection: &mut AnyConnection,
    work: F,
) -> Result<T, StoreError>
where
    F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
{
    let mut transaction = connection.begin_with(dialect.begin_read()).await?;
    let result = work(&mut transaction).await?;
    transaction.commit().await?;
    Ok(result)
}

impl Inner {
    /// Makes a query in the dialect of the database.
    pub(super) fn query(&self, text: impl Into<String>) -> Query<'static, Any, AnyArguments> {
        sqlx::query(AssertSqlSafe(self.text(text))).persistent(self.prepares)
    }

    /// Makes the text of a statement in the dialect of the database.
    pub(super) fn text(&self, text: impl Into<String>) -> String {
        let text = text.into();
        #[cfg(test)]
        self.statements.lock().insert(text.clone());
        self.dialect.statement(text)
    }

    /// Runs writes as one transaction, and retries it when the database asks for that. `work` gets
    /// `context`.
    pub(super) async fn write<C, T, F>(&self, context: C, work: F) -> Result<T, StoreError>
    where
        F: for<'t> Fn(&'t Self, &'t mut AnyConnection, &'t C) -> Work<'t, End<T>>,
    {
        self.write_within(WRITE_TIMEOUT, context, work).await
    }

    /// Runs writes like [`Self::write`], with a timeout of their own for each attempt.
    pub(super) async fn write_within<C, T, F>(
        &self,
        time_limit: Duration,
        context: C,
        work: F,
    ) -> Result<T, StoreError>
    where
        F: for<'t> Fn(&'t Self, &'t mut AnyConnection, &'t C) -> Work<'t, End<T>>,
    {
        let mut pause = MIN_RETRY_PAUSE;
        let mut is_first_server = true;
        for _ in 1..MAX_ATTEMPTS {
            match self.try_write(time_limit, &context, &work).await {
                // Nothing was written, and the connections are evicted: a new one may lead to the
                // primary.
                Err(StoreError::NotAuthoritative(_)) if is_first_server => {
                    is_first_server = false;
                    self.poller.verify_primary(PRIMARY_WAIT).await;
                }
                Err(StoreError::Sql(error)) if self.dialect.is_retryable(&error) => {
                    // Transactions that collided must not meet again.
                    tokio::time::sleep(self.rng.jittered(pause, 0.5)).await;
                    pause *= 2;
                }
                result => return result,
            }
        }
        self.try_write(time_limit, &context, &work).await
    }

    /// Runs `work` in one transaction, once. See `write` for repeated attempts.
    async fn try_write<C, T, F>(&self, time_limit: Duration, context: &C, work: &F) -> Result<T, StoreError>
    where
        F: for<'t> Fn(&'t Self, &'t mut AnyConnection, &'t C) -> Work<'t, End<T>>,
    {
        let mut checkout = self.writers.acquire(time_limit).await?;
        let Checkout { connection, deadline, .. } = &mut checkout;
        let result = timeout_at(*deadline, async {
            let mut transaction = connection.begin_with(self.dialect.begin_write()).await?;
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
        let result = match result {
            Ok(Err(StoreError::Sql(error))) if self.dialect.is_refused_as_replica(&error) => {
                Ok(Err(NotAuthoritative::RefusedWrite.into()))
            }
            result => result,
        };
        if self.dialect == Dialect::Sqlite && matches!(result, Ok(Err(StoreError::Sql(_)))) {
            // SQLite may have rolled back by itself, for example when the disk is full. The driver
            // doesn't notice that, and couldn't begin a transaction on this connection any more.
            checkout.must_close = true;
        }
        self.writers.release(checkout, result)
    }

    /// Runs reads on one connection.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
    {
        self.read_checked(work, Ok).await
    }

    /// Runs reads on one connection, and converts their result with `check`, which may reject the
    /// server that it came from.
    pub(super) async fn read_checked<T, R, F, G>(&self, work: F, check: G) -> Result<R, StoreError>
    where
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
        G: FnOnce(T) -> Result<R, StoreError>,
    {
        self.read_within(READ_TIMEOUT, work, check).await
    }

    /// Runs reads like [`Self::read_checked`], with a timeout of their own.
    pub(super) async fn read_within<T, R, F, G>(
        &self,
        time_limit: Duration,
        work: F,
        check: G,
    ) -> Result<R, StoreError>
    where
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
        G: FnOnce(T) -> Result<R, StoreError>,
    {
        let mut checkout = self.readers.acquire(time_limit).await?;
        let Checkout { connection, deadline, .. } = &mut checkout;
        let result = timeout_at(*deadline, async {
            let read = match self.prepares {
                true => work(connection).await?,
                false => read_in_transaction(self.dialect, connection, work).await?,
            };
            check(read)
        })
        .await;
        self.readers.release(checkout, result)
    }

    /// Reads the database's time, if it has a clock of its own.
    pub(super) async fn read_clock(
        &self,
        transaction: &mut AnyConnection,
    ) -> Result<Option<Timestamp>, StoreError> {
        let read = self.query(format!("SELECT {} AS now", self.dialect.clock()));
        let row = read.fetch_one(&mut *transaction).await?;
        Ok(database_time(row.try_get("now")?))
    }
}
