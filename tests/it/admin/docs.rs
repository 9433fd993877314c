//! `/docs`: the description as a page, which loads nothing and runs nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, Must};
use crate::rig::talos::Talos;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_has_every_operation_and_type() {
    let talos = Talos::start().await;
    let description = talos.admin.get("/openapi.json").await.expect(200).json();
    let reply = talos.admin.get("/docs").await.expect(200);
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let page = reply.text();
    let has = |text: &str| assert!(page.contains(text), "the page has no {text}");
    for (path, item) in description.at("/paths").as_object().must("paths") {
        for (verb, operation) in item.as_object().must(path) {
            has(&format!("<section id=\"{}\">", operation.text("/operationId")));
            has(&format!("<strong>{}</strong> <code>{path}</code>", verb.to_uppercase()));
            has(&format!("curl -X {} &quot;$TALOS{path}&quot;", verb.to_uppercase()));
        }
    }
    for name in description.at("/components/schemas").as_object().must("schemas").keys() {
        has(&format!("<section id=\"{name}\">"));
    }
    // Every link within the page leads to a section.
    for target in page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        has(&format!("id=\"{target}\""));
    }
    let head = talos.admin.send(Version::Http1, Call::new("HEAD", "/docs")).await.expect(200);
    assert_eq!(head.text(), "");
    talos.public.get("/docs").await.expect_error(404, "NOT_FOUND");
    talos.metrics.get("/docs").await.expect_error(404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_loads_and_runs_nothing() {
    let talos = Talos::start().await;
    let reply = talos.admin.get("/docs").await.expect(200);
    let page = reply.text();
    let (_, rest) = page.split_once("<style>").must("a style");
    let (style, _) = rest.split_once("</style>").must("its end");
    let hash = BASE64.encode(Sha256::digest(style));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    assert_eq!(reply.header("content-security-policy"), Some(policy.as_str()));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    let lower = page.to_lowercase();
    for loads in [
        "<script",
        "<link",
        "<img",
        "<iframe",
        "<object",
        "<embed",
        "<form",
        "<base",
        "http-equiv",
        " src=",
        " srcset=",
        " style=",
        " onload=",
        " onclick=",
        "javascript:",
        "@import",
        "url(",
    ] {
        assert!(!lower.contains(loads), "the page has {loads}");
    }
    assert_eq!(lower.matches("<style").count(), 1);
    for target in lower.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(target.starts_with('#') || target == "openapi.json", "the page links to {target}");
    }
}
