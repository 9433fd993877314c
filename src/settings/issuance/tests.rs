//! Policies against a naive reading of them.

use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::key::{ActorId, AddressList, KeyId, KeyName, Metadata};

const HOUR: Duration = Duration::from_secs(3_600);
const CREATED: Timestamp = Timestamp::from_secs(1_000_000);

/// A key with what policies look at.
fn key(fields: &Value) -> Key {
    let texts = |field: &str| {
        let texts = fields[field].as_array().into_iter().flatten();
        texts.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    Key {
        name: KeyName::parse(fields["name"].as_str().unwrap()).unwrap(),
        actor: ActorId::parse(fields["actor"].as_str().unwrap()).unwrap(),
        scopes: Scopes::parse(&texts("scopes")).unwrap(),
        metadata: fields["metadata"].as_object().map(|object| Metadata::new(object.clone()).unwrap()),
        visibility: Visibility::from_claim(fields["visibility"].as_str().unwrap()).unwrap(),
        addresses: AddressList::parse(&texts("cidrs")).unwrap(),
        expires: fields["hours"].as_u64().map(|hours| CREATED.plus(HOUR * u32::try_from(hours).unwrap())),
        ..Key::sample(KeyId::Issued(Uuid::from_u128(7)), CREATED)
    }
}

fn policy(fields: &Value) -> IssuancePolicy {
    serde_json::from_value(fields.clone()).unwrap_or_else(|error| panic!("{fields}: {error}"))
}

fn keys() -> impl Strategy<Value = Value> {
    let scopes = prop::sample::subsequence(vec!["orders:read", "orders:write", "admin", "orders:*"], 0..=2);
    let metadata = prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!({ "team": "a" })),
        Just(json!({ "team": null, "owner": 1 })),
        Just(json!({ "team": "a", "owner": "b" })),
    ];
    let cidrs = prop_oneof![Just(json!([])), Just(json!(["10.0.0.0/8"]))];
    let name = prop_oneof![Just("svc-a"), Just("backend"), Just("svc-")];
    let actor = prop_oneof![Just("user:1"), Just("service:1"), Just("user")];
    let visibility = prop_oneof![Just("secret"), Just("public")];
    let hours = prop::option::of(1..5_u64);
    (scopes, metadata, cidrs, name, actor, visibility, hours).prop_map(
        |(scopes, metadata, cidrs, name, actor, visibility, hours)| {
            json!({ "scopes": scopes, "metadata": metadata, "cidrs": cidrs, "name": name, "actor": actor,
                "visibility": visibility, "hours": hours })
        },
    )
}

fn policies() -> impl Strategy<Value = Value> {
    let applies_to = (
        prop::option::of(prop_oneof![Just("user:"), Just("service:"), Just("u")]),
        prop::option::of(prop_oneof![Just("secret"), Just("public")]),
        prop::option::of(prop_oneof![Just("issuer"), Just("admin"), Just("reader")]),
    );
    let rules = (
        prop::option::of(1..5_u64),
        any::<bool>(),
        prop::option::of(prop::sample::subsequence(vec!["orders:*", "orders:read", "admin"], 0..=2)),
        prop::sample::subsequence(vec!["team", "owner"], 0..=2),
        any::<bool>(),
        prop::option::of(Just("svc-[a-z]+")),
    );
    let times = (any::<bool>(), prop::option::of(-3..5_i64));
    (applies_to, rules, times).prop_map(|((prefix, visibility, role), rules, (is_for_all, from))| {
        let (hours, require_ttl, scopes, metadata, addresses, name) = rules;
        let from = from.map(|hours| Timestamp::from_secs(CREATED.as_secs() + hours * 3_600).to_rfc3339());
        let role = role.filter(|_| !is_for_all);
        json!({ "name": "p", "match": { "actor_prefix": prefix, "visibility": visibility, "role": role },
            "max_ttl": hours.map(|hours| format!("{hours}h")), "require_ttl": require_ttl,
            "allowed_scopes": scopes, "required_metadata": metadata, "require_ip_restriction": addresses,
            "name_pattern": name, "apply": if is_for_all { "all" } else { "new" }, "from": from })
    })
}

fn is_in(list: &Value, text: &Value) -> bool {
    list.as_array().is_some_and(|list| list.contains(text))
}

/// The fields of a key that break a policy, read off as a person would.
fn naive_violations(policy: &Value, key: &Value) -> Vec<&'static str> {
    let mut fields = vec![];
    if let Some(most) = policy["max_ttl"].as_str() {
        let most: u64 = most.trim_end_matches('h').parse().unwrap();
        if key["hours"].as_u64().is_none_or(|hours| hours > most) {
            fields.push("ttl");
        }
    }
    if policy["require_ttl"] == true && key["hours"].is_null() {
        fields.push("ttl");
    }
    let allowed = &policy["allowed_scopes"];
    let is_allowed = |scope: &Value| {
        let is_of_orders = scope.as_str().unwrap().starts_with("orders:");
        is_in(allowed, scope) || (is_in(allowed, &json!("orders:*")) && is_of_orders)
    };
    if !allowed.is_null() && !key["scopes"].as_array().unwrap().iter().all(is_allowed) {
        fields.push("scopes");
    }
    let required = policy["required_metadata"].as_array().unwrap();
    if required.iter().any(|name| key["metadata"][name.as_str().unwrap()].is_null()) {
        fields.push("metadata");
    }
    if policy["require_ip_restriction"] == true && key["cidrs"] == json!([]) {
        fields.push("ip_restriction");
    }
    if !policy["name_pattern"].is_null() && key["name"] != "svc-a" {
        fields.push("name");
    }
    fields
}

fn naive_match(policy: &Value, key: &Value) -> bool {
    let of = &policy["match"];
    let prefix = of["actor_prefix"].as_str().unwrap_or_default();
    key["actor"].as_str().unwrap().starts_with(prefix)
        && (of["visibility"].is_null() || of["visibility"] == key["visibility"])
}

fn naive_from(policy: &Value) -> Option<Timestamp> {
    policy["from"].as_str().map(|from| Timestamp::from_rfc3339(from).unwrap())
}

/// Returns true if a key may be used at a time by policies for all keys.
fn naively_counts(policies: &[Value], fields: &Value, at: Timestamp) -> bool {
    policies.iter().filter(|policy| policy["apply"] == "all" && naive_match(policy, fields)).all(|policy| {
        if naive_from(policy).is_some_and(|from| at < from) {
            return true;
        }
        // A key without an end, or one that is too late, ends by age alone.
        let is_young = policy["max_ttl"].as_str().is_none_or(|most| {
            let most: u32 = most.trim_end_matches('h').parse().unwrap();
            at < CREATED.plus(HOUR * most)
        });
        let without_age = {
            let mut policy = policy.clone();
            policy["max_ttl"] = Value::Null;
            policy
        };
        is_young && naive_violations(&without_age, fields).is_empty()
    })
}

proptest! {
    #[test]
    fn written_keys_are_judged_as_by_a_naive_reading(
        given in prop::collection::vec(policies(), 0..4),
        fields in keys(),
        now in -4..6_i64,
        is_admin in any::<bool>(),
        scope_set in prop::option::of(Just("reader")),
    ) {
        let now = Timestamp::from_secs(CREATED.as_secs() + now * 3_600);
        let role = if is_admin { Role::Admin } else { Role::Issuer };
        let found = IssuancePolicies::new(given.iter().map(policy).collect());
        let found = found.judge(&key(&fields), &Writer { role, scope_set }, now);
        let found: Vec<&str> = found.iter().map(|violation| violation.field).collect();
        let mut expected = vec![];
        for policy in &given {
            let wanted = &policy["match"]["role"];
            let is_for_role = wanted.is_null() || *wanted == role.name() || Some(wanted) == scope_set.map(Value::from).as_ref();
            if is_for_role && naive_match(policy, &fields) && naive_from(policy).is_none_or(|from| from <= now) {
                expected.extend(naive_violations(policy, &fields));
            }
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_key_ends_as_a_person_would_read_it(
        given in prop::collection::vec(policies(), 0..4),
        fields in keys(),
    ) {
        let found = IssuancePolicies::new(given.iter().map(policy).collect()).end_of(&key(&fields));
        let own_end = fields["hours"].as_i64();
        for minutes in (-300..400).step_by(30) {
            let at = Timestamp::from_secs(CREATED.as_secs() + minutes * 60);
            if own_end.is_some_and(|hours| minutes >= hours * 60) {
                continue;
            }
            let counts = found.as_ref().is_none_or(|end| at < end.at);
            prop_assert_eq!(counts, naively_counts(&given, &fields, at), "at {} minutes: {:?}", minutes, found);
        }
    }

    #[test]
    fn a_policy_is_written_as_it_was_read(fields in policies()) {
        let read = policy(&fields);
        let written = serde_json::to_value(&read).unwrap();
        prop_assert_eq!(policy(&written), read);
    }
}

#[test]
fn limits_are_those_of_matching_policies() {
    let policies = [
        json!({ "name": "users", "match": { "actor_prefix": "user:" }, "max_keys_per_actor": 3 }),
        json!({ "name": "public", "match": { "visibility": "public" }, "max_keys_per_actor": 1 }),
        json!({ "name": "later", "from": "2000-01-01T00:00:00Z", "max_keys_per_actor": 2 }),
    ];
    let policies = IssuancePolicies::new(policies.iter().map(policy).collect());
    let fields = json!({ "name": "n", "actor": "user:1", "visibility": "public" });
    let limits = policies.limits(&key(&fields), &Writer { role: Role::Admin, scope_set: None }, CREATED);
    let found: Vec<(&str, u32)> = limits.iter().map(|limit| (limit.policy.as_str(), limit.most)).collect();
    assert_eq!(found, [("users", 3), ("public", 1)]);
    assert_eq!(limits[1].visibility, Some(Visibility::Public));
}

#[test]
fn bad_policies_are_named_by_their_place() {
    for (fields, place) in [
        (json!({ "require_ttl": true }), "[0].name"),
        (json!({ "name": "a b", "require_ttl": true }), "[0].name"),
        (json!({ "name": "a" }), "[0]"),
        (
            json!({ "name": "a", "require_ttl": true, "match": { "actor_prefix": "" } }),
            "[0].match.actor_prefix",
        ),
        (json!({ "name": "a", "require_ttl": true, "match": { "role": "viewer" } }), "[0].match.role"),
        (json!({ "name": "a", "require_ttl": true, "match": { "role": "admin" } }), "[0].match.role"),
        (
            json!({ "name": "a", "require_ttl": true, "apply": "all", "match": { "role": "reader" } }),
            "[0].match.role",
        ),
        (json!({ "name": "a", "max_ttl": "0" }), "[0].max_ttl"),
        (json!({ "name": "a", "required_metadata": [""] }), "[0].required_metadata"),
        (json!({ "name": "a", "max_keys_per_actor": 1_000_001 }), "[0].max_keys_per_actor"),
    ] {
        let found = problems_of(&[policy(&fields)], &["reader", "admin"]);
        let places: Vec<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, [place], "{fields}");
    }
    let twice = policy(&json!({ "name": "a", "require_ttl": true }));
    assert_eq!(problems_of(&[twice.clone(), twice], &[])[0].0, "[1].name");
    for bad in [
        json!({ "name": "a", "max_ttl": "soon" }),
        json!({ "name": "a", "name_pattern": "(" }),
        json!({ "name": "a", "allowed_scopes": ["a b"] }),
        json!({ "name": "a", "from": "tomorrow" }),
        json!({ "name": "a", "apply": "old" }),
        json!({ "name": "a", "max_keys": 1 }),
    ] {
        assert!(serde_json::from_value::<IssuancePolicy>(bad.clone()).is_err(), "{bad}");
    }
}
