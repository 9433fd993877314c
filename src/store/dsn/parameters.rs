//! Parameters of connections: for the driver, obeyed here, without effect, or refused.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::{Dsn, parse_duration, percent_encoded, refused};
use crate::store::StoreError;
use crate::store::dialect::Dialect;
use crate::store::transaction::{READ_TIMEOUT, WRITE_TIMEOUT};

/// Parameter for the driver; `None` if there is nothing to pass on.
type PassedOn = Result<Option<String>, StoreError>;

/// Converts a parameter for the driver, or applies it.
///
/// # Errors
/// When it is unknown, or can't be obeyed.
pub(super) fn for_driver(dsn: &mut Dsn, name: &str, value: &str) -> PassedOn {
    match dsn.dialect {
        Dialect::Sqlite => sqlite(name, value),
        Dialect::Postgres | Dialect::Cockroach => postgres(dsn, name, value),
        Dialect::MySql => mysql(dsn, name, value),
    }
}

/// Parameters that name what another program does, and what to write instead.
const REFUSED: [(Dialect, &str, &str); 34] = [
    (Dialect::Postgres, "ssl", "isn't PostgreSQL's: write sslmode=verify-full, or sslmode=require"),
    (Dialect::Postgres, "sslpassword", "isn't supported: give sslkey a key that isn't encrypted"),
    (Dialect::Postgres, "sslcrl", "isn't supported: remove it"),
    (Dialect::Postgres, "schema", "is another program's: write search_path=NAME"),
    (Dialect::Postgres, "currentSchema", "is another program's: write search_path=NAME"),
    (Dialect::Postgres, "connection_limit", "is another program's: write max_conns=NUMBER"),
    (Dialect::Postgres, "pool_timeout", "has no counterpart: remove it, a request waits 3s for a connection"),
    (
        Dialect::Postgres,
        "pool_min_conns",
        "has no counterpart: remove it, connections open as they are needed",
    ),
    (
        Dialect::Postgres,
        "pool_min_idle_conns",
        "has no counterpart: remove it, or write max_idle_conns=NUMBER",
    ),
    (
        Dialect::Postgres,
        "pool_health_check_period",
        "has no counterpart: remove it, connections are pinged before use",
    ),
    (Dialect::Postgres, "pool_max_conn_lifetime_jitter", "has no counterpart: remove it"),
    (Dialect::Postgres, "passfile", "isn't supported: set the environment variable PGPASSFILE"),
    (Dialect::Postgres, "service", "isn't supported: write host, user and database into the DSN"),
    (Dialect::Postgres, "servicefile", "isn't supported: write host, user and database into the DSN"),
    (Dialect::Postgres, "keepalives", "isn't supported: remove it, every wait has a timeout here"),
    (Dialect::Postgres, "keepalives_idle", "isn't supported: remove it, every wait has a timeout here"),
    (Dialect::Postgres, "keepalives_interval", "isn't supported: remove it, every wait has a timeout here"),
    (Dialect::Postgres, "keepalives_count", "isn't supported: remove it, every wait has a timeout here"),
    (Dialect::Postgres, "tcp_user_timeout", "isn't supported: remove it, every wait has a timeout here"),
    (
        Dialect::Postgres,
        "require_auth",
        "isn't supported: remove it, and prove the server by sslmode=verify-full",
    ),
    (Dialect::Postgres, "replication", "must not be set: this is no replica"),
    (Dialect::Postgres, "default_transaction_read_only", "must not be set: Talos writes"),
    (Dialect::MySql, "ssl", "is another program's: write ssl-mode=VERIFY_IDENTITY"),
    (Dialect::MySql, "sslaccept", "is another program's: write ssl-mode=VERIFY_IDENTITY"),
    (Dialect::MySql, "useSSL", "is another program's: write ssl-mode=VERIFY_IDENTITY"),
    (Dialect::MySql, "requireSSL", "is another program's: write ssl-mode=REQUIRED"),
    (Dialect::MySql, "verifyServerCertificate", "is another program's: write ssl-mode=VERIFY_IDENTITY"),
    (Dialect::MySql, "serverTimezone", "has no meaning here: remove it, times are stored as numbers"),
    (Dialect::MySql, "connection_limit", "is another program's: write max_conns=NUMBER"),
    (Dialect::MySql, "connectTimeout", "is another program's: write timeout=10s"),
    (Dialect::MySql, "connect_timeout", "is another program's: write timeout=10s"),
    (Dialect::MySql, "autocommit", "must not be set: Talos sets it for each session"),
    (Dialect::MySql, "sql_mode", "must not be set: Talos sets it for each session"),
    (Dialect::MySql, "tx_isolation", "must not be set: Talos sets it for each session"),
];

/// Returns the error of a parameter that isn't known, or is another program's.
fn unknown(dialect: Dialect, name: &str) -> StoreError {
    let dialect = if dialect == Dialect::Cockroach { Dialect::Postgres } else { dialect };
    let known = REFUSED.iter().find(|(of, known, _)| *of == dialect && *known == name);
    match (known, dialect) {
        (Some((.., problem)), _) => refused(name, problem),
        (None, Dialect::Sqlite) => {
            refused(name, "is unknown: remove it; known are those of the pool, and cache")
        }
        (None, Dialect::MySql) => {
            refused(name, "is unknown: remove it; known are those of the pool, of TLS, socket and timeout")
        }
        (None, _) => refused(
            name,
            "is unknown: remove it; known are those of the pool, of TLS, options and search_path",
        ),
    }
}

/// Accepts a parameter whose value asks for what is done anyway.
fn only(name: &str, value: &str, allowed: &[&str], otherwise: &str) -> PassedOn {
    match allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(value)) {
        true => Ok(None),
        false => Err(refused(name, otherwise)),
    }
}

fn passed(name: &str, value: &str) -> PassedOn {
    Ok(Some(format!("{name}={value}")))
}

fn decoded(value: &str) -> String {
    percent_decode_str(value).decode_utf8_lossy().into_owned()
}

/// Makes a setting of the session, which PostgreSQL gets when the session begins.
fn session_setting(name: &str, value: &str) -> PassedOn {
    // PostgreSQL splits the text at blanks, unless they are escaped.
    let escaped: String = decoded(value)
        .chars()
        .flat_map(|c| (c == '\\' || c.is_whitespace()).then_some('\\').into_iter().chain([c]))
        .collect();
    Ok(Some(format!("options={}", percent_encoded(&format!("-c {name}={escaped}")))))
}

/// Parses seconds, or a duration with its unit.
fn seconds(name: &str, value: &str) -> Result<Option<Duration>, StoreError> {
    match value.parse() {
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds)).filter(|limit| !limit.is_zero())),
        Err(_) => parse_duration(name, value),
    }
}

fn postgres(dsn: &mut Dsn, name: &str, value: &str) -> PassedOn {
    match name {
        "options" if value.contains("follower_reads") => {
            Err(refused(name, "must not ask for follower reads: followers lag behind revocations"))
        }
        "sslmode" => match value {
            "disable" | "prefer" | "require" | "verify-ca" | "verify-full" => passed(name, value),
            "allow" => Err(refused(name, "can't be allow: write prefer, which tries TLS first")),
            _ => Err(refused(name, "must be disable, prefer, require, verify-ca or verify-full")),
        },
        "host" if value.contains(',') => Err(refused(name, "must name one host, the primary's")),
        "port" if value.parse::<u16>().is_err() => Err(refused(name, "must be a number from 1 to 65535")),
        "hostaddr" if value.parse::<std::net::IpAddr>().is_err() => {
            Err(refused(name, "must be an IP address, without brackets"))
        }
        "sslrootcert" | "sslcert" | "sslkey" | "application_name" | "options" | "host" | "hostaddr"
        | "port" | "dbname" | "user" | "password" => passed(name, value),
        "fallback_application_name" => passed("application_name", value),
        "search_path" | "statement_timeout" | "lock_timeout" | "idle_in_transaction_session_timeout" => {
            session_setting(name, value)
        }
        "connect_timeout" => {
            dsn.connect_timeout = seconds(name, value)?;
            Ok(None)
        }
        "channel_binding" => only(
            name,
            value,
            &["disable", "prefer"],
            "can't be require: remove it, and prove the server by sslmode=verify-full",
        ),
        "target_session_attrs" => only(
            name,
            value,
            &["any", "read-write", "primary"],
            "must be read-write, primary or any: replicas lag behind revocations",
        ),
        "load_balance_hosts" => only(name, value, &["disable"], "must be disable, as there is one host"),
        "gssencmode" => only(name, value, &["disable", "prefer"], "must be disable: GSSAPI isn't supported"),
        "sslnegotiation" => only(name, value, &["postgres"], "must be postgres: remove it"),
        "sslsni" => only(name, value, &["1"], "must be 1: remove it"),
        "sslcompression" => only(name, value, &["0"], "must be 0: remove it"),
        "ssl_min_protocol_version" => only(name, value, &["TLSv1.2", "TLSv1", "TLSv1.1"], "must be TLSv1.2"),
        "client_encoding" => only(name, value, &["UTF8", "UTF-8", "auto"], "must be UTF8"),
        // Times are stored as numbers, and sessions have UTC.
        "timezone" | "TimeZone" => Ok(None),
        _ => pooling(dsn, name, value),
    }
}

/// Applies a parameter that tells what poolers stand before PostgreSQL.
fn pooling(dsn: &mut Dsn, name: &str, value: &str) -> PassedOn {
    let prepares = match (name, value) {
        // Ory's choice of a pool; here is one, and it finds out whether a pooler stands before it.
        ("pool_mode", "standard" | "advanced") => return Ok(None),
        ("pool_mode", "session") => true,
        ("pool_mode", "transaction") => false,
        ("pool_mode", _) => {
            return Err(refused(name, "must be session or transaction, as changes need transactions"));
        }
        ("default_query_exec_mode", "cache_statement" | "cache_describe") => true,
        ("default_query_exec_mode", "describe_exec" | "exec" | "simple_protocol") => false,
        ("default_query_exec_mode", _) => {
            return Err(refused(
                name,
                "must be cache_statement, cache_describe, describe_exec, exec or simple_protocol",
            ));
        }
        ("prefer_simple_protocol" | "pgbouncer", "true" | "false") => value == "false",
        ("binary_parameters", "yes" | "no") => value == "no",
        ("prefer_simple_protocol" | "pgbouncer", _) => return Err(refused(name, "must be true or false")),
        ("binary_parameters", _) => return Err(refused(name, "must be yes or no")),
        _ => return Err(unknown(dsn.dialect, name)),
    };
    dsn.prepares = Some(prepares);
    Ok(None)
}

fn mysql(dsn: &mut Dsn, name: &str, value: &str) -> PassedOn {
    match name {
        // Settings of Go's driver for times and texts, which the schema doesn't depend on.
        "parseTime" | "loc" | "multiStatements" | "interpolateParams" | "clientFoundRows" => Ok(None),
        "charset" => {
            let first = value.split(',').next().unwrap_or_default();
            only(name, first, &["utf8mb4", "utf8"], "must be utf8mb4")
        }
        "collation" if value.starts_with("utf8") => Ok(None),
        "collation" => Err(refused(name, "must be one of utf8mb4")),
        // A server that is read-only is left anyway.
        "rejectReadOnly" => Ok(None),
        "allowNativePasswords" | "checkConnLiveness" => {
            only(name, value, &["true"], "must be true: remove it")
        }
        "allowCleartextPasswords" | "allowOldPasswords" | "allowAllFiles" => {
            only(name, value, &["false"], "must be false: remove it")
        }
        "timeout" => {
            dsn.connect_timeout = parse_duration(name, value)?;
            Ok(None)
        }
        "readTimeout" => at_least(name, value, READ_TIMEOUT),
        "writeTimeout" => at_least(name, value, WRITE_TIMEOUT),
        "tls" => {
            let mode = match value {
                "true" => "VERIFY_IDENTITY",
                "skip-verify" => "REQUIRED",
                "preferred" => "PREFERRED",
                "false" => "DISABLED",
                _ => {
                    return Err(refused(
                        name,
                        "must be true, false, skip-verify or preferred; for a CA of your own write tls=true&ssl-ca=FILE",
                    ));
                }
            };
            passed("ssl-mode", mode)
        }
        "sslmode" | "ssl-mode" | "ssl_mode" | "sslMode" => {
            let mode = match value.to_ascii_lowercase().replace('_', "-").as_str() {
                "disable" | "disabled" => "DISABLED",
                "prefer" | "preferred" => "PREFERRED",
                "require" | "required" => "REQUIRED",
                "verify-ca" => "VERIFY_CA",
                "verify-full" | "verify-identity" => "VERIFY_IDENTITY",
                _ => return Err(refused(name, "must be disable, prefer, require, verify-ca or verify-full")),
            };
            passed("ssl-mode", mode)
        }
        "sslrootcert" | "ssl-ca" | "ssl_ca" | "sslca" => passed("ssl-ca", value),
        "sslcert" | "ssl-cert" | "ssl_cert" => passed("ssl-cert", value),
        "sslkey" | "ssl-key" | "ssl_key" => passed("ssl-key", value),
        "socket" | "unix_socket" => passed("socket", value),
        _ => Err(unknown(dsn.dialect, name)),
    }
}

/// Accepts a timeout that Talos's own one keeps.
fn at_least(name: &str, value: &str, own: Duration) -> PassedOn {
    match parse_duration(name, value)? {
        Some(limit) if limit < own => Err(refused(
            name,
            &format!("must be at least {own:?}, after which a statement is given up anyway"),
        )),
        Some(_) | None => Ok(None),
    }
}

fn sqlite(name: &str, value: &str) -> PassedOn {
    match name {
        "mode" => only(name, value, &["rwc", "rw"], "must be rwc: Talos writes"),
        "cache" if matches!(value, "private" | "shared") => passed(name, value),
        "cache" => Err(refused(name, "must be private or shared")),
        // A connection to an immutable file doesn't see changes of other processes.
        "immutable" => only(
            name,
            value,
            &["false", "0"],
            "must be false: what other processes revoke would never be seen",
        ),
        "vfs" => only(
            name,
            value,
            &["unix"],
            "must be unix: the others don't lock the file as SQLite's processes expect",
        ),
        // Pragmas of Go's drivers. The schema has no foreign keys.
        "_fk" | "_foreign_keys" | "_loc" => Ok(None),
        "_journal" | "_journal_mode" => {
            only(name, value, &["WAL"], "must be WAL, which Talos sets: remove it")
        }
        "_sync" | "_synchronous" => {
            only(name, value, &["FULL", "2"], "must be FULL: acknowledged changes survive a power cut")
        }
        "_txlock" => only(name, value, &["immediate"], "must be immediate: remove it"),
        "_timeout" | "_busy_timeout" => {
            only(name, value, &["5000"], "must be 5000, which Talos sets: remove it")
        }
        "_pragma" => {
            let pragma = decoded(value).to_ascii_lowercase();
            let allowed = ["foreign_keys(1)", "foreign_keys(on)", "journal_mode(wal)", "busy_timeout(5000)"];
            only(name, &pragma, &allowed, "isn't supported: remove it, Talos sets the pragmas that it needs")
        }
        _ if name.starts_with('_') => {
            Err(refused(name, "isn't supported: remove it, Talos sets the pragmas that it needs"))
        }
        _ => Err(unknown(Dialect::Sqlite, name)),
    }
}
