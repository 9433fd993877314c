//! Several instances behind one Envoy, replaced one by one under load that never stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::rig::envoy::Envoy;
use crate::rig::http::{Base, Call, Version};
use crate::rig::process::free_port;
use crate::rig::support::{Must, until};
use crate::rig::talos::{Key, Setup, Talos};
use crate::rig::upstream::Upstream;

pub const INSTANCES: usize = 3;
const CLIENTS: usize = 4;

/// Instances of one setup, each on a port of its own for Envoy.
pub struct Instances {
    setups: Vec<Setup>,
    pub running: Vec<Talos>,
    envoy: Envoy,
    upstream: Upstream,
}

impl Instances {
    /// Starts the instances, and Envoy in front of them.
    pub async fn start(setup: &Setup) -> Instances {
        let with_port = |_| setup.clone().set("TALOS_SERVE_AUTHZ_PORT", &free_port().to_string());
        let setups: Vec<Setup> = (0..INSTANCES).map(with_port).collect();
        let mut running = vec![];
        for setup in &setups {
            running.push(setup.start().await);
        }
        let upstream = Upstream::start().await;
        let line = |talos: &Talos| {
            format!("socket_address: {{ address: 127.0.0.1, port_value: {} }}", talos.authz.0.port())
        };
        let endpoints: Vec<String> = running.iter().map(line).collect();
        let separator = format!("\n{0:14}- endpoint:\n{0:18}address:\n{0:20}", "");
        let changes = [
            (endpoints[0].as_str(), &*endpoints.join(&separator)),
            // An instance that a busy machine lets wait isn't taken for one that hangs: those that
            // end refuse connections at once.
            ("timeout: 0.5s", "timeout: 10s"),
            ("interval: 5s, timeout: 1s", "interval: 5s, timeout: 10s"),
        ];
        let envoy = Envoy::start(upstream.port, running[0].authz, &changes).await;
        Instances { setups, running, envoy, upstream }
    }

    /// Begins to send requests with a key, once Envoy asks each instance.
    pub async fn load(&self, key: &Key) -> Load {
        for talos in &self.running {
            until("Envoy asks each instance", async || {
                let call = Call::get("/").header("authorization", &format!("Bearer {}", key.secret));
                let reply = self.envoy.edge.send(Version::Http1, call).await;
                // On a busy machine, the first lookup of the key may be late.
                assert!(matches!(reply.status, 200 | 503), "{}: {}", reply.status, reply.text());
                (talos.metric("talos_checks_total").await > 0.0).then_some(())
            })
            .await;
        }
        Load::start(self.envoy.edge, &key.secret)
    }

    /// Ends an instance with SIGTERM.
    pub async fn end(&mut self, place: usize) {
        let talos = &mut self.running[place];
        talos.process.signal(Signal::TERM);
        let status = talos.process.end().await;
        assert_eq!(status.code(), Some(0), "{status}:\n{}", talos.process.log());
    }

    /// Starts a binary in the place of an instance that has ended, under load.
    pub async fn begin(&mut self, place: usize, talos: &str) {
        let new = self.setups[place].clone().of_release(talos).start().await;
        is_asked(&new).await;
        self.running[place] = new;
        self.upstream.take(); // it keeps all that it gets
    }

    /// Replaces all instances, one after the other, under load.
    pub async fn roll_to(&mut self, talos: &str) {
        for place in 0..INSTANCES {
            self.end(place).await;
            self.begin(place, talos).await;
        }
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

/// Requests without a pause.
pub struct Load {
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

    /// Waits until so many more requests are answered, with whatever status.
    pub async fn wait_for_answers(&self, count: usize) {
        let enough = self.answered.load(Ordering::Relaxed) + count;
        until("requests are answered", async || {
            (self.answered.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await;
    }

    /// Ends it: how many requests there were, and which failed.
    pub async fn end(mut self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = vec![];
        while let Some(client) = self.clients.join_next().await {
            failures.extend(client.must("a client"));
        }
        (self.answered.load(Ordering::Relaxed), failures)
    }
}
