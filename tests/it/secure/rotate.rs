//! Certificates replaced under load: no request fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;

use crate::rig::authority::Authority;
use crate::rig::check::Check;
use crate::rig::grpc::{Grpc, Health};
use crate::rig::http::{Base, Call, Version};
use crate::rig::support::{Must, until};
use crate::rig::talos::{Key, Setup, Talos, VERIFY};
use crate::rig::tls::{Client, NAME};

/// Returns the number of replacements of the certificates.
fn rounds() -> usize {
    std::env::var("TALOS_TEST_ROTATIONS").map_or(4, |count| count.parse().must("TALOS_TEST_ROTATIONS"))
}

/// The certificate that a listener shows.
async fn shown(client: &Client, base: Base) -> Vec<u8> {
    let stream = client.connect(base, Version::Http2).await.must("a handshake");
    let chain = stream.get_ref().1.peer_certificates().must("a certificate");
    chain[0].to_vec()
}

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    answered: AtomicUsize,
}

/// Checks over one connection, Checks over a new one each time, and verifications over a new one
/// each time.
fn load(talos: &Talos, client: &Client, key: &Key, kept: &Grpc) -> (Arc<Load>, JoinSet<()>) {
    let load = Arc::new(Load::default());
    let mut tasks = JoinSet::new();
    for kind in 0..3 {
        let (client, load, kept, secret) =
            (client.clone(), Arc::clone(&load), kept.clone(), key.secret.clone());
        let (admin, authz) = (talos.admin, talos.authz);
        tasks.spawn(async move {
            let ask = Check::bearer(&secret).build();
            while !load.stop.load(Ordering::Relaxed) {
                match kind {
                    0 => drop(kept.check(&ask).await.allowed()),
                    1 => drop(client.grpc(authz).await.must("connecting").check(&ask).await.allowed()),
                    _ => {
                        let call = Call::post(VERIFY).json(&json!({ "credential": secret }));
                        client.send(admin, Version::Http1, call).await.expect(200);
                    }
                }
                load.answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    (load, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_under_load_and_no_request_fails() {
    let authority = Authority::new();
    let client = Client::trusting(&authority);
    let first = authority.issue(NAME, 2100);
    let setup = Setup::new().tls("HTTP", &first).tls("AUTHZ", &first);
    let talos = setup
        .start_until(async |talos| match client.grpc(talos.authz).await {
            Ok(grpc) => grpc.health("").await == Ok(Health::Serving),
            Err(_) => false,
        })
        .await;
    let issued = client
        .send(
            talos.admin,
            Version::Http1,
            Call::post(crate::rig::talos::ISSUED).json(&json!({ "name": "a", "actor_id": "b" })),
        )
        .await
        .expect(201)
        .json();
    let key = Key {
        id: String::new(),
        secret: issued["secret"].as_str().must("a secret").to_owned(),
        resource: issued,
    };
    let kept = client.grpc(talos.authz).await.must("connecting");
    let (load, mut tasks) = load(&talos, &client, &key, &kept);
    for round in 0..rounds() {
        let before = shown(&client, talos.authz).await;
        let answered = load.answered.load(Ordering::Relaxed);
        let new = authority.issue(NAME, 2100);
        for plane in ["HTTP", "AUTHZ"] {
            // For a moment the key isn't that of the certificate, and once nothing is right at all.
            if round == 1 {
                setup.put_pair(plane, &("nonsense".to_owned(), "nonsense".to_owned()));
                talos.process.signal(Signal::HUP);
                until("the nonsense is refused", async || {
                    talos.process.log().contains("a certificate was refused").then_some(())
                })
                .await;
                assert_eq!(shown(&client, talos.authz).await, before);
            }
            setup.put_pair(plane, &new);
        }
        if round % 2 == 1 {
            talos.process.signal(Signal::HUP);
        }
        until("the new certificates are shown", async || {
            let all_new =
                shown(&client, talos.authz).await != before && shown(&client, talos.admin).await != before;
            all_new.then_some(())
        })
        .await;
        until("the load goes on", async || {
            (load.answered.load(Ordering::Relaxed) > answered + 20).then_some(())
        })
        .await;
    }
    load.stop.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task.must("a task of the load");
    }
    println!("{} rotations, {} requests, 0 failed", rounds(), load.answered.load(Ordering::Relaxed));
    kept.check(&Check::bearer(&key.secret).build()).await.allowed();
    let reloads = talos.metric("talos_tls_certificate_reloads_total").await;
    assert!(reloads >= 2.0 * rounds() as f64, "{reloads}");
}
