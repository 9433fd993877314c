//! Knowledge of changes: its age, pushes, and what ends it.

use std::time::{Duration, Instant};

use serde_json::json;
use talos_proto::edge::NoEntryReason;
use talos_proto::edge::from_server::Message as FromServer;

use super::setup;
use crate::rig::check::Check;
use crate::rig::edge_module::Server;
use crate::rig::http::{Call, Version};
use crate::rig::support::{Must, until};
use crate::rig::talos::{ISSUED, Key, Setup};

const LEASE: u64 = 5_000_000;

/// Issues a key, and has the server's cache hold it.
async fn cached_key(server: &Server) -> Key {
    let key = server.talos.issue(json!({})).await;
    server.checked(&Check::bearer(&key.secret).build()).await;
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_pushed_without_a_tick() {
    let server = Server::start(setup()).await;
    let mut module = server.module().await;
    let (one, other) = (cached_key(&server).await, cached_key(&server).await);
    let revoked = module.ask_for(&one.secret).await.unwrap();
    let kept = module.ask_for(&other.secret).await.unwrap();
    assert!(!module.has_forgotten(&revoked) && !module.has_forgotten(&kept));

    module.tick().await;
    server.talos.revoke(&one).await;
    let began = Instant::now();
    while !module.has_forgotten(&revoked) {
        let FromServer::Forget(forget) = module.next().await.must("a push") else {
            panic!("not a push");
        };
        module.changes.extend(forget.changes);
    }
    assert!(began.elapsed() < Duration::from_micros(LEASE), "{:?}", began.elapsed());
    assert_eq!(module.ask_for(&one.secret).await.unwrap_err(), NoEntryReason::NoEntryNotCached);
    let knowledge = module.tick().await;
    assert_eq!(knowledge.changes, [], "it was pushed already");
    assert!(!module.has_forgotten(&kept));
    assert!(server.talos.metric("talos_edge_changes_total").await >= 1.0);

    // The next state of a key has a stamp of its own.
    let path = format!("{ISSUED}/{}?update_mask=name", other.id);
    let call = Call::new("PATCH", &path).json(&json!({ "name": "another" }));
    server.talos.admin.send(Version::Http1, call).await.expect(200);
    until("the change came", async || {
        module.tick().await;
        module.has_forgotten(&kept).then_some(())
    })
    .await;
    server.checked(&Check::bearer(&other.secret).build()).await;
    let renewed = module.ask_for(&other.secret).await.unwrap();
    assert!(renewed.stamp > kept.stamp && !module.has_forgotten(&renewed));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_other_instances_come_with_the_poll_that_finds_them() {
    let setup = setup();
    let server = Server::start(setup.clone()).await;
    let elsewhere = Setup::planes(setup.clone(), "admin").unset("TALOS_SERVE_AUTHZ_SOCKET").start().await;
    let mut module = server.module().await;
    let key = cached_key(&server).await;
    let entry = module.ask_for(&key.secret).await.unwrap();
    elsewhere.revoke(&key).await;
    until("the change came", async || {
        module.tick().await;
        module.has_forgotten(&entry).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn knowledge_has_the_age_of_the_poll_and_none_once_the_lease_is_over() {
    let server = Server::start(setup()).await;
    let mut module = server.module().await;
    let key = cached_key(&server).await;
    assert_eq!(module.settings.lease_micros, LEASE);
    module.ask_for(&key.secret).await.unwrap();
    let age = module.tick().await.age_micros.must("an age");
    assert!(age < LEASE, "{age}");

    // The module goes on meanwhile, however long that takes.
    let setup = server.talos.setup.clone();
    let broken = tokio::task::spawn_blocking(move || setup.break_database());
    let mut oldest = 0;
    let began = Instant::now();
    until("the lease is over", async || {
        match module.tick().await.age_micros {
            None => Some(()),
            Some(age) => {
                assert!(age <= LEASE, "{age}");
                // Nothing is renewed: the age grows as time passes.
                oldest = oldest.max(age);
                None
            }
        }
    })
    .await;
    broken.await.must("breaking the database");
    assert!(oldest > LEASE / 2, "{oldest} after {:?}", began.elapsed());
    assert_eq!(module.ask_for(&key.secret).await.unwrap_err(), NoEntryReason::NoEntryNotCached);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_before_a_stream_is_not_told_on_it() {
    let server = Server::start(setup()).await;
    let key = cached_key(&server).await;
    server.talos.revoke(&cached_key(&server).await).await;
    let mut module = server.module().await;
    assert_eq!(module.tick().await.changes, []);
    module.ask_for(&key.secret).await.unwrap();
}
