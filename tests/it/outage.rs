//! Outages of databases and Redis: known keys are answered rightly, and unknown ones get 503, never
//! 401.

mod cancelled;
mod disk;
mod distance;
mod failover;
mod flood;
mod frozen;
mod gone;
mod lost_answers;
mod relay;
mod settings;
mod slow;
mod switchover;

use std::time::Duration;

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::database::{self, Server};
use crate::rig::grpc::Grpc;
use crate::rig::proxy::Proxy;
use crate::rig::support::until;
use crate::rig::talos::{Key, Setup, Talos};

/// `consistency.lease`, scaled down.
const LEASE: Duration = Duration::from_secs(1);

/// A process that reaches its database through a proxy, and one that needs none.
struct Pair {
    cut_off: Talos,
    direct: Talos,
    proxy: Proxy,
    grpc: Grpc,
}

impl Pair {
    /// Starts the processes. `parameters` are the DSN's, `set` the settings of the process behind
    /// the proxy.
    async fn start(parameters: &str, set: &[(&str, &str)]) -> Pair {
        let dsn = database::server().unwrap_or(Server::Postgres).new_database();
        let (proxy, proxied) = database::behind_proxy(&dsn).await;
        let setup = Setup::new().set("TALOS_CONSISTENCY_LEASE", "1s").set("TALOS_CONSISTENCY_POLL", "200ms");
        let direct = setup.clone().set("TALOS_DB_DSN", &dsn).start().await;
        let proxied = match (parameters.is_empty(), proxied.contains('?')) {
            (true, _) => proxied,
            (false, true) => format!("{proxied}&{parameters}"),
            (false, false) => format!("{proxied}?{parameters}"),
        };
        let setup = set.iter().fold(setup, |setup, (name, value)| setup.set(name, value));
        let cut_off = setup.set("TALOS_DB_DSN", &proxied).start().await;
        let grpc = cut_off.grpc().await;
        Pair { cut_off, direct, proxy, grpc }
    }

    /// A key that the process behind the proxy has seen.
    async fn known_key(&self) -> Key {
        let key = self.direct.issue(json!({})).await;
        // A lookup that a busy machine makes late ends in a 503.
        until("it knows the key", async || self.passes(&key).await.then_some(())).await;
        key
    }

    async fn is(&self, key: &Key, status: i32) {
        let verdict = self.grpc.check(&Check::bearer(&key.secret).build()).await;
        assert!(verdict.is(status), "not {status}: {verdict:?}");
    }

    async fn passes(&self, key: &Key) -> bool {
        self.grpc.check(&Check::bearer(&key.secret).build()).await.passes()
    }

    /// Waits until it has read that a key was revoked: before that, a slow look may end in a 503.
    async fn knows_of_the_end_of(&self, key: &Key) {
        until("it knows of the revocation", async || {
            self.grpc.check(&Check::bearer(&key.secret).build()).await.is(401).then_some(())
        })
        .await;
    }

    /// Waits until a key that was never asked for is found in the database.
    async fn is_back(&self) {
        let key = self.direct.issue(json!({})).await;
        until("the database is asked again", async || self.passes(&key).await.then_some(())).await;
    }
}
