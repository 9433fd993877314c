use std::sync::OnceLock;
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::cache::freshness::{Freshness, LeaseConfig, Slot};
use crate::clock::{Clock, Timestamp};
use crate::key::{Key, KeyId};

const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

fn cache() -> MemoryCache {
    MemoryCache::new(1 << 20, 10, &Rng::seeded(1))
}

fn entry(network: NetworkId, digest: Digest) -> Arc<Entry> {
    let key = Key { network, ..Key::sample(KeyId::Imported([7; 32]), NOW) };
    let second = Duration::from_secs(1);
    let config = LeaseConfig { lease: second, poll: second, relay: second, grace: second };
    let slot = Slot::for_key(network, key.id);
    let stamp = Freshness::new(Clock::manual(NOW), config, second).before_read(slot).stamp(1);
    Arc::new(Entry {
        digest,
        key: Arc::new(key),
        stamp,
        slot,
        generation: 1,
        soft_expiry: NOW,
        hard_expiry: None,
        policy_end: None,
        last_use: LastUse::default(),
        responses: ResponseCache::default(),
        denied_metadata: OnceLock::new(),
        weight: Weight::default(),
    })
}

/// All of a digest counts, though moka has half of it.
#[test]
fn an_entry_is_found_by_its_whole_digest_and_its_network_alone() {
    let memory = cache();
    let networks = [NetworkId::SINGLE, NetworkId::new(Uuid::from_u128(9))];
    let digest = [5; 32];
    let entries = networks.map(|network| entry(network, digest));
    for entry in &entries {
        memory.insert(Arc::clone(entry));
        memory.put_recent(entry);
    }
    for (network, entry) in networks.into_iter().zip(&entries) {
        let found = memory.get(&CacheKey::new(network, digest)).unwrap();
        assert!(Arc::ptr_eq(&found, entry), "the same credential in two networks has two entries");
        for byte in 0..32 {
            let mut other = digest;
            other[byte] ^= 1;
            let other = CacheKey::new(network, other);
            assert!(memory.get(&other).is_none() && memory.get_recent(&other).is_none(), "byte {byte}");
        }
    }
    let other = CacheKey::new(NetworkId::new(Uuid::from_u128(10)), digest);
    assert!(memory.get(&other).is_none() && memory.get_recent(&other).is_none());
    // A digest whose half mixes with another network to the same key of moka.
    let mut mixed = digest;
    mixed[15] ^= 9;
    assert!(memory.get(&CacheKey::new(networks[1], mixed)).is_none());
}

#[test]
fn an_entry_weighs_what_it_has_when_it_is_weighed() {
    let memory = cache();
    let (one, other) = (entry(NetworkId::SINGLE, [1; 32]), entry(NetworkId::SINGLE, [2; 32]));
    memory.insert(Arc::clone(&one));
    memory.settle();
    let before = (memory.bytes(), one.weight.get());
    assert_eq!(before.0, u64::from(before.1));
    let text = [7; 900];
    let halves =
        [Half { bytes: &text, own: std::iter::once(0..900).collect() }, Half { bytes: b"", own: vec![] }];
    let split = memory.templates().split(Conditions { generation: 1, token: None }, halves);
    let encode = || Ok::<_, ()>(CachedResponse::new(split, None, None));
    one.responses.get_or_encode(NOW, |_| true, encode).unwrap();
    memory.weigh_again(&one);
    // One that isn't there stays away.
    memory.weigh_again(&other);
    memory.settle();
    assert_eq!((memory.len(), memory.bytes()), (1, u64::from(one.weight.get())));
    assert!(one.weight.get() > before.1 + 900 && one.weight.get() < before.1 + 1_400);
    // A newer entry for the same state takes the response over, and is weighed with it.
    let newer = entry(NetworkId::SINGLE, [1; 32]);
    memory.insert(Arc::clone(&newer));
    memory.settle();
    assert_eq!(memory.bytes(), u64::from(newer.weight.get()));
    assert!(newer.weight.get() > before.1 + 900);
}
