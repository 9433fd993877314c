//! Limits while clocks jump: allowed requests are compared with what the policy allows in the true
//! time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{failures, limited};
use crate::rig::check::Check;
use crate::rig::random::Random;
use crate::rig::redis::Redis;
use crate::rig::support::{Json, until};
use crate::rig::talos::{Key, Setup, Talos};
use crate::rig::wall_clock::WallClock;

const HOUR: Duration = Duration::from_secs(3_600);
/// The policy of all keys here: a burst, and the time in which one more use becomes free.
const BURST: u64 = 20;
const INTERVAL: Duration = Duration::from_millis(100);
/// For how long each process gets Checks without a pause.
const A_WHILE: Duration = Duration::from_millis(1_500);

async fn key(talos: &Talos) -> Key {
    let window = format!("{}s", (INTERVAL * BURST as u32).as_secs());
    talos.issue(json!({ "rate_limit_policy": { "quota": BURST.to_string(), "window": window } })).await
}

fn going_by(clock: &WallClock, setup: Setup) -> Setup {
    clock.variables().iter().fold(setup, |setup, (name, value)| setup.set(name, &value.display().to_string()))
}

/// Returns a setup on SQLite, which has no clock of its own: with another database, keys would not
/// be issued while the process's clock differs from the database's.
fn limited_by_own_clock() -> Setup {
    limited().sqlite()
}

/// Counts in Redis, which on a busy machine may take its time: what isn't counted passes, and says
/// nothing here.
fn patient(redis: &Redis) -> Setup {
    redis.counts_for(limited_by_own_clock()).set("TALOS_CACHE_REDIS_CHECK_TIMEOUT", "10s")
}

async fn until_counted(processes: &[Talos]) {
    for talos in processes {
        until("uses are counted", async || {
            let probe = super::key(&processes[0], 1).await;
            talos.check(Check::bearer(&probe.secret)).await;
            (!talos.check(Check::bearer(&probe.secret)).await.passes()).then_some(())
        })
        .await;
    }
}

/// The outcomes of many Checks without a pause.
#[derive(Debug)]
struct Tally {
    passed: u64,
    /// At most this many uses became free meanwhile.
    most_freed: u64,
    /// At least this many became free between the first answer and the last refusal.
    least_freed: u64,
}

/// Sends Checks to all processes at once for a while, and until each of them has refused one after
/// that.
async fn hammered(processes: &[Talos], key: &Key) -> Tally {
    let began = Instant::now();
    let senders = processes.iter().flat_map(|talos| [talos, talos]).map(async |talos| {
        let (grpc, ask) = (talos.grpc().await, Check::bearer(&key.secret).build());
        let (mut passed, mut first_answer) = (0, None);
        loop {
            let asked = Instant::now();
            let verdict = grpc.check(&ask).await;
            assert!(began.elapsed() < A_WHILE * 10, "no use is refused");
            // A clock that is set ends the lease on what is known of keys: until the next poll
            // nothing can be said of one.
            if verdict.is(503) {
                continue;
            }
            let first_answer = *first_answer.get_or_insert_with(Instant::now);
            if verdict.passes() {
                passed += 1;
            } else if verdict.is(429) && began.elapsed() > A_WHILE {
                return (passed, first_answer, asked);
            } else {
                assert!(verdict.is(429), "{verdict:?}");
            }
        }
    });
    let done = join_all(senders).await;
    let whole = |time: Duration| (time.as_micros() / INTERVAL.as_micros()) as u64;
    let first_answer = done.iter().map(|(_, first, _)| *first).min().unwrap_or(began);
    let last_asked = done.iter().map(|(.., last)| *last).max().unwrap_or(began);
    Tally {
        passed: done.iter().map(|(passed, ..)| passed).sum(),
        most_freed: whole(began.elapsed()),
        least_freed: whole(last_asked.duration_since(first_answer)),
    }
}

/// Asserts that exactly this burst and the tokens refilled meanwhile passed.
#[track_caller]
fn assert_exact(tally: &Tally, burst: u64, what: &str) {
    let (least, most) = (burst + tally.least_freed, burst + tally.most_freed);
    assert!((least..=most).contains(&tally.passed), "{what}: {tally:?} after a burst of {burst}");
}

/// Sets clocks again and again, forth and back by up to a day, until it is dropped.
struct Jumping {
    jumps: Arc<AtomicU64>,
    setter: JoinHandle<()>,
}

impl Jumping {
    fn start(clocks: &[WallClock], every: Duration, mut random: Random) -> Jumping {
        let (jumps, clocks) = (Arc::new(AtomicU64::new(0)), clocks.to_vec());
        let count = Arc::clone(&jumps);
        let setter = tokio::spawn(async move {
            loop {
                for clock in &clocks {
                    count.fetch_add(1, Ordering::Relaxed);
                    let by = Duration::from_millis(1 << random.below(27));
                    match random.below(2) {
                        0 => clock.ahead(by),
                        _ => clock.behind(by),
                    }
                }
                tokio::time::sleep(every).await;
            }
        });
        Jumping { jumps, setter }
    }

    /// Returns the number of times that a clock was set.
    fn jumps(&self) -> u64 {
        self.jumps.load(Ordering::Relaxed)
    }
}

impl Drop for Jumping {
    fn drop(&mut self) {
        self.setter.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_of_processes_that_jump_change_nothing() {
    needs!(Redis);
    let redis = Redis::start().await;
    let clocks = [WallClock::new(), WallClock::new()];
    let first = going_by(&clocks[0], patient(&redis)).start().await;
    let second = going_by(&clocks[1], first.setup.clone()).start().await;
    let right = first.setup.clone().unset("LD_PRELOAD").start().await;
    let alone = going_by(&clocks[0], limited_by_own_clock()).start().await;
    let processes = [first, second, right];
    until_counted(&processes).await;

    // Old keys: one from the future is none, whatever its limit.
    clocks[0].behind(HOUR * 48);
    let (shared, own) = (key(&processes[0]).await, key(&alone).await);
    clocks[0].ahead(HOUR);
    let created = |key: &Key| key.resource.text("/create_time").to_owned();
    let (then, now) = (created(&shared), created(&key(&processes[0]).await));
    assert!(
        then < now && then[..10] != now[..10],
        "the clock is set, and the process goes by it: {then}, {now}"
    );

    let before = failures(&processes).await;
    let _jumping = Jumping::start(&clocks, INTERVAL * 2, Random::seeded("clocks"));
    assert_exact(&hammered(&processes, &shared).await, BURST, "three processes on one Redis");
    assert_eq!(failures(&processes).await, before, "all uses were counted");
    assert_exact(&hammered(&[alone], &own).await, BURST, "a process for itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_of_redis_that_jumps_costs_one_burst_and_locks_nobody_out() {
    needs!(Redis);
    let clock = WallClock::new();
    let redis = Redis::start_by(&clock).await;
    let setup = patient(&redis);
    let first = setup.start().await;
    let processes = [first.setup.start().await, first.setup.start().await, first];
    until_counted(&processes).await;
    let before = failures(&processes).await;
    let key = key(&processes[0]).await;

    assert_exact(&hammered(&processes, &key).await, BURST, "at first");
    let before_it = redis.now().await;
    clock.ahead(HOUR);
    assert!(redis.now().await >= before_it + HOUR.as_secs(), "the clock is set, and Redis goes by it");
    assert_exact(&hammered(&processes, &key).await, BURST, "ahead: as if the time had gone by");
    clock.behind(HOUR);
    assert_exact(&hammered(&processes, &key).await, 0, "back: as if nothing had become free");

    // Whatever it does: each time at most another burst, and at most one interval without a use.
    let jumping = Jumping::start(&[clock], INTERVAL * 2, Random::seeded("Redis' clock"));
    let tally = hammered(&processes, &key).await;
    let (jumps, passed) = (jumping.jumps(), tally.passed);
    assert!(jumps > 2 && passed <= tally.most_freed + jumps * BURST, "{tally:?} and {jumps} jumps");
    assert!(passed + jumps >= tally.least_freed, "{tally:?} and {jumps} jumps");
    assert_eq!(failures(&processes).await, before, "all uses were counted");
}
