//! Batches whose rows fill several statements: each key has its own result, and its row, its terms
//! and its log entry are there, whatever stands beside it.

use serde_json::{Value, json};

use super::list::query;
use crate::rig::support::Json;
use crate::rig::talos::{IMPORTED, Setup, Talos};

const BATCH_IMPORT: &str = "/v2alpha1/admin/importedApiKeys:batchCreate";
/// Rows of one statement.
const STATEMENT: usize = 40;
/// Counts the changes of keys in the log.
const LOGGED: &str = "SELECT count(*) FROM mutation_log WHERE subject IS NOT NULL";
/// Longest scope.
const LONG: usize = 128;

/// Outcome of an item of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Created,
    Exists,
    Invalid,
}

impl Outcome {
    fn code(self) -> &'static str {
        match self {
            Self::Created => "",
            Self::Exists => "ALREADY_EXISTS",
            Self::Invalid => "INVALID_ARGUMENT",
        }
    }
}

/// Item with so many scopes, of which each is one row of its terms, and two values of metadata.
fn item(raw_key: &str, scopes: usize, is_long: bool) -> Value {
    let scope = |n: usize| match is_long {
        true => format!("{n:03}{}", "s".repeat(LONG - 3)),
        false => format!("scope-{n}"),
    };
    json!({
        "raw_key": raw_key, "name": format!("name of {raw_key}"), "actor_id": format!("actor {raw_key}"),
        "scopes": (0..scopes).map(scope).collect::<Vec<_>>(),
        "metadata": { "own": raw_key, "team": "ünïcode ' ? $1 \" \\" },
    })
}

/// Imports a batch, and compares the result of each item.
async fn import(talos: &Talos, items: &[(Value, Outcome)]) -> Vec<Value> {
    let requests: Vec<&Value> = items.iter().map(|(item, _)| item).collect();
    let reply = talos.admin.post(BATCH_IMPORT, &json!({ "requests": requests })).await.expect(200).json();
    let results = reply.at("/results").as_array().unwrap().clone();
    assert_eq!(results.len(), items.len());
    let mut created = vec![];
    for (index, ((sent, expected), result)) in items.iter().zip(&results).enumerate() {
        let code = result["error_code"].as_str().unwrap_or_default();
        let code = code.trim_start_matches("BATCH_CREATE_IMPORTED_API_KEYS_ERROR_");
        assert_eq!((result["index"].as_u64(), code), (Some(index as u64), expected.code()), "{result}");
        if *expected == Outcome::Created {
            let key = result.at("/imported_api_key");
            assert_row(sent, key);
            created.push(key.clone());
        }
    }
    created
}

/// Asserts that a key has what was sent.
fn assert_row(sent: &Value, key: &Value) {
    for field in ["name", "actor_id", "scopes", "metadata"] {
        assert_eq!(key.get(field), sent.get(field), "{field} of {key}");
    }
}

/// Returns the names of the keys that a filter finds.
async fn found(talos: &Talos, filter: &str) -> Vec<String> {
    let page = talos.admin.get(&format!("{IMPORTED}?page_size=1000&filter={}", query(filter))).await;
    let page = page.expect(200).json();
    let keys = page.at("/imported_api_keys").as_array().unwrap();
    keys.iter().map(|key| key.text("/name").to_owned()).collect()
}

/// Asserts that a key is as it was sent, verifies, and is found by its first and last term.
async fn assert_usable(talos: &Talos, sent: &Value, key: &Value) {
    let id = key.text("/key_id");
    let read = talos.admin.get(&format!("{IMPORTED}/{id}")).await.expect(200).json();
    assert_row(sent, &read);
    assert_eq!(read.at("/create_time"), key.at("/create_time"));
    assert_eq!(talos.verify(sent.text("/raw_key")).await.text("/key_id"), id);
    let name = sent.text("/name").to_owned();
    assert_eq!(found(talos, &format!("metadata.own = \"{}\"", sent.text("/raw_key"))).await, [name.as_str()]);
    if let Some(last) = sent["scopes"].as_array().and_then(|scopes| scopes.last()) {
        let scope = last.as_str().unwrap();
        assert!(found(talos, &format!("scopes:\"{scope}\"")).await.contains(&name), "{scope}");
    }
}

/// Sizes around those of one and two statements, with few and many terms a key, short and long: one
/// more or less row is neither lost nor written twice.
#[tokio::test(flavor = "multi_thread")]
async fn every_size_of_a_batch_is_written_once_with_its_terms() {
    let setup = Setup::new();
    let talos = setup.start().await;
    let first = setup.number("SELECT n FROM mutation_counter WHERE id = 1").await;
    let (mut keys, mut terms) = (0, 0);
    for (count, scopes, is_long) in [
        (1, 0, false),
        (1, 20, true),
        (STATEMENT - 1, 0, false),
        (STATEMENT, 0, false),
        (STATEMENT + 1, 1, false),
        (STATEMENT, 3, true),
        (2 * STATEMENT - 1, 5, false),
        (2 * STATEMENT, 38, false),
        (2 * STATEMENT + 1, 6, true),
    ] {
        let raw_key = |n: usize| format!("{count}-{scopes}-{is_long}-{n}");
        let items: Vec<_> =
            (0..count).map(|n| (item(&raw_key(n), scopes, is_long), Outcome::Created)).collect();
        let created = import(&talos, &items).await;
        for at in [0, count / 2, count - 1] {
            assert_usable(&talos, &items[at].0, &created[at]).await;
        }
        keys += count as i64;
        terms += (count * (scopes + 2)) as i64;
        for (query, expected) in [
            ("SELECT count(*) FROM api_keys", keys),
            ("SELECT count(*) FROM key_terms", terms),
            (LOGGED, keys),
            ("SELECT n FROM mutation_counter WHERE id = 1", first + keys),
            ("SELECT count(*) FROM api_keys WHERE terms_at = mutation", keys),
        ] {
            assert_eq!(setup.number(query).await, expected, "{query}: {count} of {scopes}");
        }
    }
}

/// Failing rows and keys that are there already, at the borders of statements and elsewhere, leave
/// their neighbours alone.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_fail_leave_their_neighbours_alone() {
    let setup = Setup::new();
    let talos = setup.start().await;
    let known: Vec<_> = [STATEMENT - 1, STATEMENT, 3 * STATEMENT]
        .map(|n| (item(&format!("key-{n}"), 2, false), Outcome::Created))
        .to_vec();
    import(&talos, &known).await;
    let mut items = vec![];
    for n in 0..4 * STATEMENT + 2 {
        let mut item = item(&format!("key-{n}"), n % 4, n % 3 == 0);
        let outcome = match n {
            _ if [STATEMENT - 1, STATEMENT, 3 * STATEMENT].contains(&n) => Outcome::Exists,
            // The one before it, which may be in another statement.
            _ if n == 2 * STATEMENT || n == 100 => {
                item["raw_key"] = format!("key-{}", n - 1).into();
                Outcome::Exists
            }
            // The first of all.
            _ if n == 4 * STATEMENT + 1 => {
                item["raw_key"] = "key-0".into();
                Outcome::Exists
            }
            _ if [1, STATEMENT + 1, 2 * STATEMENT + 1].contains(&n) => {
                item["scopes"] = json!(["a b"]);
                Outcome::Invalid
            }
            _ => Outcome::Created,
        };
        items.push((item, outcome));
    }
    let created = import(&talos, &items).await;
    let sent = items.iter().filter(|(_, outcome)| *outcome == Outcome::Created);
    for (at, ((sent, _), key)) in sent.zip(&created).enumerate() {
        if at % 7 == 0 || at + 1 == created.len() {
            assert_usable(&talos, sent, key).await;
        }
    }
    let keys = (known.len() + created.len()) as i64;
    for query in ["SELECT count(*) FROM api_keys", LOGGED] {
        assert_eq!(setup.number(query).await, keys, "{query}");
    }
    // Once more, nothing is new.
    let again: Vec<_> = items
        .into_iter()
        .filter(|(_, outcome)| *outcome == Outcome::Created)
        .map(|(item, _)| (item, Outcome::Exists))
        .chain([(item("one more", 1, true), Outcome::Created)])
        .collect();
    assert_eq!(import(&talos, &again).await.len(), 1);
}
