//! Sources of the client's address, and keys that are bound to addresses.

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::python::narrow_macaroon;
use crate::rig::talos::{HMAC_SECRET, ISSUER, Setup, Talos};

/// Every kind of credential, good for 10.1.0.0/16, 2001:db8::/32 and loopback, where the test
/// derives from.
async fn credentials(talos: &Talos) -> Vec<(&'static str, String)> {
    let cidrs = ["10.1.0.0/16", "2001:db8::/32", "127.0.0.0/8"];
    let fields = json!({ "ip_restriction": { "allowed_cidrs": cidrs } });
    let issued = talos.issue(fields.clone()).await;
    let imported = talos.import(&format!("an-imported-key-{}", issued.id), fields).await;
    let free = talos.issue(json!({})).await;
    let macaroon = json!({ "algorithm": "TOKEN_ALGORITHM_MACAROON" });
    let narrowed = talos.derive(&free, macaroon.clone()).await;
    let narrowed = narrow_macaroon(HMAC_SECRET, &narrowed, &json!({ "iss": ISSUER, "acl": cidrs })).await;
    vec![
        ("issued", issued.secret.clone()),
        ("imported", imported.secret.clone()),
        ("jwt", talos.derive(&issued, json!({})).await),
        ("macaroon", talos.derive(&issued, macaroon).await),
        ("narrowed macaroon", narrowed),
    ]
}

async fn assert_all(talos: &Talos, cases: &[(Check, bool)]) {
    let grpc = talos.grpc().await;
    for (kind, credential) in credentials(talos).await {
        for (number, (ask, allowed)) in cases.iter().enumerate() {
            let bearer = format!("Bearer {credential}");
            for ask in [ask.clone(), ask.clone().raw()] {
                let verdict = grpc.check(&ask.header("authorization", bearer.as_str()).build()).await;
                assert_eq!(verdict.passes(), *allowed, "{kind}, case {number}: {verdict:?}");
                assert!(*allowed || verdict.is(403), "{kind}, case {number}: {verdict:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peer_of_the_connection() {
    needs!(Python);
    let talos = Talos::start().await;
    let cases = [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("2001:db8::7", true),
        ("2001:0DB8:0::7", true),
        ("10.2.0.1", false),
        ("::ffff:10.2.0.1", false),
        ("::10.1.2.3", false),
        ("2001:db9::1", false),
        ("10.1.2.3:443", false),
        ("10.1.2", false),
        ("010.1.2.3", false),
        ("not-an-address", false),
        ("", false),
    ];
    let forged = |address| {
        Check::default()
            .from(address)
            .header("x-forwarded-for", "10.1.2.3")
            .header("x-envoy-external-address", "10.1.2.3")
    };
    assert_all(&talos, &cases.map(|(address, allowed)| (forged(address), allowed))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_that_envoy_calls_external() {
    needs!(Python);
    let talos = Setup::new().set("TALOS_AUTHZ_CLIENT_ADDRESS", "external").start().await;
    let from = |address: &str| {
        Check::default()
            .from("10.1.2.3")
            .header("x-forwarded-for", "10.1.2.3")
            .header("x-envoy-external-address", address)
    };
    let cases = [
        (from("10.1.2.3"), true),
        (from(" 2001:db8::7 "), true),
        (from("::ffff:10.1.2.3"), true),
        (from("10.2.0.1"), false),
        (from("10.1.2.3, 10.2.0.1"), false),
        (from(""), false),
        (from("10.1.2.3").header("x-envoy-external-address", "10.1.2.3"), false),
        (Check::default().from("10.1.2.3").header("x-forwarded-for", "10.1.2.3"), false),
    ];
    assert_all(&talos, &cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_entry_of_x_forwarded_for_that_our_own_proxies_wrote() {
    needs!(Python);
    let xff = Setup::new().set("TALOS_AUTHZ_CLIENT_ADDRESS", "xff");
    let from = |lines: &[&str]| {
        lines.iter().fold(Check::default().from("10.1.2.3"), |ask, line| ask.header("x-forwarded-for", *line))
    };
    let one = [
        (from(&["10.1.2.3"]), true),
        (from(&["10.2.0.1, 10.1.2.3"]), true),
        (from(&["10.2.0.1", "10.1.2.3"]), true),
        (from(&["garbage,2001:db8::7"]), true),
        (from(&["10.1.2.3, 10.2.0.1"]), false),
        (from(&["10.1.2.3", "10.2.0.1"]), false),
        (from(&["10.1.2.3,"]), false),
        (from(&["10.1.2.3", ""]), false),
        (from(&["10.1.2.3, unknown"]), false),
        (from(&["10.1.2.3, 10.1.2.3:80"]), false),
        (from(&[]), false),
    ];
    assert_all(&xff.clone().start().await, &one).await;
    let two = [
        (from(&["10.1.2.3, 192.0.2.1"]), true),
        (from(&["10.1.2.3", "192.0.2.1"]), true),
        (from(&["10.2.0.1, 10.1.2.3, 192.0.2.1"]), true),
        (from(&["10.1.2.3, 10.2.0.1, 192.0.2.1"]), false),
        (from(&["10.1.2.3,, 192.0.2.1"]), false),
        (from(&["10.1.2.3"]), false),
        (from(&[]), false),
    ];
    assert_all(&xff.set("TALOS_AUTHZ_TRUSTED_HOPS", "2").start().await, &two).await;
}
