//! Another server becomes the primary, and the old one goes on answering its open connections.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::pairs::{Kind, OldPrimary, SWITCHOVER, ServerPair};
use crate::rig::support::{Json, until};
use crate::rig::talos::{ISSUED, Setup};

const LEASE: Duration = Duration::from_secs(2);

async fn holds(kind: Kind, old: OldPrimary) {
    let mut pair = ServerPair::start(kind).await;
    let setup = Setup::new()
        .set("TALOS_DB_DSN", &pair.dsn())
        .set("TALOS_CONSISTENCY_LEASE", "2s")
        .set("TALOS_CONSISTENCY_POLL", "400ms");
    let talos = setup.start().await;
    let (revoked, kept) = (talos.issue(json!({})).await, talos.issue(json!({})).await);
    for key in [&revoked, &kept] {
        talos.check(Check::bearer(&key.secret)).await.allowed();
    }
    let before = talos.metrics.get("/status").await.json();

    pair.switch_over(old).await;
    let switched = Instant::now();
    // By new connections alone, as every process that is started from now on.
    let other = setup.clone().start().await;
    other.revoke(&revoked).await;
    let acknowledged = Instant::now();
    until("the key is refused", async || {
        let asked = Instant::now();
        let verdict = talos.check(Check::bearer(&revoked.secret)).await;
        assert!(
            !verdict.passes() || asked < acknowledged + LEASE,
            "{kind:?}, {old:?}: allowed {:?} after its revocation",
            asked - acknowledged
        );
        verdict.is(401).then_some(())
    })
    .await;
    talos.check(Check::bearer(&kept.secret)).await.allowed();

    // Whatever was acknowledged from here on is where everybody looks.
    tokio::time::sleep_until((switched + LEASE + SWITCHOVER).into()).await;
    let reply = talos.admin.post(ISSUED, &json!({ "name": "after", "actor_id": "a" })).await.expect(201);
    let issued = reply.json();
    assert!(
        pair.has_key(issued.text("/issued_api_key/key_id")).await,
        "{kind:?}, {old:?}: issued into the orphan"
    );
    other.check(Check::bearer(issued.text("/secret"))).await.allowed();

    let status = talos.metrics.get("/status").await.json();
    assert_eq!(status.text("/mode"), "fresh");
    assert_ne!(status.text("/poll/identity"), before.text("/poll/identity"));
    assert!(status.text("/poll/server").contains(&format!(":{}", pair.new_port())), "{status:#}");
    assert!(talos.process.log().contains("polls come from another server now"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_of_postgres_that_turns_read_only() {
    needs!(PostgresPrograms);
    holds(Kind::Postgres, OldPrimary::ReadOnly).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_of_postgres_that_comes_back_as_a_standby() {
    needs!(PostgresPrograms);
    holds(Kind::Postgres, OldPrimary::InRecovery).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_of_postgres_that_still_takes_writes() {
    needs!(PostgresPrograms);
    holds(Kind::Postgres, OldPrimary::CutOff).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_of_mariadb_that_turns_read_only() {
    needs!(MariaDbPrograms);
    holds(Kind::MariaDb, OldPrimary::ReadOnly).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_of_mariadb_that_follows_the_new_one() {
    needs!(MariaDbPrograms);
    holds(Kind::MariaDb, OldPrimary::Following).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_of_mariadb_that_still_takes_writes() {
    needs!(MariaDbPrograms);
    holds(Kind::MariaDb, OldPrimary::CutOff).await;
}
