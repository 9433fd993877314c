//! Refills: exactly one for each time that one is due, by whatever clocks the processes go.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::shown;
use crate::rig::check::{Check, Denied};
use crate::rig::database;
use crate::rig::support::{Json, Must, number_from, unix_now, unix_seconds, until};
use crate::rig::talos::{ISSUED, Key, Setup, Talos};
use crate::rig::wall_clock::WallClock;

const DAY: Duration = Duration::from_secs(86_400);
/// Times at which a refill is due; `TALOS_TEST_REFILLS` overrides it.
const REFILLS: usize = 3;
/// Amount of a refill.
const AMOUNT: usize = 7;

async fn key(talos: &Talos, remaining: u32) -> Key {
    let refill = json!({ "amount": AMOUNT, "every": "day" });
    talos.issue(json!({ "ttl": "8760h", "credits": { "remaining": remaining, "refill": refill } })).await
}

/// A setup whose processes go by a clock.
fn going_by(clock: &WallClock) -> Setup {
    let variables = clock.variables();
    variables.iter().fold(Setup::new(), |setup, (name, value)| setup.set(name, &value.display().to_string()))
}

/// Sends twice as many Checks as a refill has credits to all processes at once; returns the number
/// that pass. What wasn't decided in time is sent again.
async fn burst(processes: &[Talos], key: &Key) -> usize {
    let check = Check::bearer(&key.secret).build();
    let clients = (0..2 * AMOUNT).map(async |client| {
        let grpc = processes[client % processes.len()].grpc().await;
        loop {
            let verdict = grpc.check(&check).await;
            if !verdict.is(503) {
                assert!(verdict.passes() || verdict.is(429), "{verdict:?}");
                return usize::from(verdict.passes());
            }
        }
    });
    join_all(clients).await.into_iter().sum()
}

/// Waits until a Check is refused for lack of credits.
async fn exhausted(talos: &Talos, key: &Key) -> Denied {
    let denied = until("it is refused", async || {
        let verdict = talos.check(Check::bearer(&key.secret)).await;
        verdict.is(429).then_some(verdict)
    });
    denied.await.denied(429)
}

/// Number of uses that were spent and found no answer in time.
async fn unanswered(processes: &[Talos]) -> usize {
    let all = processes.iter().map(|talos| talos.metric("talos_credit_failures_total"));
    join_all(all).await.into_iter().map(|count| count as usize).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_refill_once_when_one_is_due() {
    let first = Setup::new().start().await;
    let processes = [first.setup.start().await, first.setup.start().await, first];
    let key = key(&processes[0], 0).await;
    let before = unanswered(&processes).await;
    assert_eq!(burst(&processes, &key).await, 0, "none is due yet");
    for round in 0..number_from("TALOS_TEST_REFILLS", REFILLS) {
        // Makes a refill due, and several before it that passed while nobody used the key.
        let hour = (unix_now() - 3_600.0 * (1.0 + 24.0 * round as f64)) * 1e6;
        processes[0].setup.sql(&format!("UPDATE credits SET refill_due_at = {}", hour as i64));
        let passed = burst(&processes, &key).await;
        let lost = unanswered(&processes).await - before;
        assert!((AMOUNT - lost.min(AMOUNT)..=AMOUNT).contains(&passed), "{passed} of {AMOUNT}, {lost} lost");
        let due = database::number(processes[0].setup.dsn(), "SELECT refill_due_at FROM credits").await;
        let due = due as f64 / 1e6;
        assert!(due > unix_now() && due <= unix_now() + DAY.as_secs_f64() + 1.0, "the next midnight: {due}");
        assert_eq!(due as i64 % 86_400, 0);
        let denied = exhausted(&processes[round % 3], &key).await;
        let seconds: f64 = denied.header("retry-after").must("Retry-After").parse().must("a number");
        assert!((seconds - (due - unix_now())).abs() < 60.0, "{seconds}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refill_that_is_due_is_shown_before_it_is_made() {
    let talos = Setup::new().start().await;
    let key = key(&talos, 2).await;
    talos.setup.sql("UPDATE credits SET refill_due_at = 1000000");
    assert_eq!(shown(&talos, &key).await["remaining"], AMOUNT.to_string());
    let spent = talos.verify(&key.secret).await;
    assert_eq!(spent["credits"]["remaining"], (AMOUNT - 1).to_string());
    // A balance above the amount stays.
    let many = json!({ "credits": { "remaining": 50, "refill": { "amount": AMOUNT, "every": "month" } } });
    talos.patch(&format!("{ISSUED}/{}", key.id), &many).await.expect(200);
    talos.setup.sql("UPDATE credits SET refill_due_at = 1000000");
    assert_eq!(talos.verify(&key.secret).await["credits"]["remaining"], "49");
}

/// On SQLite a process has no clock but its own; one of them is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_makes_no_refill_twice() {
    let clock = WallClock::new();
    let right = Setup::new().sqlite().start().await;
    let wrong = clock
        .variables()
        .iter()
        .fold(right.setup.clone(), |setup, (name, value)| setup.set(name, &value.display().to_string()));
    let processes = [wrong.start().await, right.setup.start().await, right];
    let [wrong, ..] = &processes;
    let key = key(&processes[1], 0).await;
    assert_eq!(burst(&processes, &key).await, 0);
    // Tomorrow for one of them, which refills; not again for the others, nor when it is set back
    // and the time comes once more.
    for (ahead, most) in [(DAY, AMOUNT), (Duration::ZERO, 0), (DAY, 0), (DAY * 2, AMOUNT), (DAY, 0)] {
        clock.ahead(ahead);
        // Known keys are asked for again by a process whose clock has jumped.
        until("it is decided", async || {
            let verdict = wrong.check(Check::bearer(&key.secret)).await;
            (verdict.passes() || verdict.is(429)).then_some(())
        })
        .await;
        let passed = burst(&processes, &key).await;
        assert!(passed <= most, "{passed} of {most} while the clock is {ahead:?} ahead");
        let text = shown(&processes[1], &key).await["remaining"].as_str().must("a number").to_owned();
        let left: usize = text.parse().must("a number");
        assert!(left <= AMOUNT, "{left}");
        // Used up before the clock is set again.
        burst(&processes, &key).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refill_counts_from_the_database_s_time() {
    if database::server().is_none() {
        return;
    }
    let clock = WallClock::new();
    let setup = going_by(&clock);
    let (right, wrong) = (setup.clone().unset("LD_PRELOAD").start().await, setup.start().await);
    let key = key(&right, 0).await;
    clock.ahead(DAY * 3);
    let daily = json!({ "credits": { "remaining": 0, "refill": { "amount": 3, "every": "day" } } });
    // The instance may refuse a change while its clock is off; if it writes, the time is right.
    wrong.patch(&format!("{ISSUED}/{}", key.id), &daily).await;
    let due = database::number(right.setup.dsn(), "SELECT refill_due_at FROM credits").await as f64 / 1e6;
    assert!(due <= unix_now() + DAY.as_secs_f64() + 1.0, "{due}");
    exhausted(&right, &key).await;
    let created = unix_seconds(key.resource.text("/create_time"));
    assert!((created - unix_now()).abs() < 120.0);
}

/// A clock that is off by a little makes keys nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_refill_of_a_new_key_counts_from_the_database_s_time() {
    if database::server().is_none() {
        return;
    }
    let clock = WallClock::new();
    let talos = going_by(&clock).start().await;
    clock.ahead(Duration::from_secs(27));
    // In the past by the process's clock, and in the future by the database's.
    let soon = unix_now() as i64 + 20;
    let second = soon.rem_euclid(86_400);
    let at = format!("{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60);
    let refill = json!({ "amount": AMOUNT, "every": "day", "at": at });
    talos.issue(json!({ "credits": { "remaining": 0, "refill": refill } })).await;
    let due = database::number(talos.setup.dsn(), "SELECT refill_due_at FROM credits").await;
    assert_eq!(due, soon * 1_000_000);
}
