//! Revocation by the admin.

use serde_json::{Value, json};

use crate::rig::support::{Json, unix_now, until};
use crate::rig::talos::{ISSUED, Talos};

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_is_kept_and_revoking_twice_changes_nothing() {
    let talos = Talos::start().await;
    let reasons = [
        "REVOCATION_REASON_KEY_COMPROMISE",
        "REVOCATION_REASON_AFFILIATION_CHANGED",
        "REVOCATION_REASON_SUPERSEDED",
        "REVOCATION_REASON_PRIVILEGE_WITHDRAWN",
    ];
    for reason in reasons {
        let key = talos.issue(json!({})).await;
        let path = format!("{ISSUED}/{}", key.id);
        let reply =
            talos.admin.post(&format!("{path}:revoke"), &json!({ "reason": reason })).await.expect(204);
        assert_eq!(reply.text(), "");
        let revoked = talos.admin.get(&path).await.expect(200).json();
        assert_eq!(revoked.text("/status"), "KEY_STATUS_REVOKED");
        assert_eq!(revoked.text("/revocation_reason"), reason);

        talos.admin.post(&format!("{path}:revoke"), &json!({})).await.expect(204);
        assert_eq!(talos.admin.get(&path).await.expect(200).json(), revoked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reason_is_a_reason() {
    let talos = Talos::start().await;
    for body in [json!({}), json!({ "reason": "REVOCATION_REASON_UNSPECIFIED" }), json!({ "reason": null })] {
        let key = talos.issue(json!({})).await;
        let path = format!("{ISSUED}/{}", key.id);
        talos.admin.post(&format!("{path}:revoke"), &body).await.expect(204);
        let revoked = talos.admin.get(&path).await.expect(200).json();
        assert_eq!(revoked.text("/status"), "KEY_STATUS_REVOKED");
        assert_eq!(revoked.get("revocation_reason"), None, "{revoked:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_goes_with_withdrawn_privileges_only() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let path = format!("{ISSUED}/{}", key.id);
    for reason in ["REVOCATION_REASON_KEY_COMPROMISE", "REVOCATION_REASON_UNSPECIFIED"] {
        let body = json!({ "reason": reason, "description": "left the team" });
        let message = talos.admin.post(&format!("{path}:revoke"), &body).await.expect_bad_request();
        assert!(message.contains("description"), "{message}");
    }
    assert_eq!(talos.admin.get(&path).await.json().text("/status"), "KEY_STATUS_ACTIVE");

    let body = json!({ "reason": "REVOCATION_REASON_PRIVILEGE_WITHDRAWN", "description": "left the team" });
    talos.admin.post(&format!("{path}:revoke"), &body).await.expect(204);
    assert_eq!(talos.admin.get(&path).await.json().text("/revocation_description"), "left the team");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_grace_period_is_over_stays_superseded() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let path = format!("{ISSUED}/{}", key.id);
    talos.admin.post(&format!("{path}:rotate"), &json!({ "grace_period": "1ms" })).await.expect(201);
    let get = async || talos.admin.get(&path).await.expect(200).json();
    until("the grace period is over", async || {
        (get().await.text("/status") == "KEY_STATUS_REVOKED").then_some(())
    })
    .await;
    let ended = get().await;
    let same = |key: &Value| {
        ["status", "revocation_reason", "revocation_description", "supersede_time"]
            .map(|member| key[member].clone())
    };
    for (reason, is_warned) in [("SUPERSEDED", false), ("KEY_COMPROMISE", true)] {
        let body = json!({ "reason": format!("REVOCATION_REASON_{reason}") });
        let reply = talos.admin.post(&format!("{path}:revoke"), &body).await.expect(204);
        let warning = reply.header("warning");
        assert_eq!(warning.is_some(), is_warned, "{reason}: {warning:?}");
        assert!(warning.is_none_or(|text| text.contains("REVOCATION_REASON_SUPERSEDED")), "{warning:?}");
        assert_eq!(same(&get().await), same(&ended), "{reason}");
    }
    // For a clock that is behind, or is set back, the period isn't over.
    let later = (unix_now() as i64 + 3_600) * 1_000_000;
    talos.setup.sql(&format!("UPDATE api_keys SET superseded_at = {later} WHERE key_id = '{}'", key.id));
    assert_eq!(get().await.text("/status"), "KEY_STATUS_REVOKED");
}

/// A use from before the end may still be on its way to the row.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_a_late_use_can_put_off_is_no_revocation() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let path = format!("{ISSUED}/{}", key.id);
    talos.admin.post(&format!("{path}:rotate"), &json!({ "until_unused": "1h" })).await.expect(201);
    let past = (unix_now() as i64 - 1) * 1_000_000;
    talos.setup.sql(&format!("UPDATE api_keys SET superseded_at = {past} WHERE key_id = '{}'", key.id));
    assert_eq!(talos.admin.get(&path).await.json().text("/status"), "KEY_STATUS_REVOKED");
    let body = json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" });
    let reply = talos.admin.post(&format!("{path}:revoke"), &body).await.expect(204);
    assert_eq!(reply.header("warning"), None);
    let later = (unix_now() as i64 + 3_600) * 1_000_000;
    talos.setup.sql(&format!("UPDATE api_keys SET superseded_at = {later} WHERE key_id = '{}'", key.id));
    let revoked = talos.admin.get(&path).await.expect(200).json();
    assert_eq!(revoked.text("/status"), "KEY_STATUS_REVOKED");
    assert_eq!(revoked.text("/revocation_reason"), "REVOCATION_REASON_KEY_COMPROMISE");
}
