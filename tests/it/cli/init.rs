//! `talos init`: what it writes passes the checks, serves, and overwrites nothing.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::json;

use crate::rig::needs::variable;
use crate::rig::support::Must;
use crate::rig::talos::Setup;

fn message(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_init_pass_the_check_and_are_private() {
    let setup = Setup::bare();
    for (edge, database, files) in [
        ("--envoy", "sqlite", &["envoy.yaml"][..]),
        ("--istio", "postgres://t:p%40@db.example:5432/t", &["istio-gateway.yaml", "istio-talos.yaml"]),
        ("--envoy-gateway", "mysql://t:p@db.example/t", &["envoy-gateway-gateway.yaml"]),
    ] {
        let dir = format!("it's {edge}");
        let written = setup.run(&["init", &dir, edge, "--database", database]).await;
        assert!(written.status.success(), "{}", message(&written));
        assert!(!message(&written).contains("p%40"), "{}", message(&written));
        for (file, mode) in [("talos.yaml", 0o600), ("signing-keys.json", 0o600)]
            .into_iter()
            .chain(files.iter().map(|file| (*file, 0o644)))
        {
            let found = std::fs::metadata(setup.path(&dir).join(file)).must(file).permissions().mode();
            assert_eq!(found & 0o777 & !0o022, mode & !0o022, "{file}");
        }
        let file = format!("{dir}/talos.yaml");
        let checked = setup.run(&["config", "check", &file]).await;
        assert_eq!(message(&checked), "ok\n", "{edge}");
        let before = std::fs::read(setup.path(&file)).must("talos.yaml");
        let again = setup.run(&["init", &dir, edge]).await;
        assert_eq!(again.status.code(), Some(64), "{}", message(&again));
        assert!(message(&again).contains("is not empty"), "{}", message(&again));
        assert_eq!(std::fs::read(setup.path(&file)).must("talos.yaml"), before);
    }
    for (arguments, expected) in [
        (&["init", "new"][..], "--envoy"),
        (&["init", "new", "--envoy", "--istio"], "cannot be used with"),
        (&["init", "new", "--envoy", "--database", "oracle://x"], "--database: must begin with"),
        (&["init", "none/new", "--envoy"], "can't be created"),
    ] {
        let refused = setup.run(arguments).await;
        assert_eq!(refused.status.code(), Some(64), "{arguments:?}: {}", message(&refused));
        assert!(message(&refused).contains(expected), "{arguments:?}: {}", message(&refused));
        assert!(!setup.path("new").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_init_serve_and_envoy_accepts_its_own() {
    needs!(Envoy);
    let setup = Setup::bare();
    let written = setup.run(&["init", "new", "--envoy"]).await;
    assert!(written.status.success(), "{}", message(&written));
    let talos = Setup::from_file(setup.path("new/talos.yaml")).unset("TALOS_DB_DSN").start().await;
    let key = talos.issue(json!({})).await;
    assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
    assert!(setup.path("new/talos.db").exists() && setup.path("new/audit.jsonl").exists());

    let mut envoy = Command::new(variable("TALOS_TEST_ENVOY"));
    envoy.args(["--mode", "validate", "-c"]).arg(setup.path("new/envoy.yaml"));
    let valid = envoy.output().must("running Envoy");
    assert!(valid.status.success(), "{}", message(&valid));
    let doctor = setup.run(&["doctor", "new/envoy.yaml", "--config", "new/talos.yaml"]).await;
    assert!(message(&doctor).starts_with("0 errors, 0 warnings, 0 notes"), "{}", message(&doctor));
}
