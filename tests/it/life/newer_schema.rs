//! A schema that a newer release has added to: this one runs beside it, on each database.

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::database::Server;
use crate::rig::support::Json;
use crate::rig::talos::{Setup, Talos};

/// Statements of a later migration that only adds.
pub const ADDITIONS: [&str; 3] = [
    "CREATE TABLE later_things (id BIGINT PRIMARY KEY)",
    "ALTER TABLE api_keys ADD COLUMN later_thing BIGINT",
    "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
     SELECT 1000003, 'additive later things', success, checksum, execution_time FROM _sqlx_migrations \
     WHERE version = 1",
];
/// Another step, which isn't additive.
const CHANGE: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
     SELECT 1000004, 'changed things', success, checksum, execution_time FROM _sqlx_migrations WHERE version = 1";

async fn works(talos: &Talos) {
    for _ in 0..20 {
        let key = talos.issue(json!({})).await;
        talos.check(Check::bearer(&key.secret)).await.allowed();
        talos.revoke(&key).await;
        talos.check(Check::bearer(&key.secret)).await.denied(401);
    }
}

async fn beside_a_newer_schema(setup: Setup) {
    let output = setup.run(&["migrate", "up"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let before = setup.start().await;
    works(&before).await;
    for statement in ADDITIONS {
        setup.sql(statement);
        works(&before).await;
    }
    let beside = setup.clone().log_to(&setup.path("beside.log").display().to_string()).start().await;
    works(&beside).await;
    works(&before).await;
    let log = beside.process.log();
    assert_eq!(log.matches("newer than this program, by additive steps only").count(), 1, "{log}");
    let status = beside.metrics.get("/status").await.expect(200).json();
    assert_eq!(status.at("/database/newer_schema"), &json!(1_000_003), "{status}");
    // A rollback runs the older program's migration first.
    let output = setup.run(&["migrate", "up"]).await;
    let message = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(message.contains("1000003") && message.contains("additive"), "{message}");
    beside.stop().await;
    before.stop().await;

    setup.sql(CHANGE);
    let message = setup.refused().await;
    assert!(message.contains("1000004") && message.contains("isn't additive"), "{message}");
    let output = setup.run(&["migrate", "up"]).await;
    assert!(!output.status.success(), "a newer schema was migrated");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    beside_a_newer_schema(Setup::new().sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    needs!(Postgres);
    beside_a_newer_schema(Setup::new().set("TALOS_DB_DSN", &Server::Postgres.new_database())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb() {
    if std::env::var("TALOS_TEST_MARIADB").is_err() {
        return;
    }
    beside_a_newer_schema(Setup::new().set("TALOS_DB_DSN", &Server::MariaDb.new_database())).await;
}
