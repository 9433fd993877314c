//! Credits: the costs of uses, the keys that share a balance, and what responses say of it.

mod refills;
mod shared;

use serde_json::{Value, json};

use super::limited;
use crate::edge::Edge;
use crate::rig::check::{Allowed, Check};
use crate::rig::database;
use crate::rig::http::{BOTH, Call, Version};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{IMPORTED, ISSUED, Key, Setup, Talos, VERIFY};

/// Issues a key with `remaining` credits.
async fn key(talos: &Talos, remaining: u64) -> Key {
    talos.issue(json!({ "credits": { "remaining": remaining.to_string() } })).await
}

fn path(key: &Key) -> String {
    format!("{ISSUED}/{}", key.id)
}

/// The credits of a key, as its resource shows them.
async fn shown(talos: &Talos, key: &Key) -> Value {
    talos.admin.get(&path(key)).await.expect(200).json()["credits"].clone()
}

/// The credits that a response says are left.
fn left(allowed: &Allowed) -> Option<String> {
    let added = allowed.ok.response_headers_to_add.iter().filter_map(|option| option.header.as_ref());
    let mut left = added.filter(|header| header.key == "talos-credits-remaining");
    left.next().map(|header| header.value.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_cost_credits_until_none_are_left() {
    let talos = Setup::new().start().await;
    let key = key(&talos, 3).await;
    assert_eq!(key.resource["credits"], json!({ "remaining": "3" }));
    // A use that is refused for another reason costs nothing.
    talos.check(Check::bearer(&key.secret).route("talos.scopes", "nonesuch")).await.denied(403);
    for remaining in [2, 1, 0] {
        let allowed = talos.check(Check::bearer(&key.secret)).await.allowed();
        assert_eq!(left(&allowed), Some(remaining.to_string()));
        assert_eq!(allowed.fact("credits_remaining"), json!(f64::from(remaining)));
        assert_eq!(allowed.fact("key_id"), json!(key.id), "the other metadata is there as well");
    }
    for _ in 0..2 {
        let denied = talos.check(Check::bearer(&key.secret)).await.denied(429);
        assert_eq!(denied.fact("reason"), Some(json!("credits_exhausted")));
        assert_eq!(denied.fact("credits_remaining"), Some(json!(0.0)));
        assert_eq!(denied.fact("key_id"), Some(json!(key.id)));
        assert_eq!(denied.header("talos-credits-remaining"), Some("0"));
        assert_eq!(denied.header("retry-after"), None, "waiting doesn't help");
        assert!(denied.body.contains("TOO_MANY_REQUESTS") && denied.body.contains("no credits left"));
    }
    assert_eq!(shown(&talos, &key).await, json!({ "remaining": "0" }));
    let listed = talos.admin.get(ISSUED).await.expect(200).json();
    assert_eq!(listed.at("/issued_api_keys/0/credits"), &json!({ "remaining": "0" }));
    // Others don't have any, and nobody says so.
    let other = talos.issue(json!({})).await;
    assert_eq!(other.resource.get("credits"), None);
    let allowed = talos.check(Check::bearer(&other.secret)).await.allowed();
    assert!(left(&allowed).is_none() && !allowed.has("credits_remaining"));
    assert_eq!(talos.verify(&other.secret).await.get("credits"), None);
    assert_eq!(talos.metric("talos_credit_failures_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_envoy_learns_what_is_left() {
    needs!(Envoy);
    let edge = Edge::with(Setup::new(), &[]).await;
    let key = key(&edge.talos, 2).await;
    for (version, left) in [(Version::Http1, "1"), (Version::Http2, "0")] {
        let reply = edge.send(version, Call::get("/").bearer(&key.secret)).await.expect(200);
        assert_eq!(reply.header("talos-credits-remaining"), Some(left));
        edge.seen();
    }
    for version in BOTH {
        let reply = edge.refuses(version, Call::get("/").bearer(&key.secret), 429).await;
        assert_eq!(reply.header("talos-credits-remaining"), Some("0"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_says_what_a_request_costs() {
    let talos = limited().start().await;
    let policy = json!({ "quota": "3", "window": "3600s" });
    let credits = json!({ "remaining": 10 });
    let key = talos.issue(json!({ "credits": credits, "rate_limit_policy": policy })).await;
    let ask = |cost: &str| Check::bearer(&key.secret).route("talos.cost", cost);
    let allowed = talos.check(ask("3")).await.allowed();
    assert_eq!(left(&allowed).as_deref(), Some("7"));
    // The rate limit refuses first, and what it refuses costs no credits.
    let denied = talos.check(ask("1")).await.denied(429);
    assert_eq!(denied.fact("reason"), Some(json!("rate_limited")));
    assert_eq!(shown(&talos, &key).await, json!({ "remaining": "7" }));
    let unlimited = json!({ "name": "n" });
    talos.patch(&format!("{}?update_mask=rate_limit_policy", path(&key)), &unlimited).await.expect(200);
    let denied = talos.check(ask("8")).await.denied(429);
    assert_eq!(denied.fact("reason"), Some(json!("credits_exhausted")));
    assert_eq!(denied.header("talos-credits-remaining"), Some("7"));
    talos.check(ask("7")).await.allowed();
    talos.check(ask("1")).await.denied(429);
    // A cost of 0 spends nothing.
    let allowed = talos.check(ask("0")).await.allowed();
    assert!(left(&allowed).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn verifying_spends_credits_by_default() {
    let talos = Setup::new().start().await;
    let key = key(&talos, 1).await;
    let body = json!({ "credential": key.secret });
    let verify =
        async |query: &str| talos.admin.post(&format!("{VERIFY}{query}"), &body).await.expect(200).json();
    for _ in 0..2 {
        let looked = verify("?charge=false").await;
        assert_eq!((&looked["is_valid"], &looked["credits"]), (&json!(true), &json!({ "remaining": "1" })));
    }
    let spent = verify("").await;
    assert_eq!((&spent["is_valid"], &spent["credits"]), (&json!(true), &json!({ "remaining": "0" })));
    let refused = verify("").await;
    assert_eq!(refused["is_valid"], false);
    assert_eq!(refused.text("/error_code"), "VERIFICATION_ERROR_RATE_LIMITED", "the SDK knows this one");
    assert_eq!(refused.text("/error_message"), "credits_exhausted");
    assert_eq!(refused["credits"], json!({ "remaining": "0" }));
    assert_eq!(verify("?charge=false").await["is_valid"], true);
    let batch = json!({ "requests": [body, { "credential": "unknown" }] });
    let answer = talos.admin.post("/v2alpha1/admin/apiKeys:batchVerify", &batch).await.expect(200).json();
    assert_eq!(answer.text("/results/0/error_message"), "credits_exhausted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_shares_what_is_left() {
    let talos = Setup::new().start().await;
    let old = key(&talos, 4).await;
    talos.check(Check::bearer(&old.secret)).await.allowed();
    let rotate = async |key: &Key, body: Value| {
        let rotated = talos.admin.post(&format!("{}:rotate", path(key)), &body).await.expect(201).json();
        let id = rotated.text("/issued_api_key/key_id").to_owned();
        let resource = rotated.at("/issued_api_key").clone();
        Key { id, secret: rotated.text("/secret").to_owned(), resource }
    };
    let new = rotate(&old, json!({ "grace_period": "1h" })).await;
    assert_eq!(new.resource["credits"], json!({ "remaining": "3" }));
    for (key, left) in [(&old, "2"), (&new, "1"), (&old, "0")] {
        talos.check(Check::bearer(&key.secret)).await.allowed();
        for key in [&old, &new] {
            assert_eq!(shown(&talos, key).await, json!({ "remaining": left }), "one balance");
        }
    }
    for key in [&old, &new] {
        talos.check(Check::bearer(&key.secret)).await.denied(429);
    }
    // One that is set is set for both; one of a successor's own is not.
    let five = json!({ "credits": { "remaining": "5" } });
    talos.patch(&path(&new), &five).await.expect(200);
    assert_eq!(shown(&talos, &old).await, json!({ "remaining": "5" }));
    let own = rotate(&new, json!({ "grace_period": "1h", "credits": { "remaining": "9" } })).await;
    talos.check(Check::bearer(&own.secret)).await.allowed();
    assert_eq!(shown(&talos, &own).await, json!({ "remaining": "8" }));
    assert_eq!(shown(&talos, &new).await, json!({ "remaining": "5" }));

    // A row goes with the last key that spends it.
    let rows = async || database::number(talos.setup.dsn(), "SELECT count(*) FROM credits").await;
    assert_eq!(rows().await, 2);
    talos.admin.send(Version::Http1, Call::new("DELETE", &path(&old))).await.expect(204);
    assert_eq!(shown(&talos, &new).await, json!({ "remaining": "5" }));
    talos.admin.send(Version::Http1, Call::new("DELETE", &path(&new))).await.expect(204);
    assert_eq!(rows().await, 1);
    talos.admin.send(Version::Http1, Call::new("DELETE", &path(&own))).await.expect(204);
    assert_eq!(rows().await, 0);
}

/// The successor of a key spends what the key was given first, whatever happens to the key.
#[tokio::test(flavor = "multi_thread")]
async fn credits_given_anew_leave_those_of_the_successor_alone() {
    let talos = Setup::new().start().await;
    let old = key(&talos, 9).await;
    let grace = json!({ "grace_period": "1h" });
    let rotated = talos.admin.post(&format!("{}:rotate", path(&old)), &grace).await.expect(201).json();
    let (id, secret) =
        (rotated.text("/issued_api_key/key_id").to_owned(), rotated.text("/secret").to_owned());
    let new = Key { id, secret, resource: rotated.at("/issued_api_key").clone() };
    let credits = format!("{}?update_mask=credits", path(&old));
    for given in ["5", "3"] {
        talos.patch(&credits, &json!({})).await.expect(200);
        assert_eq!(shown(&talos, &new).await, json!({ "remaining": "9" }));
        let body = json!({ "credits": { "remaining": given } });
        let answer = talos.patch(&credits, &body).await.expect(200).json();
        assert_eq!(answer["credits"], json!({ "remaining": given }));
        assert_eq!(shown(&talos, &old).await, json!({ "remaining": given }));
        assert_eq!(shown(&talos, &new).await, json!({ "remaining": "9" }), "given {given}");
    }
    for (key, remaining) in [(&old, "2"), (&new, "8"), (&old, "1")] {
        let allowed = talos.check(Check::bearer(&key.secret)).await.allowed();
        assert_eq!(left(&allowed).as_deref(), Some(remaining));
    }
    // Set once more, it is the same balance.
    talos.patch(&credits, &json!({ "credits": { "remaining": "4" } })).await.expect(200);
    let rows = async || database::number(talos.setup.dsn(), "SELECT count(*) FROM credits").await;
    assert_eq!(rows().await, 2);
    for (key, left) in [(&old, 1), (&new, 0)] {
        talos.admin.send(Version::Http1, Call::new("DELETE", &path(key))).await.expect(204);
        assert_eq!(rows().await, left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credits_are_set_changed_and_taken_away() {
    let talos = Setup::new().start().await;
    let plain = talos.issue(json!({})).await;
    let weekly = json!({ "remaining": "2", "refill": { "amount": "9", "every": "week", "at": "fri 06:00" } });
    let changed = talos.patch(&path(&plain), &json!({ "credits": weekly })).await.expect(200).json();
    assert_eq!(changed["credits"], weekly);
    until("it costs something", async || {
        let verdict = talos.check(Check::bearer(&plain.secret)).await;
        (!verdict.passes()).then_some(())
    })
    .await;
    // The resource that is sent back gives nothing back.
    let read = talos.admin.get(&path(&plain)).await.expect(200).json();
    assert_eq!(read["credits"]["remaining"], "0");
    talos.patch(&path(&plain), &changed).await.expect(200);
    talos.patch(&format!("{}?update_mask=*", path(&plain)), &changed).await.expect(200);
    assert_eq!(shown(&talos, &plain).await, read["credits"]);
    // By name it does, each time.
    for _ in 0..2 {
        let url = format!("{}?update_mask=credits", path(&plain));
        assert_eq!(talos.patch(&url, &changed).await.expect(200).json()["credits"], weekly);
        let allowed = talos.check(Check::bearer(&plain.secret)).await.allowed();
        assert_eq!(left(&allowed).as_deref(), Some("1"));
    }
    let url = format!("{}?update_mask=credits", path(&plain));
    let none = talos.patch(&url, &json!({})).await.expect(200).json();
    assert_eq!(none.get("credits"), None);
    for _ in 0..3 {
        talos.check(Check::bearer(&plain.secret)).await.allowed();
    }
    assert_eq!(database::number(talos.setup.dsn(), "SELECT count(*) FROM credits").await, 0);

    let imported = talos.import("legacy-credits", json!({ "credits": { "remaining": "1" } })).await;
    assert_eq!(imported.resource["credits"], json!({ "remaining": "1" }));
    talos.check(Check::bearer(&imported.secret)).await.allowed();
    talos.check(Check::bearer(&imported.secret)).await.denied(429);
    let again = Call::new("DELETE", &format!("{IMPORTED}/{}", imported.id));
    talos.admin.send(Version::Http1, again).await.expect(204);
    let imported = talos.import("legacy-credits", json!({ "credits": { "remaining": "2" } })).await;
    assert_eq!(talos.verify(&imported.secret).await["credits"], json!({ "remaining": "1" }));

    // A repeated request makes one key with one balance.
    let request =
        json!({ "name": "n", "actor_id": "a", "request_id": "once", "credits": { "remaining": 7 } });
    let first = talos.admin.post(ISSUED, &request).await.expect(201).json();
    let second = talos.admin.post(ISSUED, &request).await.expect(201).json();
    assert_eq!(first.at("/issued_api_key"), second.at("/issued_api_key"));
    let mut other = request.clone();
    other["credits"]["remaining"] = json!(8);
    talos.admin.post(ISSUED, &other).await.expect(409);
    for (credits, field) in [
        (json!({ "remaining": -1 }), "credits.remaining"),
        (json!({ "remaining": 1, "refill": { "amount": 1, "every": "hour" } }), "credits.refill.every"),
        (json!({ "remaining": 1, "left": 1 }), "credits.left"),
    ] {
        let body = json!({ "name": "n", "actor_id": "a", "credits": credits });
        let error = talos.admin.post(ISSUED, &body).await.expect(400).json();
        assert_eq!(error.at("/error/details/0/metadata/field"), field, "{error:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_gives_credits() {
    let talos = Setup::new().start().await;
    let endpoint = talos.admin.url("");
    let run = async |words: &[&str]| {
        let output = talos.setup.run(&[words, &["-e", &endpoint]].concat()).await;
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).must("text")
    };
    let refill = "1000/month@1 03:00";
    let words =
        ["keys", "issue", "n", "--actor", "a", "--credits", "5", "--credits-refill", refill, "-o", "json"];
    let issued: Value = serde_json::from_str(&run(&words).await).must("JSON");
    let given =
        json!({ "remaining": "5", "refill": { "amount": "1000", "every": "month", "at": "1 03:00" } });
    assert_eq!(issued.at("/issued_api_key/credits"), &given);
    let id = issued.text("/issued_api_key/key_id");
    let table = run(&["keys", "issued", "get", id]).await;
    assert!(table.contains("5, refilled up to 1000 every month at 1 03:00 UTC"), "{table}");
    let shown = run(&["keys", "verify", issued.text("/secret"), "--charge"]).await;
    assert!(shown.contains("4, refilled up to"), "{shown}");
    let updated = run(&["keys", "issued", "update", id, "--credits", "7", "-o", "json"]).await;
    let updated: Value = serde_json::from_str(&updated).must("JSON");
    assert_eq!(updated["credits"], json!({ "remaining": "7" }));
    let updated = run(&["keys", "issued", "update", id, "--credits", "", "-o", "json"]).await;
    let updated: Value = serde_json::from_str(&updated).must("JSON");
    assert_eq!(updated.get("credits"), None);
}
