//! Three processes write, one of them is killed now and then, and five readers follow: each gets
//! every acknowledged change once, in the order of the log, and learns of a restore.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::{EVENTS, back_up, restore};
use crate::rig::http::{Base, Call, Reply, Version};
use crate::rig::random::Random;
use crate::rig::support::{Json, Must, number_from, until};
use crate::rig::talos::{ISSUED, Setup, Talos};

/// Keys that each writer makes; `TALOS_TEST_FOLLOWED` overrides it.
const KEYS: usize = 12;
/// Kills of a writer's process; `TALOS_TEST_FOLLOW_KILLS` overrides it.
const KILLS: usize = 2;
const WRITERS: usize = 3;
const READERS: usize = 5;

/// Processes, by their number; a killed one is replaced.
type Fleet = Arc<Mutex<Vec<Talos>>>;

/// A change: the key, and the kind of its event.
type Change = (String, &'static str);

async fn admin(fleet: &Fleet, number: usize) -> Base {
    let fleet = fleet.lock().await;
    fleet[number % fleet.len()].admin
}

/// Makes changes, and returns those that were acknowledged.
async fn write(fleet: Fleet, number: usize, keys: usize) -> Vec<Change> {
    let mut acknowledged = vec![];
    for n in 0..keys {
        let base = admin(&fleet, number).await;
        let body = json!({ "name": format!("key {n} of {number}"), "actor_id": format!("writer:{number}") });
        let issued = base.try_send(Version::Http1, Call::post(ISSUED).json(&body)).await;
        let Some(issued) = issued.ok().filter(|reply| reply.status == 201) else {
            // The instance is being killed or replaced.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let id = issued.json().text("/issued_api_key/key_id").to_owned();
        acknowledged.push((id.clone(), "talos.key.issued"));
        for (method, kind) in [
            ("suspend", "talos.key.suspended"),
            ("resume", "talos.key.resumed"),
            ("revoke", "talos.key.revoked"),
        ] {
            let call = Call::post(&format!("{ISSUED}/{id}:{method}")).json(&json!({}));
            let changed = base.try_send(Version::Http1, call).await;
            if changed.is_ok_and(|reply| (200..300).contains(&reply.status)) {
                acknowledged.push((id.clone(), kind));
            }
        }
    }
    acknowledged
}

/// A reader, with its place and the events that it got.
struct Reader {
    number: usize,
    place: String,
    received: Vec<Value>,
}

impl Reader {
    fn new(number: usize) -> Reader {
        Reader { number, place: "oldest".to_owned(), received: vec![] }
    }

    /// Asks once, and keeps the events together with the place. None if the process was gone.
    async fn ask(&mut self, fleet: &Fleet, turn: usize) -> Option<Reply> {
        let base = admin(fleet, self.number + turn).await;
        let query = format!("{EVENTS}?after={}&wait=1s&page_size={}", self.place, 3 + self.number);
        let reply = base.try_send(Version::Http1, Call::get(&query)).await.ok()?;
        if reply.status == 200 {
            let page = reply.json();
            self.received.extend(page["events"].as_array().must("events").clone());
            self.place = page.text("/next").to_owned();
        }
        Some(reply)
    }

    /// Asks again while the database gives no answer in time, as a client does.
    async fn answer(&mut self, fleet: &Fleet) -> Reply {
        until("an answer", async || self.ask(fleet, 0).await.filter(|reply| reply.status != 503)).await
    }

    /// Follows until everything is read that was written before `is_over`.
    async fn follow(mut self, fleet: Fleet, is_over: Arc<AtomicBool>, mut random: Random) -> Reader {
        for turn in 0.. {
            let was_over = is_over.load(Ordering::Acquire);
            // Now and then it dies while it waits, and begins anew from what it has kept.
            let life = match random.below(4) {
                0 => Duration::from_millis(random.below(300) as u64),
                _ => Duration::from_secs(60),
            };
            let (received, place) = (self.received.len(), self.place.clone());
            match tokio::time::timeout(life, self.ask(&fleet, turn)).await {
                Ok(Some(reply)) if reply.status == 200 => {
                    if was_over && reply.json()["has_more"] == false && self.received.len() == received {
                        return self;
                    }
                }
                Ok(Some(reply)) => assert!(reply.status >= 500, "{}: {}", reply.status, reply.text()),
                Ok(None) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(_) => assert_eq!((self.received.len(), &self.place), (received, &place)),
            }
        }
        unreachable!("it counts for longer than a test lasts")
    }
}

/// Runs writers, readers and kills; returns what was acknowledged and the readers.
async fn run(fleet: &Fleet, setup: &Setup, readers: Vec<Reader>) -> (Vec<Change>, Vec<Reader>) {
    let (keys, kills) =
        (number_from("TALOS_TEST_FOLLOWED", KEYS), number_from("TALOS_TEST_FOLLOW_KILLS", KILLS));
    let mut random = Random::seeded("followed");
    let is_over = Arc::new(AtomicBool::new(false));
    let (mut writing, mut reading) = (JoinSet::new(), JoinSet::new());
    for number in 0..WRITERS {
        writing.spawn(write(Arc::clone(fleet), number, keys));
    }
    for reader in readers {
        reading.spawn(reader.follow(Arc::clone(fleet), Arc::clone(&is_over), random.split()));
    }
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.below(400) as u64)).await;
        let number = random.below(WRITERS);
        let mut killed = {
            let mut fleet = fleet.lock().await;
            fleet[number].process.kill();
            setup.spawn()
        };
        // Others go on meanwhile.
        until("the process is back", async || {
            let ready = killed.metrics.try_send(Version::Http1, Call::get("/health/ready")).await;
            assert!(killed.process.ended().is_none(), "{}", killed.process.log());
            ready.is_ok_and(|reply| reply.status == 200).then_some(())
        })
        .await;
        fleet.lock().await[number] = killed;
    }
    let acknowledged: Vec<Change> = writing.join_all().await.into_iter().flatten().collect();
    is_over.store(true, Ordering::Release);
    let mut readers = reading.join_all().await;
    readers.sort_by_key(|reader| reader.number);
    (acknowledged, readers)
}

/// Asserts that each reader got each acknowledged change once, in the order of the log, which is
/// the same for all.
fn judge(acknowledged: &[Change], readers: &[Reader]) {
    for Reader { number, received, .. } in readers {
        let epochs: Vec<u64> =
            received.iter().map(|event| event.at("/data/epoch").as_u64().must("a number")).collect();
        assert!(epochs.windows(2).all(|pair| pair[1] == pair[0] + 1), "reader {number}: {epochs:?}");
        let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
        for event in received {
            *counts.entry((event.text("/subject"), event.text("/type"))).or_default() += 1;
        }
        for (key, kind) in acknowledged {
            assert_eq!(counts.get(&(key.as_str(), *kind)), Some(&1), "reader {number}: {kind} of {key}");
        }
        assert_eq!(received, &readers[0].received, "reader {number} was told something else");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reader_gets_each_acknowledged_change_once_and_in_order() {
    let setup = Setup::new().set("TALOS_CONSISTENCY_POLL", "200ms");
    let mut processes = vec![];
    for _ in 0..WRITERS {
        processes.push(setup.start().await);
    }
    let fleet: Fleet = Arc::new(Mutex::new(processes));
    let (acknowledged, readers) = run(&fleet, &setup, (0..READERS).map(Reader::new).collect()).await;
    assert!(!acknowledged.is_empty());
    judge(&acknowledged, &readers);
    println!("{} acknowledged changes were told to {READERS} readers once and in order", acknowledged.len());

    // A reader that slept all the time is told the same.
    let mut asleep = Reader::new(READERS);
    while asleep.received.len() < readers[0].received.len() {
        asleep.answer(&fleet).await.expect(200);
    }
    judge(
        &acknowledged,
        &[Reader { number: 0, place: String::new(), received: readers[0].received.clone() }, asleep],
    );

    back_up(&setup);
    let (lost, mut readers) = run(&fleet, &setup, readers).await;
    judge(&lost, &readers);
    restore(&setup);
    // The numbers are given out again, and further ones.
    let (_, _) = run(&fleet, &setup, vec![]).await;
    for reader in &mut readers {
        let problem = reader.answer(&fleet).await.expect_error(410, "EVENTS_GONE");
        assert!(problem.contains("rewritten"), "{problem}");
        // Starts again at `now`, as the answer says.
        reader.place = "now".to_owned();
        reader.received.clear();
        reader.answer(&fleet).await.expect(200);
    }
    let (acknowledged, readers) = run(&fleet, &setup, readers).await;
    judge(&acknowledged, &readers);
}
