//! A process that is killed loses at most what it has counted in the last interval, and nothing is
//! counted twice.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{setup, total};
use crate::rig::check::Check;
use crate::rig::support::number_from;

/// Processes that are killed; `TALOS_TEST_USAGE_KILLS` overrides it.
const KILLS: usize = 2;
/// Seconds of the interval; `TALOS_TEST_USAGE_INTERVAL` overrides it.
const INTERVAL: usize = 1;
/// Time that a busy machine may take beside it; the long run has none.
const SLACK: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn at_most_the_last_interval_is_missing() {
    let kills = number_from("TALOS_TEST_USAGE_KILLS", KILLS);
    let seconds = number_from("TALOS_TEST_USAGE_INTERVAL", INTERVAL);
    let interval = Duration::from_secs(seconds as u64);
    let slack = if kills == KILLS { SLACK } else { Duration::ZERO };
    let setup = setup().set("TALOS_USAGE_FLUSH_INTERVAL", &format!("{seconds}s"));
    let observer = setup.start().await;
    for round in 0..kills {
        let key = observer.issue(json!({})).await;
        let mut talos = setup.start().await;
        let grpc = talos.grpc().await;
        let check = Check::bearer(&key.secret).build();
        let (mut answers, began) = (vec![], Instant::now());
        // The time of the kill differs from round to round.
        let lasts = interval * 2 + slack + Duration::from_millis(97 * (round as u64 % 11));
        while began.elapsed() < lasts {
            grpc.check(&check).await.allowed();
            answers.push(Instant::now());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        talos.process.kill();
        let killed = Instant::now();
        talos.process.end().await;
        let sure = answers.iter().filter(|at| killed - **at > interval + slack).count() as u64;
        let counted = total(&observer, &format!("key_id={}", key.id)).await;
        let sent = answers.len() as u64;
        assert!((sure..=sent).contains(&counted), "round {round}: {counted} of {sent}, {sure} are old");
        assert!(counted > 0, "round {round}: nothing is counted");
        println!("round {round}: {counted} of {sent} Checks are counted, {sure} had to be");
    }
}
