//! Dynamic metadata of an answer, as the Envoy at hand can set it.

use prost::Message;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use crate::abi::{AbiVersion, Stream};

/// Namespace of the ext_authz filter, whose metadata this is.
pub(crate) const NAMESPACE: &str = "envoy.filters.http.ext_authz";
/// Field that tells the ext_authz filter behind the module to let the request pass.
pub(crate) const DECISION: &str = "decision";
/// Value of [`DECISION`].
pub(crate) const ALLOW: &str = "allow";
/// Value of [`DECISION`] in place of an [`ALLOW`] that isn't the module's: the filter behind it
/// asks, and overwrites it.
pub(crate) const ASKED: &str = "asked";
/// Field with the time until which the answer counts.
const FRESH_UNTIL: &str = "fresh_until";

/// Dynamic metadata, ready to be set.
pub(crate) struct Metadata {
    /// Encoded `google.protobuf.Struct`. Its last eight bytes are the number `fresh_until`.
    encoded: Vec<u8>,
    /// Fields one by one, for Envoys that don't take a `Struct`; `None` if they can't have one of
    /// them.
    fields: Option<Vec<(String, Field)>>,
}

/// Field that every Envoy since 1.38 can set by itself.
enum Field {
    Text(String),
    Number(f64),
    Bool(bool),
    /// List of texts, not empty: an empty one can't be made.
    Texts(Vec<String>),
}

impl Metadata {
    /// Takes over the server's metadata; `None` if they aren't those of an allowed request.
    pub(crate) fn read(metadata: Struct) -> Option<Self> {
        if metadata.fields.contains_key(FRESH_UNTIL) {
            return None;
        }
        let is_text = |key: &str, wanted: &str| {
            let kind = metadata.fields.get(key).and_then(|value| value.kind.as_ref());
            matches!(kind, Some(Kind::StringValue(text)) if text == wanted)
        };
        if !is_text(DECISION, ALLOW) {
            return None;
        }
        let number = Value { kind: Some(Kind::NumberValue(1.0)) };
        let fresh_until = Struct { fields: [(FRESH_UNTIL.to_owned(), number)].into() };
        // Concatenated encodings of two messages decode as their merge.
        let mut encoded = metadata.encode_to_vec();
        encoded.extend_from_slice(&fresh_until.encode_to_vec());
        let field = |(key, value): (String, Value)| Some((key, Field::of(value)?));
        let mut fields: Option<Vec<_>> = metadata.fields.into_iter().map(field).collect();
        // The decision comes last, when all else is there.
        fields.iter_mut().for_each(|fields| fields.sort_by_key(|(key, _)| key == DECISION));
        Some(Self { encoded, fields })
    }

    /// Returns true if an Envoy can set it exactly.
    pub(crate) const fn suits(&self, version: AbiVersion) -> bool {
        match version {
            AbiVersion::V1_40 => true,
            AbiVersion::V1_38 => self.fields.is_some(),
            // It has no lists, and each answer has one: the scopes.
            AbiVersion::V1_37 => false,
        }
    }

    /// Sets it, and returns whether the decision is there then.
    pub(crate) fn set(&self, stream: &mut Stream<'_>, fresh_until: f64) -> bool {
        if stream.version() >= AbiVersion::V1_40 {
            let mut encoded = self.encoded.clone();
            if let Some(number) = encoded.last_chunk_mut() {
                *number = fresh_until.to_le_bytes();
            }
            stream.set_metadata_struct(NAMESPACE, &encoded);
        } else {
            let Some(fields) = &self.fields else { return false };
            stream.set_metadata_number(NAMESPACE, FRESH_UNTIL, fresh_until);
            if !fields.iter().all(|(key, field)| field.set(stream, key)) {
                return false;
            }
        }
        stream.metadata_text(NAMESPACE, DECISION) == Some(ALLOW.as_bytes())
    }
}

impl Field {
    fn of(value: Value) -> Option<Self> {
        Some(match value.kind? {
            Kind::StringValue(text) => Self::Text(text),
            Kind::NumberValue(number) => Self::Number(number),
            Kind::BoolValue(truth) => Self::Bool(truth),
            Kind::ListValue(list) if !list.values.is_empty() => {
                let text = |value: Value| match value.kind {
                    Some(Kind::StringValue(text)) => Some(text),
                    _ => None,
                };
                Self::Texts(list.values.into_iter().map(text).collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }

    fn set(&self, stream: &mut Stream<'_>, key: &str) -> bool {
        match self {
            Self::Text(text) => stream.set_metadata_text(NAMESPACE, key, text.as_bytes()),
            Self::Number(number) => stream.set_metadata_number(NAMESPACE, key, *number),
            Self::Bool(truth) => return stream.set_metadata_bool(NAMESPACE, key, *truth),
            Self::Texts(texts) => {
                return texts.iter().all(|text| stream.add_metadata_text(NAMESPACE, key, text.as_bytes()));
            }
        }
        true
    }
}

/// Returns the least metadata of an allowed request.
#[cfg(test)]
pub(crate) fn allowed() -> Struct {
    let allow = Value { kind: Some(Kind::StringValue(ALLOW.to_owned())) };
    Struct { fields: [(DECISION.to_owned(), allow)].into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, Kind)]) -> Metadata {
        let field = |(key, kind): &(&str, Kind)| ((*key).to_owned(), Value { kind: Some(kind.clone()) });
        let mut metadata = allowed();
        metadata.fields.extend(fields.iter().map(field));
        Metadata::read(metadata).unwrap()
    }

    fn list(texts: &[&str]) -> Kind {
        let text = |text: &&str| Value { kind: Some(Kind::StringValue((*text).to_owned())) };
        Kind::ListValue(prost_types::ListValue { values: texts.iter().map(text).collect() })
    }

    #[test]
    fn older_envoys_get_what_they_can_have_exactly() {
        for (kind, since) in [
            (Kind::StringValue("a".to_owned()), AbiVersion::V1_38),
            (Kind::NumberValue(0.5), AbiVersion::V1_38),
            (Kind::BoolValue(true), AbiVersion::V1_38),
            (list(&["a", "b"]), AbiVersion::V1_38),
            (list(&[]), AbiVersion::V1_40),
            (Kind::NullValue(0), AbiVersion::V1_40),
            (Kind::StructValue(Struct::default()), AbiVersion::V1_40),
        ] {
            let metadata = read(&[("one", kind.clone())]);
            for version in [AbiVersion::V1_37, AbiVersion::V1_38, AbiVersion::V1_40] {
                assert_eq!(metadata.suits(version), version >= since, "{kind:?} {version:?}");
            }
        }
    }

    #[test]
    fn the_time_is_the_last_number_of_the_encoding() {
        let mut metadata = read(&[("key_id", Kind::StringValue("k".to_owned()))]);
        *metadata.encoded.last_chunk_mut().unwrap() = 12.5_f64.to_le_bytes();
        let decoded = Struct::decode(metadata.encoded.as_slice()).unwrap();
        let number = |key: &str| decoded.fields[key].kind.clone();
        assert_eq!(number(FRESH_UNTIL), Some(Kind::NumberValue(12.5)));
        assert_eq!(number("key_id"), Some(Kind::StringValue("k".to_owned())));
        assert!(Metadata::read(decoded).is_none(), "with two of them");
    }
}
