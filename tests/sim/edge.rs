//! Server of the stream to the module in Envoy. It does what `src/authz/edge/stream.rs` does, with
//! the real follower and the real entries, but without HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use talos::cache::freshness::Freshness;
use talos::cache::memory::{CacheKey, Entry};
use talos::clock::BootTime;
use talos::mutants::{self, Mutant};
use talos::service::Service;
use talos_proto::edge::{
    self, Ask, Change, ClientAddress, Forget, FromServer, HeaderSource, Knowledge, Limits, NoEntry,
    NoEntryReason, ServerHello, Settings, Source, from_module, from_server, source,
};
use tokio::time::{Instant, sleep_until, timeout};

use crate::channel::{Channel, Closing};
use crate::pipe::{Incoming, ModuleStream};
use crate::shim;
use crate::world::World;

/// Time for the first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time without a Tick.
const MAX_SILENCE: Duration = Duration::from_secs(10);
/// Shortest time between two pushes.
const PUSH_INTERVAL: Duration = Duration::from_millis(5);

/// Accepts streams and Checks until it is dropped with its process.
pub struct Listener {
    world: Arc<World>,
    instance: usize,
    incoming: Arc<Channel<Incoming>>,
}

impl Listener {
    pub fn new(world: &Arc<World>, instance: usize) -> Self {
        let incoming = Arc::new(Channel::new(instance, instance));
        world.state().pipes[instance].listener = Some(Arc::clone(&incoming));
        Self { world: Arc::clone(world), instance, incoming }
    }

    /// Serves streams, and calls `check` for Checks.
    pub async fn run(self, service: Arc<Service>, check: impl Fn(usize)) {
        while let Some(incoming) = self.incoming.next(&self.world).await {
            match incoming {
                Incoming::Check(key) => check(key),
                Incoming::Stream(stream) => {
                    let (service, world) = (Arc::clone(&service), Arc::clone(&self.world));
                    tokio::spawn(serve(service, Closing { world, stream }, self.instance));
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let stream = {
            let pipe = &mut self.world.state().pipes[self.instance];
            let is_own = |other: &mut Arc<_>| Arc::ptr_eq(other, &self.incoming);
            pipe.listener.take_if(is_own);
            pipe.stream.clone()
        };
        stream.iter().for_each(|stream| stream.close(&self.world));
    }
}

/// Serves one stream to its end.
async fn serve(service: Arc<Service>, closing: Closing<edge::FromModule, FromServer>, instance: usize) {
    let (world, stream) = (Arc::clone(&closing.world), Arc::clone(&closing.stream));
    let mut follower = service.freshness.follower();
    if !matches!(timeout(HELLO_TIMEOUT, stream.up.next(&world)).await, Ok(Some(_))) {
        return;
    }
    greet(&service, &world, &stream);
    let mut progress = service.freshness.progress();
    let push_delay = Duration::from_millis(world.state().push_delay);
    let (mut pushed_at, mut push_at, mut ticked_at) = (Instant::now(), None, Instant::now());
    let mut mutated = MutatedAnswers::default();
    loop {
        let silent_at = ticked_at + MAX_SILENCE;
        tokio::select! {
            biased;
            message = stream.up.next(&world) => match message.map(|message| message.message) {
                None => return,
                Some(Some(from_module::Message::Tick(tick))) => {
                    ticked_at = Instant::now();
                    let Ok(update) = service.freshness.update(&mut follower) else {
                        return world.note(Some(instance), "module: the log was rewritten");
                    };
                    let changes = update.changes.iter();
                    let changes = changes.map(|one| Change { slot: one.slot, value: one.value }).collect();
                    let age = update.age.map(|age| age.as_micros() as u64);
                    let (age, changes) = mutated.apply(&service.freshness, age, changes, |late| {
                        send(&world, &stream, from_server::Message::Forget(Forget { changes: late }));
                    });
                    let knowledge = Knowledge { tick: tick.id, age_micros: age, changes, generation: 1 };
                    send(&world, &stream, from_server::Message::Knowledge(knowledge));
                }
                Some(Some(from_module::Message::Ask(ask))) => {
                    send(&world, &stream, answer(&service, &ask));
                }
                Some(_) => {}
            },
            changed = progress.changed(), if push_at.is_none() => {
                if changed.is_err() {
                    return;
                }
                push_at = Some((pushed_at + PUSH_INTERVAL).max(Instant::now() + push_delay));
            }
            () = sleep_until(push_at.unwrap_or(silent_at)), if push_at.is_some() => {
                (pushed_at, push_at) = (Instant::now(), None);
                let Ok(update) = service.freshness.update(&mut follower) else {
                    return world.note(Some(instance), "module: the log was rewritten");
                };
                let changes = update.changes.iter();
                let changes: Vec<_> = changes.map(|one| Change { slot: one.slot, value: one.value }).collect();
                if !changes.is_empty() {
                    send(&world, &stream, from_server::Message::Forget(Forget { changes }));
                }
            }
            () = sleep_until(silent_at) => return,
        }
    }
}

fn send(world: &World, stream: &ModuleStream, message: from_server::Message) {
    stream.down.send(world, FromServer { message: Some(message) });
}

/// Answers the Hello, and says what counts.
fn greet(service: &Service, world: &World, stream: &ModuleStream) {
    let hello = ServerHello {
        protocol: 1,
        server_version: "simulated".to_owned(),
        index_seed: service.memory.seed().to_vec().into(),
        limits: Some(Limits {
            max_asks_in_flight: 64,
            max_changes: 4_096,
            max_used_rows: 64,
            max_entries: 1_000,
            max_bytes: 1 << 20,
            tick_micros: 500_000,
        }),
    };
    let name = "x-api-key".to_owned();
    let header = HeaderSource { name, scheme: String::new(), is_scheme_optional: false };
    let settings = Settings {
        generation: 1,
        enabled: true,
        lease_micros: service.freshness.config().lease.as_micros() as u64,
        sources: vec![Source { kind: Some(source::Kind::Header(header)) }],
        client_address: ClientAddress::Peer.into(),
        token_header: "authorization".to_owned(),
        ..Settings::default()
    };
    send(world, stream, from_server::Message::Hello(hello));
    send(world, stream, from_server::Message::Settings(settings));
}

/// Answers a question from what the cache holds.
fn answer(service: &Service, ask: &Ask) -> from_server::Message {
    let settings = service.snapshot();
    let digest: [u8; 32] = ask.index[..].try_into().expect("a digest");
    let entry = match mutants::is_on(Mutant::EdgeUnchecked) {
        true => service.memory.get(&CacheKey::new(settings.network, digest)),
        false => service.entry_by_index(&settings, digest, service.clock.now()),
    };
    match entry {
        Some(entry) => from_server::Message::Entry(entry_of(ask, &entry)),
        None => from_server::Message::NoEntry(NoEntry {
            id: ask.id,
            reason: NoEntryReason::NoEntryNotCached.into(),
            wait_micros: 1_000_000,
        }),
    }
}

fn entry_of(ask: &Ask, entry: &Entry) -> edge::Entry {
    let allow = Value { kind: Some(Kind::StringValue("allow".to_owned())) };
    let (stamp, [key_slot, actor_slot]) = Freshness::position(entry.slot, entry.stamp);
    edge::Entry {
        id: ask.id,
        policy: ask.policy.clone(),
        metadata: Some(Struct { fields: [("decision".to_owned(), allow)].into() }),
        stamp,
        key_slot,
        actor_slot,
        generation: 1,
        refresh_at_micros: Some(entry.soft_expiry.as_micros() - 10_000_000),
        expires_micros: entry.soft_expiry.as_micros(),
        ..edge::Entry::default()
    }
}

/// MutatedAnswers of a server whose checks are taken out.
#[derive(Default)]
struct MutatedAnswers {
    /// Changes that are kept for the next answer.
    late: Vec<Change>,
    /// The lease that was seen last, and its start by the clock that stands still in a suspend.
    lease: Option<(BootTime, u64)>,
}

impl MutatedAnswers {
    /// Returns what an answer says instead of this age and these changes. `send_late` sends those
    /// of the answer before.
    fn apply(
        &mut self,
        freshness: &Freshness,
        age: Option<u64>,
        changes: Vec<Change>,
        send_late: impl FnOnce(Vec<Change>),
    ) -> (Option<u64>, Vec<Change>) {
        if mutants::is_on(Mutant::EdgeChangesLate) {
            send_late(std::mem::replace(&mut self.late, changes));
            return (age, vec![]);
        }
        let Some(start) = freshness.lease_start().filter(|_| mutants::is_on(Mutant::EdgeOtherClock)) else {
            return (age, changes);
        };
        let (now, monotonic) = (shim::moment().boot.as_micros(), shim::monotonic());
        let begun = match self.lease {
            Some((known, begun)) if known == start => begun,
            _ => monotonic.saturating_sub(now - start.as_micros()),
        };
        self.lease = Some((start, begun));
        (Some(monotonic - begun), changes)
    }
}
