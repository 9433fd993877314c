//! Revocations under all faults that could delay them, and a judge of the whole history.

mod faults;
mod history;
mod judge;
mod life;
mod report;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::rig::authority::Authority;
use crate::rig::database::{self, Server};
use crate::rig::pairs::{Kind, ServerPair};
use crate::rig::proxy::Proxy;
use crate::rig::random::Random;
use crate::rig::redis::Redis;
use crate::rig::support::Must;
use crate::rig::talos::Setup;
use faults::{Database, Phase, Scene};
use history::{Answer, History, Micros};
use world::World;

/// Keys that are ended, unless `TALOS_TEST_REVOCATIONS` says otherwise.
const REVOCATIONS: usize = 350;
/// Keys that live at once, unless `TALOS_TEST_LIVES` says otherwise.
const LIVES: usize = 64;
/// `consistency.lease`, the bound, scaled down.
const LEASE: Duration = Duration::from_secs(1);
/// `consistency.relay`, scaled down: the time beyond the bound for an instance that can't reach the
/// database.
const RELAY: Duration = Duration::from_secs(1);
/// `consistency.grace`, scaled down.
const GRACE: Duration = Duration::from_secs(3);
/// Processes on one database and one Redis.
const INSTANCES: usize = 3;
/// Number of the process that can't reach the database for a while.
const CUT_OFF: usize = 2;
/// Name in the certificate of Redis.
const NAME: &str = "redis.talos.test";

#[tokio::test(flavor = "multi_thread")]
async fn no_revoked_key_is_allowed_after_the_bound_whatever_goes_wrong() {
    needs!(Redis);
    if has_proxies() {
        needs!(PostgresPrograms, MariaDbPrograms);
    }
    let random = Random::seeded("revocations raced");
    let revocations = std::env::var("TALOS_TEST_REVOCATIONS")
        .map_or(REVOCATIONS, |text| text.parse().must("TALOS_TEST_REVOCATIONS"));
    let history = run(random, revocations).await;

    let lease = LEASE.as_micros() as Micros;
    let widest = (LEASE + GRACE).as_micros() as Micros;
    println!("{}", report::report(&history, (lease, widest), INSTANCES, CUT_OFF));
    let found = judge::judge(&history, lease, widest);
    for (fault, verdict) in found.iter().take(20) {
        let credential = &history.credentials[verdict.credential];
        println!("{fault:?}\n  {verdict:?}\n  {credential:?}");
    }
    assert!(found.is_empty(), "{} verdicts must not have been", found.len());
    println!("the judge finds nothing");

    // Keys that were never allowed, and decisions without a bound in force, prove nothing.
    let ended = history.credentials.iter().filter(|credential| credential.end.is_some()).count();
    let allowed = history.verdicts.iter().filter(|verdict| verdict.answer == Answer::Allowed).count();
    let least = revocations / Phase::ALL.len() * Phase::ALL.len().min(9);
    assert!(ended >= least && allowed >= 2 * ended, "{ended} keys, {allowed} times allowed");
    let wide = report::decided_beyond(&history, lease, widest);
    assert!(wide * 2 < history.verdicts.len(), "{wide} verdicts without the bound in force");
    let relayed = history.verdicts.iter().filter(|verdict| verdict.instance == CUT_OFF);
    let bounds = judge::Bounds::new(&history.readings, lease, widest);
    let relayed =
        relayed.filter(|verdict| bounds.during(verdict.instance, verdict.span) == lease * 2).count();
    assert!(!has_proxies() || relayed > 100, "only {relayed} verdicts in relayed mode");
}

/// Three processes on one database and one Redis, keys that come and go, and both in trouble.
async fn run(mut random: Random, revocations: usize) -> History {
    let authority = Authority::new();
    let redis = Redis::start_tls(authority.issue(NAME, 2100), &authority).await;
    let proxy = Proxy::start(redis.port).await;
    let (database, dsn) = Database::start().await;
    let mut to_database = vec![];
    let setup = redis
        .used_over_tls(Setup::new(), &authority, NAME)
        .set("TALOS_CACHE_REDIS_ADDRS", &format!("127.0.0.1:{}", proxy.port))
        .set("TALOS_CACHE_REDIS_TIMEOUT", "500ms")
        .set("TALOS_CONSISTENCY_LEASE", "1s")
        .set("TALOS_CONSISTENCY_RELAY", "1s")
        .set("TALOS_CONSISTENCY_GRACE", "3s")
        .set("TALOS_CONSISTENCY_POLL", "200ms")
        .set("TALOS_CACHE_TTL", "5s");
    let (setup, dsn) = match (&database, dsn) {
        (Database::Pair(..), Some(dsn)) => (setup, dsn),
        (Database::File | Database::Pair(..), _) => {
            let setup = setup.sqlite();
            let dsn = format!("sqlite://{}", setup.path("talos.db").display());
            (setup, dsn)
        }
    };
    let mut instances = Vec::new();
    for _ in 0..INSTANCES {
        let setup = match &database {
            Database::File => setup.clone(),
            Database::Pair(..) => {
                let (way, proxied) = database::behind_proxy(&dsn).await;
                to_database.push(way);
                setup.clone().set("TALOS_DB_DSN", &proxied)
            }
        };
        instances.push(setup.start().await);
    }
    let scene = Scene {
        redis: &redis,
        to_redis: &proxy,
        database: &database,
        dsn: &dsn,
        to_database: &to_database,
        far: CUT_OFF,
        switched: AtomicBool::new(false),
    };
    let world = Arc::new(World::new(instances, Phase::ALL.len()).await);
    let mut readers = JoinSet::new();
    for instance in 0..INSTANCES {
        let world = Arc::clone(&world);
        readers.spawn(async move { world.read_bounds(instance).await });
    }

    let mut lives = JoinSet::new();
    let phases = Phase::ALL.iter().filter(|phase| phase.applies(&database)).count();
    let of_each = revocations.div_ceil(phases);
    let at_once =
        std::env::var("TALOS_TEST_LIVES").map_or(LIVES, |text| text.parse().must("TALOS_TEST_LIVES"));
    for (number, phase) in Phase::ALL.into_iter().enumerate() {
        if !phase.applies(&database) {
            continue;
        }
        world.enter(number);
        let (bound, cut_off, least) = match phase {
            Phase::CutOff => (LEASE + RELAY, Some(CUT_OFF), LEASE * 6),
            // Each of them once, or until it is over.
            Phase::StoodStill | Phase::Distant => (LEASE, None, LEASE * 9),
            Phase::SwitchedOver => (LEASE, None, LEASE * 5),
            _ => (LEASE, None, Duration::ZERO),
        };
        let keys_live = async {
            // Long enough for what goes wrong to be noticed.
            let began = Instant::now();
            let is_over = || phase != Phase::SwitchedOver || scene.switched.load(Ordering::SeqCst);
            while world.ended(number) < of_each || began.elapsed() < least || !is_over() {
                while lives.len() < at_once {
                    lives.spawn(life::live(Arc::clone(&world), random.split(), bound, cut_off));
                }
                lives.join_next().await.must("a life").must("a life");
            }
        };
        tokio::select! {
            () = keys_live => {}
            () = phase.go_wrong(&scene, |instance| &world.instances[instance].talos) => {}
        }
        phase.mend(&scene).await;
    }
    while let Some(life) = lives.join_next().await {
        life.must("a life");
    }
    readers.shutdown().await;
    Arc::into_inner(world).must("the world, alone").history()
}

impl Database {
    /// Starts the database of the tests, as a pair, whose DSN follows a switchover. With
    /// `TALOS_TEST_ORACLE=sqlite` it is a file.
    async fn start() -> (Database, Option<String>) {
        if !has_proxies() {
            return (Database::File, None);
        }
        let kind = match database::server() {
            Some(Server::MariaDb) => Kind::MariaDb,
            Some(Server::Postgres | Server::PgBouncer) | None => Kind::Postgres,
        };
        let pair = ServerPair::start(kind).await;
        let dsn = pair.dsn();
        (Database::Pair(kind, Box::new(Mutex::new(pair))), Some(dsn))
    }
}

/// Returns whether the processes reach the database through proxies, which can break.
fn has_proxies() -> bool {
    std::env::var("TALOS_TEST_ORACLE").as_deref() != Ok("sqlite")
}
