//! Every condition and order of lists in the filled tables: their times, and that no page reads
//! more than its bound.

use std::time::Duration;

use tokio::time::Instant;

use super::{PAGE_TIME, ROWS_FOR_TIMES, key, rows};
use crate::clock::Timestamp;
use crate::key::{KeyKind, Metadata, NetworkId, Scopes, Status};
use crate::store::dialect::Dialect;
use crate::store::{
    Conditions, Filter, NEVER_EXPIRES, NameFilter, Order, OrderBy, PageRequest, Store, TimeRange,
};

/// Hour of a key in the future or past, by its number.
const HOUR_MICROS: i64 = 3_600_000_000;

/// Returns the scopes of a key: one that a third of the keys have, and a rare one.
pub(super) fn scopes(number: u128) -> Scopes {
    let mut scopes = vec![];
    scopes.extend(number.is_multiple_of(3).then_some("orders:read"));
    scopes.extend((number % 5_000 == 7).then_some("orders:delete"));
    Scopes::parse(&scopes).unwrap()
}

/// Returns the metadata of a key: half the keys have a team, and one of a thousand a ticket.
pub(super) fn metadata(number: u128) -> Option<Metadata> {
    let json = match (number.is_multiple_of(2), number % 1_000 == 6) {
        (true, true) => format!(r#"{{"team":"Team {}","ticket":{number}}}"#, number % 7),
        (true, false) => format!(r#"{{"team":"Team {}"}}"#, number % 7),
        _ => return None,
    };
    Metadata::from_json(json)
}

/// Returns the expiry of a key that hasn't expired.
pub(super) fn expiry(number: u128, now: Timestamp) -> Option<Timestamp> {
    let hours = i64::try_from(number % 9_973).unwrap() + 1;
    number.is_multiple_of(4).then(|| Timestamp::from_micros(now.as_micros() + hours * HOUR_MICROS))
}

/// Returns the last use of a key.
pub(super) fn last_use(number: u128, now: Timestamp) -> Option<Timestamp> {
    let hours = i64::try_from(number % 997).unwrap() + 1;
    (!number.is_multiple_of(5)).then(|| Timestamp::from_micros(now.as_micros() - hours * HOUR_MICROS))
}

/// Returns true for statements that run with the planner's settings.
pub(super) fn is_planned(statement: &str) -> bool {
    ["found_id", "found_count", "reached_at", "OFFSET 0)"].iter().any(|name| statement.contains(name))
}

fn more(more: Conditions) -> Filter {
    Filter { more: Box::new(more), ..Filter::default() }
}

/// Returns conditions that many keys match, few, and none, each with a name.
fn filters(now: Timestamp) -> Vec<(String, Filter)> {
    let now = now.as_micros();
    let mut filters = vec![("none".to_owned(), Filter::default())];
    let mut add = |name: &str, filter: Filter| filters.push((name.to_owned(), filter));
    for status in Status::ALL {
        add(status.name(), Filter { status: Some(status), ..Filter::default() });
    }
    for actor in ["service", "user:7", "nobody"] {
        add(&format!("actor {actor}"), Filter { actor: Some(actor.to_owned()), ..Filter::default() });
    }
    for name in ["Name 1", "name 123", "nothing"] {
        let start = NameFilter::StartsWith(name.to_owned());
        add(&format!("name {name}*"), more(Conditions { name: Some(start), ..Conditions::default() }));
    }
    let exact = NameFilter::Is("name 777".to_owned());
    add("name name 777", more(Conditions { name: Some(exact), ..Conditions::default() }));
    for scope in ["orders:read", "orders:delete", "nothing"] {
        let scopes = vec![scope.to_owned()];
        add(&format!("scope {scope}"), more(Conditions { scopes, ..Conditions::default() }));
    }
    for (path, value) in [("team", "Team 3"), ("ticket", "2006"), ("team", "nothing")] {
        let metadata = vec![(path.to_owned(), value.to_owned())];
        add(&format!("{path} = {value}"), more(Conditions { metadata, ..Conditions::default() }));
    }
    let within = |from, until| TimeRange { from, until };
    for (name, range) in [
        ("soon", within(Some(now), Some(now + 10 * HOUR_MICROS))),
        ("before", within(None, Some(now + 5_000 * HOUR_MICROS))),
        ("never", within(Some(NEVER_EXPIRES), None)),
        ("long ago", within(None, Some(now - 1_000 * HOUR_MICROS))),
    ] {
        add(&format!("expires {name}"), more(Conditions { expires: range, ..Conditions::default() }));
    }
    for (name, range) in [
        ("lately", within(Some(now - 2 * HOUR_MICROS), None)),
        ("before", within(None, Some(now - 500 * HOUR_MICROS))),
        ("never", within(None, Some(0))),
        ("long ago", within(Some(0), Some(now - 2_000 * HOUR_MICROS))),
    ] {
        add(&format!("used {name}"), more(Conditions { last_used: range, ..Conditions::default() }));
    }
    let first = now - 1_000 * HOUR_MICROS;
    for (name, range) in
        [("one second", within(Some(first), Some(first + 1_000_000))), ("all", within(Some(0), None))]
    {
        add(&format!("created {name}"), Filter { created: range, ..Filter::default() });
    }
    for text in ["name 12", "USER:77", "3f", "team 2", "nothing"] {
        let search = Some(text.to_owned());
        add(&format!("search {text}"), more(Conditions { search, ..Conditions::default() }));
    }
    filters
}

/// Returns conditions together, two by two.
fn pairs(filters: &[(String, Filter)]) -> Vec<(String, Filter)> {
    let mut pairs = vec![];
    for (at, (name, one)) in filters.iter().enumerate() {
        for (other_name, other) in filters.iter().skip(at + 1).step_by(3) {
            let (mine, theirs) = (&one.more, &other.more);
            let both = Filter {
                actor: one.actor.clone().or_else(|| other.actor.clone()),
                status: one.status.or(other.status),
                created: if one.created.is_bounded() { one.created } else { other.created },
                more: Box::new(Conditions {
                    name: mine.name.clone().or_else(|| theirs.name.clone()),
                    scopes: mine.scopes.iter().chain(&theirs.scopes).cloned().collect(),
                    metadata: mine.metadata.iter().chain(&theirs.metadata).cloned().collect(),
                    expires: if mine.expires.is_bounded() { mine.expires } else { theirs.expires },
                    last_used: if mine.last_used.is_bounded() { mine.last_used } else { theirs.last_used },
                    search: mine.search.clone().or_else(|| theirs.search.clone()),
                }),
                ..Filter::default()
            };
            pairs.push((format!("{name}, {other_name}"), both));
        }
    }
    pairs
}

/// Asks for the first and for the thousandth page of every filter and order, prints their times,
/// and checks them if there are enough keys.
pub(super) async fn find_all(store: &Store, now: Timestamp) {
    let dialect = store.0.dialect;
    let single = filters(now);
    let pairs = pairs(&single);
    let by = [OrderBy::Created, OrderBy::Expires, OrderBy::LastUsed];
    let orders = by.map(|by| [false, true].map(|is_descending| Order { by, is_descending }));
    let mut faults = vec![];
    println!("{dialect:?}, {} keys: first and thousandth page, ms", rows());
    for (index, (name, filter)) in single.iter().chain(&pairs).enumerate() {
        for order in orders.as_flattened() {
            let position = order.by.position(&key(rows() / 20, now));
            let mut times = vec![];
            for after in [None, Some(position)] {
                let (filter, order) = (filter.clone(), *order);
                let request = PageRequest { filter, order, after, size: 50, ..PageRequest::default() };
                times.push(time(store, &request, now).await);
            }
            let line = format!(
                "{:>6.1} {:>6.1}  {:?}{}  {name}",
                times[0].as_secs_f64() * 1e3,
                times[1].as_secs_f64() * 1e3,
                order.by,
                if order.is_descending { " desc" } else { "" }
            );
            if index < single.len() {
                println!("{line}");
            }
            if times.iter().any(|time| *time > PAGE_TIME) {
                faults.push(line);
            }
        }
        store.count_keys(NetworkId::SINGLE, KeyKind::Issued, filter.clone(), now).await.unwrap();
    }
    println!(
        "{dialect:?}: {} more filters, of two conditions; {} pages took longer than {PAGE_TIME:?}",
        pairs.len(),
        faults.len()
    );
    while store.index_terms().await.unwrap() > 0 {}
    // The other databases have no promised bound.
    let has_bound = matches!(dialect, Dialect::Sqlite | Dialect::Postgres);
    if rows() >= ROWS_FOR_TIMES && has_bound {
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

/// Returns the best time of a page.
async fn time(store: &Store, request: &PageRequest, now: Timestamp) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..if rows() < ROWS_FOR_TIMES { 1 } else { 3 } {
        let start = Instant::now();
        store.list_keys(NetworkId::SINGLE, KeyKind::Issued, request.clone(), now).await.unwrap();
        best = best.min(start.elapsed());
    }
    best
}
