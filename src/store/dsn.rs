//! DSNs in the forms that Ory's configuration accepts.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::sqlite::SqliteConnectOptions;

use super::StoreError;
use super::dialect::Dialect;
use crate::duration;

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
    /// False behind a pooler that runs each transaction on another connection (PgBouncer's
    /// transaction mode).
    pub prepares: bool,
}

impl fmt::Debug for Dsn {
    /// Shows neither the URL nor the path, as the URL has the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dsn").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

const SCHEMES: [(&str, Dialect); 7] = [
    ("sqlite://", Dialect::Sqlite),
    ("sqlite3://", Dialect::Sqlite),
    ("postgres://", Dialect::Postgres),
    ("postgresql://", Dialect::Postgres),
    ("cockroach://", Dialect::Cockroach),
    ("cockroachdb://", Dialect::Cockroach),
    ("mysql://", Dialect::MySql),
];

/// Parameters that are passed to PostgreSQL's driver.
const POSTGRES_PARAMETERS: [&str; 8] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "application_name", "options", "host", "port"];

impl Dsn {
    /// Parses a DSN.
    ///
    /// # Errors
    /// When its scheme isn't supported, or a parameter of it is malformed or unknown.
    pub fn parse(dsn: &str) -> Result<Self, StoreError> {
        let (rest, dialect) = SCHEMES
            .iter()
            .find_map(|(scheme, dialect)| Some((dsn.strip_prefix(scheme)?, *dialect)))
            .ok_or(StoreError::Dsn(
                "must begin with sqlite://, postgres://, postgresql://, mysql://, cockroach:// or cockroachdb://",
            ))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut parsed = Self {
            dialect,
            url: String::new(),
            file: None,
            max_connections: 25,
            max_idle: None,
            max_lifetime: Some(Duration::from_secs(30 * 60)),
            idle_timeout: Some(Duration::from_secs(10 * 60)),
            prepares: true,
        };
        let mut passed_on = vec![];
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            if !parsed.apply(name, value)? {
                passed_on.extend(driver_parameter(dialect, name, value)?);
            }
        }
        parsed.url = match dialect {
            Dialect::Sqlite => sqlite_url(path, passed_on)?,
            Dialect::Postgres | Dialect::Cockroach => url("postgres", path, &passed_on),
            Dialect::MySql => url("mysql", &mysql_address(path)?, &passed_on),
        };
        if dialect == Dialect::Sqlite {
            let options: SqliteConnectOptions =
                parsed.url.parse().map_err(|_| StoreError::Dsn("must be a path, percent-encoded"))?;
            parsed.file = Some(options.get_filename().into());
        }
        Ok(parsed)
    }

    /// Returns the DSN for an existing database: an SQLite file isn't created.
    pub fn existing_only(mut self) -> Self {
        if self.dialect == Dialect::Sqlite {
            self.url = self.url.replacen("?mode=rwc", "?mode=rw", 1);
        }
        self
    }

    /// Applies a parameter of the pool. Returns false if the parameter is for the driver.
    fn apply(&mut self, name: &str, value: &str) -> Result<bool, StoreError> {
        match name {
            "max_conns" => {
                let connections = value.parse().ok().filter(|count| *count > 0);
                self.max_connections =
                    connections.ok_or(StoreError::Dsn("max_conns must be a number above 0"))?;
            }
            "max_idle_conns" => {
                let idle = value.parse().map_err(|_| StoreError::Dsn("max_idle_conns must be a number"))?;
                self.max_idle = Some(idle);
            }
            "max_conn_lifetime" => self.max_lifetime = parse_duration(value)?,
            "max_conn_idle_time" => self.idle_timeout = parse_duration(value)?,
            "statement_cache_capacity" | "statement-cache-capacity" => self.prepares = value != "0",
            // Names of Go's driver for the same setting.
            "default_query_exec_mode" => {
                self.prepares = matches!(value, "cache_statement" | "cache_describe")
            }
            "prefer_simple_protocol" => self.prepares = value != "true",
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Converts a parameter for the driver; `None` if it has no meaning here.
fn driver_parameter(dialect: Dialect, name: &str, value: &str) -> Result<Option<String>, StoreError> {
    let unknown = StoreError::Dsn("has an unknown parameter; known are the pool's settings and those of TLS");
    match (dialect, name) {
        // The mode is set by this module, and pragmas of Go's driver begin with an underscore.
        (Dialect::Sqlite, "mode") => Ok(None),
        (Dialect::Sqlite, name) if name.starts_with('_') => Ok(None),
        (Dialect::Sqlite, "cache") => Ok(Some(format!("{name}={value}"))),
        // A connection to an immutable file doesn't see changes of other processes.
        (Dialect::Sqlite, "immutable") if matches!(value, "false" | "0") => Ok(None),
        (Dialect::Sqlite, "immutable") => {
            Err(StoreError::Dsn("immutable must be false: what other processes revoke would never be seen"))
        }
        (Dialect::Sqlite, "vfs") if value == "unix" => Ok(None),
        (Dialect::Sqlite, "vfs") => Err(StoreError::Dsn(
            "vfs must be unix: the others don't lock the file as SQLite's processes expect",
        )),
        (Dialect::Postgres | Dialect::Cockroach, "options") if value.contains("follower_reads") => {
            Err(StoreError::Dsn("options must not ask for follower reads: followers lag behind revocations"))
        }
        (Dialect::Postgres | Dialect::Cockroach, name) if POSTGRES_PARAMETERS.contains(&name) => {
            Ok(Some(format!("{name}={value}")))
        }
        // Settings of Go's driver for times and texts, which the schema doesn't depend on.
        (Dialect::Postgres | Dialect::Cockroach, "connect_timeout" | "timezone" | "TimeZone") => Ok(None),
        (Dialect::MySql, "parseTime" | "loc" | "charset" | "collation" | "multiStatements") => Ok(None),
        (Dialect::MySql, "timeout" | "readTimeout" | "writeTimeout" | "interpolateParams") => Ok(None),
        (Dialect::MySql, "tls") => {
            let mode = match value {
                "true" => "VERIFY_IDENTITY",
                "skip-verify" => "REQUIRED",
                "preferred" => "PREFERRED",
                "false" => "DISABLED",
                _ => return Err(StoreError::Dsn("tls must be true, false, skip-verify or preferred")),
            };
            Ok(Some(format!("ssl-mode={mode}")))
        }
        (Dialect::MySql, "sslmode" | "ssl-mode") => {
            let mode = match value {
                "disable" | "DISABLED" => "DISABLED",
                "prefer" | "PREFERRED" => "PREFERRED",
                "require" | "REQUIRED" => "REQUIRED",
                "verify-ca" | "VERIFY_CA" => "VERIFY_CA",
                "verify-full" | "VERIFY_IDENTITY" => "VERIFY_IDENTITY",
                _ => {
                    return Err(StoreError::Dsn(
                        "sslmode must be disable, prefer, require, verify-ca or verify-full",
                    ));
                }
            };
            Ok(Some(format!("ssl-mode={mode}")))
        }
        (Dialect::MySql, "sslrootcert" | "ssl-ca") => Ok(Some(format!("ssl-ca={value}"))),
        (Dialect::MySql, "sslcert" | "ssl-cert") => Ok(Some(format!("ssl-cert={value}"))),
        (Dialect::MySql, "sslkey" | "ssl-key") => Ok(Some(format!("ssl-key={value}"))),
        (Dialect::MySql, "socket") => Ok(Some(format!("socket={value}"))),
        _ => Err(unknown),
    }
}

fn url(scheme: &str, path: &str, parameters: &[String]) -> String {
    match parameters {
        [] => format!("{scheme}://{path}"),
        parameters => format!("{scheme}://{path}?{}", parameters.join("&")),
    }
}

fn sqlite_url(path: &str, parameters: Vec<String>) -> Result<String, StoreError> {
    if path.is_empty() || path.contains(":memory:") {
        return Err(StoreError::Dsn("must name a file: sqlite://talos.db or sqlite:///var/lib/talos.db"));
    }
    let mode = "mode=rwc".to_owned();
    Ok(url("sqlite", path, &std::iter::once(mode).chain(parameters).collect::<Vec<_>>()))
}

/// Converts `user:password@tcp(host:port)/database` of Go's driver, whose password isn't
/// percent-encoded, to a URL. A URL stays as it is.
fn mysql_address(path: &str) -> Result<String, StoreError> {
    const FORM: StoreError =
        StoreError::Dsn("must be mysql://user:password@tcp(host:port)/database or a URL");
    let Some((credentials, rest)) = path.rsplit_once("@tcp(").or_else(|| path.rsplit_once("@unix(")) else {
        return Ok(path.to_owned());
    };
    if path[credentials.len()..].starts_with("@unix(") {
        return Err(StoreError::Dsn("names a Unix socket by the parameter socket=/path"));
    }
    let (address, database) = rest.split_once(')').ok_or(FORM)?;
    let credentials = match credentials.split_once(':') {
        Some((user, password)) => format!("{}:{}", percent_encoded(user), percent_encoded(password)),
        None => percent_encoded(credentials),
    };
    Ok(format!("{credentials}@{address}{database}"))
}

fn percent_encoded(text: &str) -> String {
    /// All but the unreserved characters (RFC 3986, 2.3).
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

fn parse_duration(text: &str) -> Result<Option<Duration>, StoreError> {
    let span = duration::parse(text).map_err(|_| {
        StoreError::Dsn("max_conn_lifetime and max_conn_idle_time must be durations such as 30m")
    })?;
    Ok(Some(span).filter(|span| !span.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_settings_are_parsed_and_the_rest_is_for_the_driver() {
        let dsn = Dsn::parse("sqlite:///tmp/a.db?max_conns=5&_fk=true&cache=private&max_conn_idle_time=1m")
            .unwrap();
        assert_eq!(dsn.url, "sqlite:///tmp/a.db?mode=rwc&cache=private");
        assert_eq!(dsn.max_connections, 5);
        assert_eq!(dsn.idle_timeout, Some(Duration::from_secs(60)));
        let dsn = Dsn::parse("postgres://u:p@h:1/d?max_idle_conns=2&default_query_exec_mode=exec").unwrap();
        assert_eq!((dsn.max_idle, dsn.prepares), (Some(2), false));
    }

    #[test]
    fn every_database_in_every_form() {
        for (dsn, dialect, url) in [
            ("sqlite3://talos.db", Dialect::Sqlite, "sqlite://talos.db?mode=rwc"),
            (
                "postgresql://u:p@h/d?sslmode=verify-full&sslrootcert=/ca.pem&max_conns=9",
                Dialect::Postgres,
                "postgres://u:p@h/d?sslmode=verify-full&sslrootcert=/ca.pem",
            ),
            ("cockroach://root@h:26257/d", Dialect::Cockroach, "postgres://root@h:26257/d"),
            ("cockroachdb://root@h:26257/d", Dialect::Cockroach, "postgres://root@h:26257/d"),
            ("mysql://u:p%40@h:3306/d", Dialect::MySql, "mysql://u:p%40@h:3306/d"),
            (
                "mysql://u:p@ss/w:rd@tcp(h:3306)/d?parseTime=true&tls=true",
                Dialect::MySql,
                "mysql://u:p%40ss%2Fw%3Ard@h:3306/d?ssl-mode=VERIFY_IDENTITY",
            ),
            ("mysql://u@tcp(h:1)/d?sslmode=disable", Dialect::MySql, "mysql://u@h:1/d?ssl-mode=DISABLED"),
        ] {
            let parsed = Dsn::parse(dsn).unwrap();
            assert_eq!((parsed.dialect, parsed.url.as_str()), (dialect, url), "{dsn}");
        }
    }

    #[test]
    fn debug_does_not_show_the_password() {
        let dsn = Dsn::parse("postgres://u:hunter2@h/d").unwrap();
        assert!(dsn.url.contains("hunter2") && !format!("{dsn:?}").contains("hunter2"));
    }

    #[test]
    fn errors_do_not_quote_the_dsn() {
        for bad in [
            "",
            "a.db",
            "redis://hunter2",
            "sqlite://",
            "sqlite://:memory:",
            "sqlite://a?max_conns=0",
            "sqlite://a?hunter2=1",
            "postgres://u:hunter2@h/d?tls=true",
            "postgres://u:hunter2@h/d?max_conn_lifetime=soon",
            "mysql://u:hunter2@tcp(h:1/d",
            "mysql://u:hunter2@unix(/s)/d",
            "mysql://u:hunter2@h/d?tls=maybe",
            "mysql://u:hunter2@h/d?sslmode=on",
        ] {
            let error = Dsn::parse(bad).unwrap_err().to_string();
            assert!(error.starts_with("db.dsn: ") && !error.contains("hunter2"), "{bad}: {error}");
        }
    }
}
