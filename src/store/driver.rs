//! Drivers of the databases, with options that sqlx's own drivers for a URL can't be given.
//!
//! sqlx sends `extra_float_digits` to PostgreSQL at the start of each session, which a PgBouncer
//! with its default configuration refuses. It looks up `[::1]` with its brackets, waits for a
//! server without a limit, and its errors don't name the server.

mod unused;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Once;
use std::time::Duration;

use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use sqlx::any::{AnyArguments, AnyConnectOptions, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::migrate::Migrate;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Database, Either, Error, SqlStr, Transaction};
use sqlx_core::Url;
use sqlx_core::any::AnyConnectionBackend;
use sqlx_core::any::driver::{AnyDriver, install_drivers};
use tokio::time::timeout;

use unused::{NoArguments, Unused};

use crate::tls::SystemIssuers;

/// Start of the part of a URL's fragment that bounds the time of connecting, in milliseconds. A
/// fragment has no meaning for sqlx; its parts are joined by `&`.
pub(super) const CONNECT_TIMEOUT: &str = "connect_timeout_ms=";

/// Part of a URL's fragment by which the system's CAs count, beside those that are compiled in.
pub(super) const SYSTEM_ROOTS: &str = "system_roots";

/// Installs the drivers.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    static DRIVERS: [AnyDriver; 3] = [
        AnyDriver::without_migrate::<Driver<Postgres>>(),
        AnyDriver::without_migrate::<Driver<MySql>>(),
        AnyDriver::without_migrate::<sqlx::Sqlite>(),
    ];
    ONCE.call_once(|| {
        // Fails only if somebody else has installed drivers, which then are used.
        let _ = install_drivers(&DRIVERS);
    });
}

/// Database whose connections sqlx makes with options of ours.
trait Backend: fmt::Debug + Send + Sync + 'static {
    type Connection: AnyConnectionBackend;
    const NAME: &'static str;
    const URL_SCHEMES: &'static [&'static str];

    /// Makes the options of a connection; also returns the server's name for errors.
    fn options(options: &AnyConnectOptions) -> Result<(ConnectWith<Self>, String), Error>;
}

/// Future that connects.
type ConnectWith<B> = BoxFuture<'static, Result<<B as Backend>::Connection, Error>>;

#[derive(Debug)]
struct Postgres;

impl Backend for Postgres {
    type Connection = PgConnection;
    const NAME: &'static str = "PostgreSQL";
    const URL_SCHEMES: &'static [&'static str] = &["postgres", "postgresql"];

    fn options(options: &AnyConnectOptions) -> Result<(ConnectWith<Self>, String), Error> {
        let has_system_roots = fragment_parts(&options.database_url).any(|part| part == SYSTEM_ROOTS);
        let mut options = PgConnectOptions::try_from(options)?.extra_float_digits(None);
        if let Some(host) = without_brackets(options.get_host()) {
            options = options.host(&host);
        }
        let socket = options.get_socket().map(|path| path.display().to_string());
        let name = server_name(socket, options.get_host(), options.get_port());
        let connect = async move {
            let options = match has_system_roots {
                true => options.ssl_root_cert_from_pem(SystemIssuers::load().pem.concat().into_bytes()),
                false => options,
            };
            options.connect().await
        };
        Ok((connect.boxed(), name))
    }
}

#[derive(Debug)]
struct MySql;

impl Backend for MySql {
    type Connection = MySqlConnection;
    const NAME: &'static str = "MySQL";
    const URL_SCHEMES: &'static [&'static str] = &["mysql", "mariadb"];

    fn options(options: &AnyConnectOptions) -> Result<(ConnectWith<Self>, String), Error> {
        let mut options = MySqlConnectOptions::try_from(options)?;
        if let Some(host) = without_brackets(options.get_host()) {
            options = options.host(&host);
        }
        let socket = options.get_socket().map(|path| path.display().to_string());
        let name = server_name(socket, options.get_host(), options.get_port());
        Ok((async move { options.connect().await }.boxed(), name))
    }
}

/// Returns the address in the brackets that a URL puts around an IPv6 address.
fn without_brackets(host: &str) -> Option<String> {
    host.strip_prefix('[')?.strip_suffix(']').map(str::to_owned)
}

fn server_name(socket: Option<String>, host: &str, port: u16) -> String {
    match socket {
        Some(path) => path,
        None if host.starts_with('/') => host.to_owned(),
        None if host.contains(':') => format!("[{host}]:{port}"),
        None => format!("{host}:{port}"),
    }
}

/// Returns the name of the server that options lead to; `None` for SQLite, or if they are unusable.
pub(super) fn server_of(options: &AnyConnectOptions) -> Option<String> {
    match options.database_url.scheme() {
        "mysql" => MySql::options(options).ok().map(|(_, name)| name),
        "postgres" => Postgres::options(options).ok().map(|(_, name)| name),
        _ => None,
    }
}

/// Returns the time that the URL allows for connecting.
fn connect_timeout(url: &Url) -> Option<Duration> {
    let millis = fragment_parts(url).find_map(|part| part.strip_prefix(CONNECT_TIMEOUT))?;
    Some(Duration::from_millis(millis.parse().ok()?))
}

fn fragment_parts(url: &Url) -> impl Iterator<Item = &str> {
    url.fragment().unwrap_or_default().split('&')
}

/// Adds the name of the server to an error of its network.
fn at(server: &str, error: Error) -> Error {
    match error {
        Error::Io(error) => Error::Io(io::Error::new(error.kind(), format!("{server}: {error}"))),
        Error::Tls(error) => Error::Tls(format!("{server}: {error}").into()),
        error => error,
    }
}

/// Database of sqlx around a backend. Only its connections are used, through sqlx's `Any`.
#[derive(Debug)]
struct Driver<B>(PhantomData<B>);

impl<B: Backend> Database for Driver<B> {
    type Connection = Connected<B>;
    type TransactionManager = Unused<B>;
    type Row = Unused<B>;
    type QueryResult = ();
    type Column = Unused<B>;
    type TypeInfo = Unused<B>;
    type Value = Unused<B>;
    type ValueRef<'r> = Unused<B>;
    type Arguments = NoArguments<B>;
    type ArgumentBuffer = ();
    type Statement = Unused<B>;

    const NAME: &'static str = B::NAME;
    const URL_SCHEMES: &'static [&'static str] = B::URL_SCHEMES;
}

/// Options of a connection.
struct Options<B> {
    options: AnyConnectOptions,
    backend: PhantomData<B>,
}

impl<B> Clone for Options<B> {
    fn clone(&self) -> Self {
        Self { options: self.options.clone(), backend: PhantomData }
    }
}

impl<B> fmt::Debug for Options<B> {
    /// Shows nothing, as the URL has a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Options")
    }
}

impl<B: Backend> FromStr for Options<B> {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self, Error> {
        Ok(Self { options: url.parse()?, backend: PhantomData })
    }
}

impl<'a, B: Backend> TryFrom<&'a AnyConnectOptions> for Options<B> {
    type Error = Error;

    fn try_from(options: &'a AnyConnectOptions) -> Result<Self, Error> {
        Ok(Self { options: options.clone(), backend: PhantomData })
    }
}

impl<B: Backend> ConnectOptions for Options<B> {
    type Connection = Connected<B>;

    fn from_url(url: &Url) -> Result<Self, Error> {
        Ok(Self { options: AnyConnectOptions::from_url(url)?, backend: PhantomData })
    }

    async fn connect(&self) -> Result<Connected<B>, Error> {
        let (connect, server) = B::options(&self.options)?;
        let connected = match connect_timeout(&self.options.database_url) {
            None => connect.await,
            Some(limit) => timeout(limit, connect).await.unwrap_or_else(|_| {
                let reason = format!("no answer within {limit:?}");
                Err(Error::Io(io::Error::new(io::ErrorKind::TimedOut, reason)))
            }),
        };
        connected.map(Connected).map_err(|error| at(&server, error))
    }

    fn log_statements(mut self, level: log::LevelFilter) -> Self {
        self.options = self.options.log_statements(level);
        self
    }

    fn log_slow_statements(mut self, level: log::LevelFilter, duration: Duration) -> Self {
        self.options = self.options.log_slow_statements(level, duration);
        self
    }
}

/// Connection of a backend.
#[derive(Debug)]
struct Connected<B: Backend>(B::Connection);

impl<B: Backend> Connection for Connected<B> {
    type Database = Driver<B>;
    type Options = Options<B>;

    fn close(self) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        Box::new(self.0).close()
    }

    fn close_hard(self) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        Box::new(self.0).close_hard()
    }

    fn ping(&mut self) -> impl Future<Output = Result<(), Error>> + Send + '_ {
        self.0.ping()
    }

    fn begin(&mut self) -> impl Future<Output = Result<Transaction<'_, Self::Database>, Error>> + Send + '_ {
        future::ready(Err(unused::error()))
    }

    fn shrink_buffers(&mut self) {
        self.0.shrink_buffers();
    }

    fn flush(&mut self) -> impl Future<Output = Result<(), Error>> + Send + '_ {
        self.0.flush()
    }

    fn should_flush(&self) -> bool {
        self.0.should_flush()
    }
}

impl<B: Backend> AnyConnectionBackend for Connected<B> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::new(self.0).close()
    }

    fn close_hard(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::new(self.0).close_hard()
    }

    fn ping(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        self.0.ping()
    }

    fn begin(&mut self, statement: Option<SqlStr>) -> BoxFuture<'_, Result<(), Error>> {
        self.0.begin(statement)
    }

    fn commit(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        self.0.commit()
    }

    fn rollback(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        self.0.rollback()
    }

    fn start_rollback(&mut self) {
        self.0.start_rollback();
    }

    fn get_transaction_depth(&self) -> usize {
        self.0.get_transaction_depth()
    }

    fn cached_statements_size(&self) -> usize {
        self.0.cached_statements_size()
    }

    fn clear_cached_statements(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        self.0.clear_cached_statements()
    }

    fn shrink_buffers(&mut self) {
        self.0.shrink_buffers();
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        self.0.flush()
    }

    fn should_flush(&self) -> bool {
        self.0.should_flush()
    }

    fn as_migrate(&mut self) -> Result<&mut (dyn Migrate + Send + 'static), Error> {
        self.0.as_migrate()
    }

    fn fetch_many(
        &mut self,
        query: SqlStr,
        persistent: bool,
        arguments: Option<AnyArguments>,
    ) -> BoxStream<'_, Result<Either<AnyQueryResult, AnyRow>, Error>> {
        self.0.fetch_many(query, persistent, arguments)
    }

    fn fetch_optional(
        &mut self,
        query: SqlStr,
        persistent: bool,
        arguments: Option<AnyArguments>,
    ) -> BoxFuture<'_, Result<Option<AnyRow>, Error>> {
        self.0.fetch_optional(query, persistent, arguments)
    }

    fn prepare_with<'c, 'q: 'c>(
        &'c mut self,
        sql: SqlStr,
        parameters: &[AnyTypeInfo],
    ) -> BoxFuture<'c, Result<AnyStatement, Error>> {
        self.0.prepare_with(sql, parameters)
    }
}
