//! Strict parsing of JSON bodies: unknown fields are refused, and errors name the field but not its
//! value.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use tokio::time::timeout;

use crate::config::optional_list_up_to;
use crate::error::{ApiError, Reason};

/// Maximum body on the admin plane, in bytes. The largest request is a batch of a thousand keys.
pub(super) const ADMIN_LIMIT: usize = 4 * 1024 * 1024;
/// Maximum body on the public plane, in bytes. It has one credential, escaped in any way.
pub(super) const PUBLIC_LIMIT: usize = 128 * 1024;

/// Maximum time to receive a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// Ends the reading of a body: memory has no room for it.
#[derive(Debug, thiserror::Error)]
#[error("memory has no room for the body")]
pub struct MemoryExhausted;

/// Reads a JSON body. An empty body is an empty object.
///
/// # Errors
/// Fails if it is too large, not JSON, or has wrong fields.
pub(super) async fn read<T: DeserializeOwned>(request: Request<Body>, limit: usize) -> Result<T, ApiError> {
    parse(&read_text(request, limit).await?)
}

/// Reads a body that is declared as JSON. An empty body is an empty object.
///
/// # Errors
/// Fails if it is too large or declared as something else.
pub(super) async fn read_text(request: Request<Body>, limit: usize) -> Result<Bytes, ApiError> {
    let media_type = request.headers().get(CONTENT_TYPE).cloned();
    let is_encoded = is_encoded(request.headers());
    let body = timeout(BODY_TIMEOUT, Limited::new(request.into_body(), limit).collect()).await;
    let body = body.map_err(|_| {
        ApiError::new(
            Reason::RequestTimeout,
            format!("body: must be sent within {} s", BODY_TIMEOUT.as_secs()),
        )
    })?;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => ApiError::new(Reason::PayloadTooLarge, format!("body: must be {limit} bytes at most")),
        false if is_exhausted(&*error) => {
            ApiError::new(Reason::ServiceUnavailable, "too much is asked for at once; try again later")
        }
        false => ApiError::new(Reason::BadRequest, "body: could not be read"),
    })?;
    let body = body.to_bytes();
    if body.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    if !media_type.is_some_and(|value| is_json(value.as_bytes())) {
        return Err(ApiError::new(Reason::UnsupportedMediaType, "Content-Type: must be application/json"));
    }
    if is_encoded {
        let problem = "Content-Encoding: isn't supported; send the body as it is";
        return Err(ApiError::new(Reason::UnsupportedMediaType, problem));
    }
    // Editors and shells of Windows begin texts with a byte order mark.
    Ok(match body.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => body.slice_ref(rest),
        None => body,
    })
}

/// Returns true if a body is compressed, or encoded in another way.
fn is_encoded(headers: &HeaderMap) -> bool {
    let is_identity = |value: &[u8]| value.is_empty() || value.eq_ignore_ascii_case(b"identity");
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !is_identity(value.as_bytes().trim_ascii()))
}

fn is_exhausted(error: &(dyn Error + 'static)) -> bool {
    error.is::<MemoryExhausted>() || error.source().is_some_and(is_exhausted)
}

fn is_json(media_type: &[u8]) -> bool {
    let essence = media_type.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// Parses JSON.
///
/// # Errors
/// Fails if it is not JSON, or has wrong fields.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    parse_at("", body)
}

/// Parses JSON that stands at a place of the body, such as `routes[3]`.
///
/// # Errors
/// Fails like [`parse`]. The field begins with the place.
pub(super) fn parse_at<T: DeserializeOwned>(place: &str, text: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = path_within(place, &error.path().to_string());
        match error.inner().classify() {
            // Says what was expected next, not what a value must be.
            Category::Syntax | Category::Eof | Category::Io => not_json(&path),
            Category::Data => explain(&path, &error.inner().to_string()),
        }
    })?;
    json.end().map_err(|_| ApiError::field("body", "has something after the JSON value"))?;
    Ok(value)
}

/// Returns the path of a member of what stands at `place`.
fn path_within(place: &str, path: &str) -> String {
    match (place, path) {
        ("", path) => path.to_owned(),
        (place, "." | "?") => place.to_owned(),
        (place, path) => format!("{place}.{path}"),
    }
}

/// Deserialises a field that is a JSON object.
///
/// # Errors
/// Fails if it is not an object, or has wrong fields.
pub(super) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    field: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::deserialize(field)?.map(|Object(value)| value))
}

/// Deserialises a field that is a list of at most `most` JSON objects. Of a longer list, one object
/// more is kept and the others are skipped: who counts them finds too many.
///
/// # Errors
/// Fails like [`object`].
pub(super) fn objects<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    field: D,
    most: usize,
) -> Result<Option<Vec<T>>, D::Error> {
    let items: Option<Vec<Object<T>>> = optional_list_up_to(field, most)?;
    Ok(items.map(|items| items.into_iter().map(|Object(value)| value).collect()))
}

/// Accepts only a JSON object. Serde would read a struct from an array as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

/// Returns an error that names the field. Leaves out the value, which serde would quote.
fn explain(path: &str, message: &str) -> ApiError {
    let at = |name: &str| match path {
        "." | "?" => name.to_owned(),
        // The path may end with the field already.
        path if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        path => format!("{path}.{name}"),
    };
    let message = message.split(" at line ").next().unwrap_or_default();
    for (opening, problem) in
        [("unknown field `", "is not a known field"), ("duplicate field `", "stands there twice")]
    {
        let name = message.strip_prefix(opening).and_then(|rest| rest.split_once('`'));
        if let Some((name, _)) = name {
            let name: String = name.chars().take(128).collect();
            return ApiError::field(at(&name), problem);
        }
    }
    // Our own types say what a value must be; they don't quote it.
    let is_ours =
        ["must ", "may ", "a duration ", "unknown unit "].iter().any(|words| message.starts_with(words));
    // The last one: serde quotes the value before it.
    let problem = match message.rsplit_once("expected ") {
        _ if is_ours => message.to_owned(),
        Some((_, expected)) => format!("must be {}", json_type(expected)),
        None => "isn't a valid value".to_owned(),
    };
    ApiError::field(field_of(path), problem)
}

/// Returns the error for a body that isn't JSON from a field on.
fn not_json(path: &str) -> ApiError {
    ApiError::field(field_of(path), "must be valid JSON in UTF-8 and not too deep")
}

fn field_of(path: &str) -> String {
    if matches!(path, "." | "?") { "body".to_owned() } else { path.to_owned() }
}

/// Returns the name that JSON has for what serde expected.
fn json_type(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0",
        "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "sequence" | "a sequence" => "a list",
        "map" | "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code, reason = "read by the deserializer alone")]
        name: Option<String>,
        #[serde(default, deserialize_with = "up_to_three")]
        inner: Option<Vec<Sample>>,
        #[allow(dead_code, reason = "read by the deserializer alone")]
        #[serde(default, deserialize_with = "object")]
        one: Option<Box<Sample>>,
        #[allow(dead_code, reason = "read by the deserializer alone")]
        secret: Option<crate::secret::SecretString>,
        #[allow(dead_code, reason = "read by the deserializer alone")]
        #[serde(default, deserialize_with = "crate::duration::deserialize_option")]
        wait: Option<std::time::Duration>,
        number: Option<u32>,
        #[allow(dead_code, reason = "read by the deserializer alone")]
        texts: Option<Vec<String>>,
    }

    fn up_to_three<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Vec<Sample>>, D::Error> {
        objects(field, 3)
    }

    #[test]
    fn objects_beyond_a_limit_are_skipped() {
        for (count, kept) in [(0, 0), (3, 3), (4, 4), (10_000, 4)] {
            let body = format!(r#"{{"inner":[{}]}}"#, vec!["{}"; count].join(","));
            let sample: Sample = parse(body.as_bytes()).unwrap();
            assert_eq!(sample.inner.map(|inner| inner.len()), Some(kept), "{count} objects");
        }
        // Whatever they are: they aren't read.
        let sample: Sample = parse(br#"{"inner":[{},{},{},{},{"nmae":1},5],"number":1}"#).unwrap();
        assert_eq!((sample.inner.map(|inner| inner.len()), sample.number), (Some(4), Some(1)));
    }

    #[test]
    fn errors_of_a_part_begin_with_its_place() {
        for (text, start) in [
            (r#"{"nmae":1}"#, "parts[7].nmae: is not"),
            (r#"{"number":"1"}"#, "parts[7].number: must be a whole number"),
            (r#"{"inner":[{},{"number":-1}]}"#, "parts[7].inner[1].number: must be a whole number"),
            (r#"{"number":x}"#, "parts[7].number: must be valid JSON"),
            ("null", "parts[7]: must be an object"),
            ("[]", "parts[7]: must be an object"),
        ] {
            let error = parse_at::<Sample>("parts[7]", text.as_bytes()).unwrap_err();
            assert!(error.message.starts_with(start), "{}", error.message);
        }
    }

    #[test]
    fn errors_name_the_field_and_not_the_value() {
        for (body, start) in [
            (&br#"{"nmae":"s3cret"}"#[..], "nmae: is not"),
            (br#"{"inner":[{},{"nmae":1}]}"#, "inner[1].nmae: is not"),
            (br#"{"name":["s3cret"]}"#, "name: must be"),
            (br#"{"inner":"s3cret"}"#, "inner: must be"),
            (br#"{"name":"a","name":"b"}"#, "name: stands"),
            (br#"{"name":"s3cret"#, "name: must be valid JSON"),
            (br#"{"name":"a"} s3cret"#, "body: has"),
            (b"{\"name\":\"\xff\"}", "name: must be valid JSON in UTF-8"),
            (b"{\"name\":s3cret}", "name: must be valid JSON"),
            (b"{name:1}", "body: must be valid JSON"),
            (b"\xff\xfe{\0}\0", "body: must be valid JSON in UTF-8"),
            (b"\x1f\x8b\x08", "body: must be valid JSON"),
            (b"[]", "body: must be an object"),
            (br#"["s3cret",null,null]"#, "body: must be an object"),
            (br#"{"inner":[{},["s3cret"]]}"#, "inner[1]: must be an object"),
            (br#"{"one":["s3cret",null,null]}"#, "one: must be an object"),
            (br#"{"one":{"one":{"nmae":1}}}"#, "one.one.nmae: is not"),
            (br#"{"secret":{"s3cret":1}}"#, "secret: must be a"),
            (br#"{"secret":5}"#, "secret: must be a text"),
            (br#"{"wait":"5"}"#, "wait: a duration needs a unit"),
            (br#"{"wait":["s3cret"]}"#, "wait: must be a"),
            (br#"{"number":-1}"#, "number: must be a whole number from 0 to 4294967295"),
            (br#"{"number":"s3cret"}"#, "number: must be a whole number from 0 to 4294967295"),
            (br#"{"number":"a, expected s3cret"}"#, "number: must be a whole number from 0 to 4294967295"),
            (br#"{"texts":"s3cret"}"#, "texts: must be a list"),
        ] {
            let error = parse::<Sample>(body).unwrap_err();
            assert_eq!(error.reason, Reason::BadRequest);
            assert!(error.message.starts_with(start), "{}", error.message);
            assert!(!error.message.contains("s3cret"), "{}", error.message);
        }
    }
}
