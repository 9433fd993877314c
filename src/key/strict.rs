//! Strict JSON that all parsers read alike (RFC 7493): no repeated names, no numbers that a parser
//! would round.
//!
//! Metadata is passed on as JSON, as claims, and as protobuf numbers in Envoy's dynamic metadata.
//! Those are doubles, in which 9007199254740992 and 9007199254740993 are equal.

use std::collections::HashSet;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use super::FieldError;

/// Largest integer that a double and its neighbours represent exactly: 2^53 - 1.
pub const MAX_SAFE: u64 = 9_007_199_254_740_991;

/// Maximum nesting of what becomes dynamic metadata. Each level is three nested protobuf messages,
/// and Envoy's parser stops at 100.
pub const MAX_DEPTH: usize = 16;

/// Maximum nesting of what stays JSON. Most parsers stop at 128.
const MAX_JSON_DEPTH: usize = 100;

/// Maximum length of the text, in bytes. 4 KiB of JSON may come with white space.
const MAX_TEXT: usize = 64 * 1024;

/// Accepted numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// Numbers that a double represents exactly.
    Doubles,
    /// Numbers of that kind, and 64-bit integers, for values that stay JSON.
    Integers64,
}

/// Parses a JSON object.
///
/// # Errors
/// Fails if it is not an object, is too deeply nested, or parsers could read it differently. The
/// message begins with the place.
pub fn object(json: &RawValue, numbers: Numbers) -> Result<Map<String, Value>, FieldError> {
    if json.get().len() > MAX_TEXT {
        return Err(FieldError::new("must be 4096 bytes of JSON at most"));
    }
    match (Reader { numbers, place: String::new() }).value(json, 0)? {
        Value::Object(object) => Ok(object),
        _ => Err(FieldError::new("must be a JSON object")),
    }
}

/// Parser of one document.
struct Reader {
    numbers: Numbers,
    /// Place in the document, such as `.a[0].b`.
    place: String,
}

impl Reader {
    fn value(&mut self, json: &RawValue, depth: usize) -> Result<Value, FieldError> {
        let text = json.get();
        let (place, level) = (self.place.len(), depth + 1);
        match text.as_bytes().first() {
            Some(b'{' | b'[') if level > self.max_depth() => {
                Err(FieldError(format!("must not be nested more than {} levels deep", self.max_depth()).into()))
            }
            Some(b'{') => {
                let Members(members) = self.parse(text)?;
                let (mut object, mut seen) = (Map::new(), HashSet::new());
                for (name, member) in members {
                    self.enter(&name);
                    if !seen.insert(name.clone()) {
                        return Err(self.refuse("stands there twice"));
                    }
                    object.insert(name, self.value(member, level)?);
                    self.place.truncate(place);
                }
                Ok(Value::Object(object))
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = self.parse(text)?;
                let mut list = vec![];
                for (index, item) in items.into_iter().enumerate() {
                    self.place.push_str(&format!("[{index}]"));
                    list.push(self.value(item, level)?);
                    self.place.truncate(place);
                }
                Ok(Value::Array(list))
            }
            Some(b'-' | b'0'..=b'9') => match self.is_kept(text) {
                true => self.parse(text),
                false if self.numbers == Numbers::Integers64 => {
                    Err(self.refuse("must be a number that 64 bits hold as it is written; write others as a text"))
                }
                false => Err(self.refuse(
                    "must be a number that a double holds as it is written, and whole ones within ±(2^53 - 1); \
                     write others as a text",
                )),
            },
            _ => self.parse(text),
        }
    }

    const fn max_depth(&self) -> usize {
        match self.numbers {
            Numbers::Doubles => MAX_DEPTH,
            Numbers::Integers64 => MAX_JSON_DEPTH,
        }
    }

    /// Enters a member. Long or unprintable names are not shown.
    fn enter(&mut self, name: &str) {
        let is_plain = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        self.place.push('.');
        self.place.push_str(if is_plain { name } else { "…" });
    }

    fn refuse(&self, problem: &str) -> FieldError {
        FieldError(format!("{} {problem}", self.place).into())
    }

    fn parse<'t, T: Deserialize<'t>>(&self, text: &'t str) -> Result<T, FieldError> {
        serde_json::from_str(text).map_err(|_| FieldError::new("must be valid JSON"))
    }

    /// Returns whether a number survives parsing.
    fn is_kept(&self, text: &str) -> bool {
        if !text.contains(['.', 'e', 'E']) {
            let magnitude = text.trim_start_matches('-').parse::<u64>();
            return text != "-0"
                && match self.numbers {
                    Numbers::Doubles => magnitude.is_ok_and(|magnitude| magnitude <= MAX_SAFE),
                    Numbers::Integers64 => text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok(),
                };
        }
        // JSON has no infinity.
        let Some(written) = text.parse().ok().and_then(Number::from_f64) else { return false };
        let double = written.as_f64().unwrap_or_default();
        let is_minus_zero = double == 0.0 && double.is_sign_negative();
        // Beyond 2^53 doubles have gaps. Rows contain what is written here, so of two decimals that
        // are the same double only the one written here is accepted.
        double.abs() <= MAX_SAFE as f64 && !is_minus_zero && decimal(text) == decimal(&written.to_string())
    }
}

/// Returns sign, digits without zeros at the ends, and power of ten. `None` if it exceeds all
/// doubles.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let negative = text.starts_with('-');
    let text = text.trim_start_matches('-');
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let exponent = exponent.parse::<i32>().ok()?;
    let power = i64::from(exponent) + i64::try_from(digits.len() - significant.len()).ok()?
        - i64::try_from(fraction.len()).ok()?;
    match significant.trim_start_matches('0') {
        "" => Some((negative, String::new(), 0)),
        digits => Some((negative, digits.to_owned(), power)),
    }
}

/// Members of an object, including repeated ones.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = vec![];
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(json: &str, numbers: Numbers) -> Result<Map<String, Value>, String> {
        object(&RawValue::from_string(json.to_owned()).unwrap(), numbers).map_err(|error| error.to_string())
    }

    #[test]
    fn ambiguous_json_is_refused_with_its_place() {
        for (json, place) in [
            (r#"{"a":1,"a":1}"#, ".a "),
            (r#"{"a":1,"\u0061":2}"#, ".a "),
            (r#"{"a":[{"b":1},{"c":{"d":1,"d":2}}]}"#, ".a[1].c.d "),
            (r#"{"s3cr3t stuff":1,"s3cr3t stuff":2}"#, ".… "),
            (r#"{"n":-0}"#, ".n "),
            (r#"{"n":-0.0}"#, ".n "),
            (r#"{"n":-0e7}"#, ".n "),
            (r#"{"n":9007199254740993.0}"#, ".n "),
            (r#"{"n":0.10000000000000000001}"#, ".n "),
            (r#"{"n":913300877850468.3}"#, ".n "),
            (r#"{"n":1e-400}"#, ".n "),
            (r#"{"n":1e400}"#, ".n "),
            (r#"{"n":1e99999999999999}"#, ".n "),
            (r#"{"n":18446744073709551616}"#, ".n "),
            (r#"{"n":[0,-18446744073709551616]}"#, ".n[1] "),
        ] {
            for numbers in [Numbers::Doubles, Numbers::Integers64] {
                let problem = read(json, numbers).expect_err(json);
                assert!(problem.starts_with(place), "{json}: {problem}");
                assert!(!problem.contains("s3cr3t"), "{problem}");
            }
        }
        for json in
            ["9007199254740992", "9007199254740993", "-9007199254740992", "18446744073709551615", "1e16"]
        {
            assert!(read(&format!("{{\"n\":{json}}}"), Numbers::Doubles).is_err(), "{json}");
        }
        for json in ["[]", "1", "\"a\"", "null"] {
            assert_eq!(read(json, Numbers::Doubles), Err("must be a JSON object".to_owned()));
        }
        assert!(
            read(&format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000)), Numbers::Doubles)
                .is_err()
        );
    }

    #[test]
    fn unambiguous_json_is_kept_as_it_is() {
        let json = r#"{"b":1,"a":[true,null,-1,0,0.5,1e2,0.30000000000000004,913300877850468.2,5e-324],"n":{"b":9007199254740991,"c":-9007199254740991}}"#;
        let value: Value = serde_json::from_str(json).unwrap();
        assert_eq!(Value::Object(read(json, Numbers::Doubles).unwrap()), value);
        for json in ["18446744073709551615", "-9223372036854775808", "9007199254740993"] {
            let object = read(&format!("{{\"n\":{json}}}"), Numbers::Integers64).unwrap();
            assert_eq!(object["n"].to_string(), json);
        }
        let (deep, deeper) = (15, 16);
        let nested = |levels| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(
            read(&nested(deep), Numbers::Doubles).is_ok() && read(&nested(deeper), Numbers::Doubles).is_err()
        );
    }

    proptest! {
        /// Accepted numbers are equal as doubles only if they are equal.
        #[test]
        fn different_numbers_are_different_doubles(a in number(), b in number()) {
            let read = |text: &str| read(&format!("{{\"n\":{text}}}"), Numbers::Doubles);
            if let (Ok(read_a), Ok(read_b)) = (read(&a), read(&b)) {
                prop_assert_eq!(decimal(&a) == decimal(&b), read_a["n"].as_f64() == read_b["n"].as_f64());
            }
        }

        #[test]
        fn every_double_of_moderate_size_is_taken(double in -1e15..1e15_f64) {
            let json = serde_json::json!({ "n": double }).to_string();
            let object = read(&json, Numbers::Doubles).unwrap();
            prop_assert_eq!(object["n"].as_f64(), Some(double));
        }
    }

    /// Generates numbers near the limits of doubles.
    fn number() -> impl Strategy<Value = String> {
        prop_oneof![
            (9_007_199_254_740_980_u64..9_007_199_254_740_999).prop_map(|number| number.to_string()),
            (9_007_199_254_740_980_u64..9_007_199_254_740_999, 0..10).prop_map(|(n, d)| format!("{n}.{d}")),
            (0..30_u32, 0..3_u32).prop_map(|(a, b)| format!("0.{a}{}{b}", "0".repeat(15))),
            (0..100_i32, -3..3).prop_map(|(n, e)| format!("{n}e{e}")),
            (0..1000_i32).prop_map(|n| format!("-{}", f64::from(n) / 8.0)),
        ]
    }
}
