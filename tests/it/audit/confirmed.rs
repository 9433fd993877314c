//! A change whose response was lost, and the call that repeats it: what is acknowledged is in the
//! log, and gets back into a database that was restored from a backup.

use serde_json::{Value, json};

use super::restored::{back_up, passes, replay, restore};
use super::{audited, calls};
use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, Must};
use crate::rig::talos::{IMPORTED, ISSUED, Key, SELF_REVOKE, Talos};

const ACTORS: &str = "/v2alpha1/admin/actors";

/// A call, its status, and that of the call that repeats it.
type Repeated = (Call, u16, u16);

/// Calls that end or suspend keys, and what else is acknowledged.
struct Changes {
    /// Keys that are refused afterwards.
    ended: Vec<Key>,
    calls: Vec<Repeated>,
}

async fn changes(talos: &Talos) -> Changes {
    let post = |path: String, body: Value| Call::post(&path).json(&body);
    let [revoked, own, rotated, suspended, resumed, updated, in_grace] = [
        talos.issue(json!({})).await,
        talos.issue(json!({})).await,
        talos.issue(json!({})).await,
        talos.issue(json!({})).await,
        talos.issue(json!({})).await,
        talos.issue(json!({})).await,
        talos.issue(json!({})).await,
    ];
    let of_suspended = talos.issue(json!({ "actor_id": "suspended" })).await;
    let deleted = talos.import("deleted_after_the_backup", json!({})).await;
    talos.admin.post(&format!("{ISSUED}/{}:suspend", resumed.id), &json!({})).await.expect(200);
    let name = json!({ "name": "other" });
    let grace = json!({ "request_id": "rotate", "grace_period": "3600s" });
    let new = json!({ "name": "n", "actor_id": "a", "request_id": "issue" });
    let import = json!({ "name": "n", "actor_id": "a", "raw_key": "imported_after_the_backup" });
    let calls = vec![
        (post(format!("{ISSUED}/{}:revoke", revoked.id), json!({})), 204, 204),
        (post(SELF_REVOKE.to_owned(), json!({ "credential": own.secret })), 200, 200),
        (post(format!("{ISSUED}/{}:rotate", rotated.id), json!({})), 201, 409),
        (post(format!("{ISSUED}/{}:rotate", in_grace.id), grace), 201, 201),
        (post(format!("{ISSUED}/{}:suspend", suspended.id), json!({})), 200, 200),
        (post(format!("{ISSUED}/{}:resume", resumed.id), json!({})), 200, 200),
        (post(format!("{ACTORS}/suspended:suspend"), json!({})), 200, 200),
        (Call::new("DELETE", &format!("{IMPORTED}/{}", deleted.id)), 204, 404),
        (Call::new("PATCH", &format!("{ISSUED}/{}", updated.id)).json(&name), 200, 200),
        (post(ISSUED.to_owned(), new), 201, 201),
        (post(IMPORTED.to_owned(), import), 201, 409),
    ];
    Changes { ended: vec![revoked, own, rotated, suspended, of_suspended, deleted], calls }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_repeated_call_finds_done_is_recorded() {
    let setup = audited();
    // Has no log, so nothing tells of its calls, as of those whose outcome nobody learned.
    let silent = setup.clone().unset("TALOS_AUDIT_FILE").unset("TALOS_AUDIT_KEY");
    let (lost, talos) = (silent.start().await, setup.start().await);
    let Changes { ended, calls: repeated } = changes(&talos).await;
    back_up(&setup);
    for (call, first, second) in repeated {
        lost.admin.send(Version::Http1, call.clone()).await.expect(first);
        talos.admin.send(Version::Http1, call).await.expect(second);
        let last = calls(&setup).pop().must("a line");
        let is_event = |event: &Value| event["event"] != "APIKeyImportFailed";
        let events = last.get("events").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_repeated = |event: &Value| event["event"] == "IssuedAPIKeySecretRepeated";
        assert!(
            !events.iter().any(|event| is_event(event) && !is_repeated(event)),
            "nothing happened: {last:#}"
        );
        assert!(last.at("/confirmed/0/event").is_string(), "{last:#}");
    }
    // It lacks nothing so far.
    let (code, report) = replay(&setup, &["--dry-run"]).await;
    assert_eq!(
        (code, report.at("/would_repeat"), report.at("/lost")),
        (0, &json!(0), &json!(0)),
        "{report:#}"
    );
    lost.stop().await;
    talos.stop().await;
    restore(&setup);
    let talos = setup.start().await;
    assert!(talos.process.log().contains("the database is behind the audit log"), "{}", talos.process.log());
    for key in &ended {
        assert!(passes(&talos, key).await, "revived");
    }
    talos.stop().await;
    // Lost are an update, the issued and the imported key, and two successors.
    let (code, report) = replay(&setup, &[]).await;
    assert_eq!((code, report.at("/repeated"), report.at("/lost")), (1, &json!(8), &json!(5)), "{report:#}");
    let talos = setup.start().await;
    for key in &ended {
        assert!(!passes(&talos, key).await, "{}", key.id);
    }
}
