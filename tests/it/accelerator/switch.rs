//! Other settings: the off switch, rules, the deny list.

use std::path::Path;

use serde_json::json;
use talos_proto::edge::{NoEntryReason, source};

use super::{ENABLED, FAILED_PRECONDITION, UNAVAILABLE, UNIMPLEMENTED, setup};
use crate::rig::check::Check;
use crate::rig::edge_module::{HELLO, Module, Server};
use crate::rig::support::{Must, until};
use crate::rig::talos::{HMAC_SECRET, Setup};

fn write(file: &Path, authz: &str) {
    let text = format!("secrets: {{hmac: {{current: {HMAC_SECRET}}}}}\nauthz: {authz}\n");
    std::fs::write(file, text).must("writing a configuration");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_switch_works_while_it_runs() {
    let dir = Setup::bare();
    let file = dir.path("talos.yaml");
    write(&file, "{edge: {enabled: true}}");
    let server = Server::start(Setup::from_file(file.clone())).await;
    let mut module = server.module().await;
    assert!(module.settings.enabled);
    let kinds: Vec<_> = module.settings.sources.iter().map(|source| source.kind.clone()).collect();
    assert!(
        matches!(&kinds[..], [Some(source::Kind::Header(_)), Some(source::Kind::Header(_))]),
        "{kinds:?}"
    );

    write(&file, "{edge: {enabled: false}}");
    let ended = until("the stream ends", async || module.try_tick().await.err()).await;
    assert_eq!(ended.code, FAILED_PRECONDITION, "{ended}");
    assert!(!module.settings.enabled && module.settings.reason.contains("authz.edge.enabled"));
    assert_eq!(server.try_module(HELLO).await.err().must("refused").code, UNIMPLEMENTED);

    write(&file, "{edge: {enabled: true}}");
    until("modules are served again", async || server.try_module(HELLO).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_settings_are_told_before_anything_else_counts() {
    let dir = Setup::bare();
    let file = dir.path("talos.yaml");
    write(&file, "{edge: {enabled: true}}");
    let server = Server::start(Setup::from_file(file.clone())).await;
    let key = server.talos.issue(json!({ "scopes": ["a"] })).await;
    let mut module = server.module().await;
    server.checked(&Check::bearer(&key.secret).build()).await;
    let old = module.ask_for(&key.secret).await.unwrap();

    write(
        &file,
        "{edge: {enabled: true}, routes: [{path: {template: '/a/{b}'}, scopes: b}, {methods: [GET]}]}",
    );
    until("other settings came", async || {
        let knowledge = module.tick().await;
        assert_eq!(knowledge.generation, module.settings.generation);
        (module.settings.generation != old.generation).then_some(())
    })
    .await;
    assert_eq!(module.settings.rules.len(), 2);
    assert_eq!(module.settings.rules[1].methods, ["GET"]);
    // The credential is proven anew by a Check.
    server.checked(&Check::bearer(&key.secret).build()).await;
    for (rule, expected) in [(Some(0), Some(NoEntryReason::NoEntryCheckOnly)), (Some(1), None), (None, None)]
    {
        let ask = talos_proto::edge::Ask { rule, ..module.question(&key.secret) };
        assert_eq!(module.ask(ask).await.err(), expected, "{rule:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_on_the_deny_list_has_no_entry() {
    let setup = setup();
    let path = setup.path("deny.txt");
    std::fs::write(&path, "").must("writing the deny file");
    let server = Server::start(setup.set("TALOS_CONSISTENCY_DENY_FILE", &path.to_string_lossy())).await;
    let key = server.talos.issue(json!({})).await;
    server.checked(&Check::bearer(&key.secret).build()).await;
    let mut module = server.module().await;
    let entry = module.ask_for(&key.secret).await.unwrap();
    std::fs::write(&path, format!("{}\n", key.id)).must("writing the deny file");
    until("entries count no more", async || {
        (module.tick().await.generation != entry.generation).then_some(())
    })
    .await;
    assert_eq!(module.ask_for(&key.secret).await.unwrap_err(), NoEntryReason::NoEntryNotCached);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_off_by_default_and_never_on_tcp() {
    let server = Server::start(Setup::new()).await;
    assert_eq!(server.try_module(HELLO).await.err().must("refused").code, UNIMPLEMENTED);
    // A Check is answered all the same.
    server.grpc().await.check(&Check::default().build()).await.denied(401);

    let talos = Setup::new().set(ENABLED, "true").start().await;
    let ended = Module::open(&talos.grpc().await).await.err().must("refused");
    assert_eq!(ended.code, UNIMPLEMENTED, "{ended}");
    assert!(ended.text.contains("serve.authz.socket"), "{ended}");
    assert!(talos.metric("talos_edge_streams_ended_total").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stops_tells_its_modules() {
    let server = Server::start(setup()).await;
    let mut module = server.module().await;
    let Server { talos, .. } = server;
    let (ended, ()) = tokio::join!(module.end(), talos.stop());
    assert_eq!(ended.code, UNAVAILABLE, "{ended}");
}
