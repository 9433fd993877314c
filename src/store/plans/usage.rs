//! Usage in the filled tables, and every operation on it.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::key::{Key, KeyId, NetworkId};
use crate::store::dialect::Dialect;
use crate::store::transaction::End;
use crate::store::{Inner, KeyUse, Store, UsageGroup, UsageQuery, UsageRow};

/// Hours that are filled.
const HOURS: u64 = 200;
/// Keys that are used in each hour.
const KEYS: usize = 40;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Statements that add a row for each key to each table: small ones would be read as a whole.
const FILLERS: [&str; 3] = [
    "INSERT INTO usage_hours (network_id, hour_at, key_id, route, outcome, process_id, n) \
     SELECT network_id, created_at, key_id, 'filler', 'allow', 'x', 1 FROM api_keys",
    "INSERT INTO usage_days (network_id, day_at, key_id, route, outcome, n) \
     SELECT network_id, created_at, key_id, 'filler', 'allow', 1 FROM api_keys",
    "INSERT INTO usage_keys (network_id, key_id, first_used_at, last_used_at) \
     SELECT network_id, key_id, created_at, created_at FROM api_keys WHERE key_id NOT IN \
     (SELECT key_id FROM usage_keys)",
];

/// Fills the tables of usage, for keys that exist, and calls each operation.
pub(super) async fn use_usage(store: &Store, keys: &[Key], now: Timestamp) {
    let network = NetworkId::SINGLE;
    let start = Timestamp::from_micros(now.as_micros() - now.as_micros() % 86_400_000_000);
    let ids: Vec<KeyId> = keys.iter().take(KEYS).map(|key| key.id).collect();
    let subjects: Vec<_> = ids.iter().map(|id| (network, *id)).collect();
    for hour in 0..HOURS {
        let hour = start.minus(HOUR * u32::try_from(hour).unwrap());
        let row = |id: &KeyId| {
            let (route, key) = (String::new(), id.to_string());
            [UsageRow { network, hour, key, route, outcome: "allow", count: 1 }]
        };
        let rows: Vec<_> = ids.iter().flat_map(row).collect();
        let used = |id: &KeyId| KeyUse { network, key: *id, first: hour, last: hour, address: None };
        let uses = ids.iter().map(used).collect();
        // Twice, as after an answer that was lost.
        for _ in 0..2 {
            let (rows, uses) = (rows.clone(), Vec::clone(&uses));
            let gone = store.save_usage(Uuid::from_u128(1), rows, uses, subjects.clone()).await.unwrap();
            assert!(gone.is_empty());
        }
    }
    if store.0.dialect == Dialect::Postgres {
        // PostgreSQL does this by itself within a minute. Before, its plans are for empty tables,
        // and read a filled one again for each row of another.
        execute(store, &["ANALYZE"]).await;
    }
    let query = |groups: Vec<UsageGroup>| UsageQuery {
        network,
        start: start.minus(HOUR * 10_000),
        end: now,
        key: None,
        actor: None,
        route: None,
        outcome: None,
        groups,
        size: 10,
        offset: 0,
    };
    let all = HOURS * KEYS as u64;
    assert_eq!(sum(store, query(vec![])).await, all);
    // Half of it by day from here on.
    let before = start.minus(HOUR * 100);
    // Several instances roll up at once.
    let roll_up = async || while store.roll_up_usage(before, Duration::ZERO).await.unwrap() > 0 {};
    join_all((0..3).map(|_| roll_up())).await;
    assert_eq!(store.roll_up_usage(before, Duration::ZERO).await.unwrap(), 0);
    assert_eq!(sum(store, query(vec![])).await, all, "moved, not lost or doubled");
    // The second of these days is only half added up.
    let (day, some) = (start.minus(HOUR * 144), HOUR * 13);
    let asked = (day.plus(some), day.plus(HOUR * 24 + some));
    let counted = store.counted_time(network, asked.0, asked.1).await.unwrap();
    assert_eq!(counted, (day, day.plus(HOUR * 48)));
    let of_days = UsageQuery { start: counted.0, end: counted.1, ..query(vec![]) };
    assert_eq!(sum(store, of_days).await, 48 * KEYS as u64);
    let recent = (start.minus(some), now);
    assert_eq!(store.counted_time(network, recent.0, recent.1).await.unwrap(), recent);
    use UsageGroup::{Actor, Day, Hour, Key as ByKey, Outcome, Route};
    for groups in [vec![Day], vec![Hour, ByKey], vec![Actor], vec![Outcome, Route, ByKey, Actor]] {
        store.sum_usage(query(groups)).await.unwrap();
    }
    let (key, actor) = (Some(ids[0].to_string()), Some(keys[0].actor.as_str().to_owned()));
    assert_eq!(sum(store, UsageQuery { key, ..query(vec![]) }).await, HOURS);
    assert!(sum(store, UsageQuery { actor, ..query(vec![]) }).await >= HOURS);
    let (route, outcome) = (Some(String::new()), Some("allow".to_owned()));
    assert_eq!(sum(store, UsageQuery { route, outcome, ..query(vec![]) }).await, all);
    assert_eq!(store.uses_of(network, ids).await.unwrap().len(), KEYS);
    store.trim_usage(before, HOUR * 48).await.unwrap();
    if store.0.dialect != Dialect::Sqlite {
        // One clock is a hundred years ahead.
        let (wrong, keep) = (now.plus(HOUR * 24 * 365 * 100), HOUR * 24 * 365 * 50);
        let deleted =
            (store.roll_up_usage(wrong, keep).await.unwrap(), store.trim_usage(wrong, keep).await.unwrap());
        assert_eq!(deleted, (0, 0), "the database's clock decides");
    }
    execute(store, &FILLERS).await;
}

/// Executes statements in one transaction.
async fn execute(store: &Store, statements: &'static [&'static str]) {
    let execute = async move |inner: std::sync::Arc<Inner>| {
        inner
            .write(statements, |inner, transaction, statements| {
                async move {
                    for statement in *statements {
                        inner.query(*statement).execute(&mut *transaction).await?;
                    }
                    Ok(End::Commit(()))
                }
                .boxed()
            })
            .await
    };
    store.run(execute).await.unwrap();
}

async fn sum(store: &Store, query: UsageQuery) -> u64 {
    let (sums, has_more) = store.sum_usage(query).await.unwrap();
    assert!(!has_more && sums.len() == 1);
    sums[0].count
}
