//! Changes of the configuration while it is served: live settings apply at once, and no valid
//! request is refused.

mod bad;
mod live;
mod load;
mod rotate;
mod signers;
mod watch;

use std::path::PathBuf;

use tempfile::TempDir;

use crate::rig::support::{Must, until};
use crate::rig::talos::{Setup, Talos, generate_as};

pub const FIRST: &str = "the-first-hmac-secret-of-the-tests-0123456789";
pub const SECOND: &str = "the-second-hmac-secret-of-the-tests-987654321";

/// A process whose configuration file is changed under it.
struct Live {
    talos: Talos,
    dir: TempDir,
}

impl Live {
    async fn start(config: &str) -> Live {
        Live::start_in(tempfile::tempdir().must("a directory for a configuration"), config).await
    }

    async fn start_in(dir: TempDir, config: &str) -> Live {
        let file = dir.path().join("talos.yaml");
        std::fs::write(&file, config).must("writing a configuration");
        Live { talos: Setup::from_file(file).start().await, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file as editors do: whole, then renamed to its place.
    fn put(&self, name: &str, content: &str) {
        let new = self.path(&format!("{name}.new"));
        std::fs::write(&new, content).must("writing a file");
        std::fs::rename(new, self.path(name)).must("putting a file in its place");
    }

    fn put_config(&self, config: &str) {
        self.put("talos.yaml", config);
    }

    async fn generation(&self) -> f64 {
        self.talos.metric("talos_config_generation").await
    }

    async fn reloads(&self, outcome: &str) -> f64 {
        self.talos.metric(&format!("talos_config_reloads_total{{outcome=\"{outcome}\"}}")).await
    }

    /// Changes the configuration and waits until the change is in force.
    async fn change(&self, config: &str) {
        let before = self.generation().await;
        self.put_config(config);
        self.is_in_force_after(before).await;
    }

    async fn is_in_force_after(&self, generation: f64) {
        until("the change is in force", async || (self.generation().await > generation).then_some(())).await;
    }

    /// Waits for a line of the log that has all of these words.
    async fn logs(&self, words: &[&str]) {
        until(&format!("the log says {words:?}"), async || {
            let log = self.talos.process.log();
            let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
            found.then_some(())
        })
        .await;
    }

    async fn is_valid(&self, credential: &str) -> bool {
        self.talos.verify(credential).await["is_valid"] == true
    }
}

/// A new Ed25519 key set of one key.
fn key_set(kid: &str) -> serde_json::Value {
    let dir = tempfile::tempdir().must("a directory for a key");
    let text = generate_as(kid, "eddsa", &dir.path().join("key.json"));
    serde_json::from_str(&text).must("a key set")
}
