//! Weights of the memory cache's entries, against what an allocator counts.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    reason = "an allocator can't be defined otherwise; a test that can't go on panics"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use talos::cache::freshness::{Freshness, LeaseConfig, Slot};
use talos::cache::memory::{
    CachedResponse, Conditions, Entry, Half, LastUse, MemoryCache, ResponseCache, Weight,
};
use talos::clock::{Clock, Timestamp};
use talos::key::record::Record;
use talos::key::{Key, KeyId, NetworkId};
use talos::rng::Rng;

/// Counts what the process has allocated and not freed: a cache may free with one thread what
/// another has removed.
struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);
/// Held by the test that counts.
static COUNTS: Mutex<()> = Mutex::new(());

fn add(bytes: isize) {
    LIVE.fetch_add(bytes, Ordering::Relaxed);
}

/// Returns the bytes as an allocator with size classes takes them: in steps of 16.
fn taken(layout: Layout) -> isize {
    layout.size().next_multiple_of(16) as isize
}

// SAFETY: the system's allocator does the work; it is called with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(taken(layout));
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-taken(layout));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOW: i64 = 1_790_000_000_000_000;
/// Keys of a measurement.
const COUNT: usize = 3_000;
/// Most bytes of a cache's tables and queues, whatever it holds.
const OF_TABLES: f64 = 256e3;
/// Keys that are there before, so that tables that grow by doubling have a usual size.
const BEFORE: usize = 1_500;

/// Random numbers.
struct Numbers(Rng);

impl Numbers {
    fn below(&self, bound: usize) -> usize {
        u64::from_le_bytes(self.0.bytes()) as usize % bound
    }

    fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn text(&self, longest: usize) -> String {
        let random = self.0.bytes::<32>();
        (0..=self.below(longest)).map(|at| char::from(b'a' + random[at % 32] % 26)).collect()
    }
}

/// Which keys are generated.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// As most keys are: a few scopes that others have, too.
    Plain,
    /// With everything that a key can have.
    Rich,
}

fn key(numbers: &Numbers, kind: Kind) -> Key {
    let is_rich = matches!(kind, Kind::Rich);
    let mut record = json!({
        "network_id": "00000000-0000-0000-0000-000000000000",
        "key_id": numbers.0.uuid().to_string(),
        "kind": 1, "visibility": 1,
        "name": numbers.text(40), "actor_id": numbers.text(30),
        "scopes": "[\"orders:read\",\"orders:write\"]", "allowed_cidrs": "[]",
        "metadata": null, "rate_quota": null, "rate_window": null, "rate_unit": null,
        "created_at": NOW, "updated_at": NOW, "expires_at": null, "superseded_at": null,
        "revocation_reason": null, "revocation_description": null, "last_used_at": null, "mutation": 1,
    });
    if is_rich || numbers.one_in(2) {
        record["metadata"] =
            json!({ "team": numbers.text(200), "n": numbers.below(1_000) }).to_string().into();
    }
    if is_rich || numbers.one_in(3) {
        record["created_by"] = "spiffe://example.com/admin".into();
    }
    if is_rich {
        let scopes: Vec<String> =
            (0..numbers.below(20)).map(|n| format!("{n}:{}", numbers.text(30))).collect();
        let blocks: Vec<String> = (0..numbers.below(10)).map(|n| format!("10.{n}.0.0/16")).collect();
        record["scopes"] = json!(scopes).to_string().into();
        record["allowed_cidrs"] = json!(blocks).to_string().into();
        record["updated_by"] = numbers.text(30).into();
        record["replaces"] = numbers.0.uuid().to_string().into();
        record["suspension"] =
            json!({ "reason": numbers.text(300), "at": NOW, "by": "ops" }).to_string().into();
    }
    let record: Record = serde_json::from_value::<Record>(record).unwrap();
    Key::try_from(record).unwrap_or_else(|column| panic!("{column:?}"))
}

/// Encodes a response of which some is the key's own.
fn respond(memory: &MemoryCache, numbers: &Numbers, entry: &Arc<Entry>, generation: u64) {
    let shared = Value::from("what the responses of all keys say").to_string().repeat(10);
    let own = numbers.text(300);
    let bytes = format!("{shared}{own}{shared}");
    let half = || Half {
        bytes: bytes.as_bytes(),
        own: std::iter::once(shared.len()..shared.len() + own.len()).collect(),
    };
    let conditions = Conditions { generation, token: Some(None) };
    let split = memory.templates().split(conditions, [half(), half()]);
    let fits = |conditions: &Conditions| conditions.generation == generation;
    let encode = || Ok::<_, ()>(CachedResponse::new(split, None, None));
    let now = Timestamp::from_micros(NOW);
    let (_, is_new) = entry.responses.get_or_encode(now, fits, encode).unwrap();
    assert!(is_new);
    memory.weigh_again(entry);
}

fn fill(memory: &MemoryCache, numbers: &Numbers, kind: Kind, count: usize) {
    let second = Duration::from_secs(1);
    let config = LeaseConfig { lease: second, poll: second, relay: second, grace: second };
    let slot = Slot::for_key(NetworkId::SINGLE, KeyId::Imported([0; 32]));
    let freshness = Freshness::new(Clock::manual(Timestamp::from_micros(NOW)), config, second);
    let stamp = freshness.before_read(slot).stamp(1);
    for n in 0..count {
        // Another one for each key.
        let credential = format!("{n} {}", numbers.text(60));
        let entry = Arc::new(Entry {
            digest: memory.cache_key(NetworkId::SINGLE, &credential).digest(),
            key: Arc::new(key(numbers, kind)),
            stamp,
            slot,
            generation: 1,
            soft_expiry: Timestamp::from_micros(NOW),
            hard_expiry: None,
            policy_end: None,
            last_use: LastUse::default(),
            responses: ResponseCache::default(),
            denied_metadata: OnceLock::new(),
            weight: Weight::default(),
        });
        memory.insert(Arc::clone(&entry));
        for generation in 0..=numbers.below(2) {
            respond(memory, numbers, &entry, generation as u64);
        }
    }
    settle(memory);
}

/// Lets the cache do and free what it has put off, which happens at every hundredth use or so.
fn settle(memory: &MemoryCache) {
    memory.settle();
    let absent = memory.cache_key(NetworkId::SINGLE, "absent");
    for _ in 0..40_000 {
        assert!(memory.get(&absent).is_none());
    }
    memory.settle();
}

fn live() -> f64 {
    LIVE.load(Ordering::Relaxed) as f64
}

#[test]
fn weights_are_within_a_tenth_of_what_is_allocated() {
    let _alone = COUNTS.lock();
    for (seed, kind) in (0..2).flat_map(|seed| [(seed, Kind::Plain), (seed, Kind::Rich)]) {
        let numbers = Numbers(Rng::seeded(seed));
        let memory = MemoryCache::new(1 << 30, 10, &numbers.0);
        fill(&memory, &numbers, kind, BEFORE);
        let before = (memory.bytes() as f64, live());
        fill(&memory, &numbers, kind, COUNT);
        let (weight, truth) = (memory.bytes() as f64 - before.0, live() - before.1);
        let (each, ratio) = (truth / COUNT as f64, weight / truth);
        println!("seed {seed}, {kind:?}: {each:.0} bytes a key, weighed as {ratio:.3} of that");
        println!("of these, entry {} and row {}", size_of::<Entry>(), size_of::<Key>());
        assert!((0.9..=1.1).contains(&ratio), "seed {seed}, {kind:?}: {ratio:.3} of {each:.0} bytes a key");
    }
}

#[test]
fn max_size_bounds_what_is_allocated() {
    let _alone = COUNTS.lock();
    let numbers = Numbers(Rng::seeded(7));
    let max_size = 4 << 20;
    let before = live();
    let memory = MemoryCache::new(max_size, 10, &numbers.0);
    fill(&memory, &numbers, Kind::Plain, 5_000);
    let taken = live() - before;
    assert!(memory.len() < 5_000, "all have room");
    let bound = max_size as f64;
    println!("{taken} bytes of {bound}, {} keys", memory.len());
    assert!((0.85 * bound..=1.1 * bound + OF_TABLES).contains(&taken), "{taken} bytes of {bound}");
    drop(memory);
    // Names and scopes that keys share may stay.
    assert!(live() - before < 1e6, "{} bytes stay", live() - before);
}
