//! PgBouncer in transaction mode with default settings: migrations and service work through it, and
//! leave nothing in its sessions.

use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::rig::check::Check;
use crate::rig::database::{execute, new_name};
use crate::rig::needs::variable;
use crate::rig::pairs::{as_user, directory};
use crate::rig::process::{Process, free_port};
use crate::rig::support::{Must, until};
use crate::rig::talos::Setup;

struct Bouncer {
    port: u16,
    process: Process,
    _dir: TempDir,
}

impl Bouncer {
    /// Starts PgBouncer with its default settings, except the mode. Each database has one session,
    /// so that what is left in it meets the next client.
    async fn start() -> Bouncer {
        let (dir, _) = directory();
        let port = free_port();
        let postgres = variable("TALOS_TEST_POSTGRES");
        let behind = postgres.rsplit_once(':').must("a port").1;
        let users = dir.path().join("users.txt");
        std::fs::write(&users, "\"postgres\" \"\"\n").must("writing the users");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={behind}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\npool_mode = transaction\nauth_type = trust\n\
             auth_file = {}\ndefault_pool_size = 1\n",
            users.display()
        );
        let file = dir.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).must("writing the settings");
        let mut command = as_user("postgres", "/usr/sbin/pgbouncer", &dir);
        command.arg(&file);
        let process = Process::spawn("pgbouncer", command, &dir.path().join("pgbouncer.log"));
        until("PgBouncer listens", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok())
            .await;
        Bouncer { port, process, _dir: dir }
    }

    fn query(&self, database: &str, query: &str) -> String {
        query_at(&format!("postgres://postgres@127.0.0.1:{}/{database}", self.port), query)
    }
}

fn psql(dsn: &str) -> Command {
    let mut command = Command::new(format!("{}/psql", variable("TALOS_TEST_POSTGRES_BIN")));
    command.args(["-X", "-A", "-t", "-d", dsn]);
    command
}

/// The result of a query, by a client that sends nothing but it.
fn query_at(dsn: &str, query: &str) -> String {
    let output = psql(dsn).args(["-c", query]).output().must("running psql");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Settings that PgBouncer itself keeps apart for its clients.
const LEFT_BEHIND: &str = "SELECT (SELECT count(*) FROM pg_prepared_statements) \
    || ' statements, ' || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = \
    (SELECT oid FROM pg_database WHERE datname = current_database())) || ' locks, ' \
    || (SELECT count(*) FROM pg_settings WHERE source = 'session' AND lower(name) NOT IN \
    ('client_encoding', 'datestyle', 'timezone', 'application_name', 'standard_conforming_strings')) || ' settings'";
const NOTHING: &str = "0 statements, 0 locks, 0 settings";

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_default_pgbouncer_stay_clean() {
    needs!(Postgres, PostgresPrograms);
    if !std::path::Path::new("/usr/sbin/pgbouncer").exists() {
        return;
    }
    let bouncer = Bouncer::start().await;
    let (postgres, name) = (variable("TALOS_TEST_POSTGRES"), new_name());
    execute(&format!("{postgres}/postgres"), format!("CREATE DATABASE {name}"));
    let dsn = format!("postgres://postgres@127.0.0.1:{}/{name}", bouncer.port);
    let setup = Setup::new().set("TALOS_DB_DSN", &dsn);
    for step in ["up", "up", "down", "up", "status"] {
        let output = setup.run(&["migrate", step]).await;
        assert!(output.status.success(), "{step}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(bouncer.query(&name, LEFT_BEHIND), NOTHING, "after migrate {step}");
    }
    let (first, second) = (setup.start().await, setup.start().await);
    for talos in [&first, &second] {
        for _ in 0..10 {
            let key = talos.issue(json!({})).await;
            for other in [&first, &second] {
                other.check(Check::bearer(&key.secret)).await.allowed();
            }
            talos.revoke(&key).await;
            talos.check(Check::bearer(&key.secret)).await.denied(401);
        }
        assert_eq!(bouncer.query(&name, LEFT_BEHIND), NOTHING, "{}", talos.process.log());
    }
    assert!(first.process.log().contains("a pooler such as PgBouncer"), "{}", first.process.log());
    first.stop().await;
    second.stop().await;
    bouncer.process.signal(Signal::INT);
}

/// A lock that an older release left behind PgBouncer blocks nobody for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_never_released_is_named() {
    needs!(Postgres, PostgresPrograms);
    let (postgres, name) = (variable("TALOS_TEST_POSTGRES"), new_name());
    execute(&format!("{postgres}/postgres"), format!("CREATE DATABASE {name}"));
    let dsn = format!("{postgres}/{name}");
    // The number that sqlx's migrator takes: a constant times the CRC of the database's name.
    let crc = name.bytes().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    });
    let lock = 0x3d32_ad9e * i64::from(!crc);
    let mut command = psql(&dsn);
    command.args(["-c", &format!("SELECT pg_advisory_lock({lock})"), "-c", "SELECT pg_sleep(60)"]);
    let dir = tempfile::tempdir().must("a directory");
    let _holder = Process::spawn("psql", command, &dir.path().join("psql.log"));
    let setup = Setup::new().set("TALOS_DB_DSN", &dsn);
    until("the lock is taken", async || {
        let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = \
                    (SELECT oid FROM pg_database WHERE datname = current_database())";
        (query_at(&dsn, held) == "1").then_some(())
    })
    .await;
    let began = std::time::Instant::now();
    let mut command = setup.program(env!("CARGO_BIN_EXE_talos"));
    let output = command.args(["migrate", "up"]).output().must("running talos migrate up");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("PgBouncer"), "{message}");
    assert!(began.elapsed().as_secs() < 45, "{:?}", began.elapsed());
}
