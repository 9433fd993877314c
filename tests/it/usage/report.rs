//! The report for administrators, and that for the holder of a key.

use serde_json::json;

use super::{USAGE, counted, rows, setup, total};
use crate::rig::check::Check;
use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, Must, assert_no_null, unix_now, unix_seconds, until};
use crate::rig::talos::{IMPORTED, ISSUED, NETWORK, Setup, Talos};

const SELF: &str = "/v2alpha1/usage:self";

async fn start_with_route() -> Talos {
    let routes = "[{name: orders, path: {prefix: /orders}, scopes: read}, {path: {prefix: /}}]";
    setup().set("TALOS_AUTHZ_ROUTES", routes).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_are_grouped_by_what_is_asked_for() {
    let talos = start_with_route().await;
    let key = talos.issue(json!({ "actor_id": "alice", "scopes": ["read"] })).await;
    let other = talos.import("legacy-key", json!({ "actor_id": "a \"b\"" })).await;
    let began = unix_now().floor();
    for _ in 0..3 {
        talos.check(Check::bearer(&key.secret).from("192.0.2.7")).await.allowed();
    }
    talos.check(Check::bearer(&other.secret)).await.denied(403);
    talos.check(Check::bearer(&other.secret).path("/other").from("::ffff:192.0.2.8")).await.allowed();
    talos.check(Check::bearer("unknown")).await.denied(401);
    talos.check(Check::default()).await.denied(401);
    talos.check(Check::bearer(&key.secret).path("/x").route("talos.route", "named-by-envoy")).await.allowed();
    counted(&talos, "", 8).await;

    let by_all = rows(&talos, "group_by=actor,key,route,outcome").await;
    let found = |actor: &str, route: Option<&str>, outcome: &str| {
        let mut found = by_all.iter().filter(|row| {
            row["actor_id"] == actor
                && row.get("route").and_then(|route| route.as_str()) == route
                && row["outcome"] == outcome
        });
        found.next().map(|row| (row.text("/key_id").to_owned(), row["count"].as_u64()))
    };
    assert_eq!(found("alice", Some("orders"), "allow"), Some((key.id.clone(), Some(3))));
    assert_eq!(found("alice", Some("named-by-envoy"), "allow"), Some((key.id.clone(), Some(1))));
    assert_eq!(found("a \"b\"", Some("orders"), "insufficient_scope"), Some((other.id.clone(), Some(1))));
    assert_eq!(found("a \"b\"", None, "allow"), Some((other.id.clone(), Some(1))));
    by_all.iter().for_each(assert_no_null);
    let unknown: Vec<_> = by_all.iter().filter(|row| row.get("key_id").is_none()).collect();
    assert_eq!(unknown.len(), 2, "not_found and missing: {unknown:?}");

    let by_key = rows(&talos, "group_by=key&filter=outcome=allow").await;
    assert_eq!((by_key[0]["key_id"].as_str(), by_key[0]["count"].as_u64()), (Some(&*key.id), Some(4)));
    // Written once a minute: that of an earlier use may stand there.
    assert!(["127.0.0.1", "192.0.2.7"].contains(&by_key[0].text("/last_used_address")), "{by_key:?}");
    assert_eq!(by_key[1]["last_used_address"], "192.0.2.8");
    let read = talos.admin.get(&format!("{IMPORTED}/{}", other.id)).await.expect(200).json();
    assert_eq!(read.text("/last_used_address"), "192.0.2.8");
    // A resource may be sent back as it was read.
    let update = Call::new("PATCH", &format!("{IMPORTED}/{}", other.id)).json(&read);
    talos.admin.send(Version::Http1, update).await.expect(200);
    for time in ["/first_used_time", "/last_used_time"] {
        assert!((began..=unix_now()).contains(&unix_seconds(by_key[0].text(time))), "{by_key:?}");
    }
    for (unit, seconds) in [("hour", 3_600.0), ("day", 86_400.0)] {
        let by_time = rows(&talos, &format!("group_by={unit}")).await;
        let start = unix_seconds(by_time[0].text("/start_time"));
        assert!(start % seconds == 0.0 && start <= unix_now(), "{by_time:?}");
    }
    let actor = "filter=actor_id%20%3D%20%22a%20%5C%22b%5C%22%22";
    assert_eq!(rows(&talos, actor).await[0]["count"], 2);
    assert_eq!(total(&talos, "route=orders%20AND%20outcome=allow").await, 3);
    assert_eq!(total(&talos, "key_id=other").await, 0);
    let past = "start_time=2020-01-01T00:00:00Z&end_time=2020-01-02T00:00:00Z";
    assert_eq!(rows(&talos, past).await[0]["count"], 0);
}

/// Returns the RFC 3339 form of some seconds since 1970.
fn time_of(seconds: i64) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).must("a time");
    time.format(&time::format_description::well_known::Rfc3339).must("a text")
}

#[tokio::test(flavor = "multi_thread")]
async fn days_that_are_added_up_count_as_a_whole_and_the_report_says_so() {
    let talos = setup().start().await;
    let today = unix_now() as i64 / 86_400 * 86_400;
    let ago = |days: i64, hour: i64| today - days * 86_400 + hour * 3_600;
    for (day, n) in [(5, 10), (3, 20)] {
        talos.setup.sql(&format!(
            "INSERT INTO usage_days (network_id, day_at, key_id, route, outcome, n) \
             VALUES ('{NETWORK}', {}, '', 'by-day', 'allow', {n})",
            ago(day, 0) * 1_000_000
        ));
    }
    // The last hours of a day are added up after the first ones.
    for (day, hour, n) in [(4, 5, 3), (3, 20, 4)] {
        talos.setup.sql(&format!(
            "INSERT INTO usage_hours (network_id, hour_at, key_id, route, outcome, process_id, n) \
             VALUES ('{NETWORK}', {}, '', 'by-hour', 'allow', 'x', {n})",
            ago(day, hour) * 1_000_000
        ));
    }
    for ((start, end), counted, total) in [
        ((ago(5, 13), ago(3, 6)), (ago(5, 0), ago(2, 0)), 37),
        ((ago(4, 5), ago(4, 6)), (ago(4, 5), ago(4, 6)), 3),
        ((ago(4, 6), ago(3, 0)), (ago(4, 6), ago(3, 0)), 0),
        ((ago(4, 6), ago(3, 1)), (ago(4, 6), ago(2, 0)), 24),
    ] {
        let times = format!("start_time={}&end_time={}", time_of(start), time_of(end));
        let (mut sum, mut token) = (0, String::new());
        // Each page tells the same time.
        loop {
            let path = format!("{USAGE}?{times}&group_by=route&page_size=1&page_token={token}");
            let page = talos.admin.get(&path).await.expect(200).json();
            let told = ["/start_time", "/end_time"].map(|time| unix_seconds(page.text(time)) as i64);
            assert_eq!(told, [counted.0, counted.1], "{page:#}");
            let rows = page["rows"].as_array().must("rows");
            sum += rows.iter().map(|row| row["count"].as_u64().must("a number")).sum::<u64>();
            token = page.text("/next_page_token").to_owned();
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(sum, total, "{times}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_and_bad_requests_are_named() {
    let talos = setup().start().await;
    for number in 0..5 {
        let key = talos.issue(json!({ "actor_id": format!("actor-{number}") })).await;
        for _ in 0..=number {
            talos.check(Check::bearer(&key.secret)).await.allowed();
        }
    }
    counted(&talos, "", 15).await;
    let (mut seen, mut token) = (vec![], String::new());
    loop {
        let path = format!("{USAGE}?group_by=actor&page_size=2&page_token={token}");
        let page = talos.admin.get(&path).await.expect(200).json();
        seen.extend(page["rows"].as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()));
        token = page.text("/next_page_token").to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1], "the largest first");
    for (query, field) in [
        ("group_by=week", "group_by"),
        ("group_by=day,hour", "group_by"),
        ("filter=status=x", "filter"),
        ("start_time=yesterday", "start_time"),
        ("end_time=2020-01-01T00:00:00Z&start_time=2021-01-01T00:00:00Z", "start_time"),
        ("end_time=2020-01-01T00:20:00Z&start_time=2020-01-01T00:40:00Z", "start_time"),
        ("end_time=2020-01-01T00:20:00Z&start_time=2020-01-01T00:20:00Z", "start_time"),
        ("page_size=-1", "page_size"),
        ("page_token=x", "page_token"),
        ("limit=1", "limit"),
        ("group_by=key&group_by=key", "group_by"),
    ] {
        let message = talos.admin.get(&format!("{USAGE}?{query}")).await.expect_error(400, "BAD_REQUEST");
        assert!(message.starts_with(field), "{query}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_shows_its_own_usage_and_no_other() {
    let talos = setup().start().await;
    let (key, other) = (talos.issue(json!({})).await, talos.issue(json!({})).await);
    for _ in 0..3 {
        talos.check(Check::bearer(&key.secret)).await.allowed();
    }
    talos.check(Check::bearer(&other.secret)).await.allowed();
    counted(&talos, "", 4).await;
    let ask = async |call: Call| talos.public.send(Version::Http1, call).await;
    let usage = ask(Call::get(&format!("{SELF}?group_by=day,outcome")).bearer(&key.secret)).await;
    let usage = usage.expect(200).json();
    assert_eq!((usage.text("/key_id"), usage.at("/rows/0/count")), (&*key.id, &json!(3)));
    assert_eq!(usage.text("/last_used_address"), "127.0.0.1");
    let shown = talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.expect(200).json();
    for field in ["/name", "/scopes", "/create_time"] {
        assert_eq!(usage.at("/key").at(field), shown.at(field), "{field}");
    }
    assert_eq!((usage.pointer("/key/actor_id"), usage.pointer("/key/metadata")), (None, None), "its owner's");
    assert_no_null(&usage);
    // The same answer to all that isn't a usable key.
    talos.revoke(&other).await;
    let token = talos.derive(&key, json!({})).await;
    let mut answers = vec![];
    for call in [
        Call::get(SELF).bearer("unknown"),
        Call::get(SELF).bearer(&other.secret),
        Call::get(SELF).bearer(&token),
        Call::get(SELF).header("authorization", &key.secret),
        Call::get(SELF),
    ] {
        answers.push(ask(call).await.expect(400).text());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let filtered = Call::get(&format!("{SELF}?filter=key_id={}", other.id)).bearer(&key.secret);
    ask(filtered).await.expect_error(400, "BAD_REQUEST");
    // The admin plane has it as well, for clients with one base URL.
    talos.admin.send(Version::Http1, Call::get(SELF).bearer(&key.secret)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_holders_are_limited_with_self_revocations() {
    let talos = setup().set("TALOS_SERVE_PUBLIC_SELF_REVOKE_PER_ADDRESS", "2").start().await;
    let key = talos.issue(json!({})).await;
    let ask = async || talos.public.send(Version::Http1, Call::get(SELF).bearer(&key.secret)).await;
    ask().await.expect(200);
    talos.self_revoke("unknown").await.expect(400);
    let refused = ask().await.expect(429);
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn erasure_takes_the_usage_with_it() {
    let setup = setup();
    let (talos, other) = (setup.start().await, setup.start().await);
    let [issued, imported, of_actor, kept] = [
        talos.issue(json!({})).await,
        talos.import("legacy-key", json!({})).await,
        talos.issue(json!({ "actor_id": "gone" })).await,
        talos.issue(json!({ "actor_id": "kept" })).await,
    ];
    let all = [&issued, &imported, &of_actor, &kept];
    for key in all {
        talos.check(Check::bearer(&key.secret)).await.allowed();
        other.check(Check::bearer(&key.secret)).await.allowed();
    }
    counted(&talos, "", 8).await;
    // Some are still in memory when the key goes.
    for key in all {
        talos.check(Check::bearer(&key.secret)).await.allowed();
    }
    for path in [
        format!("{ISSUED}/{}", issued.id),
        format!("{IMPORTED}/{}", imported.id),
        "/v2alpha1/admin/actors/gone?force=true".to_owned(),
    ] {
        let reply = talos.admin.send(Version::Http1, Call::new("DELETE", &path)).await;
        assert!([200, 204].contains(&reply.status), "{reply:?}");
    }
    talos.stop().await;
    other.stop().await;
    let talos = setup.start().await;
    let by_key = rows(&talos, "group_by=key").await;
    for key in [&issued, &imported, &of_actor] {
        assert!(!by_key.iter().any(|row| row["key_id"] == *key.id), "{by_key:?}");
    }
    let of_kept = by_key.iter().find(|row| row["key_id"] == *kept.id).unwrap();
    assert_eq!(of_kept["count"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_beyond_the_bound_are_counted_together() {
    let talos = setup().set("TALOS_USAGE_MAX_ROWS", "100").start().await;
    let grpc = talos.grpc().await;
    for _ in 0..120 {
        let key = talos.issue(json!({})).await;
        grpc.check(&Check::bearer(&key.secret).build()).await.allowed();
    }
    counted(&talos, "", 120).await;
    let others = total(&talos, "key_id=other").await;
    assert!(others >= 20, "{others}");
    assert_eq!(talos.metric("talos_usage_overflowed_total").await, others as f64);
    assert!(talos.metric("talos_usage_rows").await >= 100.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_checks_are_counted_and_only_if_enabled() {
    let setup = setup();
    let off = setup.clone().set("TALOS_USAGE_ENABLED", "false").start().await;
    let key = off.issue(json!({})).await;
    off.check(Check::bearer(&key.secret)).await.allowed();
    off.stop().await;
    let talos = setup.start().await;
    assert_eq!(total(&talos, "").await, 0);
    talos.verify(&key.secret).await;
    talos.check(Check::bearer(&key.secret)).await.allowed();
    counted(&talos, "", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_see_their_own_usage() {
    let one = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    let two = "6ba7b811-9dad-41d1-80b4-00c04fd430c8";
    let networks = format!("[{{hostname: one.test, id: {one}}}, {{hostname: two.test, id: {two}}}]");
    let setup: Setup = setup()
        .set("TALOS_MULTITENANCY_ENABLED", "true")
        .set("TALOS_MULTITENANCY_NETWORKS", &networks)
        .set("TALOS_SERVE_HTTP_ALLOWED_HOSTS", "one.test,two.test");
    let talos = setup.start().await;
    let of = async |host: &str, call: Call| talos.admin.send(Version::Http1, call.header("host", host)).await;
    let body = json!({ "name": "a", "actor_id": "b" });
    let issued = of("one.test", Call::post(ISSUED).json(&body)).await.expect(201).json();
    talos.check(Check::bearer(issued.text("/secret")).host("one.test")).await.allowed();
    let count = async |host| of(host, Call::get(USAGE)).await.expect(200).json().at("/rows/0/count").clone();
    until("it is counted", async || (count("one.test").await == 1).then_some(())).await;
    assert_eq!(count("two.test").await, 0);
}
