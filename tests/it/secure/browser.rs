//! Requests of web pages: refused unless the settings allow them.

use serde_json::json;

use crate::rig::http::{BOTH, Call, Version};
use crate::rig::support::{Must, until};
use crate::rig::talos::{ISSUED, JWKS, SELF_REVOKE, Setup, Talos};

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_made_to_point_here_gets_nothing() {
    let talos = Setup::new().set("TALOS_SERVE_HTTP_ALLOWED_HOSTS", "keys.example:443,10.1.2.3").start().await;
    let ask =
        async |host: &str| talos.admin.send(Version::Http1, Call::get(ISSUED).header("host", host)).await;
    for host in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "[::1]:4420",
        "keys.example",
        "Keys.Example.:8443",
        "10.1.2.3",
    ] {
        ask(host).await.expect(200);
    }
    // Whoever asks by an address hasn't been led here by a name.
    for host in ["10.1.2.4", "0.0.0.0", "[2001:db8::7]:4420"] {
        ask(host).await.expect(200);
    }
    for host in ["evil.example", "localhost.evil.example", "10.1.2.4.evil.example", "keys.example.evil"] {
        let output = ask(host).await.expect_error(403, "FORBIDDEN");
        assert!(output.contains("serve.http.allowed_hosts"), "{output}");
    }
    for host in ["", "a@localhost", "localhost:x"] {
        ask(host).await.expect_bad_request();
    }
    let request = |head: &str| format!("GET {head}\r\nconnection: close\r\n\r\n");
    for (head, status) in [
        (format!("{ISSUED} HTTP/1.1"), 400),
        (format!("{ISSUED} HTTP/1.1\r\nhost: localhost\r\nhost: localhost"), 400),
        (format!("http://evil.example{ISSUED} HTTP/1.1\r\nhost: localhost"), 400),
        (format!("http://localhost{ISSUED} HTTP/1.1\r\nhost: localhost"), 200),
        // Probes come by any name.
        ("/health/alive HTTP/1.1\r\nhost: 10.9.9.9".to_owned(), 200),
    ] {
        assert_eq!(talos.admin.raw(request(&head).as_bytes()).await.status(), status, "{head}");
    }
    let refused = talos.metric(r#"talos_http_refused_total{plane="admin",reason="host"}"#).await;
    assert_eq!(refused, 4.0 + 3.0 + 3.0, "each is counted");
    // The public plane has any name.
    let public = Call::get(JWKS).header("host", "anything.example");
    talos.public.send(Version::Http1, public.clone()).await.expect(200);
    let listed = Setup::new().set("TALOS_SERVE_PUBLIC_ALLOWED_HOSTS", "keys.example").start().await;
    listed.public.send(Version::Http1, public).await.expect_error(403, "FORBIDDEN");
    listed.public.send(Version::Http1, Call::get(JWKS).header("host", "keys.example")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_may_stand_for_any_name() {
    let setup = Setup::new().set("TALOS_SERVE_HTTP_TRUSTED_NETWORK", "true");
    for (entry, statuses) in [("*", [200, 200, 200]), ("*.example", [200, 403, 403])] {
        let talos = setup.clone().set("TALOS_SERVE_HTTP_ALLOWED_HOSTS", entry).start().await;
        for (host, status) in ["a.example", "example", "any.test"].into_iter().zip(statuses) {
            let reply = talos.admin.send(Version::Http1, Call::get(ISSUED).header("host", host)).await;
            assert_eq!(reply.status, status, "{entry}: {host}");
        }
    }
    // Without authentication of callers, allowing any host would let in any site.
    let output = Setup::new().set("TALOS_SERVE_HTTP_ALLOWED_HOSTS", "*").refused().await;
    assert!(output.contains("serve.http.allowed_hosts[0]: is *, any name"), "{output}");
}

/// A proxy that rewrites `Host` says in `X-Forwarded-Host` what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_judged_by_the_host_that_it_forwards() {
    let setup = Setup::new()
        .set("TALOS_SERVE_HTTP_TRUST_FORWARDED_HOST", "true")
        .set("TALOS_SERVE_HTTP_ALLOWED_HOSTS", "keys.example")
        .set("TALOS_SERVE_PUBLIC_ALLOWED_HOSTS", "keys.example");
    let cases = [
        ("upstream.internal", Some("keys.example"), 200),
        ("upstream.internal", Some("Keys.Example:443"), 200),
        ("upstream.internal", Some("evil.example"), 403),
        ("keys.example", Some("evil.example"), 403),
        ("upstream.internal", Some("a.example, keys.example"), 400),
        ("upstream.internal", None, 403),
        ("keys.example", None, 200),
    ];
    let call = |path: &str, host: &str, forwarded: Option<&str>| {
        let call = Call::get(path).header("host", host);
        forwarded.into_iter().fold(call, |call, name| call.header("x-forwarded-host", name))
    };
    let trusting = setup.clone().set("TALOS_SERVE_HTTP_TRUSTED_NETWORK", "true").start().await;
    for (host, forwarded, status) in cases {
        let reply = trusting.admin.send(Version::Http1, call(ISSUED, host, forwarded)).await;
        assert_eq!(reply.status, status, "{host} {forwarded:?}");
        let reply = trusting.public.send(Version::Http1, call(JWKS, host, forwarded)).await;
        assert_eq!(reply.status, status, "public: {host} {forwarded:?}");
    }
    // A page that has rebound its name to this machine can set the header, too.
    let talos = setup.start().await;
    for forwarded in [Some("keys.example"), Some("localhost"), None] {
        let reply = talos.admin.send(Version::Http1, call(ISSUED, "evil.example", forwarded)).await;
        reply.expect_error(403, "FORBIDDEN");
    }
    talos.admin.send(Version::Http1, call(ISSUED, "keys.example", None)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_sites_page_does_nothing_here() {
    let talos = Talos::start().await;
    let body = json!({ "name": "a", "actor_id": "b" });
    let issue = || Call::post(ISSUED).json(&body);
    let own = format!("http://{}", talos.admin.0);
    for version in BOTH {
        for (origin, site) in [
            (Some("https://evil.example"), Some("cross-site")),
            (Some("null"), None),
            (Some("http://localhost"), None),
            (None, Some("cross-site")),
            (None, Some("same-site")),
        ] {
            let call = origin.into_iter().fold(issue(), |call, origin| call.header("origin", origin));
            let call = site.into_iter().fold(call, |call, site| call.header("sec-fetch-site", site));
            talos.admin.send(version, call).await.expect_error(403, "FORBIDDEN");
        }
        for call in [issue(), issue().header("origin", &own), issue().header("sec-fetch-site", "same-origin")]
        {
            talos.admin.send(version, call).await.expect(201);
        }
    }
    let refused = talos.metric(r#"talos_http_refused_total{plane="admin",reason="cross_site"}"#).await;
    assert_eq!(refused, 10.0, "each is counted");
    // Media types that an HTML form can send aren't JSON.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        talos.admin.send(Version::Http1, Call::post(ISSUED).body(kind, body.to_string())).await.expect(415);
        talos.public.send(Version::Http1, Call::post(SELF_REVOKE).body(kind, "{}")).await.expect(415);
    }
    // Nor is a browser told that it may.
    for base in [talos.admin, talos.public] {
        let preflight = Call::new("OPTIONS", JWKS)
            .header("origin", "https://app.example")
            .header("access-control-request-method", "GET");
        for call in [preflight, Call::get(JWKS).header("origin", "https://app.example")] {
            let reply = base.send(Version::Http1, call).await;
            assert_eq!(reply.header("access-control-allow-origin"), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cors_lets_listed_origins_in_and_changes_while_it_runs() {
    let dir = Setup::bare();
    let file = dir.path("talos.yaml");
    let write = |origin: &str| {
        let cors =
            format!("{{enabled: true, allowed_origins: ['{origin}'], allow_credentials: true, max_age: 60}}");
        let secret = crate::rig::talos::HMAC_SECRET;
        let text = format!(
            "secrets: {{hmac: {{current: {secret}}}}}\nserve: {{http: {{cors: {cors}}}, public: {{cors: {cors}}}}}\n"
        );
        std::fs::write(&file, text).must("writing a configuration");
    };
    write("https://one.example");
    let talos = Setup::from_file(file.clone()).start().await;
    let from = |call: Call, origin: &str| call.header("origin", origin);
    let preflight = |path: &str, method: &str| {
        Call::new("OPTIONS", path)
            .header("access-control-request-method", method)
            .header("access-control-request-headers", "content-type")
    };
    let body = json!({ "credential": "x" });
    for (base, path) in [(talos.admin, ISSUED), (talos.public, SELF_REVOKE)] {
        let one = "https://one.example";
        let reply = base.send(Version::Http2, from(preflight(path, "POST"), one)).await.expect(204);
        assert_eq!(reply.header("access-control-allow-origin"), Some(one));
        assert_eq!(reply.header("access-control-allow-methods"), Some("POST"));
        assert_eq!(reply.header("access-control-allow-headers"), Some("content-type"));
        assert_eq!(reply.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(reply.header("access-control-max-age"), Some("60"));
        for call in
            [from(preflight(path, "TRACE"), one), from(preflight(path, "POST"), "https://two.example")]
        {
            let reply = base.send(Version::Http2, call).await.expect(204);
            assert_eq!(reply.header("access-control-allow-origin"), None);
        }
        let call = from(Call::post(path).json(&body), one);
        let reply = base.send(Version::Http1, call).await.expect(400);
        assert_eq!(reply.header("access-control-allow-origin"), Some(one));
        assert_eq!(reply.header("vary"), Some("Origin"));
    }
    let get =
        async |origin: &str| talos.admin.send(Version::Http1, from(Call::get(ISSUED), origin)).await.status;
    assert_eq!((get("https://one.example").await, get("https://two.example").await), (200, 403));
    write("https://two.example");
    until("the new origin", async || (get("https://two.example").await == 200).then_some(())).await;
    assert_eq!(get("https://one.example").await, 403);
}
