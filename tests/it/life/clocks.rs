//! An instance whose clock is wrong: it writes no wrong times, and reports the skew.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection, Row};

use crate::rig::check::Check;
use crate::rig::database;
use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, Must, unix_now, unix_seconds, until};
use crate::rig::talos::{DERIVE, IMPORTED, ISSUED, Key, Setup, Talos};
use crate::rig::wall_clock::WallClock;

const MINUTES: Duration = Duration::from_secs(600);
const DAYS: Duration = Duration::from_secs(2 * 24 * 3_600);
const YEARS: Duration = Duration::from_secs(5 * 365 * 24 * 3_600);

async fn status(talos: &Talos) -> Value {
    talos.metrics.get("/status").await.expect(200).json()
}

/// Waits until the status says that the clock is off, in this direction.
async fn until_off(talos: &Talos, direction: &str) {
    until("the skew is in the status", async || {
        let problems = status(talos).await.at("/problems").to_string();
        problems.contains(&format!("s {direction} the database's")).then_some(())
    })
    .await;
}

/// All that would be dated or judged by the wrong clock is refused.
async fn refuses_what_it_would_falsify(talos: &Talos, key: &Key, direction: &str) {
    let body = json!({ "name": "n", "actor_id": "a", "ttl": "300s" });
    let import = json!({ "name": "n", "actor_id": "a", "raw_key": "never-imported-0123" });
    for (path, body) in [
        (ISSUED, body),
        (IMPORTED, import),
        (&*format!("{ISSUED}/{}:rotate", key.id), json!({})),
        (DERIVE, json!({ "credential": key.secret })),
    ] {
        let message = talos.admin.post(path, &body).await.expect_error(503, "SERVICE_UNAVAILABLE");
        assert!(message.contains("nothing was done") && message.contains(direction), "{path}: {message}");
    }
    let path = format!("{ISSUED}/{}", key.id);
    let prolong = Call::new("PATCH", &path).json(&json!({ "ttl": "300s" }));
    talos.admin.send(Version::Http1, prolong).await.expect_error(503, "SERVICE_UNAVAILABLE");
}

/// What ends a key is done, however long ago the key has ended by the wrong clock.
async fn ends_what_others_take_for_valid(wrong: &Talos, right: &Talos) {
    for verb in ["revoke", "finish"] {
        let old = right.issue(json!({})).await;
        let path = format!("{ISSUED}/{}", old.id);
        right.admin.post(&format!("{path}:rotate"), &json!({ "grace_period": "3600s" })).await.expect(201);
        right.check(Check::bearer(&old.secret)).await.allowed();
        match verb {
            "revoke" => wrong.revoke(&old).await,
            _ => drop(wrong.admin.post(&format!("{path}:finish"), &json!({})).await.expect(200)),
        }
        until("the old key is refused", async || {
            (!right.check(Check::bearer(&old.secret)).await.passes()).then_some(())
        })
        .await;
    }
    let key = right.issue(json!({ "actor_id": "erased-by-a-wrong-clock", "ttl": "3600s" })).await;
    let actor = "/v2alpha1/admin/actors/erased-by-a-wrong-clock";
    let erase = Call::new("DELETE", actor);
    wrong.admin.send(Version::Http1, erase).await.expect_error(409, "FAILED_PRECONDITION");
    right.check(Check::bearer(&key.secret)).await.allowed();
}

/// An actor is suspended by the wrong clock all the same, and its row has the right times.
async fn dates_actors_rightly(wrong: &Talos, right: &Talos, direction: &str) {
    let path = format!("/v2alpha1/admin/actors/suspended-{direction}");
    wrong.admin.post(&format!("{path}:suspend"), &json!({})).await.expect(200);
    let actor = right.admin.get(&path).await.expect(200).json();
    for field in ["/create_time", "/update_time"] {
        assert!((unix_seconds(actor.text(field)) - unix_now()).abs() < 30.0, "{field}: {actor:#}");
    }
}

/// The newest time in the mutation log, in seconds.
async fn newest_time(setup: &Setup) -> f64 {
    sqlx::any::install_default_drivers();
    let mut database = AnyConnection::connect(setup.dsn()).await.must("connecting to the database");
    let newest = sqlx::query("SELECT MAX(at) AS newest FROM mutation_log").fetch_one(&mut database).await;
    newest.must("the newest time").get::<i64, _>("newest") as f64 / 1e6
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_falsifies_nothing_and_is_reported() {
    if database::server().is_none() {
        // SQLite has no clock but the process's own.
        return;
    }
    let setup =
        Setup::new().set("TALOS_LAST_USED_FLUSH_INTERVAL", "50ms").set("TALOS_USAGE_FLUSH_INTERVAL", "1s");
    let clock = WallClock::new();
    let wrong = clock
        .variables()
        .iter()
        .fold(setup.clone(), |setup, (name, value)| setup.set(name, &value.display().to_string()));
    let (one, two, wrong) = (setup.start().await, setup.start().await, wrong.start().await);
    let key = one.issue(json!({})).await;

    for (set, direction, skew) in [
        ((&|| clock.behind(MINUTES)) as &dyn Fn(), "behind", -600.0),
        (&|| clock.ahead(YEARS), "ahead of", YEARS.as_secs_f64()),
    ] {
        set();
        until_off(&wrong, direction).await;
        let measured = wrong.metric("talos_database_clock_skew_seconds").await;
        assert!((measured - skew).abs() < 5.0, "{measured}");
        let word = direction.split(' ').next().must("a word");
        refuses_what_it_would_falsify(&wrong, &key, word).await;
        dates_actors_rightly(&wrong, &two, word).await;
        ends_what_others_take_for_valid(&wrong, &two).await;
        // Revoking goes on, and has the right time everywhere.
        let other = two.issue(json!({})).await;
        wrong.revoke(&other).await;
        let revoked = two.admin.get(&format!("{ISSUED}/{}", other.id)).await.expect(200).json();
        let updated = unix_seconds(revoked.text("/update_time"));
        assert!((updated - unix_now()).abs() < 30.0, "{revoked:#}");
        assert!((newest_time(&setup).await - unix_now()).abs() < 30.0);
    }
    // A last use has the right time, too. A clock that is behind knows no key that was issued
    // later, one that is years ahead takes all for too old.
    clock.ahead(DAYS);
    until("the skew is measured", async || {
        let skew = wrong.metric("talos_database_clock_skew_seconds").await;
        ((skew - DAYS.as_secs_f64()).abs() < 5.0).then_some(())
    })
    .await;
    let used = two.issue(json!({})).await;
    until("it is allowed", async || wrong.check(Check::bearer(&used.secret)).await.passes().then_some(()))
        .await;
    let used_id = used.id.clone();
    let used = until("the use is noted", async || {
        let resource = two.admin.get(&format!("{ISSUED}/{}", used.id)).await.expect(200).json();
        resource.get("last_used_time").map(|time| unix_seconds(time.as_str().must("a time")))
    })
    .await;
    assert!((used - unix_now()).abs() < 30.0, "{used}");
    // As has what is counted, also that from before the skew was measured.
    until("its usage is written", async || {
        let written = format!("SELECT count(*) FROM usage_keys WHERE key_id = '{used_id}'");
        (setup.number(&written).await > 0).then_some(())
    })
    .await;
    for newest in ["SELECT MAX(hour_at) FROM usage_hours", "SELECT MAX(last_used_at) FROM usage_keys"] {
        let newest = setup.number(newest).await as f64 / 1e6;
        assert!(newest <= unix_now() + 30.0 && newest > unix_now() - 2.0 * 3_600.0, "{newest}");
    }
    assert_eq!(wrong.process.log().matches("this server's clock differs").count(), 1, "once per change");
    for right in [&one, &two] {
        assert_eq!(status(right).await.at("/database/clock_is_off"), &json!(false));
    }
    clock.ahead(Duration::ZERO);
    until("it is right again", async || {
        let body = json!({ "name": "n", "actor_id": "a" });
        (wrong.admin.post(ISSUED, &body).await.status == 201).then_some(())
    })
    .await;
    assert!(wrong.process.log().contains("agrees with the database's again"), "{}", wrong.process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn times_written_by_a_wrong_clock_do_no_harm() {
    let setup = Setup::new().set("TALOS_LAST_USED_FLUSH_INTERVAL", "50ms");
    let first = setup.start().await;
    let key = first.issue(json!({})).await;
    for number in 0..5 {
        first.import(&format!("old-{number}"), json!({})).await;
    }
    first.stop().await;
    let future = ((unix_now() + YEARS.as_secs_f64()) * 1e6) as i64;
    setup.sql("UPDATE mutation_log SET at = 1000");
    setup.sql(&format!("UPDATE mutation_log SET at = {future} WHERE n IN (2, 3)"));
    setup.sql(&format!("UPDATE api_keys SET last_used_at = {future}"));

    let talos = setup.start().await;
    until("all but the newest are gone", async || {
        (talos.metric("talos_log_trimmed_total").await == 6.0).then_some(())
    })
    .await;
    let read = async || {
        let resource = talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.expect(200).json();
        unix_seconds(resource.text("/last_used_time"))
    };
    assert!(read().await <= unix_now() + 1.0, "bounded when it is read");
    talos.check(Check::bearer(&key.secret)).await.allowed();
    let update = Call::new("PATCH", &format!("{ISSUED}/{}", key.id)).json(&json!({ "name": "other" }));
    let updated = talos.admin.send(Version::Http1, update).await.expect(200).json();
    assert!(unix_seconds(updated.text("/last_used_time")) <= unix_now() + 1.0, "{updated:#}");
    // The use has replaced it: later readings don't move with the clock.
    let used = until("it is replaced", async || {
        let (before, after) = (read().await, read().await);
        (before == after).then_some(after)
    })
    .await;
    assert!((used - unix_now()).abs() < 30.0, "{used}");
}
