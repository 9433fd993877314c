//! A real `talos` process on free ports, its database in a temporary directory, and the calls that
//! most tests make.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::check::{Check, Verdict};
use crate::rig::database;
use crate::rig::grpc::{Grpc, Health};
use crate::rig::http::{Base, Call, Reply, Version};
use crate::rig::process::{Process, free_port};
use crate::rig::support::{Json, Must, until, within};

/// The binary under test.
pub const TALOS: &str = env!("CARGO_BIN_EXE_talos");
pub const ISSUER: &str = "https://talos.test";
pub const HMAC_SECRET: &str = "an-hmac-secret-for-the-tests-only-0123456789";
/// The network of all keys when there is one tenant.
pub const NETWORK: &str = "00000000-0000-0000-0000-000000000000";

pub const ISSUED: &str = "/v2alpha1/admin/issuedApiKeys";
pub const IMPORTED: &str = "/v2alpha1/admin/importedApiKeys";
pub const VERIFY: &str = "/v2alpha1/admin/apiKeys:verify";
pub const DERIVE: &str = "/v2alpha1/admin/apiKeys:derive";
pub const SELF_REVOKE: &str = "/v2alpha1/apiKeys:selfRevoke";
pub const JWKS: &str = "/v2alpha1/derivedKeys/jwks.json";

/// The settings of a process.
#[derive(Clone)]
pub struct Setup {
    dir: Arc<TempDir>,
    planes: Option<&'static str>,
    config: Option<PathBuf>,
    variables: Vec<(String, Option<String>)>,
    log: PathBuf,
    /// True if files that can't grow are an error to the process, not its end.
    survives_file_limits: bool,
    /// True if permissions bind the process even if it is root.
    respects_permissions: bool,
    /// The `cgroup.procs` of the cgroup that the process starts in.
    cgroup: Option<PathBuf>,
    /// The binary.
    talos: String,
}

impl Setup {
    /// Returns a setup with nothing set.
    pub fn bare() -> Setup {
        let dir = Arc::new(tempfile::tempdir().must("a directory for Talos"));
        let log = dir.path().join("talos.log");
        Setup {
            dir,
            planes: None,
            config: None,
            variables: Vec::new(),
            log,
            survives_file_limits: false,
            respects_permissions: false,
            cgroup: None,
            talos: TALOS.to_owned(),
        }
    }

    /// Returns a setup with secrets, signing keys, a new database and listeners on loopback.
    pub fn new() -> Setup {
        let setup = Setup::bare();
        let keys = setup.dir.path().join("signing-keys.json");
        std::fs::write(&keys, signing_keys()).must("writing the signing keys");
        setup
            .set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET)
            .set("TALOS_CREDENTIALS_ISSUER", ISSUER)
            .set(
                "TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS",
                &format!("file://{}", keys.display()),
            )
            .set("TALOS_SERVE_HTTP_HOST", "127.0.0.1")
            .set("TALOS_SERVE_PUBLIC_HOST", "127.0.0.1")
            .set("TALOS_SERVE_METRICS_HOST", "127.0.0.1")
            .set("TALOS_SERVE_AUTHZ_HOST", "127.0.0.1")
            .database()
    }

    pub fn set(mut self, variable: &str, value: &str) -> Setup {
        self.variables.push((variable.to_owned(), Some(value.to_owned())));
        self
    }

    pub fn unset(mut self, variable: &str) -> Setup {
        self.variables.push((variable.to_owned(), None));
        self
    }

    /// Returns [`Setup::new`] with those settings in a configuration file that can change while the
    /// process runs.
    pub fn from_file(file: PathBuf) -> Setup {
        let setup = Setup::new()
            .unset("TALOS_SECRETS_HMAC_CURRENT")
            .unset("TALOS_CREDENTIALS_ISSUER")
            .unset("TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS");
        Setup { config: Some(file), ..setup }
    }

    /// Sets the planes to serve: `admin`, `public` or `authz`, each with metrics. Default: all.
    pub fn planes(mut self, planes: &'static str) -> Setup {
        self.planes = Some(planes);
        self
    }

    /// Sends the log to a file.
    pub fn log_to(mut self, path: &str) -> Setup {
        self.log = PathBuf::from(path);
        self
    }

    /// Blocks the signal that would kill the process when a file reaches the limit of its size.
    pub fn survives_file_limits(mut self) -> Setup {
        self.survives_file_limits = true;
        self
    }

    /// Takes root's power away to write files without permission.
    pub fn respects_permissions(mut self) -> Setup {
        self.respects_permissions = true;
        self
    }

    /// Starts the process within the cgroup whose `cgroup.procs` this is.
    pub fn in_cgroup(mut self, processes: Option<PathBuf>) -> Setup {
        self.cgroup = processes;
        self
    }

    /// Runs another binary than the one under test.
    pub fn of_release(mut self, talos: &str) -> Setup {
        self.talos = talos.to_owned();
        self
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn database(self) -> Setup {
        match database::server() {
            Some(server) => self.set("TALOS_DB_DSN", &server.new_database()),
            None => self.sqlite(),
        }
    }

    /// Sets an SQLite file as the database, whatever the tests run against.
    pub fn sqlite(self) -> Setup {
        let dsn = format!("sqlite://{}", self.path("talos.db").display());
        self.set("TALOS_DB_DSN", &dsn)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let talos = self.talos.as_str();
        let mut command = if self.survives_file_limits {
            let mut shell = self.program("sh");
            shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", talos]);
            shell
        } else if let Some(processes) = &self.cgroup {
            let mut shell = self.program("sh");
            shell.args(["-c", "echo $$ > \"$CGROUP_PROCS\" && exec \"$0\" \"$@\"", talos]);
            shell.env("CGROUP_PROCS", processes);
            shell
        } else if self.respects_permissions && rustix::process::geteuid().is_root() {
            let mut setpriv = self.program("setpriv");
            setpriv.args(["--bounding-set=-dac_override", talos]);
            setpriv
        } else {
            self.program(talos)
        };
        command.args(arguments);
        command
    }

    /// Returns a command with the environment of this setup, in its directory.
    pub fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let ours = name.to_string_lossy();
            if ours.starts_with("TALOS_") || ours == "DSN" || ours == "DB_DSN" {
                command.env_remove(&name);
            }
        }
        // Contexts of the person who runs the tests must not be used or changed.
        command.env("XDG_CONFIG_HOME", self.dir.path());
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(self.dir.path());
        command
    }

    /// Runs a command to its end, whatever its exit code.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::from(self.command(arguments));
        within(&format!("talos {arguments:?}"), command.kill_on_drop(true).output())
            .await
            .must("running talos")
    }

    /// Runs `talos serve` that must not come up; returns all that it wrote.
    pub async fn refused(&self) -> String {
        let output = self.clone().on_free_ports().run(&["serve"]).await;
        let written = [output.stdout, output.stderr].concat();
        let written = String::from_utf8_lossy(&written).into_owned();
        assert!(output.status.code().is_some_and(|code| code > 0), "{:?}: {written}", output.status);
        written
    }

    /// Gives each listener a free port unless it was given one.
    fn on_free_ports(mut self) -> Setup {
        for plane in ["HTTP", "PUBLIC", "METRICS", "AUTHZ"] {
            let name = format!("TALOS_SERVE_{plane}_PORT");
            if !self.variables.iter().any(|(variable, _)| *variable == name) {
                self = self.set(&name, &free_port().to_string());
            }
        }
        self
    }

    /// Runs one statement on the database, as somebody else who has access to it.
    pub fn sql(&self, statement: &str) {
        database::execute(self.dsn(), statement.to_owned());
    }

    /// The number that a query of its database gives.
    pub async fn number(&self, query: &str) -> i64 {
        database::number(self.dsn(), query).await
    }

    /// The DSN of its database.
    pub fn dsn(&self) -> &str {
        let found = self.variables.iter().rev().find(|(variable, _)| variable == "TALOS_DB_DSN");
        found.and_then(|(_, dsn)| dsn.as_deref()).must("a DSN")
    }

    /// Takes the mutation log away from the database, which then answers neither polls nor lookups
    /// of keys.
    pub fn break_database(&self) {
        for table in ["mutation_log", "mutation_counter"] {
            self.sql(&format!("ALTER TABLE {table} RENAME TO {table}_away"));
        }
    }

    fn listener(&self, plane: &str) -> Base {
        let name = format!("TALOS_SERVE_{plane}_PORT");
        let found = self.variables.iter().rev().find(|(variable, _)| *variable == name);
        let port = found.and_then(|(_, port)| port.as_ref()).must(&name);
        Base::local(port.parse().must(port))
    }

    /// Starts the process without waiting for it to be ready.
    pub fn spawn(&self) -> Talos {
        let setup = self.clone().on_free_ports();
        let config = setup.config.as_ref().map(|file| format!("--config={}", file.display()));
        let arguments = ["serve"].into_iter().chain(setup.planes).chain(config.as_deref());
        let arguments: Vec<&str> = arguments.collect();
        let process = Process::spawn("talos", setup.command(&arguments), &setup.log);
        Talos {
            process,
            admin: setup.listener("HTTP"),
            public: setup.listener("PUBLIC"),
            metrics: setup.listener("METRICS"),
            authz: setup.listener("AUTHZ"),
            setup: self.clone(),
        }
    }

    /// Starts the process and waits until it is ready.
    pub async fn start(&self) -> Talos {
        self.start_until(async |talos| talos.is_ready().await).await
    }

    /// Starts the process and waits until `ready` says so.
    pub async fn start_until(&self, ready: impl AsyncFn(&Talos) -> bool) -> Talos {
        for _ in 0..5 {
            let mut talos = self.spawn();
            if talos.is_up(&ready).await {
                return talos;
            }
        }
        panic!("talos found no free ports");
    }
}

pub struct Talos {
    pub process: Process,
    pub admin: Base,
    pub public: Base,
    pub metrics: Base,
    pub authz: Base,
    /// Setup of this process, to start another one on the same files.
    pub setup: Setup,
}

/// A key and its secret.
#[derive(Clone, Debug)]
pub struct Key {
    pub id: String,
    pub secret: String,
    pub resource: Value,
}

impl Talos {
    pub async fn start() -> Talos {
        Setup::new().start().await
    }

    /// Waits until `ready` says so; false when another process took one of its ports meanwhile.
    async fn is_up(&mut self, ready: &impl AsyncFn(&Talos) -> bool) -> bool {
        until("talos is ready", async || {
            if let Some(status) = self.process.ended() {
                let log = self.process.log();
                assert!(log.contains("in use"), "talos ended with {status}:\n{log}");
                return Some(false);
            }
            ready(self).await.then_some(true)
        })
        .await
    }

    async fn is_ready(&self) -> bool {
        let serves_checks = matches!(self.setup.planes, None | Some("authz"));
        let ready = self.metrics.try_send(Version::Http1, Call::get("/health/ready")).await;
        let ready = ready.is_ok_and(|reply| reply.status == 200);
        ready && (!serves_checks || is_serving(self.authz).await)
    }

    pub async fn issue(&self, fields: Value) -> Key {
        let reply = self.admin.post(ISSUED, &with_defaults(fields)).await.expect(201).json();
        Key {
            id: reply.text("/issued_api_key/key_id").to_owned(),
            secret: reply.text("/secret").to_owned(),
            resource: reply.at("/issued_api_key").clone(),
        }
    }

    pub async fn import(&self, raw_key: &str, fields: Value) -> Key {
        let mut fields = with_defaults(fields);
        fields["raw_key"] = raw_key.into();
        let resource = self.admin.post(IMPORTED, &fields).await.expect(201).json();
        Key { id: resource.text("/key_id").to_owned(), secret: raw_key.to_owned(), resource }
    }

    pub async fn revoke(&self, key: &Key) {
        let path = format!("{ISSUED}/{}:revoke", key.id);
        self.admin.post(&path, &json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" })).await.expect(204);
    }

    /// Revokes a key by its holder, on the public listener.
    pub async fn self_revoke(&self, credential: &str) -> Reply {
        self.public.post(SELF_REVOKE, &json!({ "credential": credential })).await
    }

    pub async fn verify(&self, credential: &str) -> Value {
        self.admin.post(VERIFY, &json!({ "credential": credential })).await.expect(200).json()
    }

    /// Derives a token.
    pub async fn derive(&self, key: &Key, fields: Value) -> String {
        let mut fields = fields;
        fields["credential"] = key.secret.as_str().into();
        self.admin.post(DERIVE, &fields).await.expect(200).json().text("/token/token").to_owned()
    }

    pub async fn grpc(&self) -> Grpc {
        Grpc::connect(self.authz).await.must("connecting to the authz plane")
    }

    /// Sends one Check over a connection of its own.
    pub async fn check(&self, ask: Check) -> Verdict {
        self.grpc().await.check(&ask.build()).await
    }

    /// Returns the sum of a metric's samples.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = self.metrics.get("/metrics").await.expect(200).text();
        let samples: Vec<f64> = page.lines().filter_map(|line| sample(line, name)).collect();
        assert!(!samples.is_empty(), "no metric {name} in\n{page}");
        samples.iter().sum()
    }

    /// Sends SIGTERM, and waits for the end within the timeout of the tests.
    pub async fn stop(mut self) {
        self.process.signal(Signal::TERM);
        let status = self.process.end().await;
        assert_eq!(status.code(), Some(0), "talos ended with {status}:\n{}", self.process.log());
    }
}

/// Returns whether the authz plane says SERVING; false when it can't be reached.
async fn is_serving(authz: Base) -> bool {
    let Ok(grpc) = Grpc::connect(authz).await else {
        return false;
    };
    grpc.health("").await == Ok(Health::Serving)
}

/// Returns the value of a line of the Prometheus text format if it is a sample of this metric.
fn sample(line: &str, name: &str) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    if !rest.starts_with(['{', ' ']) {
        return None;
    }
    rest.rsplit(' ').next()?.parse().ok()
}

fn with_defaults(mut fields: Value) -> Value {
    for (field, value) in [("name", "a key"), ("actor_id", "alice")] {
        if fields.get(field).is_none() {
            fields[field] = value.into();
        }
    }
    fields
}

/// Returns an Ed25519 key set, made once by the real command.
fn signing_keys() -> &'static str {
    static KEYS: OnceLock<String> = OnceLock::new();
    KEYS.get_or_init(|| {
        let dir = tempfile::tempdir().must("a directory for a key");
        let file = dir.path().join("keys.json");
        generate("eddsa", &file)
    })
}

/// Runs `talos jwk generate` and returns the key set.
pub fn generate(kind: &str, file: &std::path::Path) -> String {
    generate_as("it-1", kind, file)
}

/// Generates as [`generate`] does, with a name for the key.
pub fn generate_as(kid: &str, kind: &str, file: &std::path::Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_talos"));
    command.args(["jwk", "generate", kind, "--kid", kid, "--jwks", "-o"]).arg(file);
    let output = command.output().must("running talos jwk generate");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "talos jwk generate {kind} failed: {errors}");
    std::fs::read_to_string(file).must("the generated key set")
}
