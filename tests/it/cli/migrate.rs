//! `migrate down`, `status` and `force`.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::Ran;
use crate::rig::database::{self, Server};
use crate::rig::support::Must;
use crate::rig::talos::Setup;

const DATABASE: &str = "sqlite://talos.db";

/// Returns a setup on the database under test; None through PgBouncer, as migrations go to the
/// database itself.
fn on_the_database_under_test() -> Option<Setup> {
    (database::server() != Some(Server::PgBouncer)).then(Setup::new)
}

/// Names of all steps of the schema.
const STEPS: [&str; 12] = [
    "keys",
    "audit heads",
    "additive counts and retries",
    "additive key states",
    "additive suspensions and actors",
    "additive usage",
    "additive limits",
    "additive credits",
    "additive finding",
    "additive events",
    "additive imported hashes",
    "additive actor limits",
];
/// Version of the schema with all of them.
const LAST: i64 = STEPS.len() as i64;

async fn migrate(setup: &Setup, line: &str) -> Ran {
    let words: Vec<&str> = ["migrate"].into_iter().chain(line.split_whitespace()).collect();
    Ran::from(setup.run(&words).await)
}

async fn status(setup: &Setup) -> Value {
    migrate(setup, "status --format json").await.json()
}

fn at(version: i64, state: &str, dirty: bool) -> Value {
    let steps = (1..).zip(STEPS).map(|(step, name)| json!({ "version": step, "name": name, "state": state }));
    json!({ "version": version, "dirty": dirty, "migrations": steps.collect::<Vec<_>>() })
}

#[tokio::test(flavor = "multi_thread")]
async fn down_and_up_again() {
    let setup = Setup::bare().set("DB_DSN", DATABASE);
    migrate(&setup, "up").await.ok();
    assert_eq!(status(&setup).await, at(LAST, "applied", false));
    let table = migrate(&setup, "status").await.ok();
    let (summary, table) = table.split_once("\n\n").must("a summary");
    assert_eq!(summary, format!("Current Version: {LAST}\nDatabase Status: clean"));
    let words: Vec<&str> = table.split_whitespace().collect();
    let steps: Vec<_> = (1..).zip(STEPS).map(|(step, name)| format!("{step} {name} applied")).collect();
    assert_eq!(words.join(" "), format!("VERSION NAME STATE {}", steps.join(" ")));

    // There is no key in it: nothing is lost.
    let down = migrate(&setup, &format!("down --steps {LAST}")).await.expect(0);
    assert!(down.stderr.contains("DROP TABLE api_keys"), "{}", down.stderr);
    assert_eq!(down.stdout, "the schema is at version 0\n");
    assert_eq!(status(&setup).await, at(0, "pending", false));
    migrate(&setup, &format!("down --steps {}", LAST + 1)).await.ok();
    migrate(&setup, "up").await.ok();
    assert_eq!(status(&setup).await, at(LAST, "applied", false));
}

#[tokio::test(flavor = "multi_thread")]
async fn down_tells_what_it_loses_and_nothing_else() {
    let Some(setup) = on_the_database_under_test() else { return };
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    talos.stop().await;

    // The tables of later steps are empty, so they lose nothing.
    let refused = migrate(&setup, &format!("down --steps {}", LAST - 3)).await.expect(64);
    assert!(
        refused.stderr.contains("this would lose key_prefix of 1 key, secret_id of 1 key: "),
        "{refused:#?}"
    );
    let all = migrate(&setup, &format!("down --steps {LAST}")).await.expect(64);
    assert!(all.stderr.contains("this would lose 1 key: use --yes"), "{all:#?}");
    let talos = setup.start().await;
    assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
    talos.stop().await;

    migrate(&setup, &format!("down --steps {} --yes", LAST - 2)).await.ok();
    // No audit log has an end here: nothing is lost.
    migrate(&setup, "down").await.ok();
    let output = setup.refused().await;
    assert!(output.contains("migrate up"), "{output}");
    migrate(&setup, "up").await.ok();
    let talos = setup.start().await;
    assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
    talos.stop().await;

    migrate(&setup, &format!("down --steps {LAST} --yes")).await.ok();
    migrate(&setup, "up").await.ok();
    let talos = setup.start().await;
    assert_eq!(talos.verify(&key.secret).await["is_valid"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn down_is_refused_while_a_server_runs() {
    let Some(setup) = on_the_database_under_test() else { return };
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    let refused = migrate(&setup, &format!("down --steps {LAST} --yes")).await.expect(64);
    for output in ["in use by", "--force"] {
        assert!(refused.stderr.contains(output), "{refused:#?}");
    }
    assert_eq!(status(&setup).await, at(LAST, "applied", false));
    assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
    migrate(&setup, &format!("down --steps {LAST} --yes --force")).await.ok();
    assert_eq!(status(&setup).await, at(0, "pending", false));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_database_has_all_of_it() {
    let Some(setup) = on_the_database_under_test() else { return };
    for (line, version, state) in [
        ("up".to_owned(), LAST, "applied"),
        ("force 0".to_owned(), 0, "pending"),
        (format!("force {LAST}"), LAST, "applied"),
        (format!("down --steps {LAST}"), 0, "pending"),
        ("up".to_owned(), LAST, "applied"),
    ] {
        migrate(&setup, &line).await.ok();
        assert_eq!(status(&setup).await, at(version, state, false), "{line}");
    }
    setup.start().await.issue(json!({})).await;
}

/// Commands that start at the same time, as the pods of a deployment do, wait for each other: all
/// find the schema that one of them has made.
#[tokio::test(flavor = "multi_thread")]
async fn several_commands_at_once_all_succeed() {
    let Some(setup) = on_the_database_under_test() else { return };
    migrate(&setup, "up").await.ok();
    for steps in [LAST, LAST - 2, 4] {
        migrate(&setup, &format!("down --steps {steps}")).await.ok();
        for ran in join_all((0..4).map(|_| migrate(&setup, "up"))).await {
            ran.ok();
        }
        assert_eq!(status(&setup).await, at(LAST, "applied", false), "{steps} steps");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn force_says_where_a_dirty_schema_is() {
    needs!(Python);
    let setup = Setup::bare().set("DSN", DATABASE);
    migrate(&setup, "up").await.ok();
    let database = setup.path("talos.db");
    let script = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); \
                  d.execute('UPDATE _sqlx_migrations SET success = 0, checksum = x\\'00\\''); d.commit()";
    crate::rig::python::run(&["-c", script, &database.to_string_lossy()]).await;

    assert_eq!(status(&setup).await, at(0, "dirty", true));
    for line in ["up", "down --yes"] {
        let ran = migrate(&setup, line).await.expect(1);
        assert!(ran.stderr.contains('1'), "{}", ran.stderr);
    }
    migrate(&setup, &format!("force {LAST}")).await.ok();
    assert_eq!(status(&setup).await, at(LAST, "applied", false));
    migrate(&setup, "up").await.ok();
    migrate(&setup, "force 0").await.ok();
    assert_eq!(status(&setup).await, at(0, "pending", false));
    migrate(&setup, &format!("force {LAST}")).await.ok();
    migrate(&setup, &format!("down --steps {LAST}")).await.ok();

    let ran = migrate(&setup, &format!("force {}", LAST + 1)).await.expect(64);
    assert!(ran.stderr.contains(&format!("0 to {LAST}")), "{}", ran.stderr);
    migrate(&setup, "force -1").await.expect(64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_step_is_shown_and_left_alone() {
    needs!(Python);
    let setup = Setup::bare().set("DSN", DATABASE);
    migrate(&setup, "up").await.ok();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/rig/newer_schema.py");
    crate::rig::python::run(&[script, &setup.path("talos.db").to_string_lossy()]).await;
    let status = status(&setup).await;
    assert_eq!(
        (&status["version"], &status["migrations"][STEPS.len()]["state"]),
        (&json!(1_000_000 + LAST), &json!("unknown to this program"))
    );
    migrate(&setup, "down --yes").await.expect(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_makes_no_database() {
    let setup = Setup::bare().set("DB_DSN", DATABASE);
    for line in ["status", "down", "force 1"] {
        migrate(&setup, line).await.expect(1);
        assert!(!setup.path("talos.db").exists(), "{line}");
    }
    let ran = migrate(&setup, "status --database nonesuch:s3cret").await.expect(64);
    assert!(ran.stderr.contains("sqlite://") && !ran.stderr.contains("s3cret"), "{}", ran.stderr);
}
