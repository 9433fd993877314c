//! One instance: the real service, cache, store and polls, and the clients that ask it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use talos::app::relay::{self, Relay};
use talos::audit::{Audit, Call, Origin};
use talos::authz::identity_headers::upstream_headers_len;
use talos::cache::freshness::{Freshness, LeaseConfig, Mode};
use talos::cache::memory::MemoryCache;
use talos::cache::redis::RedisCache;
use talos::clock::Clock;
use talos::config::Source;
use talos::credential::Presented;
use talos::event::Operation;
use talos::key::deny::DenyList;
use talos::key::{
    ActorId, AddressList, KeyKind, KeyName, RatePolicies, Revocation, RevocationReason, Scopes, Visibility,
};
use talos::limit::Limiter;
use talos::mutants;
use talos::redis::{RedisSettings, simulated};
use talos::rng::Rng;
use talos::service::usage::{UsageSettings, usage_counter};
use talos::service::verify::{CacheUse, Verification, VerifyRequest};
use talos::service::{KeyRequest, Service, ServiceBuilder, SuspendRequest, use_queue};
use talos::settings::sources::Documents;
use talos::settings::{Settings, SettingsHandle};
use talos::store::{Store, StoreError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::edge::Listener;
use crate::history::{Answer, Change, Checked, Polled, Seen};
use crate::plan::{About, Action, Request};
use crate::redis;
use crate::shim;
use crate::world::{IssuedKey, World};

/// Time that a Check may take.
const CHECK_BUDGET: Duration = Duration::from_millis(150);
/// Time after which a process that can't start is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// Number of actors.
const ACTORS: u64 = 8;
/// Pause between two looks at the mode.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Time for which requests wait for a process that stands still, in microseconds.
const BACKLOG: u64 = 3_000_000;

/// Runs an instance until it is killed.
pub async fn run(world: Arc<World>, instance: usize, seed: u64, requests: Vec<Request>) {
    world.enter();
    mutants::switch_on(world.mutant);
    let started = world.now();
    world.note(Some(instance), "starts");
    let service = loop {
        match build(&world, seed).await {
            Ok(service) => break Arc::new(service),
            Err(error) => {
                world.note(Some(instance), format!("can't start: {error}"));
                sleep(RESTART_DELAY).await;
            }
        }
    };
    let prepare = async {
        service.freshness.poll(&service.store).await?;
        service.store.prepare_lookups().await
    };
    let _ = timeout(Duration::from_secs(1), prepare).await;
    let changed = Arc::new(Notify::new());
    let relay = share(&service, &changed);
    tokio::spawn(poll(Arc::clone(&service), Arc::clone(&world), instance, (changed, relay)));
    tokio::spawn(look(Arc::clone(&service), Arc::clone(&world), instance, started));
    let envoy = {
        let (service, world) = (Arc::clone(&service), Arc::clone(&world));
        move |index: usize| {
            let key = world.state().keys[index].clone();
            let client = Client { world: Arc::clone(&world), service: Arc::clone(&service), instance };
            tokio::spawn(async move { client.check(key).await });
        }
    };
    tokio::spawn(Listener::new(&world, instance).run(Arc::clone(&service), envoy));
    for request in requests {
        let now = shim::moment().boot.as_micros();
        // Of those that came while the process stood still, the last ones wait for it.
        if request.at + BACKLOG < now {
            continue;
        }
        sleep(Duration::from_micros(request.at.saturating_sub(now))).await;
        let client = Client { world: Arc::clone(&world), service: Arc::clone(&service), instance };
        tokio::spawn(async move { client.send(request).await });
    }
    std::future::pending::<()>().await;
}

/// Builds the service as a process does that has no audit log.
async fn build(world: &Arc<World>, seed: u64) -> Result<Service, StoreError> {
    let terms = world.terms;
    let (clock, rng) = (Clock::read_by(shim::moment), Rng::seeded(seed));
    let dsn = "postgres://talos:secret@127.0.0.1:5432/talos?statement_cache_capacity=100";
    let store = Store::open(dsn, rng.clone()).await?;
    let micros = Duration::from_micros;
    let config = LeaseConfig {
        lease: micros(terms.lease),
        poll: micros(terms.poll),
        relay: micros(terms.relay),
        grace: micros(terms.grace),
    };
    let usage = UsageSettings { is_enabled: false, flush_interval: Duration::from_secs(10), max_rows: 1_000 };
    let service = ServiceBuilder {
        memory: MemoryCache::new(16 << 20, 1_000, &rng),
        shared: terms.has_redis.then(|| shared_cache(world, clock.clone())),
        freshness: Arc::new(Freshness::new(clock.clone(), config, Duration::from_secs(60))),
        limiter: Arc::new(Limiter::memory(clock.clone())),
        deny_list: DenyList::default(),
        uses: use_queue(1_000).0,
        usage: Arc::new(usage_counter(usage).0),
        audit: Arc::new(Audit::new(None)),
        settings: settings(),
        upstream_headers_len,
        clock,
        rng,
        store,
    };
    Ok(service.build())
}

/// Returns the cache that instances share.
fn shared_cache(world: &Arc<World>, clock: Clock) -> Arc<RedisCache> {
    simulated::set_server(Some(Arc::new(redis::Client(Arc::clone(world)))));
    let settings = RedisSettings {
        addrs: vec!["127.0.0.1:6379".to_owned()],
        sentinel: None,
        username: None,
        password: None,
        db: 0,
        timeout: Duration::from_secs(1),
        check_timeout: Duration::from_millis(10),
        tls: None,
        plaintext_allowed: true,
    };
    Arc::new(RedisCache::new(settings, clock).expect("settings of Redis"))
}

/// Keeps connected to Redis, and relays, as the process's tasks do. Returns the side that answers.
fn share(service: &Arc<Service>, changed: &Arc<Notify>) -> Option<Arc<Relay>> {
    let shared = service.shared.clone()?;
    let interval = service.freshness.config().poll;
    let relay = Relay::new(service);
    if let Some(relay) = relay.clone() {
        tokio::spawn(relay.read(interval));
        tokio::spawn(relay::ask(Arc::clone(service), Arc::clone(&shared), interval));
    }
    let (service, changed) = (Arc::clone(service), Arc::clone(changed));
    tokio::spawn(async move {
        let settings = service.settings.clone();
        let is_news = |n| n > service.freshness.polled_to();
        shared.run(&changed, |open| open(&settings.load().secrets), is_news).await;
    });
    relay
}

/// Returns the settings, which all instances share: reading them takes longer than a simulated
/// second.
fn settings() -> SettingsHandle {
    static SETTINGS: OnceLock<SettingsHandle> = OnceLock::new();
    let read = || {
        let configuration = serde_json::json!({
            "db": { "dsn": "sqlite://unused.db" },
            "secrets": { "hmac": { "current": "kNmaycDGiRqQyeroueYetNAIivVVIpIw6QykmEqZoAvGpifA" } },
            "credentials": { "issuer": "https://keys.example.test" },
        });
        let loaded = Source::new(None, []).with_text(configuration.to_string().into_bytes()).load();
        let loaded = loaded.expect("a configuration");
        let settings = Settings::build(&loaded.config, &Documents::default(), 1).expect("settings");
        Arc::new(ArcSwap::from_pointee(settings))
    };
    Arc::clone(SETTINGS.get_or_init(read))
}

/// Polls as the process's task does.
async fn poll(
    service: Arc<Service>,
    world: Arc<World>,
    instance: usize,
    (changed, relay): (Arc<Notify>, Option<Arc<Relay>>),
) {
    let interval = service.freshness.config().poll;
    loop {
        let (start, from) = (Instant::now(), world.now());
        let result = service.freshness.poll(&service.store).await;
        let polled = Polled { instance, from, until: world.now(), succeeded: result.is_ok() };
        world.state().history.polls.push(polled);
        match (result, &relay) {
            (Err(error), _) => world.note(Some(instance), format!("poll: {error}")),
            (Ok(()), Some(relay)) => relay.answer(),
            (Ok(()), None) => {}
        }
        tokio::select! {
            biased;
            () = sleep_until(start + interval) => {}
            () = changed.notified() => {}
            () = service.store.poll_requested() => sleep_until(start + interval / 20).await,
        }
    }
}

/// Looks at the mode again and again.
async fn look(service: Arc<Service>, world: Arc<World>, instance: usize, started: u64) {
    let mut last = None;
    loop {
        let mode = service.freshness.mode();
        if last != Some(mode) {
            world.note(Some(instance), format!("is {}", mode.name()));
            last = Some(mode);
        }
        let at = world.now();
        world.state().history.modes.push(Seen { at, instance, mode, started });
        sleep(LOOK_INTERVAL).await;
    }
}

/// Client of an instance.
struct Client {
    world: Arc<World>,
    service: Arc<Service>,
    instance: usize,
}

impl Client {
    async fn send(self, request: Request) {
        let action = request.action;
        if action == Action::Issue {
            return self.issue(request).await;
        }
        let Some((index, key)) = self.key(request) else {
            return;
        };
        if action == Action::Check {
            return self.check(key).await;
        }
        self.world.state().changed_key = index;
        self.change(action, key).await;
    }

    /// Chooses a key: that of the race, or for a Check often the one that was changed last.
    fn key(&self, Request { action, pick, about, .. }: Request) -> Option<(usize, IssuedKey)> {
        let state = &mut *self.world.state();
        let is_hot = action == Action::Check && pick % 100 < 60;
        let index = match state.keys.len() {
            0 => return None,
            _ if is_hot => state.changed_key,
            // Rather a young key, which is in more caches than ended ones.
            count => count - 1 - (pick / 100) as usize % count.min(if pick % 2 == 0 { 5 } else { 14 }),
        };
        let index = match about {
            About::Race(race) => *state.race_keys.entry(race).or_insert(index),
            About::RememberedBy(thread) => state.remembered(thread, pick).unwrap_or(index),
            About::Any => index,
        };
        Some((index, state.keys[index].clone()))
    }

    fn call(&self, operation: Operation) -> Call {
        Call::new(Arc::clone(&self.service.audit), operation, Origin::default())
    }

    async fn issue(&self, Request { pick, about, .. }: Request) {
        let actor = ActorId::parse(&format!("actor {}", pick % ACTORS)).expect("an actor");
        let request = KeyRequest {
            name: KeyName::parse("simulated").expect("a name"),
            actor: actor.clone(),
            scopes: Scopes::default(),
            role: None,
            ttl: None,
            metadata: None,
            visibility: Visibility::Secret,
            addresses: AddressList::default(),
            rate_policy: None,
            rate_policies: RatePolicies::default(),
            credits: None,
            request_id: None,
        };
        let (settings, call) = (self.service.snapshot(), self.call(Operation::Issue));
        let issued = self.service.issue(&settings, request, &call).await;
        let now = self.world.now();
        let state = &mut *self.world.state();
        match issued {
            Ok(issued) => {
                let id = issued.key.id.to_string();
                state.trace.add(now, Some(self.instance), format!("issued {}", state.keys.len()));
                let credential = issued.secret.expect("a secret").expose().to_owned();
                if let About::Race(race) = about {
                    state.race_keys.entry(race).or_insert(state.keys.len());
                }
                state.keys.push(IssuedKey { id, credential, actor });
            }
            Err(error) => {
                state.trace.add(now, Some(self.instance), format!("issuing failed: {:?}", error.reason));
            }
        }
    }

    async fn change(&self, action: Action, key: IssuedKey) {
        // Keys that come later may come too late to be concerned.
        let (began, known) = (self.world.now(), self.world.state().keys.len());
        let network = self.service.snapshot().network;
        let (service, id) = (&self.service, key.id.as_str());
        let result = match action {
            Action::Suspend => {
                let (request, call) = (SuspendRequest::default(), self.call(Operation::Suspend));
                service.suspend(network, KeyKind::Issued, id, request, &call).await.map(drop)
            }
            Action::Resume => {
                let call = self.call(Operation::Resume);
                service.resume(network, KeyKind::Issued, id, &call).await.map(drop)
            }
            Action::SuspendActor => {
                let (request, call) = (SuspendRequest::default(), self.call(Operation::SuspendActor));
                service.suspend_actor(network, &key.actor, request, &call).await.map(drop)
            }
            Action::ResumeActor => {
                let call = self.call(Operation::ResumeActor);
                service.resume_actor(network, &key.actor, &call).await.map(drop)
            }
            Action::Revoke | Action::Issue | Action::Check => {
                let revocation = Revocation { reason: RevocationReason::KeyCompromise, description: None };
                let call = self.call(Operation::Revoke);
                service.revoke(network, Some(KeyKind::Issued), id, revocation, &call).await.map(drop)
            }
        };
        let ended = self.world.now();
        let acknowledged = result.is_ok();
        let state = &mut *self.world.state();
        let what = format!(
            "{action:?} {}: {}",
            name(id),
            result.err().map_or("done".to_owned(), |error| format!("{:?}", error.reason))
        );
        state.trace.add(ended, Some(self.instance), what);
        let is_actor = matches!(action, Action::SuspendActor | Action::ResumeActor);
        let is_one = |other: &&IssuedKey| match is_actor {
            true => other.actor == key.actor,
            false => other.id == key.id,
        };
        let active = matches!(action, Action::Resume | Action::ResumeActor);
        let changed = state.keys.iter().take(known).filter(is_one).map(|key| Change {
            instance: self.instance,
            key: key.id.clone(),
            active,
            began,
            ended,
            acknowledged,
        });
        state.history.changes.extend(changed);
    }

    /// Asks as the authz plane does: the cache first, then the database within a budget, then what
    /// is due to be read again.
    async fn check(&self, key: IssuedKey) {
        let settings = self.service.snapshot();
        let credential = Presented::new(&key.credential).expect("a credential");
        let request = VerifyRequest { credential, client: None, audiences: &[], cache: CacheUse::Full };
        let mut verification = self.service.verify_cached(&settings, &request);
        if verification.is_none() {
            let verified = timeout(CHECK_BUDGET, self.service.verify(&settings, &request)).await;
            verification = verified.ok().and_then(Result::ok);
        }
        if verification.is_none() {
            verification = self.service.verify_stale(&settings, &request);
        }
        self.record(key, verification, self.service.freshness.mode());
    }

    fn record(&self, key: IssuedKey, verification: Option<Verification>, mode: Mode) {
        let answer = match verification.map(|verification| verification.verdict) {
            Some(Ok(_)) => Answer::Allowed,
            Some(Err(_)) => Answer::Refused,
            None => Answer::Unavailable,
        };
        let at = self.world.now();
        let state = &mut *self.world.state();
        if answer == Answer::Allowed {
            state.remember(self.instance, &key.id);
        }
        state.trace.add(at, Some(self.instance), format!("{answer:?} {} ({})", name(&key.id), mode.name()));
        let (instance, key) = (self.instance, key.id);
        state.history.checks.push(Checked { at, instance, key, answer, mode, by_module: false });
    }
}

/// Shortens a key's id.
fn name(id: &str) -> &str {
    &id[..id.len().min(8)]
}
