//! Connections for polls: opened with the identity of the server that answers, and checked after
//! each statement.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::any::{AnyConnectOptions, AnyRow};
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor, Row};
use tokio::time::{Instant, timeout};

use super::outcome::FILE_SERVER_ID;
use crate::clock::{Clock, Moment};
use crate::mutants::{self, Mutant};
use crate::store::database_file::FileId;
use crate::store::dialect::Dialect;
use crate::store::server::{NotAuthoritative, ServerId, authoritative};
use crate::store::tracked_file::TrackedFile;
use crate::store::{StoreError, transaction};

/// Timeout of closing a replaced connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout of opening a connection in the background.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Statement that can run on any connection, several times.
pub(in crate::store) type Statement = Arc<
    dyn for<'c> Fn(&'c mut AnyConnection) -> BoxFuture<'c, Result<Vec<AnyRow>, sqlx::Error>> + Send + Sync,
>;

/// Statement that is running on some connection.
pub(super) type Attempt = BoxFuture<'static, Result<Answered, StoreError>>;

/// Rows of a statement, and the connection that gave them.
pub(super) struct Answered {
    pub connection: PollConnection,
    pub rows: Vec<AnyRow>,
}

/// Connection for polls.
pub(super) struct PollConnection {
    connection: AnyConnection,
    /// Moment before it was opened.
    pub opened: Moment,
    /// Moment of its last answer.
    pub used: Moment,
    /// Server that answered inside a transaction that could write.
    pub server: ServerId,
    /// Address and version of the server, for people.
    pub name: String,
    /// File that it opened, for SQLite.
    pub file: Option<FileId>,
}

impl PollConnection {
    /// Closes the connection in the background.
    pub(super) fn close(self) {
        tokio::spawn(async move {
            let _ = timeout(CLOSE_TIMEOUT, self.connection.close()).await;
        });
    }
}

/// Opens connections for polls, and runs statements on them.
pub(in crate::store) struct Connector {
    options: AnyConnectOptions,
    dialect: Dialect,
    /// False if statements must run in transactions (see [`crate::store::dsn::Dsn::prepares`]).
    prepares: bool,
    file: Option<Arc<TrackedFile>>,
    /// Time that the last connection took to open, in microseconds.
    connect_micros: AtomicU64,
    is_closed: AtomicBool,
}

impl Connector {
    /// Creates a connector; opens nothing.
    pub(crate) fn new(
        options: AnyConnectOptions,
        dialect: Dialect,
        prepares: bool,
        file: Option<Arc<TrackedFile>>,
    ) -> Self {
        let (connect_micros, is_closed) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { options, dialect, prepares, file, connect_micros, is_closed }
    }

    /// Returns the options of connections.
    pub(super) fn options(&self) -> &AnyConnectOptions {
        &self.options
    }

    /// Returns the time that the last connection took to open.
    pub(super) fn connect_time(&self) -> Duration {
        Duration::from_micros(self.connect_micros.load(Ordering::Relaxed))
    }

    /// Refuses further connections.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Returns true after [`Connector::close`].
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Opens a connection, and identifies the server behind it.
    pub(super) async fn open(&self, clock: &Clock) -> Result<PollConnection, StoreError> {
        if self.is_closed() {
            return Err(sqlx::Error::PoolClosed.into());
        }
        let (opened, began) = (clock.moment(), Instant::now());
        let before = self.file.as_ref().map(|file| file.refresh()).transpose()?;
        let mut connection = AnyConnection::connect_with(&self.options).await?;
        if let Some(setup) = self.dialect.session_setup() {
            connection.execute(setup).await?;
        }
        let (server, name) = match self.dialect.identify_server() {
            Some(identify) => {
                let rows = sqlx::raw_sql(AssertSqlSafe(identify)).fetch_all(&mut connection).await?;
                let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
                (authoritative(row, "server_id", "server_state")?, row.try_get("server_name")?)
            }
            None => {
                let name = self.file.as_ref().map(|file| file.file().path().display().to_string());
                (ServerId::new(FILE_SERVER_ID), name.unwrap_or_default())
            }
        };
        let took = began.elapsed().min(CONNECT_TIMEOUT);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.connect_micros.store(took, Ordering::Relaxed);
        // Opening may have created the file, but must not have found another one.
        let file = self.file.as_ref().map(|file| file.file().current()).transpose()?;
        if let Some((before, after)) = before.zip(file) {
            before.compare(after)?;
        }
        Ok(PollConnection { connection, opened, used: clock.moment(), server, name, file })
    }

    /// Runs a statement, and checks that the right server or file answered.
    pub(super) async fn fetch(
        &self,
        mut connection: PollConnection,
        statement: &Statement,
    ) -> Result<Answered, StoreError> {
        let rows = self.run(&mut connection.connection, statement).await?;
        let server = answering_server(&rows)?;
        let is_checked = self.dialect.identify_server().is_some() && !mutants::is_on(Mutant::AnyServer);
        if is_checked && server != connection.server {
            return Err(NotAuthoritative::SplitReads.into());
        }
        // Checked after the read: the path still names the file that was read.
        if let (Some(file), Some(opened)) = (&self.file, connection.file) {
            file.file().check(opened)?;
        }
        Ok(Answered { connection, rows })
    }

    async fn run(
        &self,
        connection: &mut AnyConnection,
        statement: &Statement,
    ) -> Result<Vec<AnyRow>, StoreError> {
        if self.prepares {
            return Ok(statement(connection).await?);
        }
        transaction::read_in_transaction(self.dialect, connection, |connection| statement(connection)).await
    }
}

/// Returns the server in the one row that names it, if it is a primary.
fn answering_server(rows: &[AnyRow]) -> Result<ServerId, StoreError> {
    for row in rows {
        if !row.try_get::<String, _>("server_state")?.is_empty() {
            return authoritative(row, "server_id", "server_state");
        }
    }
    Err(StoreError::NoCounter)
}
