//! SIGKILL amid changes: the log goes on, and names the calls whose outcome isn't known.

use serde_json::json;
use tokio::task::JoinSet;

use super::{audited, calls, whole};
use crate::rig::http::{Base, Call, Version};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::ISSUED;

const ROUNDS: usize = 3;
const WRITERS: usize = 8;

/// Issues keys until the process is gone; returns the ids of the acknowledged ones.
async fn write_until_it_dies(admin: Base) -> Vec<String> {
    let mut answered = Vec::new();
    let body = json!({ "name": "n", "actor_id": "a" });
    while let Ok(reply) = admin.try_send(Version::Http1, Call::post(ISSUED).json(&body)).await {
        answered.push(reply.expect(201).json().text("/issued_api_key/key_id").to_owned());
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_goes_on_and_what_was_open_is_named() {
    let setup = audited();
    let mut answered = Vec::new();
    for round in 1..=ROUNDS {
        let mut talos = setup.start().await;
        let before = calls(&setup).len();
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            writers.spawn(write_until_it_dies(talos.admin));
        }
        until("enough is written", async || (calls(&setup).len() >= before + 40 * round).then_some(())).await;
        talos.process.kill();
        answered.extend(writers.join_all().await.concat());
    }
    let talos = setup.start().await;
    let found = whole(&setup).await;
    let lines = calls(&setup);
    let of_kind = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    let unknown = found.at("/unknown_outcomes").as_array().must("a list");
    assert_eq!(of_kind("intent") - of_kind("outcome"), unknown.len(), "{found:#}");
    println!("{} keys, {} outcomes unknown", answered.len(), unknown.len());
    assert!(unknown.len() <= ROUNDS * WRITERS, "{found:#}");
    for open in unknown {
        assert_eq!(open.text("/operation"), "issue");
        assert!(!answered.contains(&open.text("/keys/0").to_owned()), "it was answered: {open:#}");
    }
    // Each that was answered has its outcome, and each unknown one can be looked up.
    let done: Vec<&str> =
        lines.iter().filter(|line| line["kind"] == "outcome").map(|line| line.text("/keys/0")).collect();
    for id in &answered {
        assert!(done.contains(&&**id), "{id} was answered without an outcome");
    }
    for open in unknown {
        let reply = talos.admin.get(&format!("{ISSUED}/{}", open.text("/keys/0"))).await;
        assert!([200, 404].contains(&reply.status), "{}", reply.text());
    }
}
