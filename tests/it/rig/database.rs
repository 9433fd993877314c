//! The database under test: SQLite, or what `$TALOS_TEST_DATABASE` names. `tests/services.py`
//! starts the servers.

use std::process::Command;
use std::sync::OnceLock;

use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor, Row};

use crate::rig::needs::variable;
use crate::rig::proxy::Proxy;
use crate::rig::support::Must;

/// A server to run the tests against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Postgres,
    /// PostgreSQL behind PgBouncer in transaction mode.
    PgBouncer,
    MariaDb,
}

/// Returns the server under test; None for SQLite, which needs none.
pub fn server() -> Option<Server> {
    match std::env::var("TALOS_TEST_DATABASE").as_deref() {
        Err(_) | Ok("" | "sqlite") => None,
        Ok("postgres") => Some(Server::Postgres),
        Ok("pgbouncer") => Some(Server::PgBouncer),
        Ok("mariadb") => Some(Server::MariaDb),
        Ok(other) => panic!("TALOS_TEST_DATABASE: {other} is none of sqlite, postgres, pgbouncer, mariadb"),
    }
}

impl Server {
    /// Creates a database without a schema, and returns its DSN.
    pub fn empty_database(self) -> String {
        let name = new_name();
        let (server, at) = match self {
            Self::Postgres | Self::PgBouncer => {
                let postgres = variable("TALOS_TEST_POSTGRES");
                (postgres.clone(), format!("{postgres}/postgres"))
            }
            Self::MariaDb => {
                let mariadb = variable("TALOS_TEST_MARIADB");
                (mariadb.clone(), mariadb)
            }
        };
        execute(&at, format!("CREATE DATABASE {name}"));
        format!("{server}/{name}")
    }

    /// Creates a database with the current schema, and returns its DSN.
    pub fn new_database(self) -> String {
        match self {
            Self::Postgres | Self::PgBouncer => {
                static TEMPLATE: OnceLock<String> = OnceLock::new();
                let postgres = variable("TALOS_TEST_POSTGRES");
                let template = TEMPLATE.get_or_init(|| {
                    let dsn = Self::Postgres.empty_database();
                    migrate(&dsn);
                    dsn.rsplit_once('/').must("a database's name").1.to_owned()
                });
                let name = new_name();
                let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
                execute(&format!("{postgres}/postgres"), create);
                match self {
                    Self::PgBouncer => {
                        format!("{}/{name}?statement_cache_capacity=0", variable("TALOS_TEST_PGBOUNCER"))
                    }
                    _ => format!("{postgres}/{name}"),
                }
            }
            Self::MariaDb => {
                let dsn = self.empty_database();
                migrate(&dsn);
                dsn
            }
        }
    }
}

/// Creates an empty database of PostgreSQL, and returns its DSN over TLS.
pub fn new_postgres_over_tls() -> String {
    let (postgres, ca, name) =
        (variable("TALOS_TEST_POSTGRES"), variable("TALOS_TEST_POSTGRES_CA"), new_name());
    execute(&format!("{postgres}/postgres"), format!("CREATE DATABASE {name}"));
    format!("{postgres}/{name}?sslmode=verify-full&sslrootcert={ca}")
}

/// Starts a proxy in front of the server of a DSN, and returns it with the DSN through it.
pub async fn behind_proxy(dsn: &str) -> (Proxy, String) {
    const HOST: &str = "127.0.0.1:";
    let (before, after) = dsn.split_once(HOST).must("a DSN on loopback");
    let (port, rest) = after.split_once('/').must("a DSN with a database");
    let proxy = Proxy::start(port.parse().must("a port")).await;
    let proxied = format!("{before}{HOST}{}/{rest}", proxy.port);
    (proxy, proxied)
}

/// Returns the DSN of the same database without TLS.
pub fn without_tls(dsn: &str) -> String {
    let separator = if dsn.contains('?') { '&' } else { '?' };
    let parameter = if dsn.starts_with("mysql") { "tls=false" } else { "sslmode=disable" };
    format!("{dsn}{separator}{parameter}")
}

/// Returns the number that a query gives.
pub async fn number(url: &str, query: &str) -> i64 {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(url).await.must("connecting to the database");
    // Not prepared: behind a pooler the name could be that of another connection's statement.
    let row = sqlx::raw_sql(AssertSqlSafe(query.to_owned())).fetch_one(&mut connection).await;
    row.must(query).get(0)
}

/// Begins a transaction that holds the locks of a statement until it is dropped.
pub async fn hold(url: &str, statement: &str) -> AnyConnection {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(url).await.must("connecting to the database");
    for statement in ["BEGIN", statement] {
        connection.execute(AssertSqlSafe(statement.to_owned())).await.must(statement);
    }
    connection
}

pub fn new_name() -> String {
    format!("t_{}", uuid::Uuid::new_v4().simple())
}

/// Gives a database the current schema.
pub fn migrate(dsn: &str) {
    let mut talos = Command::new(env!("CARGO_BIN_EXE_talos"));
    let output = talos.args(["migrate", "up", "--database", dsn]).output().must("running talos migrate up");
    assert!(output.status.success(), "talos migrate up: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs one statement on a connection and a thread of its own: callers may be in a runtime or not.
pub fn execute(url: &str, statement: String) {
    let url = url.to_owned();
    let run = async move {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(&url).await?;
        // A template that somebody still looks at can't be copied; that passes.
        for _ in 0..100 {
            match connection.execute(AssertSqlSafe(statement.clone())).await {
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55006") => {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                result => return result.map(drop),
            }
        }
        Err(sqlx::Error::WorkerCrashed)
    };
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.must("a runtime").block_on(run)
    });
    thread.join().unwrap_or_else(|_| panic!("a thread for SQL")).must("SQL");
}
