//! Limits of actors: each counts the uses of all keys of one actor, whatever limits those have.

use serde_json::{Value, json};

use super::{burst, failures, limited, three};
use crate::cli::Cli;
use crate::rig::check::Check;
use crate::rig::http::{Call, Reply, Version};
use crate::rig::redis::Redis;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{ISSUED, Key, Setup, Talos, VERIFY};

const ACTOR: &str = "/v2alpha1/admin/actors/fleet%3A7";

/// A limit of an hour, in which nothing becomes free while a test runs.
fn limit(name: &str, quota: u32) -> Value {
    json!({ "name": name, "quota": quota.to_string(), "window": "3600s" })
}

fn limits(list: &[Value]) -> Value {
    json!({ "rate_limit_policies": list })
}

async fn key(talos: &Talos, own: &[Value]) -> Key {
    talos.issue(json!({ "actor_id": "fleet:7", "rate_limit_policies": own })).await
}

async fn verify(talos: &Talos, key: &Key) -> Reply {
    talos.admin.post(VERIFY, &json!({ "credential": key.secret })).await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_an_actor_counts_all_its_keys() {
    let talos = limited().start().await;
    let (plain, own) = (key(&talos, &[]).await, key(&talos, &[limit("default", 2)]).await);
    let stranger = talos.issue(json!({ "actor_id": "fleet:8" })).await;
    // Known keys learn of the limit, too.
    for key in [&plain, &own, &stranger] {
        talos.check(Check::bearer(&key.secret).route("talos.cost", "0")).await.allowed();
    }
    let actor = talos.patch(ACTOR, &limits(&[limit("day", 4)])).await.expect(200).json();
    let shown = json!([{ "name": "day", "quota": "4", "window": "3600s", "unit": "requests", "scope": "ACTOR",
        "enforce": "TALOS" }]);
    assert_eq!(actor["rate_limit_policies"], shown);
    let got = talos.admin.get(&format!("{ISSUED}/{}", plain.id)).await.expect(200).json();
    assert_eq!(got["actor_rate_limit_policies"], shown);
    assert!(got.get("rate_limit_policies").is_none(), "it has none itself");
    // Sent back as it is, it changes nothing.
    let sent_back = talos.patch(&format!("{ISSUED}/{}", plain.id), &got).await.expect(200).json();
    assert_eq!(sent_back, got);

    let header = |reply: Reply, name: &str| reply.header(name).must(name).to_owned();
    let reply = verify(&talos, &plain).await;
    assert_eq!(header(reply, "ratelimit"), "\"day\";r=3");
    let reply = verify(&talos, &own).await;
    assert_eq!(header(reply, "ratelimit-policy"), "\"default\";q=2;w=3600, \"day\";q=4;w=3600");
    // Its own limit is nearer to its end.
    assert_eq!(header(verify(&talos, &own).await, "ratelimit"), "\"default\";r=0");
    talos.check(Check::bearer(&own.secret)).await.denied(429);
    // What one limit refused cost the other nothing. Keys that are issued later count as well.
    let later = key(&talos, &[]).await;
    assert_eq!(header(verify(&talos, &later).await, "ratelimit"), "\"day\";r=0");
    for key in [&plain, &later] {
        let denied = talos.check(Check::bearer(&key.secret)).await.denied(429);
        assert_eq!(denied.header("ratelimit"), Some("\"day\";r=0"));
        assert!(denied.header("retry-after").is_some());
        talos.check(Check::bearer(&key.secret).route("talos.cost", "0")).await.allowed();
    }
    assert_eq!(verify(&talos, &stranger).await.header("ratelimit-policy"), None);

    let rotated = talos.admin.post(&format!("{ISSUED}/{}:rotate", plain.id), &json!({})).await.expect(201);
    let next = rotated.json().text("/secret").to_owned();
    talos.check(Check::bearer(&next)).await.denied(429);
    // Without its limit, the actor's keys are free again, and what they have themselves stays.
    let cleared = talos.patch(&format!("{ACTOR}?update_mask=rate_limit_policies"), &json!({})).await;
    assert!(cleared.expect(200).json().get("rate_limit_policies").is_none());
    talos.check(Check::bearer(&next)).await.allowed();
    assert_eq!(header(verify(&talos, &own).await, "ratelimit-policy"), "\"default\";q=2;w=3600");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_the_place_of_a_keys_limit_by_actor_and_goes_behind_one_for_envoy() {
    let talos = limited().start().await;
    let mut by_actor = limit("day", 100);
    by_actor["scope"] = "ACTOR".into();
    let edge = |quota: &str| json!({ "name": "edge", "quota": quota, "window": "60s", "enforce": "ENVOY" });
    let both = key(&talos, &[by_actor, edge("9")]).await;
    let plain = key(&talos, &[]).await;
    talos.patch(ACTOR, &limits(&[limit("day", 2), edge("50")])).await.expect(200);
    let allowed = talos.check(Check::bearer(&both.secret)).await.allowed();
    assert_eq!(allowed.fact("limit_edge"), json!({ "requests_per_unit": 9.0, "unit": "MINUTE" }));
    let allowed = talos.check(Check::bearer(&plain.secret)).await.allowed();
    assert_eq!(allowed.fact("limit_edge"), json!({ "requests_per_unit": 50.0, "unit": "MINUTE" }));
    let denied = talos.check(Check::bearer(&both.secret)).await.denied(429);
    assert_eq!(denied.header("ratelimit-policy"), Some("\"day\";q=2;w=3600"));
    // The holder sees it.
    let own = Call::get("/v2alpha1/usage:self").bearer(&plain.secret);
    let own = talos.public.send(Version::Http1, own).await.expect(200).json();
    assert_eq!(own.text("/key/actor_rate_limit_policies/0/name"), "day");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_enforced_is_refused_or_told() {
    let talos = Setup::new().start().await;
    let envoy = json!({ "name": "edge", "quota": "1", "window": "90s", "enforce": "ENVOY" });
    let mut by_key = limit("a", 1);
    by_key["scope"] = "KEY".into();
    let mut bytes = limit("default", 1);
    bytes["unit"] = "content-bytes".into();
    let nine: Vec<Value> = (0..9).map(|number| limit(&format!("p{number}"), 1)).collect();
    for (list, field) in [
        (vec![envoy], "rate_limit_policies[0].window"),
        (vec![limit("a", 1), by_key], "rate_limit_policies[1].scope"),
        (vec![bytes], "rate_limit_policies[0].unit"),
        (vec![limit("a", 0)], "rate_limit_policies[0].quota"),
        (vec![limit("a", 1), limit("a", 2)], "rate_limit_policies[1].name"),
        (nine, "rate_limit_policies"),
    ] {
        let error = talos.patch(ACTOR, &limits(&list)).await.expect(400).json();
        assert_eq!(error.text("/error/details/0/metadata/field"), field);
    }
    assert!(
        talos.admin.get(ACTOR).await.expect(200).json().get("create_time").is_none(),
        "nothing is written"
    );

    let warning =
        "rate_limit.enabled is false: the limits of this actor are stored and reported, not enforced";
    let reply = talos.patch(ACTOR, &limits(&[limit("default", 1)])).await.expect(200);
    assert_eq!(reply.header("warning"), Some(&*format!("299 talos \"{warning}\"")));
    assert_eq!(talos.admin.get(ACTOR).await.expect(200).json()["warnings"], json!([warning]));
    let key = key(&talos, &[]).await;
    let shown = talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.expect(200).json();
    assert!(shown.text("/warnings/0").starts_with("rate_limit.enabled is false"), "{shown:#}");
    // A limit named `default` is the actor's alone, and survives its row.
    assert!(shown.get("rate_limit_policy").is_none());
    assert_eq!(shown.text("/actor_rate_limit_policies/0/quota"), "1");
    let event = talos.admin.get("/v2alpha1/admin/events?after=oldest").await.expect(200).json();
    assert_eq!(event.text("/events/0/type"), "talos.actor.updated");
    assert_eq!(event.text("/events/0/data/changes/0/field"), "rate_limit_policies");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sets_and_clears_it() {
    let cli = Cli::start().await;
    let words =
        ["actors", "update", "fleet:7", "--rate-limit", "day=10000/24h", "--rate-limit", "burst=50/1s"];
    let shown = cli.run(&words).await.expect(0);
    assert_eq!(
        shown.field("RATE LIMITS"),
        "day: 10000 requests per 86400s, by actor; burst: 50 requests per 1s, by actor"
    );
    let key = key(&cli.talos, &[]).await;
    let shown = cli.run(&["keys", "issued", "get", &key.id]).await.expect(0);
    assert!(shown.field("ACTOR LIMITS").starts_with("day: 10000"), "{shown:#?}");
    let cleared = cli.run(&["actors", "update", "fleet:7", "--rate-limit", "", "-o", "json"]).await.json();
    assert!(cleared.get("rate_limit_policies").is_none(), "{cleared:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_count_an_actors_uses_together() {
    needs!(Redis);
    let redis = Redis::start().await;
    let processes = three(&redis).await;
    let [first, second, third] = &processes;
    let (one, other) = (key(first, &[limit("default", 40)]).await, key(first, &[]).await);
    first.patch(ACTOR, &limits(&[limit("day", 60)])).await.expect(200);
    for talos in [second, third] {
        until("the limit is known", async || {
            let verdict = talos.check(Check::bearer(&other.secret).route("talos.cost", "0")).await;
            if !verdict.passes() {
                return None;
            }
            let reply = verdict.allowed();
            let headers = reply.ok.response_headers_to_add.iter().filter_map(|option| option.header.as_ref());
            headers.map(|header| &header.key).any(|key| key == "ratelimit-policy").then_some(())
        })
        .await;
    }
    let before = failures(&processes).await;
    let (one_passed, other_passed) = tokio::join!(burst(&processes, &one, 90), burst(&processes, &other, 90));
    // Uses that Redis didn't count in time on a busy machine pass.
    let uncounted = failures(&processes).await - before;
    assert!(one_passed <= 40 + uncounted, "{one_passed}");
    let passed = one_passed + other_passed;
    assert!((60..=60 + uncounted).contains(&passed), "{passed} of 60, {uncounted} not counted");
}
