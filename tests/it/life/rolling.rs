//! A rolling restart: three instances behind Envoy go and come back one after the other, under load
//! that never stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;

use crate::rig::envoy::Envoy;
use crate::rig::http::{Base, Call, Version};
use crate::rig::process::free_port;
use crate::rig::support::{Must, until};
use crate::rig::talos::{Setup, Talos};
use crate::rig::upstream::Upstream;

/// Number of restarts of all three; `TALOS_TEST_ROLLS` overrides it.
const ROLLS: usize = 3;
const INSTANCES: usize = 3;
const CLIENTS: usize = 4;

/// Requests without a pause.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    fn start(edge: Base, secret: &str) -> Load {
        let mut load = Load { stop: Arc::default(), answered: Arc::default(), clients: JoinSet::new() };
        for _ in 0..CLIENTS {
            let (stop, answered) = (Arc::clone(&load.stop), Arc::clone(&load.answered));
            let bearer = format!("Bearer {secret}");
            load.clients.spawn(async move {
                let mut failures = vec![];
                while !stop.load(Ordering::Relaxed) {
                    let call = Call::get("/").header("authorization", &bearer);
                    match edge.try_send(Version::Http1, call).await {
                        Ok(reply) if reply.status == 200 => {}
                        Ok(reply) => failures.push(format!("{}: {}", reply.status, reply.text())),
                        Err(error) => failures.push(error),
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                failures
            });
        }
        load
    }

    /// Ends it: how many requests there were, and which failed.
    async fn end(mut self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = vec![];
        while let Some(client) = self.clients.join_next().await {
            failures.extend(client.must("a client"));
        }
        (self.answered.load(Ordering::Relaxed), failures)
    }
}

/// Waits until Envoy asks an instance.
async fn is_asked(talos: &Talos) {
    let before = talos.metric("talos_checks_total").await;
    until("Envoy asks the instance", async || {
        (talos.metric("talos_checks_total").await > before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request() {
    needs!(Envoy);
    let rolls = std::env::var("TALOS_TEST_ROLLS").map_or(ROLLS, |text| text.parse().must("TALOS_TEST_ROLLS"));
    let setup = Setup::new();
    let setups: Vec<Setup> = (0..INSTANCES)
        .map(|_| setup.clone().set("TALOS_SERVE_AUTHZ_PORT", &free_port().to_string()))
        .collect();
    let mut instances = vec![];
    for setup in &setups {
        instances.push(setup.start().await);
    }
    let key = instances[0].issue(json!({})).await;
    let upstream = Upstream::start().await;
    let line = |talos: &Talos| {
        format!("socket_address: {{ address: 127.0.0.1, port_value: {} }}", talos.authz.0.port())
    };
    let endpoints: Vec<String> = instances.iter().map(line).collect();
    let separator = format!("\n{0:14}- endpoint:\n{0:18}address:\n{0:20}", "");
    let envoy =
        Envoy::start(upstream.port, instances[0].authz, &[(&endpoints[0], &endpoints.join(&separator))])
            .await;
    for talos in &instances {
        until("Envoy asks each instance", async || {
            let call = Call::get("/").header("authorization", &format!("Bearer {}", key.secret));
            envoy.edge.send(Version::Http1, call).await.expect(200);
            (talos.metric("talos_checks_total").await > 0.0).then_some(())
        })
        .await;
    }

    let load = Load::start(envoy.edge, &key.secret);
    for _ in 0..rolls {
        for (place, setup) in setups.iter().enumerate() {
            let mut old = instances.remove(place);
            old.process.signal(Signal::TERM);
            let status = old.process.end().await;
            assert_eq!(status.code(), Some(0), "{status}:\n{}", old.process.log());
            let new = setup.start().await;
            is_asked(&new).await;
            instances.insert(place, new);
        }
        upstream.take(); // it keeps all that it gets
    }
    let (answered, failures) = load.end().await;
    println!(
        "{rolls} rolling restarts of {INSTANCES} instances: {} of {answered} requests failed",
        failures.len()
    );
    assert!(failures.is_empty(), "{} of {answered} failed: {failures:#?}", failures.len());
    assert!(answered > 100 * rolls, "{answered}");
}
