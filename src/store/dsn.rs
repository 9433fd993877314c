//! DSNs in the forms that Ory's configuration and the vendors' consoles use. Each parameter is
//! obeyed, or refused by its name.

mod address;
mod parameters;
mod tls;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::sqlite::SqliteConnectOptions;

use super::StoreError;
use super::dialect::Dialect;
use super::driver;
use crate::duration;
use address::Address;

/// Parsed DSN: settings of the pool, and the URL for the driver.
#[derive(Clone)]
pub(super) struct Dsn {
    pub dialect: Dialect,
    /// URL for the driver, with the password.
    pub url: String,
    /// File of SQLite.
    pub file: Option<PathBuf>,
    pub max_connections: u32,
    pub max_idle: Option<u32>,
    pub max_lifetime: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    /// Timeout of connecting; `None` uses the pool's.
    pub connect_timeout: Option<Duration>,
    /// False behind a pooler that runs each transaction on another connection (PgBouncer's
    /// transaction mode); `None` if the DSN doesn't say.
    pub prepares: Option<bool>,
}

impl fmt::Debug for Dsn {
    /// Shows neither the URL nor the path, as the URL has the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dsn").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

const SCHEMES: [(&str, Dialect); 8] = [
    ("sqlite://", Dialect::Sqlite),
    ("sqlite3://", Dialect::Sqlite),
    ("postgres://", Dialect::Postgres),
    ("postgresql://", Dialect::Postgres),
    ("cockroach://", Dialect::Cockroach),
    ("cockroachdb://", Dialect::Cockroach),
    ("mysql://", Dialect::MySql),
    ("mariadb://", Dialect::MySql),
];

/// Parameters that may stand there several times. Of others, two programs could take another one.
const REPEATABLE: [&str; 2] = ["options", "_pragma"];

/// Returns the error of a parameter, which names it; the value is never part of `problem`.
fn refused(name: &str, problem: &str) -> StoreError {
    StoreError::Dsn(Cow::Owned(format!("the parameter {name} {problem}")))
}

impl Dsn {
    /// Parses a DSN.
    ///
    /// # Errors
    /// When its scheme isn't supported, its address can't be told from its password, or a parameter
    /// is malformed, unknown or can't be obeyed.
    pub(super) fn parse(dsn: &str) -> Result<Self, StoreError> {
        // Files and variables of secrets often end with a line ending.
        let (rest, dialect) = scheme(dsn.trim())?;
        let mut parsed = Self {
            dialect,
            url: String::new(),
            file: None,
            max_connections: 25,
            max_idle: None,
            max_lifetime: Some(Duration::from_secs(30 * 60)),
            idle_timeout: Some(Duration::from_secs(10 * 60)),
            connect_timeout: None,
            prepares: None,
        };
        if dialect == Dialect::Sqlite {
            let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
            let passed_on = parsed.apply_all(query)?;
            parsed.url = sqlite_url(path, passed_on)?;
            let options: SqliteConnectOptions =
                parsed.url.parse().map_err(|_| StoreError::Dsn("must be a path, percent-encoded".into()))?;
            parsed.file = Some(options.get_filename().into());
            return Ok(parsed);
        }
        let address = Address::parse(dialect, rest)?;
        let mut passed_on = parsed.apply_all(address.query)?;
        passed_on.extend(address.socket.iter().map(|path| format!("socket={}", percent_encoded(path))));
        let mut parameters = tls::Parameters(passed_on);
        let mut own = vec![];
        let scheme = if dialect == Dialect::MySql {
            tls::mysql(&mut parameters);
            "mysql"
        } else {
            own.extend(
                tls::postgres(&mut parameters, address.host)?.then(|| driver::SYSTEM_ROOTS.to_owned()),
            );
            "postgres"
        };
        own.extend(
            parsed.connect_timeout.map(|limit| format!("{}{}", driver::CONNECT_TIMEOUT, limit.as_millis())),
        );
        parsed.url = address.url(scheme, parameters.0);
        if !own.is_empty() {
            parsed.url.push_str(&format!("#{}", own.join("&")));
        }
        // Checked here, as the driver's own message may quote what stands where a password might.
        if parsed.url.parse::<sqlx_core::Url>().is_err() {
            return Err(StoreError::Dsn(address::ENCODE.into()));
        }
        Ok(parsed)
    }

    /// Returns the DSN for an existing database: an SQLite file isn't created.
    pub(super) fn existing_only(mut self) -> Self {
        if self.dialect == Dialect::Sqlite {
            self.url = self.url.replacen("?mode=rwc", "?mode=rw", 1);
        }
        self
    }

    /// Returns the DSN for a command that prepares nothing, as a pooler may stand before the
    /// database.
    pub(super) fn unprepared(mut self) -> Self {
        self.prepares.get_or_insert(false);
        self
    }

    /// Applies all parameters. Returns those that are for the driver.
    fn apply_all(&mut self, query: &str) -> Result<Vec<String>, StoreError> {
        let mut passed_on = vec![];
        let mut names = HashSet::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // Rather a part of a password than a name, and so not to be shown.
            if !is_name(name) || value.contains('@') && self.dialect != Dialect::Sqlite {
                return Err(StoreError::Dsn(address::ENCODE.into()));
            }
            if !pair.contains('=') {
                return Err(refused(name, "has no value: write it as name=value, or remove it"));
            }
            if !names.insert(name) && !REPEATABLE.contains(&name) {
                return Err(refused(name, "stands there twice: keep one"));
            }
            if !self.apply(name, value)? {
                passed_on.extend(parameters::for_driver(self, name, value)?);
            }
        }
        Ok(passed_on)
    }

    /// Applies a parameter of the pool. Returns false if the parameter is for the driver.
    fn apply(&mut self, name: &str, value: &str) -> Result<bool, StoreError> {
        match name {
            "max_conns" | "pool_max_conns" => {
                let connections = value.parse().ok().filter(|count| *count > 0);
                self.max_connections = connections.ok_or(refused(name, "must be a number above 0"))?;
            }
            "max_idle_conns" => {
                self.max_idle = Some(value.parse().map_err(|_| refused(name, "must be a number"))?);
            }
            "max_conn_lifetime" | "pool_max_conn_lifetime" => {
                self.max_lifetime = parse_duration(name, value)?;
            }
            "max_conn_idle_time" | "pool_max_conn_idle_time" => {
                self.idle_timeout = parse_duration(name, value)?;
            }
            "statement_cache_capacity" | "statement-cache-capacity" => {
                let capacity: u32 = value.parse().map_err(|_| refused(name, "must be a number"))?;
                self.prepares = Some(capacity != 0);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Returns what follows the scheme, and the kind of database.
fn scheme(dsn: &str) -> Result<(&str, Dialect), StoreError> {
    // Schemes are the same in upper and lower case (RFC 3986, 3.1).
    let found = SCHEMES.iter().find_map(|(scheme, dialect)| {
        let (found, rest) = dsn.split_at_checked(scheme.len())?;
        found.eq_ignore_ascii_case(scheme).then_some((rest, *dialect))
    });
    if let Some(found) = found {
        return Ok(found);
    }
    if address::is_go_form(dsn) {
        return Ok((dsn, Dialect::MySql));
    }
    let begins = |words: &[&str]| words.iter().any(|word| dsn.starts_with(word));
    Err(StoreError::Dsn(Cow::Borrowed(match () {
        () if begins(&["host=", "user=", "dbname=", "port="]) => {
            "must be a URL instead of keywords: postgres://user:password@host:5432/database?sslmode=verify-full"
        }
        () if begins(&["\"", "'"]) => {
            "must not have quotes around it: they are a part of the value here (docker's --env-file keeps them)"
        }
        () if begins(&["jdbc:"]) => {
            "must not begin with jdbc:, and needs user and password before the host: \
             postgres://user:password@host:5432/database"
        }
        () if names_driver(dsn) => {
            "must name no driver: write postgres://, mysql:// or sqlite:// instead of what is before ://"
        }
        () => {
            "must begin with sqlite://, postgres://, postgresql://, mysql://, cockroach:// or cockroachdb://"
        }
    })))
}

/// Returns true for a scheme that names a program's driver, such as `postgresql+asyncpg` or
/// `mysql2`.
fn names_driver(dsn: &str) -> bool {
    let Some((scheme, _)) = dsn.split_once("://") else { return false };
    ["postgres", "pgsql", "pgx", "mysql", "mariadb", "cockroach", "sqlite"]
        .iter()
        .any(|name| scheme.to_ascii_lowercase().starts_with(name))
}

/// Returns true for what may be the name of a parameter.
fn is_name(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_-.[]".contains(c);
    text.len() <= 48
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(is_word)
}

fn sqlite_url(path: &str, parameters: Vec<String>) -> Result<String, StoreError> {
    if path.is_empty() || path.contains(":memory:") {
        return Err(StoreError::Dsn(
            "must name a file: sqlite://talos.db or sqlite:///var/lib/talos.db".into(),
        ));
    }
    let mode = "mode=rwc".to_owned();
    let parameters: Vec<String> = std::iter::once(mode).chain(parameters).collect();
    Ok(format!("sqlite://{path}?{}", parameters.join("&")))
}

fn percent_encoded(text: &str) -> String {
    /// All but the unreserved characters (RFC 3986, 2.3).
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Parses a duration; `None` for zero.
fn parse_duration(name: &str, text: &str) -> Result<Option<Duration>, StoreError> {
    let span = duration::parse(text).map_err(|_| refused(name, "must be a duration such as 30m"))?;
    Ok(Some(span).filter(|span| !span.is_zero()))
}
