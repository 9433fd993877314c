//! First connections to a database: whether it answers, and whether a pooler stands before it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, Connection, Executor, Row};
use tokio::time::{sleep, timeout};

use super::{Store, StoreError, driver};
use crate::permissions;

/// Timeout of the first connection, unless the DSN has another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time after which an operator is told that the database doesn't answer.
const SLOW: Duration = Duration::from_millis(800);
/// Number of times that an SQLite file is opened again while its log is missing, and the time
/// between them: a process that has it open notices that the log was removed, and closes it.
const MAX_REOPENINGS: u32 = 25;
const REOPENING_INTERVAL: Duration = Duration::from_millis(200);
/// SQLite's code for a file that is shorter than its index says (SQLITE_IOERR_SHORT_READ).
const SHORT_READ: &str = "522";
/// SQLite's code for a file that can't be opened (SQLITE_CANTOPEN).
const CANNOT_OPEN: &str = "14";
/// SQLite's code for a file of another kind (SQLITE_NOTADB).
const NOT_A_DATABASE: &str = "26";
/// First bytes of an SQLite file (https://www.sqlite.org/fileformat.html, 1.3).
const HEADER: &[u8; 16] = b"SQLite format 3\0";
/// Encodings that take every letter. SQL_ASCII stores bytes as they come.
const COMPLETE_ENCODINGS: [&str; 2] = ["UTF8", "SQL_ASCII"];
/// Setting that no server has: PostgreSQL takes it, a pooler refuses or drops it.
const PROBE: &str = "talos.pooler_probe";

/// Connects once, so that an error is the server's own and comes at once: the pool goes on trying,
/// and then says no more than that it has timed out.
///
/// # Errors
/// When the server doesn't answer, or refuses the connection.
pub(super) async fn reach(
    options: &AnyConnectOptions,
    time_limit: Option<Duration>,
) -> Result<(), StoreError> {
    let server = driver::server_of(options).unwrap_or_default();
    let connect = timeout(time_limit.unwrap_or(CONNECT_TIMEOUT), AnyConnection::connect_with(options));
    tokio::pin!(connect);
    let connected = tokio::select! {
        connected = &mut connect => connected,
        () = sleep(SLOW) => {
            tracing::warn!(server, "the database doesn't answer yet");
            connect.await
        }
    };
    match connected {
        Ok(Ok(mut connection)) => {
            if let Ok(Err(error @ StoreError::Encoding(_))) =
                timeout(CONNECT_TIMEOUT, check_encoding(&mut connection, options)).await
            {
                tracing::warn!(server, "{error}");
            }
            // The server has answered, so an error while closing doesn't matter.
            let _ = connection.close().await;
            Ok(())
        }
        // These have the server's name already.
        Ok(Err(error @ (sqlx::Error::Io(_) | sqlx::Error::Tls(_)))) => Err(error.into()),
        Ok(Err(sqlx::Error::Protocol(_))) => Err(StoreError::OtherProtocol { server }),
        Ok(Err(error)) => Err(StoreError::Refused { server, error }),
        Err(_) => Err(StoreError::Silent { server }),
    }
}

/// Checks that every letter of a name can be stored.
///
/// # Errors
/// When the encoding of the database lacks letters, or it isn't known.
pub(super) async fn check_encoding(
    connection: &mut AnyConnection,
    options: &AnyConnectOptions,
) -> Result<(), StoreError> {
    if options.database_url.scheme() != "postgres" {
        return Ok(());
    }
    let query = "SELECT current_setting('server_encoding') AS encoding";
    let encoding: String = sqlx::raw_sql(query).fetch_one(connection).await?.try_get("encoding")?;
    match COMPLETE_ENCODINGS.contains(&&*encoding) {
        true => Ok(()),
        false => Err(StoreError::Encoding(encoding)),
    }
}

impl Store {
    /// Checks that an SQLite file is one and can be written, or can be made, before a process uses
    /// it.
    ///
    /// It is opened for a moment: beside connections of the same process that would end their
    /// locks, as POSIX has it.
    ///
    /// # Errors
    /// When its directory isn't there, something else is at its path, or this user can't write it.
    pub fn check_file(path: &Path) -> Result<(), StoreError> {
        check_kind(path)?;
        check_permissions(path)?;
        let Ok(found) = path.metadata() else { return Ok(()) };
        let mut header = [0; HEADER.len()];
        match File::open(path).and_then(|mut file| file.read_exact(&mut header)) {
            Ok(()) if header == *HEADER => Ok(()),
            Err(_) if found.len() == 0 => Ok(()),
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
                Err(StoreError::Dsn(format!("{} can't be read: {error}", path.display()).into()))
            }
            Ok(()) | Err(_) => Err(no_database(path)),
        }
    }
}

/// Checks that a file is at the path, or that one can be made, without opening it.
fn check_kind(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    let problem = match (directory, path.metadata()) {
        (Some(directory), _) if !directory.is_dir() => {
            format!("there is no directory {}: create it, or name another path", directory.display())
        }
        (_, Ok(found)) if found.is_dir() => format!("{} is a directory: name a file in it", path.display()),
        (_, Ok(found)) if !found.is_file() => {
            format!("{} is a device, a pipe or a socket: name a file", path.display())
        }
        _ if path.as_os_str().as_bytes().ends_with(b"/") => {
            format!("{} ends with /: name a file", path.display())
        }
        _ => return Ok(()),
    };
    Err(StoreError::Dsn(problem.into()))
}

/// Checks that this user can write the file, and the files that SQLite makes beside it.
fn check_permissions(path: &Path) -> Result<(), StoreError> {
    // They stand beside the target of a symbolic link.
    let target = path.canonicalize();
    let checked = match &target {
        Ok(file) => permissions::check_file(file).and_then(|()| match has_files_beside(file) {
            true => Ok(()),
            false => permissions::check_directory_of(file),
        }),
        Err(_) => permissions::check_directory_of(path),
    };
    checked.map_err(|problem| {
        StoreError::Dsn(format!("{problem}: let it write there, or name another path").into())
    })
}

/// Returns true if the files are there that SQLite makes beside a database that is open.
fn has_files_beside(file: &Path) -> bool {
    let mut beside = file.as_os_str().to_owned();
    beside.push("-shm");
    Path::new(&beside).exists()
}

fn no_database(path: &Path) -> StoreError {
    StoreError::Dsn(format!("{} is no SQLite database: name another file", path.display()).into())
}

/// Opens an SQLite file once, which creates it if it may, and reads from it.
///
/// # Errors
/// When it can't be opened, or its log is missing.
pub(super) async fn open_file(options: &AnyConnectOptions, path: &Path) -> Result<(), StoreError> {
    check_kind(path)?;
    let mut reopenings = 0;
    loop {
        let Err(error) = read_once(options).await else { return Ok(()) };
        if code_of(&error).as_deref() == Some(CANNOT_OPEN) {
            let is_created = options.database_url.as_str().contains("mode=rwc");
            return Err(match is_created || path.exists() {
                true => check_permissions(path).err().unwrap_or_else(|| error.into()),
                false => StoreError::NoFile { file: path.display().to_string() },
            });
        }
        match code_of(&error).as_deref() {
            Some(SHORT_READ) => {}
            Some(NOT_A_DATABASE) => return Err(no_database(path)),
            _ => return Err(error.into()),
        }
        if reopenings == MAX_REOPENINGS {
            return Err(StoreError::LogRemoved { file: path.display().to_string() });
        }
        reopenings += 1;
        sleep(REOPENING_INTERVAL).await;
    }
}

/// Returns SQLite's code of an error.
fn code_of(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(|error| error.code())
}

async fn read_once(options: &AnyConnectOptions) -> Result<(), sqlx::Error> {
    let mut connection = AnyConnection::connect_with(options).await?;
    let read = connection.execute("PRAGMA schema_version").await.map(drop);
    read.and(connection.close().await)
}

/// Returns true if a pooler such as PgBouncer stands between here and PostgreSQL. Then one session
/// may serve many clients in turn, and nothing may be left in it.
pub(super) async fn is_pooled(options: &AnyConnectOptions) -> bool {
    let mut options = options.clone();
    options.database_url.query_pairs_mut().append_pair("options", &format!("-c {PROBE}=1"));
    let probed = async {
        let mut connection = AnyConnection::connect_with(&options).await?;
        let query = "SELECT coalesce(current_setting('talos.pooler_probe', true), '') AS probe";
        let row = sqlx::raw_sql(query).fetch_one(&mut connection).await?;
        let arrived = row.try_get::<String, _>("probe")? == "1";
        let _ = connection.close().await;
        Ok::<_, sqlx::Error>(arrived)
    };
    match timeout(CONNECT_TIMEOUT, probed).await {
        Ok(Ok(arrived)) => !arrived,
        // protocol_violation is PgBouncer's code; others refuse with feature_not_supported.
        Ok(Err(sqlx::Error::Database(error))) => {
            matches!(error.code().as_deref(), Some("08P01" | "0A000"))
        }
        Ok(Err(_)) | Err(_) => false,
    }
}
