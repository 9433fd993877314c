//! kill -9 under load: what was acknowledged is there afterwards.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::task::JoinSet;

use crate::http::{Base, Call, Version};
use crate::random::Random;
use crate::support::{Json, Must, until};
use crate::talos::{ISSUED, Setup};

/// How often the process is killed; `TALOS_TEST_KILLS` says otherwise.
const ROUNDS: usize = 3;
const WRITERS: usize = 8;

/// Secrets that a 201 has told.
type Acknowledged = Arc<Mutex<Vec<String>>>;

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_key_is_lost_when_the_process_is_killed() {
    let mut random = Random::announced("kill -9 under load");
    let setup = Setup::new();
    let acknowledged = Acknowledged::default();
    let rounds =
        std::env::var("TALOS_TEST_KILLS").map_or(ROUNDS, |text| text.parse().must("TALOS_TEST_KILLS"));
    for round in 1..=rounds {
        let mut talos = setup.start().await;
        let before = count(&acknowledged);
        let enough = before + random.between(30, 150);
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            writers.spawn(issue_until_it_dies(talos.admin, Arc::clone(&acknowledged)));
        }
        until("enough keys are issued", async || (count(&acknowledged) >= enough).then_some(())).await;
        talos.process.kill();
        while let Some(writer) = writers.join_next().await {
            writer.must("a writer");
        }

        let talos = setup.start().await;
        let secrets = acknowledged.lock().must("the secrets").clone();
        for secret in &secrets {
            let verdict = talos.verify(secret).await;
            assert_eq!(verdict["is_valid"], true, "lost in round {round}: {verdict:#}");
        }
        println!("round {round}: {} keys acknowledged, all there", secrets.len());
        talos.stop().await;
    }
}

fn count(acknowledged: &Acknowledged) -> usize {
    acknowledged.lock().must("the secrets").len()
}

async fn issue_until_it_dies(admin: Base, acknowledged: Acknowledged) {
    let call = Call::post(ISSUED).json(&json!({ "name": "loaded", "actor_id": "alice" }));
    while let Ok(reply) = admin.try_send(Version::Http1, call.clone()).await {
        let secret = reply.expect(201).json().text("/secret").to_owned();
        acknowledged.lock().must("the secrets").push(secret);
    }
}
