//! Migrations of PostgreSQL: all of one command in one transaction, nothing left in the session.
//!
//! sqlx's own migrator takes a lock of the session and prepares statements. Behind PgBouncer in
//! transaction mode both stay in a session that others get next, and the lock is never released.

use sqlx::any::AnyRow;
use sqlx::migrate::{MigrateError, Migration};
use sqlx::{Any, AnyConnection, AssertSqlSafe, Connection, Executor, Row, Transaction};

use crate::store::StoreError;

/// Statement that creates the migrator's table, as sqlx does.
const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version BIGINT PRIMARY KEY, \
     description TEXT NOT NULL, installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, \
     checksum BYTEA NOT NULL, execution_time BIGINT NOT NULL)";
/// Time that a command waits for another one that migrates the same database.
const LOCK_TIMEOUT: &str = "30s";
/// SQLSTATE of a lock that wasn't free in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Statements that keep a role's limits from ending a migration: on large tables each step takes
/// minutes, between which the session is idle in its transaction.
const NO_LIMITS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";

/// Begins a transaction that holds the lock of the schema until it ends.
///
/// # Errors
/// When another command holds the lock for long.
pub(super) async fn begin(connection: &mut AnyConnection) -> Result<Transaction<'_, Any>, StoreError> {
    let mut transaction = connection.begin().await?;
    let row = sqlx::raw_sql("SELECT current_database()::text AS name").fetch_one(&mut *transaction).await?;
    let lock = lock_id(&row.try_get::<String, _>("name")?);
    let take = format!(
        "{NO_LIMITS}; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SELECT pg_advisory_xact_lock({lock}); SET LOCAL lock_timeout = 0"
    );
    match execute(&mut transaction, take).await {
        Ok(()) => Ok(transaction),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(LOCK_NOT_AVAILABLE) => {
            Err(StoreError::MigrationLocked)
        }
        Err(error) => Err(error.into()),
    }
}

/// Applies the migrations that are missing. Migrations that this program doesn't know are for the
/// caller to judge.
///
/// # Errors
/// When a migration fails, or the database isn't what the migrations made of it.
pub(super) async fn up(
    transaction: &mut AnyConnection,
    migrations: impl Iterator<Item = &'static Migration>,
) -> Result<(), StoreError> {
    let applied = applied(transaction).await?;
    for migration in migrations {
        match applied.iter().find(|(version, _)| *version == migration.version) {
            Some((_, checksum)) if *checksum == hex::encode(&*migration.checksum) => {}
            Some(_) => return Err(MigrateError::VersionMismatch(migration.version).into()),
            None => {
                run(transaction, migration).await?;
                record(transaction, migration).await?;
            }
        }
    }
    Ok(())
}

/// Reverts migrations, which are given in this order.
///
/// # Errors
/// When a migration fails.
pub(super) async fn down(
    transaction: &mut AnyConnection,
    migrations: impl Iterator<Item = &'static Migration>,
) -> Result<(), StoreError> {
    applied(transaction).await?;
    for migration in migrations {
        run(transaction, migration).await?;
        let forget = format!("DELETE FROM _sqlx_migrations WHERE version = {}", migration.version);
        execute(transaction, forget).await?;
    }
    Ok(())
}

/// Records these migrations as the applied ones, whatever was recorded before.
///
/// # Errors
/// When the database fails.
pub(super) async fn force(
    transaction: &mut AnyConnection,
    migrations: impl Iterator<Item = &'static Migration>,
) -> Result<(), StoreError> {
    execute(transaction, CREATE_TABLE.to_owned()).await?;
    execute(transaction, "DELETE FROM _sqlx_migrations".to_owned()).await?;
    for migration in migrations {
        record(transaction, migration).await?;
    }
    Ok(())
}

/// Returns versions and checksums of the applied migrations.
async fn applied(transaction: &mut AnyConnection) -> Result<Vec<(i64, String)>, StoreError> {
    execute(transaction, CREATE_TABLE.to_owned()).await?;
    let query = "SELECT version, CASE WHEN success THEN 1 ELSE 0 END AS success, encode(checksum, 'hex') AS checksum \
                 FROM _sqlx_migrations ORDER BY version";
    let rows: Vec<AnyRow> = sqlx::raw_sql(query).fetch_all(&mut *transaction).await?;
    let mut applied = vec![];
    for row in rows {
        let version = row.try_get("version")?;
        if row.try_get::<i32, _>("success")? == 0 {
            return Err(MigrateError::Dirty(version).into());
        }
        applied.push((version, row.try_get("checksum")?));
    }
    Ok(applied)
}

async fn run(transaction: &mut AnyConnection, migration: &'static Migration) -> Result<(), StoreError> {
    let ran = transaction.execute(sqlx::raw_sql(migration.sql.clone())).await;
    ran.map(drop).map_err(|error| MigrateError::ExecuteMigration(error, migration.version).into())
}

async fn record(transaction: &mut AnyConnection, migration: &Migration) -> Result<(), StoreError> {
    let (version, name) = (migration.version, migration.description.replace('\'', "''"));
    let checksum = hex::encode(&*migration.checksum);
    let insert = format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES ({version}, '{name}', TRUE, decode('{checksum}', 'hex'), -1)"
    );
    Ok(execute(transaction, insert).await?)
}

/// Executes statements by the simple protocol, which prepares nothing.
async fn execute(connection: &mut AnyConnection, statements: String) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.map(drop)
}

/// Returns the number of the lock that sqlx's migrator takes as well, so that older programs wait.
fn lock_id(database: &str) -> i64 {
    0x3d32_ad9e * i64::from(crc32(database.as_bytes()))
}

/// Returns the CRC of ISO 3309, as in gzip.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_the_one_of_sqlx() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(lock_id(""), 0);
    }
}
