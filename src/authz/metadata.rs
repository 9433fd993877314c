//! The dynamic metadata of an answer: what Envoy's access log, rate limits and RBAC may know.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use super::response::Caller;
use crate::key::KeyId;
use crate::key::strict::MAX_SAFE;

/// Of a request that passes.
pub fn allowed(caller: Option<&Caller<'_>>, reason: &'static str) -> Struct {
    decided("allow", reason, caller.map(of_caller).unwrap_or_default())
}

/// Of a refusal, without what was proven about the caller before.
pub fn denied(reason: &'static str) -> Struct {
    decided("deny", reason, Struct::default())
}

fn decided(decision: &'static str, reason: &'static str, mut known: Struct) -> Struct {
    known.fields.insert("decision".to_owned(), text(decision));
    known.fields.insert("reason".to_owned(), text(reason));
    known
}

/// All that is known of a caller.
pub fn of_caller(caller: &Caller<'_>) -> Struct {
    let scopes = caller.scopes.iter().map(|scope| text(scope.as_str())).collect();
    let mut fields = vec![
        ("key_id", text(&caller.key_id)),
        ("network_id", text(&caller.network_id)),
        ("scopes", value(Kind::ListValue(ListValue { values: scopes }))),
        ("visibility", text(caller.visibility)),
    ];
    fields.extend(caller.actor.map(|actor| ("actor_id", text(actor))));
    let metadata = caller.metadata.map(|metadata| serde_json::Value::Object(metadata.object()));
    fields.extend(metadata.map(|metadata| ("metadata", json(metadata))));
    Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

/// That possession of a key was proven, and nothing more.
pub fn of_key_id(key_id: &KeyId) -> Struct {
    Struct { fields: [("key_id".to_owned(), text(&key_id.to_string()))].into() }
}

const fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &str) -> Value {
    value(Kind::StringValue(text.to_owned()))
}

/// Makes a protobuf value of JSON. A number that a double can't hold goes as a text: rounded, it
/// would be another's.
pub fn json(json: serde_json::Value) -> Value {
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

/// The double that a number is. None beyond 2^53, where doubles have gaps: keys of earlier releases
/// and tokens may have such numbers.
fn exact(number: &serde_json::Number) -> Option<f64> {
    number.as_f64().filter(|double| double.abs() <= MAX_SAFE as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    proptest! {
        /// Whatever the attributes of two keys are, Envoy's filters tell them apart.
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
