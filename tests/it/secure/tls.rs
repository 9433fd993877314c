//! TLS on every listener, and certificates of clients.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use serde_json::json;

use crate::rig::authority::{Authority, dns};
use crate::rig::check::Check;
use crate::rig::grpc::Health;
use crate::rig::http::{BOTH, Base, Call, Version};
use crate::rig::support::{Must, until, within};
use crate::rig::talos::{ISSUED, JWKS, Setup, Talos};
use crate::rig::tls::{Client, NAME};

const PLANES: [&str; 4] = ["HTTP", "PUBLIC", "METRICS", "AUTHZ"];

/// Ready, as TLS alone can tell.
async fn is_ready(client: &Client, talos: &Talos) -> bool {
    let ready = client.try_send(talos.metrics, Version::Http1, Call::get("/health/ready")).await;
    let grpc = client.grpc(talos.authz).await;
    match grpc {
        Ok(grpc) => {
            ready.is_ok_and(|reply| reply.status == 200) && grpc.health("").await == Ok(Health::Serving)
        }
        Err(_) => false,
    }
}

/// Asserts that data without TLS end the connection, and that no readable answer comes back.
async fn refuses_plaintext(base: Base) {
    let mut stream = TcpStream::connect(base.0).await.must("connecting");
    stream.write_all(b"GET /health/alive HTTP/1.1\r\nhost: localhost\r\n\r\n").await.must("writing");
    let mut answer = vec![];
    // A reset is as good as an end.
    let _ = within("the end of the connection", stream.read_to_end(&mut answer)).await;
    assert!(!answer.windows(4).any(|window| window == b"HTTP"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listener_speaks_tls_and_then_nothing_else() {
    let authority = Authority::new();
    let client = Client::trusting(&authority);
    let setup =
        PLANES.iter().fold(Setup::new(), |setup, plane| setup.tls(plane, &authority.issue(NAME, 2100)));
    let talos = setup.start_until(async |talos| is_ready(&client, talos).await).await;
    for version in BOTH {
        let body = json!({ "name": "a", "actor_id": "b" });
        let issued =
            client.send(talos.admin, version, Call::post(ISSUED).json(&body)).await.expect(201).json();
        let secret = issued["secret"].as_str().must("a secret").to_owned();
        client.send(talos.public, version, Call::get(JWKS)).await.expect(200);
        let metrics = client.send(talos.metrics, version, Call::get("/metrics")).await.expect(200).text();
        for plane in ["admin", "public", "authz", "metrics"] {
            let expiry =
                format!("talos_tls_certificate_expiry_timestamp_seconds{{plane=\"{plane}\"}} 4102444800");
            assert!(metrics.contains(&expiry), "{expiry}\n{metrics}");
        }
        let status = client.send(talos.metrics, version, Call::get("/status")).await.expect(200).json();
        let certificates = status["certificates"].as_array().must("certificates");
        let ends: Vec<_> = certificates.iter().map(|one| (&one["plane"], &one["expire_time"])).collect();
        let end = json!("2100-01-01T00:00:00Z");
        let planes = ["admin", "authz", "metrics", "public"].map(|plane| json!(plane));
        assert_eq!(ends, planes.iter().map(|plane| (plane, &end)).collect::<Vec<_>>());
        let grpc = client.grpc(talos.authz).await.must("gRPC over TLS");
        grpc.check(&Check::bearer(&secret).build()).await.allowed();
        assert_eq!(grpc.health("envoy.service.auth.v3.Authorization").await, Ok(Health::Serving));
    }
    // gRPC needs HTTP/2, and who can't speak it is told so by the handshake.
    let http1 = client.connect(talos.authz, Version::Http1).await;
    assert!(http1.is_err_and(|error| error.contains("NoApplicationProtocol")));
    for base in [talos.admin, talos.public, talos.metrics, talos.authz] {
        refuses_plaintext(base).await;
    }
    let stranger = Client::trusting(&Authority::new());
    assert!(stranger.connect(talos.admin, Version::Http2).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_clients_with_a_right_certificate_connect() {
    let (authority, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let pair = authority.issue(NAME, 2100);
    let setup =
        PLANES.iter().fold(Setup::new(), |setup, plane| setup.tls(plane, &pair).client_ca(plane, &clients));
    let good = Client::showing(&authority, &clients.client(vec![dns("envoy")], 2100));
    let talos = setup.start_until(async |talos| is_ready(&good, talos).await).await;
    let wrong = [
        ("no certificate", Client::trusting(&authority)),
        ("wrong authority", Client::showing(&authority, &others.client(vec![dns("envoy")], 2100))),
        ("expired", Client::showing(&authority, &clients.client(vec![dns("envoy")], 2021))),
    ];
    for base in [talos.admin, talos.public, talos.metrics, talos.authz] {
        for (what, client) in &wrong {
            // TLS 1.3 tells a client only after it believes that it is connected.
            let answer = client.try_send(base, Version::Http2, Call::get("/health/alive")).await;
            assert!(answer.is_err(), "{what} at {}: {answer:?}", base.0);
        }
        refuses_plaintext(base).await;
    }
    for base in [talos.admin, talos.public, talos.metrics] {
        good.send(base, Version::Http2, Call::get("/health/alive")).await.expect(200);
    }
    let refused = good.send(talos.metrics, Version::Http1, Call::get("/metrics")).await.text();
    assert!(
        refused.contains(r#"talos_connections_refused_total{plane="authz",reason="handshake"} "#),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_has_room_for_long_certificates_and_not_for_more() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let pair = authority.issue(NAME, 2100);
    let setup =
        PLANES.iter().fold(Setup::new(), |setup, plane| setup.tls(plane, &pair).client_ca(plane, &clients));
    // A certificate of some 25 KB.
    let names = (0..1_000).map(|n| dns(&format!("envoy-{n:04}.example.com"))).collect();
    let long = Client::showing(&authority, &clients.client(names, 2100));
    let talos = setup.start_until(async |talos| is_ready(&long, talos).await).await;
    let refused = async |plane: &str| {
        let metrics =
            long.send(talos.metrics, Version::Http1, Call::get("/metrics")).await.expect(200).text();
        let series = format!("talos_connections_refused_total{{plane=\"{plane}\",reason=\"handshake\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&series)).map(ToOwned::to_owned)
    };
    // Half a ClientHello of 65,000 bytes.
    let record = |content: &[u8]| {
        let length = u16::try_from(content.len()).must("a record").to_be_bytes();
        [&[22, 3, 1][..], &length, content].concat()
    };
    let hello = [&[1, 0, 0xfd, 0xe8][..], &[0; 16_000]].concat();
    let half = [record(&hello), record(&[0; 16_000]), record(&[0; 16_000])].concat();
    for (plane, base) in [("public", talos.public), ("authz", talos.authz)] {
        let before = refused(plane).await;
        let mut stream = TcpStream::connect(base.0).await.must("connecting");
        stream.write_all(&half).await.must("writing");
        // A reset is as good as an end.
        let _ = within("the end of the connection", stream.read_to_end(&mut vec![])).await;
        until("the refused handshake is counted", async || (refused(plane).await != before).then_some(()))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_stop_the_start() {
    let authority = Authority::new();
    let (pair, other) = (authority.issue(NAME, 2100), authority.issue(NAME, 2100));
    let setup = Setup::new().tls("AUTHZ", &(pair.0.clone(), other.1.clone()));
    let output = setup.refused().await;
    assert!(
        output.contains("serve.authz.tls: ") && output.contains("the key isn't that of the certificate"),
        "{output}"
    );
    setup.put_pair("AUTHZ", &("hunter2".to_owned(), pair.1.clone()));
    let output = setup.refused().await;
    assert!(output.contains("has no certificate in PEM") && !output.contains("hunter2"), "{output}");
    std::fs::remove_file(setup.path("AUTHZ-key.pem")).must("removing a key");
    setup.put_pair("AUTHZ", &pair);
    std::fs::remove_file(setup.path("AUTHZ-key.pem")).must("removing a key");
    let output = setup.refused().await;
    assert!(output.contains("AUTHZ-key.pem: No such file"), "{output}");
}
