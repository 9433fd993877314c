//! A real Redis on a free port, over plaintext or TLS, with certificates made for the occasion.

mod cluster;
mod sentinel;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

pub use cluster::Cluster;
use redis::AsyncCommands;
use rustix::process::Signal;
pub use sentinel::Sentinel;
use tempfile::TempDir;

use crate::rig::authority::Authority;
use crate::rig::needs::variable;
use crate::rig::process::{Process, free_port};
use crate::rig::support::{Must, until};
use crate::rig::talos::Setup;
use crate::rig::wall_clock::WallClock;

/// The Unix socket that it listens on beside its port, in its own directory.
const SOCKET: &str = "redis.sock";

pub struct Redis {
    pub process: Process,
    pub port: u16,
    arguments: Vec<String>,
    /// Clock of the server, if it isn't the machine's.
    clock: Option<WallClock>,
    dir: Arc<TempDir>,
}

impl Redis {
    /// Starts a server over plaintext.
    pub async fn start() -> Redis {
        let port = free_port();
        Redis::run(Arc::new(tempfile::tempdir().must("a directory")), port, plain(port), None).await
    }

    /// Starts a server over plaintext, with a clock that can be set.
    pub async fn start_by(clock: &WallClock) -> Redis {
        let port = free_port();
        let dir = Arc::new(tempfile::tempdir().must("a directory"));
        Redis::run(dir, port, plain(port), Some(clock.clone())).await
    }

    /// Starts a server over TLS alone, except for [`Redis::connection`], with this certificate and
    /// key.
    pub async fn start_tls(certificate: (String, String), authority: &Authority) -> Redis {
        Redis::start_tls_with(certificate, authority, &[]).await
    }

    /// Starts a server as [`Redis::start_tls`] does, with options that override ours.
    pub async fn start_tls_with(
        (certificate, key): (String, String),
        authority: &Authority,
        options: &[String],
    ) -> Redis {
        let dir = Arc::new(tempfile::tempdir().must("a directory"));
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).must(name);
            path.display().to_string()
        };
        let port = free_port();
        let mut arguments = plain(0);
        arguments
            .extend(["--tls-port", &port.to_string(), "--tls-auth-clients", "optional"].map(str::to_owned));
        arguments.extend(["--tls-cert-file".to_owned(), put("certificate.pem", &certificate)]);
        arguments.extend(["--tls-key-file".to_owned(), put("key.pem", &key)]);
        arguments.extend(["--tls-ca-cert-file".to_owned(), put("ca.pem", &authority.pem())]);
        arguments.extend_from_slice(options);
        Redis::run(dir, port, arguments, None).await
    }

    async fn run(dir: Arc<TempDir>, port: u16, arguments: Vec<String>, clock: Option<WallClock>) -> Redis {
        let process = spawn(dir.path(), &arguments, clock.as_ref());
        let redis = Redis { process, port, arguments, clock, dir };
        redis.wait().await;
        redis
    }

    async fn wait(&self) {
        let port = self.port;
        until("Redis listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
            // Redis opens its Unix socket last.
            tokio::net::UnixStream::connect(self.dir.path().join(SOCKET)).await.ok().map(drop)
        })
        .await;
    }

    /// Sets the variables of a process that uses it over plaintext.
    pub fn used_by(&self, setup: Setup) -> Setup {
        setup
            .set("TALOS_CACHE_TYPE", "redis")
            .set("TALOS_CACHE_REDIS_ADDRS", &format!("127.0.0.1:{}", self.port))
    }

    /// Sets the variables of a process that counts the uses of keys in it.
    pub fn counts_for(&self, setup: Setup) -> Setup {
        setup
            .set("TALOS_RATE_LIMIT_BACKEND", "redis")
            .set("TALOS_CACHE_REDIS_ADDRS", &format!("127.0.0.1:{}", self.port))
    }

    /// Sets the variables of a process that uses it over TLS, trusting `authority` and asking for
    /// `name`.
    pub fn used_over_tls(&self, setup: Setup, authority: &Authority, name: &str) -> Setup {
        let ca = setup.path("redis-ca.pem");
        std::fs::write(&ca, authority.pem()).must("writing the authority");
        self.used_by(setup)
            .set("TALOS_CACHE_REDIS_TLS_ENABLED", "true")
            .set("TALOS_CACHE_REDIS_TLS_CA_FILE", &ca.display().to_string())
            .set("TALOS_CACHE_REDIS_TLS_SERVER_NAME", name)
    }

    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        // Over the Unix socket, as the port may need TLS, or be cut off on purpose.
        let socket = format!("unix://{}", self.dir.path().join(SOCKET).display());
        let client = redis::Client::open(socket).must("a client");
        // Longer than the default: a loaded machine is no reason to fail.
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
        client.get_multiplexed_async_connection_with_config(&config).await.must("connecting to Redis")
    }

    /// Returns the milliseconds for which each entry of such a name stays; -1 is for ever.
    pub async fn times_to_live(&self, pattern: &str) -> Vec<i64> {
        let mut connection = self.connection().await;
        let names: Vec<String> = connection.keys(pattern).await.must("KEYS");
        let mut times = vec![];
        for name in names {
            times.push(connection.pttl(&name).await.must("PTTL"));
        }
        times
    }

    /// Listens to what is published.
    pub async fn pubsub(&self) -> redis::aio::PubSub {
        let socket = format!("unix://{}", self.dir.path().join(SOCKET).display());
        let client = redis::Client::open(socket).must("a client");
        client.get_async_pubsub().await.must("connecting to Redis")
    }

    /// Returns the time by the server's clock, in seconds.
    pub async fn now(&self) -> u64 {
        let (seconds, _): (u64, u64) =
            redis::cmd("TIME").query_async(&mut self.connection().await).await.must("TIME");
        seconds
    }

    /// Sends a command; returns the reply as text.
    pub async fn command(&self, words: &[&str]) -> String {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut self.connection().await).await.must(&words.join(" "))
    }

    /// Returns the names and values of all entries.
    pub async fn entries(&self) -> Vec<(String, Vec<u8>)> {
        let mut connection = self.connection().await;
        let names: Vec<String> = connection.keys("*").await.must("KEYS");
        let mut entries = vec![];
        for name in names {
            let value: Option<Vec<u8>> = connection.get(&name).await.must("GET");
            entries.extend(value.map(|value| (name, value)));
        }
        entries
    }

    /// Waits until there are that many entries, since they are written beside the answers.
    pub async fn until_entries(&self, count: usize) -> Vec<(String, Vec<u8>)> {
        until(&format!("{count} entries in Redis"), async || {
            let entries = self.entries().await;
            (entries.len() == count).then_some(entries)
        })
        .await
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the server again, empty, on the same port.
    pub async fn start_again(&mut self) {
        self.process = spawn(self.dir.path(), &self.arguments, self.clock.as_ref());
        self.wait().await;
    }

    /// Starts the server again with another certificate and key, of this authority.
    pub async fn start_again_with(&mut self, (certificate, key): (String, String), authority: &Authority) {
        for (name, text) in [("certificate.pem", certificate), ("key.pem", key), ("ca.pem", authority.pem())]
        {
            std::fs::write(self.dir.path().join(name), text).must(name);
        }
        self.start_again().await;
    }

    pub fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }
}

/// Lets Checks wait for Redis however busy the machine is: for tests of what its entries say.
pub fn patient(setup: Setup) -> Setup {
    setup.set("TALOS_CACHE_REDIS_CHECK_TIMEOUT", "5s")
}

fn plain(port: u16) -> Vec<String> {
    let port = port.to_string();
    let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let arguments = [&arguments[..], &["--unixsocket", SOCKET]].concat();
    arguments.into_iter().map(str::to_owned).collect()
}

fn spawn(dir: &Path, arguments: &[String], clock: Option<&WallClock>) -> Process {
    let mut command = Command::new(PathBuf::from(variable("TALOS_TEST_REDIS")));
    command.args(arguments).current_dir(dir);
    command.envs(clock.iter().flat_map(|clock| clock.variables()));
    Process::spawn("redis", command, &dir.join("redis.log"))
}
