//! The numbers are exactly those of Envoy, over several instances, once they have drained.

use std::fmt::Write;

use serde_json::json;

use super::{Sender, rows, setup, total};
use crate::rig::check::Check;
use crate::rig::envoy::Envoy;
use crate::rig::support::{Must, number_from};
use crate::rig::upstream::Upstream;

/// Requests; `TALOS_TEST_USAGE` overrides it.
const REQUESTS: usize = 600;
/// Clients that send them at once.
const CLIENTS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn every_request_through_envoy_is_counted_once() {
    needs!(Envoy);
    let requests = number_from("TALOS_TEST_USAGE", REQUESTS);
    let setup = setup();
    let instances = [setup.start().await, setup.start().await, setup.start().await];
    let keys = [
        instances[0].issue(json!({ "actor_id": "one" })).await,
        instances[0].issue(json!({ "actor_id": "two" })).await,
        instances[0].issue(json!({ "actor_id": "two" })).await,
    ];
    let upstream = Upstream::start().await;
    let endpoint = |port: u16| format!("socket_address: {{ address: 127.0.0.1, port_value: {port} }}");
    let first = endpoint(instances[0].authz.0.port());
    let mut all = first.clone();
    for instance in &instances[1..] {
        let address = endpoint(instance.authz.0.port());
        write!(all, "\n              - endpoint:\n                  address:\n                    {address}")
            .must("a text");
    }
    let envoy = Envoy::start(upstream.port, instances[0].authz, &[(&first, &all)]).await;

    let share = requests / CLIENTS;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let secrets: Vec<String> = keys.iter().map(|key| key.secret.clone()).collect();
        let mut sender = Sender::connect(envoy.edge).await;
        clients.spawn(async move {
            for number in 0..share {
                // Every seventh is refused.
                let secret = &secrets[(client + number) % secrets.len()];
                match number % 7 {
                    6 => assert_eq!(sender.send("unknown").await, 401),
                    _ => assert_eq!(sender.send(secret).await, 200),
                }
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.must("a client");
    }
    upstream.take();
    let (allowed, denied) = (envoy.counter("ext_authz.ok").await, envoy.counter("ext_authz.denied").await);
    assert_eq!(envoy.counter("ext_authz.error").await, 0);
    drop(envoy);
    for instance in instances {
        instance.stop().await;
    }

    let talos = setup.start().await;
    assert_eq!(total(&talos, "outcome=allow").await, allowed, "Envoy's own counter");
    assert_eq!(total(&talos, "").await, allowed + denied);
    let by_actor = rows(&talos, "group_by=actor&filter=outcome=allow").await;
    let count = |actor: &str| {
        let row = by_actor.iter().find(|row| row["actor_id"] == actor).must(actor);
        row["count"].as_u64().must("a number")
    };
    let of_keys = CLIENTS * (share - share / 7);
    assert_eq!(count("one") + count("two"), of_keys as u64);
    assert_eq!(by_actor[0]["actor_id"], "two", "the largest first");
    talos.check(Check::bearer(&keys[0].secret)).await.allowed();
}
