//! Checks of a DSN and of the database behind it, before anything is served.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor, Row};

use super::dialect::Dialect;
use super::driver;
use super::dsn::Dsn;
use super::first_contact;
use super::server::authoritative;
use super::{Store, StoreError};

impl Store {
    /// Checks a DSN without connecting. Returns the path of an SQLite file.
    ///
    /// # Errors
    /// When the DSN is malformed, or its database isn't supported.
    pub fn check_dsn(dsn: &str) -> Result<Option<PathBuf>, StoreError> {
        driver::install();
        let dsn = Dsn::parse(dsn)?;
        // The driver's own text may name a part of the URL.
        let parsed: Result<AnyConnectOptions, _> = dsn.url.parse();
        match parsed {
            Ok(_) if dsn.dialect == Dialect::MySql && !names_database(&dsn.url) => Err(StoreError::Dsn(
                "must name a database after the address, as in mysql://user:password@host:3306/talos".into(),
            )),
            Ok(_) => Ok(dsn.file),
            Err(_) => Err(StoreError::Dsn(
                "must be a URL such as postgres://user:password@host:5432/database; in a password, all but letters, \
                 digits and -._~ are percent-encoded"
                    .into(),
            )),
        }
    }

    /// Returns the files of certificates and keys that a DSN names, each with its parameter. There
    /// are none if it turns TLS off.
    pub fn dsn_files(dsn: &str) -> Vec<(String, PathBuf)> {
        const FILES: [&str; 6] = ["sslrootcert", "sslcert", "sslkey", "ssl-ca", "ssl-cert", "ssl-key"];
        let parsed = Dsn::parse(dsn).ok().filter(|dsn| dsn.dialect != Dialect::Sqlite);
        let Some((_, query)) = parsed.as_ref().and_then(|dsn| dsn.url.split_once('?')) else { return vec![] };
        let query = query.split('#').next().unwrap_or_default();
        let pairs: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        if pairs.iter().any(|pair| [("sslmode", "disable"), ("ssl-mode", "DISABLED")].contains(pair)) {
            return vec![];
        }
        let file = |value: &str| PathBuf::from(&*percent_decode_str(value).decode_utf8_lossy());
        let files = pairs.into_iter().filter(|(name, _)| FILES.contains(name));
        files.map(|(name, value)| (name.to_owned(), file(value))).collect()
    }

    /// Connects to the database and describes it: server, version, and version of the schema. An
    /// SQLite file isn't created.
    ///
    /// # Errors
    /// When the database can't be reached, or its schema has another version.
    pub async fn probe(dsn: &str) -> Result<String, StoreError> {
        if let Some(file) = Self::check_dsn(dsn)? {
            Self::check_file(&file)?;
            if !file.exists() {
                return Ok(format!("{}: will be created", file.display()));
            }
        }
        let store = Self::open_existing(dsn).await?;
        let described = store.describe(dsn).await;
        store.close().await;
        described
    }

    /// Version of the schema.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn schema_version(&self) -> Result<i64, StoreError> {
        self.version().await
    }

    /// Returns kind and version of the server, or the file, and the version of the schema.
    async fn describe(&self, dsn: &str) -> Result<String, StoreError> {
        let dsn = Dsn::parse(dsn)?;
        let version = self.schema_version().await?;
        let name = match dsn.dialect.identify_server() {
            None => dsn.file.map(|file| file.display().to_string()).unwrap_or_default(),
            Some(statements) => {
                let options: AnyConnectOptions = dsn.url.parse()?;
                let mut connection = AnyConnection::connect_with(&options).await?;
                if let Some(setup) = dsn.dialect.session_setup() {
                    connection.execute(setup).await?;
                }
                let rows = sqlx::raw_sql(AssertSqlSafe(statements)).fetch_all(&mut connection).await?;
                let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
                authoritative(row, "server_id", "server_state")?;
                first_contact::check_encoding(&mut connection, &options).await?;
                let name = row.try_get("server_name")?;
                connection.close().await?;
                name
            }
        };
        let kind = if dsn.dialect == Dialect::Sqlite { "SQLite, " } else { "" };
        Ok(format!("{kind}{name}, schema {version}"))
    }
}

/// Returns true if a driver's URL names a database.
fn names_database(url: &str) -> bool {
    url.parse::<sqlx_core::Url>().is_ok_and(|url| !url.path().trim_matches('/').is_empty())
}
