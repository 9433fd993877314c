//! Key sets that come from another server by https.

use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::version::TLS13;

use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{DERIVE, JWKS, Setup, generate_as};

const URLS: &str = "TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS";
const KEY_ID: &str = "TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEY_ID";

/// An https server that gives one answer to every request, until another is set.
struct KeyServer {
    port: u16,
    /// The server's certificate, which is its own issuer.
    certificate: String,
    answer: Arc<Mutex<String>>,
    _tasks: JoinSet<()>,
}

impl KeyServer {
    async fn start() -> KeyServer {
        let key = KeyPair::generate().must("a key for a certificate");
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let params = CertificateParams::new(names).must("the names of a certificate");
        let certificate = params.self_signed(&key).must("a certificate");
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .must("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .must("a TLS server");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.must("a port for a key server");
        let port = listener.local_addr().must("its address").port();
        let answer = Arc::new(Mutex::new(String::new()));
        let mut tasks = JoinSet::new();
        let answers = Arc::clone(&answer);
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answers) = (acceptor.clone(), Arc::clone(&answers));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    let answer = answers.lock().must("the answer").clone();
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        KeyServer { port, certificate: certificate.pem(), answer, _tasks: tasks }
    }

    /// From now on it answers so.
    fn says(&self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
        *self.answer.lock().must("the answer") = head + body;
    }

    /// From now on it has this key set.
    fn has(&self, body: &str) {
        self.says("200 OK", "content-type: application/json\r\n", body);
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}/jwks.json", self.port)
    }

    /// A process that has its keys from here and trusts our certificate.
    fn setup(&self) -> Setup {
        let setup = Setup::new();
        let file = setup.path("ca.pem");
        std::fs::write(&file, &self.certificate).must("writing a certificate");
        ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "SSL_CERT_DIR"]
            .into_iter()
            .fold(setup, Setup::unset)
            .set("SSL_CERT_FILE", &file.to_string_lossy())
            .set(URLS, &self.url())
    }
}

fn key_set(kid: &str) -> String {
    let dir = tempfile::tempdir().must("a directory for a key");
    generate_as(kid, "eddsa", &dir.path().join("key.json"))
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_from_another_server_sign_and_are_followed() {
    let server = KeyServer::start().await;
    server.has(&key_set("one"));
    let talos = server.setup().start().await;
    let published = async || talos.public.get(JWKS).await.expect(200).json().text("/keys/0/kid").to_owned();
    assert_eq!(published().await, "one");
    let key = talos.issue(json!({})).await;
    talos.derive(&key, json!({})).await;

    // Fetched again on SIGHUP, as it is every few minutes.
    let fetches = async |outcome: &str| {
        talos.metric(&format!("talos_config_key_set_fetches_total{{outcome=\"{outcome}\"}}")).await
    };
    server.has(&key_set("two"));
    talos.process.signal(Signal::HUP);
    until("the new key is published", async || (published().await == "two").then_some(())).await;
    assert_eq!(fetches("ok").await, 1.0);
    talos.derive(&key, json!({})).await;

    // While the server fails, what it had stays.
    let bad = [
        ("503 Service Unavailable", "", ""),
        ("200 OK", "", "{"),
        ("200 OK", "", r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#),
    ];
    for (round, (status, headers, body)) in bad.into_iter().enumerate() {
        server.says(status, headers, body);
        talos.process.signal(Signal::HUP);
        until(status, async || (fetches("failed").await > round as f64).then_some(())).await;
        assert_eq!(published().await, "two", "{status} {body}");
        talos.admin.post(DERIVE, &json!({ "credential": key.secret })).await.expect(200);
    }
    let log = talos.process.log();
    assert!(log.contains("signing_keys.urls[0]: 127.0.0.1: answered 503"), "{log}");
    assert_eq!(talos.metric("talos_config_last_reload_successful").await, 1.0, "the configuration is good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_the_signing_key_away_is_not_followed() {
    let server = KeyServer::start().await;
    server.has(&key_set("one"));
    let talos = server.setup().set(KEY_ID, "one").start().await;
    let key = talos.issue(json!({})).await;
    server.has(&key_set("two"));
    talos.process.signal(Signal::HUP);
    until("it is told", async || {
        talos.process.log().contains("signing_key_id: names no key that can sign").then_some(())
    })
    .await;
    talos.derive(&key, json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_key_set_fails_and_says_why() {
    let server = KeyServer::start().await;
    let good = key_set("one");
    let large = format!("{{\"keys\":[]{}}}", " ".repeat(1024 * 1024));
    let plain = format!("location: http://127.0.0.1:{}/\r\n", server.port);
    let other = format!("location: {}?again\r\n", server.url());
    let cases = [
        ("404 Not Found", "", good.as_str(), "answered 404 instead of 200"),
        ("302 Found", plain.as_str(), "", "answered 302 instead of 200"),
        ("301 Moved Permanently", other.as_str(), "", "answered 301 instead of 200"),
        ("200 OK", "", large.as_str(), "must be 1048576 bytes at most"),
        ("200 OK", "", "<html>", "must be a JSON object with a list `keys`"),
    ];
    for (status, headers, body, output) in cases {
        server.says(status, headers, body);
        let log = server.setup().refused().await;
        assert!(log.contains("credentials.derived_tokens.jwt.signing_keys.urls[0]: "), "{status}: {log}");
        assert!(log.contains(output), "{status}: {log}");
    }

    server.has(&good);
    let log = server.setup().unset("SSL_CERT_FILE").refused().await;
    assert!(log.contains("signing_keys.urls[0]: 127.0.0.1: ") && log.contains("certificate"), "{log}");
    let plain = server.url().replace("https://", "http://");
    let log = server.setup().set(URLS, &plain).refused().await;
    assert!(log.contains("signing_keys.urls[0]: must begin with base64://, file:// or https://"), "{log}");
    let with_password =
        server.url().replace("https://", "https://user:hunter2@").replace("127.0.0.1", "127.0.0.2");
    let log = server.setup().set(URLS, &with_password).refused().await;
    assert!(log.contains("127.0.0.2") && !log.contains("hunter2"), "{log}");
}
