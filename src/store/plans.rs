//! Plans of all statements: on a filled table, each reads an index and not the table.
//!
//! SQLite always; PostgreSQL and MariaDB if `TALOS_TEST_POSTGRES` and `TALOS_TEST_MARIADB` name
//! them. `TALOS_TEST_PLAN_ROWS` is the number of keys; from a million on, times are checked, too.

mod credits;
mod finding;
mod usage;

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor, Row};
use tokio::time::Instant;
use uuid::Uuid;

use super::dialect::Dialect;
use super::driver;
use super::keys::insert_rows;
use super::mutations::log_mutations;
use super::transaction::End;
use super::{
    ActorDeletion, ActorLimit, AuditHead, FeedRequest, FeedStart, Filter, HashUpgrade, IdempotencyKey,
    KeyChange, LogStart, MAX_SIGNED_COUNT, NewKey, Order, OrderBy, PageRequest, PollTiming, SignedBy, Store,
    Successor, TrimLimit,
};
use crate::clock::{Clock, Timestamp};
use crate::credential::imported_hash::{DigestIds, KnownDigests};
use crate::credential::page_token::Cursor;
use crate::key::{
    Actor, ActorId, AddressList, Key, KeyId, KeyKind, KeyName, KeyPrefix, NetworkId, Provenance, Revocation,
    SecretId, Signer, Status, Suspensions, Visibility,
};
use crate::rng::Rng;

/// Number of keys unless a variable says another.
const DEFAULT_ROWS: u128 = 20_000;
/// Number of entries of the log.
const LOG_ENTRIES: usize = 20_000;
/// Number of keys from which on times are checked.
const ROWS_FOR_TIMES: u128 = 1_000_000;
/// Time of a first page.
const PAGE_TIME: Duration = Duration::from_millis(30);
/// Most keys that MySQL may sort for a page.
const MAX_SORTED: u64 = 1_000;
const SECRETS: [SecretId; 2] = [SecretId::new([1; 8]), SecretId::new([2; 8])];

fn rows() -> u128 {
    std::env::var("TALOS_TEST_PLAN_ROWS").map_or(DEFAULT_ROWS, |rows| rows.parse().unwrap())
}

/// A key of an actor with many keys or of one with few, in any state.
fn key(number: u128, now: Timestamp) -> Key {
    let hour = Duration::from_secs(3_600);
    let created = now.minus(hour * 1_000).plus(Duration::from_millis(u64::try_from(number).unwrap()));
    let (revoked, expired, superseded) = (number % 20 == 1, number % 20 == 2, number % 50 == 3);
    let signer = match number % 10 {
        0 => Signer::default(),
        1 => Signer { secret: Some(SECRETS[1]), prefix: KeyPrefix::parse("old_ak") },
        _ => Signer { secret: Some(SECRETS[0]), prefix: KeyPrefix::parse("ory_ak") },
    };
    let actor =
        if number.is_multiple_of(2) { "service".to_owned() } else { format!("user:{}", number % 1_000) };
    Key {
        network: NetworkId::SINGLE,
        id: KeyId::Issued(Uuid::from_u128(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))),
        name: KeyName::parse(&format!("Name {number}")).unwrap(),
        actor: ActorId::parse(&actor).unwrap(),
        scopes: finding::scopes(number),
        metadata: finding::metadata(number),
        visibility: Visibility::Secret,
        addresses: AddressList::default(),
        rate_policy: None,
        rate_policies: crate::key::RatePolicies::default(),
        actor_limits: crate::key::RatePolicies::default(),
        credits: None,
        created,
        updated: created,
        expires: if expired { Some(now.minus(hour)) } else { finding::expiry(number, now) },
        superseded: superseded.then(|| now.minus(hour)),
        unused_grace: None,
        revocation: revoked.then(|| Box::new(Revocation::SUPERSEDED)),
        suspensions: Suspensions::default(),
        provenance: Provenance::default().into(),
        last_used: finding::last_use(number, now),
        mutation: 0,
        signer,
    }
}

/// Fills the table and the log.
async fn fill(store: &Store, now: Timestamp) {
    for _ in 0..LOG_ENTRIES / 2_000 {
        let changes = vec![(NetworkId::SINGLE, KeyId::Imported([7; 32]), now); 2_000];
        let log = async move |inner: std::sync::Arc<super::Inner>| {
            inner
                .write(changes, |inner, transaction, changes| {
                    async move { Ok(End::Commit(log_mutations(inner, transaction, changes).await?)) }.boxed()
                })
                .await
        };
        store.run(log).await.unwrap();
    }
    let numbers: Vec<u128> = (1..=rows()).collect();
    for chunk in numbers.chunks(2_000) {
        let keys: Vec<_> = chunk
            .iter()
            .map(|at| NewKey { key: key(*at, now), request: None, digests: Default::default() })
            .collect();
        let insert = async move |inner: std::sync::Arc<super::Inner>| {
            inner
                .write(keys, |inner, transaction, keys| {
                    async move { Ok(End::Commit(insert_rows(inner, transaction, keys).await?)) }.boxed()
                })
                .await
        };
        store.run(insert).await.unwrap();
    }
}

/// Returns every combination of filters.
fn filters() -> Vec<Filter> {
    let mut filters = vec![Filter::default()];
    let statuses = [None, Some(Status::Active), Some(Status::Revoked), Some(Status::Expired)];
    filters = filters
        .iter()
        .flat_map(|filter| statuses.map(|status| Filter { status, ..filter.clone() }))
        .collect();
    let actors = [None, Some("service"), Some("user:7")];
    filters = filters
        .iter()
        .flat_map(|filter| actors.map(|actor| Filter { actor: actor.map(str::to_owned), ..filter.clone() }))
        .collect();
    let secrets = || {
        let two = vec![Some(SECRETS[1]), Some(SECRETS[0])];
        [None, Some(vec![Some(SECRETS[0])]), Some(two), Some(vec![None])]
    };
    filters = filters
        .iter()
        .flat_map(|filter| secrets().map(|secrets| Filter { secrets, ..filter.clone() }))
        .collect();
    let prefixes = [None, KeyPrefix::parse("ory_ak")];
    filters.iter().flat_map(|filter| prefixes.map(|prefix| Filter { prefix, ..filter.clone() })).collect()
}

/// Lists with every combination of filters; returns the slowest and what it asked for.
async fn list_all(store: &Store, now: Timestamp) -> (Duration, String) {
    let last = key(rows() / 2, now);
    let cursor = Cursor { created: last.created, key_id: last.id.to_string() };
    let tries = if rows() < ROWS_FOR_TIMES { 1 } else { 3 };
    let mut slowest = (Duration::ZERO, String::new());
    let orders = [false, true].map(|is_descending| Order { by: OrderBy::Created, is_descending });
    let pages = orders.map(|order| [None, Some(cursor.clone())].map(|after| (order, after)));
    for filter in filters() {
        for (order, after) in pages.as_flattened() {
            let (filter, after) = (filter.clone(), after.clone());
            let request = PageRequest { filter, order: *order, after, size: 50, ..PageRequest::default() };
            let asked = format!("{request:?}");
            let mut best = Duration::MAX;
            for _ in 0..tries {
                let start = Instant::now();
                store.list_keys(NetworkId::SINGLE, KeyKind::Issued, request.clone(), now).await.unwrap();
                best = best.min(start.elapsed());
            }
            if best > slowest.0 {
                slowest = (best, asked);
            }
        }
    }
    slowest
}

/// Calls every operation of the store once.
async fn use_everything(store: &Store, now: Timestamp) {
    let network = NetworkId::SINGLE;
    store.ping().await.unwrap();
    store.prepare_lookups().await.unwrap();
    let ids = (1..=40).map(|number| store.find_key(network, key(number, now).id));
    assert!(join_all(ids).await.iter().all(|found| found.as_ref().unwrap().key.is_some()));
    for by in [SignedBy::Secret, SignedBy::Prefix] {
        assert!(store.count_signed(by).await.unwrap().len() >= 3);
    }
    let unknown = key(10, now);
    let signer = Signer { secret: Some(SECRETS[0]), prefix: KeyPrefix::parse("ory_ak") };
    store.record_signers(vec![(network, unknown.id, signer)]).await.unwrap();
    store.record_last_used(vec![(network, unknown.id, now)], now).await.unwrap();
    let found = store.find_key(network, unknown.id).await.unwrap().key.unwrap();
    assert_eq!((found.signer, found.last_used), (signer, Some(now)));

    let new = |number: u128| Key { created: now, ..key(rows() + number, now) };
    let request = IdempotencyKey { id: "request".to_owned(), fingerprint: "hash".to_owned(), seal: None };
    let issued = NewKey { key: new(1), request: Some(request), digests: Default::default() };
    let imported = NewKey {
        key: Key { id: KeyId::Imported([9; 32]), ..new(2) },
        request: None,
        digests: Default::default(),
    };
    store.insert_keys(vec![issued, imported], Some(u64::MAX)).await.unwrap();
    store.adopt_keys(vec![new(3)], now, false).await.unwrap();
    let successor = new(4);
    let change = move |old: &Key| {
        let successor = Some(Successor { key: successor.clone(), quota: Some(u64::MAX >> 1), request: None });
        Ok::<_, ()>(KeyChange { key: old.clone(), successor })
    };
    store.change_key(network, unknown.id, now, change).await.unwrap();
    let longer = move |old: &Key| {
        Ok::<_, ()>(KeyChange { key: Key { expires: Some(now), ..old.clone() }, successor: None })
    };
    store.change_key(network, unknown.id, now, longer).await.unwrap();
    store.extend_graces(vec![(network, unknown.id, now)]).await.unwrap();
    use_actors(store, network, now).await;
    use_hashes(store, network, now).await;
    assert_eq!(store.delete_keys(network, vec![new(3).id, new(5).id], now, None).await.unwrap().len(), 1);

    store.newest_number().await.unwrap();
    let second = Duration::from_secs(1);
    let timing = PollTiming { lease: second * 5, interval: second };
    for start in [LogStart::At(0), LogStart::Since(second)] {
        let deadline = Instant::now() + second * 5;
        store.read_log(start, &Clock::system(), timing, deadline).await.unwrap();
    }
    for start in [FeedStart::Oldest, FeedStart::Now, FeedStart::Since(now), FeedStart::After(1, None)] {
        store.read_feed(FeedRequest { network, start, max_events: 10 }).await.unwrap().unwrap();
    }
    let limit = TrimLimit { retention: second, old: Some(1), seen_at_start: 1, now: now.plus(second) };
    store.trim_mutations(limit).await.unwrap();
    for lines in [1, 2] {
        let (chain, instance) = ("chain".to_owned(), "instance".to_owned());
        let head = AuditHead { chain, instance, lines, mac: [1; 32], seal: [2; 32] };
        store.save_audit_head(head, now).await.unwrap();
    }
    store.audit_head_of("instance").await.unwrap();
    store.audit_head_of_chain("chain").await.unwrap();
}

/// Imports a hash, finds it and upgrades its key.
async fn use_hashes(store: &Store, network: NetworkId, now: Timestamp) {
    let digests = DigestIds::of(network, "raw key");
    let id = digests.sha256;
    let known = KnownDigests { sha256: Some(id), sha512: None };
    let one = Key { id, created: now, ..key(rows() + 10, now) };
    let sha512 = KnownDigests { sha256: None, sha512: Some(KeyId::Imported([8; 32])) };
    let other = Key { id: KeyId::Imported([8; 32]), created: now, ..key(rows() + 11, now) };
    let new = [(one, known), (other, sha512)];
    let new = new.map(|(key, digests)| NewKey { key, request: None, digests });
    store.insert_keys(new.to_vec(), None).await.unwrap();
    let to = KeyId::Imported([7; 32]);
    let find = || store.find_presented(network, to, Some(digests));
    assert_eq!(find().await.unwrap().key.unwrap().id, id);
    let upgrade = HashUpgrade { network, from: id, to, digests, now };
    assert_eq!(store.upgrade_hash(upgrade).await.unwrap().len(), 2);
    assert_eq!(find().await.unwrap().key.unwrap().id, to);
    assert_eq!(store.current_id(network, id).await.unwrap(), Some(to));
}

/// Calls every operation on actors once.
async fn use_actors(store: &Store, network: NetworkId, now: Timestamp) {
    let id = key(7, now).actor;
    for name in ["a", "b"] {
        let named = move |actor: &Actor| Actor { display_name: KeyName::parse(name).ok(), ..actor.clone() };
        store.change_actor(network, id.clone(), now, named).await.unwrap();
    }
    assert!(store.find_actor(network, id.clone()).await.unwrap().recorded.is_some());
    let ids = [id.clone(), ActorId::parse("nobody").unwrap()].into();
    assert_eq!(store.find_recorded_actors(network, ids).await.unwrap().len(), 1);
    assert_eq!(store.count_actor_keys(network, id.clone(), 5).await.unwrap().issued, 5);
    for visibility in [None, Some(Visibility::Secret)] {
        let limit = ActorLimit { policy: "few".to_owned(), visibility, most: 5 };
        assert!(store.is_at_limit(network, id.clone(), limit, now).await.unwrap());
    }
    let delete = async |id| store.delete_actor(network, id, now, None).await.unwrap();
    assert_eq!(delete(id).await, ActorDeletion::HasKeys);
    assert_eq!(delete(ActorId::parse("nobody").unwrap()).await, ActorDeletion::NotRecorded);
}

/// Replaces placeholders by values that exist, as not every database explains a statement without.
fn with_literals(text: &str, now: Timestamp) -> String {
    let some = key(7, now);
    let mut parts = text.split('$');
    let mut literal = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|digit: char| digit.is_ascii_digit());
        let before = literal.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ')');
        let before = before.trim_end_matches(')');
        // In a list, what stands before is a value.
        let column = match literal.rsplit_once(" IN (") {
            Some((column, list)) if !list.contains(')') => column,
            _ => before,
        };
        let column =
            column.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        // The first part of a position is a time.
        let is_row = [" > (", " >= (", " < (", " <= ("].iter().any(|sign| literal.ends_with(sign));
        let column = if is_row { "created_at" } else { column };
        literal += &match column {
            "network_id" => format!("'{}'", some.network),
            "key_id" | "credits_id" => format!("'{}'", some.id),
            "actor_id" | "BINARY" => format!("'{}'", some.actor.as_str()),
            "secret_id" => format!("'{}'", SECRETS[1]),
            "key_prefix" => "'old_ak'".to_owned(),
            "LIMIT" if text.contains("SELECT 1 AS one") => MAX_SIGNED_COUNT.to_string(),
            "LIMIT" => "51".to_owned(),
            "OFFSET" => "0".to_owned(),
            // After a COALESCE: the number that stands for no time.
            "1" | "9223372036854775807" => now.as_micros().to_string(),
            "terms_at" | "THEN" | "kind" | "n" | "hashes" | "mutation" | "live" | "recounts"
            | "remaining" | "holders" => "1".to_owned(),
            "created_at" => some.created.as_micros().to_string(),
            "unused_grace" | "grace_limit_at" | "ELSE" => now.as_micros().to_string(),
            "expires_at" | "superseded_at" | "last_used_at" | "updated_at" | "due_at" | "END" | "hour_at"
            | "day_at" | "at" | "refill_due_at" | "settled_at" | "recounted_at" | "line_count"
            | "rate_quota" | "rate_window" => now.as_micros().to_string(),
            _ => "'x'".to_owned(),
        };
        literal += rest;
    }
    literal
}

/// Returns the plan of a statement, as the database tells it.
async fn explain(connection: &mut AnyConnection, dialect: Dialect, statement: &str) -> String {
    let explain = match dialect {
        Dialect::Sqlite => "EXPLAIN QUERY PLAN",
        Dialect::Postgres | Dialect::Cockroach => "EXPLAIN",
        Dialect::MySql => "EXPLAIN FORMAT=JSON",
    };
    let rows = connection.fetch_all(AssertSqlSafe(format!("{explain} {statement}"))).await;
    let rows = rows.unwrap_or_else(|error| panic!("{statement}: {error}"));
    let column = if dialect == Dialect::Sqlite { 3 } else { 0 };
    let text = |row: &AnyRow| match row.try_get::<String, _>(column) {
        Ok(text) => text,
        // Some servers return texts as bytes.
        Err(_) => String::from_utf8(row.try_get(column).unwrap()).unwrap(),
    };
    rows.iter().map(text).collect::<Vec<_>>().join("\n")
}

/// Returns what is wrong with a plan: it reads a whole table, of keys or the log, or sorts a page.
fn fault(dialect: Dialect, statement: &str, plan: &str) -> Option<&'static str> {
    let whole = |table: &str| match dialect {
        Dialect::Sqlite => plan.lines().any(|line| {
            let scans = line.trim_start().starts_with("SCAN") && line.contains(table);
            // The log is also read from an end.
            scans && !(table == "mutation_log" && line.contains("USING"))
        }),
        Dialect::Postgres | Dialect::Cockroach => plan.contains(&format!("Seq Scan on {table}")),
        Dialect::MySql => plan.split("\"table\":").skip(1).any(|part| {
            let part = part.split("\"table_name\"").nth(1).unwrap_or_default();
            let of_it = part.trim_start_matches([':', ' ']).starts_with(&format!("\"{table}\""));
            of_it
                && (part.contains("\"access_type\": \"ALL\"")
                    || (table == "api_keys" && part.contains("\"access_type\": \"index\""))
                    || !part.contains("\"key\":"))
        }),
    };
    let usage = ["usage_hours", "usage_days", "usage_keys"];
    if ["api_keys", "key_terms", "mutation_log"].into_iter().chain(usage).any(whole) {
        return Some("reads a whole table");
    }
    let is_page = ["created_at", "expires_at", "last_used_at"]
        .iter()
        .any(|column| statement.contains(&format!("ORDER BY {column}")));
    // Few keys are due, as sweeps record their states.
    let is_due = statement.contains(&format!("{} <= ", dialect.due_at()));
    if is_page && is_due && dialect != Dialect::Postgres && !plan.contains("api_keys_by_due") {
        return Some("reads more than what is due");
    }
    let sorts = match dialect {
        Dialect::Sqlite => plan.contains("TEMP B-TREE"),
        Dialect::Postgres | Dialect::Cockroach => plan.contains("Sort"),
        // MySQL sorts the few keys of an actor rather than read an index in order.
        Dialect::MySql => plan.contains("filesort") && most_rows(plan) > MAX_SORTED,
    };
    (is_page && !is_due && sorts).then_some("sorts a page")
}

/// Returns the largest number of rows that MySQL expects to read.
fn most_rows(plan: &str) -> u64 {
    let numbers = plan.split("\"rows\": ").skip(1);
    let digits = numbers.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
    digits.filter_map(|digits| digits.parse().ok()).max().unwrap_or(u64::MAX)
}

async fn check_plans(dsn: &str) {
    let store = Store::open(dsn, Rng::seeded(1)).await.unwrap();
    let (dialect, now) = (store.0.dialect, Clock::system().now());
    fill(&store, now).await;
    use_everything(&store, now).await;
    // By the clock of now: what is inserted may not be older than the skew that is borne.
    credits::use_credits(&store, Clock::system().now()).await;
    let keys: Vec<Key> = (40..80).map(|number| key(number, now)).collect();
    usage::use_usage(&store, &keys, now).await;
    while store.sweep_states(now).await.unwrap() > 0 {}
    let mut connection = AnyConnection::connect(dsn).await.unwrap();
    match dialect {
        // SQLite has no statistics to gather.
        Dialect::Sqlite => {}
        Dialect::Postgres | Dialect::Cockroach => {
            connection.execute("VACUUM ANALYZE").await.unwrap();
        }
        Dialect::MySql => {
            connection
                .execute(
                    "ANALYZE TABLE api_keys, key_terms, mutation_log, usage_hours, usage_days, usage_keys",
                )
                .await
                .unwrap();
        }
    }
    let (slowest, asked) = list_all(&store, now).await;
    println!("{dialect:?}, {} keys: the slowest page took {slowest:?}: {asked}", rows());
    if rows() >= ROWS_FOR_TIMES {
        assert!(slowest <= PAGE_TIME, "{slowest:?}: {asked}");
    }
    finding::find_all(&store, now).await;
    let statements = store.0.statements.lock().clone();
    let mut faults = vec![];
    let mut count = 0;
    let has_plan = |statement: &&String| !statement.starts_with("INSERT") && *statement != "ANALYZE";
    for statement in statements.iter().filter(has_plan) {
        let literal = with_literals(statement, now);
        let settings = dialect.plan_settings().filter(|_| finding::is_planned(statement));
        if let Some(settings) = settings {
            connection.execute(AssertSqlSafe(format!("BEGIN; {settings}"))).await.unwrap();
        }
        let plan = explain(&mut connection, dialect, &literal).await;
        if settings.is_some() {
            connection.execute("ROLLBACK").await.unwrap();
        }
        count += 1;
        if let Some(fault) = fault(dialect, statement, &plan) {
            faults.push(format!("{fault}:\n{literal}\n{plan}\n"));
        }
    }
    assert!(count > 60, "{count} statements");
    assert!(faults.is_empty(), "{dialect:?}: {}\n{}", faults.len(), faults.join("\n"));
    connection.close().await.unwrap();
    store.close().await;
}

/// Runs the check in a new database of a server.
async fn check_on_server(variable: &str, administration: &str) {
    let Ok(server) = std::env::var(variable) else {
        return;
    };
    driver::install();
    let name = format!("plans_{}", Uuid::new_v4().simple());
    let mut connection = AnyConnection::connect(&format!("{server}{administration}")).await.unwrap();
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let dsn = format!("{server}/{name}");
    Store::migrate_up(&dsn).await.unwrap();
    check_plans(&dsn).await;
    connection.execute(AssertSqlSafe(format!("DROP DATABASE {name}"))).await.unwrap();
}

#[tokio::test]
async fn every_statement_uses_an_index_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    check_plans(&format!("sqlite://{}/talos.db", directory.path().display())).await;
}

#[tokio::test]
async fn every_statement_uses_an_index_on_postgresql() {
    check_on_server("TALOS_TEST_POSTGRES", "/postgres").await;
}

#[tokio::test]
async fn every_statement_uses_an_index_on_mariadb() {
    check_on_server("TALOS_TEST_MARIADB", "").await;
}
