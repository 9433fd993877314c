//! The main job, through a real Envoy with the configuration that we ship, each over HTTP/1.1 and
//! HTTP/2.

mod identity;
mod keys;
mod limits;
mod policy;
mod sources;
mod tokens;
mod unavailable;

use crate::rig::envoy::Envoy;
use crate::rig::http::{Call, Reply, Version};
use crate::rig::support::Must;
use crate::rig::talos::{Setup, Talos};
use crate::rig::upstream::{Received, Upstream};

/// Client, Envoy, Talos and upstream. The fields are in the order in which they stop.
pub struct Edge {
    envoy: Envoy,
    pub talos: Talos,
    upstream: Upstream,
}

impl Edge {
    pub async fn start() -> Edge {
        Edge::with(Setup::new(), &[]).await
    }

    /// `changes` are replacements in the text of Envoy's configuration.
    pub async fn with(setup: Setup, changes: &[(&str, &str)]) -> Edge {
        let upstream = Upstream::start().await;
        let talos = setup.start().await;
        let envoy = Envoy::start(upstream.port, talos.authz, changes).await;
        upstream.take(); // what Envoy's start needed
        Edge { envoy, talos, upstream }
    }

    pub async fn send(&self, version: Version, call: Call) -> Reply {
        self.envoy.edge.send(version, call).await
    }

    /// Sends a request that must pass; returns what the upstream got.
    async fn passes(&self, version: Version, call: Call) -> Received {
        self.send(version, call).await.expect(200);
        self.seen()
    }

    /// Sends a request that must be refused with this status, and must not reach the upstream.
    pub async fn refuses(&self, version: Version, call: Call, status: u16) -> Reply {
        let reply = self.send(version, call).await.expect(status);
        assert_eq!(self.upstream.take().len(), 0, "a refused request reached the upstream");
        reply
    }

    /// The one request that the upstream got since the last look.
    pub fn seen(&self) -> Received {
        let mut seen = self.upstream.take();
        assert_eq!(seen.len(), 1, "the upstream got {seen:?}");
        seen.pop().must("a request")
    }
}

/// The challenge of a 401 or 403.
#[track_caller]
fn challenge(reply: &Reply) -> &str {
    reply.header("www-authenticate").must("WWW-Authenticate")
}
