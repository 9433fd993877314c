//! Several limits of one key: charged together or not at all, by key and by actor, at what a route
//! costs.

use serde_json::{Value, json};

use super::{burst, failures, limited, three};
use crate::edge::Edge;
use crate::rig::check::Check;
use crate::rig::http::{BOTH, Call, Version};
use crate::rig::redis::{Cluster, Redis};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{IMPORTED, ISSUED, Key, Setup, Talos, VERIFY};

/// A policy of an hour, in which nothing becomes free while a test runs.
fn policy(name: &str, quota: u32) -> Value {
    json!({ "name": name, "quota": quota.to_string(), "window": "3600s" })
}

fn by_actor(name: &str, quota: u32) -> Value {
    json!({ "name": name, "quota": quota.to_string(), "window": "3600s", "scope": "ACTOR" })
}

/// A policy in the form in which responses have it.
fn shown(policy: &Value) -> Value {
    let mut shown = json!({ "unit": "requests", "scope": "KEY", "enforce": "TALOS" });
    for (name, value) in policy.as_object().must("a policy") {
        shown[name] = value.clone();
    }
    shown
}

async fn key(talos: &Talos, policies: &[Value]) -> Key {
    talos.issue(json!({ "rate_limit_policies": policies })).await
}

fn path(key: &Key) -> String {
    format!("{ISSUED}/{}", key.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_charged_to_all_limits_or_to_none() {
    let talos = limited().start().await;
    let limits = [policy("default", 5), by_actor("day", 3)];
    let (one, other) = (key(&talos, &limits).await, key(&talos, &limits).await);
    let stranger = talos.issue(json!({ "actor_id": "stranger", "rate_limit_policies": limits })).await;
    for key in [&one, &other, &one] {
        talos.check(Check::bearer(&key.secret)).await.allowed();
    }
    for key in [&one, &other, &one, &one, &one] {
        let denied = talos.check(Check::bearer(&key.secret)).await.denied(429);
        assert_eq!(denied.header("ratelimit"), Some("\"day\";r=0"));
        let all = "\"default\";q=5;w=3600, \"day\";q=3;w=3600";
        assert_eq!(denied.header("ratelimit-policy"), Some(all));
        assert!(denied.header("retry-after").is_some());
    }
    talos.check(Check::bearer(&stranger.secret)).await.allowed();
    // Refused uses cost the other limit nothing: of five, two are used.
    talos.patch(&path(&one), &json!({ "rate_limit_policies": [policy("default", 5)] })).await.expect(200);
    let verified = talos.admin.post(VERIFY, &json!({ "credential": one.secret })).await.expect(200);
    assert_eq!(verified.header("ratelimit"), Some("\"default\";r=2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_envoy_learns_of_the_limit_that_is_nearest_to_its_end() {
    needs!(Envoy);
    let edge = Edge::with(limited(), &[]).await;
    let key = key(&edge.talos, &[policy("default", 3), policy("wide", 100)]).await;
    for (version, left) in [(Version::Http1, 2), (Version::Http2, 1), (Version::Http1, 0)] {
        let reply = edge.send(version, Call::get("/").bearer(&key.secret)).await.expect(200);
        edge.seen();
        assert_eq!(reply.header("ratelimit").must("RateLimit"), format!("\"default\";r={left}"));
        let all = "\"default\";q=3;w=3600, \"wide\";q=100;w=3600";
        assert_eq!(reply.header("ratelimit-policy"), Some(all));
    }
    for version in BOTH {
        let reply = edge.refuses(version, Call::get("/").bearer(&key.secret), 429).await;
        assert_eq!(reply.header("ratelimit"), Some("\"default\";r=0"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_says_what_a_request_costs() {
    let talos = limited().start().await;
    let key = key(&talos, &[policy("default", 10), policy("wide", 20)]).await;
    let left = async |ask: Check| {
        let allowed = talos.check(ask).await.allowed();
        let added = allowed.ok.response_headers_to_add.iter().filter_map(|option| option.header.as_ref());
        let mut rate = added.filter(|header| header.key == "ratelimit").map(|header| header.value.clone());
        rate.next_back().filter(|rate| !rate.is_empty())
    };
    let ask = || Check::bearer(&key.secret);
    let rest = |left: u32| Some(format!("\"default\";r={left}"));
    assert_eq!(left(ask().route("talos.cost", "4")).await, rest(6));
    assert_eq!(left(ask().metadata("talos", &json!({ "cost": 3 }))).await, rest(3));
    assert_eq!(left(ask().route("talos.cost", "0")).await, None, "it isn't counted");
    let denied = talos.check(ask().route("talos.cost", "4")).await.denied(429);
    assert_eq!(denied.header("ratelimit"), Some("\"default\";r=3"));
    assert_eq!(left(ask()).await, rest(2));
    assert_eq!(left(ask().route("talos.cost", "2")).await, rest(0));
    talos.check(ask()).await.denied(429);
    talos.check(ask().route("talos.cost", "0")).await.allowed();
    for bad in ["", "-1", "1.5", "10001", "many"] {
        talos.check(ask().route("talos.cost", bad)).await.denied(500);
    }
    // Waiting helps, but not a request that costs more than the whole quota.
    for (cost, helps) in [("10", true), ("11", false)] {
        let denied = talos.check(ask().route("talos.cost", cost)).await.denied(429);
        assert_eq!(denied.header("retry-after").is_some(), helps, "{cost}");
    }
    let log = talos.process.log();
    assert!(log.contains("talos.cost: must be a whole number from 0 to 10000"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_the_file_say_what_a_request_costs() {
    let rules = r#"[{"path":{"prefix":"/report"},"cost":8},{"path":{"prefix":"/ping"},"cost":0}]"#;
    let talos = limited().set("TALOS_AUTHZ_ROUTES", rules).start().await;
    let key = key(&talos, &[policy("default", 10)]).await;
    let ask = |path| Check::bearer(&key.secret).path(path);
    talos.check(ask("/report/a")).await.allowed();
    talos.check(ask("/report/a")).await.denied(429);
    for _ in 0..5 {
        talos.check(ask("/ping")).await.allowed();
    }
    for _ in 0..2 {
        talos.check(ask("/other")).await.allowed();
    }
    talos.check(ask("/other")).await.denied(429);
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limit_policy_stands_for_the_limit_named_default() {
    let talos = limited().start().await;
    let first = json!({ "quota": "7", "unit": "requests", "window": "60s" });
    let alone = talos.issue(json!({ "rate_limit_policy": first })).await;
    let get = async |key: &Key| talos.admin.get(&path(key)).await.expect(200).json();
    assert_eq!(get(&alone).await.at("/rate_limit_policy"), &first);
    assert!(get(&alone).await.get("rate_limit_policies").is_none(), "the SDK sees what it saw");

    let burst = policy("burst", 2);
    let key = key(&talos, &[burst.clone(), by_actor("default", 9)]).await;
    let answer = get(&key).await;
    let hour = json!({ "quota": "9", "unit": "requests", "window": "3600s" });
    assert_eq!(answer.at("/rate_limit_policy"), &hour);
    assert_eq!(answer["rate_limit_policies"], json!([shown(&burst), shown(&by_actor("default", 9))]));
    // Sent back as it is, it changes nothing.
    let same = talos.patch(&path(&key), &answer).await.expect(200);
    assert_eq!(same.json(), answer);

    let changed = talos.patch(&path(&key), &json!({ "rate_limit_policy": first })).await.expect(200).json();
    let minute = json!({ "name": "default", "quota": "7", "window": "60s", "scope": "ACTOR" });
    assert_eq!(changed.at("/rate_limit_policy"), &first);
    assert_eq!(changed["rate_limit_policies"], json!([shown(&burst), shown(&minute)]));
    let differ = json!({ "rate_limit_policy": hour, "rate_limit_policies": [minute] });
    let error = talos.patch(&path(&key), &differ).await.expect(400).json();
    assert_eq!(error.at("/error/details/0/metadata/field"), "rate_limit_policy");

    let rotated = talos.admin.post(&format!("{}:rotate", path(&key)), &json!({})).await.expect(201).json();
    assert_eq!(rotated.at("/issued_api_key/rate_limit_policies"), &changed["rate_limit_policies"]);
    assert_eq!(rotated.at("/issued_api_key/rate_limit_policy"), &first);
    let next = format!("{ISSUED}/{}", rotated.text("/issued_api_key/key_id"));
    let one = talos.patch(&format!("{next}?update_mask=rate_limit_policies"), &json!({})).await.expect(200);
    assert!(one.json().get("rate_limit_policies").is_none() && one.json().get("rate_limit_policy").is_none());
    let listed = talos.admin.get(ISSUED).await.expect(200).json();
    let listed = listed["issued_api_keys"].as_array().must("keys").clone();
    let old = listed.iter().find(|listed| listed["key_id"] == key.id.as_str()).must("the old key");
    assert_eq!(old["rate_limit_policies"], changed["rate_limit_policies"]);

    let both = json!({ "rate_limit_policy": first, "rate_limit_policies": [burst] });
    let imported = talos.import("legacy-limits", both).await;
    let answer = talos.admin.get(&format!("{IMPORTED}/{}", imported.id)).await.expect(200).json();
    assert_eq!(answer["rate_limit_policies"].as_array().must("policies").len(), 2);
    for left in [1, 0] {
        let verified = talos.admin.post(VERIFY, &json!({ "credential": imported.secret })).await.expect(200);
        assert_eq!(verified.header("ratelimit").must("RateLimit"), format!("\"burst\";r={left}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_enforced_is_refused() {
    let talos = limited().start().await;
    let refused = async |policies: Value| {
        let body = json!({ "name": "n", "actor_id": "a", "rate_limit_policies": policies });
        let error = talos.admin.post(ISSUED, &body).await.expect(400).json();
        error.at("/error/details/0/metadata/field").as_str().must("a field").to_owned()
    };
    let nine: Vec<Value> = (0..9).map(|number| policy(&format!("p{number}"), 1)).collect();
    assert_eq!(refused(json!(nine)).await, "rate_limit_policies");
    assert_eq!(refused(json!([policy("a", 1), policy("a", 2)])).await, "rate_limit_policies[1].name");
    assert_eq!(refused(json!([policy("No", 1)])).await, "rate_limit_policies[0].name");
    let envoy = json!({ "name": "edge", "quota": "1", "window": "90s", "enforce": "ENVOY" });
    assert_eq!(refused(json!([envoy])).await, "rate_limit_policies[0].window");
    // An alias that its policy can't have.
    let edge = json!([{ "name": "default", "quota": "1", "window": "60s", "enforce": "ENVOY" }]);
    let key = talos.issue(json!({ "rate_limit_policies": edge })).await;
    let alias = json!({ "rate_limit_policy": { "quota": "1", "window": "90s" } });
    let error = talos.patch(&path(&key), &alias).await.expect(400).json();
    assert_eq!(error.at("/error/details/0/metadata/field"), "rate_limit_policies[0].window");
}

/// Waits until uses of keys that `issuer` issued are counted.
async fn until_counted(issuer: &Talos, talos: &Talos) {
    until("uses are counted", async || {
        let probe = key(issuer, &[policy("default", 1), policy("wide", 100)]).await;
        talos.check(Check::bearer(&probe.secret)).await;
        (!talos.check(Check::bearer(&probe.secret)).await.passes()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_an_actor_stand_on_one_node_of_a_cluster() {
    needs!(Redis);
    let cluster = Cluster::start_tls().await;
    let talos = cluster.used_by(limited()).set("TALOS_RATE_LIMIT_BACKEND", "redis").start().await;
    until_counted(&talos, &talos).await;
    let processes = [talos];
    let [talos] = &processes;
    // Enough actors for each of the three nodes.
    for actor in 0..12 {
        let issue = async || {
            let limits = [policy("default", 2), by_actor("day", 3)];
            let actor = format!("actor:{actor}");
            talos.issue(json!({ "actor_id": actor, "rate_limit_policies": limits })).await
        };
        let (one, other) = (issue().await, issue().await);
        let before = failures(&processes).await;
        let mut passed = 0;
        for key in [&one, &one, &one, &other, &other] {
            passed += usize::from(talos.check(Check::bearer(&key.secret)).await.passes());
        }
        let uncounted = failures(&processes).await - before;
        assert!((3..=3 + uncounted).contains(&passed), "{passed} of 3, {uncounted} not counted");
    }
    let spread = cluster.names("talos:v1:limit:*").await;
    assert!(spread.iter().all(|count| *count > 0), "{spread:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_on_one_redis_charge_all_limits_or_none() {
    needs!(Redis);
    let redis = Redis::start().await;
    let processes = three(&redis).await;
    let [first, ..] = &processes;
    for talos in &processes {
        until_counted(first, talos).await;
    }
    let before = failures(&processes).await;
    let issue = async || {
        let limits = [policy("default", 40), by_actor("day", 60)];
        first.issue(json!({ "actor_id": "fleet", "rate_limit_policies": limits })).await
    };
    let (one, other) = (issue().await, issue().await);
    let (one_passed, other_passed) = tokio::join!(burst(&processes, &one, 90), burst(&processes, &other, 90));
    // Uses that Redis didn't count in time on a busy machine pass.
    let uncounted = failures(&processes).await - before;
    assert!(one_passed <= 40 + uncounted && other_passed <= 40 + uncounted, "{one_passed} {other_passed}");
    let passed = one_passed + other_passed;
    assert!((60..=60 + uncounted).contains(&passed), "{passed} of 60, {uncounted} not counted");
    // Names of one actor's buckets have one hash tag, and none outlives its debt.
    let of_actor = redis.times_to_live("talos:v1:limit:{*}:actor:day:3600000000").await;
    assert_eq!(of_actor.len(), 1);
    let left = redis.times_to_live("talos:v1:limit:*").await;
    assert!(left.iter().all(|millis| (1..=3_600_000).contains(millis)), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_has_the_limits_for_envoy_and_the_end_of_the_lease() {
    let talos = limited().start().await;
    let edge = json!({ "name": "edge", "quota": "250", "window": "60s", "enforce": "ENVOY" });
    let key = key(&talos, &[edge, policy("burst", 2)]).await;
    let other = talos.issue(json!({})).await;
    let now =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).must("a time").as_secs_f64();
    for _ in 0..2 {
        let before = now();
        let allowed = talos.check(Check::bearer(&key.secret)).await.allowed();
        assert_eq!(allowed.fact("limit_edge"), json!({ "requests_per_unit": 250.0, "unit": "MINUTE" }));
        assert!(!allowed.has("limit_burst") && !allowed.has("limit_default"));
        let fresh_until = allowed.fact("fresh_until").as_f64().must("a number");
        assert!(fresh_until <= now() + 5.0, "{fresh_until}: at most a lease from now");
        assert!(fresh_until >= before - 60.0, "{fresh_until}");
        let allowed = talos.check(Check::bearer(&other.secret)).await.allowed();
        assert!(!allowed.has("limit_edge") && allowed.has("fresh_until"));
    }
    let denied = talos.check(Check::bearer(&key.secret)).await.denied(429);
    assert!(denied.fact("limit_edge").is_none() && denied.fact("fresh_until").is_none());
    let token = talos.derive(&other, json!({})).await;
    let allowed = talos.check(Check::bearer(&token)).await.allowed();
    assert!(allowed.fact("fresh_until").as_f64().must("a number") > now());
    assert!(!talos.check(Check::default().route("talos.mode", "off")).await.allowed().has("fresh_until"));
    // `fresh_until` moves with the lease.
    let ask = async || talos.check(Check::bearer(&other.secret)).await.allowed().fact("fresh_until").as_f64();
    let first = ask().await.must("a number");
    until("the next lease", async || (ask().await.must("a number") > first).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_can_leave_the_limits_as_they_are() {
    let talos = limited().start().await;
    let key = key(&talos, &[policy("default", 1)]).await;
    let body = json!({ "credential": key.secret });
    let verify = async |query: &str| talos.admin.post(&format!("{VERIFY}{query}"), &body).await;
    for _ in 0..3 {
        let reply = verify("?charge=false").await.expect(200);
        assert_eq!((reply.header("ratelimit"), reply.json()["is_valid"].as_bool()), (None, Some(true)));
    }
    for (arguments, valid) in
        [(vec![], true), (vec!["--charge"], true), (vec!["--charge"], false), (vec![], true)]
    {
        let endpoint = talos.admin.url("");
        let mut command = vec!["keys", "verify", key.secret.as_str(), "-e", &endpoint];
        command.extend(arguments);
        let output = talos.setup.run(&command).await;
        assert_eq!(output.status.success(), valid, "{command:?}: {output:?}");
    }
    assert_eq!(verify("").await.expect(200).json()["is_valid"], false);
    assert_eq!(verify("?charge=true").await.expect(200).json()["is_valid"], false);
    assert_eq!(
        verify("?charge=maybe").await.expect(400).json().at("/error/details/0/metadata/field"),
        "charge"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_are_not_enforced_are_reported() {
    let talos = Setup::new().start().await;
    let text = "rate_limit.enabled is false: the limits of this key are stored and reported, not enforced";
    let warning = format!("299 talos \"{text}\"");
    let body = json!({ "name": "n", "actor_id": "a", "rate_limit_policies": [policy("burst", 1)] });
    let issued = talos.admin.post(ISSUED, &body).await.expect(201);
    assert_eq!(issued.header("warning"), Some(warning.as_str()));
    let issued = issued.json();
    assert_eq!(issued.at("/issued_api_key/warnings"), &json!([text]));
    let path = format!("{ISSUED}/{}", issued.text("/issued_api_key/key_id"));
    let answer = talos.admin.get(&path).await.expect(200).json();
    assert_eq!(answer["warnings"], json!([text]));
    talos.patch(&path, &answer).await.expect(200);
    let listed = talos.admin.get(ISSUED).await.expect(200).json();
    assert_eq!(listed.at("/issued_api_keys/0/warnings"), &json!([text]));
    let own = Call::get("/v2alpha1/usage:self").bearer(issued.text("/secret"));
    let own = talos.public.send(Version::Http1, own).await.expect(200).json();
    assert_eq!(own.at("/key/warnings"), &json!([text]), "its holder learns it, too");
    let verify = json!({ "credential": issued.text("/secret") });
    let verified = talos.admin.post(VERIFY, &verify).await.expect(200);
    assert_eq!(verified.header("warning"), Some(warning.as_str()));
    for verb in ["suspend", "resume"] {
        let changed = talos.admin.post(&format!("{path}:{verb}"), &json!({})).await.expect(200).json();
        assert_eq!(changed["warnings"], json!([text]), "{verb}");
    }
    let old = talos.issue(json!({ "rate_limit_policies": [policy("burst", 1)] })).await;
    let grace = json!({ "grace_period": "1h" });
    talos.admin.post(&format!("{ISSUED}/{}:rotate", old.id), &grace).await.expect(201);
    let finished = talos.admin.post(&format!("{ISSUED}/{}:finish", old.id), &json!({})).await.expect(200);
    assert_eq!(finished.json()["warnings"], json!([text]));
    let edge = json!([{ "name": "edge", "quota": "1", "window": "60s", "enforce": "ENVOY" }]);
    let changed = talos.patch(&path, &json!({ "rate_limit_policies": edge })).await.expect(200);
    assert_eq!((changed.header("warning"), changed.json().get("warnings")), (None, None));
    assert_eq!(talos.admin.post(VERIFY, &verify).await.expect(200).header("warning"), None);
    let enforced = limited().start().await;
    let issued = enforced.admin.post(ISSUED, &body).await.expect(201);
    assert_eq!(issued.header("warning"), None);
    assert!(issued.json().at("/issued_api_key").get("warnings").is_none());
}
