//! A real Envoy asks over TLS, with a certificate of its own, and over a Unix socket; and stands
//! before the admin plane.

use std::process::Command;

use serde_json::json;

use crate::rig::authority::{Authority, dns, uri};
use crate::rig::envoy::Envoy;
use crate::rig::http::{BOTH, Base, Call, Version};
use crate::rig::needs::variable;
use crate::rig::process::{Process, free_port};
use crate::rig::support::{Must, until};
use crate::rig::talos::{ISSUED, Setup, Talos};
use crate::rig::tls::{Client, NAME};
use crate::rig::upstream::Upstream;

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
    needs!(Envoy);
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
    needs!(Envoy);
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

/// An Envoy that asks its clients for certificates, and forwards them to the admin plane.
struct Front {
    _process: Process,
    edge: Base,
}

impl Front {
    async fn start(
        setup: &Setup,
        admin: Base,
        own: &(String, String),
        clients: &Authority,
        details: &str,
    ) -> Front {
        let edge = Base::local(free_port());
        let put = |name: &str, text: &str| {
            let path = setup.path(name);
            std::fs::write(&path, text).must("writing a file");
            path.display().to_string()
        };
        let (chain, key) = (put("front.crt", &own.0), put("front.key", &own.1));
        let ca = put("front-clients.crt", &clients.pem());
        let address =
            |base: Base| json!({ "socket_address": { "address": "127.0.0.1", "port_value": base.0.port() } });
        let details: serde_json::Map<String, serde_json::Value> =
            details.split(' ').map(|detail| (detail.to_owned(), json!(true))).collect();
        let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
        let config = json!({ "static_resources": {
            "listeners": [{ "address": address(edge), "filter_chains": [{
                "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": {
                    "@type": kind("transport_sockets.tls.v3.DownstreamTlsContext"),
                    "require_client_certificate": true,
                    "common_tls_context": {
                        "alpn_protocols": ["h2", "http/1.1"],
                        "tls_certificates": [{ "certificate_chain": { "filename": chain }, "private_key": { "filename": key } }],
                        "validation_context": { "trusted_ca": { "filename": ca } },
                    },
                } },
                "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": {
                    "@type": kind("filters.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "admin",
                    "forward_client_cert_details": "SANITIZE_SET",
                    "set_current_client_cert_details": details,
                    "route_config": { "virtual_hosts": [{ "name": "admin", "domains": ["*"], "routes": [{
                        "match": { "prefix": "/" },
                        "route": { "cluster": "admin", "host_rewrite_literal": "localhost" },
                    }] }] },
                    "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": {
                        "@type": kind("filters.http.router.v3.Router"),
                    } }],
                } }],
            }] }],
            "clusters": [{ "name": "admin", "type": "STATIC", "load_assignment": { "cluster_name": "admin",
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(admin) } }] }] } }],
        } });
        let file = put("front.json", &config.to_string());
        let mut command = Command::new(variable("TALOS_TEST_ENVOY"));
        command.args(["-c", &file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        Front { _process: Process::spawn("Envoy", command, &setup.path("front.log")), edge }
    }
}

/// The owner of a certificate may choose its names, with separators in them, and Envoy forwards
/// them unescaped.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_forwarded_certificate_are_not_made_up_by_its_owner() {
    needs!(Envoy);
    let (authority, clients) = (Authority::new(), Authority::new());
    let setup = Setup::new()
        .set("TALOS_SERVE_HTTP_AUTH_MODE", "xfcc")
        .set("TALOS_SERVE_HTTP_AUTH_XFCC_PEERS", "127.0.0.1")
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_ADMIN", "spiffe://test/admin,admin.test");
    let talos = setup.start().await;
    let admin = clients.client(vec![uri("spiffe://test/admin")], 2100);
    let pasted = crate::rig::authority::forwarded(&admin.0, "URI=spiffe://test/admin");
    for details in ["cert chain subject uri dns", "cert", "subject uri dns", "uri", "dns"] {
        let own = authority.issue(NAME, 2100);
        let front = Front::start(&talos.setup, talos.admin, &own, &clients, details).await;
        let ask = async |names| {
            let client = Client::showing(&authority, &clients.client(names, 2100));
            until("Envoy answers", async || {
                client.try_send(front.edge, Version::Http1, Call::get(ISSUED)).await.ok()
            })
            .await
            .status
        };
        // The certificate itself has to be there: what else a proxy writes can't be told from what
        // it doesn't.
        let honest = if details.starts_with("cert") { 200 } else { 401 };
        assert_eq!(ask(vec![uri("spiffe://test/admin")]).await, honest, "{details}");
        assert_eq!(ask(vec![uri("spiffe://test/x"), dns("Admin.test")]).await, honest, "{details}");
        for names in [
            vec![uri("spiffe://test/x,URI=spiffe://test/admin")],
            vec![uri("spiffe://test/x;DNS=admin.test")],
            vec![uri("spiffe://test/admin;DNS=x")],
            vec![uri("spiffe://test/admin ")],
            vec![uri("admin.test")],
            vec![uri(&format!("spiffe://test/x,{pasted}"))],
            vec![uri(&format!("x;{pasted}"))],
            vec![dns("x;DNS=admin.test")],
            vec![dns("x;URI=spiffe://test/admin")],
            vec![dns("spiffe://test/admin")],
            vec![dns(&format!("x,{pasted}"))],
        ] {
            let shown = format!("{details}: {names:?}");
            let status = ask(names).await;
            assert!(matches!(status, 401 | 403), "{shown}: {status}");
        }
    }
}
