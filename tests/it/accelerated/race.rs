//! Revocations raced through the module, while what could delay its knowledge goes wrong: Redis,
//! the database, the stream, and processes that stand still.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;

use super::stream_proxy::{self, StreamProxy};
use super::{ACCELERATED, with_socket};
use crate::rig::database;
use crate::rig::envoy::{Envoy, Launch};
use crate::rig::http::{Call, Version};
use crate::rig::process::Process;
use crate::rig::proxy::{Fault, Proxy};
use crate::rig::random::Random;
use crate::rig::redis::Redis;
use crate::rig::support::{Json, Must, number_from, until};
use crate::rig::talos::{ISSUED, Setup, Talos};
use crate::rig::upstream::Upstream;

/// Keys that are revoked, unless `TALOS_TEST_EDGE_REVOCATIONS` says otherwise.
const REVOCATIONS: usize = 90;
/// Keys that live at once, unless `TALOS_TEST_EDGE_LIVES` says otherwise.
const LIVES: usize = 12;
/// `consistency.lease`, the bound, scaled down.
const LEASE: Duration = Duration::from_secs(1);
/// Time for which a process stands still.
const STANDSTILL: Duration = Duration::from_secs(2);
/// Time after the bound for which a revoked key is still tried.
const AFTERMATH: Duration = Duration::from_millis(600);
/// Response header with the time that ext_authz took; the module's hits have none.
const ASKED: &str = "x-asked";
/// Route of the shipped configuration that all requests here take.
const ROUTE: &str = "- match: { prefix: / } # all other requests: any valid key\n";

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Healthy,
    RedisStopped,
    DatabaseGone,
    StreamCut,
    StreamDelayed,
    StreamHeld,
    StreamRepeated,
    TalosStopped,
    EnvoyStopped,
}

impl Phase {
    const ALL: [Self; 9] = [
        Self::Healthy,
        Self::RedisStopped,
        Self::DatabaseGone,
        Self::StreamCut,
        Self::StreamDelayed,
        Self::StreamHeld,
        Self::StreamRepeated,
        Self::TalosStopped,
        Self::EnvoyStopped,
    ];

    /// Makes it go wrong, for ever: to be dropped when the phase is over, and then mended.
    async fn go_wrong(self, world: &World) {
        let pause = |millis| tokio::time::sleep(Duration::from_millis(millis));
        match self {
            Self::Healthy => {}
            Self::RedisStopped => world.redis.freeze(),
            Self::DatabaseGone => loop {
                world.cut_database(Fault::BlackHole);
                tokio::time::sleep(STANDSTILL).await;
                world.cut_database(Fault::Pass);
                pause(1_500).await;
            },
            Self::StreamCut => loop {
                world.proxy.set(stream_proxy::Fault::Cut);
                pause(100).await;
                world.proxy.set(stream_proxy::Fault::Pass);
                pause(2_000).await;
            },
            Self::StreamDelayed => loop {
                for millis in [5, 40, 300, 900] {
                    world.proxy.set(stream_proxy::Fault::Delay(Duration::from_millis(millis)));
                    pause(1_000).await;
                }
            },
            Self::StreamHeld => loop {
                world.proxy.set(stream_proxy::Fault::Hold);
                tokio::time::sleep(STANDSTILL).await;
                world.proxy.set(stream_proxy::Fault::Pass);
                pause(800).await;
            },
            Self::StreamRepeated => loop {
                world.proxy.set(stream_proxy::Fault::Repeat);
                pause(700).await;
                world.proxy.set(stream_proxy::Fault::Pass);
                pause(1_500).await;
            },
            Self::TalosStopped => world.stand_still(&world.talos.process).await,
            Self::EnvoyStopped => world.stand_still(world.envoy.process()).await,
        }
        std::future::pending().await
    }

    /// Makes it right again.
    fn mend(self, world: &World) {
        world.redis.thaw();
        world.cut_database(Fault::Pass);
        world.proxy.set(stream_proxy::Fault::Pass);
        world.talos.process.signal(Signal::CONT);
        world.envoy.process().signal(Signal::CONT);
    }
}

/// What became of one key.
struct Life {
    phase: usize,
    /// True if the module let it pass before it was revoked.
    was_known: bool,
    /// Time from the acknowledgement to the last request that the module let pass; `None` if there
    /// was none after it.
    last_hit: Option<Duration>,
    /// Requests that passed though they began after the bound, and the time from the
    /// acknowledgement to their beginning.
    late: Vec<(Duration, String)>,
}

/// The processes. The fields are in the order in which they stop.
struct World {
    envoy: Envoy,
    proxy: StreamProxy,
    /// The one that Envoy asks.
    talos: Talos,
    /// Another one on the same database.
    other: Talos,
    redis: Redis,
    to_database: Option<Proxy>,
    upstream: Upstream,
    phase: AtomicUsize,
    ended: AtomicUsize,
    /// Requests that passed since ext_authz had asked.
    asked: AtomicUsize,
    lives: Mutex<Vec<Life>>,
}

impl World {
    async fn start() -> World {
        let (upstream, redis) = (Upstream::start().await, Redis::start().await);
        let setup = redis
            .used_by(Setup::new())
            .set("TALOS_CACHE_REDIS_TIMEOUT", "500ms")
            .set("TALOS_CONSISTENCY_LEASE", "1s")
            .set("TALOS_CONSISTENCY_POLL", "200ms")
            .set("TALOS_CONSISTENCY_RELAY", "0s")
            .set("TALOS_CONSISTENCY_GRACE", "0s");
        let (socket, own) = (setup.path("authz.sock"), setup.path("module.sock"));
        let other = setup.start().await;
        let (to_database, asked) = match database::server() {
            None => (None, setup),
            Some(_) => {
                let (proxy, dsn) = database::behind_proxy(setup.dsn()).await;
                (Some(proxy), setup.set("TALOS_DB_DSN", &dsn))
            }
        };
        let asked = asked
            .set("TALOS_SERVE_AUTHZ_SOCKET", &socket.display().to_string())
            .set("TALOS_AUTHZ_EDGE_ENABLED", "true");
        let talos = with_socket(&asked).await;
        let proxy = StreamProxy::start(&own, &socket);
        // ext_authz asks at the socket itself, the module through the proxy.
        let pipe = format!("pipe: {{ path: \"{}\" }}", socket.display());
        let duration = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:ext_authz_duration)%";
        let marked = format!(
            "{ROUTE}                          response_headers_to_add: [{{ header: {{ key: {ASKED}, value: \
             \"{duration}\" }} }}]\n"
        );
        let own = own.display().to_string();
        let changes = [
            ("pipe: { path: /run/talos/authz.sock }", pipe.as_str()),
            ("/run/talos/authz.sock", own.as_str()),
            (ROUTE, &marked),
        ];
        let launch = Launch { threads: "2", ..Launch::default() };
        let envoy = Envoy::start_with(&launch, ACCELERATED, upstream.port, talos.authz, &changes).await;
        World {
            envoy,
            proxy,
            talos,
            other,
            redis,
            to_database,
            upstream,
            phase: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            lives: Mutex::default(),
        }
    }

    fn cut_database(&self, fault: Fault) {
        if let Some(way) = &self.to_database {
            way.set_new(fault);
            // Connections that were black holes are of no use any more.
            way.set_open(if fault == Fault::Pass { Fault::Reset } else { fault });
        }
    }

    /// Stops a process again and again.
    async fn stand_still(&self, process: &Process) {
        loop {
            process.signal(Signal::STOP);
            tokio::time::sleep(STANDSTILL).await;
            process.signal(Signal::CONT);
            tokio::time::sleep(Duration::from_millis(1_500)).await;
        }
    }

    /// Sends a request with a key; returns the status, and true if the module let it pass.
    async fn send(&self, secret: &str) -> (u16, bool) {
        let call = Call::get("/a").api_key(secret);
        match self.envoy.edge.try_send(Version::Http1, call).await {
            Ok(reply) => {
                let asked = reply.header(ASKED).is_some_and(|time| time.parse::<f64>().is_ok());
                self.asked.fetch_add(usize::from(asked), Ordering::SeqCst);
                (reply.status, reply.status == 200 && !asked)
            }
            Err(_) => (0, false),
        }
    }

    /// Asks one of the processes for a change until it is acknowledged; returns the answer's body.
    async fn change(&self, random: &mut Random, path: &str, body: &serde_json::Value) -> serde_json::Value {
        loop {
            let talos = if random.below(3) == 0 { &self.talos } else { &self.other };
            let reply = talos.admin.try_send(Version::Http1, Call::post(path).json(body)).await;
            match reply {
                Ok(reply) if (200..300).contains(&reply.status) && reply.body.is_empty() => return json!({}),
                Ok(reply) if (200..300).contains(&reply.status) => return reply.json(),
                Ok(reply) => assert!(reply.status >= 500, "{path}: {} {}", reply.status, reply.text()),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Uses a key, without an end.
    async fn use_on(&self, secret: &str) -> Instant {
        loop {
            self.send(secret).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Issues a key, uses it, revokes it, and goes on using it until well after the bound.
    async fn live(&self, mut random: Random) {
        let issued = self.change(&mut random, ISSUED, &json!({ "name": "raced", "actor_id": "alice" })).await;
        let (id, secret) =
            (issued.text("/issued_api_key/key_id").to_owned(), issued.text("/secret").to_owned());
        let mut was_known = false;
        for _ in 0..random.between(20, 60) {
            was_known = self.send(&secret).await.1;
            // It is used a few times more, so that each of Envoy's threads has it at hand.
            if was_known && random.below(4) == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(random.between(5, 40) as u64)).await;
        }
        let phase = self.phase.load(Ordering::SeqCst);
        let reason = json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" });
        // Requests go on while it is being revoked.
        let path = format!("{ISSUED}/{id}:revoke");
        let mut own = random.split();
        let revoked = tokio::select! {
            _ = self.change(&mut own, &path, &reason) => Instant::now(),
            never = self.use_on(&secret) => never,
        };
        let (mut last_hit, mut late) = (None, vec![]);
        loop {
            let since = revoked.elapsed();
            let (status, is_hit) = self.send(&secret).await;
            if is_hit {
                last_hit = Some(since);
            }
            if status == 200 && since > LEASE {
                late.push((since, format!("{:?}, hit: {is_hit}", Phase::ALL[phase])));
            }
            if since > LEASE + AFTERMATH {
                break;
            }
            tokio::time::sleep(Duration::from_millis(random.between(1, 60) as u64)).await;
        }
        self.lives.lock().must("the lives").push(Life { phase, was_known, last_hit, late });
        self.ended.fetch_add(1, Ordering::SeqCst);
        // It remembers every request.
        self.upstream.take();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_revoked_key_passes_the_module_after_the_bound() {
    needs!(Envoy, Redis);
    let mut random = Random::seeded("revocations raced through the module");
    let revocations = number_from("TALOS_TEST_EDGE_REVOCATIONS", REVOCATIONS);
    let at_once = number_from("TALOS_TEST_EDGE_LIVES", LIVES);
    let world = Arc::new(World::start().await);
    let phases: Vec<_> = Phase::ALL.into_iter().enumerate().collect();
    let phases =
        phases.iter().filter(|(_, phase)| world.to_database.is_some() || *phase != Phase::DatabaseGone);
    let of_each = revocations.div_ceil(phases.clone().count());
    let mut lives = JoinSet::new();
    for (number, phase) in phases {
        world.phase.store(*number, Ordering::SeqCst);
        world.ended.store(0, Ordering::SeqCst);
        let began = Instant::now();
        let keys_live = async {
            while world.ended.load(Ordering::SeqCst) < of_each || began.elapsed() < STANDSTILL * 2 {
                while lives.len() < at_once {
                    let (world, random) = (Arc::clone(&world), random.split());
                    lives.spawn(async move { world.live(random).await });
                }
                lives.join_next().await.must("a life").must("a life");
            }
        };
        tokio::select! {
            () = keys_live => {}
            () = phase.go_wrong(&world) => {}
        }
        phase.mend(&world);
        println!("{phase:?}: {:.1} s", began.elapsed().as_secs_f64());
    }
    while let Some(life) = lives.join_next().await {
        life.must("a life");
    }
    // All is well again: a key is known, and forgotten when it is revoked.
    let key = world.other.issue(json!({})).await;
    until("the module knows a key", async || world.send(&key.secret).await.1.then_some(())).await;
    world.other.revoke(&key).await;
    until("it is refused", async || (world.send(&key.secret).await.0 == 401).then_some(())).await;

    let lives = std::mem::take(&mut *world.lives.lock().must("the lives"));
    println!("{}", report(&lives));
    let late: Vec<_> = lives.iter().flat_map(|life| &life.late).collect();
    assert!(
        late.is_empty(),
        "{} requests passed after the bound: {:?}",
        late.len(),
        &late[..late.len().min(20)]
    );
    // Each way was taken, and the two were told apart.
    assert!(world.asked.load(Ordering::SeqCst) > 0, "ext_authz was never asked");
    assert!(world.envoy.stat("dynamicmodulescustom.talos_hits").await > 0, "there was no hit");
    // Keys that the module never let pass prove nothing.
    let known = lives.iter().filter(|life| life.was_known).count();
    assert!(lives.len() >= revocations && known * 3 > lives.len(), "{known} of {} were known", lives.len());
}

/// Describes what became of the keys, by phase.
fn report(lives: &[Life]) -> String {
    let mut text = format!("{} keys were revoked; lease {LEASE:?}\n", lives.len());
    for (number, phase) in Phase::ALL.iter().enumerate() {
        let of: Vec<&Life> = lives.iter().filter(|life| life.phase == number).collect();
        let known = of.iter().filter(|life| life.was_known).count();
        // A key that never passed after its revocation was ended by the push before.
        let mut last: Vec<Duration> =
            of.iter().filter(|life| life.was_known).map(|life| life.last_hit.unwrap_or_default()).collect();
        last.sort_unstable();
        let at = |share: f64| {
            let place = (last.len() as f64 * share).ceil() as usize;
            last.get(place.saturating_sub(1)).copied().unwrap_or_default().as_millis()
        };
        text += &format!(
            "{phase:?}: {} keys, {known} known to the module when they were revoked; last use by it after the \
             acknowledgement: p50 {} ms, p99 {} ms, at most {} ms\n",
            of.len(),
            at(0.5),
            at(0.99),
            at(1.0),
        );
    }
    text
}
