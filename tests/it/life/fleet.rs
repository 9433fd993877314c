//! Two processes on one database: what one changes, the other learns of within the lease.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::ask::Ask;
use crate::support::until;
use crate::talos::{Setup, Talos};

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
    assert!(authz.check(Ask::bearer(&key.secret)).await.passes());
    admin.revoke(&key).await;
    let revoked = Instant::now();
    until("the other process refuses the key", async || {
        let asked = Instant::now();
        let passes = authz.check(Ask::bearer(&key.secret)).await.passes();
        assert!(!passes || asked < revoked + LEASE, "allowed {:?} after the revocation", asked - revoked);
        (!passes).then_some(())
    })
    .await;
    assert!(!authz.check(Ask::bearer(&key.secret)).await.passes(), "and stays refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_remembered_as_unknown_works_once_another_process_imported_it() {
    let (admin, authz) = admin_and_authz().await;
    assert!(!authz.check(Ask::bearer("sk_live_imported_later")).await.passes());
    admin.import("sk_live_imported_later", json!({})).await;
    until("the other process knows the key", async || {
        authz.check(Ask::bearer("sk_live_imported_later")).await.passes().then_some(())
    })
    .await;
}
