//! A real Envoy with the configuration that we ship, on ports of its own.

use std::process::Command;

use tempfile::TempDir;

use crate::rig::http::{Base, Call, Version};
use crate::rig::needs::variable;
use crate::rig::process::{Process, free_port};
use crate::rig::support::{Must, until};

/// The configurations that we ship.
pub const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/envoy/envoy.yaml");
pub const LIMITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/envoy/limits.yaml");

pub struct Envoy {
    process: Process,
    _dir: TempDir,
    /// The listener.
    pub edge: Base,
    admin: Base,
}

/// Program, and threads for requests.
pub struct Launch {
    pub program: String,
    pub threads: &'static str,
}

impl Default for Launch {
    fn default() -> Self {
        Self { program: variable("TALOS_TEST_ENVOY"), threads: "1" }
    }
}

impl Envoy {
    /// Starts Envoy in front of an upstream; `changes` are further replacements in the text of its
    /// configuration.
    pub async fn start(upstream: u16, authz: Base, changes: &[(&str, &str)]) -> Envoy {
        Envoy::start_as(CONFIG, upstream, authz, changes).await
    }

    /// Starts Envoy with one of our configurations.
    pub async fn start_as(file: &str, upstream: u16, authz: Base, changes: &[(&str, &str)]) -> Envoy {
        Envoy::start_with(&Launch::default(), file, upstream, authz, changes).await
    }

    /// Starts one of the Envoys with one of our configurations.
    pub async fn start_with(
        launch: &Launch,
        file: &str,
        upstream: u16,
        authz: Base,
        changes: &[(&str, &str)],
    ) -> Envoy {
        for _ in 0..5 {
            if let Some(envoy) = Envoy::try_start(launch, file, upstream, authz, changes).await {
                return envoy;
            }
        }
        panic!("Envoy found no free ports");
    }

    /// Starts Envoy; None when another process took one of its ports meanwhile.
    async fn try_start(
        launch: &Launch,
        file: &str,
        upstream: u16,
        authz: Base,
        changes: &[(&str, &str)],
    ) -> Option<Envoy> {
        let dir = tempfile::tempdir().must("a directory for Envoy");
        let (edge, admin) = (Base::local(free_port()), Base::local(free_port()));
        let mut config = std::fs::read_to_string(file).must(file);
        let ports =
            [(10_000, edge.0.port()), (10_001, admin.0.port()), (10_080, upstream), (4_423, authz.0.port())];
        let port = |number: u16| format!("port_value: {number} }}");
        // A configuration that reaches Talos by a socket names no port of it.
        let named =
            ports.into_iter().filter(|(shipped, _)| *shipped != 4_423 || config.contains(&port(4_423)));
        for (shipped, ours) in named.collect::<Vec<_>>() {
            replace(&mut config, &port(shipped), &port(ours));
        }
        // The tests are about decisions, not about the speed of a debug build on a busy machine.
        replace(&mut config, "0.25s", "10s");
        for (old, new) in changes {
            replace(&mut config, old, new);
        }
        let file = dir.path().join("envoy.yaml");
        std::fs::write(&file, config).must("writing Envoy's configuration");

        let mut command = Command::new(&launch.program);
        command.arg("-c").arg(&file).args([
            "--concurrency",
            launch.threads,
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ]);
        // The accelerator, which is built with the tests.
        if let Some(libraries) = std::env::current_exe().must("the test's path").parent() {
            command.env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", libraries);
        }
        let process = Process::spawn("Envoy", command, &dir.path().join("envoy.log"));
        let mut envoy = Envoy { process, _dir: dir, edge, admin };
        until("Envoy answers and calls Talos healthy", async || {
            if let Some(status) = envoy.process.ended() {
                let log = envoy.process.log();
                assert!(log.contains("Address already in use"), "Envoy ended with {status}:\n{log}");
                return Some(None);
            }
            is_ready(edge, admin).await.then_some(Some(()))
        })
        .await?;
        Some(envoy)
    }
}

impl Envoy {
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Returns its output, with the access log.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Returns what it says of its certificates.
    pub async fn certificates(&self) -> String {
        self.admin.send(Version::Http1, Call::get("/certs")).await.expect(200).text()
    }

    /// Returns the value of a counter.
    pub async fn stat(&self, name: &str) -> u64 {
        let path = format!("/stats?filter=^{name}$");
        let stats = self.admin.send(Version::Http1, Call::get(&path)).await.expect(200).text();
        let value = stats.trim().rsplit_once(": ").must(name).1;
        value.parse().must(value)
    }

    /// Returns the sum of the listener's counters whose names end with `name`.
    pub async fn counter(&self, name: &str) -> u64 {
        let stats = self.admin.send(Version::Http1, Call::get("/stats")).await.expect(200).text();
        let counters = stats.lines().filter_map(|line| line.split_once(": "));
        let found: Vec<u64> = counters
            .filter(|(counter, _)| counter.starts_with("http.") && counter.ends_with(name))
            .map(|(_, value)| value.parse().must(name))
            .collect();
        assert!(!found.is_empty(), "no counter {name}");
        found.iter().sum()
    }
}

/// Replaces a text that must be there: else the shipped file has changed, and the test would run
/// with something else.
#[track_caller]
fn replace(config: &mut String, old: &str, new: &str) {
    assert!(config.contains(old), "the configuration has no {old:?} any more");
    *config = config.replace(old, new);
}

/// Returns whether the listener answers and the health check of Talos has passed.
async fn is_ready(edge: Base, admin: Base) -> bool {
    let Ok(clusters) = admin.try_send(Version::Http1, Call::get("/clusters")).await else {
        return false;
    };
    let answers = edge.try_send(Version::Http1, Call::get("/anonymous")).await;
    let is_healthy =
        |line: &str| line.starts_with("talos_authz::") && line.ends_with("::health_flags::healthy");
    clusters.text().lines().any(is_healthy) && answers.is_ok_and(|reply| reply.status != 503)
}
