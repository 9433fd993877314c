//! Many made-up credentials: they are refused, and holders of keys notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use serde_json::json;
use tokio::task::JoinSet;

use crate::rig::check::Check;
use crate::rig::grpc::Grpc;
use crate::rig::random::Random;
use crate::rig::support::{Must, number_from, until};
use crate::rig::talos::{Key, Setup, Talos};

/// Number of credentials that look imported; `TALOS_TEST_FLOOD` overrides it.
const FLOOD: usize = 8_000;
const FLOOD_CONNECTIONS: usize = 4;
const FLOOD_AT_ONCE: usize = 8;
/// Pause of each sender, so that lookups are measured and not the scheduling of an exhausted
/// machine.
const FLOOD_PAUSE: Duration = Duration::from_millis(5);
/// Keys that are known, and how often they are asked about.
const GOOD: usize = 50;
const CHECKS: usize = 2_000;
/// Between two questions about good keys.
const PAUSE: Duration = Duration::from_millis(1);

#[tokio::test(flavor = "multi_thread")]
async fn good_keys_are_allowed_beside_a_flood_of_what_looks_imported() {
    let mut random = Random::seeded("a flood of what looks imported");
    let flood = number_from("TALOS_TEST_FLOOD", FLOOD);
    let talos = Setup::new().start().await;
    let mut good = vec![];
    for n in 0..GOOD {
        good.push(match n % 5 {
            0 => talos.import(&format!("legacy_key_{n}_0123456789"), json!({})).await,
            _ => talos.issue(json!({})).await,
        });
    }
    let good = Arc::new(good);
    let alone = ask_about(&talos, Arc::clone(&good), None).await;

    let over = Arc::new(AtomicBool::new(false));
    let asked = tokio::spawn({
        let (grpc, good, over) = (talos.grpc().await, Arc::clone(&good), Arc::clone(&over));
        async move { ask(grpc, good, Some(over)).await }
    });
    let sent = Arc::new(AtomicUsize::new(0));
    let (refused, unavailable) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut senders = JoinSet::new();
    for _ in 0..FLOOD_CONNECTIONS {
        let grpc = talos.grpc().await;
        for _ in 0..FLOOD_AT_ONCE {
            let (grpc, mut random, sent) = (grpc.clone(), random.split(), Arc::clone(&sent));
            let (refused, unavailable) = (Arc::clone(&refused), Arc::clone(&unavailable));
            senders.spawn(async move {
                while sent.fetch_add(1, Ordering::SeqCst) < flood {
                    let garbage =
                        format!("sk_live_{}", random.text("abcdefghijklmnopqrstuvwxyz0123456789", 24));
                    let verdict = grpc.check(&Check::api_key(&garbage).build()).await;
                    let count = if verdict.is(401) { &refused } else { &unavailable };
                    assert!(verdict.is(401) || verdict.is(503), "{verdict:?}");
                    count.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(FLOOD_PAUSE).await;
                }
            });
        }
    }
    // Whoever has a key that isn't known yet gets in meanwhile, too.
    let (mut new, mut waited) = (0, 0);
    while !senders.is_empty() {
        let key = talos.issue(json!({})).await;
        let mut tries = 0;
        until("the new key is allowed", async || {
            let verdict = talos.check(Check::bearer(&key.secret)).await;
            tries += 1;
            assert!(verdict.is(200) || verdict.is(503), "{verdict:?}");
            verdict.passes().then_some(())
        })
        .await;
        waited += usize::from(tries > 1);
        new += 1;
        while let Some(done) = senders.try_join_next() {
            done.must("a sender");
        }
    }
    over.store(true, Ordering::SeqCst);
    let beside = asked.await.must("good keys");

    println!("good keys alone:            {}", quantiles(alone));
    println!("beside {flood} of garbage:  {}", quantiles(beside));
    println!(
        "garbage: {} refused, {} unavailable, {} of those stopped before the database; {new} new keys got in, {waited} of them not at \
         the first Check",
        refused.load(Ordering::SeqCst),
        unavailable.load(Ordering::SeqCst),
        talos.metric("talos_guesses_refused_total").await,
    );
    assert_eq!(refused.load(Ordering::SeqCst) + unavailable.load(Ordering::SeqCst), flood);
    assert!(refused.load(Ordering::SeqCst) > 0, "none of it was told that it is garbage");
    let unknown = talos.metric("talos_cache_unknown_keys").await;
    assert!(unknown <= 10_000.0, "{unknown} unknown ids are remembered");
    let reads = talos.metric("talos_store_key_reads_total").await;
    for key in good.iter() {
        talos.check(Check::bearer(&key.secret)).await.allowed();
    }
    assert_eq!(talos.metric("talos_store_key_reads_total").await, reads, "some of them were pushed out");
}

async fn ask_about(talos: &Talos, good: Arc<Vec<Key>>, over: Option<Arc<AtomicBool>>) -> Vec<Duration> {
    ask(talos.grpc().await, good, over).await
}

/// Measures answers: this many, or all until the flood is over.
async fn ask(grpc: Grpc, good: Arc<Vec<Key>>, over: Option<Arc<AtomicBool>>) -> Vec<Duration> {
    let mut took = vec![];
    for (n, key) in good.iter().cycle().enumerate() {
        let is_over = over.as_ref().map_or(n >= CHECKS, |over| over.load(Ordering::SeqCst));
        if is_over {
            break;
        }
        let message = Check::bearer(&key.secret).build().encode_to_vec();
        let began = Instant::now();
        let answer = grpc.check_bytes(message).await.must("a Check");
        took.push(began.elapsed());
        answer.verdict().must("a decision").allowed();
        tokio::time::sleep(PAUSE).await;
    }
    took
}

fn quantiles(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    format!("{} Checks, p50 {:?}, p99 {:?}, at most {:?}", took.len(), at(0.5), at(0.99), at(1.0))
}
