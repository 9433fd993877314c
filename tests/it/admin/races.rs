//! Concurrent changes of one key: the result is that of some order of them.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::rig::http::{Call, Reply, Version};
use crate::rig::support::Json;
use crate::rig::talos::{IMPORTED, ISSUED, Setup, Talos};

const ROUNDS: usize = 10;

/// Fifty clients on two processes with one database, all at once.
async fn fifty<'a, F: Future<Output = Reply>>(
    processes: [&'a Talos; 2],
    call: impl Fn(&'a Talos, usize) -> F,
) -> Vec<Reply> {
    join_all((0..50).map(|n| call(processes[n % 2], n))).await
}

async fn two() -> (Talos, Talos) {
    two_of(Setup::new()).await
}

async fn two_of(setup: Setup) -> (Talos, Talos) {
    let first = setup.start().await;
    let second = first.setup.start().await;
    (first, second)
}

async fn all_keys(talos: &Talos) -> Vec<Value> {
    let listed = talos.admin.get(&format!("{ISSUED}?page_size=1000")).await.expect(200).json();
    listed.at("/issued_api_keys").as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_id_makes_one_key() {
    // The secret is shown once, or each time the same one.
    for (reveal_for, shown, different) in [("0", 1, 1), ("10m", 50, 1)] {
        makes_one_key(Setup::new().set("TALOS_IDEMPOTENCY_REVEAL_FOR", reveal_for), shown, different).await;
    }
}

async fn makes_one_key(setup: Setup, shown: usize, different: usize) {
    let (first, second) = two_of(setup).await;
    for round in 0..ROUNDS {
        let request_id = format!("round-{round}");
        let body = json!({ "name": "n", "actor_id": "a", "request_id": request_id });
        let replies = fifty([&first, &second], |talos, _| talos.admin.post(ISSUED, &body)).await;
        let mut ids = HashSet::new();
        let mut secrets = vec![];
        for reply in replies {
            let reply = reply.expect(201).json();
            ids.insert(reply.text("/issued_api_key/key_id").to_owned());
            secrets.extend(reply.get("secret").map(ToString::to_string));
        }
        let distinct: HashSet<&String> = secrets.iter().collect();
        assert_eq!((ids.len(), secrets.len(), distinct.len()), (1, shown, different));
    }
    assert_eq!(all_keys(&first).await.len(), ROUNDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_id_with_many_bodies_makes_one_key() {
    let (first, second) = two().await;
    let bodies: Vec<Value> =
        (0..50).map(|n| json!({ "name": format!("n{n}"), "actor_id": "a", "request_id": "r" })).collect();
    let replies = fifty([&first, &second], |talos, n| talos.admin.post(ISSUED, &bodies[n])).await;
    let mut created = 0;
    for reply in replies {
        match reply.status {
            201 => created += 1,
            _ => drop(reply.expect_error(409, "CONFLICT")),
        }
    }
    assert_eq!(created, 1);
    assert_eq!(all_keys(&first).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_gets_one_successor() {
    let (first, second) = two().await;
    for grace in ["0s", "1h"] {
        let key = first.issue(json!({})).await;
        let before = all_keys(&first).await.len();
        let (path, body) = (format!("{ISSUED}/{}:rotate", key.id), json!({ "grace_period": grace }));
        let replies = fifty([&first, &second], |talos, _| talos.admin.post(&path, &body)).await;
        let mut secrets = vec![];
        for reply in replies {
            match reply.status {
                201 => secrets.push(reply.json().text("/secret").to_owned()),
                _ => drop(reply.expect_error(409, "FAILED_PRECONDITION")),
            }
        }
        assert_eq!(secrets.len(), 1, "grace {grace}");
        assert_eq!(all_keys(&first).await.len(), before + 1);
        assert_eq!(first.verify(&secrets[0]).await["is_valid"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_id_makes_one_successor() {
    let (first, second) = two().await;
    for round in 0..ROUNDS {
        let key = first.issue(json!({})).await;
        let before = all_keys(&first).await.len();
        let path = format!("{ISSUED}/{}:rotate", key.id);
        let body = json!({ "request_id": format!("rotation-{round}") });
        let replies = fifty([&first, &second], |talos, _| talos.admin.post(&path, &body)).await;
        let secrets: HashSet<String> =
            replies.into_iter().map(|reply| reply.expect(201).json().text("/secret").to_owned()).collect();
        assert_eq!(secrets.len(), 1);
        assert_eq!(all_keys(&first).await.len(), before + 1);
    }
}

/// Concurrent changes never make more active keys than the quota, and afterwards exactly as many
/// can be made as are missing.
#[tokio::test(flavor = "multi_thread")]
async fn the_quota_is_exact_whatever_happens_at_once() {
    const QUOTA: usize = 12;
    let setup = Setup::new().set("TALOS_QUOTA_API_KEYS_MAX", &QUOTA.to_string());
    let (first, second) = two_of(setup).await;
    let mut ids: Vec<String> = vec![];
    for round in 0..ROUNDS {
        let known = &ids;
        let replies = fifty([&first, &second], |talos, n| {
            let id = known.get(n % known.len().max(1)).cloned();
            let raw_key = format!("legacy-{round}-{n}");
            async move {
                let import = json!({ "raw_key": raw_key, "name": "n", "actor_id": "a" });
                let grace = json!({ "grace_period": if n % 2 == 0 { "1ms" } else { "1h" } });
                let path = |id: &str, method: &str| format!("{ISSUED}/{id}:{method}");
                match (n % 5, id) {
                    (0, Some(id)) => talos.admin.post(&path(&id, "revoke"), &json!({})).await,
                    (1, Some(id)) => talos.admin.post(&path(&id, "rotate"), &grace).await,
                    (2, Some(id)) => talos.admin.post(&path(&id, "rotate"), &json!({})).await,
                    (3, _) => talos.admin.post(IMPORTED, &import).await,
                    _ => talos.admin.post(ISSUED, &json!({ "name": "n", "actor_id": "a" })).await,
                }
            }
        })
        .await;
        for reply in replies {
            assert!(matches!(reply.status, 201 | 204 | 402 | 409), "{}: {}", reply.status, reply.text());
        }
        let active = active_ids(&first, ISSUED).await;
        let imported = active_ids(&first, IMPORTED).await;
        assert!(active.len() + imported.len() <= QUOTA, "{} and {}", active.len(), imported.len());
        for id in imported {
            first
                .admin
                .send(Version::Http1, Call::new("DELETE", &format!("{IMPORTED}/{id}")))
                .await
                .expect(204);
        }
        ids = active;
    }
    let missing = QUOTA - active_ids(&first, ISSUED).await.len();
    for _ in 0..missing {
        first.issue(json!({})).await;
    }
    let one_more = json!({ "name": "n", "actor_id": "a" });
    second.admin.post(ISSUED, &one_more).await.expect_error(402, "API_KEY_QUOTA_EXCEEDED");
}

async fn active_ids(talos: &Talos, kind: &str) -> Vec<String> {
    let path = format!("{kind}?page_size=1000&filter=status%3DKEY_STATUS_ACTIVE");
    let page = talos.admin.get(&path).await.expect(200).json();
    let list = if kind == ISSUED { "/issued_api_keys" } else { "/imported_api_keys" };
    let keys = page.at(list).as_array().unwrap().clone();
    keys.iter().map(|key| key.text("/key_id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_rotating_and_updating_one_key_end_in_some_order() {
    let (first, second) = two().await;
    for _ in 0..ROUNDS {
        let key = first.issue(json!({ "name": "before" })).await;
        let before = all_keys(&first).await.len();
        let path = format!("{ISSUED}/{}", key.id);
        let replies = fifty([&first, &second], |talos, n| {
            let path = path.clone();
            async move {
                match n % 3 {
                    0 => talos.admin.post(&format!("{path}:revoke"), &json!({})).await,
                    1 => talos.admin.post(&format!("{path}:rotate"), &json!({})).await,
                    _ => talos.patch(&path, &json!({ "name": format!("n{n}") })).await,
                }
            }
        })
        .await;
        let mut successors = vec![];
        let mut names = vec![];
        for (n, reply) in replies.into_iter().enumerate() {
            match (n % 3, reply.status) {
                (0, 204) => {}
                (1, 201) => successors.push(reply.json()),
                (1, 409) => drop(reply.expect_error(409, "FAILED_PRECONDITION")),
                (2, 200) => names.push(reply.json().text("/name").to_owned()),
                (_, status) => panic!("{n}: {status}: {}", reply.text()),
            }
        }
        let old = first.admin.get(&path).await.json();
        assert_eq!(old.text("/status"), "KEY_STATUS_REVOKED");
        assert!(names.contains(&old.text("/name").to_owned()), "the name is one of those given");
        assert!(successors.len() <= 1, "{successors:?}");
        assert_eq!(all_keys(&first).await.len(), before + successors.len());
        let superseded = old.get("revocation_reason") == Some(&json!("REVOCATION_REASON_SUPERSEDED"));
        assert_eq!(superseded, successors.len() == 1, "rotated or revoked, never half of each: {old:#}");
        for successor in successors {
            let name = successor.text("/issued_api_key/name").to_owned();
            assert!(name == "before" || names.contains(&name), "{name}");
            assert_eq!(first.verify(successor.text("/secret")).await["is_valid"], true);
        }
        assert_eq!(first.verify(&key.secret).await["is_valid"], false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_place_goes_to_one() {
    let first = Setup::new().set("TALOS_QUOTA_API_KEYS_MAX", "3").start().await;
    let second = first.setup.start().await;
    let body = json!({ "name": "n", "actor_id": "a" });
    let replies = fifty([&first, &second], |talos, _| talos.admin.post(ISSUED, &body)).await;
    let created = replies.iter().filter(|reply| reply.status == 201).count();
    assert_eq!(created, 3);
    assert!(replies.iter().all(|reply| matches!(reply.status, 201 | 402)));
    assert_eq!(all_keys(&first).await.len(), 3);
}
