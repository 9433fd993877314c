//! Several networks in one process: chosen by the host of a request, and isolated from each other.

use serde_json::{Value, json};

use crate::edge::Edge;
use crate::rig::check::Check;
use crate::rig::http::{Base, Call, Reply, Version};
use crate::rig::redis::Redis;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{
    DERIVE, IMPORTED, ISSUED, ISSUER, JWKS, Key, SELF_REVOKE, Setup, Talos, VERIFY, generate_as,
};

const A: &str = "a.example";
const B: &str = "b.example";
const A_ID: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
const B_ID: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";
const UNKNOWN: &str = "c.example";

const BATCH_VERIFY: &str = "/v2alpha1/admin/apiKeys:batchVerify";
const ANY: &str = "/v2alpha1/admin/apiKeys";

/// Two networks; the file of the second, when it has one, says `own`.
fn two(setup: Setup, own: Option<&str>) -> Setup {
    let mut networks = json!([{ "hostname": A, "id": A_ID }, { "hostname": B, "id": B_ID }]);
    if let Some(own) = own {
        let file = setup.path("b.yaml");
        std::fs::write(&file, own).must("writing a network's file");
        networks[1]["config_path"] = file.display().to_string().into();
    }
    setup.set("TALOS_MULTITENANCY_ENABLED", "true").set("TALOS_MULTITENANCY_NETWORKS", &networks.to_string())
}

async fn send(base: Base, host: &str, call: Call) -> Reply {
    base.send(Version::Http1, call.header("host", host)).await
}

async fn post(base: Base, host: &str, path: &str, body: &Value) -> Reply {
    send(base, host, Call::post(path).json(body)).await
}

async fn get(base: Base, host: &str, path: &str) -> Reply {
    send(base, host, Call::get(path)).await
}

async fn issue(talos: &Talos, host: &str, fields: Value) -> Key {
    let mut body = json!({ "name": "a key", "actor_id": "alice", "scopes": ["orders:read"] });
    body.as_object_mut().must("an object").extend(fields.as_object().must("an object").clone());
    let answer = post(talos.admin, host, ISSUED, &body).await.expect(201).json();
    Key {
        id: answer.text("/issued_api_key/key_id").to_owned(),
        secret: answer.text("/secret").to_owned(),
        resource: answer.at("/issued_api_key").clone(),
    }
}

async fn import(talos: &Talos, host: &str, raw_key: &str, actor: &str) -> Key {
    let body = json!({ "name": "a key", "actor_id": actor, "raw_key": raw_key });
    let resource = post(talos.admin, host, IMPORTED, &body).await.expect(201).json();
    Key { id: resource.text("/key_id").to_owned(), secret: raw_key.to_owned(), resource }
}

async fn derive(talos: &Talos, host: &str, key: &Key, algorithm: &str) -> String {
    let body = json!({ "credential": key.secret, "algorithm": algorithm });
    post(talos.admin, host, DERIVE, &body).await.expect(200).json().text("/token/token").to_owned()
}

/// Returns the status and body of an answer, without what differs between any two answers.
fn said(reply: &Reply) -> (u16, Value) {
    let text = reply.text_without_id();
    let mut body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).must("JSON") };
    if let Some(body) = body.as_object_mut() {
        body.remove("next_page_token");
    }
    (reply.status, body)
}

/// Actors of the same name in two networks are different.
#[tokio::test(flavor = "multi_thread")]
async fn the_actors_of_another_network_are_others() {
    let talos = two(Setup::new(), None).start().await;
    let (ours, theirs) = (issue(&talos, A, json!({})).await, issue(&talos, B, json!({})).await);
    let actor = "/v2alpha1/admin/actors/alice";
    post(talos.admin, A, &format!("{actor}:suspend"), &json!({ "reason": "unpaid" })).await.expect(200);
    talos.check(Check::bearer(&ours.secret).host(A)).await.denied(401);
    talos.check(Check::bearer(&theirs.secret).host(B)).await.allowed();
    assert_eq!(get(talos.admin, B, actor).await.expect(200).json().get("suspension"), None);
    let erase = Call::new("DELETE", &format!("{actor}?force=true"));
    send(talos.admin, B, erase).await.expect(200);
    assert_eq!(get(talos.admin, A, actor).await.expect(200).json().text("/suspension/reason"), "unpaid");
}

/// Each operation on a key of another network answers what it answers to a key that doesn't exist,
/// and does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_another_network_are_unknown() {
    let talos = two(Setup::new(), None).start().await;
    let issued = issue(&talos, B, json!({})).await;
    let imported = import(&talos, B, "their-imported-key", "bob").await;
    let none = issue(&talos, A, json!({})).await;
    let gone = import(&talos, A, "a-key-that-is-gone", "bob").await;
    send(talos.admin, A, Call::new("DELETE", &format!("{IMPORTED}/{}", gone.id))).await.expect(204);
    talos.setup.sql(&format!("DELETE FROM api_keys WHERE key_id = '{}'", none.id));

    let reason = json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" });
    let name = json!({ "name": "mine now" });
    for (theirs, nothing, collection) in [(&issued, &none, ISSUED), (&imported, &gone, IMPORTED)] {
        let calls = |id: &str| {
            let mut calls = vec![
                Call::get(&format!("{collection}/{id}")),
                Call::new("PATCH", &format!("{collection}/{id}?update_mask=name")).json(&name),
                Call::post(&format!("{collection}/{id}:revoke")).json(&reason),
                Call::post(&format!("{ANY}/{id}:revoke")).json(&reason),
                Call::post(&format!("{collection}/{id}:suspend")).json(&json!({})),
                Call::post(&format!("{collection}/{id}:resume")).json(&json!({})),
            ];
            match collection {
                ISSUED => calls.push(Call::post(&format!("{collection}/{id}:rotate")).json(&json!({}))),
                _ => calls.push(Call::new("DELETE", &format!("{collection}/{id}"))),
            }
            calls
        };
        for (call, of_none) in calls(&theirs.id).into_iter().zip(calls(&nothing.id)) {
            let what = call.path.clone();
            let reply = send(talos.admin, A, call).await;
            assert_eq!(reply.status, 404, "{what}");
            assert_eq!(said(&reply), said(&send(talos.admin, A, of_none).await), "{what}");
        }
        for (plane, path) in [
            (talos.admin, VERIFY),
            (talos.admin, DERIVE),
            (talos.admin, SELF_REVOKE),
            (talos.public, SELF_REVOKE),
        ] {
            let about =
                async |key: &Key| said(&post(plane, A, path, &json!({ "credential": key.secret })).await);
            assert_eq!(about(theirs).await, about(nothing).await, "{path}");
        }
        let batch =
            json!({ "requests": [{ "credential": theirs.secret }, { "credential": nothing.secret }] });
        let answer = post(talos.admin, A, BATCH_VERIFY, &batch).await.expect(200).json();
        assert_eq!(answer.at("/results/0"), answer.at("/results/1"));
        for credential in [&theirs.secret, &nothing.secret] {
            talos.check(Check::bearer(credential).host(A)).await.denied(401);
        }

        // All of that did nothing to it.
        let allowed = talos.check(Check::bearer(&theirs.secret).host(B)).await.allowed();
        assert_eq!(allowed.header("x-talos-network-id").must("a network"), B_ID);
        let now = get(talos.admin, B, &format!("{collection}/{}", theirs.id)).await.expect(200).json();
        assert_eq!(now.text("/name"), "a key");
        assert_eq!(now.text("/status"), theirs.resource.text("/status"));
    }
    // Nor is one found by listing.
    for collection in [ISSUED, IMPORTED] {
        let page = get(talos.admin, A, collection).await.expect(200).json();
        assert!(!page.to_string().contains("their"), "{page}");
        let list = page.as_object().must("an object").values().find_map(Value::as_array).must("a list");
        assert_eq!(list.len(), 0, "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_page_tokens_stay_in_their_network() {
    let talos = two(Setup::new(), None).start().await;
    let key = issue(&talos, A, json!({})).await;
    for algorithm in ["TOKEN_ALGORITHM_JWT", "TOKEN_ALGORITHM_MACAROON"] {
        let token = derive(&talos, A, &key, algorithm).await;
        let verify = async |host: &str| {
            post(talos.admin, host, VERIFY, &json!({ "credential": token })).await.expect(200).json()
        };
        assert_eq!(verify(A).await["is_valid"], true, "{algorithm}");
        let elsewhere = verify(B).await;
        assert_eq!(elsewhere["is_valid"], false);
        assert_eq!(elsewhere.text("/error_code"), "VERIFICATION_ERROR_NOT_FOUND", "{algorithm}");
        let allowed = talos.check(Check::bearer(&token).host(A)).await.allowed();
        assert_eq!(allowed.header("x-talos-network-id").must("a network"), A_ID);
        talos.check(Check::bearer(&token).host(B)).await.denied(401);
    }

    for host in [A, B] {
        issue(&talos, host, json!({})).await;
        issue(&talos, host, json!({})).await;
    }
    let page = get(talos.admin, A, &format!("{ISSUED}?page_size=1")).await.expect(200).json();
    let next = format!("{ISSUED}?page_size=1&page_token={}", page.text("/next_page_token"));
    get(talos.admin, A, &next).await.expect(200);
    let refused = get(talos.admin, B, &next).await.expect_bad_request();
    assert!(refused.contains("page_token"), "{refused}");
}

/// The same raw key, and even the same id under the same HMAC secret, are two keys in two networks:
/// in the database, in memory, and in Redis, from where the second process has them.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_in_two_networks_is_two_keys() {
    needs!(Redis);
    let redis = Redis::start().await;
    let talos = redis.used_by(two(Setup::new(), None)).start().await;
    let second = talos.setup.start().await;
    let (of_a, of_b) = (
        import(&talos, A, "the-same-raw-key", "alice").await,
        import(&talos, B, "the-same-raw-key", "bob").await,
    );
    assert_ne!(of_a.id, of_b.id);

    let issued = issue(&talos, A, json!({})).await;
    talos.setup.sql(&format!("CREATE TABLE copied AS SELECT * FROM api_keys WHERE key_id = '{}'", issued.id));
    talos.setup.sql(&format!("UPDATE copied SET network_id = '{B_ID}', actor_id = 'bob', request_id = NULL"));
    talos.setup.sql("INSERT INTO api_keys SELECT * FROM copied");

    for credential in [&issued.secret, "the-same-raw-key"] {
        // From the database, from memory, and from another instance's Redis entry.
        for talos in [&talos, &talos, &second, &second] {
            for (host, network, actor) in [(A, A_ID, "alice"), (B, B_ID, "bob")] {
                let allowed = talos.check(Check::bearer(credential).host(host)).await.allowed();
                assert_eq!(allowed.header("x-talos-network-id").must("a network"), network);
                assert_eq!(allowed.header("x-talos-actor-id").must("an actor"), actor);
            }
        }
        post(talos.public, A, SELF_REVOKE, &json!({ "credential": credential })).await.expect(200);
        talos.check(Check::bearer(credential).host(A)).await.denied(401);
        until("the other process hears of it", async || {
            (!second.check(Check::bearer(credential).host(A)).await.passes()).then_some(())
        })
        .await;
        for talos in [&talos, &second] {
            talos.check(Check::bearer(credential).host(B)).await.allowed();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_and_rates_are_counted_by_network() {
    let setup = two(Setup::new(), None).set("TALOS_QUOTA_API_KEYS_MAX", "1");
    let talos = setup.set("TALOS_RATE_LIMIT_ENABLED", "true").start().await;
    let policy = json!({ "rate_limit_policy": { "quota": "1", "window": "3600s" } });
    for host in [A, B] {
        let key = issue(&talos, host, policy.clone()).await;
        let body = json!({ "name": "one too many", "actor_id": "alice" });
        post(talos.admin, host, ISSUED, &body).await.expect_error(402, "API_KEY_QUOTA_EXCEEDED");
        talos.check(Check::bearer(&key.secret).host(host)).await.allowed();
        talos.check(Check::bearer(&key.secret).host(host)).await.denied(429);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_found_by_the_host_and_nothing_else() {
    let talos = two(Setup::new(), None).start().await;
    let key = issue(&talos, A, json!({})).await;
    for host in ["A.Example", "a.example:4420", "a.example.", "A.EXAMPLE.:80"] {
        get(talos.admin, host, ISSUED).await.expect(200);
        get(talos.public, host, JWKS).await.expect(200);
        talos.check(Check::bearer(&key.secret).host(host)).await.allowed();
    }
    let long = format!("a.example{}", ".x".repeat(200));
    for host in [
        UNKNOWN,
        "xa.example",
        "a.example.evil",
        "127.0.0.1",
        "localhost",
        "a..example",
        "a.example:x",
        &long,
    ] {
        get(talos.admin, host, ISSUED).await.expect_error(404, "NOT_FOUND");
        get(talos.public, host, JWKS).await.expect_error(404, "NOT_FOUND");
        let body = json!({ "credential": key.secret });
        post(talos.public, host, SELF_REVOKE, &body).await.expect_error(404, "NOT_FOUND");
        talos.check(Check::bearer(&key.secret).host(host)).await.denied(404);
        // Routes that don't depend on a network answer for every host.
        for plane in [talos.admin, talos.public] {
            get(plane, host, "/health/ready").await.expect(200);
        }
    }
    // Whoever may not be believed is not.
    let forged = Call::get(ISSUED).header("x-forwarded-host", B);
    let list = send(talos.admin, A, forged).await.expect(200).json();
    assert_eq!(list.at("/issued_api_keys/0/key_id"), key.id.as_str());
    assert_eq!(talos.metric("talos_http_refused_total").await, 24.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_trusted_may_name_the_host() {
    let trusting = two(Setup::new(), None).set("TALOS_SERVE_HTTP_TRUST_FORWARDED_HOST", "true");
    let talos = trusting.set("TALOS_SERVE_HTTP_ALLOWED_HOSTS", "talos.internal").start().await;
    let key = issue(&talos, A, json!({})).await;
    let found = async |host: &str, forwarded: &[&str]| {
        let call = Call::get(&format!("{ISSUED}/{}", key.id));
        let call = forwarded.iter().fold(call, |call, name| call.header("x-forwarded-host", name));
        send(talos.admin, host, call).await.status
    };
    for (host, forwarded, status) in [
        ("talos.internal", &[A][..], 200),
        ("127.0.0.1:4420", &["A.example:443"], 200),
        (B, &[A], 200),
        (A, &[B], 404),
        (A, &[UNKNOWN], 404),
        (A, &[], 200),
        ("talos.internal", &[], 404),
        (A, &[A, A], 400),
        (A, &["a.example, a.example"], 400),
        // A page of another site, whose name was made to point here.
        ("evil.example", &[A], 403),
    ] {
        assert_eq!(found(host, forwarded).await, status, "{host} {forwarded:?}");
    }
    // The public plane has no list of hosts unless one is set.
    let call = Call::get(JWKS).header("x-forwarded-host", A);
    send(talos.public, "evil.example", call).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn through_envoy_the_host_decides() {
    needs!(Envoy);
    let edge = Edge::with(two(Setup::new(), None), &[]).await;
    let key = issue(&edge.talos, A, json!({})).await;
    let with = |host: &str| Call::get("/").bearer(&key.secret).header("host", host);
    edge.send(Version::Http1, with(A)).await.expect(200);
    assert_eq!(edge.seen().header("x-talos-network-id"), Some(A_ID));
    for (host, status) in [(B, 401), (UNKNOWN, 404)] {
        edge.refuses(Version::Http1, with(host), status).await;
    }
}

/// Everything that a network's own file may say.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_has_what_its_file_says() {
    let setup = Setup::new();
    let jwks = setup.path("b.jwks");
    generate_as("of-b", "eddsa", &jwks);
    let own = format!(
        "credentials:\n  issuer: https://b.issuer\n  api_keys: {{prefix: {{current: bkey}}, default_ttl: 1h}}\n  \
         derived_tokens: {{jwt: {{signing_keys: {{urls: ['file://{}']}}}}}}\n\
         secrets: {{hmac: {{current: b-has-a-secret-of-its-own-0123456789}}}}\n\
         rate_limit: {{enabled: true}}\ncache: {{ttl: 1m}}\n",
        jwks.display()
    );
    let talos = two(setup, Some(&own)).start().await;
    let policy = json!({ "rate_limit_policy": { "quota": "2", "window": "3600s" } });
    let (of_a, of_b) = (issue(&talos, A, policy.clone()).await, issue(&talos, B, policy).await);
    assert!(of_a.secret.starts_with("ory_ak_v1_") && of_b.secret.starts_with("bkey_v1_"));
    assert!(of_a.resource.get("expire_time").is_none() && of_b.resource.get("expire_time").is_some());
    let kids = async |host: &str| get(talos.public, host, JWKS).await.expect(200).json();
    assert_eq!(kids(A).await.text("/keys/0/kid"), "it-1");
    assert_eq!(kids(B).await.text("/keys/0/kid"), "of-b");
    let claims = async |host: &str, key: &Key| {
        let allowed = talos.check(Check::bearer(&key.secret).host(host)).await.allowed();
        post(talos.admin, host, VERIFY, &json!({ "credential": allowed.token() })).await.expect(200).json()
    };
    let (in_a, in_b) = (claims(A, &of_a).await, claims(B, &of_b).await);
    assert_eq!((in_a.text("/issuer"), in_b.text("/issuer")), (ISSUER, "https://b.issuer"), "{in_a} {in_b}");
    talos.check(Check::bearer(&of_b.secret).host(B)).await.allowed();
    talos.check(Check::bearer(&of_b.secret).host(B)).await.denied(429);
    for _ in 0..4 {
        talos.check(Check::bearer(&of_a.secret).host(A)).await.allowed();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_network_file_may_not_set_are_named() {
    for (own, output) in [
        ("serve: {http: {port: 1}}", "serve.http.port: cannot be set for one network; credentials, secrets"),
        ("cache: {enabled: false}", "cache.enabled: cannot be set for one network"),
        ("multitenancy: {enabled: false}", "multitenancy.enabled: cannot be set for one network"),
        ("secrets: {hmac: {current: short}}", "secrets.hmac.current: must have at least 32 characters"),
        ("credentials: {nonesuch: 1}", "credentials.nonesuch: unknown key"),
        ("[]", "must be a mapping of keys to values"),
    ] {
        let written = two(Setup::new(), Some(own)).refused().await;
        assert!(written.contains(output) && written.contains("b.yaml"), "{own}: {written}");
        assert!(!written.contains("short"), "{written}");
    }
    let missing = Setup::new().set("TALOS_MULTITENANCY_ENABLED", "true").set(
        "TALOS_MULTITENANCY_NETWORKS",
        &json!([{ "hostname": A, "id": A_ID, "config_path": "none.yaml" }]).to_string(),
    );
    let written = missing.refused().await;
    assert!(written.contains("none.yaml: cannot be read"), "{written}");
    for (networks, output) in [
        (json!([{ "hostname": "a b", "id": A_ID }]), "networks[0].hostname: must be a host's name"),
        (json!([{ "hostname": A, "id": "one" }]), "networks[0].id: must be a UUID"),
        (
            json!([{ "hostname": A, "id": A_ID }, { "hostname": "A.example:80", "id": B_ID }]),
            "networks[1].hostname: is that of an earlier network",
        ),
        (
            json!([{ "hostname": A, "id": A_ID }, { "hostname": B, "id": A_ID, "config_path": "b.yaml" }]),
            "networks[1].config_path: must be that of the earlier host of this network",
        ),
    ] {
        let setup = Setup::new().set("TALOS_MULTITENANCY_ENABLED", "true");
        let written = setup.set("TALOS_MULTITENANCY_NETWORKS", &networks.to_string()).refused().await;
        assert!(written.contains(output), "{networks}: {written}");
    }
}

/// A network's file is watched as the configuration's is: a good change applies, a bad one changes
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_networks_file_applies_while_the_process_runs() {
    let talos = two(Setup::new(), Some("")).start().await;
    let old = issue(&talos, B, json!({})).await;
    let file = talos.setup.path("b.yaml");
    let own = "credentials: {api_keys: {prefix: {current: fresh, retired: [ory_ak]}}}";
    std::fs::write(&file, own).must("writing a network's file");
    until("the prefix is in force", async || {
        issue(&talos, B, json!({})).await.secret.starts_with("fresh_v1_").then_some(())
    })
    .await;
    assert!(issue(&talos, A, json!({})).await.secret.starts_with("ory_ak_v1_"), "the others keep theirs");
    talos.check(Check::bearer(&old.secret).host(B)).await.allowed();

    std::fs::write(&file, "credentials: {api_keys: {prefix: {current: 'a b'}}}").must("writing it badly");
    until("the log tells", async || {
        let log = talos.process.log();
        (log.contains("credentials.api_keys.prefix.current") && log.contains("b.yaml")).then_some(())
    })
    .await;
    assert!(issue(&talos, B, json!({})).await.secret.starts_with("fresh_v1_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_life_of_a_token_in_any_network_is_what_status_says() {
    let exposure = async |own: &str| {
        let talos = two(Setup::new(), Some(own)).start().await;
        let status = talos.metrics.get("/status").await.expect(200).json();
        status.at("/exposure/derived_token_seconds").as_f64().must("seconds")
    };
    let (longer, shorter) = tokio::join!(
        exposure("credentials: {derived_tokens: {max_ttl: 48h}}"),
        exposure("credentials: {derived_tokens: {max_ttl: 2h}}"),
    );
    assert_eq!((longer, shorter), (172_805.0, 86_405.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_governs_a_network_and_its_actors_is_its_own() {
    let own = "{roles: {reader: [orders:read]}, issuance_policies: [{name: named, name_pattern: 'a.*'}]}";
    let talos = two(Setup::new(), Some(own)).start().await;
    let of_a = get(talos.admin, A, "/v2alpha1/admin/policies").await.expect(200).json();
    assert_eq!(of_a, json!({ "issuance_policies": [], "roles": {} }));
    let of_b = get(talos.admin, B, "/v2alpha1/admin/policies").await.expect(200).json();
    assert_eq!(
        (of_b.text("/issuance_policies/0/name"), &of_b["roles"]["reader"][0]),
        ("named", &json!("orders:read"))
    );

    let limits = json!({ "rate_limit_policies": [{ "name": "day", "quota": "1", "window": "3600s" }] });
    let path = "/v2alpha1/admin/actors/alice";
    send(talos.admin, A, Call::new("PATCH", path).json(&limits)).await.expect(200);
    assert!(get(talos.admin, B, path).await.expect(200).json().get("rate_limit_policies").is_none());
    let (in_a, in_b) = (issue(&talos, A, json!({})).await, issue(&talos, B, json!({})).await);
    for (host, key, is_limited) in [(A, in_a, true), (B, in_b, false)] {
        let shown = get(talos.admin, host, &format!("{ISSUED}/{}", key.id)).await.expect(200).json();
        assert_eq!(shown.get("actor_rate_limit_policies").is_some(), is_limited, "{host}");
    }
    // An admin of the server learns which networks there are.
    let me = get(talos.admin, B, "/v2alpha1/admin/whoami").await.expect(200).json();
    let networks = json!([{ "hostname": A, "network_id": A_ID }, { "hostname": B, "network_id": B_ID }]);
    assert_eq!((me.text("/network_id"), &me["networks"]), (B_ID, &networks));
}
