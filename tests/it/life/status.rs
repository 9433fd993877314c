//! The status that a process reports, with and without trouble.

use serde_json::{Value, json};

use crate::cli::Ran;
use crate::rig::check::Check;
use crate::rig::process::free_port;
use crate::rig::support::{Json, Must, assert_no_null, until};
use crate::rig::talos::{Setup, Talos};

async fn status(talos: &Talos) -> Value {
    let status = talos.metrics.get("/status").await.expect(200).json();
    assert_no_null(&status);
    status
}

#[track_caller]
fn number(status: &Value, pointer: &str) -> f64 {
    status.at(pointer).as_f64().must(pointer)
}

/// `talos status`, asking this process.
async fn ask(talos: &Talos, arguments: &[&str]) -> Ran {
    let endpoint = talos.metrics.url("");
    let arguments: Vec<&str> = ["status", "-e", &endpoint].iter().chain(arguments).copied().collect();
    // $TALOS_ENDPOINT is the admin plane, and somebody else's business.
    let setup = Setup::bare().set("TALOS_ENDPOINT", "http://127.0.0.1:1");
    Ran::from(setup.run(&arguments).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    talos.import("legacy-0123456789", json!({})).await;
    for _ in 0..4 {
        talos.check(Check::bearer(&key.secret)).await.allowed();
    }
    let status = until("the change was polled", async || {
        let status = status(&talos).await;
        (number(&status, "/epoch") == 2.0 && status.pointer("/log/newest") == Some(&json!(2)))
            .then_some(status)
    })
    .await;
    assert_eq!(status["mode"], "fresh");
    assert_eq!(status["problems"], json!([]));
    assert_eq!(number(&status, "/bound_seconds"), 5.0);
    assert_eq!(number(&status, "/exposure/key_seconds"), 5.0);
    assert_eq!(number(&status, "/exposure/upstream_token_seconds"), 305.0);
    assert_eq!(number(&status, "/exposure/derived_token_seconds"), 86_405.0);
    assert!((0.0..5.0).contains(&number(&status, "/lease/age_seconds")), "{status:#}");
    assert_eq!(number(&status, "/lease/grace_seconds"), 300.0);
    assert_eq!(number(&status, "/log/lag"), 0.0);
    assert_eq!(status.at("/database/answers"), true);
    assert!(["primary", "file"].contains(&status.text("/poll/role")), "{status:#}");
    assert!(number(&status, "/poll/server_age_seconds") > 0.0, "{status:#}");
    assert_eq!(number(&status, "/poll/failures"), 0.0, "{status:#}");
    assert!(number(&status, "/database/connections") >= 1.0, "{status:#}");
    assert!(number(&status, "/database/max_connections") >= 25.0, "{status:#}");
    assert_eq!((number(&status, "/cache/hits"), number(&status, "/cache/misses")), (3.0, 1.0));
    assert_eq!(number(&status, "/cache/hit_ratio"), 0.75);
    assert_eq!(status["breaker"], "none");
    assert_eq!(status["deny_list"], json!({ "keys": 0, "current": true }));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(number(&status, "/uptime_seconds") > 0.0, "{status:#}");
    assert_eq!(status["settings"], json!({ "generation": 1, "current": true }));
    assert_eq!(status["planes"], json!(["admin", "public", "authz", "metrics"]));
    for elsewhere in [talos.admin, talos.public] {
        elsewhere.get("/status").await.expect(404);
    }

    for (metric, value) in [
        ("talos_mode", 1.0),
        ("talos_epoch", 2.0),
        ("talos_log_lag", 0.0),
        ("talos_deny_list_entries", 0.0),
        ("talos_consistency_bound_seconds", 5.0),
    ] {
        assert_eq!(talos.metric(metric).await, value, "{metric}");
    }
    for metric in ["talos_database_connections", "talos_database_connections_max", "talos_uptime_seconds"] {
        assert!(talos.metric(metric).await > 0.0, "{metric}");
    }
    assert!(talos.metric("talos_database_connections_idle").await >= 0.0);

    let table = ask(&talos, &[]).await.expect(0);
    assert!(table.stdout.starts_with("MODE  ") && !table.stdout.contains("PROBLEM"), "{table:#?}");
    assert_eq!(table.field("MODE"), "fresh");
    assert!(table.field("EPOCH").starts_with("2, 0 behind"), "{table:#?}");
    assert_eq!(ask(&talos, &["--format", "json"]).await.json()["planes"], status["planes"]);
    assert_eq!(ask(&talos, &["-q"]).await.captured(), "fresh");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_polls_seldom_says_how_far_it_is_behind() {
    let setup = Setup::new();
    let admin = setup.clone().planes("admin").start().await;
    let authz = setup.planes("authz").set("TALOS_CONSISTENCY_POLL", "4s").start().await;
    assert_eq!(status(&authz).await["planes"], json!(["authz", "metrics"]));
    let mut imported = 0;
    until("it is behind", async || {
        imported += 1;
        admin.import(&format!("legacy-{imported}"), json!({})).await;
        let status = status(&authz).await;
        let lag = status.pointer("/log/lag").and_then(Value::as_u64).unwrap_or(0);
        let behind = number(&status, "/epoch") + lag as f64;
        assert!(behind <= f64::from(imported), "{status:#}");
        (lag > 0).then_some(())
    })
    .await;
    until("it caught up", async || {
        let status = status(&authz).await;
        (number(&status, "/epoch") == f64::from(imported) && status.at("/log/lag") == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_news_come_first() {
    let setup = Setup::new().set("TALOS_CONSISTENCY_LEASE", "2s").set("TALOS_CONSISTENCY_GRACE", "4s");
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    talos.check(Check::bearer(&key.secret)).await.allowed();
    setup.break_database();
    let stale = until("the lease runs out", async || {
        let status = status(&talos).await;
        (status["mode"] == "static").then_some(status)
    })
    .await;
    assert_eq!(number(&stale, "/bound_seconds"), 6.0);
    assert!(stale.texts("/problems")[0].contains("known keys stay valid"), "{stale:#}");

    let closed = until("the grace runs out", async || {
        let status = status(&talos).await;
        (status["mode"] == "closed").then_some(status)
    })
    .await;
    assert_eq!(number(&closed, "/bound_seconds"), 0.0);
    assert_eq!(talos.metric("talos_mode").await, 1.0, "one mode is in force");
    let page = talos.metrics.get("/metrics").await.expect(200).text();
    assert!(page.contains("talos_mode{mode=\"closed\"} 1"), "{page}");
    until("the end of the log is not known any more", async || {
        status(&talos).await.pointer("/log/lag").is_none().then_some(())
    })
    .await;
    assert!(talos.metric("talos_log_lag").await.is_nan());

    let ran = ask(&talos, &[]).await.expect(1);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(ran.field("MODE"), "CLOSED");
    assert!(lines[0].starts_with("MODE") && lines[1].starts_with("PROBLEM"), "{ran:#?}");
    assert!(ran.field("PROBLEM").contains("every key gets 503"), "{ran:#?}");
    assert_eq!(ask(&talos, &["--format", "json"]).await.expect(1).stdout.lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_listener_is_69_and_another_one_is_named() {
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let ran = Ran::from(Setup::bare().run(&["status", "-e", &nowhere]).await).expect(69);
    assert!(ran.stdout.is_empty() && ran.stderr.contains(&nowhere), "{ran:#?}");
    let talos = Talos::start().await;
    let ran = Ran::from(Setup::bare().run(&["status", "-e", &talos.admin.url("")]).await).expect(1);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("NOT_FOUND"), "{ran:#?}");
}
