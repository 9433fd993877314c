//! Tests of the rows of counted Checks, some against a model of the database.

use std::time::Duration;

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use uuid::Uuid;

use super::*;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn key_of(number: u8) -> KeyId {
    KeyId::Issued(Uuid::from_u128(u128::from(number) << 64 | 7))
}

fn check(number: u8, outcome: &'static str) -> CheckKey {
    let (network, key) = (NetworkId::SINGLE, CountedKey::Key(key_of(number)));
    CheckKey { network, key, route: RouteName::default(), outcome, hour: hour_of(START) }
}

fn table(rows: &[(CheckKey, u64)]) -> CheckTable {
    let mut table = CheckTable::default();
    for (key, count) in rows {
        table.entry(*key).or_default().count += count;
    }
    table
}

fn numbers(rows: &UsageRows) -> HashMap<(String, &'static str), u64> {
    rows.unwritten().into_iter().map(|(key, count)| ((key.key.text(), key.outcome), count)).collect()
}

#[test]
fn written_counts_are_written_again_only_once_they_grow() {
    let mut rows = UsageRows::new(10);
    let [one, two] = [check(1, ALLOW), check(2, "expired")];
    rows.merge(table(&[(one, 3), (two, 1)]), START);
    assert_eq!(rows.unwritten().len(), 2);
    rows.set_written(&one, 3);
    rows.set_written(&two, 1);
    assert_eq!(rows.unwritten(), []);
    rows.merge(table(&[(one, 2)]), START);
    assert_eq!(rows.unwritten(), [(one, 5)], "an absolute number");
}

#[test]
fn beyond_the_bound_rows_count_together() {
    let mut rows = UsageRows::new(2);
    let merged = rows.merge(
        (1..=2).map(|n| (check(n, ALLOW), CheckRow { count: 1, ..CheckRow::default() })).collect(),
        START,
    );
    assert_eq!(merged, Merged { checks: 2, overflowed: 0 });
    let merged =
        rows.merge(table(&[(check(3, ALLOW), 4), (check(4, "expired"), 1), (check(1, ALLOW), 1)]), START);
    assert_eq!(merged, Merged { checks: 6, overflowed: 5 });
    let numbers = numbers(&rows);
    assert_eq!(numbers[&(OTHER.to_owned(), ALLOW)], 4);
    assert_eq!(numbers[&(OTHER.to_owned(), "expired")], 1);
    assert_eq!(numbers[&(key_of(1).to_string(), ALLOW)], 2);
}

#[test]
fn an_erased_key_stays_counted_without_its_id() {
    let mut rows = UsageRows::new(10);
    rows.merge(table(&[(check(1, ALLOW), 3), (check(1, "expired"), 2), (check(2, ALLOW), 1)]), START);
    rows.set_written(&check(1, ALLOW), 3);
    rows.erase((NetworkId::SINGLE, key_of(1)));
    let numbers = numbers(&rows);
    assert_eq!(numbers[&(String::new(), ALLOW)], 3);
    assert_eq!(numbers[&(String::new(), "expired")], 2);
    assert!(!numbers.keys().any(|(key, _)| *key == key_of(1).to_string()));
    assert_eq!(rows.unwritten_uses(Duration::ZERO).len(), 1);
}

#[test]
fn what_is_not_written_of_a_key_goes_on_under_its_current_id() {
    let mut rows = UsageRows::new(10);
    rows.merge(table(&[(check(1, ALLOW), 10), (check(2, ALLOW), 1)]), START);
    rows.set_written(&check(1, ALLOW), 6);
    rows.set_use_written(&(NetworkId::SINGLE, key_of(1)), START);
    rows.rename((NetworkId::SINGLE, key_of(1)), key_of(2));
    let numbers = numbers(&rows);
    assert_eq!(numbers.get(&(key_of(2).to_string(), ALLOW)), Some(&5), "{numbers:?}");
    assert_eq!(numbers.values().sum::<u64>(), 5, "{numbers:?}");
    let uses = rows.unwritten_uses(Duration::ZERO);
    assert_eq!(uses.iter().map(|(key, _)| key.1).collect::<Vec<_>>(), [key_of(2)]);
}

#[test]
fn late_checks_count_in_the_first_hour_that_was_not_forgotten() {
    let mut rows = UsageRows::new(10);
    let old = check(1, ALLOW);
    rows.merge(table(&[(old, 3)]), START);
    rows.set_written(&old, 3);
    let later = START.plus(Duration::from_secs(2 * 60 * 60));
    rows.forget(later);
    assert_eq!(rows.len(), 0);
    rows.merge(table(&[(old, 1)]), later);
    let next = hour_of(START.plus(Duration::from_secs(60 * 60)));
    assert_eq!(rows.unwritten(), [(CheckKey { hour: next, ..old }, 1)], "three stay three");
}

#[test]
fn a_clock_that_was_years_ahead_changes_no_later_hour() {
    let mut rows = UsageRows::new(10);
    let (ahead, next) = (START.plus(Duration::from_secs(5 * 365 * 24 * 3_600)), hour_of(START).plus(HOUR));
    let wrong = CheckKey { hour: hour_of(ahead), ..check(1, ALLOW) };
    rows.merge(table(&[(check(1, ALLOW), 3), (wrong, 2)]), START);
    assert_eq!(rows.unwritten(), [(check(1, ALLOW), 5)], "by the time of the writer");
    rows.set_written(&check(1, ALLOW), 5);
    rows.forget(ahead);
    rows.merge(table(&[(CheckKey { hour: next, ..check(1, ALLOW) }, 1)]), next);
    assert_eq!(rows.unwritten(), [(CheckKey { hour: next, ..check(1, ALLOW) }, 1)]);
    let without = CheckKey { hour: Timestamp::from_micros(0), ..check(2, ALLOW) };
    rows.merge(table(&[(without, 1)]), next);
    assert_eq!(rows.unwritten()[1].0.hour, next, "the first handover says which");
}

#[test]
fn unwritten_counts_are_kept() {
    let mut rows = UsageRows::new(10);
    rows.merge(table(&[(check(1, ALLOW), 3)]), START);
    rows.forget(START.plus(Duration::from_secs(24 * 60 * 60)));
    assert_eq!(rows.unwritten(), [(check(1, ALLOW), 3)]);
}

#[test]
fn uses_are_known_to_the_minute() {
    let mut rows = UsageRows::new(10);
    let minute = Duration::from_secs(60);
    let id = (NetworkId::SINGLE, key_of(1));
    let address = Some([192, 0, 2, 1].into());
    rows.merge([(check(1, ALLOW), CheckRow { count: 1, address, last: 1 })].into_iter().collect(), START);
    let (first, last) = (START, START.plus(Duration::from_secs(59)));
    assert_eq!(rows.unwritten_uses(minute)[0].1.address, address);
    rows.set_use_written(&id, first);
    rows.merge(table(&[(check(1, ALLOW), 1)]), last);
    assert_eq!(rows.unwritten_uses(minute).len(), 0);
    let used = rows.unwritten_uses(Duration::ZERO)[0].1;
    assert_eq!((used.first, used.last, used.address), (first, last, address));
    rows.merge(table(&[(check(1, ALLOW), 1)]), START.plus(minute));
    assert_eq!(rows.unwritten_uses(minute).len(), 1);
    rows.merge(table(&[(check(2, "expired"), 1)]), START);
    assert_eq!(rows.unwritten_uses(minute).len(), 1, "a refusal is no use");
}

proptest! {
    /// Whatever is merged, written, erased and forgotten in any order: what the database would have
    /// is the sum of all that was counted.
    #[test]
    fn no_count_is_lost_or_doubled(
        steps in prop::collection::vec((any::<u8>(), 0..8_u8, 1..9_u64), 1..80),
        max_rows in 1..6_usize,
    ) {
        let mut rows = UsageRows::new(max_rows);
        let (mut database, mut counted, mut now) = (HashMap::new(), 0, START);
        let mut save = |rows: &mut UsageRows, answered: bool| {
            for (key, count) in rows.unwritten() {
                let saved = database.entry((key.key.text(), key.outcome, key.hour)).or_insert(0);
                *saved = count.max(*saved);
                if answered {
                    rows.set_written(&key, count);
                }
            }
            database.values().sum::<u64>()
        };
        for (step, number, count) in steps {
            match step % 5 {
                0 => {
                    save(&mut rows, count > 3);
                }
                1 => {
                    rows.forget(now);
                    now = now.plus(Duration::from_secs(40 * 60));
                }
                _ => {
                    let hour = hour_of(now.minus(Duration::from_secs(u64::from(step) * 60)));
                    let outcome = if count > 4 { ALLOW } else { "expired" };
                    rows.merge(table(&[(CheckKey { hour, ..check(number, outcome) }, count)]), now);
                    counted += count;
                }
            }
            prop_assert!(rows.len() <= max_rows + 2 * 80);
        }
        prop_assert_eq!(save(&mut rows, true), counted);
    }
}

#[test]
fn the_last_use_of_a_key_counts_whichever_row_it_is_in() {
    let address = |last: u64| Some([192, 0, 2, u8::try_from(last).unwrap()].into());
    for lasts in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
        let mut rows = UsageRows::new(10);
        let routes = ["a", "b", "c"].map(|route| route.parse::<RouteName>().unwrap());
        let uses = routes.into_iter().zip(lasts).map(|(route, last)| {
            (CheckKey { route, ..check(1, ALLOW) }, CheckRow { count: 1, address: address(last), last })
        });
        rows.merge(uses.collect(), START);
        let [(_, used)] = rows.unwritten_uses(Duration::ZERO)[..] else { panic!("one key") };
        assert_eq!(used.address, address(3), "{lasts:?}");
    }
}
