//! Two processes on one database: each knows the other's changes within the lease.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::http::{Call, Version};
use crate::rig::support::{Must, until};
use crate::rig::talos::{IMPORTED, ISSUED, Setup, Talos, VERIFY};

/// `consistency.lease`, the bound that we promise, by default.
const LEASE: Duration = Duration::from_secs(5);

async fn admin_and_authz() -> (Talos, Talos) {
    let setup = Setup::new();
    let admin = setup.clone().planes("admin").start().await;
    (admin, setup.planes("authz").start().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_revoked_in_one_process_is_refused_by_the_other_within_the_lease() {
    let (admin, authz) = admin_and_authz().await;
    let key = admin.issue(json!({})).await;
    assert!(authz.check(Check::bearer(&key.secret)).await.passes());
    admin.revoke(&key).await;
    let revoked = Instant::now();
    until("the other process refuses the key", async || {
        let asked = Instant::now();
        let passes = authz.check(Check::bearer(&key.secret)).await.passes();
        assert!(!passes || asked < revoked + LEASE, "allowed {:?} after the revocation", asked - revoked);
        (!passes).then_some(())
    })
    .await;
    assert!(!authz.check(Check::bearer(&key.secret)).await.passes(), "and stays refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_remembered_as_unknown_works_once_another_process_imported_it() {
    let (admin, authz) = admin_and_authz().await;
    assert!(!authz.check(Check::bearer("sk_live_imported_later")).await.passes());
    admin.import("sk_live_imported_later", json!({})).await;
    until("the other process knows the key", async || {
        authz.check(Check::bearer("sk_live_imported_later")).await.passes().then_some(())
    })
    .await;
}

/// Returns whether a process that must know change `epoch` accepts a credential.
async fn accepts_as_of(talos: &Talos, credential: &str, epoch: &str) -> bool {
    let call = Call::post(VERIFY).json(&json!({ "credential": credential }));
    let call = call.header("talos-min-epoch", epoch);
    talos.admin.send(Version::Http1, call).await.expect(200).json()["is_valid"] == true
}

#[tokio::test(flavor = "multi_thread")]
async fn any_process_answers_as_of_a_named_epoch() {
    // By itself the other process would learn of a change only seconds later.
    let setup = Setup::new().set("TALOS_CONSISTENCY_POLL", "4s").planes("admin");
    let (one, other) = (setup.start().await, setup.start().await);
    for round in 0..5 {
        let key = one.issue(json!({})).await;
        assert_eq!(other.verify(&key.secret).await["is_valid"], true);
        let revoked = one.admin.post(&format!("{ISSUED}/{}:revoke", key.id), &json!({})).await.expect(204);
        let epoch = revoked.header("talos-epoch").must("Talos-Epoch");
        assert!(!accepts_as_of(&other, &key.secret, epoch).await, "a revoked key in round {round}");

        let raw_key = format!("sk_live_{round}");
        assert_eq!(other.verify(&raw_key).await["is_valid"], false, "now it is remembered as unknown");
        let body = json!({ "raw_key": raw_key, "name": "n", "actor_id": "a" });
        let imported = one.admin.post(IMPORTED, &body).await.expect(201);
        let epoch = imported.header("talos-epoch").must("Talos-Epoch");
        assert!(accepts_as_of(&other, &raw_key, epoch).await, "an imported key in round {round}");
    }
    let polls = other.metric("talos_epoch").await;
    assert!(polls >= 10.0, "{polls}");
}
