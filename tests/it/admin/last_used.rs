//! Last use of keys: written beside the requests, once a day.

use serde_json::{Value, json};

use crate::rig::check::Check;
use crate::rig::support::{Json, unix_now, unix_seconds, until};
use crate::rig::talos::{DERIVE, IMPORTED, ISSUED, Key, Setup, Talos};

async fn read(talos: &Talos, kind: &str, key: &Key) -> Value {
    talos.admin.get(&format!("{kind}/{}", key.id)).await.expect(200).json()
}

async fn is_used(talos: &Talos, kind: &str, key: &Key) -> f64 {
    until("the use is noted", async || {
        let resource = read(talos, kind, key).await;
        resource.get("last_used_time").map(|time| unix_seconds(time.as_str().unwrap()))
    })
    .await
}

fn setup() -> Setup {
    Setup::new().set("TALOS_LAST_USED_FLUSH_INTERVAL", "50ms")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_a_verification_and_a_derivation_are_uses() {
    let talos = setup().start().await;
    let (checked, verified, derived) = (
        talos.issue(json!({})).await,
        talos.import("legacy-key", json!({})).await,
        talos.issue(json!({})).await,
    );
    let began = unix_now().floor();
    talos.check(Check::bearer(&checked.secret)).await.allowed();
    talos.verify(&verified.secret).await;
    talos.admin.post(DERIVE, &json!({ "credential": derived.secret })).await.expect(200);
    for (kind, key) in [(ISSUED, &checked), (IMPORTED, &verified), (ISSUED, &derived)] {
        let used = is_used(&talos, kind, key).await;
        assert!((began..=unix_now()).contains(&used), "{used}");
    }
    // Noted once: nothing else of the row has changed, and a later use on the same day isn't
    // written.
    let before = read(&talos, ISSUED, &checked).await;
    assert_eq!(before.text("/update_time"), checked.resource.text("/update_time"));
    let marker = talos.issue(json!({})).await;
    talos.check(Check::bearer(&checked.secret)).await.allowed();
    talos.check(Check::bearer(&marker.secret)).await.allowed();
    is_used(&talos, ISSUED, &marker).await;
    assert_eq!(read(&talos, ISSUED, &checked).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_is_no_use() {
    let talos = setup().start().await;
    let key = talos.issue(json!({ "scopes": ["read"] })).await;
    let marker = talos.issue(json!({})).await;
    talos.check(Check::bearer(&key.secret).route("talos.scopes", "write")).await.denied(403);
    talos.check(Check::bearer(&marker.secret)).await.allowed();
    is_used(&talos, ISSUED, &marker).await;
    assert_eq!(read(&talos, ISSUED, &key).await.get("last_used_time"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_uses_are_written_before_the_end() {
    let talos = Setup::new().set("TALOS_LAST_USED_FLUSH_INTERVAL", "1h").start().await;
    let setup = talos.setup.clone();
    let key = talos.issue(json!({})).await;
    talos.check(Check::bearer(&key.secret)).await.allowed();
    talos.stop().await;
    let talos = setup.start().await;
    is_used(&talos, ISSUED, &key).await;
}
