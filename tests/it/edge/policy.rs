//! Route policies, and credentials that are ambiguous.

use serde_json::json;

use super::{Edge, challenge};
use crate::rig::http::{BOTH, Call, Raw, Version, assert_envelope};
use crate::rig::talos::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_for_keys_that_have_its_scope() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let cases: [(&[&str], bool); 6] = [
        (&["reports:read"], true),
        (&["other", "reports:*"], true),
        (&[], false),
        (&["reports:write"], false),
        (&["reports"], false),
        (&["*"], false),
    ];
    for version in BOTH {
        for (scopes, enough) in cases {
            let key = edge.talos.issue(json!({ "scopes": scopes })).await;
            let call = Call::get("/reports/today").bearer(&key.secret);
            if enough {
                let seen = edge.passes(version, call).await;
                assert_eq!(seen.header("x-talos-scopes"), Some(scopes.join(" ").as_str()));
            } else {
                let reply = edge.refuses(version, call, 403).await;
                let challenge = challenge(&reply);
                assert!(challenge.contains("error=\"insufficient_scope\""), "{scopes:?}: {challenge}");
                assert!(challenge.contains("scope=\"reports:read\""), "{scopes:?}: {challenge}");
                assert_envelope(&reply.json(), 403);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_different_credentials_are_400() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let (one, other) = (edge.talos.issue(json!({})).await, edge.talos.issue(json!({})).await);
    for version in BOTH {
        for path in ["/", "/anonymous"] {
            let both = Call::get(path).bearer(&one.secret).api_key(&other.secret);
            assert_envelope(&edge.refuses(version, both, 400).await.json(), 400);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_credential_in_both_places_passes_and_is_gone_from_both() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({})).await;
    for version in BOTH {
        let seen = edge.passes(version, Call::get("/").bearer(&key.secret).api_key(&key.secret)).await;
        seen.assert_without(&key.secret);
        assert_eq!(seen.header("x-api-key"), None);
        assert_eq!(seen.header("x-talos-key-id"), Some(key.id.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_header_twice_is_400() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let (one, other) = (edge.talos.issue(json!({})).await, edge.talos.issue(json!({})).await);
    for version in BOTH {
        for second in [&one, &other] {
            let calls = [
                Call::get("/").bearer(&one.secret).bearer(&second.secret),
                Call::get("/").api_key(&one.secret).api_key(&second.secret),
            ];
            for call in calls {
                edge.refuses(version, call, 400).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_optional_route_takes_no_key_or_a_good_one() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({})).await;
    let revoked = edge.talos.issue(json!({})).await;
    edge.talos.revoke(&revoked).await;
    for version in BOTH {
        let anonymous = edge.passes(version, Call::get("/anonymous")).await;
        assert_eq!(anonymous.identity(), []);
        assert_eq!(anonymous.header("authorization"), None);

        let known = edge.passes(version, Call::get("/anonymous").bearer(&key.secret)).await;
        known.assert_without(&key.secret);
        assert_eq!(known.header("x-talos-key-id"), Some(key.id.as_str()));

        for bad in ["garbage", revoked.secret.as_str()] {
            edge.refuses(version, Call::get("/anonymous").bearer(bad), 401).await;
            edge.refuses(version, Call::get("/anonymous").api_key(bad), 401).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authentication_scheme_is_no_credential_of_ours() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({})).await;
    let basic = "Basic YWxpY2U6c2VjcmV0";
    for version in BOTH {
        let reply = edge.refuses(version, Call::get("/").header("authorization", basic), 401).await;
        assert!(!challenge(&reply).contains("error="), "{}", challenge(&reply));

        let seen =
            edge.passes(version, Call::get("/").header("authorization", basic).api_key(&key.secret)).await;
        seen.assert_without(&key.secret);
        assert_eq!(seen.header("x-talos-key-id"), Some(key.id.as_str()));
        assert_eq!(seen.token().split('.').count(), 3, "{}", seen.token());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scheme_names_compare_without_case_and_apikey_can_be_one() {
    needs!(Envoy);
    let sources = r#"[{header: authorization, scheme: Bearer}, {header: authorization, scheme: ApiKey}]"#;
    let edge = Edge::with(Setup::new().set("TALOS_AUTHZ_SOURCES", sources), &[]).await;
    let key = edge.talos.issue(json!({})).await;
    for version in BOTH {
        for scheme in ["bearer", "BEARER", "ApiKey", "apikey"] {
            let value = format!("{scheme} {}", key.secret);
            let seen = edge.passes(version, Call::get("/").header("authorization", &value)).await;
            seen.assert_without(&key.secret);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_in_disguise_does_not_get_the_policy_of_another_route() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let plain = edge.talos.issue(json!({})).await;
    let paths =
        ["/anonymous/../reports", "//reports", "/anonymous/..%2Freports", "/reports%2f", "/x/../reports/1"];
    for path in paths {
        // Over raw HTTP/1.1, as a client library would tidy the path up.
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
            plain.secret
        );
        let answer: Raw = edge.envoy.edge.raw(request.as_bytes()).await;
        assert!([400, 403].contains(&answer.status()), "{path}: {}", answer.head);
        assert_eq!(edge.upstream.take().len(), 0, "{path} reached the upstream");
        let reply = edge.send(Version::Http1, Call::get("/anonymous-not")).await;
        reply.expect(401);
    }
}
