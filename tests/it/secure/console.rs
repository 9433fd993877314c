//! The console's pages: what is served to whom, with which headers.

use serde_json::json;

use crate::rig::http::{Call, Version};
use crate::rig::support::Must;
use crate::rig::talos::{ISSUED, Setup, Talos};

/// The navigation of a browser whose person has followed a link of another site.
fn opened(path: &str) -> Call {
    let call = Call::get(path).header("sec-fetch-site", "cross-site");
    call.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document")
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_served_with_a_strict_policy() {
    let talos = Talos::start().await;
    for (base, path, media_type) in [
        (talos.admin, "/console/", "text/html; charset=utf-8"),
        (talos.admin, "/console/js/main.js", "text/javascript; charset=utf-8"),
        (talos.admin, "/console/app.css", "text/css; charset=utf-8"),
        (talos.admin, "/console/icon.svg", "image/svg+xml"),
        (talos.admin, "/keys", "text/html; charset=utf-8"),
        (talos.public, "/keys", "text/html; charset=utf-8"),
        (talos.public, "/keys/js/holder.js", "text/javascript; charset=utf-8"),
    ] {
        let reply = base.get(path).await.expect(200);
        assert_eq!(reply.header("content-type"), Some(media_type), "{path}");
        let policy = reply.header("content-security-policy").must("a policy");
        for part in
            ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "trusted-types 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{path}: {policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-cache"), "{path}");
        assert_eq!(reply.header("set-cookie"), None, "{path}");
        let text = reply.text().to_lowercase();
        if media_type.starts_with("text/html") {
            for inline in ["<style", "onload=", "onclick=", "http://", "https://", "<script>"] {
                assert!(!text.contains(inline), "{path} has {inline}");
            }
        }
        let head = base.send(Version::Http1, Call::new("HEAD", path)).await.expect(200);
        assert_eq!(head.text(), "", "{path}");
        base.send(Version::Http1, Call::post(path)).await.expect_error(405, "METHOD_NOT_ALLOWED");
    }
    let moved = talos.admin.get("/console").await.expect(308);
    assert_eq!(moved.header("location"), Some("console/"));
    for path in [
        "/console/keys.html",
        "/console/nothing.js",
        "/console/js",
        "/keys/index.html",
        "/keys/",
        "/consoles",
    ] {
        talos.admin.get(path).await.expect_error(404, "NOT_FOUND");
    }
    talos.public.get("/console/").await.expect_error(404, "NOT_FOUND");
    talos.metrics.get("/console/").await.expect_error(404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_compressed_and_sent_once() {
    let talos = Talos::start().await;
    let path = "/console/js/main.js";
    let plain = talos.admin.get(path).await.expect(200);
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
    let gzip = Call::get(path).header("accept-encoding", "br, gzip");
    let packed = talos.admin.send(Version::Http2, gzip.clone()).await.expect(200);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body.starts_with(&[0x1f, 0x8b]) && packed.body.len() * 2 < plain.body.len());
    let (tag, own) = (packed.header("etag").must("a tag"), plain.header("etag").must("a tag"));
    assert_ne!(tag, own, "two forms, two tags");
    let known = talos.admin.send(Version::Http1, gzip.header("if-none-match", tag)).await.expect(304);
    assert_eq!((known.body.len(), known.header("etag")), (0, Some(tag)));
    assert!(known.header("content-security-policy").is_some());
    talos.admin.send(Version::Http1, Call::get(path).header("if-none-match", tag)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_come_from_elsewhere_a_script_may_not() {
    let talos = Talos::start().await;
    talos.admin.send(Version::Http1, opened("/console/")).await.expect(200);
    let framed = Call::get("/console/").header("sec-fetch-site", "cross-site");
    let framed = framed.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "iframe");
    talos.admin.send(Version::Http1, framed).await.expect_error(403, "FORBIDDEN");
    let script = Call::get("/console/js/main.js").header("sec-fetch-site", "cross-site");
    talos.admin.send(Version::Http1, script).await.expect_error(403, "FORBIDDEN");
    talos.admin.send(Version::Http1, opened(ISSUED)).await.expect_error(403, "FORBIDDEN");
    let rebound = Call::get("/console/").header("host", "evil.example");
    talos.admin.send(Version::Http1, rebound).await.expect_error(403, "FORBIDDEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_need_no_caller_and_their_data_do() {
    let setup = Setup::new();
    let keys = setup.path("provider.json");
    let key = json!({
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "a",
        "x": "sASbnamxd6Yf9jNkpLWuF9mu_kRjAi9a4act-Vs86io",
    });
    std::fs::write(&keys, json!({ "keys": [key] }).to_string()).must("writing a key set");
    let talos = setup
        .set("TALOS_SERVE_HTTP_AUTH_MODE", "jwt")
        .set("TALOS_SERVE_HTTP_AUTH_JWT_ISSUER", "https://provider.test")
        .set("TALOS_SERVE_HTTP_AUTH_JWT_AUDIENCE", "talos-admin")
        .set("TALOS_SERVE_HTTP_AUTH_JWT_JWKS", &format!("file://{}", keys.display()))
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_ADMIN", "root")
        .start()
        .await;
    talos.admin.get("/console/").await.expect(200);
    talos.admin.get("/v2alpha1/admin/status").await.expect_error(401, "UNAUTHORIZED");
    talos.admin.get(ISSUED).await.expect_error(401, "UNAUTHORIZED");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_can_be_turned_off() {
    let talos = Setup::new().set("TALOS_SERVE_HTTP_CONSOLE_ENABLED", "false").start().await;
    for path in ["/console", "/console/", "/console/app.css", "/keys"] {
        talos.admin.get(path).await.expect_error(404, "NOT_FOUND");
    }
    talos.public.get("/keys").await.expect_error(404, "NOT_FOUND");
    talos.admin.get(ISSUED).await.expect(200);
}
