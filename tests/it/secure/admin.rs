//! Authorization on the admin plane, for each way to authenticate.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ed25519_dalek::{Signer, SigningKey};
use rcgen::SanType;
use serde_json::json;
use tokio::net::UnixStream;

use crate::rig::authority::{Authority, dns, forwarded, uri};
use crate::rig::http::{Base, Call, Reply, Version};
use crate::rig::support::{Must, unix_now, until};
use crate::rig::talos::{ISSUED, JWKS, SELF_REVOKE, Setup, Talos, VERIFY, generate_as};
use crate::rig::tls::{Client, NAME};

/// An actor of no keys.
const ACTOR: &str = "/v2alpha1/admin/actors/user:42";
const IMPORTED: &str = "/v2alpha1/admin/importedApiKeys";

/// One call for each role: what it is, and the least role that may do it.
fn calls() -> [(Call, u16, usize); 25] {
    let new = json!({ "name": "a", "actor_id": "b" });
    let nobody = |kind: &str, verb: &str| format!("{kind}/{}:{verb}", uuid::Uuid::nil());
    [
        (Call::get(ISSUED), 200, 0),
        (Call::get("/docs"), 200, 0),
        (Call::get("/v2alpha1/admin/usage"), 200, 0),
        (Call::get("/v2alpha1/admin/status"), 200, 0),
        (Call::get("/v2alpha1/admin/events"), 200, 0),
        (Call::get("/v2alpha1/admin/whoami"), 200, 0),
        (Call::post("/v2alpha1/admin/routes:explain").json(&json!({ "method": "GET", "path": "/" })), 200, 0),
        (Call::post(VERIFY).json(&json!({ "credential": "x" })), 200, 0),
        (Call::get("/v2alpha1/admin/policies"), 200, 0),
        (Call::post("/v2alpha1/admin/policies:check").json(&json!({})), 200, 0),
        (Call::post("/v2alpha1/admin/scopes:preview").json(&json!({ "routes": [{}] })), 200, 0),
        (Call::post(ISSUED).json(&new), 201, 1),
        (Call::get(ACTOR), 200, 0),
        (Call::new("PATCH", ACTOR).json(&json!({ "display_name": "a" })), 200, 1),
        (Call::post(&format!("{ACTOR}:suspend")), 200, 1),
        (Call::post(&format!("{ACTOR}:resume")), 200, 1),
        (Call::post(&nobody(ISSUED, "suspend")), 404, 1),
        (Call::post(&nobody(ISSUED, "resume")), 404, 1),
        (Call::post(&nobody(ISSUED, "finish")), 404, 1),
        (Call::post(&nobody(ISSUED, "rotate")), 404, 1),
        (Call::post(&format!("{IMPORTED}/{}:suspend", "0".repeat(64))), 404, 1),
        (Call::post(&format!("{IMPORTED}/{}:resume", "0".repeat(64))), 404, 1),
        (Call::new("DELETE", &format!("{IMPORTED}/{}", "0".repeat(64))), 404, 2),
        (Call::new("DELETE", &format!("{ISSUED}/{}", uuid::Uuid::nil())), 404, 2),
        (Call::new("DELETE", "/v2alpha1/admin/actors/nobody?force=true"), 404, 2),
    ]
}

/// Asserts the answers to each call by a caller of the role (0 for viewer, 2 for admin).
async fn may_do_what_the_role_may(role: usize, send: impl AsyncFn(Call) -> Reply) {
    for (call, status, least) in calls() {
        let reply = send(call.clone()).await;
        match role >= least {
            true => drop(reply.expect(status)),
            false => drop(reply.expect_error(403, "FORBIDDEN")),
        }
    }
}

async fn metrics_are_ready(talos: &Talos) -> bool {
    let ready = talos.metrics.try_send(Version::Http1, Call::get("/health/ready")).await;
    ready.is_ok_and(|reply| reply.status == 200)
}

fn roles(setup: Setup) -> Setup {
    setup
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_VIEWER", "spiffe://test/viewer")
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_ISSUER", "issuer.test")
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_ADMIN", "spiffe://test/admin,other.test")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_decides_by_its_exact_name() {
    let (authority, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let setup = roles(Setup::new().tls("HTTP", &authority.issue(NAME, 2100)).client_ca("HTTP", &clients))
        .set("TALOS_SERVE_HTTP_AUTH_MODE", "mtls");
    let talos = setup.start_until(metrics_are_ready).await;
    let showing =
        |from: &Authority, names: Vec<SanType>, year| Client::showing(&authority, &from.client(names, year));
    for (role, names) in [
        (0, vec![uri("spiffe://test/viewer")]),
        (1, vec![dns("ISSUER.test")]),
        (2, vec![uri("spiffe://test/admin"), dns("elsewhere.test")]),
        (2, vec![uri("spiffe://test/nobody"), dns("other.test")]),
    ] {
        let client = showing(&clients, names, 2100);
        may_do_what_the_role_may(role, async |call| client.send(talos.admin, Version::Http2, call).await)
            .await;
    }

    // Some don't get as far as to a connection,
    for (what, client) in [
        ("no certificate", Client::trusting(&authority)),
        ("wrong authority", showing(&others, vec![uri("spiffe://test/admin")], 2100)),
        ("expired", showing(&clients, vec![uri("spiffe://test/admin")], 2021)),
    ] {
        let answer = client.try_send(talos.admin, Version::Http2, Call::get(ISSUED)).await;
        assert!(answer.is_err(), "{what}: {answer:?}");
    }
    // others not to an answer. A common name is no name.
    for (names, status, reason) in [
        (vec![uri("spiffe://test/other")], 403, "FORBIDDEN"),
        (vec![uri("spiffe://test/admin/")], 403, "FORBIDDEN"),
        (vec![uri("spiffe://test/admin\0.evil")], 401, "UNAUTHORIZED"),
        (vec![dns("other.test\0.evil")], 401, "UNAUTHORIZED"),
        (vec![uri("spiffe://test/admin"), uri("spiffe://test/other")], 401, "UNAUTHORIZED"),
        (vec![SanType::IpAddress([127, 0, 0, 1].into())], 401, "UNAUTHORIZED"),
        (vec![], 401, "UNAUTHORIZED"),
    ] {
        let shown = format!("{names:?}");
        let client = showing(&clients, names, 2100);
        let reply = client.send(talos.admin, Version::Http1, Call::get(ISSUED)).await;
        assert_eq!(reply.status, status, "{shown}");
        reply.expect_error(status, reason);
        // Nor do they learn which paths there are; what is for anyone is for them, too.
        let nowhere = client.send(talos.admin, Version::Http1, Call::get("/nowhere")).await;
        nowhere.expect_error(status, reason);
        client.send(talos.admin, Version::Http1, Call::get(JWKS)).await.expect(200);
        let forwarded = Call::get(ISSUED).header("x-forwarded-client-cert", "Hash=0;URI=spiffe://test/admin");
        client.send(talos.admin, Version::Http1, forwarded).await.expect_error(status, reason);
    }
    // Each is counted: three calls of each, and what the roles above may not.
    for (reason, count) in [("unidentified", 3.0 * 5.0), ("role", 3.0 * 2.0 + 16.0)] {
        let metric = format!("talos_http_refused_total{{plane=\"admin\",reason=\"{reason}\"}}");
        assert_eq!(talos.metric(&metric).await, count, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_certificate_is_read_from_listed_peers_alone() {
    let authority = Authority::new();
    let of = |name: &str| {
        let (certificate, _) = authority.client(vec![uri(&format!("spiffe://test/{name}"))], 2100);
        forwarded(&certificate, &format!("URI=spiffe://test/{name}"))
    };
    let (admin, nobody) = (of("admin"), of("nobody"));
    let with = |call: Call| call.header("x-forwarded-client-cert", &admin);
    for (peers, listed) in [("127.0.0.1", true), ("127.0.0.0/8", true), ("127.0.0.2,10.0.0.0/8", false)] {
        let setup = roles(Setup::new())
            .set("TALOS_SERVE_HTTP_AUTH_MODE", "xfcc")
            .set("TALOS_SERVE_HTTP_AUTH_XFCC_PEERS", peers);
        let talos = setup.start().await;
        let send = async |call: Call| talos.admin.send(Version::Http1, call).await;
        match listed {
            true => may_do_what_the_role_may(2, async |call| send(with(call)).await).await,
            false => drop(send(with(Call::get(ISSUED))).await.expect_error(401, "UNAUTHORIZED")),
        }
        send(Call::get(ISSUED)).await.expect_error(401, "UNAUTHORIZED");
        // The client's element stands before the proxy's.
        let forged = Call::get(ISSUED).header("x-forwarded-client-cert", &format!("{admin},{nobody}"));
        let status = if listed { (403, "FORBIDDEN") } else { (401, "UNAUTHORIZED") };
        send(forged).await.expect_error(status.0, status.1);
        for malformed in [
            "By=spiffe://test/gateway;Hash=00;URI=spiffe://test/admin",
            "URI=spiffe://test/admin;URI=spiffe://test/admin",
            "URI=\"spiffe://test/admin",
            "x",
        ] {
            let call = Call::get(ISSUED).header("x-forwarded-client-cert", malformed);
            send(call).await.expect_error(401, "UNAUTHORIZED");
        }
    }
}

/// Returns a JWT with these claims, signed by a process's key.
fn signed(issuer: &Setup, claims: &serde_json::Value) -> String {
    let text = std::fs::read_to_string(issuer.path("signing-keys.json")).must("the issuer's keys");
    let keys: serde_json::Value = serde_json::from_str(&text).must("a key set");
    let seed = BASE64URL.decode(keys["keys"][0]["d"].as_str().must("a private key")).must("its seed");
    let key = SigningKey::from_bytes(&<[u8; 32]>::try_from(&seed[..]).must("32 bytes"));
    let part = |value: &serde_json::Value| BASE64URL.encode(value.to_string());
    let content = format!("{}.{}", part(&json!({ "alg": "EdDSA", "kid": "it-1" })), part(claims));
    let signature = key.sign(content.as_bytes()).to_bytes();
    format!("{content}.{}", BASE64URL.encode(signature))
}

/// The owner of a token may choose its subject, as far as the issuer allows, and the log shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_subject_forges_no_line_of_the_log() {
    let provider = Setup::new().set("TALOS_CREDENTIALS_ISSUER", "https://provider.test").start().await;
    let hostile =
        "x\n2026-01-01T00:00:00.000000Z  INFO talos: forged caller=root\u{1b}[2J\u{202e}\u{200b}\u{e0041}";
    for format in ["text", "json"] {
        let setup = Setup::new();
        let published = setup.path("provider.json");
        let keys = provider.public.get(JWKS).await.expect(200).text();
        std::fs::write(&published, keys).must("writing a key set");
        let talos = setup
            .set("TALOS_LOG_FORMAT", format)
            .set("TALOS_LOG_LEVEL", "debug")
            .set("TALOS_SERVE_HTTP_AUTH_MODE", "jwt")
            .set("TALOS_SERVE_HTTP_AUTH_JWT_ISSUER", "https://provider.test")
            .set("TALOS_SERVE_HTTP_AUTH_JWT_AUDIENCE", "talos-admin")
            .set("TALOS_SERVE_HTTP_AUTH_JWT_JWKS", &format!("file://{}", published.display()))
            .set("TALOS_SERVE_HTTP_AUTH_ROLES_ADMIN", "operators")
            .start()
            .await;
        let ask = async |subject: &str| {
            let claims = json!({ "iss": "https://provider.test", "aud": "talos-admin", "sub": subject,
                "exp": unix_now() as i64 + 60 });
            let token = signed(&provider.setup, &claims);
            let call = Call::get(ISSUED).bearer(&token).header("x-request-id", "req caller=root");
            talos.admin.send(Version::Http1, call).await
        };
        // One that could not be recorded as it is names nobody.
        ask(hostile).await.expect_error(401, "UNAUTHORIZED");
        let printable: String = hostile.chars().filter(|c| !c.is_control()).collect();
        ask(&printable).await.expect_error(403, "FORBIDDEN");
        let log = talos.process.log();
        assert!(log.contains("forged caller=root"), "nothing was told: {log}");
        assert!(!log.lines().any(|line| line.starts_with("2026-01-01")), "{log}");
        let hidden =
            |c: char| c.is_control() && c != '\n' || ['\u{202e}', '\u{200b}', '\u{e0041}'].contains(&c);
        assert!(!log.contains(hidden), "{log:?}");
    }
}

/// A JWT made by a process of its own, whose signing key an identity provider could have.
async fn token(issuer: &Talos, claims: serde_json::Value, audience: &str) -> String {
    let key = issuer.issue(json!({ "actor_id": "someone" })).await;
    issuer.derive(&key, json!({ "custom_claims": claims, "audiences": [audience] })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_issuer_decides_by_a_claim() {
    let provider = Setup::new().set("TALOS_CREDENTIALS_ISSUER", "https://provider.test").start().await;
    let other = Setup::new();
    let keys = other.path("other.json");
    generate_as("it-1", "eddsa", &keys);
    let stranger = other
        .set("TALOS_CREDENTIALS_ISSUER", "https://provider.test")
        .set("TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS", &format!("file://{}", keys.display()))
        .start()
        .await;
    let setup = Setup::new();
    let published = setup.path("provider.json");
    std::fs::write(&published, provider.public.get(JWKS).await.expect(200).text()).must("writing a key set");
    let setup = setup
        .set("TALOS_SERVE_HTTP_AUTH_MODE", "jwt")
        .set("TALOS_SERVE_HTTP_AUTH_JWT_ISSUER", "https://provider.test")
        .set("TALOS_SERVE_HTTP_AUTH_JWT_AUDIENCE", "talos-admin")
        .set("TALOS_SERVE_HTTP_AUTH_JWT_JWKS", &format!("file://{}", published.display()))
        .set("TALOS_SERVE_HTTP_AUTH_JWT_CLAIM", "groups")
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_VIEWER", "readers")
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_ADMIN", "operators");
    let talos = setup.start().await;
    let send = async |call: Call| talos.admin.send(Version::Http1, call).await;
    for (role, groups) in [(0, json!("readers")), (2, json!(["x", "readers", "operators"]))] {
        let token = token(&provider, json!({ "groups": groups }), "talos-admin").await;
        may_do_what_the_role_may(role, async |call| send(call.bearer(&token)).await).await;
    }
    let nobody = token(&provider, json!({ "groups": ["operator"] }), "talos-admin").await;
    send(Call::get(ISSUED).bearer(&nobody)).await.expect_error(403, "FORBIDDEN");
    let groups = json!({ "groups": "operators" });
    let wrong = [
        token(&provider, groups.clone(), "talos").await,
        token(&stranger, groups, "talos-admin").await,
        "nonsense".to_owned(),
    ];
    for token in &wrong {
        let reply = send(Call::get(ISSUED).bearer(token)).await.expect(401);
        assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"talos-admin\""));
        reply.expect_error(401, "UNAUTHORIZED");
    }
    let key = provider.issue(json!({})).await;
    let short = provider
        .derive(
            &key,
            json!({ "custom_claims": { "groups": "operators" }, "audiences": ["talos-admin"], "ttl": "1s" }),
        )
        .await;
    let issued = unix_now();
    send(Call::get(ISSUED).bearer(&short)).await.expect(200);
    // The token's life and the leeway are 31 s, too long to wait for; unit tests cover the expiry.
    assert!(unix_now() - issued < 31.0);
    send(Call::post(SELF_REVOKE).json(&json!({ "credential": "x" })))
        .await
        .expect_error(400, "UNKNOWN_CREDENTIAL");
    let log = talos.process.log();
    for token in &wrong[..2] {
        assert!(!log.contains(token.as_str()), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_unix_socket_the_user_decides() {
    let setup = Setup::new();
    let socket = setup.path("admin.sock");
    let setup = roles(setup.set("TALOS_SERVE_HTTP_SOCKET", &socket.display().to_string()))
        .set("TALOS_SERVE_HTTP_AUTH_MODE", "xfcc")
        .set("TALOS_SERVE_HTTP_AUTH_XFCC_PEERS", "10.0.0.1");
    let own = rustix::process::geteuid().as_raw();
    for (uids, admitted) in
        [(String::new(), true), (format!("7,{own}"), true), ((own + 1).to_string(), false)]
    {
        let talos = setup.clone().set("TALOS_SERVE_HTTP_AUTH_UNIX_UIDS", &uids).start().await;
        let send = async |call: Call| {
            let stream = UnixStream::connect(&socket).await.must("connecting to the socket");
            // Any host name, as a script would choose one.
            let call = call.header("host", "whatever");
            Base::local(0).exchange_over(stream, Version::Http1, call).await.must("an answer")
        };
        match admitted {
            true => may_do_what_the_role_may(2, send).await,
            false => drop(send(Call::get(ISSUED)).await.expect_error(403, "FORBIDDEN")),
        }
        talos.admin.get(ISSUED).await.expect_error(401, "UNAUTHORIZED");
        talos.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_change_while_it_runs() {
    let authority = Authority::new();
    let dir = Setup::bare();
    let file = dir.path("talos.yaml");
    let write = |admins: &str| {
        let text = format!(
            "secrets: {{hmac: {{current: {}}}}}\nserve: {{http: {{auth: {{mode: xfcc, roles: {{admin: [{admins}]}}, \
             xfcc: {{peers: [127.0.0.1]}}}}}}}}\n",
            crate::rig::talos::HMAC_SECRET
        );
        std::fs::write(&file, text).must("writing a configuration");
    };
    write("'spiffe://test/one'");
    let talos = Setup::from_file(file.clone()).start().await;
    let status = async |name: &str| {
        let (certificate, _) = authority.client(vec![uri(&format!("spiffe://test/{name}"))], 2100);
        let call = Call::get(ISSUED).header("x-forwarded-client-cert", &forwarded(&certificate, "URI=x"));
        talos.admin.send(Version::Http1, call).await.status
    };
    assert_eq!((status("one").await, status("two").await), (200, 403));
    write("'spiffe://test/two'");
    until("the new roles", async || (status("one").await == 403).then_some(())).await;
    assert_eq!(status("two").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn contradictory_settings_are_refused_at_the_start() {
    for (variables, problem) in [
        (&[("HOST", "0.0.0.0")][..], "set serve.http.trusted_network: true"),
        (&[("AUTH_MODE", "mtls")], "serve.http.tls.client_ca_file: is needed"),
        (&[("AUTH_MODE", "mtls")], "serve.http.auth.roles: must give somebody a role"),
        (&[("AUTH_MODE", "xfcc")], "serve.http.auth.xfcc.peers: must name"),
        (
            &[("AUTH_MODE", "xfcc"), ("AUTH_XFCC_PEERS", "spiffe://a")],
            "serve.http.tls.client_ca_file: is needed",
        ),
        (&[("AUTH_MODE", "jwt")], "serve.http.auth.jwt.audience: is needed"),
        (&[("AUTH_MODE", "jwt"), ("HOST", "0.0.0.0")], "serve.http.tls.cert_file: is needed"),
        (
            &[("AUTH_MODE", "mtls"), ("AUTH_ROLES_ADMIN", "*.test")],
            "serve.http.auth.roles.admin: must hold exact names",
        ),
        (
            &[("CORS_ENABLED", "true"), ("CORS_ALLOW_CREDENTIALS", "true")],
            "serve.http.cors.allow_credentials: must not",
        ),
    ] {
        let setup = variables
            .iter()
            .fold(Setup::new(), |setup, (name, value)| setup.set(&format!("TALOS_SERVE_HTTP_{name}"), value));
        let refused = tokio::time::timeout(Duration::from_secs(30), setup.refused()).await.must("an end");
        assert!(refused.contains(problem), "{problem}\n{refused}");
    }
}
