//! Driver for sqlx's `Any` under the schemes of PostgreSQL: its connections lead to the simulated
//! database. It is installed before Talos installs its own, which then are not used.

#[path = "../../src/store/driver/unused.rs"]
mod unused;

use std::fmt;
use std::future::ready;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Once;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sqlx::any::{AnyArguments, AnyConnectOptions, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::migrate::Migrate;
use sqlx::{ConnectOptions, Connection, Database, Either, Error, SqlStr, Transaction};
use sqlx_core::Url;
use sqlx_core::any::AnyConnectionBackend;
use sqlx_core::any::driver::{AnyDriver, install_drivers};

use crate::session::Session;
use unused::{NoArguments, Unused};

/// Installs the driver, and SQLite's for the database that all servers begin with.
pub fn install() {
    static ONCE: Once = Once::new();
    static DRIVERS: [AnyDriver; 2] =
        [AnyDriver::without_migrate::<Driver<Simulated>>(), AnyDriver::without_migrate::<sqlx::Sqlite>()];
    ONCE.call_once(|| install_drivers(&DRIVERS).expect("no other drivers"));
}

/// Kind of database; there is one.
trait Backend: fmt::Debug + Send + Sync + 'static {}

#[derive(Debug)]
struct Simulated;

impl Backend for Simulated {}

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

    const NAME: &'static str = "simulated PostgreSQL";
    const URL_SCHEMES: &'static [&'static str] = &["postgres", "postgresql"];
}

/// Options of a connection: none, as the thread says which instance connects.
#[derive(Debug)]
struct Options<B>(PhantomData<fn() -> B>);

impl<B> Clone for Options<B> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<B: Backend> FromStr for Options<B> {
    type Err = Error;

    fn from_str(_: &str) -> Result<Self, Error> {
        Ok(Self(PhantomData))
    }
}

impl<'a, B: Backend> TryFrom<&'a AnyConnectOptions> for Options<B> {
    type Error = Error;

    fn try_from(_: &'a AnyConnectOptions) -> Result<Self, Error> {
        Ok(Self(PhantomData))
    }
}

impl<B: Backend> ConnectOptions for Options<B> {
    type Connection = Connected<B>;

    fn from_url(_: &Url) -> Result<Self, Error> {
        Ok(Self(PhantomData))
    }

    async fn connect(&self) -> Result<Connected<B>, Error> {
        Ok(Connected(Session::open().await?, PhantomData))
    }

    fn log_statements(self, _: log::LevelFilter) -> Self {
        self
    }

    fn log_slow_statements(self, _: log::LevelFilter, _: Duration) -> Self {
        self
    }
}

/// Connection to a simulated server.
#[derive(Debug)]
struct Connected<B: Backend>(Session, PhantomData<fn() -> B>);

impl<B: Backend> Connection for Connected<B> {
    type Database = Driver<B>;
    type Options = Options<B>;

    fn close(self) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        drop(self);
        ready(Ok(()))
    }

    fn close_hard(self) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        drop(self);
        ready(Ok(()))
    }

    fn ping(&mut self) -> impl Future<Output = Result<(), Error>> + Send + '_ {
        self.0.ping()
    }

    fn begin(&mut self) -> impl Future<Output = Result<Transaction<'_, Self::Database>, Error>> + Send + '_ {
        ready(Err(unused::error()))
    }

    fn shrink_buffers(&mut self) {}

    fn flush(&mut self) -> impl Future<Output = Result<(), Error>> + Send + '_ {
        ready(Ok(()))
    }

    fn should_flush(&self) -> bool {
        false
    }
}

impl<B: Backend> AnyConnectionBackend for Connected<B> {
    fn name(&self) -> &str {
        "PostgreSQL"
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(Connection::close(*self))
    }

    fn close_hard(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(Connection::close_hard(*self))
    }

    fn ping(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.0.ping())
    }

    fn begin(&mut self, statement: Option<SqlStr>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.0.begin(statement))
    }

    fn commit(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.0.commit())
    }

    fn rollback(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.0.rollback())
    }

    fn start_rollback(&mut self) {
        self.0.roll_back();
    }

    fn get_transaction_depth(&self) -> usize {
        usize::from(self.0.is_in_transaction())
    }

    fn shrink_buffers(&mut self) {}

    fn flush(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(ready(Ok(())))
    }

    fn should_flush(&self) -> bool {
        false
    }

    fn as_migrate(&mut self) -> Result<&mut (dyn Migrate + Send + 'static), Error> {
        Err(unused::error())
    }

    fn fetch_many(
        &mut self,
        query: SqlStr,
        _: bool,
        arguments: Option<AnyArguments>,
    ) -> BoxStream<'_, Result<Either<AnyQueryResult, AnyRow>, Error>> {
        use futures_util::stream::{StreamExt, iter, once};
        let results = once(self.0.execute(query, arguments)).flat_map(|results| {
            iter(match results {
                Ok(results) => results.into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            })
        });
        Box::pin(results)
    }

    fn fetch_optional(
        &mut self,
        query: SqlStr,
        _: bool,
        arguments: Option<AnyArguments>,
    ) -> BoxFuture<'_, Result<Option<AnyRow>, Error>> {
        Box::pin(async move {
            let results = self.0.execute(query, arguments).await?;
            Ok(results.into_iter().find_map(Either::right))
        })
    }

    fn prepare_with<'c, 'q: 'c>(
        &'c mut self,
        _: SqlStr,
        _: &[AnyTypeInfo],
    ) -> BoxFuture<'c, Result<AnyStatement, Error>> {
        Box::pin(ready(Err(unused::error())))
    }
}
