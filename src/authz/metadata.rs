//! The dynamic metadata of an answer: what Envoy's access log, rate limits and RBAC may know.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use super::response::Caller;
use crate::key::KeyId;

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

pub fn json(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    value(match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(truth) => Kind::BoolValue(truth),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(0.0)),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(self::json).collect() })
        }
        Json::Object(members) => Kind::StructValue(Struct {
            fields: members.into_iter().map(|(name, member)| (name, self::json(member))).collect(),
        }),
    })
}
