//! Servers whose legal settings change what a transaction is.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{Connection, Executor, MySqlConnection, Row};

use crate::rig::check::Check;
use crate::rig::database::hold;
use crate::rig::pairs::{Kind, Server};
use crate::rig::support::{Must, until};
use crate::rig::talos::{NETWORK, Setup, Talos};

const LEASE: Duration = Duration::from_secs(1);

fn setup(dsn: &str) -> Setup {
    Setup::new()
        .set("TALOS_DB_DSN", dsn)
        .set("TALOS_CONSISTENCY_LEASE", "1s")
        .set("TALOS_CONSISTENCY_POLL", "200ms")
}

async fn is_refused_within_the_lease(talos: &Talos, secret: &str, since: Instant) {
    until("the key is refused", async || {
        let asked = Instant::now();
        let verdict = talos.check(Check::bearer(secret)).await;
        assert!(!verdict.passes() || asked < since + LEASE, "allowed {:?} after", asked - since);
        verdict.is(401).then_some(())
    })
    .await;
}

/// Every default that could freeze a snapshot, show what isn't committed, or hide rows.
#[tokio::test(flavor = "multi_thread")]
async fn mariadb_with_hostile_defaults() {
    needs!(MariaDbPrograms);
    let server = Server::start(
        Kind::MariaDb,
        &[
            "--autocommit=0",
            "--transaction-isolation=READ-UNCOMMITTED",
            "--completion-type=CHAIN",
            "--init-connect=SET autocommit = 0, sql_select_limit = 1, sql_mode = '', max_join_size = 1, \
             sql_big_selects = 0, sql_safe_updates = 1, unique_checks = 0, max_sort_length = 8, sql_auto_is_null = 1",
        ],
    )
    .await;
    let dsn = server.create();
    // The root user isn't subject to init_connect, so the test needs another.
    server.execute("CREATE USER talos IDENTIFIED BY 'talos'");
    server.execute("GRANT ALL ON talos.* TO talos");
    let dsn = dsn.replace("root@", "talos:talos@");
    let (one, other) = (setup(&dsn).start().await, setup(&dsn).start().await);
    for _ in 0..5 {
        let (key, kept) = (one.issue(json!({})).await, one.issue(json!({})).await);
        for key in [&key, &kept] {
            other.check(Check::bearer(&key.secret)).await.allowed();
        }
        one.revoke(&key).await;
        is_refused_within_the_lease(&other, &key.secret, Instant::now()).await;
        other.check(Check::bearer(&kept.secret)).await.allowed();
    }
    assert_eq!(other.metric("talos_lease_lapses_total").await, 0.0, "{}", other.process.log());

    // A revocation that has taken its number and isn't committed: whoever looks now must not take
    // that number for known.
    let key = one.issue(json!({})).await;
    let mut writer = MySqlConnection::connect(&server.url(server.port, "talos")).await.must("connecting");
    writer.execute("SET autocommit = 1").await.must("autocommit");
    let mut transaction = writer.begin().await.must("a transaction");
    transaction.execute("UPDATE mutation_counter SET n = n + 1 WHERE id = 1").await.must("a number");
    let row = transaction.fetch_one("SELECT n FROM mutation_counter WHERE id = 1").await.must("the number");
    let n: i64 = row.try_get(0).must("the number");
    let log = "INSERT INTO mutation_log (n, tag, network_id, key_id, at) VALUES (?, ?, ?, ?, 0)";
    let log = sqlx::query(log).bind(n).bind(format!("{n:032x}")).bind(NETWORK).bind(&key.id);
    log.execute(&mut *transaction).await.must("an entry of the log");
    other.check(Check::bearer(&key.secret)).await.allowed();
    let revoke = "UPDATE api_keys SET revocation_reason = 'REVOCATION_REASON_KEY_COMPROMISE', mutation = ? \
                  WHERE network_id = ? AND key_id = ?";
    let revoke = sqlx::query(revoke).bind(n).bind(NETWORK).bind(&key.id);
    assert_eq!(revoke.execute(&mut *transaction).await.must("a revocation").rows_affected(), 1);
    transaction.commit().await.must("the commit");
    is_refused_within_the_lease(&other, &key.secret, Instant::now()).await;
}

/// A binary log of statements refuses READ COMMITTED.
#[tokio::test(flavor = "multi_thread")]
async fn mariadb_that_logs_statements() {
    needs!(MariaDbPrograms);
    let server =
        Server::start(Kind::MariaDb, &["--log-bin=log", "--server-id=1", "--binlog-format=STATEMENT"]).await;
    let dsn = server.create();
    let (one, other) = (setup(&dsn).start().await, setup(&dsn).start().await);
    let key = one.issue(json!({})).await;
    other.check(Check::bearer(&key.secret)).await.allowed();
    one.revoke(&key).await;
    is_refused_within_the_lease(&other, &key.secret, Instant::now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_with_hostile_defaults() {
    needs!(PostgresPrograms);
    let server = Server::start(
        Kind::Postgres,
        &[
            "default_transaction_isolation=serializable",
            "default_transaction_deferrable=on",
            "idle_in_transaction_session_timeout=20ms",
            "lock_timeout=1ms",
            "standard_conforming_strings=off",
            "timezone=Asia/Kathmandu",
        ]
        .map(|setting| ["-c", setting])
        .concat(),
    )
    .await;
    let dsn = server.create();
    let (one, other) = (setup(&dsn).start().await, setup(&dsn).start().await);
    for _ in 0..5 {
        let key = one.issue(json!({})).await;
        other.check(Check::bearer(&key.secret)).await.allowed();
        one.revoke(&key).await;
        is_refused_within_the_lease(&other, &key.secret, Instant::now()).await;
    }
    // Changes wait for one that takes its time.
    let held = hold(
        &dsn,
        "SET LOCAL idle_in_transaction_session_timeout = 0; UPDATE mutation_counter SET n = n WHERE id = 1",
    )
    .await;
    let issue = one.issue(json!({}));
    tokio::pin!(issue);
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut issue).await;
    assert!(waited.is_err(), "it waits for the lock");
    drop(held);
    issue.await;
    // Nobody's session keeps anything of ours: a pooler may give it to somebody else.
    let row =
        server.text("SELECT coalesce(string_agg(name, ','), '') FROM pg_settings WHERE source = 'session'");
    assert_eq!(row.await, "");
}

/// A read-only server is never taken for the primary, even if some user may write there.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_server_is_refused_by_name() {
    needs!(PostgresPrograms, MariaDbPrograms);
    for kind in [Kind::MariaDb, Kind::Postgres] {
        let server = Server::start(kind, &[]).await;
        let dsn = server.create();
        let talos = setup(&dsn).start().await;
        let key = talos.issue(json!({})).await;
        talos.check(Check::bearer(&key.secret)).await.allowed();
        match kind {
            Kind::MariaDb => server.execute("SET GLOBAL read_only = 1"),
            Kind::Postgres => {
                server.execute("ALTER SYSTEM SET default_transaction_read_only = on");
                server.execute("SELECT pg_reload_conf()");
            }
        }
        until("polls are refused", async || {
            (talos.metrics.get("/status").await.json()["mode"] == "static").then_some(())
        })
        .await;
        let status = talos.metrics.get("/status").await.json();
        let reason = status["poll"]["last_failure"].as_str().must("a reason").to_owned();
        assert!(reason.contains("the server is read-only"), "{reason}");
        talos.check(Check::bearer(&key.secret)).await.allowed();
        let path = format!("{}/{}:revoke", crate::rig::talos::ISSUED, key.id);
        assert_eq!(
            talos.admin.post(&path, &json!({})).await.status,
            503,
            "{kind:?}: not into a server that is left"
        );
    }
}

/// A server that can't keep the promise is refused before anything is served.
#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_lag_are_refused_by_name() {
    for (dsn, reason) in [
        ("sqlite://talos.db?immutable=true", "immutable must be false"),
        ("sqlite://talos.db?immutable=1", "immutable must be false"),
        ("sqlite://talos.db?vfs=unix-none", "vfs must be unix"),
        (
            "cockroach://root@127.0.0.1/talos?options=-c%20default_transaction_use_follower_reads=on",
            "follower reads",
        ),
    ] {
        let written = Setup::new().set("TALOS_DB_DSN", dsn).refused().await;
        assert!(written.contains("db.dsn") && written.contains(reason), "{dsn}: {written}");
    }
}
