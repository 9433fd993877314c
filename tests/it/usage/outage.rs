//! Failures of the database: nothing that was counted is lost, and nothing is counted twice.

use std::time::Duration;

use serde_json::json;

use super::{counted, setup, total};
use crate::rig::check::Check;
use crate::rig::database::{self, Server};
use crate::rig::proxy::{Fault, Proxy};
use crate::rig::support::{number_from, until};
use crate::rig::talos::{Setup, Talos};

/// Seconds for which the database can't be reached; `TALOS_TEST_USAGE_OUTAGE` overrides it.
const OUTAGE: usize = 2;
/// Answers to COMMIT that are lost; `TALOS_TEST_USAGE_LOST` overrides it.
const LOST: usize = 3;

/// A process behind a proxy, and the setup of one with a way of its own to the same database.
async fn behind_proxy() -> (Proxy, Talos, Setup) {
    let dsn = database::server().unwrap_or(Server::Postgres).new_database();
    let dsn = database::without_tls(&dsn);
    let (proxy, proxied) = database::behind_proxy(&dsn).await;
    let talos = setup().set("TALOS_DB_DSN", &proxied).start().await;
    (proxy, talos, setup().set("TALOS_DB_DSN", &dsn))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_loses_nothing() {
    needs!(Postgres);
    let (proxy, talos, direct) = behind_proxy().await;
    let key = talos.issue(json!({})).await;
    let grpc = talos.grpc().await;
    let check = Check::bearer(&key.secret).build();
    let mut sent = 0;
    for _ in 0..20 {
        grpc.check(&check).await.allowed();
        sent += 1;
    }
    proxy.set(Fault::Reset);
    proxy.set_new(Fault::Refuse);
    let end = std::time::Instant::now()
        + Duration::from_secs(number_from("TALOS_TEST_USAGE_OUTAGE", OUTAGE) as u64);
    while std::time::Instant::now() < end {
        // Allowed from memory as long as that may be; counted in any case.
        grpc.check(&check).await;
        sent += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until("a write has failed", async || {
        (talos.metric("talos_usage_write_failures_total").await > 0.0).then_some(())
    })
    .await;
    assert!(talos.metric("talos_usage_unwritten_seconds").await > 0.0);
    proxy.set(Fault::Pass);
    let observer = direct.start().await;
    counted(&observer, "", sent).await;
    until("the age says so", async || {
        (talos.metric("talos_usage_unwritten_seconds").await == 0.0).then_some(())
    })
    .await;
    for _ in 0..5 {
        grpc.check(&check).await.allowed();
        sent += 1;
    }
    talos.stop().await;
    assert_eq!(total(&observer, "").await, sent, "all of it once the process has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_commit_that_is_lost_doubles_nothing() {
    needs!(Postgres);
    let (proxy, talos, direct) = behind_proxy().await;
    let key = talos.issue(json!({})).await;
    let grpc = talos.grpc().await;
    let check = Check::bearer(&key.secret).build();
    let mut sent = 0;
    for _ in 0..number_from("TALOS_TEST_USAGE_LOST", LOST) {
        let failures = talos.metric("talos_usage_write_failures_total").await;
        proxy.set(Fault::LoseCommits);
        until("an answer to COMMIT is lost", async || {
            grpc.check(&check).await;
            sent += 1;
            (talos.metric("talos_usage_write_failures_total").await > failures).then_some(())
        })
        .await;
        proxy.set(Fault::Pass);
        until("Checks are allowed again", async || {
            sent += 1;
            grpc.check(&check).await.passes().then_some(())
        })
        .await;
    }
    talos.stop().await;
    let observer = direct.start().await;
    assert_eq!(total(&observer, "").await, sent);
}
