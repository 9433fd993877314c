//! Dynamic metadata of a response, for Envoy's access log, rate limit and RBAC filters.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use super::principal::Principal;
use crate::clock::Timestamp;
use crate::key::strict::MAX_SAFE;
use crate::key::{Key, KeyId};

/// Returns the metadata of a request that passes.
pub(super) fn allowed(principal: Option<&Principal<'_>>, reason: &'static str) -> Struct {
    let mut metadata = principal.map(of_principal).unwrap_or_default();
    let limits = principal.and_then(|principal| principal.rate_limits_of);
    for (name, (requests, unit)) in limits.into_iter().flat_map(Key::envoy_limits) {
        // In the form that Envoy's rate limit filter reads.
        let limit = [("requests_per_unit", number(requests.into())), ("unit", text(unit))];
        let fields = limit.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        metadata
            .fields
            .insert(format!("limit_{}", name.as_str()), value(Kind::StructValue(Struct { fields })));
    }
    with_decision("allow", reason, metadata)
}

/// Fields that few principals have in common.
const OWN_FIELDS: [&str; 3] = ["actor_id", "key_id", "metadata"];

/// Moves the fields that few principals have in common to metadata of their own.
pub(super) fn split_own(metadata: &mut Struct) -> Struct {
    let own = OWN_FIELDS.iter().filter_map(|name| metadata.fields.remove_entry(*name));
    Struct { fields: own.collect() }
}

/// Returns the metadata that says until when the answer counts, in seconds since 1970 UTC. In its
/// encoding, the last eight bytes are the number.
pub(super) fn fresh_until(end: Timestamp) -> Struct {
    Struct { fields: [("fresh_until".to_owned(), number(seconds(end)))].into() }
}

/// Returns the metadata with the credits that a key has left.
pub(super) fn credits(remaining: u64) -> Struct {
    // At most 10^15, so a double is exact.
    Struct { fields: [("credits_remaining".to_owned(), number(remaining as f64))].into() }
}

/// Returns a time as the number of [`fresh_until`]: to the millisecond, rounded down.
pub(super) fn seconds(time: Timestamp) -> f64 {
    time.as_micros().div_euclid(1_000) as f64 / 1_000.0
}

/// Returns the metadata of a denied request, without its principal.
pub(super) fn denied(reason: &'static str) -> Struct {
    with_decision("deny", reason, Struct::default())
}

fn with_decision(decision: &'static str, reason: &'static str, mut metadata: Struct) -> Struct {
    metadata.fields.insert("decision".to_owned(), text(decision));
    metadata.fields.insert("reason".to_owned(), text(reason));
    metadata
}

/// Returns the metadata of a principal.
pub(super) fn of_principal(principal: &Principal<'_>) -> Struct {
    let scopes = principal.scopes.iter().map(|scope| text(scope.as_str())).collect();
    let mut fields = vec![
        ("key_id", text(&principal.key_id)),
        ("network_id", text(&principal.network_id)),
        ("scopes", value(Kind::ListValue(ListValue { values: scopes }))),
        ("visibility", text(principal.visibility)),
    ];
    fields.extend(principal.actor.map(|actor| ("actor_id", text(actor))));
    let metadata = principal.metadata.map(|metadata| serde_json::Value::Object(metadata.object()));
    fields.extend(metadata.map(|metadata| ("metadata", json(metadata))));
    Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

/// Returns the metadata of a key of which only the id is known.
pub(super) fn of_key_id(key_id: &KeyId) -> Struct {
    Struct { fields: [("key_id".to_owned(), text(&key_id.to_string()))].into() }
}

const fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

const fn number(number: f64) -> Value {
    value(Kind::NumberValue(number))
}

fn text(text: &str) -> Value {
    value(Kind::StringValue(text.to_owned()))
}

/// Converts JSON to a protobuf value.
///
/// A number that a double can't hold becomes text: rounded, it would equal another key's.
pub(super) fn json(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    value(match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(truth) => Kind::BoolValue(truth),
        Json::Number(number) => match exact(&number) {
            Some(number) => Kind::NumberValue(number),
            None => Kind::StringValue(number.to_string()),
        },
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(self::json).collect() })
        }
        Json::Object(members) => Kind::StructValue(Struct {
            fields: members.into_iter().map(|(name, member)| (name, self::json(member))).collect(),
        }),
    })
}

/// Returns the double that equals a number, `None` beyond 2^53, where doubles have gaps.
///
/// New keys have no such numbers, but keys of earlier releases and tokens may.
fn exact(number: &serde_json::Number) -> Option<f64> {
    number.as_f64().filter(|double| double.abs() <= MAX_SAFE as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    proptest! {
        /// Envoy's filters can tell the metadata of two keys apart.
        #[test]
        fn different_integers_are_different_values(a in any::<i64>(), near in -3..3_i64) {
            let b = a.saturating_add(near);
            prop_assert_eq!(a == b, json(a.into()) == json(b.into()));
        }
    }

    #[test]
    fn numbers_are_doubles_or_texts() {
        let kind = |text: &str| json(serde_json::from_str(text).unwrap()).kind.unwrap();
        assert_eq!(kind("0.5"), Kind::NumberValue(0.5));
        assert_eq!(kind("-9007199254740991"), Kind::NumberValue(-9_007_199_254_740_991.0));
        for text in ["9007199254740992", "9007199254740993", "18446744073709551615", "-9223372036854775808"] {
            assert_eq!(kind(text), Kind::StringValue(text.to_owned()));
        }
    }
}
