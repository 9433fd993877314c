//! Readers that wait for what isn't there yet.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{EVENTS, back_up, events, page, restore};
use crate::rig::http::{Base, Call, Reply, Version};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{Setup, Talos, VERIFY};

/// Most readers of one network that wait at once (src/service/events.rs).
const MAX_WAITING: usize = 64;

/// A request that waits, and the time that its answer took.
async fn wait(admin: Base, query: String) -> (Reply, Duration) {
    let began = Instant::now();
    let reply = admin.send(Version::Http1, Call::get(&format!("{EVENTS}?{query}"))).await;
    (reply, began.elapsed())
}

/// Waits again and again for one event; returns its subject.
async fn wait_until_told(admin: Base, place: String) -> String {
    loop {
        let (reply, _) = wait(admin, format!("after={place}&wait=20s")).await;
        if reply.status == 429 {
            continue;
        }
        let received = events(&reply.expect(200).json());
        assert!(received.len() <= 1, "{received:?}");
        if let Some(event) = received.first() {
            return event.text("/subject").to_owned();
        }
    }
}

fn setup() -> Setup {
    Setup::new().set("TALOS_CONSISTENCY_POLL", "200ms")
}

/// Waits until a reader has connected, which then keeps its connection until its answer.
async fn has_connected(talos: &Talos) {
    // Without any connection so far, there is no sample yet.
    let open = "talos_connections{plane=\"admin\"} ";
    let is_connected = |page: &str| page.lines().any(|line| line.starts_with(open) && !line.ends_with(" 0"));
    let connected =
        async || is_connected(&talos.metrics.get("/metrics").await.expect(200).text()).then_some(());
    until("a reader is connected", connected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_ends_the_wait_wherever_it_was_made() {
    let setup = setup();
    let (one, other) = (setup.start().await, setup.start().await);
    for writer in [&one, &other] {
        let now = page(&one, "after=now").await.text("/next").to_owned();
        let waiting = tokio::spawn(wait(one.admin, format!("after={now}&wait=25s")));
        has_connected(&one).await;
        let key = writer.issue(json!({})).await;
        let (reply, took) = waiting.await.must("the reader");
        let received = events(&reply.expect(200).json());
        assert_eq!(received.iter().map(|event| event.text("/subject")).collect::<Vec<_>>(), [&*key.id]);
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_without_a_change_ends_in_time_with_the_same_place() {
    let talos = setup().start().await;
    talos.issue(json!({})).await;
    let (reply, took) = wait(talos.admin, "after=now&wait=1s".to_owned()).await;
    let answer = reply.expect(200).json();
    assert_eq!((events(&answer).len(), answer.at("/epoch")), (0, &json!(1)));
    assert!(took >= Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_ends_the_wait_with_a_410() {
    let talos = setup().start().await;
    talos.issue(json!({})).await;
    back_up(&talos.setup);
    talos.issue(json!({})).await;
    let waiting = tokio::spawn(wait(talos.admin, "after=2&wait=25s".to_owned()));
    has_connected(&talos).await;
    restore(&talos.setup);
    let (reply, took) = waiting.await.must("the reader");
    reply.expect_error(410, "EVENTS_GONE");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stops_answers_those_who_wait() {
    let talos = setup().start().await;
    let waiting = tokio::spawn(wait(talos.admin, "after=now&wait=25s".to_owned()));
    has_connected(&talos).await;
    let began = Instant::now();
    talos.stop().await;
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    let (reply, _) = waiting.await.must("the reader");
    assert_eq!(events(&reply.expect(200).json()).len(), 0);
}

/// Readers that never read their answers, and as many as may wait.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_are_slow_or_many_delay_nobody() {
    let talos = setup().start().await;
    let requests: Vec<_> = (0..1_000)
        .map(|n| json!({ "raw_key": format!("key-{n}"), "name": "n".repeat(200), "actor_id": "a".repeat(200) }))
        .collect();
    let path = "/v2alpha1/admin/importedApiKeys:batchCreate";
    talos.admin.post(path, &json!({ "requests": requests })).await.expect(200);
    // Their answers are larger than what the sockets take.
    let mut silent = vec![];
    for _ in 0..10 {
        let mut stream = TcpStream::connect(talos.admin.0).await.must("connecting");
        let host = talos.admin.0;
        let ask = format!("GET {EVENTS}?page_size=1000 HTTP/1.1\r\nhost: {host}\r\n\r\n");
        for _ in 0..4 {
            stream.write_all(ask.as_bytes()).await.must("asking");
        }
        silent.push(stream);
    }
    let mut waiting = JoinSet::new();
    let now = page(&talos, "after=now").await.text("/next").to_owned();
    for _ in 0..MAX_WAITING {
        waiting.spawn(wait_until_told(talos.admin, now.clone()));
    }
    until("no further reader may wait", async || {
        let (reply, _) = wait(talos.admin, "after=now&wait=200ms".to_owned()).await;
        (reply.status == 429).then_some(())
    })
    .await;
    // Others aren't delayed: neither readers that don't wait, nor anybody else.
    let began = Instant::now();
    page(&talos, "after=now").await;
    let key = talos.issue(json!({})).await;
    let verified = talos.admin.post(VERIFY, &json!({ "credential": key.secret })).await.expect(200).json();
    assert_eq!(verified.at("/is_valid"), &json!(true));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    while let Some(received) = waiting.join_next().await {
        assert_eq!(received.must("a reader"), key.id, "each is told of the change");
    }
    // Readers that are gone have freed their places.
    until("another may wait", async || {
        let (reply, _) = wait(talos.admin, "after=now&wait=100ms".to_owned()).await;
        (reply.status == 200).then_some(())
    })
    .await;
    drop(silent);
}
