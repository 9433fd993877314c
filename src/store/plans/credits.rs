//! Statements about credits.

use std::sync::Arc;

use super::key;
use crate::clock::Timestamp;
use crate::credential::imported_hash::KnownDigests;
use crate::key::{CreditBalance, Credits, Key, KeyId, NetworkId, Refill, RefillInterval, RefillSchedule};
use crate::store::{KeyChange, NewKey, Store, Successor};
use uuid::Uuid;

/// Gives a key credits, and spends, changes, shares and deletes them.
pub(super) async fn use_credits(store: &Store, now: Timestamp) {
    let network = NetworkId::SINGLE;
    let schedule = RefillSchedule::parse(RefillInterval::Day, "").unwrap();
    let refill = Some(Refill { amount: 2, schedule });
    let id = |number: u128| KeyId::Issued(Uuid::from_u128(number));
    let credits = Some(Arc::new(Credits::new(id(1), CreditBalance { remaining: 2, refill, due: None }, now)));
    let first = Key { id: id(1), created: now, updated: now, credits, ..key(7, now) };
    let successor = Key { id: id(2), ..first.clone() };
    store
        .insert_keys(vec![NewKey { key: first, request: None, digests: KnownDigests::default() }], None)
        .await
        .unwrap();
    let cost = async |cost: u32| store.spend_credits(network, id(1), cost, now).await.unwrap().unwrap();
    assert!(cost(1).await.allowed && !cost(2).await.allowed);
    let rotate = move |old: &Key| {
        let key = Key { credits: old.credits.clone(), ..successor.clone() };
        let successor = Some(Successor { key, quota: None, request: None });
        Ok::<_, ()>(KeyChange { key: old.clone(), successor })
    };
    store.change_key(network, id(1), now, rotate).await.unwrap();
    let take_away =
        |old: &Key| Ok::<_, ()>(KeyChange { key: Key { credits: None, ..old.clone() }, successor: None });
    store.change_key(network, id(1), now, take_away).await.unwrap();
    assert!(cost(1).await.allowed, "the successor has them");
    store.change_key(network, id(2), now, take_away).await.unwrap();
    assert_eq!(store.spend_credits(network, id(1), 1, now).await.unwrap(), None);
    store.delete_keys(network, vec![id(1), id(2)], now, None).await.unwrap();
}
