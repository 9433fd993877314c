//! The faults of the run, one after the other: of Redis, of the processes, of the database and the
//! connections to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::Mutex;

use crate::rig::database::execute;
use crate::rig::pairs::{Kind, OldPrimary, ServerPair};
use crate::rig::proxy::{Fault, Proxy};
use crate::rig::redis::Redis;
use crate::rig::support::Must;
use crate::rig::talos::Talos;

/// Entries that others write into the log at once, ten times a second.
const FAR_CHANGES: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    Healthy,
    /// The processes are stopped in turn, and go on; their connections live, are dead, or half
    /// dead.
    StoodStill,
    /// One instance is as far from the database as its lease bears, now more and now less.
    Distant,
    /// Others write into the log all the time.
    FarWriters,
    /// The replica takes over, and only new connections lead there.
    SwitchedOver,
    /// Redis is stopped, and let go on for moments, in which what was underway arrives late.
    Frozen,
    /// Redis is emptied every 50 ms.
    Flushed,
    /// Redis refuses to pass announcements on.
    LosingPublishes,
    /// Redis refuses to delete.
    RefusingDeletes,
    /// Writes to Redis get lost, for moments and for good.
    Partitioned,
    /// All connections to Redis are reset, again and again.
    ResetStorm,
    /// One instance can't reach the database, for seconds; Redis is well, so that the others relay.
    CutOff,
}

/// The database that the keys are in.
pub enum Database {
    /// An SQLite file.
    File,
    Pair(Kind, Box<Mutex<ServerPair>>),
}

/// The servers and proxies that faults are injected into.
pub struct Scene<'a> {
    pub redis: &'a Redis,
    /// Everybody's way to Redis.
    pub to_redis: &'a Proxy,
    pub database: &'a Database,
    /// The DSN that follows a switchover.
    pub dsn: &'a str,
    /// Each instance's way to the database; none to a file.
    pub to_database: &'a [Proxy],
    /// The instance that is far away, or cut off.
    pub far: usize,
    /// True once the switchover is over: during it, no server takes writes.
    pub switched: AtomicBool,
}

impl Phase {
    /// All phases. Those with an outage of the database come last: before, nothing is ever allowed
    /// later than the lease says.
    pub const ALL: [Phase; 12] = [
        Phase::Healthy,
        Phase::StoodStill,
        Phase::Distant,
        Phase::FarWriters,
        Phase::Frozen,
        Phase::Flushed,
        Phase::LosingPublishes,
        Phase::RefusingDeletes,
        Phase::Partitioned,
        Phase::ResetStorm,
        Phase::SwitchedOver,
        Phase::CutOff,
    ];

    /// Returns whether the fault can happen to that database.
    pub fn applies(self, database: &Database) -> bool {
        let has_proxies = matches!(database, Database::Pair(..));
        has_proxies || !matches!(self, Phase::Distant | Phase::SwitchedOver | Phase::CutOff)
    }

    /// Makes it go wrong, for ever: to be dropped when the phase is over, and then mended.
    pub async fn go_wrong<'a>(self, scene: &Scene<'_>, processes: impl Fn(usize) -> &'a Talos) {
        let Scene { redis, to_redis: proxy, .. } = scene;
        match self {
            Phase::Healthy => {}
            Phase::StoodStill => loop {
                for (turn, connections) in
                    [Fault::Pass, Fault::BlackHole, Fault::HalfClose, Fault::Reset].into_iter().enumerate()
                {
                    let stopped = Stopped::new(processes(turn % 3));
                    if let Some(way) = scene.to_database.get(turn % 3)
                        && connections != Fault::Pass
                    {
                        way.set_open(connections);
                    }
                    let seconds = [0.3, 2.5, 1.2, 1.8][turn];
                    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                    drop(stopped);
                    tokio::time::sleep(Duration::from_millis(700)).await;
                }
            },
            Phase::Distant => loop {
                for millis in [1, 4, 16, 60] {
                    scene.to_database[scene.far].set(Fault::Delay(Duration::from_millis(millis)));
                    tokio::time::sleep(Duration::from_millis(1_500)).await;
                }
            },
            Phase::FarWriters => scene.write_all_the_time().await,
            Phase::SwitchedOver => {
                if let Database::Pair(_, pair) = scene.database {
                    // A primary that goes on taking writes would lose what it acknowledges.
                    pair.lock().await.switch_over(OldPrimary::ReadOnly).await;
                }
                scene.switched.store(true, Ordering::SeqCst);
            }
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
                proxy.set_open(Fault::Reset);
                tokio::time::sleep(Duration::from_millis(100)).await;
            },
            Phase::CutOff => loop {
                scene.to_database[scene.far].set(Fault::BlackHole);
                tokio::time::sleep(Duration::from_millis(8_000)).await;
                scene.to_database[scene.far].set(Fault::Pass);
                tokio::time::sleep(Duration::from_millis(2_000)).await;
            },
        }
        std::future::pending().await
    }

    /// Makes it right again.
    pub async fn mend(self, Scene { redis, to_redis, to_database, .. }: &Scene<'_>) {
        redis.thaw();
        to_redis.set(Fault::Pass);
        for way in *to_database {
            way.set_new(Fault::Pass);
            // Other phases leave open connections that are of no use any more.
            if matches!(self, Phase::Distant | Phase::CutOff) {
                way.set_open(Fault::Pass);
            }
        }
        match self {
            Phase::LosingPublishes => allow(redis, "+publish").await,
            Phase::RefusingDeletes => allow(redis, "+del").await,
            _ => {}
        }
    }
}

/// A process that stands still as long as this is there.
struct Stopped<'a>(&'a Talos);

impl<'a> Stopped<'a> {
    fn new(talos: &'a Talos) -> Self {
        talos.process.signal(Signal::STOP);
        Self(talos)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.process.signal(Signal::CONT);
    }
}

impl Scene<'_> {
    /// Writes into the log, as an instance does that changes keys unknown here.
    async fn write_all_the_time(&self) {
        let (tag, transaction) = match self.database {
            Database::File => ("lower(hex(randomblob(16)))", "BEGIN IMMEDIATE"),
            Database::Pair(Kind::Postgres, _) => ("md5(random()::text)", "BEGIN"),
            Database::Pair(Kind::MariaDb, _) => ("md5(rand())", "BEGIN"),
        };
        let statement = format!(
            "{transaction}; UPDATE mutation_counter SET n = n + {FAR_CHANGES} WHERE id = 1; \
             INSERT INTO mutation_log (n, tag, network_id, key_id, at) WITH RECURSIVE step (i) AS \
             (SELECT 1 UNION ALL SELECT i + 1 FROM step WHERE i < {FAR_CHANGES}) \
             SELECT counter.n - {FAR_CHANGES} + step.i, {tag}, '', '', 0 \
             FROM mutation_counter counter, step WHERE counter.id = 1; COMMIT"
        );
        let dsn = self.dsn.to_owned();
        loop {
            let (dsn, statement) = (dsn.clone(), statement.clone());
            tokio::task::spawn_blocking(move || execute(&dsn, statement)).await.must("writing");
            tokio::time::sleep(Duration::from_millis(100)).await;
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
