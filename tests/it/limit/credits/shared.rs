//! One balance, several instances and many clients: it is never below zero, and nothing is lost
//! beyond what a use costs whose answer is, whatever ends or can't be reached meanwhile.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::{key, shown};
use crate::rig::check::Check;
use crate::rig::database::{self, Server};
use crate::rig::grpc::Grpc;
use crate::rig::http::Base;
use crate::rig::proxy::Fault;
use crate::rig::redis::Redis;
use crate::rig::support::{Must, number_from, until};
use crate::rig::talos::{Key, Setup, Talos};

/// Credits that are given; `TALOS_TEST_CREDITS` overrides it.
const CREDITS: usize = 3_000;
/// Clients that spend them at once.
const CLIENTS: usize = 64;

/// Credits as clients saw them spent.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    /// Costs of uses that were allowed.
    allowed: u64,
    /// Costs of uses without an answer that decides.
    unanswered: u64,
}

impl Tally {
    fn plus(self, other: Tally) -> Tally {
        Tally { allowed: self.allowed + other.allowed, unanswered: self.unanswered + other.unanswered }
    }

    /// Asserts that what was given is where it may be: nothing is spent twice, and nothing is lost
    /// but with an answer.
    #[track_caller]
    fn accounts_for(&self, given: u64, remaining: u64) {
        let known = self.allowed + remaining;
        assert!(known <= given, "more than the {given} that were given: {self:?}, {remaining} left");
        assert!(known + self.unanswered >= given, "some of {given} are lost: {self:?}, {remaining} left");
    }
}

/// Spends until the credits are used up, at another instance whenever one fails.
async fn spend(planes: Vec<Base>, secret: String, client: usize) -> Tally {
    let (mut tally, mut grpc) = (Tally::default(), None);
    for number in client.. {
        let cost = 1 + number as u64 % 3;
        let ask = |cost: u64| Check::bearer(&secret).route("talos.cost", &cost.to_string()).build();
        let Some(connection) = &grpc else {
            grpc = Grpc::connect(planes[number % planes.len()]).await.ok();
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let message = prost::Message::encode_to_vec(&ask(cost));
        let answer = connection.check_bytes(message).await.and_then(|answer| answer.verdict());
        match answer {
            Ok(verdict) if verdict.passes() => tally.allowed += cost,
            Ok(verdict) if verdict.is(429) && cost == 1 => break,
            Ok(verdict) if verdict.is(429) => {}
            Ok(verdict) => {
                assert!(verdict.is(503), "{verdict:?}");
                tally.unanswered += cost;
            }
            Err(_) => {
                tally.unanswered += cost;
                grpc = None;
            }
        }
    }
    tally
}

/// Starts the clients.
fn start(processes: &[&Talos], key: &Key) -> JoinSet<Tally> {
    let planes: Vec<Base> = processes.iter().map(|talos| talos.authz).collect();
    let client = |client| spend(planes.clone(), key.secret.clone(), client);
    (0..CLIENTS).map(client).collect()
}

async fn finish(mut clients: JoinSet<Tally>) -> Tally {
    let mut tally = Tally::default();
    while let Some(client) = clients.join_next().await {
        tally = tally.plus(client.must("a client"));
    }
    tally
}

async fn remaining(talos: &Talos, key: &Key) -> u64 {
    let remaining = shown(talos, key).await["remaining"].as_str().must("a number").parse();
    remaining.must("a number")
}

/// The smallest balance in the database.
async fn lowest(talos: &Talos) -> i64 {
    database::number(talos.setup.dsn(), "SELECT MIN(remaining) FROM credits").await
}

fn given() -> u64 {
    number_from("TALOS_TEST_CREDITS", CREDITS) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_and_clients_spend_what_is_there_even_if_one_is_killed() {
    let first = Setup::new().start().await;
    let (second, mut third) = (first.setup.start().await, first.setup.start().await);
    let key = key(&first, given()).await;
    let clients = start(&[&first, &second, &third], &key);
    until("a third is spent", async || (remaining(&first, &key).await < given() * 2 / 3).then_some(())).await;
    third.process.kill();
    let tally = finish(clients).await;
    println!("{tally:?} of {}", given());
    tally.accounts_for(given(), remaining(&first, &key).await);
    assert_eq!(lowest(&first).await, 0);
    assert!(tally.allowed > given() / 2, "{tally:?}");
    for talos in [&first, &second] {
        talos.check(Check::bearer(&key.secret)).await.denied(429);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_balances_at_once_are_kept_apart() {
    let first = Setup::new().start().await;
    let second = first.setup.start().await;
    let mut all = vec![];
    for number in 0..8_u64 {
        let key = key(&first, number * 5).await;
        let planes = vec![first.authz, second.authz];
        let clients: JoinSet<Tally> =
            (0..4).map(|client| spend(planes.clone(), key.secret.clone(), client)).collect();
        all.push((number * 5, key, clients));
    }
    for (given, key, clients) in all {
        let tally = finish(clients).await;
        tally.accounts_for(given, remaining(&first, &key).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_credits_refuse_and_nothing_is_lost() {
    needs!(Postgres);
    let dsn = database::without_tls(&database::server().unwrap_or(Server::Postgres).new_database());
    let (proxy, proxied) = database::behind_proxy(&dsn).await;
    let direct = Setup::new().set("TALOS_DB_DSN", &dsn).start().await;
    let cut_off = Setup::new().set("TALOS_DB_DSN", &proxied).start().await;
    let (key, plain) = (key(&direct, given()).await, direct.issue(json!({})).await);
    for key in [&key, &plain] {
        until("it is known", async || cut_off.check(Check::bearer(&key.secret)).await.passes().then_some(()))
            .await;
    }
    for fault in [Fault::Reset, Fault::BlackHole] {
        let before = remaining(&direct, &key).await;
        proxy.set_new(if fault == Fault::Reset { Fault::Refuse } else { fault });
        proxy.set_open(fault);
        for _ in 0..20 {
            cut_off.check(Check::bearer(&plain.secret)).await.allowed();
            let denied = cut_off.check(Check::bearer(&key.secret)).await.denied(503);
            assert_eq!(denied.fact("reason"), Some(json!("unavailable")));
            cut_off.check(Check::bearer(&key.secret).route("talos.cost", "0")).await.allowed();
        }
        assert!(cut_off.metric("talos_credit_failures_total").await >= 20.0);
        assert_eq!(remaining(&direct, &key).await, before, "what can't be reached isn't spent");
        proxy.set(Fault::Pass);
        until("it is back", async || cut_off.check(Check::bearer(&key.secret)).await.passes().then_some(()))
            .await;
    }
    // Answers to COMMIT are lost while clients spend.
    let before = remaining(&direct, &key).await;
    let clients = start(&[&cut_off, &direct], &key);
    for _ in 0..3 {
        let failures = cut_off.metric("talos_credit_failures_total").await;
        proxy.set(Fault::LoseCommits);
        until("an answer is lost, or all are spent", async || {
            let lost = cut_off.metric("talos_credit_failures_total").await > failures;
            (lost || lowest(&direct).await == 0).then_some(())
        })
        .await;
        proxy.set(Fault::Pass);
        until("it answers again", async || {
            (cut_off.admin.get(&super::path(&key)).await.status == 200).then_some(())
        })
        .await;
    }
    let tally = finish(clients).await;
    println!("{tally:?} of {before}");
    tally.accounts_for(before, remaining(&direct, &key).await);
    assert!(lowest(&direct).await >= 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_redis_changes_nothing() {
    needs!(Redis);
    let mut redis = Redis::start().await;
    let setup = redis.counts_for(redis.used_by(super::limited()));
    let first = setup.start().await;
    let (second, third) = (first.setup.start().await, first.setup.start().await);
    let policy = json!({ "quota": "1000000", "window": "3600s" });
    let credits = json!({ "remaining": given() });
    let key = first.issue(json!({ "credits": credits, "rate_limit_policy": policy })).await;
    let clients = start(&[&first, &second, &third], &key);
    until("some are spent", async || (remaining(&first, &key).await < given()).then_some(())).await;
    redis.freeze();
    until("more are spent", async || (remaining(&first, &key).await < given() / 2).then_some(())).await;
    redis.thaw();
    redis.kill();
    let tally = finish(clients).await;
    println!("{tally:?} of {}", given());
    tally.accounts_for(given(), remaining(&first, &key).await);
    assert_eq!(lowest(&first).await, 0);
}
