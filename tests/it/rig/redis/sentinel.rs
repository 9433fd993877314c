//! A real Sentinel that watches over a Redis on loopback.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::Redis;
use crate::rig::needs::variable;
use crate::rig::process::{Process, free_port};
use crate::rig::support::{Must, until};

/// The name of the primary.
pub const PRIMARY: &str = "talos-primary";

pub struct Sentinel {
    pub port: u16,
    _process: Process,
    _dir: TempDir,
}

impl Sentinel {
    /// Watches over a primary, and fails over soon.
    pub async fn start(primary: &Redis) -> Sentinel {
        let (dir, port) = (tempfile::tempdir().must("a directory"), free_port());
        let settings = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor {PRIMARY} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {PRIMARY} 500\nsentinel failover-timeout {PRIMARY} 3000\n",
            primary.port
        );
        let file = dir.path().join("sentinel.conf");
        std::fs::write(&file, settings).must("writing a configuration");
        let mut command = Command::new(PathBuf::from(variable("TALOS_TEST_REDIS")));
        command.arg(&file).arg("--sentinel").current_dir(dir.path());
        let process = Process::spawn("sentinel", command, &dir.path().join("sentinel.log"));
        let sentinel = Sentinel { port, _process: process, _dir: dir };
        until("the Sentinel names the primary", async || {
            (sentinel.primary().await == Some(primary.port)).then_some(())
        })
        .await;
        sentinel
    }

    /// Returns the port of the primary that it names.
    pub async fn primary(&self) -> Option<u16> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).must("a client");
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(PRIMARY);
        let named: Option<(String, u16)> = command.query_async(&mut connection).await.ok()?;
        named.map(|(_, port)| port)
    }

    /// Returns true if it knows of a replica that could become the primary.
    pub async fn knows_a_replica(&self) -> bool {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).must("a client");
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
            return false;
        };
        let mut command = redis::cmd("SENTINEL");
        command.arg("replicas").arg(PRIMARY);
        let replicas: Vec<Vec<String>> = command.query_async(&mut connection).await.unwrap_or_default();
        replicas.iter().any(|fields| fields.windows(2).any(|pair| pair == ["master-link-status", "ok"]))
    }
}
