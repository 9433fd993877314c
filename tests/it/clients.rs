//! Existing clients: what is published for Ory Talos works here unchanged.

use std::time::Duration;

use prost::Message;
use serde_json::json;

use crate::rig::check::Check;
use crate::rig::http::{Call, Version};
use crate::rig::python;
use crate::rig::support::{Json, Must};
use crate::rig::talos::{ISSUER, Talos};

#[tokio::test(flavor = "multi_thread")]
async fn the_published_sdk_goes_through_all_its_operations() {
    needs!(Sdk);
    let talos = Talos::start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/sdk.py");
    let (admin, public) = (talos.admin.url(""), talos.public.url(""));
    python::run_beside("TALOS_TEST_SDK_PYTHONPATH", &[script, &admin, &public, ISSUER]).await;
}

/// Time that all cases of grpcio may take on a busy machine: some wait for keepalive pings.
const GRPCIO_TIMEOUT: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn grpcio_calls_in_every_way_that_its_settings_allow() {
    needs!(GrpcClient);
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "actor_id": "grpcio" })).await;
    let request = |credential: &str| -> String {
        let message = Check::bearer(credential).build().encode_to_vec();
        message.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let (good, bad) = (request(&key.secret), request(&format!("{}x", key.secret)));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/grpc_client.py");
    let address = talos.authz.0.to_string();
    let output =
        python::run_for(GRPCIO_TIMEOUT, "TALOS_TEST_GRPC_PYTHONPATH", &[script, &address, &good, &bad]).await;
    println!("{output}");
    talos.check(Check::bearer(&key.secret)).await.allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_on_the_admin_listener_alone_and_says_what_is_there() {
    let talos = Talos::start().await;
    talos.public.get("/openapi.json").await.expect_error(404, "NOT_FOUND");
    talos.metrics.get("/openapi.json").await.expect_error(404, "NOT_FOUND");
    let description = talos.admin.get("/openapi.json").await.expect(200).json();
    assert_eq!(description.text("/openapi"), "3.0.3");
    let paths = description.at("/paths").as_object().must("paths");
    let mut operations = 0;
    for (path, item) in paths {
        for verb in item.as_object().must(path).keys() {
            // The ids name no key; that the route itself is there shows all the same.
            let path = path.split('{').collect::<Vec<_>>().join("nonesuch{");
            let path: String =
                path.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest)).collect();
            let call = Call::new(&verb.to_uppercase(), &path).json(&json!({}));
            let reply = talos.admin.send(Version::Http1, call).await;
            let reason =
                (reply.status >= 400).then(|| reply.json().text("/error/details/0/reason").to_owned());
            let is_there = !matches!(reason.as_deref(), Some("NOT_FOUND" | "METHOD_NOT_ALLOWED"));
            assert!(is_there, "{verb} {path}: {}", reply.text());
            operations += 1;
        }
    }
    assert_eq!(
        operations, 43,
        "18 as published, revocation of either kind, two erasures, five of suspensions and grace periods, four of \
         actors, two of usage, three of following, three of policies, status, health, the description itself and its \
         page"
    );
}
