//! Simulated server of a database: SQLite that is called inline, with PostgreSQL's visibility.
//!
//! One connection of SQLite is for the one transaction that writes, and another for all reads
//! beside it, which see what is committed. Committed statements are kept, as another server can be
//! built from the first of them.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;

use futures_util::stream::StreamExt;
use sqlx::any::{AnyArguments, AnyQueryResult, AnyRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Either, Error, Row, SqlSafeStr};
use sqlx_core::any::{AnyConnectionBackend, AnyValueKind};
use talos::mutants::Mutant;

use crate::dialect::{self, Role};

/// Time after which a transaction that is idle loses its lock, in microseconds.
const IDLE_TIMEOUT: u64 = 5_000_000;

/// Rows and numbers of changed rows.
pub type Results = Vec<Either<AnyQueryResult, AnyRow>>;

/// Statement with its arguments.
#[derive(Clone)]
pub struct Statement {
    text: Arc<str>,
    arguments: Vec<AnyValueKind>,
}

impl Statement {
    fn plain(text: &str) -> Self {
        Self { text: text.into(), arguments: vec![] }
    }
}

/// Server of the database.
pub struct Server {
    number: usize,
    pub role: Role,
    /// True while it answers nobody.
    pub is_down: bool,
    /// Check of the code under test that it passes, whatever is true.
    lie: Option<Mutant>,
    writer: SqliteConnection,
    reader: SqliteConnection,
    /// Lock of the transaction that writes.
    lock: Option<Lock>,
    /// Statements of each committed transaction, in order.
    commits: Vec<Vec<Statement>>,
}

struct Lock {
    session: u64,
    touched: u64,
    writes: Vec<Statement>,
}

impl Server {
    /// Creates a server with the template's schema and the first `commits`.
    pub fn new(
        number: usize,
        lie: Option<Mutant>,
        (template, folder): (&Path, &Path),
        commits: &[Vec<Statement>],
    ) -> Self {
        let file = folder.join(format!("{number}.db"));
        std::fs::copy(template, &file).expect("a copy of the template");
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .journal_mode(SqliteJournalMode::Memory)
            .synchronous(SqliteSynchronous::Off)
            .disable_statement_logging();
        let open = || block_on(options.connect()).expect("a database");
        let (writer, reader) = (open(), open());
        let (role, is_down, lock) = (Role::Primary, false, None);
        let mut server = Self { number, role, is_down, lie, writer, reader, lock, commits: vec![] };
        server.raw("BEGIN");
        for statement in commits.iter().flatten() {
            run(&mut server.writer, statement).expect("what succeeded before");
        }
        server.raw("COMMIT");
        server.commits = commits.to_vec();
        server
    }

    /// Returns all but the last `lost` transactions.
    pub fn commits(&self, lost: usize) -> &[Vec<Statement>] {
        &self.commits[..self.commits.len().saturating_sub(lost)]
    }

    /// Locks the database for a session's writes. Returns false if another session has the lock.
    pub fn lock(&mut self, session: u64, now: u64) -> bool {
        let is_free = self.lock.as_ref().is_none_or(|lock| now - lock.touched > IDLE_TIMEOUT);
        if is_free {
            if self.lock.take().is_some() {
                self.raw("ROLLBACK");
            }
            self.raw("BEGIN IMMEDIATE");
            self.lock = Some(Lock { session, touched: now, writes: vec![] });
        }
        is_free
    }

    /// Returns true if a session has the lock.
    pub fn has_lock(&self, session: u64) -> bool {
        self.lock.as_ref().is_some_and(|lock| lock.session == session)
    }

    /// Executes a statement of the session that has the lock, or of any other.
    pub fn execute(
        &mut self,
        session: u64,
        (converted, mut arguments): (&dialect::Statement, Vec<AnyValueKind>),
        (now, wall): (u64, i64),
    ) -> Result<Results, Error> {
        let is_write = converted.is_write;
        if is_write && self.role != Role::Primary {
            return Err(SqlError::read_only().into());
        }
        let role = if self.lie == Some(Mutant::AnyRole) { Role::Primary } else { self.role };
        if self.lie == Some(Mutant::TagsIgnored) && converted.text.starts_with("INSERT INTO mutation_log") {
            arguments.iter_mut().for_each(forget_tag);
        }
        arguments.extend(dialect::server_arguments(self.number, role, wall));
        let statement = Statement { text: Arc::clone(&converted.text), arguments };
        let is_dirty = self.lie == Some(Mutant::DirtyReads) && self.lock.is_some();
        if is_dirty && !self.has_lock(session) {
            return run(&mut self.writer, &statement);
        }
        if !self.has_lock(session) {
            assert!(!is_write, "writes are made in transactions: {}", statement.text);
            return run(&mut self.reader, &statement);
        }
        let result = run(&mut self.writer, &statement);
        if let Some(lock) = &mut self.lock {
            lock.touched = now;
            if result.is_ok() && is_write {
                lock.writes.push(statement);
            }
        }
        result
    }

    /// Commits the transaction of a session. Returns false if it has none any more.
    pub fn commit(&mut self, session: u64) -> Result<bool, Error> {
        if self.role != Role::Primary {
            return Err(SqlError::read_only().into());
        }
        if !self.has_lock(session) {
            return Ok(false);
        }
        self.raw("COMMIT");
        self.commits.extend(self.lock.take().map(|lock| lock.writes));
        Ok(true)
    }

    /// Rolls the transaction of a session back, if it has one.
    pub fn roll_back(&mut self, session: u64) {
        if self.has_lock(session) {
            self.raw("ROLLBACK");
            self.lock = None;
        }
    }

    /// Returns all keys, and which of them may be used.
    pub fn keys(&mut self) -> Vec<(String, bool)> {
        let text = "SELECT key_id, CASE WHEN revocation_reason IS NULL AND suspension IS NULL AND NOT EXISTS \
                    (SELECT 1 FROM actors WHERE actors.network_id = api_keys.network_id \
                    AND actors.actor_id = api_keys.actor_id AND actors.suspension IS NOT NULL) \
                    THEN 1 ELSE 0 END FROM api_keys ORDER BY key_id";
        let rows = run(&mut self.reader, &Statement::plain(text)).expect("the keys");
        let key = |row: AnyRow| (row.get::<String, _>(0), row.get::<i64, _>(1) == 1);
        rows.into_iter().filter_map(Either::right).map(key).collect()
    }

    /// Returns the keys before the transaction of a session that has the lock.
    pub fn keys_if(&mut self, session: u64) -> Option<Vec<(String, bool)>> {
        self.has_lock(session).then(|| self.keys())
    }

    fn raw(&mut self, text: &str) {
        run(&mut self.writer, &Statement::plain(text)).expect("a plain statement");
    }
}

/// Replaces a tag, which is the only text of 32 characters in an entry of the log.
fn forget_tag(argument: &mut AnyValueKind) {
    if let AnyValueKind::Text(text) = argument
        && text.len() == 32
    {
        *text = Arc::new("1".repeat(32));
    }
}

fn run(sqlite: &mut SqliteConnection, statement: &Statement) -> Result<Results, Error> {
    let mut arguments = AnyArguments::default();
    arguments.values.0.clone_from(&statement.arguments);
    let text = AssertSqlSafe(Arc::clone(&statement.text)).into_sql_str();
    let results = AnyConnectionBackend::fetch_many(sqlite, text, true, Some(arguments));
    block_on(results.collect::<Vec<_>>()).into_iter().collect()
}

/// Error of the database with a code of PostgreSQL's.
#[derive(Debug)]
pub struct SqlError {
    code: &'static str,
    message: &'static str,
}

impl SqlError {
    pub fn read_only() -> Self {
        Self { code: "25006", message: "cannot execute a write in a read-only transaction" }
    }

    pub fn too_many_connections() -> Self {
        Self { code: "53300", message: "sorry, too many clients already" }
    }

    pub fn terminated() -> Self {
        Self { code: "57P01", message: "terminating connection due to administrator command" }
    }
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message)
    }
}

impl std::error::Error for SqlError {}

impl sqlx::error::DatabaseError for SqlError {
    fn message(&self) -> &str {
        self.message
    }

    fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
        Some(self.code.into())
    }

    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> sqlx::error::ErrorKind {
        sqlx::error::ErrorKind::Other
    }
}

/// Waits for SQLite, whose thread has no part in the simulation: virtual time stands still.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
