//! The database can't be reached, for less than the grace.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{LEASE, Pair};
use crate::rig::check::Check;
use crate::rig::proxy::Fault;
use crate::rig::support::until;
use crate::rig::talos::{SELF_REVOKE, VERIFY};

/// Known keys are right at every moment, unknown ones are 503 well before callers time out.
async fn is_survived(for_open: Fault, for_new: Fault) {
    // Cached keys are due to be read again long before the lease runs out.
    let pair = Pair::start("", &[("TALOS_CACHE_TTL", "300ms")]).await;
    let (known, revoked) = (pair.known_key().await, pair.known_key().await);
    pair.direct.revoke(&revoked).await;
    pair.knows_of_the_end_of(&revoked).await;
    let unknown = pair.direct.issue(json!({})).await;
    // The second round has connections that were made after the first.
    for round in 0..2 {
        pair.proxy.set_new(for_new);
        pair.proxy.set_open(for_open);
        let mut probes = 0;
        until("the database is gone", async || {
            pair.is(&known, 200).await;
            probes += 1;
            let probe = Check::api_key(&format!("probe-{round}-{probes}")).build();
            pair.grpc.check(&probe).await.is(503).then_some(())
        })
        .await;
        let began = Instant::now();
        let mut asked = 0_u64;
        // From before the lease runs out until long after.
        while began.elapsed() < LEASE * 4 {
            pair.is(&known, 200).await;
            pair.is(&revoked, 401).await;
            if asked.is_multiple_of(20) {
                let asked_at = Instant::now();
                pair.is(&unknown, 503).await;
                let imported = format!("legacy-{round}-{asked}");
                let verdict = pair.grpc.check(&Check::api_key(&imported).build()).await;
                assert!(verdict.is(503), "never remembered as bad: {verdict:?}");
                assert!(asked_at.elapsed() < Duration::from_secs(2), "waited {:?}", asked_at.elapsed());
            }
            asked += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Changes are refused as an outage of ours, too.
        let body = json!({ "credential": unknown.secret });
        assert!(matches!(pair.cut_off.public.post(SELF_REVOKE, &body).await.status, 503 | 504));
        assert!(matches!(pair.cut_off.admin.post(VERIFY, &body).await.status, 503 | 504));
        pair.proxy.set(Fault::Pass);
        pair.is_back().await;
    }
    pair.is(&known, 200).await;
    until("the key is known", async || pair.passes(&unknown).await.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_there() {
    needs!(Postgres);
    is_survived(Fault::Reset, Fault::Refuse).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers() {
    needs!(Postgres);
    is_survived(Fault::BlackHole, Fault::BlackHole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_hangs_up() {
    needs!(Postgres);
    is_survived(Fault::HalfClose, Fault::HalfClose).await;
    is_survived(Fault::Reset, Fault::Reset).await;
}

/// The bound is wider only here: the change was committed, but the instance couldn't read it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_revoked_just_before_an_outage_ends_with_the_grace() {
    needs!(Postgres);
    for (grace, bound) in [("2s", LEASE * 3), ("0s", LEASE)] {
        let pair = Pair::start("", &[("TALOS_CONSISTENCY_GRACE", grace)]).await;
        let key = pair.known_key().await;
        pair.proxy.set(Fault::BlackHole);
        pair.direct.revoke(&key).await;
        let revoked = Instant::now();
        until("the bound has passed", async || {
            let asked = Instant::now();
            let passes = pair.passes(&key).await;
            assert!(!passes || asked < revoked + bound, "allowed {:?} after the revocation", asked - revoked);
            (asked > revoked + bound).then_some(())
        })
        .await;
        pair.is(&key, 503).await;
        pair.proxy.set(Fault::Pass);
        pair.is_back().await;
        pair.is(&key, 401).await;
    }
}
