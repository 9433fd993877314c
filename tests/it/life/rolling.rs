//! A rolling restart: three instances behind Envoy go and come back one after the other, under load
//! that never stops.

use serde_json::json;

use crate::rig::instances::{INSTANCES, Instances};
use crate::rig::support::Must;
use crate::rig::talos::{Setup, TALOS};

/// Number of restarts of all three; `TALOS_TEST_ROLLS` overrides it.
const ROLLS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request() {
    needs!(Envoy);
    let rolls = std::env::var("TALOS_TEST_ROLLS").map_or(ROLLS, |text| text.parse().must("TALOS_TEST_ROLLS"));
    let mut instances = Instances::start(&Setup::new()).await;
    let key = instances.running[0].issue(json!({})).await;
    let load = instances.load(&key).await;
    for _ in 0..rolls {
        instances.roll_to(TALOS).await;
    }
    let (answered, failures) = load.end().await;
    println!(
        "{rolls} rolling restarts of {INSTANCES} instances: {} of {answered} requests failed",
        failures.len()
    );
    assert!(failures.is_empty(), "{} of {answered} failed: {failures:#?}", failures.len());
    assert!(answered > 100 * rolls, "{answered}");
}
