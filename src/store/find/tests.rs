//! Lists of keys against a plain reading of filter and order, over random keys.

use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};
use uuid::Uuid;

use super::*;
use crate::credential::imported_hash::KnownDigests;
use crate::key::{
    ActorId, AddressList, KeyId, KeyName, KeyPrefix, Metadata, Provenance, RatePolicies, Revocation, Scopes,
    SecretId, Signer, Suspensions, Visibility,
};
use crate::rng::Rng;
use crate::store::driver;
use crate::store::filter::{Conditions, NEVER_EXPIRES, NEVER_USED};
use crate::store::keys::insert_rows;
use crate::store::transaction::End;
use crate::store::{ChangeOutcome, KeyChange, NewKey};

const NETWORK: NetworkId = NetworkId::SINGLE;
/// Keys of a world.
const KEYS: u16 = 300;
/// Lists of a world.
const LISTS: usize = 120;
const NOW: i64 = 1_000_000_000_000;

struct World {
    store: Store,
    rng: Rng,
    keys: Vec<Key>,
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

impl World {
    async fn new(dsn: &str, seed: u64) -> Self {
        let store = Store::open(dsn, Rng::seeded(1)).await.unwrap();
        let mut world = Self { store, rng: Rng::seeded(seed), keys: vec![] };
        for _ in 0..KEYS {
            let key = world.key();
            world.keys.push(key);
        }
        let new: Vec<_> = world
            .keys
            .iter()
            .map(|key| NewKey { key: key.clone(), request: None, digests: KnownDigests::default() })
            .collect();
        let insert = async move |inner: Arc<Inner>| {
            inner
                .write(new, |inner, transaction, new| {
                    async move { Ok(End::Commit(insert_rows(inner, transaction, new).await?)) }.boxed()
                })
                .await
        };
        world.store.run(insert).await.unwrap();
        world
    }

    fn below(&mut self, end: u16) -> u16 {
        u16::from_be_bytes(self.rng.bytes()) % end
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        let end = u16::try_from(of.len()).unwrap();
        of[usize::from(self.below(end))]
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.below(3).eq(&0).then(|| make(self))
    }

    /// A time of which several keys have the same.
    fn time(&mut self) -> i64 {
        NOW - 20 + i64::from(self.below(40))
    }

    fn name(&mut self) -> String {
        self.one(&["backend", "Backend 2", "BACK_%", "bäck", "Zoe", "ory", "zöe", "zo\\e", "a"]).to_owned()
    }

    fn scopes(&mut self) -> Vec<&'static str> {
        let all = ["orders:read", "orders:*", "Orders:read", "orders:rea", "admin"];
        all.into_iter().filter(|_| self.below(3) == 0).collect()
    }

    fn metadata(&mut self) -> Option<String> {
        let team = self.one(&["blue", "Blue", "blues", "a\\\"b", "green \\u0000"]);
        let number = self.below(3);
        self.maybe(|world| match world.below(3) {
            0 => format!(r#"{{"team":"{team}","n":{number}}}"#),
            1 => format!(r#"{{"deep":{{"team":"{team}"}},"list":["{team}",{number},true]}}"#),
            // Two names whose terms MySQL would take for the same.
            _ => format!(r#"{{"other":"{team}","other ":"{team}"}}"#),
        })
    }

    fn key(&mut self) -> Key {
        let (created, superseded) = (at(self.time()), self.maybe(Self::time).map(at));
        let name = format!("{}{}", self.name(), self.one(&["", " 1", "x"]));
        let actor = self.one(&["alice", "Alice", "bob", "ali"]);
        let metadata =
            self.metadata().map(|json| Metadata::new(serde_json::from_str(&json).unwrap()).unwrap());
        let secret = self.one(&[None, Some(SecretId::new([1; 8])), Some(SecretId::new([2; 8]))]);
        let prefix = secret.and_then(|_| KeyPrefix::parse("ory_ak"));
        Key {
            network: NETWORK,
            id: KeyId::Issued(Uuid::from_bytes(self.rng.bytes())),
            name: KeyName::parse(&name).unwrap(),
            actor: ActorId::parse(actor).unwrap(),
            scopes: Scopes::parse(&self.scopes()).unwrap(),
            metadata,
            visibility: Visibility::Secret,
            addresses: AddressList::default(),
            rate_policy: None,
            rate_policies: RatePolicies::default(),
            actor_limits: RatePolicies::default(),
            credits: None,
            created,
            updated: created,
            expires: self.maybe(Self::time).map(at),
            superseded: superseded.filter(|_| self.below(2) == 0),
            unused_grace: None,
            revocation: self.maybe(|_| Box::new(Revocation::SUPERSEDED)),
            suspensions: Suspensions::default(),
            provenance: Provenance::default().into(),
            last_used: self.maybe(Self::time).map(at),
            mutation: 0,
            signer: Signer { secret, prefix },
        }
    }

    fn range(&mut self) -> TimeRange {
        let bound = |world: &mut Self| world.maybe(Self::time);
        TimeRange { from: bound(self), until: bound(self) }
    }

    fn filter(&mut self) -> Filter {
        let secret = self.one(&[None, Some(SecretId::new([1; 8]))]);
        Filter {
            actor: self.maybe(|world| world.one(&["alice", "Alice", "nobody"]).to_owned()),
            status: self.maybe(|world| world.one(&Status::ALL)),
            secrets: self.maybe(|_| vec![secret]).filter(|_| secret.is_some()),
            prefix: self.maybe(|_| KeyPrefix::parse("ory_ak")).flatten(),
            created: self.range(),
            more: Box::new(self.conditions()),
        }
    }

    fn conditions(&mut self) -> Conditions {
        let never = self.below(4);
        let (expires, last_used) = match never {
            0 => (TimeRange { from: Some(NEVER_EXPIRES), until: None }, self.range()),
            1 => (self.range(), TimeRange { from: None, until: Some(NEVER_USED + 1) }),
            _ => (self.range(), self.range()),
        };
        let one_of =
            |world: &mut Self| world.one(&["BACK", "backend", "zo", "bä", "alice", "blue", "a\"b", "b_"]);
        let start = one_of(self).to_owned();
        let name = match self.below(2) {
            0 => NameFilter::StartsWith(start),
            _ => NameFilter::Is(start),
        };
        let (path, value) =
            self.one(&[("team", "blue"), ("deep.team", "Blue"), ("list", "1"), ("team", "a\"b")]);
        let (scope, text) = (self.one(&["orders:read", "orders:*"]), one_of(self).to_owned());
        Conditions {
            name: self.maybe(|_| name),
            scopes: self.maybe(|_| scope.to_owned()).into_iter().collect(),
            metadata: self.maybe(|_| (path.to_owned(), value.to_owned())).into_iter().collect(),
            expires,
            last_used,
            search: self.maybe(|_| text),
        }
    }

    /// Walks through a list with random sizes of pages, and compares it with the plain reading.
    async fn compare(&mut self) -> usize {
        let filter = match self.below(3) {
            0 => Filter { more: Box::new(self.conditions()), ..Filter::default() },
            1 => Filter { status: self.maybe(|world| world.one(&Status::ALL)), ..Filter::default() },
            _ => self.filter(),
        };
        let by = self.one(&[OrderBy::Created, OrderBy::Expires, OrderBy::LastUsed]);
        let order = Order { by, is_descending: self.below(2) == 0 };
        let max_examined = self.one(&[2, 10, 60, 1_000]);
        let size = u32::from(self.below(30)) + 1;
        let mut expected: Vec<&Key> = self.keys.iter().filter(|key| filter.matches(key, at(NOW))).collect();
        expected.sort_by_cached_key(|key| {
            let position = by.position(key);
            (position.created, position.key_id)
        });
        if order.is_descending {
            expected.reverse();
        }
        let expected: Vec<KeyId> = expected.into_iter().map(|key| key.id).collect();
        let (mut found, mut after, mut pages) = (vec![], None, 0);
        loop {
            let filter = filter.clone();
            let request = PageRequest { filter, order, after, size, max_examined };
            let page = self.store.list_keys(NETWORK, KeyKind::Issued, request, at(NOW)).await.unwrap();
            assert!(page.keys.len() <= usize::try_from(size).unwrap());
            found.extend(page.keys.iter().map(|key| key.id));
            after = page.next;
            pages += 1;
            assert!(pages <= 2 * KEYS + 2, "{order:?}, {max_examined} examined: no end");
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{filter:?} {order:?}, {max_examined} examined, pages of {size}");
        let total = self.store.count_keys(NETWORK, KeyKind::Issued, filter.clone(), at(NOW)).await.unwrap();
        let exact = total.filter(|total| total.is_exact).map(|total| total.count);
        assert!(exact.is_none_or(|count| count == expected.len() as u64), "{filter:?}: {total:?}");
        expected.len()
    }

    async fn compare_all(&mut self, lists: usize) {
        let mut lengths = vec![];
        for _ in 0..lists {
            lengths.push(self.compare().await);
        }
        assert!(lengths.iter().filter(|length| **length > 10).count() > lists / 20, "{lengths:?}");
    }

    async fn due_terms(&self) -> i64 {
        let condition = self.store.0.dialect.are_terms_due();
        self.store.number(format!("SELECT count(*) FROM api_keys WHERE {condition}")).await.unwrap()
    }
}

async fn execute(dsn: &str, statement: &str) {
    let mut connection = AnyConnection::connect(dsn).await.unwrap();
    connection.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    connection.close().await.unwrap();
}

async fn check(dsn: &str, seed: u64) {
    let mut world = World::new(dsn, seed).await;
    world.compare_all(LISTS).await;
    // States that time has changed are recorded.
    while world.store.sweep_states(at(NOW + 60_000_000)).await.unwrap() > 0 {}
    world.compare_all(LISTS / 4).await;

    // A change writes the terms of the key.
    for _ in 0..20 {
        let index = usize::from(world.below(KEYS));
        let (scopes, metadata) =
            (Scopes::parse(&world.scopes()).unwrap(), world.keys[index].metadata.clone());
        let change = move |old: &Key| {
            let key = Key { scopes: scopes.clone(), metadata: metadata.clone(), ..old.clone() };
            Ok::<_, ()>(KeyChange { key, successor: None })
        };
        let id = world.keys[index].id;
        match world.store.change_key(NETWORK, id, at(NOW), change).await.unwrap() {
            ChangeOutcome::Done { rows, .. } => world.keys[index] = rows.key,
            _ => panic!("not changed"),
        }
    }
    assert_eq!(world.due_terms().await, 0);
    world.compare_all(LISTS / 4).await;

    // The release before this one writes no terms, and no mark that they are written.
    execute(dsn, "DELETE FROM key_terms WHERE key_id < '8'").await;
    execute(dsn, "UPDATE api_keys SET terms_at = NULL WHERE key_id < '4'").await;
    execute(dsn, "UPDATE api_keys SET mutation = mutation + 1000 WHERE key_id >= '4' AND key_id < '8'").await;
    assert!(world.due_terms().await > 100);
    world.compare_all(LISTS / 4).await;
    while world.store.index_terms().await.unwrap() > 0 {}
    assert_eq!(world.due_terms().await, 0);
    world.compare_all(LISTS / 4).await;

    // Terms are deleted with their key, whoever deletes it.
    execute(dsn, "DELETE FROM api_keys WHERE key_id >= 'c'").await;
    let deleted: Vec<KeyId> =
        world.keys.iter().map(|key| key.id).filter(|id| id.to_string().as_str() >= "8").collect();
    world.store.delete_keys(NETWORK, deleted, at(NOW), None).await.unwrap();
    world.keys.retain(|key| key.id.to_string().as_str() < "8");
    let left = "SELECT count(*) FROM key_terms WHERE key_id >= '8'";
    assert_eq!(world.store.number(left).await.unwrap(), 0);
    let terms: usize = world.keys.iter().map(|key| crate::key::terms::terms_of(key).len()).sum();
    let left = world.store.number("SELECT count(*) FROM key_terms").await.unwrap();
    assert_eq!(usize::try_from(left), Ok(terms));
    world.compare_all(LISTS / 4).await;
    world.store.close().await;
}

async fn check_on_server(variable: &str, administration: &str, seed: u64) {
    let Ok(server) = std::env::var(variable) else {
        return;
    };
    driver::install();
    let name = format!("find_{}", Uuid::new_v4().simple());
    let mut connection = AnyConnection::connect(&format!("{server}{administration}")).await.unwrap();
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let dsn = format!("{server}/{name}");
    Store::migrate_up(&dsn).await.unwrap();
    check(&dsn, seed).await;
    connection.execute(AssertSqlSafe(format!("DROP DATABASE {name}"))).await.unwrap();
}

#[tokio::test]
async fn lists_are_what_a_plain_reading_finds_on_sqlite() {
    for seed in 1..=3 {
        let directory = tempfile::tempdir().unwrap();
        check(&format!("sqlite://{}/talos.db", directory.path().display()), seed).await;
    }
}

#[tokio::test]
async fn lists_are_what_a_plain_reading_finds_on_postgresql() {
    check_on_server("TALOS_TEST_POSTGRES", "/postgres", 4).await;
}

#[tokio::test]
async fn lists_are_what_a_plain_reading_finds_on_mariadb() {
    check_on_server("TALOS_TEST_MARIADB", "", 5).await;
}
