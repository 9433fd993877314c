//! A rolling restart: three instances behind Envoy go and come back one after the other, under load
//! that never stops.

use serde_json::json;

use crate::rig::instances::{INSTANCES, Instances};
use crate::rig::support::Must;
use crate::rig::talos::{Setup, TALOS, Talos};

/// Number of restarts of all three; `TALOS_TEST_ROLLS` overrides it.
const ROLLS: usize = 3;
/// Requests that are answered while an instance is away, and again once it is back.
const MIN_ANSWERED: usize = 20;
/// Words of a refusal because the key couldn't be looked up.
const UNAVAILABLE: &str = "the credential can't be checked at present";

/// Returns the number of Checks that an instance refused because a lookup took all its time, 150
/// ms. A lookup that fails at once isn't counted.
async fn late_lookups(talos: &Talos) -> usize {
    // All requests of the load have a key: those without a tier are those whose lookup failed.
    let all = talos.metric("talos_check_duration_seconds_count{tier=\"none\"}").await;
    let quick = talos.metric("talos_check_duration_seconds_bucket{le=\"0.1\",tier=\"none\"}").await;
    (all - quick) as usize
}

/// Returns the number of late lookups of all instances that run.
async fn all_late_lookups(instances: &Instances) -> usize {
    let mut late = 0;
    for talos in &instances.running {
        late += late_lookups(talos).await;
    }
    late
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request() {
    needs!(Envoy);
    let rolls = std::env::var("TALOS_TEST_ROLLS").map_or(ROLLS, |text| text.parse().must("TALOS_TEST_ROLLS"));
    let mut instances = Instances::start(&Setup::new()).await;
    let key = instances.running[0].issue(json!({})).await;
    let before = all_late_lookups(&instances).await;
    let load = instances.load(&key).await;
    let mut late = 0;
    for _ in 0..rolls {
        for place in 0..INSTANCES {
            // Before it is told to stop: what it refuses after that is a failure.
            late += late_lookups(&instances.running[place]).await;
            instances.end(place).await;
            load.wait_for_answers(MIN_ANSWERED).await;
            instances.begin(place, TALOS).await;
            load.wait_for_answers(MIN_ANSWERED).await;
        }
    }
    let (answered, failures) = load.end().await;
    let late = late + all_late_lookups(&instances).await - before;
    println!(
        "{rolls} rolling restarts of {INSTANCES} instances: {} of {answered} requests failed",
        failures.len()
    );
    // An instance that comes back looks the key up. On a busy machine that takes longer than Talos
    // waits, whether it was restarted or not.
    let is_late = |failure: &&String| failure.starts_with("503") && failure.contains(UNAVAILABLE);
    let refused = failures.iter().filter(is_late).count();
    assert!(refused == failures.len(), "{} of {answered} failed: {failures:#?}", failures.len());
    assert!(
        refused <= late,
        "{refused} of {answered} failed, {late} as their lookups were late: {failures:#?}"
    );
}
