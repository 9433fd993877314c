//! Callers that time out: Envoy resets the stream of a Check that takes too long.

use std::time::Duration;

use tokio::task::JoinSet;

use super::Pair;
use crate::rig::check::Check;
use crate::rig::proxy::Fault;
use crate::rig::random::Random;
use crate::rig::support::{Must, until};

const CHECKS: usize = 10_000;
const AT_ONCE: usize = 100;
/// Delay that keeps lookups under way while their Checks are cancelled.
const DELAY: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn checks_cancelled_in_mid_lookup_leak_no_connection() {
    needs!(Postgres);
    let mut random = Random::seeded("cancelled Checks");
    let pair = Pair::start("max_conns=2", &[("TALOS_CONSISTENCY_LEASE", "6s")]).await;
    let known = pair.known_key().await;
    pair.proxy.set(Fault::Delay(DELAY));
    let mut checks = JoinSet::new();
    let mut cancelled = 0;
    for n in 0..CHECKS {
        while checks.len() >= AT_ONCE {
            cancelled += usize::from(checks.join_next().await.must("a Check").must("a Check"));
        }
        let (grpc, timeout) =
            (pair.grpc.clone(), Duration::from_micros(random.between(1_000, 20_000) as u64));
        checks.spawn(async move {
            let request = Check::api_key(&format!("legacy-{n}")).build();
            // Dropping the call resets its stream.
            tokio::time::timeout(timeout, grpc.check(&request)).await.is_err()
        });
    }
    while let Some(check) = checks.join_next().await {
        cancelled += usize::from(check.must("a Check"));
    }
    // Checks that find too many before them are refused at once, so not all are cancelled.
    assert!(cancelled > CHECKS / 4, "only {cancelled} were cancelled");
    pair.proxy.set(Fault::Pass);
    pair.is_back().await;
    pair.is(&known, 200).await;
    until("all connections are free again", async || {
        let open = pair.cut_off.metric("talos_database_connections").await;
        let idle = pair.cut_off.metric("talos_database_connections_idle").await;
        (open == idle).then_some(())
    })
    .await;
}
