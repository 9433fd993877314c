//! Server reflection of the authz plane, as tools use it.

use crate::rig::support::Must;
use crate::rig::talos::Talos;

const LIST_SERVICES: u8 = 7;
const FILE_CONTAINING_SYMBOL: u8 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn the_authz_plane_describes_itself() {
    let talos = Talos::start().await;
    let grpc = talos.grpc().await;
    for version in ["v1", "v1alpha"] {
        let ask = async |field, value| {
            let answer = grpc.reflect(version, field, value).await.must("an answer");
            assert_eq!(answer.code, 0, "{}", answer.text);
            String::from_utf8_lossy(&answer.message).into_owned()
        };
        let services = ask(LIST_SERVICES, "*").await;
        for name in ["envoy.service.auth.v3.Authorization", "grpc.health.v1.Health"] {
            assert!(services.contains(name), "{version}: {services}");
            let file = ask(FILE_CONTAINING_SYMBOL, name).await;
            assert!(file.contains("Check"), "{version} {name}: {file}");
        }
        // All that is needed to describe a message is there.
        for name in
            ["envoy.service.auth.v3.CheckRequest", "envoy.config.core.v3.Address", "google.protobuf.Struct"]
        {
            let file = ask(FILE_CONTAINING_SYMBOL, name).await;
            assert!(file.contains(name.rsplit('.').next().must(name)), "{version} {name}: {file}");
        }
    }
    let unknown = grpc.reflect("v2", LIST_SERVICES, "*").await.must("an answer");
    assert_eq!(unknown.code, 12);
}
