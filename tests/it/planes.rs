//! Routes of each plane; those of other planes are a 404 there.

use serde_json::json;

use crate::rig::http::{Base, Call, Raw, Version};
use crate::rig::process::free_port;
use crate::rig::support::Json;
use crate::rig::talos::{JWKS, SELF_REVOKE, Setup, Talos};

/// All admin routes of the published description, and the one that the guides use beside it.
const ADMIN_ROUTES: [&str; 14] = [
    "/v2alpha1/admin/apiKeys:batchVerify",
    "/v2alpha1/admin/apiKeys:derive",
    "/v2alpha1/admin/apiKeys:verify",
    "/v2alpha1/admin/apiKeys/{key_id}:revoke",
    "/v2alpha1/admin/importedApiKeys",
    "/v2alpha1/admin/importedApiKeys/{key_id}",
    "/v2alpha1/admin/importedApiKeys/{key_id}:revoke",
    "/v2alpha1/admin/importedApiKeys:batchCreate",
    "/v2alpha1/admin/issuedApiKeys",
    "/v2alpha1/admin/issuedApiKeys/{key_id}",
    "/v2alpha1/admin/issuedApiKeys/{key_id}:revoke",
    "/v2alpha1/admin/issuedApiKeys/{key_id}:rotate",
    "/v2alpha1/admin",
    "/v2alpha1/admin/",
];

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"];

/// A request byte for byte, with a body where the method usually has one.
async fn raw(base: Base, method: &str, path: &str) -> Raw {
    let body = if ["POST", "PUT", "PATCH"].contains(&method) { "{}" } else { "" };
    let kind = if body.is_empty() {
        String::new()
    } else {
        format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len())
    };
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n{kind}connection: close\r\n\r\n{body}", base.0);
    base.raw(request.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_routes_look_like_nothing_on_the_public_and_the_metrics_listener() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    for (name, base) in [("public", talos.public), ("metrics", talos.metrics)] {
        for method in METHODS {
            let nothing = raw(base, method, "/kxq7/zz:wf?p=1").await;
            assert_eq!(nothing.status(), 404, "{name} {method}: {}", nothing.head);
            for route in ADMIN_ROUTES {
                let path = route.replace("{key_id}", &key.id);
                let answer = raw(base, method, &path).await;
                assert_eq!(answer.undated(), nothing.undated(), "{name} {method} {path}");
                let answer = raw(base, method, &format!("{path}?page_size=1")).await;
                assert_eq!(answer.undated(), nothing.undated(), "{name} {method} {path}?page_size=1");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_listener_has_no_public_route_and_the_public_one_no_metrics() {
    let talos = Talos::start().await;
    for (base, paths) in [(talos.metrics, [SELF_REVOKE, JWKS]), (talos.public, ["/metrics", "/"])] {
        for method in ["GET", "POST"] {
            let nothing = raw(base, method, "/kxq7/zz:wf").await;
            for path in paths {
                let answer = raw(base, method, path).await;
                assert_eq!(answer.undated(), nothing.undated(), "{method} {path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_404_is_one_envelope_on_every_http_plane() {
    let talos = Talos::start().await;
    talos.admin.get("/kxq7").await.expect_error(404, "NOT_FOUND");
    talos.public.get("/kxq7").await.expect_error(404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_method_on_a_public_route_is_405_and_names_the_right_one() {
    let talos = Talos::start().await;
    let routes = [
        (SELF_REVOKE, "POST", ["GET", "PUT", "DELETE", "PATCH"]),
        (JWKS, "GET", ["POST", "PUT", "DELETE", "PATCH"]),
        ("/health/alive", "GET", ["POST", "PUT", "DELETE", "PATCH"]),
        ("/health/ready", "GET", ["POST", "PUT", "DELETE", "PATCH"]),
    ];
    for (path, right, wrong) in routes {
        for method in wrong {
            let reply = talos.public.send(Version::Http1, Call::new(method, path)).await.expect(405);
            let allow = reply.header("allow").unwrap_or_default();
            assert!(allow.contains(right), "{method} {path}: allow {allow:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_set_and_self_revocation_are_on_the_public_and_the_admin_listener() {
    let talos = Talos::start().await;
    let mut key_sets = Vec::new();
    for base in [talos.public, talos.admin] {
        let keys = base.get(JWKS).await.expect(200).json();
        assert_eq!(keys.as_object().map(|set| set.len()), Some(1), "only `keys`: {keys:#}");
        assert_eq!(keys.text("/keys/0/kty"), "OKP");
        assert_eq!(keys.text("/keys/0/kid"), "it-1");
        for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert_eq!(keys.at("/keys/0").get(private), None, "a private member is published: {private}");
        }
        key_sets.push(keys);

        let key = talos.issue(json!({})).await;
        let reply = base.post(SELF_REVOKE, &json!({ "credential": key.secret })).await.expect(200);
        assert_eq!(reply.json(), json!({}));
        assert_eq!(talos.verify(&key.secret).await.text("/error_code"), "VERIFICATION_ERROR_REVOKED");
    }
    assert_eq!(key_sets[0], key_sets[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_http_listener_tells_its_health_and_no_details() {
    let talos = Talos::start().await;
    for base in [talos.admin, talos.public, talos.metrics] {
        for path in ["/health/alive", "/health/ready"] {
            let reply = base.get(path).await.expect(200);
            assert!(reply.json().is_object(), "{path}: {}", reply.text());
            assert!(reply.body.len() < 64, "{path}: {}", reply.text());
        }
    }
}

/// One file for processes on machines of their own, each with one plane.
#[tokio::test(flavor = "multi_thread")]
async fn planes_in_processes_of_their_own_may_have_one_port() {
    let port = free_port().to_string();
    let setup = ["HTTP", "PUBLIC", "AUTHZ"]
        .into_iter()
        .fold(Setup::new(), |setup, plane| setup.set(&format!("TALOS_SERVE_{plane}_PORT"), &port));
    let refused = setup.refused().await;
    assert!(refused.contains("serve.public.port: is serve.http's address already"), "{refused}");
    let talos = setup.planes("public").start().await;
    talos.public.get(JWKS).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_plane_alone_opens_no_admin_and_no_authz_listener() {
    let talos = Setup::new().planes("public").start().await;
    talos.public.get(JWKS).await.expect(200);
    talos.self_revoke("unknown").await.expect_error(400, "UNKNOWN_CREDENTIAL");
    for base in [talos.admin, talos.authz] {
        let answer = base.try_send(Version::Http1, Call::get("/health/alive")).await;
        assert!(answer.is_err(), "something listens at {}: {answer:?}", base.0);
    }
}
