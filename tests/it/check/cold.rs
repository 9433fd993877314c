//! A cold start: a large database, nothing remembered, and everybody at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::task::JoinSet;

use crate::rig::check::Check;
use crate::rig::random::Random;
use crate::rig::support::{Must, number_from, until};
use crate::rig::talos::{ISSUED, Setup, Talos};

/// Keys in the database, keys that are asked about, and Checks; `TALOS_TEST_COLD_KEYS` and so on
/// say otherwise.
const KEYS: usize = 5_000;
const ASKED: usize = 400;
const CHECKS: usize = 2_000;
const CONNECTIONS: usize = 8;
const AT_ONCE: usize = 32;

#[tokio::test(flavor = "multi_thread")]
async fn each_row_is_read_once_at_most() {
    let mut random = Random::seeded("a cold start");
    let keys = number_from("TALOS_TEST_COLD_KEYS", KEYS);
    let asked = number_from("TALOS_TEST_COLD_ASKED", ASKED);
    let checks = number_from("TALOS_TEST_COLD_CHECKS", CHECKS);
    let setup = Setup::new();
    let mut talos = setup.start().await;
    let secrets = issue(&talos, asked).await;
    // The others are there, and nobody asks for them.
    fill_up(&setup, keys).await;
    talos.process.kill();

    let instances = [setup.start().await, setup.start().await];
    let mut order: Vec<usize> = (0..checks).map(|n| n % secrets.len()).collect();
    for n in (1..order.len()).rev() {
        order.swap(n, random.below(n + 1));
    }
    let (secrets, order) = (Arc::new(secrets), Arc::new(order));
    let before = [reads(&instances[0]).await, reads(&instances[1]).await];
    let mut counts = HashMap::new();
    let next = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let mut askers = JoinSet::new();
    for (talos, next) in instances.iter().zip(&next) {
        for _ in 0..CONNECTIONS {
            let grpc = talos.grpc().await;
            for _ in 0..AT_ONCE / CONNECTIONS * 4 {
                let (grpc, next) = (grpc.clone(), Arc::clone(next));
                let (secrets, order) = (Arc::clone(&secrets), Arc::clone(&order));
                askers.spawn(async move {
                    let (mut allowed, mut unavailable) = (0, 0);
                    while let Some(key) = order.get(next.fetch_add(1, Ordering::SeqCst)) {
                        let verdict = grpc.check(&Check::bearer(&secrets[*key]).build()).await;
                        assert!(verdict.is(200) || verdict.is(503), "{verdict:?}");
                        match verdict.passes() {
                            true => allowed += 1,
                            false => unavailable += 1,
                        }
                    }
                    (allowed, unavailable)
                });
            }
        }
    }
    while let Some(done) = askers.join_next().await {
        let (allowed, unavailable) = done.must("an asker");
        *counts.entry("allowed").or_insert(0) += allowed;
        *counts.entry("unavailable").or_insert(0) += unavailable;
    }
    println!(
        "{keys} keys, {checks} Checks of {} of them at each of two instances: {counts:?}",
        secrets.len()
    );
    assert_eq!(counts.values().sum::<usize>(), 2 * checks);
    for (talos, before) in instances.iter().zip(before) {
        let reads = reads(talos).await - before;
        println!("{reads} rows read");
        assert!(reads <= secrets.len() as f64, "{reads} reads of {} rows", secrets.len());
        // Whoever timed out, on a busy machine, finds an answer now: the lookup went on.
        let grpc = talos.grpc().await;
        for secret in secrets.iter() {
            until("the key is allowed", async || {
                grpc.check(&Check::bearer(secret).build()).await.passes().then_some(())
            })
            .await;
        }
    }
}

async fn reads(talos: &Talos) -> f64 {
    talos.metric("talos_store_key_reads_total").await
}

async fn issue(talos: &Talos, count: usize) -> Vec<String> {
    let mut secrets = vec![];
    let mut issuing = JoinSet::new();
    for _ in 0..8 {
        let admin = talos.admin;
        let share = count.div_ceil(8);
        issuing.spawn(async move {
            let mut secrets = vec![];
            for _ in 0..share {
                let issued = admin.post(ISSUED, &json!({ "name": "cold", "actor_id": "alice" })).await;
                secrets.push(issued.expect(201).json()["secret"].as_str().must("a secret").to_owned());
            }
            secrets
        });
    }
    while let Some(issued) = issuing.join_next().await {
        secrets.extend(issued.must("issued keys"));
    }
    secrets
}

/// Copies rows, under other ids, until the table has `keys` of them.
async fn fill_up(setup: &Setup, keys: usize) {
    let columns = "network_id, kind, name, actor_id, scopes, metadata, visibility, allowed_cidrs, created_at, updated_at, \
                   mutation";
    let mut have = 0;
    let mut step = 0;
    while have < keys {
        // The first step makes some, each further one doubles them.
        let more = match step {
            0 => 200,
            _ => have.min(keys - have),
        };
        let from = if step == 0 { "kind = 1" } else { "actor_id = 'filler'" };
        // An id of another key that none has yet: another version, and the step in front.
        let id = match crate::rig::database::server() {
            Some(crate::rig::database::Server::MariaDb) => {
                format!("CONCAT('{step:02x}', SUBSTR(SHA2(CONCAT(key_id, '{step}'), 256), 3, 62))")
            }
            Some(_) => {
                format!("'{step:02x}' || substr(encode(sha256((key_id || '{step}')::bytea), 'hex'), 3, 62)")
            }
            None => format!("'{step:02x}' || substr(lower(hex(randomblob(32))), 3, 62)"),
        };
        let select = columns.replace("kind", "2").replace("actor_id", "'filler'");
        setup.sql(&format!(
            "INSERT INTO api_keys (key_id, {columns}) SELECT {id}, {select} FROM api_keys WHERE {from} LIMIT {more}"
        ));
        have += more;
        step += 1;
    }
}
