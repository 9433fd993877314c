//! A real Envoy asks over TLS, with a certificate of its own, and over a Unix socket.

use serde_json::json;

use crate::authority::{Authority, dns};
use crate::envoy::Envoy;
use crate::http::{BOTH, Call, Version};
use crate::support::Must;
use crate::talos::{Setup, Talos};
use crate::tls::{Client, NAME};
use crate::upstream::Upstream;

const CLUSTER: &str = "    - name: talos_authz\n      type: STATIC\n";
const ADDRESS: &str = "address: 127.0.0.1, port_value: ";

async fn decides(envoy: &Envoy, talos: &Talos) {
    let key = talos.issue(json!({})).await;
    for version in BOTH {
        envoy.edge.send(version, Call::get("/").bearer(&key.secret)).await.expect(200);
        envoy.edge.send(version, Call::get("/")).await.expect(401);
    }
    talos.revoke(&key).await;
    envoy.edge.send(Version::Http2, Call::get("/").bearer(&key.secret)).await.expect(401);
}

/// The cluster with TLS, as an operator would write it.
fn over_tls(setup: &Setup, authority: &Authority, own: Option<&(String, String)>) -> String {
    let put = |name: &str, text: &str| {
        let path = setup.path(name);
        std::fs::write(&path, text).must("writing a PEM file");
        path.display().to_string()
    };
    let own = own.map_or(String::new(), |(certificate, key)| {
        format!(
            "            tls_certificates: [{{ certificate_chain: {{ filename: \"{}\" }}, private_key: {{ filename: \"{}\" }} }}]\n",
            put("envoy.crt", certificate),
            put("envoy.key", key)
        )
    });
    format!(
        "{CLUSTER}      transport_socket:\n        name: envoy.transport_sockets.tls\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n          \
         sni: {NAME}\n          common_tls_context:\n{own}            validation_context:\n              \
         trusted_ca: {{ filename: \"{}\" }}\n              match_typed_subject_alt_names: \
         [{{ san_type: DNS, matcher: {{ exact: {NAME} }} }}]\n",
        put("authority.crt", &authority.pem())
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_and_without_a_certificate_of_its_own() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let own = clients.client(vec![dns("envoy.test")], 2100);
    for mutual in [false, true] {
        let upstream = Upstream::start().await;
        let setup = Setup::new().tls("AUTHZ", &authority.issue(NAME, 2100));
        let (setup, client) = match mutual {
            false => (setup, Client::trusting(&authority)),
            true => (setup.client_ca("AUTHZ", &clients), Client::showing(&authority, &own)),
        };
        let talos = setup.start_until(async |talos| client.grpc(talos.authz).await.is_ok()).await;
        let cluster = over_tls(&setup, &authority, mutual.then_some(&own));
        let envoy = Envoy::start(upstream.port, talos.authz, &[(CLUSTER, &cluster)]).await;
        decides(&envoy, &talos).await;
        // A new certificate makes no difference to it.
        setup.put_pair("AUTHZ", &authority.issue(NAME, 2100));
        talos.process.signal(rustix::process::Signal::HUP);
        decides(&envoy, &talos).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_unix_socket() {
    let upstream = Upstream::start().await;
    let setup = Setup::new();
    let socket = setup.path("authz.sock");
    let setup = setup.set("TALOS_SERVE_AUTHZ_SOCKET", &socket.display().to_string());
    let talos = setup
        .start_until(async |talos| {
            let ready = talos.metrics.try_send(Version::Http1, Call::get("/health/ready")).await;
            ready.is_ok_and(|reply| reply.status == 200)
        })
        .await;
    let address = format!("socket_address: {{ {ADDRESS}{} }}", talos.authz.0.port());
    let pipe = format!("pipe: {{ path: \"{}\" }}", socket.display());
    let envoy = Envoy::start(upstream.port, talos.authz, &[(&address, &pipe)]).await;
    decides(&envoy, &talos).await;
}
