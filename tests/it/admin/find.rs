//! Finding keys: filters, orders, searches and counts of lists.

use serde_json::{Value, json};

use super::list::query;
use crate::rig::check::Check;
use crate::rig::database;
use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{IMPORTED, ISSUED, Key, Setup, Talos};

/// Asks for one page of issued keys.
async fn page(talos: &Talos, parameters: &[(&str, &str)]) -> Value {
    talos.admin.get(&path(ISSUED, parameters)).await.expect(200).json()
}

fn path(list: &str, parameters: &[(&str, &str)]) -> String {
    let parameters = parameters.iter().map(|(name, value)| format!("{name}={}", query(value)));
    format!("{list}?{}", parameters.collect::<Vec<_>>().join("&"))
}

/// Returns the names of a whole list, read in pages of two.
async fn names(talos: &Talos, parameters: &[(&str, &str)]) -> Vec<String> {
    let (mut found, mut token, mut pages) = (vec![], String::new(), 0);
    loop {
        let more = [("page_size", "2"), ("page_token", &token)];
        let all: Vec<_> = parameters.iter().copied().chain(more).collect();
        let page = page(talos, &all).await;
        let keys = page.at("/issued_api_keys").as_array().must("a list of keys");
        found.extend(keys.iter().map(|key| key.text("/name").to_owned()));
        token = page.text("/next_page_token").to_owned();
        pages += 1;
        assert!(pages < 50, "the pages have no end");
        if token.is_empty() {
            return found;
        }
    }
}

/// Four keys that differ in everything that can be looked for.
async fn four_keys(talos: &Talos) -> Vec<Key> {
    let mut keys = vec![];
    for fields in [
        json!({ "name": "backend", "actor_id": "alice", "scopes": ["orders:read"], "ttl": "30d",
                "metadata": { "team": "blue", "level": 5 } }),
        json!({ "name": "Backup", "actor_id": "bob", "scopes": ["orders:read", "orders:write"], "ttl": "10d",
                "metadata": { "team": "Blue", "deep": { "er": ["x", "y"] } } }),
        json!({ "name": "mobile", "actor_id": "alice", "scopes": ["orders:*"], "ttl": "20d" }),
        json!({ "name": "100%_\"\\", "actor_id": "carol", "metadata": { "team": "blues", "on": true } }),
    ] {
        keys.push(talos.issue(fields).await);
    }
    keys
}

fn setup() -> Setup {
    Setup::new().set("TALOS_LAST_USED_FLUSH_INTERVAL", "50ms")
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_find_by_every_field() {
    let talos = setup().start().await;
    let keys = four_keys(&talos).await;
    let [backend, backup, mobile, odd] = ["backend", "Backup", "mobile", "100%_\"\\"];
    let created = keys[2].resource.text("/create_time");
    let soon = keys[2].resource.text("/expire_time");
    talos.check(Check::bearer(&keys[3].secret)).await.allowed();
    until("the use is noted", async || {
        let key = talos.admin.get(&format!("{ISSUED}/{}", keys[3].id)).await.expect(200).json();
        key.get("last_used_time").map(drop)
    })
    .await;
    for (filter, wanted) in [
        (r#"name = "back*""#.to_owned(), vec![backend, backup]),
        (r#"name = "BACKEND""#.to_owned(), vec![backend]),
        (r#"name = "back""#.to_owned(), vec![]),
        (r#"name = "100%_\"\\*""#.to_owned(), vec![odd]),
        ("scopes:orders:read".to_owned(), vec![backend, backup]),
        ("scopes:orders:read AND scopes:orders:write".to_owned(), vec![backup]),
        ("scopes:\"orders:*\"".to_owned(), vec![mobile]),
        ("metadata.team = blue".to_owned(), vec![backend]),
        ("metadata.deep.er:y".to_owned(), vec![backup]),
        ("metadata.level = 5 AND actor_id = alice".to_owned(), vec![backend]),
        ("metadata.on = true".to_owned(), vec![odd]),
        ("metadata.team = green".to_owned(), vec![]),
        (format!("create_time < \"{created}\""), vec![backend, backup]),
        (format!("create_time >= \"{created}\" AND actor_id = alice"), vec![mobile]),
        (format!("expire_time <= \"{soon}\""), vec![backup, mobile]),
        (format!("expire_time < \"{soon}\" AND name = 'b*'"), vec![backup]),
        ("expire_time = never".to_owned(), vec![odd]),
        ("last_used_time = never AND actor_id = alice".to_owned(), vec![backend, mobile]),
        ("last_used_time > 2026-01-01T00:00:00Z".to_owned(), vec![odd]),
        (
            "last_used_time < 2026-01-01T00:00:00Z AND status = KEY_STATUS_ACTIVE".to_owned(),
            vec![backend, backup, mobile],
        ),
        ("status = KEY_STATUS_REVOKED AND scopes:orders:read".to_owned(), vec![]),
    ] {
        assert_eq!(names(&talos, &[("filter", &filter)]).await, wanted, "{filter}");
    }
    for (text, wanted) in [
        ("BACK", vec![backend, backup]),
        ("Alice", vec![backend, mobile]),
        (&keys[1].id[..9], vec![backup]),
        ("BLUE", vec![backend, backup, odd]),
        ("%", vec![]),
        ("ackend", vec![]),
        ("", vec![backend, backup, mobile, odd]),
    ] {
        assert_eq!(names(&talos, &[("query", text)]).await, wanted, "{text}");
    }
    let both = [("query", "alice"), ("filter", "scopes:\"orders:*\"")];
    assert_eq!(names(&talos, &both).await, [mobile]);
    let imported = talos.import("legacy", json!({ "name": "legacy", "metadata": { "team": "blue" } })).await;
    let list = path(IMPORTED, &[("filter", "metadata.team = blue"), ("query", "leg")]);
    let list = talos.admin.get(&list).await.expect(200).json();
    assert_eq!(list.text("/imported_api_keys/0/key_id"), imported.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_by_creation_expiry_and_last_use() {
    let talos = setup().start().await;
    let keys = four_keys(&talos).await;
    for key in [&keys[2], &keys[0]] {
        talos.check(Check::bearer(&key.secret)).await.allowed();
        until("the use is noted", async || {
            let key = talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.expect(200).json();
            key.get("last_used_time").map(drop)
        })
        .await;
    }
    let mut unused = [&keys[1], &keys[3]];
    unused.sort_by_key(|key| key.id.clone());
    let unused = unused.map(|key| key.resource.text("/name"));
    let [backend, backup, mobile, odd] = ["backend", "Backup", "mobile", "100%_\"\\"];
    for (order, wanted) in [
        ("create_time", [backend, backup, mobile, odd]),
        ("expire_time", [backup, mobile, backend, odd]),
        ("last_used_time", [unused[0], unused[1], mobile, backend]),
    ] {
        let ascending = names(&talos, &[("order_by", order)]).await;
        assert_eq!(ascending, wanted, "{order}");
        let mut descending = names(&talos, &[("order_by", &format!("{order} desc"))]).await;
        descending.reverse();
        assert_eq!(descending, wanted, "{order} desc");
        let filtered = names(&talos, &[("order_by", order), ("filter", "name = 'back*'")]).await;
        assert_eq!(filtered.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_belongs_to_its_filter_query_and_order() {
    let talos = Talos::start().await;
    four_keys(&talos).await;
    let of =
        [("filter", "scopes:orders:read"), ("query", "b"), ("order_by", "expire_time"), ("page_size", "1")];
    let first = page(&talos, &of).await;
    let token = first.text("/next_page_token");
    let with_token = |of: &[(&str, &str)]| {
        let token = ("page_token", token);
        path(ISSUED, &of.iter().copied().chain([token]).collect::<Vec<_>>())
    };
    talos.admin.get(&with_token(&of)).await.expect(200);
    for other in [
        vec![("filter", "scopes:orders:write"), ("query", "b"), ("order_by", "expire_time")],
        vec![("filter", "scopes:orders:read"), ("query", "ba"), ("order_by", "expire_time")],
        vec![("filter", "scopes:orders:read"), ("query", "b"), ("order_by", "expire_time desc")],
        vec![("filter", "scopes:orders:read"), ("query", "b"), ("order_by", "last_used_time")],
        vec![("filter", "scopes:orders:read"), ("query", "b")],
        vec![],
    ] {
        let message = talos.admin.get(&with_token(&other)).await.expect_bad_request();
        assert!(message.contains("page_token") && message.contains("order_by"), "{other:?}: {message}");
    }
    // Whatever the length of a filter, its tokens are accepted.
    let long = format!("actor_id = \"{}\"", "\\\"".repeat(500));
    let pages = [("filter", long.as_str()), ("page_size", "1")];
    for _ in 0..2 {
        talos.issue(json!({ "actor_id": "\"".repeat(250) })).await;
    }
    page(&talos, &pages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_counted_on_request() {
    let talos = Talos::start().await;
    four_keys(&talos).await;
    let plain = page(&talos, &[("page_size", "1")]).await;
    assert_eq!((plain.get("total_size"), plain.get("total_size_is_estimate")), (None, None));
    for (parameters, count) in [
        (vec![], 4),
        (vec![("filter", "actor_id = alice")], 2),
        (vec![("filter", "status = KEY_STATUS_ACTIVE AND scopes:orders:read")], 2),
        (vec![("filter", "scopes:nothing")], 0),
        (vec![("filter", "expire_time = never"), ("order_by", "last_used_time")], 1),
    ] {
        let total = [("total", "true"), ("page_size", "1")];
        let parameters: Vec<_> = parameters.into_iter().chain(total).collect();
        let page = page(&talos, &parameters).await;
        assert_eq!(page["total_size"], count, "{parameters:?}");
        assert_eq!(page.get("total_size_is_estimate"), None, "{parameters:?}");
    }
    // What is estimated is exact where the only page has it all.
    for (query, count) in [("Back", 1), ("nothing", 0)] {
        let page = page(&talos, &[("query", query), ("total", "true")]).await;
        let listed = page["issued_api_keys"].as_array().map_or(0, Vec::len);
        assert_eq!(
            (&page["total_size"], page.get("total_size_is_estimate")),
            (&listed.into(), None),
            "{query}"
        );
        assert!(listed >= count, "{query}");
    }
    let message = talos.admin.get(&path(ISSUED, &[("total", "maybe")])).await.expect_bad_request();
    assert!(message.contains("total"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_count_no_key_that_does_not_match() {
    let talos = Talos::start().await;
    for name in ["ops@home", "OPS@work", "ops_home", "ops[home", "opsahome"] {
        talos.issue(json!({ "name": name })).await;
    }
    for (filter, count) in [
        ("name = 'ops@*'", 2),
        ("name = 'ops_*'", 1),
        ("name = 'ops*'", 5),
        // No secret is retired.
        ("secret_id = retired", 0),
        ("secret_id = retired AND actor_id = alice", 0),
        ("secret_id = retired AND name = 'ops*'", 0),
        ("secret_id = current AND name = 'ops@*'", 2),
    ] {
        // Smaller pages than lists: a page that has all keys is counted itself.
        let page = page(&talos, &[("filter", filter), ("total", "true"), ("page_size", "1")]).await;
        assert_eq!(page["total_size"], count, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_filters_are_refused_with_the_cure() {
    let talos = Talos::start().await;
    for (parameter, value, words) in [
        ("filter", "colour = red", "expire_time and last_used_time"),
        ("filter", "name < b", "name takes ="),
        ("filter", "scopes:'a b'", "one scope"),
        ("filter", "create_time = 2026-01-01T00:00:00Z", "create_time takes <"),
        ("filter", "expire_time < tomorrow", "a time such as"),
        ("filter", "metadata = blue", "metadata.…"),
        ("filter", "name = a OR name = b", "joined by AND"),
        ("filter", "create_time < 2026-01-01T00:00:00Z AND create_time <= 2025-01-01T00:00:00Z", "twice"),
        ("query", &"x".repeat(256), "255 characters"),
        ("query", "a\u{1}", "control characters"),
        ("order_by", "name", "create_time, expire_time or last_used_time"),
    ] {
        let message = talos.admin.get(&path(ISSUED, &[(parameter, value)])).await.expect_bad_request();
        assert!(message.contains(parameter) && message.contains(words), "{value}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_or_deleted_key_is_found_by_what_it_is_now() {
    let talos = Talos::start().await;
    let keys = four_keys(&talos).await;
    let at = format!("{ISSUED}/{}", keys[0].id);
    let change = json!({ "metadata": { "team": "green" }, "scopes": ["orders:delete"] });
    talos.patch(&format!("{at}?update_mask=metadata,scopes"), &change).await.expect(200);
    for (filter, wanted) in [
        ("metadata.team = blue", vec![]),
        ("metadata.team = green", vec!["backend"]),
        ("scopes:orders:read", vec!["Backup"]),
        ("scopes:orders:delete", vec!["backend"]),
    ] {
        assert_eq!(names(&talos, &[("filter", filter)]).await, wanted, "{filter}");
    }
    talos.revoke(&keys[0]).await;
    let revoked = "status = KEY_STATUS_REVOKED AND metadata.team = green";
    assert_eq!(names(&talos, &[("filter", revoked)]).await, ["backend"]);
    let rotated =
        talos.admin.post(&format!("{ISSUED}/{}:rotate", keys[1].id), &json!({})).await.expect(201).json();
    let active = "status = KEY_STATUS_ACTIVE AND metadata.team = Blue";
    assert_eq!(names(&talos, &[("filter", active)]).await, ["Backup"]);
    assert_eq!(
        page(&talos, &[("filter", active)]).await.text("/issued_api_keys/0/key_id"),
        rotated.text("/issued_api_key/key_id")
    );
    talos.admin.send(Version::Http1, Call::new("DELETE", &at)).await.expect(204);
    assert_eq!(names(&talos, &[("filter", revoked)]).await, Vec::<String>::new());
}

/// MySQL ignores spaces at the end of a text when it compares it.
#[tokio::test(flavor = "multi_thread")]
async fn names_in_metadata_may_differ_in_spaces_at_their_end() {
    let talos = Talos::start().await;
    let both = talos.issue(json!({ "name": "both", "metadata": { "a": "x", "a ": "x" } })).await;
    talos.issue(json!({ "name": "one", "metadata": { "a ": "x" } })).await;
    for (filter, wanted) in [("metadata.a = x", vec!["both"]), ("metadata.\"a \" = x", vec!["both", "one"])] {
        assert_eq!(names(&talos, &[("filter", filter)]).await, wanted, "{filter}");
    }
    let path = format!("{ISSUED}/{}?update_mask=metadata", both.id);
    let three = json!({ "metadata": { "a": "y", "a ": "y", "a  ": "y" } });
    talos.patch(&path, &three).await.expect(200);
    assert_eq!(names(&talos, &[("filter", "metadata.\"a  \" = y")]).await, ["both"]);
}

/// The release before this one writes keys without the terms by which they are found.
#[tokio::test(flavor = "multi_thread")]
async fn keys_written_by_the_release_before_are_found() {
    let setup = Setup::new();
    let talos = setup.start().await;
    let keys = four_keys(&talos).await;
    setup.sql("DELETE FROM key_terms");
    setup.sql("UPDATE api_keys SET terms_at = NULL");
    for _ in 0..2 {
        assert_eq!(names(&talos, &[("filter", "metadata.team = blue")]).await, ["backend"]);
        assert_eq!(names(&talos, &[("filter", "scopes:orders:read")]).await, ["backend", "Backup"]);
        assert_eq!(names(&talos, &[("query", "blue")]).await.len(), 3);
        until("the terms are written", async || {
            let due = "SELECT count(*) FROM api_keys WHERE terms_at IS NULL OR terms_at <> mutation";
            (database::number(setup.dsn(), due).await == 0).then_some(())
        })
        .await;
    }
    // The foreign key deletes the terms with the key.
    setup.sql(&format!("DELETE FROM api_keys WHERE key_id = '{}'", keys[0].id));
    assert_eq!(names(&talos, &[("filter", "metadata.team = blue")]).await, Vec::<String>::new());
}
