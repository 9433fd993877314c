//! Connections of clients whose certificates were trusted when they connected, and aren't any more.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::rig::authority::{Authority, dns};
use crate::rig::check::Check;
use crate::rig::grpc::{Grpc, Health};
use crate::rig::http::{Call, Version};
use crate::rig::support::{Must, until, within};
use crate::rig::talos::{ISSUED, JWKS, Setup, Talos, generate_as};
use crate::rig::tls::{Client, NAME};

/// Planes with HTTP, and what a request asks of each.
const HTTP_PLANES: [(&str, &str); 2] = [("HTTP", ISSUED), ("PUBLIC", JWKS)];

/// A connection over HTTP/1.1 that is kept.
struct Kept {
    stream: TlsStream<TcpStream>,
    path: &'static str,
}

impl Kept {
    async fn open(client: &Client, talos: &Talos, (plane, path): (&str, &'static str)) -> Kept {
        let base = if plane == "HTTP" { talos.admin } else { talos.public };
        Kept { stream: client.connect(base, Version::Http1).await.must("connecting"), path }
    }

    /// Sends a request; what comes back, which is nothing when the connection has ended.
    async fn ask(&mut self) -> String {
        let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", self.path);
        if self.stream.write_all(request.as_bytes()).await.is_err() {
            return String::new();
        }
        self.read().await
    }

    async fn read(&mut self) -> String {
        let mut answer = vec![0; 64 * 1024];
        let read = within("an answer or an end", self.stream.read(&mut answer)).await;
        // A reset is as good as an end.
        answer.truncate(read.unwrap_or_default());
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A connection over HTTP/2 to the admin plane that is kept.
struct KeptHttp2 {
    sender: SendRequest<Empty<Bytes>>,
    url: String,
}

async fn http2(client: &Client, talos: &Talos) -> KeptHttp2 {
    let stream = client.connect(talos.admin, Version::Http2).await.must("connecting");
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.must("HTTP/2");
    tokio::spawn(connection);
    KeptHttp2 { sender, url: talos.admin.url(ISSUED) }
}

impl KeptHttp2 {
    /// Sends a request; the status of its answer, or None when the connection has ended.
    async fn ask(&mut self) -> Option<u16> {
        let request = Request::get(&self.url).body(Empty::new()).must("a request");
        let answer = within("an answer or an end", self.sender.send_request(request)).await;
        answer.ok().map(|answer| answer.status().as_u16())
    }
}

/// All planes that clients reach with TLS and certificates of `clients`; the metrics plane stays
/// open for the tests.
async fn start(authority: &Authority, clients: &Authority, good: &Client) -> Talos {
    let pair = authority.issue(NAME, 2100);
    let planes = ["HTTP", "PUBLIC", "AUTHZ"];
    let setup =
        planes.iter().fold(Setup::new(), |setup, plane| setup.tls(plane, &pair).client_ca(plane, clients));
    let setup =
        setup.set("TALOS_SERVE_HTTP_AUTH_MODE", "mtls").set("TALOS_SERVE_HTTP_AUTH_ROLES_ADMIN", "one.test");
    let serves = async |talos: &Talos| match good.grpc(talos.authz).await {
        Ok(grpc) => grpc.health("").await == Ok(Health::Serving),
        Err(_) => false,
    };
    setup.start_until(serves).await
}

/// Does something to the files of all planes, and waits until each has taken them up.
async fn until_taken_up(talos: &Talos, change: impl Fn(&str)) {
    let count = || talos.process.log().matches("a new certificate is in force").count();
    let before = count();
    ["HTTP", "PUBLIC", "AUTHZ"].iter().for_each(|plane| change(plane));
    until("the new files are in force", async || (count() == before + 3).then_some(())).await;
}

/// Replaces the client CAs of all planes.
async fn replace(talos: &Talos, cas: &str) {
    until_taken_up(talos, |plane| {
        let path = talos.setup.path(&format!("{plane}-client-ca.pem"));
        let new = path.with_extension("new");
        std::fs::write(&new, cas).must("writing client CAs");
        std::fs::rename(&new, &path).must("putting client CAs in their place");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_the_trust_in_its_certificate() {
    let (authority, old, new) = (Authority::new(), Authority::new(), Authority::new());
    let of_old = Client::showing(&authority, &old.client(vec![dns("one.test")], 2100));
    let of_new = Client::showing(&authority, &new.client(vec![dns("one.test")], 2100));
    let talos = start(&authority, &old, &of_old).await;
    let issue = Call::post(ISSUED).json(&json!({ "name": "a", "actor_id": "b" }));
    let issued = of_old.send(talos.admin, Version::Http2, issue).await.expect(201).json();
    let ask = Check::bearer(issued["secret"].as_str().must("a secret")).build();
    let mut kept = vec![];
    for plane in HTTP_PLANES {
        kept.push(Kept::open(&of_old, &talos, plane).await);
    }
    let grpc = of_old.grpc(talos.authz).await.must("connecting");
    let goes_on = async |kept: &mut [Kept], grpc: &Grpc| {
        for kept in kept {
            let answer = kept.ask().await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{}: {answer}", kept.path);
        }
        grpc.check(&ask).await.allowed();
    };
    goes_on(&mut kept, &grpc).await;
    let mut http2 = http2(&of_old, &talos).await;
    assert_eq!(http2.ask().await, Some(200));

    // Another CA beside the old one takes nothing away, nor does a new certificate of ours.
    replace(&talos, &(old.pem() + &new.pem())).await;
    let pair = authority.issue(NAME, 2100);
    until_taken_up(&talos, |plane| talos.setup.put_pair(plane, &pair)).await;
    goes_on(&mut kept, &grpc).await;
    let mut others = vec![];
    for plane in HTTP_PLANES {
        others.push(Kept::open(&of_new, &talos, plane).await);
    }
    let other_grpc = of_new.grpc(talos.authz).await.must("connecting");
    goes_on(&mut others, &other_grpc).await;

    replace(&talos, &new.pem()).await;
    // One that waits for a request is ended, too; of the others, what comes next isn't answered.
    let idle = kept.remove(1).read().await;
    assert_eq!(idle, "", "the connection has ended");
    assert_eq!(kept[0].ask().await, "", "the admin plane");
    assert_eq!(http2.ask().await, None, "the admin plane over HTTP/2");
    assert!(grpc.health("").await.is_err(), "the authz plane");
    goes_on(&mut others, &other_grpc).await;
    assert!(of_old.try_send(talos.admin, Version::Http2, Call::get(ISSUED)).await.is_err());
    for plane in ["admin", "public", "authz"] {
        let metric = format!("talos_connections_refused_total{{plane=\"{plane}\",reason=\"untrusted\"}}");
        until(&metric, async || (talos.metric(&metric).await >= 1.0).then_some(())).await;
    }
    assert!(talos.process.log().contains("the new ones don't trust its certificate"));
}

/// A caller whose token was good a moment ago isn't one any more when the issuer's key goes from
/// the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_with_its_key_in_the_file() {
    let provider = Setup::new().set("TALOS_CREDENTIALS_ISSUER", "https://provider.test").start().await;
    let setup = Setup::new();
    let published = setup.path("provider.json");
    let put = |keys: String| std::fs::write(&published, keys).must("writing a key set");
    put(provider.public.get(JWKS).await.expect(200).text());
    let setup = setup
        .set("TALOS_SERVE_HTTP_AUTH_MODE", "jwt")
        .set("TALOS_SERVE_HTTP_AUTH_JWT_ISSUER", "https://provider.test")
        .set("TALOS_SERVE_HTTP_AUTH_JWT_AUDIENCE", "talos-admin")
        .set("TALOS_SERVE_HTTP_AUTH_JWT_JWKS", &format!("file://{}", published.display()))
        .set("TALOS_SERVE_HTTP_AUTH_JWT_CLAIM", "groups")
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_ADMIN", "operators");
    let talos = setup.start().await;
    let key = provider.issue(json!({})).await;
    let claims = json!({ "custom_claims": { "groups": "operators" }, "audiences": ["talos-admin"] });
    let token = provider.derive(&key, claims).await;
    let status = async || {
        let call = Call::get(ISSUED).bearer(&token);
        talos.admin.send(Version::Http1, call).await.status
    };
    assert_eq!(status().await, 200);
    let dir = tempfile::tempdir().must("a directory for a key");
    put(generate_as("another", "eddsa", &dir.path().join("key.json")));
    until("the token's key is gone", async || (status().await == 401).then_some(())).await;
}
