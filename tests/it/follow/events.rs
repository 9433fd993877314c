//! Events of changes: their content, their order, and their readers.

use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::{EVENTS, back_up, call, events, gone, page, restore};
use crate::rig::http::{Base, Call, Version};
use crate::rig::support::{Json, Must, assert_no_null, until};
use crate::rig::talos::{IMPORTED, ISSUED, NETWORK, Setup, Talos};

const ACTOR: &str = "/v2alpha1/admin/actors/alice";

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event.text("/type")).collect()
}

/// The difference of a field in an event.
fn change<'a>(event: &'a Value, field: &str) -> &'a Value {
    let changes = event.at("/data/changes").as_array().must("changes");
    changes.iter().find(|change| change["field"] == field).must(field)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_is_an_event_in_order_with_its_differences() {
    let talos = Setup::new().start().await;
    let key = talos.issue(json!({ "name": "backend", "scopes": ["a"], "metadata": { "mail": "m@x" } })).await;
    let path = format!("{ISSUED}/{}", key.id);
    let update = Call::new("PATCH", &path).json(&json!({ "scopes": ["a", "b"] }));
    let updated = talos.admin.send(Version::Http1, update).await.expect(200);
    call(&talos, &key.id, "suspend", json!({ "reason": "unpaid" })).await;
    call(&talos, &key.id, "resume", json!({})).await;
    let rotated = call(&talos, &key.id, "rotate", json!({ "grace_period": "1h" })).await;
    let successor = rotated.text("/issued_api_key/key_id").to_owned();
    call(&talos, &key.id, "finish", json!({})).await;
    call(&talos, &successor, "revoke", json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" })).await;
    let imported = talos.import("legacy-key", json!({})).await;
    let rename = Call::new("PATCH", ACTOR).json(&json!({ "display_name": "Alice" }));
    talos.admin.send(Version::Http1, rename).await.expect(200);
    talos.admin.post(&format!("{ACTOR}:suspend"), &json!({})).await.expect(200);
    talos.admin.post(&format!("{ACTOR}:resume"), &json!({})).await.expect(200);

    let all = page(&talos, "after=oldest").await;
    assert_no_null(&all);
    let received = events(&all);
    let expected = [
        "talos.key.issued",
        "talos.key.updated",
        "talos.key.suspended",
        "talos.key.resumed",
        "talos.key.rotated",
        "talos.key.finished",
        "talos.key.revoked",
        "talos.key.imported",
        "talos.actor.updated",
        "talos.actor.suspended",
        "talos.actor.resumed",
    ];
    assert_eq!(types(&received), expected);
    for (number, event) in (1..).zip(&received) {
        assert_eq!(event.at("/data/epoch"), &json!(number), "{event:#}");
        for (attribute, value) in [
            ("/specversion", "1.0"),
            ("/source", &format!("urn:talos:network:{NETWORK}")),
            ("/datacontenttype", "application/json"),
            ("/data/actor_id", "alice"),
        ] {
            assert_eq!(event.text(attribute), value, "{event:#}");
        }
        assert!(event.text("/time").ends_with('Z'), "{event:#}");
        // The caller was never authenticated.
        assert_eq!(event.pointer("/data/caller"), None, "{event:#}");
        assert!(!event.to_string().contains("m@x"), "the owner's own attributes: {event:#}");
    }
    assert_eq!(received[0].text("/subject"), key.id);
    assert_eq!(change(&received[0], "name").at("/after"), "backend");
    assert_eq!(
        change(&received[1], "scopes"),
        &json!({ "field": "scopes", "before": ["a"], "after": ["a", "b"] })
    );
    assert_eq!(change(&received[2], "suspension").at("/after/reason"), "unpaid");
    assert_eq!(received[4].text("/data/replaced_by"), successor);
    assert_eq!(received[6].text("/subject"), successor);
    assert_eq!(change(&received[6], "revocation_reason").at("/after"), "REVOCATION_REASON_KEY_COMPROMISE");
    assert_eq!(
        (received[7].text("/subject"), received[7].text("/data/key_type")),
        (&*imported.id, "imported")
    );
    assert_eq!(received[8].text("/subject"), "alice");
    assert_eq!(change(&received[8], "display_name").at("/after"), "Alice");

    // Each place to go on from: of the answer, of an event, and the number of a change.
    assert_eq!(all.at("/epoch"), &json!(11));
    assert_eq!(all.at("/has_more"), &json!(false));
    assert_eq!(all.text("/next"), received[10].text("/id"));
    assert!(events(&page(&talos, &format!("after={}", all.text("/next"))).await).is_empty());
    let after_update = updated.header("talos-epoch").must("an epoch").to_owned();
    for place in [after_update.as_str(), received[1].text("/id")] {
        assert_eq!(events(&page(&talos, &format!("after={place}")).await), received[2..], "{place}");
    }
    // Page by page it is the same.
    let (mut pages, mut place) = (vec![], "oldest".to_owned());
    loop {
        let one = page(&talos, &format!("after={place}&page_size=2")).await;
        pages.extend(events(&one));
        place = one.text("/next").to_owned();
        if one["has_more"] == false {
            break;
        }
    }
    assert_eq!(pages, received);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_a_list_of_cloud_events_and_nothing_else() {
    let talos = Setup::new().start().await;
    talos.issue(json!({})).await;
    let ask = Call::get(EVENTS).header("accept", "application/cloudevents-batch+json");
    let reply = talos.admin.send(Version::Http1, ask).await.expect(200);
    assert_eq!(reply.header("content-type"), Some("application/cloudevents-batch+json"));
    let batch: Vec<Value> = serde_json::from_slice(&reply.body).must("a list");
    assert_eq!(types(&batch), ["talos.key.issued"]);
    assert_eq!(reply.header("talos-next-after"), Some(batch[0].text("/id")));
    assert_eq!(reply.header("talos-epoch"), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verified_caller_is_returned() {
    let setup = Setup::new();
    let socket = setup.path("admin.sock");
    let talos = setup.set("TALOS_SERVE_HTTP_SOCKET", &socket.display().to_string()).start().await;
    let own = format!("uid:{}", rustix::process::geteuid().as_raw());
    let send = async |call: Call| {
        let stream = UnixStream::connect(&socket).await.must("connecting to the socket");
        Base::local(0)
            .exchange_over(stream, Version::Http1, call.header("host", "localhost"))
            .await
            .must("an answer")
    };
    let new = json!({ "name": "a", "actor_id": "alice" });
    let issued = send(Call::post(ISSUED).json(&new)).await.expect(201).json();
    let path = format!("{ISSUED}/{}", issued.text("/issued_api_key/key_id"));
    send(Call::post(&format!("{path}:suspend")).json(&json!({}))).await.expect(200);
    send(Call::new("PATCH", ACTOR).json(&json!({ "display_name": "Alice" }))).await.expect(200);
    send(Call::new("DELETE", &path)).await.expect(204);
    send(Call::new("DELETE", ACTOR)).await.expect(200);
    let received = events(&page(&talos, "").await);
    assert_eq!(received.len(), 5);
    for event in &received {
        // Erased events name no caller, except the erasure itself.
        let is_told = event["data"]["erased"] != true;
        assert_eq!(event.pointer("/data/caller").is_some(), is_told, "{event:#}");
        assert!(!is_told || event.text("/data/caller") == own, "{event:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn erased_keys_are_erased_from_the_log_too() {
    let talos = Setup::new().start().await;
    let key = talos.issue(json!({ "name": "Ada Lovelace", "actor_id": "ada@example.com" })).await;
    let path = format!("{ISSUED}/{}", key.id);
    let rename = Call::new("PATCH", &path).json(&json!({ "name": "Countess Ada" }));
    talos.admin.send(Version::Http1, rename).await.expect(200);
    let actor = "/v2alpha1/admin/actors/ada@example.com";
    let rename = Call::new("PATCH", actor).json(&json!({ "display_name": "Ada" }));
    talos.admin.send(Version::Http1, rename).await.expect(200);
    let other = talos.import("legacy", json!({ "name": "not erased" })).await;
    let erase = Call::new("DELETE", &format!("{actor}?force=true"));
    talos.admin.send(Version::Http1, erase).await.expect(200);

    let received = events(&page(&talos, "").await);
    let received_types = types(&received);
    assert_eq!(
        received_types,
        [
            "talos.key.changed",
            "talos.key.changed",
            "talos.actor.changed",
            "talos.key.imported",
            "talos.key.deleted",
            "talos.actor.deleted"
        ]
    );
    let text = json!(received).to_string();
    assert!(!text.contains("Ada") && !text.contains("ada@"), "{text}");
    assert!(text.contains("not erased") && text.contains(&other.id), "{text}");
    for event in &received[..3] {
        assert_eq!(event.at("/data/erased"), &json!(true), "{event:#}");
    }
    assert_eq!(received[0].text("/subject"), key.id);
    assert_eq!(received[2].pointer("/subject"), None);
    let left = crate::rig::database::number(
        talos.setup.dsn(),
        "SELECT count(*) FROM mutation_log WHERE event LIKE '%Ada%' OR event LIKE '%ada@%'",
    );
    assert_eq!(left.await, 0, "the database itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_sees_its_own_events_alone() {
    let networks = json!([
        { "hostname": "a.example", "id": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa" },
        { "hostname": "b.example", "id": "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb" },
    ]);
    let setup = Setup::new().set("TALOS_MULTITENANCY_ENABLED", "true");
    let talos = setup.set("TALOS_MULTITENANCY_NETWORKS", &networks.to_string()).start().await;
    let send =
        async |host: &str, call: Call| talos.admin.send(Version::Http1, call.header("host", host)).await;
    let new = |name: &str| json!({ "name": name, "actor_id": "alice" });
    for n in 0..3 {
        send("a.example", Call::post(ISSUED).json(&new(&format!("ours {n}")))).await.expect(201);
        send("b.example", Call::post(ISSUED).json(&new(&format!("theirs {n}")))).await.expect(201);
        let body = json!({ "name": "theirs", "actor_id": "bob", "raw_key": format!("theirs-{n}") });
        send("b.example", Call::post(IMPORTED).json(&body)).await.expect(201);
    }
    let ours = send("a.example", Call::get(EVENTS)).await.expect(200).json();
    let text = ours.to_string();
    assert_eq!(events(&ours).len(), 3, "{text}");
    assert!(!text.contains("theirs") && !text.contains("bbbbbbbb"), "{text}");
    assert!(text.contains("urn:talos:network:aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"), "{text}");
    // The numbers are those of all networks, so the place is behind theirs.
    assert_eq!(ours.at("/epoch"), &json!(9));
    assert_eq!(events(&send("b.example", Call::get(EVENTS)).await.expect(200).json()).len(), 6);
    let nothing = send("a.example", Call::get(&format!("{EVENTS}?after=7"))).await.expect(200).json();
    assert_eq!(events(&nothing).len(), 0);
    assert_eq!(nothing.at("/has_more"), &json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_go_on_is_a_410_that_says_what_to_do() {
    let setup = Setup::new().set("TALOS_CONSISTENCY_POLL", "200ms");
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    back_up(&setup);
    call(&talos, &key.id, "suspend", json!({})).await;
    let lost = page(&talos, "after=now").await.text("/next").to_owned();
    assert!(lost.starts_with("2-"), "{lost}");
    // A number that there isn't yet, or any more.
    gone(&talos, "after=3", "rewritten").await;
    restore(&setup);
    gone(&talos, "after=2", "rewritten").await;
    gone(&talos, &format!("after={lost}"), "rewritten").await;
    gone(&talos, &format!("after={lost}&wait=30s"), "rewritten").await;
    // Number 2 once more, for another change: the place tells the two apart.
    call(&talos, &key.id, "suspend", json!({ "reason": "other" })).await;
    gone(&talos, &format!("after={lost}"), "rewritten").await;
    assert_eq!(events(&page(&talos, "after=1").await).len(), 1);
    // The place of another log.
    gone(&talos, "after=1-00000000000000ff", "rewritten").await;

    for _ in 0..3 {
        call(&talos, &key.id, "resume", json!({})).await;
        call(&talos, &key.id, "suspend", json!({})).await;
    }
    setup.sql("DELETE FROM mutation_log WHERE n < 5");
    let trimmed = gone(&talos, "after=1", "trimmed").await.json();
    assert_eq!(trimmed.text("/error/details/0/metadata/oldest_epoch"), "5");
    gone(&talos, "after=0", "trimmed").await;
    let trimmed = gone(&talos, "since=2026-01-01T00:00:00Z", "trimmed").await.json();
    assert_eq!(trimmed.text("/error/details/0/metadata/oldest_epoch"), "5");
    assert_eq!(events(&page(&talos, "since=2100-01-01T00:00:00Z").await).len(), 0);
    assert_eq!(events(&page(&talos, "after=oldest").await).len(), 4);
    assert_eq!(events(&page(&talos, "after=5").await).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_a_place_too() {
    let talos: Talos = Setup::new().start().await;
    let (old, new) = (talos.issue(json!({})).await, talos.issue(json!({})).await);
    let hour = 60 * 60 * 1_000_000_i64;
    talos.setup.sql(&format!("UPDATE mutation_log SET at = at - {hour} WHERE n = 1"));
    let since = new.resource.text("/create_time").get(..16).must("a time").to_owned() + ":00Z";
    let received = events(&page(&talos, &format!("since={since}")).await);
    assert_eq!(received.iter().map(|event| event.text("/subject")).collect::<Vec<_>>(), [&*new.id]);
    let received = events(&page(&talos, "since=2026-01-01T00:00:00Z").await);
    assert_eq!(received[0].text("/subject"), old.id);
    assert_eq!(events(&page(&talos, "since=2100-01-01T00:00:00Z").await).len(), 0);
}

/// A log entry written by a process of the previous release has neither subject nor record.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_release_before_has_its_key_and_nothing_more() {
    let talos = Setup::new().start().await;
    let key = talos.issue(json!({})).await;
    call(&talos, &key.id, "suspend", json!({})).await;
    talos.admin.post(&format!("{ACTOR}:suspend"), &json!({})).await.expect(200);
    talos.setup.sql("UPDATE mutation_log SET subject = NULL, event = NULL WHERE n > 1");
    until("it is told", async || {
        let received = events(&page(&talos, "after=1").await);
        assert_eq!(types(&received), ["talos.key.changed", "talos.actor.changed"]);
        assert_eq!((received[0].text("/subject"), received[1].text("/subject")), (&*key.id, "alice"));
        for event in &received {
            assert_eq!((event.pointer("/data/operation"), event.pointer("/data/erased")), (None, None));
        }
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_mean_nothing_are_refused() {
    let talos = Setup::new().start().await;
    for query in [
        "after=x",
        "after=-1",
        "after=1&after=1",
        "after=1&since=2026-01-01T00:00:00Z",
        "since=yesterday",
        "wait=30",
        "wait=-1s",
        "page_size=x",
        "befroe=1",
    ] {
        talos.admin.get(&format!("{EVENTS}?{query}")).await.expect_error(400, "BAD_REQUEST");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_chooses_events_and_goes_on_behind_all_others() {
    let talos = Setup::new().start().await;
    let key = talos.issue(json!({})).await;
    let other = talos.issue(json!({ "actor_id": "bob" })).await;
    let rotated = call(&talos, &key.id, "rotate", json!({})).await;
    let successor = rotated.text("/issued_api_key/key_id").to_owned();
    call(&talos, &other.id, "suspend", json!({})).await;
    call(&talos, &successor, "revoke", json!({})).await;
    talos.admin.post(&format!("{ACTOR}:suspend"), &json!({})).await.expect(200);
    let all = page(&talos, "after=oldest").await;
    for (query, expected) in [
        (
            "type=talos.key.suspended,talos.actor.suspended",
            vec!["talos.key.suspended", "talos.actor.suspended"],
        ),
        (&*format!("key_id={successor}"), vec!["talos.key.rotated", "talos.key.revoked"]),
        ("actor_id=bob", vec!["talos.key.issued", "talos.key.suspended"]),
        ("actor_id=alice&type=talos.key.revoked", vec!["talos.key.revoked"]),
        ("actor_id=bob&type=talos.key.revoked", vec![]),
    ] {
        let chosen = page(&talos, &format!("after=oldest&{query}")).await;
        assert_eq!(types(&events(&chosen)), expected, "{query}");
        assert_eq!(chosen["next"], all["next"], "{query}: what isn't chosen was read");
    }
    // One by one, pages without a chosen event lead on.
    let (mut place, mut found, mut pages) = ("oldest".to_owned(), vec![], 0);
    loop {
        let query = format!("after={place}&page_size=1&type=talos.key.revoked");
        let page = page(&talos, &query).await;
        found.extend(events(&page));
        place = page.text("/next").to_owned();
        pages += 1;
        if page["has_more"] == false {
            break;
        }
        assert!(pages < 20, "it has no end");
    }
    assert_eq!(types(&found), ["talos.key.revoked"]);
    assert!(pages > 4, "{pages} pages: an event that isn't chosen is passed at once");
    // A reader that waits is woken by what it has chosen, not by others' events.
    let waits = format!("{EVENTS}?after={place}&wait=30s&actor_id=bob");
    let waiting = talos.admin.get(&waits);
    let resumes = async {
        talos.admin.post(&format!("{ACTOR}:resume"), &json!({})).await.expect(200);
        call(&talos, &other.id, "resume", json!({})).await;
    };
    let (woken, ()) = tokio::join!(waiting, resumes);
    assert_eq!(types(&events(&woken.expect(200).json())), ["talos.key.resumed"]);
    // Credits that are set are a change, and its values are told.
    let credits = json!({ "credits": { "remaining": "9", "refill": { "amount": "5", "every": "week" } } });
    talos.patch(&format!("{ISSUED}/{}", other.id), &credits).await.expect(200);
    let again = json!({ "credits": { "remaining": "3", "refill": { "amount": "5", "every": "week" } } });
    talos.patch(&format!("{ISSUED}/{}", other.id), &again).await.expect(200);
    let set = events(&page(&talos, "after=oldest&type=talos.key.updated").await);
    let (first, second) = (change(&set[0], "credits"), change(&set[1], "credits"));
    assert_eq!((first.get("before"), first.text("/after/refill/at")), (None, "mon 00:00"));
    assert_eq!((second.text("/before/remaining"), second.text("/after/remaining")), ("9", "3"));
    let error = talos.admin.get(&format!("{EVENTS}?type=talos.key.lost")).await.expect_bad_request();
    assert!(error.starts_with("type: must be types of events"), "{error}");
}
