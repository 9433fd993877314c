//! A cluster of three masters on loopback, over TLS: between each other, and to whoever asks them.

use std::collections::BTreeSet;

use redis::AsyncCommands;

use super::Redis;
use crate::rig::authority::Authority;
use crate::rig::process::free_port;
use crate::rig::support::{Must, until};
use crate::rig::talos::Setup;

/// The address that all nodes announce, and that their certificates carry.
const ADDRESS: &str = "127.0.0.1";
/// The first slot of each, and the one after the last.
const SLOTS: [(u16, u16); 3] = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];

pub struct Cluster {
    pub nodes: Vec<Redis>,
    authority: Authority,
}

impl Cluster {
    pub async fn start_tls() -> Cluster {
        let authority = Authority::new();
        let (mut nodes, mut buses) = (vec![], vec![]);
        for (first, last) in SLOTS {
            let bus = free_port();
            let tls = ["--tls-cluster", "yes", "--tls-replication", "yes"];
            let cluster =
                [&["--cluster-enabled", "yes", "--cluster-announce-ip", ADDRESS], &tls[..]].concat();
            let bus_port = ["--cluster-port".to_owned(), bus.to_string()];
            let options: Vec<String> = cluster.into_iter().map(str::to_owned).chain(bus_port).collect();
            let node = Redis::start_tls_with(authority.issue(ADDRESS, 2100), &authority, &options).await;
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await;
            nodes.push(node);
            buses.push(bus);
        }
        for (node, bus) in nodes.iter().zip(&buses).skip(1) {
            let (port, bus) = (node.port.to_string(), bus.to_string());
            nodes[0].command(&["CLUSTER", "MEET", ADDRESS, &port, &bus]).await;
        }
        let cluster = Cluster { nodes, authority };
        until("the cluster is whole", async || {
            for node in &cluster.nodes {
                let info = node.command(&["CLUSTER", "INFO"]).await;
                if !(info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")) {
                    return None;
                }
            }
            Some(())
        })
        .await;
        cluster
    }

    /// Sets the variables of a process that uses the cluster.
    pub fn used_by(&self, setup: Setup) -> Setup {
        let ca = setup.path("redis-ca.pem");
        std::fs::write(&ca, self.authority.pem()).must("writing the authority");
        let addrs: Vec<String> = self.nodes.iter().map(|node| format!("{ADDRESS}:{}", node.port)).collect();
        setup
            .set("TALOS_CACHE_TYPE", "redis")
            .set("TALOS_CACHE_REDIS_ADDRS", &addrs.join(","))
            .set("TALOS_CACHE_REDIS_TLS_ENABLED", "true")
            .set("TALOS_CACHE_REDIS_TLS_CA_FILE", &ca.display().to_string())
    }

    /// Moves the slots of all names that fit the pattern from one node to another, with what is in
    /// them, and returns the number of names.
    pub async fn reshard(&self, from: usize, to: usize, pattern: &str) -> usize {
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let ids = [source, target].map(|node| node.command(&["CLUSTER", "MYID"]));
        let ids = futures_util::future::join_all(ids).await;
        let names: Vec<String> = source.connection().await.keys(pattern).await.must("KEYS");
        let mut slots = BTreeSet::new();
        for name in &names {
            slots.insert(source.command(&["CLUSTER", "KEYSLOT", name]).await);
        }
        for slot in &slots {
            target.command(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &ids[0]]).await;
            source.command(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &ids[1]]).await;
        }
        let port = target.port.to_string();
        for slot in &slots {
            // A name may have come before the slot was declared to move. None comes from then on.
            let mut list = redis::cmd("CLUSTER");
            list.arg("GETKEYSINSLOT").arg(slot).arg(1_000);
            let there: Vec<String> =
                list.query_async(&mut source.connection().await).await.must("GETKEYSINSLOT");
            for name in &there {
                source.command(&["MIGRATE", ADDRESS, &port, name, "0", "5000"]).await;
            }
            for node in [target, source] {
                node.command(&["CLUSTER", "SETSLOT", slot, "NODE", &ids[1]]).await;
            }
        }
        names.len()
    }

    /// Returns for each node the number of names that fit the pattern.
    pub async fn names(&self, pattern: &str) -> Vec<usize> {
        let mut counts = vec![];
        for node in &self.nodes {
            let names: Vec<String> = node.connection().await.keys(pattern).await.must("KEYS");
            counts.push(names.len());
        }
        counts
    }
}
