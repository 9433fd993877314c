//! Quotas: the number of keys that a project may have.

use serde_json::{Value, json};
use sqlx::Connection;

use crate::rig::database::{self, Server};
use crate::rig::http::{Call, Reply, Version};
use crate::rig::support::{Json, Must, number_from, unix_now, until};
use crate::rig::talos::{IMPORTED, ISSUED, NETWORK, Setup, Talos};

async fn try_issue(talos: &Talos) -> u16 {
    let reply = talos.admin.post(ISSUED, &json!({ "name": "n", "actor_id": "a" })).await;
    if reply.status == 402 {
        let message = reply.expect_error(402, "API_KEY_QUOTA_EXCEEDED");
        assert!(message.contains("api_key_quota_exceeded"), "{message}");
        return 402;
    }
    reply.status
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_superseded_and_deleted_keys_make_room() {
    let talos = Setup::new().set("TALOS_QUOTA_API_KEYS_MAX", "2").start().await;
    let first = talos.issue(json!({})).await;
    let imported = talos.import("legacy-key", json!({})).await;
    assert_eq!(try_issue(&talos).await, 402);
    let body = json!({ "raw_key": "other", "name": "n", "actor_id": "a" });
    talos.admin.post(IMPORTED, &body).await.expect_error(402, "API_KEY_QUOTA_EXCEEDED");

    talos.revoke(&first).await;
    assert_eq!(try_issue(&talos).await, 201);
    assert_eq!(try_issue(&talos).await, 402);
    let path = format!("{IMPORTED}/{}", imported.id);
    talos.admin.send(Version::Http1, Call::new("DELETE", &path)).await.expect(204);
    assert_eq!(try_issue(&talos).await, 201);
    assert_eq!(try_issue(&talos).await, 402);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotating_needs_room_only_while_both_keys_are_valid() {
    let talos = Setup::new().set("TALOS_QUOTA_API_KEYS_MAX", "1").start().await;
    let key = talos.issue(json!({})).await;
    let path = format!("{ISSUED}/{}:rotate", key.id);
    let reply = talos.admin.post(&path, &json!({ "grace_period": "1h" })).await;
    reply.expect_error(402, "API_KEY_QUOTA_EXCEEDED");
    assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
    talos.admin.post(&path, &json!({})).await.expect(201);
    assert_eq!(try_issue(&talos).await, 402);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_leaves_the_quota_when_its_grace_period_ends() {
    let talos = Setup::new().set("TALOS_QUOTA_API_KEYS_MAX", "3").start().await;
    let mut keys = vec![talos.issue(json!({})).await, talos.issue(json!({})).await];
    let path = format!("{ISSUED}/{}:rotate", keys[0].id);
    talos.admin.post(&path, &json!({ "grace_period": "1s" })).await.expect(201);
    assert_eq!(try_issue(&talos).await, 402);
    until("the grace period is over", async || (try_issue(&talos).await == 201).then_some(())).await;
    assert_eq!(try_issue(&talos).await, 402);
    // A key whose grace period has ended frees no second place when it is revoked.
    talos.revoke(&keys.remove(0)).await;
    assert_eq!(try_issue(&talos).await, 402);
    talos.revoke(&keys.remove(0)).await;
    assert_eq!(try_issue(&talos).await, 201);
    assert_eq!(try_issue(&talos).await, 402);
}

/// A key beyond the quota is refused while the row is locked that orders the changes of all
/// networks, as the quota is checked before.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_quota_holds_up_nobody() {
    needs!(Postgres);
    let dsn = database::server().unwrap_or(Server::Postgres).new_database();
    let setup = Setup::new().set("TALOS_DB_DSN", &dsn).set("TALOS_QUOTA_API_KEYS_MAX", "1");
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    let order = database::hold(&dsn, "UPDATE mutation_counter SET n = n WHERE id = 1").await;
    assert_eq!(try_issue(&talos).await, 402);
    let path = format!("{ISSUED}/{}:rotate", key.id);
    let graceful = talos.admin.post(&path, &json!({ "grace_period": "1h" })).await;
    graceful.expect_error(402, "API_KEY_QUOTA_EXCEEDED");
    order.close().await.must("closing");
}

/// Ids of the networks of `a.example` and of `b.example`.
const A: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
const B: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";

/// Sets the variables of a process with these networks.
fn of_two_networks(dsn: &str) -> Setup {
    let networks = json!([{ "hostname": "a.example", "id": A }, { "hostname": "b.example", "id": B }]);
    Setup::new()
        .set("TALOS_DB_DSN", dsn)
        .set("TALOS_MULTITENANCY_ENABLED", "true")
        .set("TALOS_MULTITENANCY_NETWORKS", &networks.to_string())
}

/// Sends a request to the network of a host.
async fn post_to(talos: &Talos, host: &str, path: &str, body: Value) -> Reply {
    talos.admin.send(Version::Http1, Call::post(path).json(&body).header("host", host)).await
}

/// A network whose keys are locked, however long, doesn't hold up the revocations of another.
#[tokio::test(flavor = "multi_thread")]
async fn one_network_does_not_hold_up_another() {
    needs!(Postgres);
    let dsn = database::server().unwrap_or(Server::Postgres).new_database();
    let talos = of_two_networks(&dsn).set("TALOS_QUOTA_API_KEYS_MAX", "10").start().await;
    let post = async |host: &str, path: &str, body: Value| post_to(&talos, host, path, body).await;
    let new = json!({ "name": "n", "actor_id": "a" });
    let mut ids = vec![];
    for host in ["a.example", "b.example"] {
        let issued = post(host, ISSUED, new.clone()).await.expect(201).json();
        ids.push(issued.text("/issued_api_key/key_id").to_owned());
    }
    let lock = format!("UPDATE key_counts SET live = live WHERE network_id = '{A}'");
    let locked = database::hold(&dsn, &lock).await;
    let waiting = async {
        let issue = post("a.example", ISSUED, new.clone());
        let path = format!("{ISSUED}/{}:revoke", ids[0]);
        let revoke = post("a.example", &path, json!({}));
        tokio::join!(issue, revoke)
    };
    let others = async {
        post("b.example", ISSUED, new.clone()).await.expect(201);
        post("b.example", &format!("{ISSUED}/{}:revoke", ids[1]), json!({})).await.expect(204);
        locked.close().await.must("closing");
    };
    let ((issued, revoked), ()) = tokio::join!(waiting, others);
    assert_eq!((issued.status, revoked.status), (201, 204), "{}", issued.text());
}

/// Counts the sessions that wait for a lock.
fn waiting_sessions(dsn: &str) -> &'static str {
    match dsn.starts_with("mysql") {
        // Tables about locks are a copy, which isn't made anew for those who ask again and again.
        true => {
            "SELECT count(*) FROM information_schema.processlist \
             WHERE db = DATABASE() AND info LIKE 'INSERT INTO api\\_keys%' AND time_ms > 500"
        }
        false => {
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        }
    }
}

/// A batch that writes its rows, however long, doesn't hold up the revocations of another network:
/// it takes its numbers of the log when the rows are written.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_one_network_does_not_hold_up_another() {
    needs!(Postgres);
    let dsn = database::server().unwrap_or(Server::Postgres).new_database();
    let talos = of_two_networks(&dsn).start().await;
    let post = async |host: &str, path: &str, body: Value| post_to(&talos, host, path, body).await;
    let issued = post("b.example", ISSUED, json!({ "name": "n", "actor_id": "a" })).await.expect(201).json();
    let revoke = format!("{ISSUED}/{}:revoke", issued.text("/issued_api_key/key_id"));
    // A row that isn't committed yet, whose request id is that of the batch's last key.
    let row = format!(
        "INSERT INTO api_keys (network_id, key_id, kind, name, actor_id, scopes, visibility, allowed_cidrs, \
         created_at, updated_at, mutation, request_id) \
         VALUES ('{A}', 'held', 1, 'n', 'a', '[]', 1, '[]', 1, 1, 0, 'held')"
    );
    let held = database::hold(&dsn, &row).await;
    let import = |n: usize| json!({ "raw_key": format!("key-{n}"), "name": "n", "actor_id": "a" });
    let mut items: Vec<Value> = (0..90).map(import).collect();
    items[89]["request_id"] = json!("held");
    let path = format!("{IMPORTED}:batchCreate");
    let batch = post("a.example", &path, json!({ "requests": items }));
    let others = async {
        until("the batch waits for the row", async || {
            (database::number(&dsn, waiting_sessions(&dsn)).await > 0).then_some(())
        })
        .await;
        post("b.example", &revoke, json!({})).await.expect(204);
        held.close().await.must("closing");
    };
    let (batch, ()) = tokio::join!(batch, others);
    assert_eq!(batch.expect(200).json().at("/success_count"), 90);
}

/// Number of keys of the network; `TALOS_TEST_MANY_KEYS` overrides it.
const MANY_KEYS: usize = 20_000;

/// The server counts the rows that it reads: their number doesn't grow with the network.
#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_counted_to_issue_one() {
    needs!(Postgres);
    if !matches!(database::server(), None | Some(Server::Postgres)) {
        return;
    }
    let dsn = Server::Postgres.new_database();
    let many = number_from("TALOS_TEST_MANY_KEYS", MANY_KEYS);
    let insert = format!(
        "INSERT INTO api_keys (network_id, key_id, kind, name, actor_id, scopes, visibility, allowed_cidrs, \
         created_at, updated_at, mutation) SELECT '{NETWORK}', gen_random_uuid()::text, 1, 'n', 'a', '[]', 1, '[]', \
         i, i, 0 FROM generate_series(1, {many}) AS i"
    );
    database::execute(&dsn, insert);
    // Checked just now, so that it isn't at the start.
    let now = unix_now() as i64 * 1_000_000;
    database::execute(&dsn, format!("INSERT INTO key_counts VALUES ('{NETWORK}', {many}, 0, 1, {now})"));
    database::execute(&dsn, "ANALYZE api_keys".to_owned());
    let setup =
        Setup::new().set("TALOS_DB_DSN", &dsn).set("TALOS_QUOTA_API_KEYS_MAX", &(many + 10).to_string());
    let read = "SELECT (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint \
                FROM pg_stat_user_tables WHERE relname = 'api_keys'";
    let before = database::number(&dsn, read).await;
    let talos = setup.start().await;
    for _ in 0..10 {
        assert_eq!(try_issue(&talos).await, 201);
    }
    for _ in 0..10 {
        assert_eq!(try_issue(&talos).await, 402);
    }
    // A session reports what it has read when it ends.
    talos.stop().await;
    let expected = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    until("its sessions have ended", async || (database::number(&dsn, expected).await == 0).then_some(()))
        .await;
    let rows = database::number(&dsn, read).await - before;
    // The process counts keys by secret and prefix when it starts, and once more if it takes long.
    // Each of the twenty requests would read as many.
    let many = i64::try_from(many).must("a number");
    assert!(rows < 8 * many, "{rows} rows were read");
    let count = format!("SELECT live FROM key_counts WHERE network_id = '{NETWORK}'");
    assert_eq!(database::number(&dsn, &count).await, many + 10);
}

/// A count that is wrong, as an older release has changed keys beside this one, is corrected at the
/// start.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_count_is_corrected_at_the_start() {
    let setup = Setup::new();
    let talos = setup.start().await;
    for _ in 0..3 {
        talos.issue(json!({})).await;
    }
    talos.stop().await;
    setup.sql("UPDATE key_counts SET live = 1");
    let talos = setup.clone().set("TALOS_QUOTA_API_KEYS_MAX", "3").start().await;
    until("it is corrected", async || {
        let is_corrected = talos.process.log().contains("is corrected");
        is_corrected.then_some(())
    })
    .await;
    assert_eq!(try_issue(&talos).await, 402);
    talos.stop().await;
    setup.sql("DELETE FROM key_counts");
    let talos = setup.set("TALOS_QUOTA_API_KEYS_MAX", "3").start().await;
    until("it is made anew", async || {
        let corrections = talos.process.log().matches("is corrected").count();
        (corrections == 2).then_some(())
    })
    .await;
    assert_eq!(try_issue(&talos).await, 402);
}
