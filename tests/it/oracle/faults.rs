//! What goes wrong during the run, one thing after the other: with Redis, and with one instance's way to the database.

use std::time::Duration;

use crate::proxy::{Fault, Proxy};
use crate::redis::Redis;
use crate::support::Must;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    Healthy,
    /// Stopped, and let go on for moments, in which what was underway arrives late.
    Frozen,
    /// Emptied every 50 ms.
    Flushed,
    /// It refuses to pass announcements on.
    LosingPublishes,
    /// It refuses to delete.
    RefusingDeletes,
    /// What is sent to it gets lost, for moments and for good.
    Partitioned,
    /// All connections are reset, again and again.
    ResetStorm,
    /// One instance can't reach the database, for seconds; Redis is well, so that the others relay.
    CutOff,
}

/// Where things go wrong.
pub struct Scene<'a> {
    pub redis: &'a Redis,
    /// Everybody's way to Redis.
    pub to_redis: &'a Proxy,
    /// One instance's way to the database.
    pub to_database: &'a Proxy,
}

impl Phase {
    pub const ALL: [Phase; 8] = [
        Phase::Healthy,
        Phase::CutOff,
        Phase::Frozen,
        Phase::Flushed,
        Phase::LosingPublishes,
        Phase::RefusingDeletes,
        Phase::Partitioned,
        Phase::ResetStorm,
    ];

    /// Makes it go wrong, for ever: to be dropped when the phase is over, and then mended.
    pub async fn go_wrong(self, Scene { redis, to_redis: proxy, to_database }: &Scene<'_>) {
        match self {
            Phase::Healthy => {}
            Phase::Frozen => loop {
                redis.freeze();
                tokio::time::sleep(Duration::from_millis(700)).await;
                redis.thaw();
                tokio::time::sleep(Duration::from_millis(150)).await;
            },
            Phase::Flushed => {
                let mut connection = redis.connection().await;
                loop {
                    let flushed: Result<(), _> = redis::cmd("FLUSHALL").query_async(&mut connection).await;
                    flushed.must("FLUSHALL");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Phase::LosingPublishes => allow(redis, "-publish").await,
            Phase::RefusingDeletes => allow(redis, "-del").await,
            Phase::Partitioned => loop {
                proxy.set(Fault::BlackHole);
                tokio::time::sleep(Duration::from_millis(1_200)).await;
                proxy.set(Fault::Pass);
                tokio::time::sleep(Duration::from_millis(600)).await;
            },
            Phase::ResetStorm => loop {
                proxy.for_open(Fault::Reset);
                tokio::time::sleep(Duration::from_millis(100)).await;
            },
            Phase::CutOff => loop {
                to_database.set(Fault::BlackHole);
                tokio::time::sleep(Duration::from_millis(8_000)).await;
                to_database.set(Fault::Pass);
                tokio::time::sleep(Duration::from_millis(2_000)).await;
            },
        }
        std::future::pending().await
    }

    /// Makes it right again.
    pub async fn mend(self, Scene { redis, to_redis, to_database }: &Scene<'_>) {
        redis.thaw();
        to_redis.set(Fault::Pass);
        to_database.set(Fault::Pass);
        match self {
            Phase::LosingPublishes => allow(redis, "+publish").await,
            Phase::RefusingDeletes => allow(redis, "+del").await,
            _ => {}
        }
    }
}

async fn allow(redis: &Redis, rule: &str) {
    let mut connection = redis.connection().await;
    let mut command = redis::cmd("ACL");
    let set: Result<(), _> =
        command.arg("SETUSER").arg("default").arg(rule).query_async(&mut connection).await;
    set.must(rule);
}
