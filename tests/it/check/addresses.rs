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
        ("10.1.2.3:443", true),
        ("[2001:db8::7]:443", true),
        ("10.2.0.1:443", false),
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
        (from(&["10.2.0.1, 10.1.2.3:80"]), true),
        (from(&["10.1.2.3, 10.2.0.1:80"]), false),
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

/// A line of `x-forwarded-for` after which the key is allowed, refused for its address, or refused
/// as the address can't be read.
const FORWARDED: &[(&str, &str)] = &[
    // Addresses against the list of the key: 10.1.0.0/16, 2001:db8::/32, fe80::/10.
    ("10.1.2.3", "ok"),
    (" 10.1.2.3", "ok"),
    ("10.1.2.3\t ", "ok"),
    ("10.1.255.255", "ok"),
    ("10.1.2.3:51008", "ok"),
    ("10.1.2.3:0", "ok"),
    ("10.1.2.3:65535", "ok"),
    (" 10.1.2.3:80 ", "ok"),
    ("2001:db8::7", "ok"),
    ("2001:DB8:0:0::7", "ok"),
    ("2001:db8::8080", "ok"),
    ("[2001:db8::7]", "ok"),
    ("[2001:db8::7]:51008", "ok"),
    (" [2001:db8::7]:443 ", "ok"),
    ("[2001:db8::7%eth0]:443", "ok"),
    ("fe80::1", "ok"),
    ("fe80::1%eth0", "ok"),
    ("fe80::1%25eth0", "ok"),
    ("[fe80::1%3]", "ok"),
    ("::ffff:10.1.2.3", "ok"),
    ("[::ffff:10.1.2.3]:80", "ok"),
    ("::FFFF:0a01:0203", "ok"),
    ("10.2.0.1, 10.1.2.3:51008", "ok"),
    ("garbage, [2001:db8::7]:1", "ok"),
    ("10.2.0.1:80,10.1.2.3:80", "ok"),
    // Others.
    ("10.2.0.1", "address_not_allowed"),
    ("10.2.0.1:51008", "address_not_allowed"),
    ("203.0.113.7:443", "address_not_allowed"),
    ("[2001:db9::7]:443", "address_not_allowed"),
    ("[fec0::1%eth0]:443", "address_not_allowed"),
    ("::10.1.2.3", "address_not_allowed"),
    ("::ffff:10.2.0.1", "address_not_allowed"),
    ("0.0.0.0", "address_not_allowed"),
    ("127.0.0.1:80", "address_not_allowed"),
    ("::1", "address_not_allowed"),
    ("10.1.2.3, 10.2.0.1", "address_not_allowed"),
    ("10.1.2.3:80, 10.2.0.1:80", "address_not_allowed"),
    ("2001:db8::7, 2001:db9::7", "address_not_allowed"),
    // No addresses, or texts that can be read in two ways.
    ("", "address_unreadable"),
    (" ", "address_unreadable"),
    ("10.1.2.3,", "address_unreadable"),
    ("unknown", "address_unreadable"),
    ("_hidden", "address_unreadable"),
    ("localhost", "address_unreadable"),
    ("10.1.2", "address_unreadable"),
    ("10.1.2.3.4", "address_unreadable"),
    ("010.1.2.3", "address_unreadable"),
    ("0x0a.1.2.3", "address_unreadable"),
    ("10.1.2.3/16", "address_unreadable"),
    ("10.1.2.3:", "address_unreadable"),
    ("10.1.2.3:65536", "address_unreadable"),
    ("10.1.2.3:http", "address_unreadable"),
    ("10.1.2.3:80:80", "address_unreadable"),
    ("10.1.2.3 :80", "address_unreadable"),
    ("10.1.2.3 10.1.2.3", "address_unreadable"),
    ("10.1.2.3%eth0", "address_unreadable"),
    ("[10.1.2.3]", "address_unreadable"),
    ("[10.1.2.3]:80", "address_unreadable"),
    ("[2001:db8::7", "address_unreadable"),
    ("2001:db8::7]", "address_unreadable"),
    ("[2001:db8::7]80", "address_unreadable"),
    ("[2001:db8::7]:", "address_unreadable"),
    ("[]:80", "address_unreadable"),
    ("2001:db8::7:51008", "address_unreadable"),
    ("fe80::1%", "address_unreadable"),
    ("fe80::1%a%b", "address_unreadable"),
    ("for=10.1.2.3", "address_unreadable"),
    ("\"10.1.2.3\"", "address_unreadable"),
];

#[tokio::test(flavor = "multi_thread")]
async fn addresses_as_proxies_write_them() {
    assert!(FORWARDED.len() >= 60);
    let talos = Setup::new().set("TALOS_AUTHZ_CLIENT_ADDRESS", "xff").start().await;
    let cidrs = ["10.1.0.0/16", "2001:db8::/32", "fe80::/10"];
    let key = talos.issue(json!({ "ip_restriction": { "allowed_cidrs": cidrs } })).await;
    let anywhere = talos.issue(json!({})).await;
    let grpc = talos.grpc().await;
    for (line, reason) in FORWARDED {
        let ask = |secret: &str| Check::bearer(secret).from("10.1.2.3").header("x-forwarded-for", *line);
        for ask in [ask(&key.secret), ask(&key.secret).raw()] {
            let verdict = grpc.check(&ask.build()).await;
            if *reason == "ok" {
                assert!(verdict.passes(), "{line}: {verdict:?}");
                continue;
            }
            assert!(verdict.is(403), "{line}: {verdict:?}");
            assert_eq!(verdict.denied(403).fact("reason"), Some(json!(reason)), "{line}");
        }
        assert!(grpc.check(&ask(&anywhere.secret).build()).await.passes(), "{line}");
    }
}
