//! Announcements of changes: if they are lost, repeated, out of order or forged, only time is lost.

use futures_util::StreamExt;
use redis::AsyncCommands;
use serde_json::json;
use tokio::sync::mpsc;

use crate::rig::check::Check;
use crate::rig::redis::Redis;
use crate::rig::support::{Must, until, within};
use crate::rig::talos::{Setup, Talos};

const CHANNEL: &str = "talos:v1:changes";

/// Starts two processes that learn of each other's changes by announcements alone, and records
/// those.
async fn overheard(redis: &Redis) -> (Talos, Talos, mpsc::UnboundedReceiver<Vec<u8>>) {
    let setup =
        redis.used_by(Setup::new()).set("TALOS_CONSISTENCY_LEASE", "10m").set("TALOS_CONSISTENCY_POLL", "9m");
    let first = setup.start().await;
    let second = first.setup.start().await;
    let mut listener = redis.pubsub().await;
    listener.subscribe(CHANNEL).await.must("SUBSCRIBE");
    let (heard, hears) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = listener.into_on_message();
        while let Some(message) = messages.next().await {
            if heard.send(message.get_payload_bytes().to_vec()).is_err() {
                return;
            }
        }
    });
    (first, second, hears)
}

async fn refuses(talos: &Talos, key: &crate::rig::talos::Key) {
    until("the other process refuses the key", async || {
        (!talos.check(Check::bearer(&key.secret)).await.passes()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_announcements_come_with_the_next_and_repeated_ones_change_nothing() {
    needs!(Redis);
    let redis = Redis::start().await;
    let (first, second, mut hears) = overheard(&redis).await;
    let mut keys = vec![];
    for _ in 0..4 {
        let key = first.issue(json!({})).await;
        second.check(Check::bearer(&key.secret)).await.allowed();
        keys.push(key);
    }
    // The first two changes aren't announced.
    let mut connection = redis.connection().await;
    redis.command(&["ACL", "SETUSER", "default", "-publish"]).await;
    first.revoke(&keys[0]).await;
    first.revoke(&keys[1]).await;
    redis.command(&["ACL", "SETUSER", "default", "+publish"]).await;
    uses_redis_again(&first).await;
    second.check(Check::bearer(&keys[0].secret)).await.allowed();
    first.revoke(&keys[2]).await;
    for key in &keys[..3] {
        refuses(&second, key).await;
    }
    second.check(Check::bearer(&keys[3].secret)).await.allowed();
    // Four were issued, three revoked.
    assert_eq!(second.metric("talos_epoch").await, 7.0);

    // The one that was heard, once more and again, by somebody who can write to Redis.
    let mut message = within("an announcement", hears.recv()).await.must("an announcement");
    // Whoever connects tries its rights by a message without content.
    while message.is_empty() {
        message = within("an announcement", hears.recv()).await.must("an announcement");
    }
    for _ in 0..200 {
        let _: () = connection.publish(CHANNEL, &message).await.must("PUBLISH");
    }
    let forged = [&message[..message.len() - 1], &[message[message.len() - 1] ^ 1]].concat();
    let _: () = connection.publish(CHANNEL, &forged).await.must("PUBLISH");
    // A forged announcement causes no poll: a change without an announcement isn't found.
    redis.command(&["ACL", "SETUSER", "default", "-publish"]).await;
    first.revoke(&keys[3]).await;
    redis.command(&["ACL", "SETUSER", "default", "+publish"]).await;
    uses_redis_again(&first).await;
    for _ in 0..200 {
        let _: () = connection.publish(CHANNEL, &message).await.must("PUBLISH");
    }
    for _ in 0..20 {
        second.check(Check::bearer(&keys[3].secret)).await.allowed();
    }
    assert_eq!(second.metric("talos_epoch").await, 7.0);
    let last = first.issue(json!({})).await;
    first.revoke(&last).await;
    refuses(&second, &keys[3]).await;
    assert_eq!(second.metric("talos_epoch").await, 10.0);
}

/// Waits until a process uses Redis again, whose rights were too few for a while.
async fn uses_redis_again(talos: &Talos) {
    until("Redis is used again", async || {
        let status = talos.metrics.get("/status").await.expect(200).json();
        (status["redis"][0]["usable"] == true).then_some(())
    })
    .await;
}
