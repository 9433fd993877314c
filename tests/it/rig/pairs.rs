//! Pairs of real database servers: a primary, a replica that follows it, and a proxy before both.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Row};
use tempfile::TempDir;

use crate::rig::database::{execute, migrate};
use crate::rig::needs::variable;
use crate::rig::process::{Process, free_port};
use crate::rig::proxy::Proxy;
use crate::rig::support::{Must, until};

/// The database of the keys.
const NAME: &str = "talos";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Postgres,
    MariaDb,
}

/// The state of the old primary after a switchover; its connections go on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OldPrimary {
    /// Takes no more writes.
    ReadOnly,
    /// Was started again as a standby; PostgreSQL alone, where that closes connections.
    InRecovery,
    /// Knows of no switchover, and takes writes.
    CutOff,
    /// Follows the new primary; MariaDB alone.
    Following,
}

/// A server of its own, with its data in a directory that goes with it.
pub struct Server {
    kind: Kind,
    pub port: u16,
    process: Process,
    data: PathBuf,
    dir: TempDir,
    options: Vec<String>,
}

impl Server {
    /// Starts an empty server.
    pub async fn start(kind: Kind, options: &[&str]) -> Server {
        let (dir, data) = directory();
        match kind {
            Kind::Postgres => {
                let mut initdb = as_user("postgres", &postgres("initdb"), &dir);
                initdb.args(["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8"]);
                run(initdb.arg(format!("--pgdata={}", data.display())));
            }
            Kind::MariaDb => {
                let mut install = as_user("mysql", &variable("TALOS_TEST_MARIADB_INSTALL"), &dir);
                install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
                install.arg(format!("--tmpdir={}", dir.path().display()));
                run(install.arg(format!("--datadir={}", data.display())));
            }
        }
        Server::run(kind, dir, data, options.iter().map(|option| (*option).to_owned()).collect()).await
    }

    async fn run(kind: Kind, dir: TempDir, data: PathBuf, options: Vec<String>) -> Server {
        let port = free_port();
        let process = spawn(kind, port, &dir, &data, &options);
        let server = Server { kind, port, process, data, dir, options };
        server.is_up().await;
        server
    }

    async fn is_up(&self) {
        until("the server answers", async || self.try_text("SELECT '1'").await).await;
    }

    /// Starts the server again on the same data.
    async fn restart(&mut self) {
        self.process.signal(if self.kind == Kind::Postgres { Signal::INT } else { Signal::TERM });
        self.process.end().await;
        self.process = spawn(self.kind, self.port, &self.dir, &self.data, &self.options);
        self.is_up().await;
    }

    /// Returns the URL of one of its databases, without the proxy.
    pub fn url(&self, port: u16, database: &str) -> String {
        match self.kind {
            Kind::Postgres => format!("postgres://postgres@127.0.0.1:{port}/{database}"),
            Kind::MariaDb => format!("mysql://root@127.0.0.1:{port}/{database}"),
        }
    }

    fn system(&self) -> String {
        self.url(self.port, if self.kind == Kind::Postgres { "postgres" } else { "mysql" })
    }

    /// Creates the database of the keys, and returns its DSN.
    pub fn create(&self) -> String {
        self.execute(&format!("CREATE DATABASE {NAME}"));
        let dsn = self.url(self.port, NAME);
        migrate(&dsn);
        dsn
    }

    pub fn execute(&self, statement: &str) {
        execute(&self.system(), statement.to_owned());
    }

    async fn try_text(&self, query: &str) -> Option<String> {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(&self.system()).await.ok()?;
        let row = sqlx::query(AssertSqlSafe(query)).fetch_one(&mut connection).await.ok()?;
        row.try_get::<Option<String>, _>(0).ok().flatten()
    }

    /// Returns the text that a query gives, on a connection of its own.
    pub async fn text(&self, query: &str) -> String {
        self.try_text(query).await.must(query)
    }
}

/// A primary and its replica.
pub struct ServerPair {
    pub proxy: Proxy,
    old: Server,
    new: Server,
}

impl ServerPair {
    pub async fn start(kind: Kind) -> ServerPair {
        let (old, new) = match kind {
            Kind::Postgres => {
                let old = Server::start(kind, &[]).await;
                let (dir, data) = directory();
                let mut copy = as_user("postgres", &postgres("pg_basebackup"), &dir);
                copy.args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-c", "fast", "--no-sync"]);
                run(copy.args(["-p", &old.port.to_string()]).arg("-D").arg(&data));
                let new = Server::run(kind, dir, data, vec![]).await;
                (old, new)
            }
            Kind::MariaDb => {
                let log = ["--log-bin=log", "--log-slave-updates", "--gtid-strict-mode=0"];
                let old = Server::start(kind, &[&log[..], &["--server-id=1"]].concat()).await;
                let new = Server::start(kind, &[&log[..], &["--server-id=2"]].concat()).await;
                new.follow(&old, "slave_pos");
                new.execute("SET GLOBAL read_only = 1");
                (old, new)
            }
        };
        old.create();
        let proxy = Proxy::start(old.port).await;
        ServerPair { proxy, old, new }
    }

    /// Returns the DSN of the keys' database, by an address that leads to one of the servers.
    pub fn dsn(&self) -> String {
        self.old.url(self.proxy.port, NAME)
    }

    /// Lets the replica take over, with all that the old primary acknowledged, and leads new
    /// connections to it.
    pub async fn switch_over(&mut self, old: OldPrimary) {
        match (self.old.kind, old) {
            (Kind::Postgres, OldPrimary::ReadOnly) => {
                self.old.execute("ALTER SYSTEM SET default_transaction_read_only = on");
                self.old.execute("SELECT pg_reload_conf()");
                // Transactions that have begun may still write; MariaDB waits for them by itself.
                let underway = "SELECT count(*)::text FROM pg_stat_activity WHERE backend_xid IS NOT NULL";
                until("nobody writes any more", async || {
                    (self.old.text(underway).await == "0").then_some(())
                })
                .await;
            }
            (Kind::MariaDb, OldPrimary::ReadOnly | OldPrimary::Following) => {
                self.old.execute("SET GLOBAL read_only = 1")
            }
            _ => {}
        }
        self.has_caught_up().await;
        match self.new.kind {
            Kind::Postgres => {
                self.new.execute("SELECT pg_promote()");
            }
            Kind::MariaDb => {
                self.new.execute("STOP SLAVE");
                self.new.execute("RESET SLAVE ALL");
                self.new.execute("SET GLOBAL read_only = 0");
            }
        }
        self.proxy.redirect_to(self.new.port);
        match old {
            OldPrimary::InRecovery => {
                std::fs::write(self.old.data.join("standby.signal"), "").must("the file for a standby");
                self.old.restart().await;
            }
            OldPrimary::Following => {
                self.old.follow(&self.new, "current_pos");
                self.old.execute("SET GLOBAL read_only = 0");
            }
            OldPrimary::ReadOnly | OldPrimary::CutOff => {}
        }
    }

    async fn has_caught_up(&self) {
        match self.old.kind {
            Kind::Postgres => {
                let end = self.old.text("SELECT pg_current_wal_lsn()::text").await;
                let replayed = format!("SELECT (pg_last_wal_replay_lsn() >= '{end}')::text");
                until("the standby has caught up", async || {
                    (self.new.text(&replayed).await == "true").then_some(())
                })
                .await;
            }
            Kind::MariaDb => {
                let end = self.old.text("SELECT @@gtid_binlog_pos").await;
                until("the replica has caught up", async || {
                    (self.new.text("SELECT @@gtid_slave_pos").await == end).then_some(())
                })
                .await;
            }
        }
    }

    /// Returns the port of the primary after a switchover.
    pub fn new_port(&self) -> u16 {
        self.new.port
    }

    /// Returns whether the new primary has the key of that id.
    pub async fn has_key(&self, id: &str) -> bool {
        let query = match self.new.kind {
            Kind::Postgres => format!("SELECT count(*)::text FROM api_keys WHERE key_id = '{id}'"),
            Kind::MariaDb => format!("SELECT CONCAT(count(*), '') FROM api_keys WHERE key_id = '{id}'"),
        };
        sqlx::any::install_default_drivers();
        let url = self.new.url(self.new.port, NAME);
        let mut connection = AnyConnection::connect(&url).await.must("connecting to the new primary");
        let row = sqlx::query(AssertSqlSafe(query)).fetch_one(&mut connection).await.must("counting keys");
        row.try_get::<String, _>(0).must("a number") == "1"
    }
}

impl Server {
    fn follow(&self, other: &Server, position: &str) {
        self.execute(&format!(
            "CHANGE MASTER TO master_host = '127.0.0.1', master_port = {}, master_user = 'root', \
             master_connect_retry = 1, master_use_gtid = {position}",
            other.port
        ));
        self.execute("START SLAVE");
    }
}

fn spawn(kind: Kind, port: u16, dir: &TempDir, data: &Path, options: &[String]) -> Process {
    let log = dir.path().join("log");
    let command = match kind {
        Kind::Postgres => {
            let mut command = as_user("postgres", &postgres("postgres"), dir);
            command.arg("-D").arg(data);
            let settings = [
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                "fsync=off",
                "shared_buffers=16MB",
                "max_connections=400",
            ];
            for setting in settings {
                command.args(["-c", setting]);
            }
            command.args(["-c", &format!("port={port}")]);
            command
        }
        Kind::MariaDb => {
            let mut command = as_user("mysql", &variable("TALOS_TEST_MARIADBD"), dir);
            command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
            command.args([
                "--max-connections=400",
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-buffer-pool-size=32M",
            ]);
            // Its own, as a server that starts deletes the temporary tables that it finds there.
            command.arg(format!("--tmpdir={}", dir.path().display()));
            command.arg(format!("--port={port}")).arg(format!("--datadir={}", data.display()));
            command.arg(format!("--socket={}", dir.path().join("socket").display()));
            command.arg(format!("--pid-file={}", dir.path().join("pid").display()));
            command
        }
    };
    let mut command = command;
    command.args(options);
    Process::spawn("a database server", command, &log)
}

/// A directory that the servers' users may use, and the place of the data in it.
pub fn directory() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().must("a directory for a server");
    let data = dir.path().join("data");
    (dir, data)
}

/// A program, run as the user whom its server wants, if this is root.
pub fn as_user(user: &str, program: &str, dir: &TempDir) -> Command {
    let mut command = match rustix::process::geteuid().is_root() {
        false => Command::new(program),
        true => {
            let output = Command::new("id").args(["-u", user]).output().must("the number of a user");
            let uid: u32 = String::from_utf8_lossy(&output.stdout).trim().parse().must(user);
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))
                .must("opening a directory");
            chown(dir.path(), Some(uid), None).must("giving a directory away");
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={uid}"), "--clear-groups".to_owned(), program.to_owned()]);
            command
        }
    };
    command.current_dir(dir.path());
    command
}

fn postgres(program: &str) -> String {
    format!("{}/{program}", variable("TALOS_TEST_POSTGRES_BIN"))
}

fn run(command: &mut Command) {
    let output = command.output().must("running a program");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&text));
}

/// Timeout of steps that only wait for replication.
pub const SWITCHOVER: Duration = Duration::from_secs(2);
