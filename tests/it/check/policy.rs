//! The policy of a route, from Envoy's context extensions, and the addresses of a key.

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::support::{Json, Must, claims};
use crate::rig::talos::{Setup, Talos};

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_not_understood_is_never_guessed() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let bad = [
        ("talos.foo", "x"),
        ("talos.", "x"),
        ("talos.mode", "sometimes"),
        ("talos.mode", ""),
        ("talos.mode", "OFF"),
        ("talos.token", "macaroon"),
        ("talos.visibility", "private"),
        ("talos.scopes", "quo\"te"),
    ];
    for (name, value) in bad {
        for ask in [Check::bearer(&key.secret), Check::default()] {
            talos.check(ask.route(name, value)).await.denied(500);
        }
    }
    // Settings with other prefixes are ignored.
    talos.check(Check::bearer(&key.secret).route("other.setting", "x")).await.allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_is_too_long_is_refused_and_logged_once() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let ask = |bytes: usize| {
        let metadata = json!({ "resources": "a".repeat(bytes) });
        Check::bearer(&key.secret).metadata("envoy-gateway", &metadata)
    };
    talos.check(ask(60_000)).await.allowed();
    for _ in 0..5 {
        talos.check(ask(70_000)).await.denied(500);
    }
    talos.check(Check::bearer(&key.secret).route("talos.foo", "x")).await.denied(500);
    let log = talos.process.log();
    for problem in ["is longer than 65536 bytes", "context extension talos.foo"] {
        assert_eq!(log.matches(problem).count(), 1, "{problem}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_say_who_may_pass() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    // For no key, a bad key and a good key: the status, 200 for a pass.
    for (mode, wanted) in
        [("required", [401, 401, 200]), ("optional", [200, 401, 200]), ("off", [200, 200, 200])]
    {
        let asks = [Check::default(), Check::bearer("garbage"), Check::bearer(&key.secret)];
        for (ask, status) in asks.into_iter().zip(wanted) {
            let verdict = talos.check(ask.route("talos.mode", mode)).await;
            match status {
                200 => drop(verdict.allowed()),
                status => drop(verdict.denied(status)),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_need_all_and_any_scope_one() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "scopes": ["a", "b:*"] })).await;
    let cases = [
        ("talos.scopes", "a", true),
        ("talos.scopes", "a b:read", true),
        ("talos.scopes", "a b:read:all", true),
        ("talos.scopes", "b:*", true),
        ("talos.scopes", "a c", false),
        ("talos.scopes", "b", false),
        ("talos.scopes", "b:", false),
        ("talos.scopes", "*", false),
        ("talos.any_scope", "c a", true),
        ("talos.any_scope", "c b:x", true),
        ("talos.any_scope", "c d", false),
    ];
    for (name, value, enough) in cases {
        let verdict = talos.check(Check::bearer(&key.secret).route(name, value)).await;
        if enough {
            verdict.allowed();
            continue;
        }
        let denied = verdict.denied(403);
        let challenge = denied.header("www-authenticate").must("a challenge");
        assert!(challenge.contains("error=\"insufficient_scope\""), "{name} {value}: {challenge}");
        assert!(challenge.contains(&format!("scope=\"{value}\"")), "{name} {value}: {challenge}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_goes_into_the_minted_token_and_is_asked_of_a_presented_one() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    for audience in ["billing", "mail"] {
        let allowed =
            talos.check(Check::bearer(&key.secret).route("talos.audience", audience)).await.allowed();
        let claims = claims(&allowed.token());
        let aud = claims.at("/aud");
        assert!(*aud == json!(audience) || *aud == json!([audience]), "{claims:#}");
    }
    let plain = talos.check(Check::bearer(&key.secret)).await.allowed();
    assert_eq!(claims(&plain.token()).get("aud"), None);

    let bound = talos.derive(&key, json!({ "audiences": ["billing"] })).await;
    let unbound = talos.derive(&key, json!({})).await;
    let ask = |token: &str| Check::bearer(token).route("talos.audience", "billing");
    assert_eq!(talos.check(ask(&bound)).await.allowed().token(), bound);
    let other = talos.check(Check::bearer(&bound).route("talos.audience", "mail")).await;
    for verdict in [other, talos.check(ask(&unbound)).await] {
        verdict.denied(401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_can_go_without_a_token() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    for (header, ask) in
        [("authorization", Check::bearer(&key.secret)), ("x-api-key", Check::api_key(&key.secret))]
    {
        let allowed = talos.check(ask.route("talos.token", "none")).await.allowed();
        assert_eq!(allowed.header("authorization"), None);
        assert!(allowed.removes(header), "{:?}", allowed.ok.headers_to_remove);
        assert_eq!(allowed.header("x-talos-key-id"), Some(key.id.clone()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_can_refuse_publishable_keys() {
    let talos = Setup::new().set("TALOS_CREDENTIALS_API_KEYS_PREFIX_PUBLIC_CURRENT", "pk").start().await;
    let public = talos.issue(json!({ "visibility": "KEY_VISIBILITY_PUBLIC" })).await;
    let secret = talos.issue(json!({})).await;
    let token = talos.derive(&public, json!({})).await;
    for credential in [&public.secret, &token] {
        talos.check(Check::bearer(credential)).await.allowed();
        talos.check(Check::bearer(credential).route("talos.visibility", "secret")).await.denied(403);
    }
    talos.check(Check::bearer(&secret.secret).route("talos.visibility", "secret")).await.allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_works_from_its_addresses_only() {
    let talos = Talos::start().await;
    // Loopback is where this test itself derives from.
    let cidrs = json!(["10.1.0.0/16", "2001:db8::/32", "127.0.0.0/8"]);
    let key = talos.issue(json!({ "ip_restriction": { "allowed_cidrs": cidrs } })).await;
    let token = talos.derive(&key, json!({})).await;
    let cases = [
        ("10.1.2.3", true),
        ("2001:db8::7", true),
        ("10.2.0.1", false),
        ("2001:db9::1", false),
        ("not-an-address", false),
        ("", false),
    ];
    for credential in [&key.secret, &token] {
        for (address, allowed) in cases {
            // The client's own word about its address counts for nothing.
            let ask = Check::bearer(credential).from(address).header("x-forwarded-for", "10.1.2.3");
            let verdict = talos.check(ask).await;
            assert_eq!(verdict.passes(), allowed, "{address}: {verdict:?}");
            if !allowed {
                verdict.denied(403);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_macaroon_is_exchanged_for_what_the_route_asks_for() {
    let setup = Setup::new().set("TALOS_CREDENTIALS_API_KEYS_PREFIX_PUBLIC_CURRENT", "pub");
    let talos = setup.set("TALOS_AUTHZ_TOKEN_TTL", "30s").start().await;
    let derive = async |key, audiences| {
        let fields = json!({ "algorithm": "TOKEN_ALGORITHM_MACAROON", "audiences": audiences });
        talos.derive(key, fields).await
    };
    let key = talos.issue(json!({ "scopes": ["a"] })).await;
    let bound = derive(&key, json!(["billing", "mail"])).await;
    let unbound = derive(&key, json!([])).await;

    let exchanged = |allowed: crate::rig::check::Allowed| claims(&allowed.token());
    let free = exchanged(talos.check(Check::bearer(&bound)).await.allowed());
    assert_eq!(free.texts("/aud"), ["billing", "mail"]);
    let life = free.at("/exp").as_u64().must("exp") - free.at("/iat").as_u64().must("iat");
    assert_eq!(life, 330, "authz.token_ttl comes before the macaroon's end, credentials.clock_skew after");
    let on_route = talos.check(Check::bearer(&bound).route("talos.audience", "mail")).await.allowed();
    assert_eq!(exchanged(on_route).texts("/aud"), ["mail"]);
    assert_eq!(exchanged(talos.check(Check::bearer(&unbound)).await.allowed()).get("aud"), None);
    talos.check(Check::bearer(&bound).route("talos.audience", "bill")).await.denied(401);
    talos.check(Check::bearer(&unbound).route("talos.audience", "mail")).await.denied(401);

    let none = talos.check(Check::bearer(&bound).route("talos.token", "none")).await.allowed();
    assert!(none.removes("authorization"));
    assert_eq!(none.header("authorization"), None);

    let public = talos.issue(json!({ "visibility": "KEY_VISIBILITY_PUBLIC" })).await;
    let public = derive(&public, json!([])).await;
    talos.check(Check::bearer(&public)).await.allowed();
    talos.check(Check::bearer(&public).route("talos.visibility", "secret")).await.denied(403);

    // Each is a token of its own, and as good as any when it is shown to us again.
    let again = talos.check(Check::bearer(&bound)).await.allowed().token();
    assert_ne!(claims(&again).text("/jti"), free.text("/jti"));
    assert_eq!(talos.check(Check::bearer(&again)).await.allowed().token(), again);
}
