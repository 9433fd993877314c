//! The blocks for Envoy of the pages, in a real Envoy with the configuration that we ship.

use std::process::Command;

use serde_json::json;

use super::{blocks, page};
use crate::cli::Ran;
use crate::rig::authority::{Authority, uri};
use crate::rig::envoy::{CONFIG, Envoy};
use crate::rig::http::{BOTH, Call, Version};
use crate::rig::support::{Must, until};
use crate::rig::talos::{Setup, Talos};
use crate::rig::upstream::Upstream;

const CLUSTER: &str = "    - name: talos_authz\n      type: STATIC\n";
const TOP: &str = "static_resources:\n  listeners:\n";
const NODE: &str = "node: { id: edge-1, cluster: edge }";
const ROUTE: &str = "                          route: { cluster: upstream }\n";
/// Where the pages have Envoy's files.
const DIRECTORY: &str = "/etc/envoy";

fn indented(block: &str, by: usize) -> String {
    block.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}

async fn decides(envoy: &Envoy, talos: &Talos) {
    let key = talos.issue(json!({})).await;
    for version in BOTH {
        envoy.edge.send(version, Call::get("/").bearer(&key.secret)).await.expect(200);
        envoy.edge.send(version, Call::get("/")).await.expect(401);
    }
}

/// TLS with a certificate of its own, which is renewed under the running Envoy; the doctor has
/// nothing to say about it.
#[tokio::test(flavor = "multi_thread")]
async fn tls_to_talos_is_set_up_and_renewed_as_the_page_says() {
    needs!(Envoy);
    let shown = page("deploy.md");
    let yaml = blocks(&shown, "yaml envoy");
    let [socket, secret] = &yaml[..] else { panic!("{} blocks for Envoy", yaml.len()) };
    assert!(shown.contains(NODE), "the page names the node");
    let (authority, clients) = (Authority::new(), Authority::new());
    let client = |year| clients.client(vec![uri("spiffe://example.com/envoy")], year);
    let setup = Setup::new().tls("AUTHZ", &authority.issue("localhost", 2090)).client_ca("AUTHZ", &clients);
    let own = setup.path("etc-envoy");
    std::fs::create_dir(&own).must("Envoy's directory");
    let here = |text: &str| text.replace(DIRECTORY, &own.display().to_string());
    let (chain, key) = client(2090);
    for (name, text) in [
        ("ca.crt", authority.pem()),
        ("envoy.crt", chain),
        ("envoy.key", key),
        ("talos-client.yaml", here(secret)),
    ] {
        std::fs::write(own.join(name), text).must(name);
    }
    let talos = setup
        .start_until(async |talos| {
            let ready = talos.metrics.try_send(Version::Http1, Call::get("/health/ready")).await;
            ready.is_ok_and(|reply| reply.status == 200)
        })
        .await;
    let upstream = Upstream::start().await;
    let cluster = format!("{CLUSTER}{}", indented(&here(socket), 6));
    let top = format!("{NODE}\n{TOP}");
    let envoy = Envoy::start(upstream.port, talos.authz, &[(CLUSTER, &cluster), (TOP, &top)]).await;
    decides(&envoy, &talos).await;
    assert!(envoy.certificates().await.contains("2090-"), "{}", envoy.certificates().await);

    let renewed = setup.path("renewed");
    std::fs::create_dir(&renewed).must("a directory");
    let (chain, key) = client(2091);
    std::fs::write(renewed.join("envoy.crt"), chain).must("a certificate");
    std::fs::write(renewed.join("envoy.key"), key).must("a key");
    let script = here(&blocks(&shown, "sh envoy").concat());
    let ran = Command::new("sh").args(["-euc", &script]).current_dir(&renewed).status();
    assert!(ran.must("sh").success(), "{script}");
    until("Envoy shows the new certificate", async || {
        envoy.certificates().await.contains("2091-").then_some(())
    })
    .await;
    decides(&envoy, &talos).await;

    let whole = std::fs::read_to_string(CONFIG).must(CONFIG).replace(CLUSTER, &cluster).replace(TOP, &top);
    std::fs::write(setup.path("envoy.yaml"), whole).must("a configuration");
    let output = Ran::from(setup.run(&["doctor", "envoy.yaml"]).await);
    assert_eq!(output.code, 0, "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_bounds_its_streams_as_the_page_says() {
    needs!(Envoy);
    let yaml = blocks(&page("envoy.md"), "yaml envoy");
    let [route] = &yaml[..] else { panic!("{} blocks for Envoy", yaml.len()) };
    let route = indented(&route.replace("downloads", "upstream"), 26);
    let (talos, upstream) = (Talos::start().await, Upstream::start().await);
    let envoy = Envoy::start(upstream.port, talos.authz, &[(ROUTE, &route)]).await;
    decides(&envoy, &talos).await;
}
