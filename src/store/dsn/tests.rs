//! Connection strings in the forms that people paste, and what they mean or what is said of them.

use std::time::Duration;

use super::Dsn;
use crate::store::dialect::Dialect;

/// Start of the message about a password that can't be told from the rest.
const ENCODE: &str = "can't tell the password from the rest: percent-encode it";

/// Connection strings that are understood, with the URL that the driver gets.
const UNDERSTOOD: &[(&str, Dialect, &str)] = &[
    // SQLite.
    ("sqlite3://talos.db", Dialect::Sqlite, "sqlite://talos.db?mode=rwc"),
    ("sqlite:///var/lib/talos.db?mode=rwc&_fk=true", Dialect::Sqlite, "sqlite:///var/lib/talos.db?mode=rwc"),
    ("sqlite://a.db?_journal_mode=WAL&_busy_timeout=5000", Dialect::Sqlite, "sqlite://a.db?mode=rwc"),
    ("sqlite://a.db?cache=shared", Dialect::Sqlite, "sqlite://a.db?mode=rwc&cache=shared"),
    (" sqlite://a.db\r\n", Dialect::Sqlite, "sqlite://a.db?mode=rwc"),
    ("SQLite://A.db", Dialect::Sqlite, "sqlite://A.db?mode=rwc"),
    ("PostgreSQL://u:p@h/D", Dialect::Postgres, "postgres://u:p@h/D"),
    ("postgres://u:p@h/d\n", Dialect::Postgres, "postgres://u:p@h/d"),
    // PostgreSQL.
    (
        "postgresql://u:p@h/d?sslmode=verify-full&sslrootcert=/ca.pem&max_conns=9",
        Dialect::Postgres,
        "postgres://u:p@h/d?sslmode=verify-full&sslrootcert=/ca.pem",
    ),
    ("postgres://u:p@[::1]:5433/d", Dialect::Postgres, "postgres://u:p@[::1]:5433/d"),
    ("postgres://u@[2001:db8::7]/d", Dialect::Postgres, "postgres://u@[2001:db8::7]/d"),
    ("postgres://u:p%2Fw%3F%23@h/d", Dialect::Postgres, "postgres://u:p%2Fw%3F%23@h/d"),
    ("postgres://u:p@ss@h/d", Dialect::Postgres, "postgres://u:p@ss@h/d"),
    ("postgres:///d?host=/run/postgresql", Dialect::Postgres, "postgres:///d?host=/run/postgresql"),
    (
        "postgres://u:p%20w@/d?host=%2Frun%2Fpostgresql",
        Dialect::Postgres,
        "postgres:///d?host=%2Frun%2Fpostgresql&user=u&password=p%20w",
    ),
    ("postgres://u@%2Frun%2Fpostgresql/d", Dialect::Postgres, "postgres://u@%2Frun%2Fpostgresql/d"),
    ("postgres://u@:5433/d?host=/tmp", Dialect::Postgres, "postgres:///d?host=/tmp&user=u&port=5433"),
    (
        "postgres://u:p@ep-x.eu.neon.tech/d?sslmode=require&channel_binding=prefer",
        Dialect::Postgres,
        "postgres://u:p@ep-x.eu.neon.tech/d?sslmode=require",
    ),
    ("postgres://h/d?target_session_attrs=read-write", Dialect::Postgres, "postgres://h/d"),
    ("postgres://h/d?target_session_attrs=primary", Dialect::Postgres, "postgres://h/d"),
    ("postgres://h/d?connect_timeout=5", Dialect::Postgres, "postgres://h/d#connect_timeout_ms=5000"),
    (
        "postgres://h/d?search_path=talos,public",
        Dialect::Postgres,
        "postgres://h/d?options=-c%20search_path%3Dtalos%2Cpublic",
    ),
    (
        "postgres://h/d?search_path=talos,%20public",
        Dialect::Postgres,
        "postgres://h/d?options=-c%20search_path%3Dtalos%2C%5C%20public",
    ),
    (
        "postgres://h/d?statement_timeout=3s&application_name=talos",
        Dialect::Postgres,
        "postgres://h/d?options=-c%20statement_timeout%3D3s&application_name=talos",
    ),
    ("postgres://h/d?pool_mode=transaction&pool_max_conns=4", Dialect::Postgres, "postgres://h/d"),
    ("postgres://h/d?pgbouncer=true", Dialect::Postgres, "postgres://h/d"),
    (
        "postgres://h/d?sslrootcert=system&sslmode=verify-full",
        Dialect::Postgres,
        "postgres://h/d?sslmode=verify-full#system_roots",
    ),
    (
        "postgres://h/d?sslrootcert=system&connect_timeout=5",
        Dialect::Postgres,
        "postgres://h/d?sslmode=verify-full#system_roots&connect_timeout_ms=5000",
    ),
    // A CA that is named is used, as libpq does with `require`.
    (
        "postgres://h/d?sslmode=require&sslrootcert=/ca.pem",
        Dialect::Postgres,
        "postgres://h/d?sslrootcert=/ca.pem&sslmode=verify-ca",
    ),
    (
        "postgres://h/d?sslrootcert=/ca.pem",
        Dialect::Postgres,
        "postgres://h/d?sslrootcert=/ca.pem&sslmode=verify-ca",
    ),
    // There is no TLS on a Unix socket.
    (
        "postgres:///d?host=/run/postgresql&sslmode=require",
        Dialect::Postgres,
        "postgres:///d?host=/run/postgresql&sslmode=disable",
    ),
    (
        "postgres://u@%2Frun%2Fpostgresql/d?sslmode=verify-full&sslrootcert=/ca.pem",
        Dialect::Postgres,
        "postgres://u@%2Frun%2Fpostgresql/d?sslmode=disable",
    ),
    ("postgres://h/d?hostaddr=10.0.0.5", Dialect::Postgres, "postgres://h/d?hostaddr=10.0.0.5"),
    (
        "postgres://h/d?gssencmode=disable&client_encoding=UTF8&TimeZone=UTC",
        Dialect::Postgres,
        "postgres://h/d",
    ),
    ("postgres://u:p@h", Dialect::Postgres, "postgres://u:p@h"),
    // CockroachDB.
    ("cockroach://root@h:26257/d", Dialect::Cockroach, "postgres://root@h:26257/d"),
    (
        "cockroachdb://root@h:26257/d?sslmode=disable",
        Dialect::Cockroach,
        "postgres://root@h:26257/d?sslmode=disable",
    ),
    // MySQL.
    ("mysql://u:p%40@h:3306/d", Dialect::MySql, "mysql://u:p%40@h:3306/d"),
    ("mariadb://u:p@h/d", Dialect::MySql, "mysql://u:p@h/d"),
    ("mysql://u:p@[::1]:3306/d", Dialect::MySql, "mysql://u:p@[::1]:3306/d"),
    (
        "mysql://u:p@ss/w:rd@tcp(h:3306)/d?parseTime=true&tls=true",
        Dialect::MySql,
        "mysql://u:p%40ss%2Fw%3Ard@h:3306/d?ssl-mode=VERIFY_IDENTITY",
    ),
    (
        "u:p#w?d@tcp(h:3306)/d?tls=skip-verify",
        Dialect::MySql,
        "mysql://u:p%23w%3Fd@h:3306/d?ssl-mode=REQUIRED",
    ),
    ("u:p@tcp([::1]:3306)/d", Dialect::MySql, "mysql://u:p@[::1]:3306/d"),
    ("mysql://u@tcp(h:1)/d?sslmode=disable", Dialect::MySql, "mysql://u@h:1/d?ssl-mode=DISABLED"),
    ("u:p@unix(/run/mysqld.sock)/d", Dialect::MySql, "mysql://u:p@localhost/d?socket=%2Frun%2Fmysqld.sock"),
    (
        "mysql://u:p@/d?socket=/run/mysqld.sock",
        Dialect::MySql,
        "mysql://u:p@localhost/d?socket=/run/mysqld.sock",
    ),
    (
        "u:p@tcp(h:3306)/d?timeout=10s&readTimeout=30s&writeTimeout=30s&charset=utf8mb4",
        Dialect::MySql,
        "mysql://u:p@h:3306/d#connect_timeout_ms=10000",
    ),
    (
        "mysql://u:p@h/d?ssl-mode=VERIFY_CA&ssl-ca=/ca.pem",
        Dialect::MySql,
        "mysql://u:p@h/d?ssl-mode=VERIFY_CA&ssl-ca=/ca.pem",
    ),
    ("mysql://u:p@h/d?ssl-ca=/ca.pem", Dialect::MySql, "mysql://u:p@h/d?ssl-ca=/ca.pem&ssl-mode=VERIFY_CA"),
    (
        "mysql://u:p@h/d?sslmode=require&ssl-ca=/ca.pem",
        Dialect::MySql,
        "mysql://u:p@h/d?ssl-ca=/ca.pem&ssl-mode=VERIFY_CA",
    ),
    (
        "mysql://u:p@h/d?ssl-mode=disabled&ssl-ca=/ca.pem",
        Dialect::MySql,
        "mysql://u:p@h/d?ssl-mode=DISABLED&ssl-ca=/ca.pem",
    ),
];

/// Connection strings that are refused, and the start of what is said.
const REFUSED: &[(&str, &str)] = &[
    ("", "must begin with sqlite://"),
    ("oracle://h/d", "must begin with sqlite://"),
    ("host=h user=u dbname=d", "must be a URL instead of keywords"),
    ("\"postgres://u:hunter2@h/d\"", "must not have quotes around it"),
    ("'mysql://u:hunter2@h/d'", "must not have quotes around it"),
    ("jdbc:postgresql://h/d?user=u&password=hunter2", "must not begin with jdbc:"),
    ("postgresql+asyncpg://u:hunter2@h/d", "must name no driver"),
    ("mysql2://u:hunter2@h/d", "must name no driver"),
    ("postgres://h/d?sslmode=verify-full&sslmode=disable", "the parameter sslmode stands there twice"),
    ("mysql://h/d?tls=true&tls=false", "the parameter tls stands there twice"),
    ("sqlite://", "must name a file"),
    ("sqlite://:memory:", "must name a file"),
    ("sqlite://a?mode=ro", "the parameter mode must be rwc"),
    ("sqlite://a?_journal_mode=DELETE", "the parameter _journal_mode must be WAL"),
    ("sqlite://a?immutable=1", "the parameter immutable must be false"),
    ("sqlite://a?max_conns=0", "the parameter max_conns must be a number above 0"),
    // Passwords that aren't percent-encoded.
    ("postgres://u:hunter2/w@h/d", ENCODE),
    ("postgres://u:hunter2#w@h/d", ENCODE),
    ("postgres://u:hunter2?w@h/d", ENCODE),
    ("postgres://u:12/hunter2@h/d", ENCODE),
    ("postgres://u:12?hunter2=1@h/d", ENCODE),
    ("mysql://u:hunter2/w@h/d", ENCODE),
    // Addresses.
    ("postgres://u:hunter2@::1:5432/d", "has several colons in its address"),
    ("postgres://u:hunter2@[::1/d", "has an IPv6 address without its closing bracket"),
    ("postgres://u:hunter2@[h]:1/d", "has brackets around what is no IPv6 address"),
    ("postgres://u:hunter2@h:port/d", "has a port that is no number from 1 to 65535"),
    ("postgres://u:hunter2@a:1,b:1/d", "must name one host"),
    ("mysql://u:hunter2@tcp(h:1/d", "must be mysql://user:password@tcp(host:port)/database"),
    // Parameters.
    (
        "postgres://u:p@h/d?channel_binding=require",
        "the parameter channel_binding can't be require: remove it",
    ),
    ("postgres://h/d?target_session_attrs=standby", "the parameter target_session_attrs must be read-write"),
    ("postgres://h/d?sslmode=on", "the parameter sslmode must be disable, prefer"),
    ("postgres://h/d?sslmode=allow", "the parameter sslmode can't be allow: write prefer"),
    (
        "postgres://h/d?sslmode=require&sslrootcert=system",
        "the parameter sslrootcert can be system with sslmode=verify-full only",
    ),
    (
        "postgres://h/d?hostaddr=10.0.0.5&sslrootcert=system",
        "the parameter hostaddr can't be used with sslmode=verify-full",
    ),
    (
        "postgres://h/d?hostaddr=10.0.0.5&sslmode=verify-full",
        "the parameter hostaddr can't be used with sslmode=verify-full",
    ),
    ("postgres://h/d?ssl=true", "the parameter ssl isn't PostgreSQL's: write sslmode=verify-full"),
    ("postgres://h/d?schema=talos", "the parameter schema is another program's: write search_path"),
    ("postgres://h/d?pool_mode=statement", "the parameter pool_mode must be session or transaction"),
    ("postgres://h/d?pool_min_conns=2", "the parameter pool_min_conns has no counterpart: remove it"),
    ("postgres://h/d?hunter=2", "the parameter hunter is unknown: remove it"),
    ("postgres://h/d?sslmode", "the parameter sslmode has no value"),
    (
        "postgres://h/d?max_conn_lifetime=soon",
        "the parameter max_conn_lifetime must be a duration such as 30m",
    ),
    ("postgres://h/d?connect_timeout=soon", "the parameter connect_timeout must be a duration"),
    (
        "postgres://h/d?options=-c%20default_transaction_use_follower_reads=on",
        "the parameter options must not",
    ),
    ("postgres://u:hunter2@h/d?tls=true", "the parameter tls is unknown"),
    ("mysql://u:hunter2@h/d?tls=custom", "the parameter tls must be true, false, skip-verify or preferred"),
    ("mysql://u:hunter2@h/d?sslmode=on", "the parameter sslmode must be disable"),
    ("mysql://u:hunter2@h/d?readTimeout=1s", "the parameter readTimeout must be at least 5s"),
    ("mysql://u:hunter2@h/d?charset=latin1", "the parameter charset must be utf8mb4"),
    ("mysql://u:hunter2@h/d?useSSL=true", "the parameter useSSL is another program's: write ssl-mode"),
    (
        "mysql://u:hunter2@h/d?ssl=%7B%22rejectUnauthorized%22:true%7D",
        "the parameter ssl is another program's",
    ),
];

#[test]
fn connection_strings_mean_what_their_programs_mean() {
    for (dsn, dialect, url) in UNDERSTOOD {
        let parsed = Dsn::parse(dsn).unwrap_or_else(|error| panic!("{dsn}: {error}"));
        assert_eq!((parsed.dialect, parsed.url.as_str()), (*dialect, *url), "{dsn}");
    }
}

#[test]
fn connection_strings_are_refused_by_the_name_of_what_is_wrong() {
    for (dsn, message) in REFUSED {
        let error = Dsn::parse(dsn).err().unwrap_or_else(|| panic!("{dsn}: is understood")).to_string();
        let text = error.strip_prefix("db.dsn: ").unwrap_or_else(|| panic!("{dsn}: {error}"));
        assert!(text.starts_with(message), "{dsn}: {text}");
        assert!(!error.contains("hunter2"), "{dsn}: {error}");
    }
    assert!(UNDERSTOOD.len() + REFUSED.len() >= 60);
}

#[test]
fn pool_settings_are_obeyed() {
    let dsn =
        Dsn::parse("sqlite:///tmp/a.db?max_conns=5&_fk=true&cache=private&max_conn_idle_time=1m").unwrap();
    assert_eq!(dsn.url, "sqlite:///tmp/a.db?mode=rwc&cache=private");
    assert_eq!((dsn.max_connections, dsn.idle_timeout), (5, Some(Duration::from_secs(60))));
    let dsn =
        Dsn::parse("postgres://h/d?pool_max_conns=7&pool_max_conn_lifetime=1h&max_idle_conns=2").unwrap();
    assert_eq!((dsn.max_connections, dsn.max_idle), (7, Some(2)));
    assert_eq!(dsn.max_lifetime, Some(Duration::from_secs(3_600)));
}

#[test]
fn poolers_are_named_by_the_dsn_or_detected() {
    for (parameter, prepares) in [
        ("", None),
        ("default_query_exec_mode=exec", Some(false)),
        ("default_query_exec_mode=cache_statement", Some(true)),
        ("statement_cache_capacity=0", Some(false)),
        ("prefer_simple_protocol=true", Some(false)),
        ("pool_mode=transaction", Some(false)),
        ("pool_mode=session", Some(true)),
        ("pool_mode=standard", None),
        ("pool_mode=advanced", None),
        ("pgbouncer=true", Some(false)),
        ("binary_parameters=yes", Some(false)),
    ] {
        let dsn = Dsn::parse(&format!("postgres://h/d?{parameter}")).unwrap();
        assert_eq!(dsn.prepares, prepares, "{parameter}");
    }
}

#[test]
fn debug_does_not_show_the_password() {
    let dsn = Dsn::parse("postgres://u:hunter2@h/d").unwrap();
    assert!(dsn.url.contains("hunter2") && !format!("{dsn:?}").contains("hunter2"));
}
