//! The lines of the audit log.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{audited, calls, file, read, verify, whole};
use crate::rig::check::Check;
use crate::rig::http::{Call, Reply, Version};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{DERIVE, IMPORTED, ISSUED, SELF_REVOKE, Setup, Talos, VERIFY};

async fn send(talos: &Talos, call: Call) -> Reply {
    talos.admin.send(Version::Http1, call.header("x-request-id", "req-1")).await
}

/// The two lines that a call left: the last two of the log.
#[track_caller]
fn last(setup: &Setup) -> (Value, Value) {
    let lines = calls(setup);
    let [.., intent, outcome] = &lines[..] else { panic!("too few lines: {lines:#?}") };
    assert_eq!((intent.text("/kind"), outcome.text("/kind")), ("intent", "outcome"), "{lines:#?}");
    assert_eq!(outcome["intent"], intent["seq"]);
    for member in ["operation", "network", "caller", "request_id", "client_address"] {
        assert_eq!(intent[member], outcome[member], "{member}");
    }
    (intent.clone(), outcome.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_has_its_lines() {
    let setup = audited();
    let talos = setup.start().await;
    let body = json!({ "name": "n", "actor_id": "alice", "ttl": "1h", "metadata": { "team": "red" } });
    let reply = send(&talos, Call::post(ISSUED).json(&body)).await.expect(201);
    assert_eq!(reply.header("x-request-id"), Some("req-1"));
    let (id, secret) =
        (reply.json().text("/issued_api_key/key_id").to_owned(), reply.json().text("/secret").to_owned());
    let (intent, outcome) = last(&setup);
    assert_eq!(intent["keys"], json!([id]));
    assert_eq!(outcome.text("/operation"), "issue");
    assert_eq!(outcome.text("/outcome"), "success");
    assert_eq!(outcome["status"], 201);
    assert_eq!(outcome.text("/request_id"), "req-1");
    assert_eq!(outcome.text("/client_address"), "127.0.0.1");
    assert_eq!((outcome.text("/caller/name"), outcome.text("/caller/proof")), ("anonymous", "none"));
    assert_eq!(outcome.text("/network"), "00000000-0000-0000-0000-000000000000");
    let event = outcome.at("/events/0");
    for (attribute, value) in [
        ("event", "IssuedAPIKeyCreated"),
        ("ProjectID", "00000000-0000-0000-0000-000000000000"),
        ("APIKeyID", &id),
        ("APIKeyPrefix", "ory_ak"),
        ("KeyType", "issued"),
        ("Operation", "issue"),
        ("ActorID", "alice"),
        ("Visibility", "secret"),
    ] {
        assert_eq!(event[attribute], value, "{event:#}");
    }
    assert_eq!(event.get("metadata.team"), None, "the key's own attributes stay out: {event:#}");
    assert!(event.get("Expiry").is_some(), "{event:#}");

    let path = format!("{ISSUED}/{id}");
    send(&talos, Call::new("PATCH", &path).json(&json!({ "name": "other" }))).await.expect(200);
    assert_eq!(last(&setup).1.text("/events/0/event"), "IssuedAPIKeyUpdated");

    let body = json!({ "credential": secret, "ttl": "60s" });
    let derived = send(&talos, Call::post(DERIVE).json(&body)).await.expect(200).json();
    let (intent, outcome) = last(&setup);
    assert_eq!(
        (intent["keys"].clone(), outcome.text("/events/0/event")),
        (json!([id]), "APIKeyDerivedToken")
    );
    assert_eq!(outcome.at("/events/0/TokenID"), derived.at("/token/claims/jti"));
    assert_eq!(outcome["events"][0]["metadata.token_type"], "jwt");
    assert_eq!(outcome["events"][0]["metadata.algorithm"], "EdDSA");
    assert_eq!(outcome["events"][0]["metadata.ttl"], "60");

    let rotated = send(&talos, Call::post(&format!("{path}:rotate"))).await.expect(201).json();
    let new = rotated.text("/issued_api_key/key_id");
    let (intent, outcome) = last(&setup);
    assert_eq!(intent["keys"], json!([id, new]));
    assert_eq!(outcome.text("/events/0/event"), "IssuedAPIKeyRotated");
    assert_eq!((outcome.text("/events/0/APIKeyID"), outcome.text("/events/0/RotatedFrom")), (new, &*id));
    assert_eq!(outcome["events"][0]["metadata.previous_key_id"], id);
    assert_eq!(outcome["events"][0]["metadata.old_key_id"], id);
    assert!(outcome["events"][0]["metadata.old_expires_at"].is_string(), "{outcome:#}");

    let body = json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" });
    let revoke = format!("{ISSUED}/{new}:revoke");
    send(&talos, Call::post(&revoke).json(&body)).await.expect(204);
    let (_, outcome) = last(&setup);
    assert_eq!(outcome.text("/events/0/event"), "IssuedAPIKeyRevoked");
    assert_eq!(outcome.text("/events/0/Reason"), "REVOCATION_REASON_KEY_COMPROMISE");
    send(&talos, Call::post(&revoke).json(&body)).await.expect(204);
    let (_, outcome) = last(&setup);
    assert_eq!(outcome.get("events"), None, "nothing happened");
    let confirmed = outcome.at("/confirmed/0");
    assert_eq!((confirmed.text("/event"), confirmed.text("/APIKeyID")), ("IssuedAPIKeyRevoked", new));

    let body = json!({ "name": "n", "actor_id": "a", "raw_key": "legacy-key-0123456789" });
    let imported = send(&talos, Call::post(IMPORTED).json(&body)).await.expect(201).json();
    let imported = imported.text("/key_id");
    let event = last(&setup).1.at("/events/0").clone();
    assert_eq!(
        (event.text("/event"), &event["metadata.import_source"]),
        ("ImportedAPIKeyCreated", &json!("import"))
    );
    send(&talos, Call::post(IMPORTED).json(&body)).await.expect(409);
    let (_, outcome) = last(&setup);
    assert_eq!((outcome.text("/outcome"), outcome.text("/reason")), ("refused", "API_KEY_EXISTS"));
    assert_eq!(outcome.text("/events/0/event"), "APIKeyImportFailed");
    let failed = &outcome["events"][0];
    assert_eq!(
        (&failed["metadata.index"], &failed["metadata.error_code"]),
        (&json!("0"), &json!("API_KEY_EXISTS"))
    );
    let batch =
        json!({ "requests": [body, { "name": "n", "actor_id": "a", "raw_key": "legacy-key-2" }, {}] });
    send(&talos, Call::post(&format!("{IMPORTED}:batchCreate")).json(&batch)).await.expect(200);
    let (_, outcome) = last(&setup);
    let names: Vec<&str> =
        outcome["events"].as_array().must("events").iter().map(|event| event.text("/event")).collect();
    assert_eq!(names, ["APIKeyImportFailed", "ImportedAPIKeyCreated", "APIKeyImportFailed"]);

    let path = format!("{IMPORTED}/{imported}");
    send(&talos, Call::new("PATCH", &path).json(&json!({ "name": "other" }))).await.expect(200);
    assert_eq!(last(&setup).1.text("/events/0/event"), "ImportedAPIKeyUpdated");
    send(&talos, Call::post(&format!("{path}:revoke"))).await.expect(204);
    assert_eq!(last(&setup).1.text("/events/0/event"), "ImportedAPIKeyRevoked");
    send(&talos, Call::new("DELETE", &path)).await.expect(204);
    assert_eq!(last(&setup).1.text("/events/0/event"), "ImportedAPIKeyDeleted");

    let key = talos.issue(json!({})).await;
    for (verb, event) in [("suspend", "IssuedAPIKeySuspended"), ("resume", "IssuedAPIKeyResumed")] {
        let until = json!({ "until": "2036-01-01T00:00:00Z" });
        let body = if verb == "suspend" { until } else { json!({}) };
        send(&talos, Call::post(&format!("{ISSUED}/{}:{verb}", key.id)).json(&body)).await.expect(200);
        let (intent, outcome) = last(&setup);
        assert_eq!((intent.text("/operation"), intent["keys"].clone()), (verb, json!([key.id])));
        assert_eq!(outcome.text("/events/0/event"), event);
        assert_eq!(outcome["events"][0].get("Until").is_some(), verb == "suspend");
    }
    send(&talos, Call::post(&format!("{ISSUED}/{}:rotate", key.id)).json(&json!({ "grace_period": "1h" })))
        .await
        .expect(201);
    send(&talos, Call::post(&format!("{ISSUED}/{}:finish", key.id))).await.expect(200);
    assert_eq!(last(&setup).1.text("/events/0/event"), "IssuedAPIKeyRevoked");
    let actor = "/v2alpha1/admin/actors/customer:7";
    for (call, operation, event) in [
        (Call::new("PATCH", actor).json(&json!({ "display_name": "a" })), "update_actor", "ActorUpdated"),
        (Call::post(&format!("{actor}:suspend")), "suspend_actor", "ActorSuspended"),
        (Call::post(&format!("{actor}:resume")), "resume_actor", "ActorResumed"),
    ] {
        send(&talos, call).await.expect(200);
        let (intent, outcome) = last(&setup);
        assert_eq!((intent.text("/operation"), outcome.text("/events/0/event")), (operation, event));
        assert_eq!(outcome.text("/events/0/ActorID"), "customer:7");
    }

    let key = talos.issue(json!({})).await;
    talos.self_revoke(&key.secret).await.expect(200);
    let (intent, outcome) = last(&setup);
    assert_eq!((intent.text("/operation"), intent["keys"].clone()), ("self_revoke", json!([key.id])));
    assert_eq!(outcome.text("/events/0/event"), "IssuedAPIKeyRevoked");
    assert_eq!(outcome["events"][0]["metadata.initiated_by"], "self");

    send(&talos, Call::new("DELETE", &format!("{ISSUED}/{}", key.id))).await.expect(204);
    let (intent, outcome) = last(&setup);
    assert_eq!((intent.text("/operation"), intent["keys"].clone()), ("delete", json!([key.id])));
    assert_eq!(outcome.text("/events/0/event"), "IssuedAPIKeyDeleted");

    let mut keys = vec![];
    keys.push(talos.issue(json!({ "actor_id": "erased" })).await.id);
    keys.push(talos.import("legacy-of-the-erased", json!({ "actor_id": "erased" })).await.id);
    let erase = "/v2alpha1/admin/actors/erased";
    send(&talos, Call::new("DELETE", erase)).await.expect(409);
    send(&talos, Call::new("DELETE", &format!("{erase}?force=true"))).await.expect(200);
    let (intent, outcome) = last(&setup);
    assert_eq!((intent.text("/operation"), intent["keys"].clone()), ("delete_actor", json!(keys)));
    assert_eq!(outcome.at("/events").as_array().must("events").len(), 2);
    for (event, name) in [("0", "IssuedAPIKeyDeleted"), ("1", "ImportedAPIKeyDeleted")] {
        let event = outcome.at(&format!("/events/{event}"));
        assert_eq!((event.text("/event"), event.get("ActorID")), (name, None), "{event:#}");
    }

    let text = std::fs::read_to_string(file(&setup)).must("the log");
    for secret in [&*secret, rotated.text("/secret"), "legacy-key-0123456789", derived.text("/token/token")] {
        assert!(!text.contains(secret), "a secret is in the log");
    }
    let found = whole(&setup).await;
    assert_eq!(found["unknown_outcomes"], json!([]));
    assert_eq!(found["not_checked"], json!([]));
    assert_eq!(found["lines"].as_u64(), Some(read(&setup).len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_recorded_but_strangers_fill_no_disk() {
    let setup = audited();
    let talos = setup.start().await;
    let before = read(&setup).len();
    talos.admin.post(ISSUED, &json!({ "name": "" })).await.expect(400);
    let lines = calls(&setup);
    let refused = lines.last().must("a line");
    assert_eq!((refused.text("/kind"), refused.text("/outcome")), ("outcome", "refused"));
    assert_eq!((refused.get("intent"), refused.text("/reason")), (None, "BAD_REQUEST"));
    assert!(!refused.text("/request_id").is_empty());
    let unknown = "5b8a31f2-97d5-4c3b-8a67-111111111111";
    talos.admin.post(&format!("{ISSUED}/{unknown}:revoke"), &json!({})).await.expect(404);
    let (intent, outcome) = last(&setup);
    assert_eq!(intent["keys"], json!([unknown]));
    assert_eq!((outcome.text("/outcome"), outcome.text("/reason")), ("refused", "API_KEY_NOT_FOUND"));
    assert_eq!(read(&setup).len(), before + 3);

    for _ in 0..20 {
        talos.self_revoke("nobody-knows-this").await.expect(400);
        talos.public.post(SELF_REVOKE, &json!({ "bad": 1 })).await.expect(400);
        talos.admin.post(VERIFY, &json!({ "credential": "nor-this" })).await.expect(200);
        talos.check(Check::bearer("nor-that")).await.denied(401);
    }
    talos.stop().await;
    let events: Vec<Value> = calls(&setup).into_iter().filter(|line| line["kind"] == "event").collect();
    let (summaries, failures): (Vec<&Value>, Vec<&Value>) =
        events.iter().map(|line| line.at("/events/0")).partition(|event| event["Operation"] == "summary");
    assert_eq!(failures.len(), 10, "{events:#?}");
    assert!(events.iter().all(|line| line.text("/events/0/event") == "APIKeyVerificationFailed"));
    assert_eq!(failures[0].text("/Reason"), "VERIFICATION_ERROR_NOT_FOUND");
    let dropped = |event: &&Value| event.get("Dropped").and_then(Value::as_u64).unwrap_or(0);
    let dropped: u64 = summaries.iter().chain(&failures).map(dropped).sum();
    assert_eq!(dropped, 50, "60 in all");
    whole(&setup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_moved_aside_when_it_is_full_or_by_somebody_else() {
    let setup = audited().set("TALOS_AUDIT_MAX_SIZE", "6000");
    let talos = setup.start().await;
    for _ in 0..12 {
        talos.issue(json!({})).await;
    }
    std::fs::rename(file(&setup), setup.path("audit/audit.jsonl.old")).must("moving the log");
    talos.process.signal(Signal::HUP);
    until("a new file is there", async || file(&setup).exists().then_some(())).await;
    talos.issue(json!({})).await;
    talos.stop().await;
    let talos = setup.start().await;
    talos.issue(json!({})).await;
    talos.stop().await;

    let names: Vec<String> = std::fs::read_dir(setup.path("audit"))
        .must("the directory")
        .map(|entry| format!("audit/{}", entry.must("an entry").file_name().to_string_lossy()))
        .collect();
    assert!(names.len() > 4, "{names:?}");
    let files: Vec<&str> = names.iter().map(String::as_str).collect();
    let (ok, findings) = verify(&setup, &files).await;
    assert!(ok, "{findings:#}");
    assert_eq!(findings.at("/chains").as_array().must("chains").len(), 1);
    assert_eq!(
        (findings.at("/chains/0/first"), findings.at("/chains/0/not_checked")),
        (&json!(1), &json!([]))
    );

    // One in the middle is missed; the last alone is not called the whole.
    let mut moved: Vec<&&str> = files.iter().filter(|name| name.contains("-0000")).collect();
    moved.sort();
    let without: Vec<&str> = files.iter().filter(|name| *name != moved[1]).copied().collect();
    let (ok, findings) = verify(&setup, &without).await;
    assert!(!ok && findings.text("/chains/0/problems/0").contains("missing before it"), "{findings:#}");
    let (ok, findings) = verify(&setup, &["audit/audit.jsonl"]).await;
    assert!(!ok && findings.text("/chains/0/problems/0").contains("history is missing"), "{findings:#}");
    let (ok, findings) = verify(&setup, &["audit/audit.jsonl", "--no-history"]).await;
    assert!(ok && findings.text("/chains/0/not_checked/0").contains("not in these files"), "{findings:#}");
    let (ok, findings) = verify(&setup, &[moved[1], "--no-history"]).await;
    assert!(!ok && findings.text("/chains/0/problems/0").contains("missing at the end"), "{findings:#}");
    assert!(verify(&setup, &[moved[1], "--part"]).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_with_one_configuration_have_a_file_each() {
    let setup = audited();
    let (one, two) = (setup.start().await, setup.start().await);
    one.issue(json!({})).await;
    two.issue(json!({})).await;
    let (ok, findings) = verify(&setup, &["audit/audit.jsonl", "audit/audit.jsonl.2"]).await;
    assert!(ok, "{findings:#}");
    assert_eq!(findings.at("/chains").as_array().must("chains").len(), 2);
    assert_eq!((findings.at("/chains/0/lines"), findings.at("/chains/1/lines")), (&json!(3), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_rotated_with_the_old_one_retired() {
    const NEW: &str = "another-audit-key-for-the-tests-0123456789";
    let setup = audited();
    let talos = setup.start().await;
    talos.issue(json!({})).await;
    talos.stop().await;
    let setup = setup.set("TALOS_AUDIT_KEY", NEW);
    let rotated = setup.clone().set("TALOS_AUDIT_KEY_RETIRED_0", super::KEY);
    let talos = rotated.start().await;
    talos.issue(json!({})).await;
    talos.stop().await;
    assert_eq!(whole(&rotated).await["lines"], 6);
    let (ok, findings) = verify(&setup, &["audit/audit.jsonl"]).await;
    assert!(!ok && findings.text("/chains/0/problems/0").contains("audit.key_retired"), "{findings:#}");
}
