//! A database that is far away, while others write faster than one round trip.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::rig::check::Check;
use crate::rig::database::{self, Server};
use crate::rig::proxy::Fault;
use crate::rig::support::{number_from, until};
use crate::rig::talos::Setup;

/// Changes a second that others make; `TALOS_TEST_CHANGES` says otherwise.
const CHANGES: usize = 2_000;
/// For how many seconds; `TALOS_TEST_WRITING` says otherwise.
const WRITING: usize = 6;
/// Distances of the database, in milliseconds a round trip.
const DISTANCES: [u64; 4] = [1, 20, 80, 300];
/// `consistency.lease`, the default.
const LEASE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_come_faster_than_a_round_trip_close_nobody() {
    needs!(Postgres);
    let (changes, seconds) =
        (number_from("TALOS_TEST_CHANGES", CHANGES), number_from("TALOS_TEST_WRITING", WRITING));
    let dsn = Server::Postgres.new_database();
    let near = Setup::new().set("TALOS_DB_DSN", &dsn).start().await;
    let mut far = vec![];
    for distance in DISTANCES {
        let (proxy, proxied) = database::behind_proxy(&dsn).await;
        proxy.set(Fault::Delay(Duration::from_millis(distance)));
        far.push((distance, Setup::new().set("TALOS_DB_DSN", &proxied).start().await, proxy));
    }
    let key = near.issue(json!({})).await;
    for (distance, talos, _) in &far {
        until(&format!("it knows the key, at {distance} ms"), async || {
            talos.check(Check::bearer(&key.secret)).await.passes().then_some(())
        })
        .await;
    }

    // Ten times a second, so that the log is longer after every round trip.
    let batch = changes.div_ceil(10);
    let statement = format!(
        "WITH counter AS (UPDATE mutation_counter SET n = n + {batch} WHERE id = 1 RETURNING n) \
         INSERT INTO mutation_log (n, tag, network_id, key_id, at) \
         SELECT counter.n - {batch} + step, md5(random()::text), '', '', (extract(epoch FROM now()) * 1000000)::bigint \
         FROM counter, generate_series(1, {batch}) AS step"
    );
    let mut writing = JoinSet::new();
    writing.spawn({
        let dsn = dsn.clone();
        async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            for _ in 0..seconds * 10 {
                ticks.tick().await;
                let (dsn, statement) = (dsn.clone(), statement.clone());
                tokio::task::spawn_blocking(move || database::execute(&dsn, statement))
                    .await
                    .expect("writing");
            }
        }
    });
    // Checks go on while the statements are executed.
    while !writing.is_empty() {
        for (distance, talos, _) in &far {
            let verdict = talos.check(Check::bearer(&key.secret)).await;
            assert!(verdict.passes(), "at {distance} ms: {verdict:?}\n{}", talos.process.log());
        }
        tokio::select! {
            done = writing.join_next() => done.expect("a task").expect("writing"),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    near.revoke(&key).await;
    let acknowledged = Instant::now();
    for (distance, talos, _) in &far {
        until(&format!("the key is refused, at {distance} ms"), async || {
            let asked = Instant::now();
            let verdict = talos.check(Check::bearer(&key.secret)).await;
            assert!(!verdict.passes() || asked < acknowledged + LEASE, "at {distance} ms, {verdict:?}");
            verdict.is(401).then_some(())
        })
        .await;
        assert_eq!(
            talos.metric("talos_lease_lapses_total").await,
            0.0,
            "at {distance} ms: {}",
            talos.process.log()
        );
        assert_eq!(talos.metric("talos_log_rewritten_total").await, 0.0);
    }
}
