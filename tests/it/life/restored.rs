//! A database that is put back to an earlier state, so that the last numbers of its log are given
//! again.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use sqlx::{Connection, Executor, SqliteConnection};

use crate::rig::check::Check;
use crate::rig::database::{self, Server};
use crate::rig::proxy::Fault;
use crate::rig::redis::Redis;
use crate::rig::support::{Must, until};
use crate::rig::talos::{Key, Setup, Talos};

/// `consistency.lease`, scaled down: the bound in the new history, as in the old one.
const LEASE: Duration = Duration::from_secs(1);

async fn passes(talos: &Talos, key: &Key) -> bool {
    talos.check(Check::bearer(&key.secret)).await.passes()
}

async fn is_refused_within_the_lease(talos: &Talos, key: &Key, since: Instant) {
    until("the key is refused", async || {
        let asked = Instant::now();
        let passes = passes(talos, key).await;
        assert!(!passes || asked < since + LEASE, "allowed {:?} after", asked - since);
        (!passes).then_some(())
    })
    .await;
}

/// A backup that is played back while processes run, on whichever database this is.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_played_back_is_noticed_and_its_numbers_count_anew() {
    let setup = Setup::new().set("TALOS_CONSISTENCY_LEASE", "1s").set("TALOS_CONSISTENCY_POLL", "200ms");
    let (one, other) = (setup.start().await, setup.start().await);
    let (kept, revoked) = (one.issue(json!({})).await, one.issue(json!({})).await);
    for table in ["api_keys", "mutation_log", "mutation_counter"] {
        setup.sql(&format!("CREATE TABLE backup_of_{table} AS SELECT * FROM {table}"));
    }
    let lost = one.import("imported_after_the_backup", json!({})).await;
    one.revoke(&revoked).await;
    for key in [&kept, &lost] {
        assert!(passes(&other, key).await);
    }
    until("all is known everywhere", async || {
        (other.metric("talos_epoch").await == 4.0 && !passes(&other, &revoked).await).then_some(())
    })
    .await;

    let play_back = ["api_keys", "mutation_log", "mutation_counter"]
        .map(|table| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM backup_of_{table};"));
    setup.sql(&format!("BEGIN; {} COMMIT;", play_back.concat()));
    let restored = Instant::now();
    is_refused_within_the_lease(&other, &lost, restored).await;
    for talos in [&one, &other] {
        until("it has noticed", async || {
            (talos.metric("talos_log_rewritten_total").await == 1.0).then_some(())
        })
        .await;
        assert!(talos.process.log().contains("a restore, a failover"), "{}", talos.process.log());
        assert!(passes(talos, &kept).await);
        assert!(passes(talos, &revoked).await, "its revocation is lost with the database's memory of it");
        assert_eq!(talos.metric("talos_epoch").await, 2.0);
    }
    // Number 3 once more, for another change.
    one.revoke(&kept).await;
    is_refused_within_the_lease(&other, &kept, Instant::now()).await;
    one.revoke(&revoked).await;
    is_refused_within_the_lease(&other, &revoked, Instant::now()).await;
    until("both are known", async || (other.metric("talos_epoch").await == 4.0).then_some(())).await;
    assert_eq!(other.metric("talos_log_rewritten_total").await, 1.0);
}

/// Keys were only issued since the backup: no key has changed, and yet the database is another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_noticed_that_only_lacks_keys_which_were_issued() {
    let setup = Setup::new().set("TALOS_CONSISTENCY_LEASE", "1s").set("TALOS_CONSISTENCY_POLL", "200ms");
    let (one, other) = (setup.start().await, setup.start().await);
    let kept = one.issue(json!({})).await;
    for table in ["api_keys", "mutation_log", "mutation_counter"] {
        setup.sql(&format!("CREATE TABLE backup_of_{table} AS SELECT * FROM {table}"));
    }
    let lost = one.issue(json!({})).await;
    for talos in [&one, &other] {
        for key in [&kept, &lost] {
            assert!(passes(talos, key).await);
        }
    }
    let play_back = ["api_keys", "mutation_log", "mutation_counter"]
        .map(|table| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM backup_of_{table};"));
    // Another key is issued at once, so that the numbers are those of before.
    for talos in [&one, &other] {
        talos.process.signal(Signal::STOP);
    }
    setup.sql(&format!("BEGIN; {} COMMIT;", play_back.concat()));
    let third = setup.start().await;
    third.issue(json!({})).await;
    for talos in [&one, &other] {
        talos.process.signal(Signal::CONT);
    }
    let restored = Instant::now();
    for talos in [&one, &other] {
        is_refused_within_the_lease(talos, &lost, restored).await;
        until("it has noticed", async || {
            (talos.metric("talos_log_rewritten_total").await == 1.0).then_some(())
        })
        .await;
        assert!(passes(talos, &kept).await);
    }
}

/// A file that takes the place of the database under running processes.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_put_in_the_place_of_the_database_is_the_database() {
    let setup =
        Setup::new().sqlite().set("TALOS_CONSISTENCY_LEASE", "1s").set("TALOS_CONSISTENCY_POLL", "200ms");
    let (one, other) = (setup.start().await, setup.start().await);
    let (kept, revoked) = (one.issue(json!({})).await, one.issue(json!({})).await);
    let file = setup.path("talos.db");
    setup.sql(&format!("VACUUM INTO '{}'", setup.path("backup.db").display()));
    let lost = one.issue(json!({})).await;
    for talos in [&one, &other] {
        for key in [&kept, &revoked, &lost] {
            assert!(passes(talos, key).await);
        }
    }
    for left in ["talos.db-wal", "talos.db-shm"] {
        let _ = std::fs::remove_file(setup.path(left));
    }
    std::fs::rename(setup.path("backup.db"), &file).must("the restore");
    let restored = Instant::now();

    // Whatever is acknowledged from here on is in the file that has the name.
    let issued = one.issue(json!({})).await;
    let third = setup.start().await;
    assert!(passes(&third, &issued).await, "issued into a file that nobody opens any more");
    third.revoke(&revoked).await;
    let acknowledged = Instant::now();
    for talos in [&one, &other] {
        is_refused_within_the_lease(talos, &lost, restored).await;
        is_refused_within_the_lease(talos, &revoked, acknowledged).await;
        for key in [&kept, &issued] {
            assert!(passes(talos, key).await);
        }
        assert!(talos.process.log().contains("was replaced or removed"), "{}", talos.process.log());
    }

    // Gone altogether: nobody makes an empty one in its place.
    std::fs::rename(&file, setup.path("away.db")).must("moving the file away");
    let reply = one.admin.post(crate::rig::talos::ISSUED, &json!({ "name": "n", "actor_id": "a" })).await;
    assert_eq!(reply.status, 503);
    assert!(!file.exists());
    std::fs::rename(setup.path("away.db"), &file).must("moving it back");
    until("it is the database again", async || {
        let reply = one.admin.post(crate::rig::talos::ISSUED, &json!({ "name": "n", "actor_id": "a" })).await;
        (reply.status == 201).then_some(())
    })
    .await;
}

/// A database file is put back while no process runs, and Redis has entries of what came after it.
#[tokio::test(flavor = "multi_thread")]
async fn redis_entries_of_a_lost_history_are_not_used() {
    needs!(Redis);
    let redis = Redis::start().await;
    let setup = redis.used_by(Setup::new()).sqlite();
    let file = setup.path("talos.db");
    let talos = setup.start().await;
    let kept = talos.issue(json!({})).await;
    talos.check(Check::bearer(&kept.secret)).await.allowed();
    let backup = setup.path("backup.db");
    let mut database =
        SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.must("opening the database");
    let copy = format!("VACUUM INTO '{}'", backup.display());
    database.execute(sqlx::AssertSqlSafe(copy)).await.must("a backup");
    database.close().await.must("closing the database");
    let lost = talos.import("imported_after_the_backup", json!({})).await;
    talos.check(Check::bearer(&lost.secret)).await.allowed();
    redis.until_entries(2).await;
    talos.stop().await;
    for left in ["talos.db-wal", "talos.db-shm"] {
        let _ = std::fs::remove_file(setup.path(left));
    }
    std::fs::copy(&backup, &file).must("the restore");

    let talos = setup.start().await;
    // The log gets as far as it was.
    talos.import("another_one", json!({})).await;
    talos.check(Check::bearer(&lost.secret)).await.denied(401);
    talos.check(Check::bearer(&kept.secret)).await.allowed();
    let next = setup.start().await;
    next.check(Check::bearer(&lost.secret)).await.denied(401);
    next.check(Check::bearer(&kept.secret)).await.allowed();
}

/// The standby that takes over has missed the last changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_missed_the_last_changes_is_noticed() {
    needs!(Postgres);
    let dsn = Server::Postgres.new_database();
    let (server, name) = dsn.rsplit_once('/').must("a DSN with a database");
    let admin = format!("{server}/postgres");
    let (proxy, proxied) = database::behind_proxy(&dsn).await;
    let setup = Setup::new()
        .set("TALOS_DB_DSN", &proxied)
        .set("TALOS_CONSISTENCY_LEASE", "1s")
        .set("TALOS_CONSISTENCY_POLL", "200ms");
    let (one, other) = (setup.start().await, setup.start().await);
    let kept = one.issue(json!({})).await;
    assert!(passes(&other, &kept).await);
    // The standby is a copy of the state while nobody is connected.
    let nobody_is_connected = || {
        proxy.set_new(Fault::Refuse);
        proxy.set_open(Fault::Reset);
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        database::execute(&admin, end);
    };
    nobody_is_connected();
    database::execute(&admin, format!("CREATE DATABASE {name}_standby TEMPLATE {name}"));
    proxy.set(Fault::Pass);
    let lost = until("the database is back", async || {
        let body = json!({ "raw_key": "imported_before_the_failover", "name": "n", "actor_id": "a" });
        let reply = one.admin.post(crate::rig::talos::IMPORTED, &body).await;
        matches!(reply.status, 201 | 409).then_some(())
    });
    lost.await;
    let lost = Check::bearer("imported_before_the_failover");
    until("the other knows it", async || other.check(lost.clone()).await.passes().then_some(())).await;

    nobody_is_connected();
    database::execute(&admin, format!("ALTER DATABASE {name} RENAME TO {name}_old"));
    database::execute(&admin, format!("ALTER DATABASE {name}_standby RENAME TO {name}"));
    proxy.set(Fault::Pass);
    until("it has noticed", async || (other.metric("talos_log_rewritten_total").await == 1.0).then_some(()))
        .await;
    until("the lost key is refused", async || {
        let verdict = other.check(lost.clone()).await;
        assert!(!verdict.passes(), "{verdict:?}");
        // The first look may take longer than a Check may: its connection is made anew.
        verdict.is(401).then_some(())
    })
    .await;
    until("the key of both is known", async || passes(&other, &kept).await.then_some(())).await;
    until("the first is back, too", async || {
        let path = format!("{}/{}:revoke", crate::rig::talos::ISSUED, kept.id);
        (one.admin.post(&path, &json!({})).await.status == 204).then_some(())
    })
    .await;
    is_refused_within_the_lease(&other, &kept, Instant::now()).await;
}
