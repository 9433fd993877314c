//! What comes in from the command line and from stdin, checked before anything is sent.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use clap::ValueEnum;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::exit::Failure;
use crate::duration::{self, DurationError};
use crate::key::FieldError;
use crate::key::strict::{self, Numbers};
use crate::secret::SecretString;

/// Why a credential is better read from stdin, for `--help`.
pub const STDIN_HELP: &str = "\
A credential given as `-` is read from stdin (one line ending at its end is not part of it). That is better than an
argument, which every user of the machine sees in the list of processes and the shell keeps in its history.";

/// Most bytes of one credential: more than the server takes.
const MAX_CREDENTIAL: u64 = 64 * 1024;
/// Most bytes of a batch: more than the server takes.
pub const MAX_BATCH: u64 = 16 * 1024 * 1024;

/// The id of a key. It becomes part of a path (which proxies log), so nothing else gets there: no secret given by
/// mistake, no slash. Not a parser of clap's, as that would repeat the text.
///
/// # Errors
/// When it can't be an id.
pub fn key_id(text: &str) -> Result<&str, Failure> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=128).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text)
    } else {
        Err(Failure::unusable("KEY_ID: an id has letters, digits and hyphens only (a key's secret is no id)"))
    }
}

/// A duration in all forms that the API knows, in the one that it sends.
///
/// # Errors
/// When it is none.
pub fn span(text: &str) -> Result<String, DurationError> {
    duration::parse(text).map(duration::to_proto)
}

/// A JSON object. What reading would change is refused: the server would be sent something else.
///
/// # Errors
/// When it is none, has a name twice, or a number that isn't kept.
pub fn object(text: &str) -> Result<Map<String, Value>, String> {
    let json: Option<Box<RawValue>> = serde_json::from_str(text).ok();
    let json = json.filter(|json| json.get().starts_with('{'));
    let json = json.ok_or("must be a JSON object such as {\"team\":\"blue\"}")?;
    strict::object(&json, Numbers::Integers64).map_err(|FieldError(problem)| problem.into_owned())
}

/// The items of a list without empty ones: `--scopes ""` is the empty list.
pub fn items(list: &[String]) -> Vec<&str> {
    list.iter().map(|item| item.trim()).filter(|item| !item.is_empty()).collect()
}

/// Why a key is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(&'static str);

impl Reason {
    const NAMES: [&str; 5] = [
        "REVOCATION_REASON_UNSPECIFIED",
        "REVOCATION_REASON_KEY_COMPROMISE",
        "REVOCATION_REASON_AFFILIATION_CHANGED",
        "REVOCATION_REASON_SUPERSEDED",
        "REVOCATION_REASON_PRIVILEGE_WITHDRAWN",
    ];

    /// Reads one: `key_compromise`, `key-compromise`, or the API's own name.
    ///
    /// # Errors
    /// When there is no such reason.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let wanted = text.to_ascii_uppercase().replace('-', "_");
        let named =
            |name: &&&str| **name == wanted || name.strip_prefix("REVOCATION_REASON_") == Some(&wanted);
        let known = "must be key_compromise, affiliation_changed, superseded or privilege_withdrawn";
        Self::NAMES.iter().find(named).map(|name| Self(name)).ok_or(known)
    }

    /// The API's name.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

/// Reads a status: `active`, `revoked`, `expired`, or the API's own name.
///
/// # Errors
/// When there is no such status.
pub fn status(text: &str) -> Result<&'static str, &'static str> {
    let wanted = text.to_ascii_uppercase();
    let named = |name: &&&str| **name == wanted || name.strip_prefix("KEY_STATUS_") == Some(&wanted);
    ["KEY_STATUS_ACTIVE", "KEY_STATUS_REVOKED", "KEY_STATUS_EXPIRED"]
        .iter()
        .find(named)
        .copied()
        .ok_or("must be active, revoked or expired")
}

/// Who may see a key.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Visibility {
    /// Nobody but its holder
    Secret,
    /// Anybody: a publishable key, with a prefix of its own
    Public,
}

impl Visibility {
    /// The API's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "KEY_VISIBILITY_SECRET",
            Self::Public => "KEY_VISIBILITY_PUBLIC",
        }
    }
}

/// The credential that an argument gives, itself or from stdin.
///
/// # Errors
/// When stdin can't be read or has none.
pub fn credential(argument: SecretString) -> Result<SecretString, Failure> {
    Given::read(argument).map(|given| given.credential)
}

/// A credential that was given on the command line.
pub struct Given {
    /// The credential.
    pub credential: SecretString,
    /// Whether a line ending at its end was taken away.
    pub was_trimmed: bool,
}

impl Given {
    /// Takes the credential that an argument gives, itself or from stdin.
    ///
    /// # Errors
    /// When stdin can't be read or has none.
    pub fn read(argument: SecretString) -> Result<Self, Failure> {
        if argument.expose() != "-" {
            return Ok(Self { credential: argument, was_trimmed: false });
        }
        let text = read("stdin", std::io::stdin().lock(), MAX_CREDENTIAL)?;
        let trimmed = text.strip_suffix('\n').unwrap_or(&text);
        let trimmed = trimmed.strip_suffix('\r').unwrap_or(trimmed);
        if trimmed.is_empty() {
            return Err(Failure::unusable("stdin: has no credential"));
        }
        Ok(Self { credential: trimmed.into(), was_trimmed: trimmed.len() < text.len() })
    }
}

/// The text of a file of at most `limit` bytes, or of stdin when its name is `-`.
///
/// # Errors
/// When it can't be read, is too large or isn't UTF-8.
pub fn file(path: &Path, limit: u64) -> Result<Zeroizing<String>, Failure> {
    if path.as_os_str() == "-" {
        return read("stdin", std::io::stdin().lock(), limit);
    }
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| Failure::unusable(format!("{name}: {error}")))?;
    read(&name, file, limit)
}

fn read(name: &str, from: impl Read, limit: u64) -> Result<Zeroizing<String>, Failure> {
    let fail = |problem: String| Failure::unusable(format!("{name}: {problem}"));
    let mut bytes = Zeroizing::new(vec![]);
    from.take(limit + 1).read_to_end(&mut bytes).map_err(|error| fail(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(fail(format!("must be {limit} bytes at most")));
    }
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            *bytes = error.into_bytes();
            Err(fail("must be UTF-8".to_owned()))
        }
    }
}

/// The keys of a batch: a JSON list, `{"requests":[…]}`, or JSON objects one after the other.
///
/// # Errors
/// When it is none of these, or reading would change it. The place is told, never the text: it
/// holds keys.
pub fn batch(text: &str) -> Result<Vec<Value>, String> {
    let no_json =
        |error: serde_json::Error| format!("no JSON at line {}, column {}", error.line(), error.column());
    let values: Result<Vec<Box<RawValue>>, _> =
        serde_json::Deserializer::from_str(text).into_iter().collect();
    let values = values.map_err(no_json)?;
    match &values[..] {
        [one] if one.get().starts_with('[') => all_objects(&list(one)?),
        [one] if one.get().starts_with('{') => {
            let mut members: HashMap<String, Box<RawValue>> =
                serde_json::from_str(one.get()).map_err(no_json)?;
            match members.remove("requests") {
                None => all_objects(&values),
                Some(requests) if requests.get().starts_with('[') => all_objects(&list(&requests)?),
                Some(_) => Err("requests: must be a list".to_owned()),
            }
        }
        [_] => Err("must be a JSON list, {\"requests\":[…]}, or JSON objects".to_owned()),
        lines => all_objects(lines),
    }
}

fn list(json: &RawValue) -> Result<Vec<Box<RawValue>>, String> {
    serde_json::from_str(json.get()).map_err(|_| "must be a JSON list".to_owned())
}

fn all_objects(items: &[Box<RawValue>]) -> Result<Vec<Value>, String> {
    if items.is_empty() {
        return Err("holds no key".to_owned());
    }
    let read = |(at, item): (usize, &RawValue)| match item.get().starts_with('{') {
        false => Err(format!("[{at}]: must be a JSON object")),
        true => strict::object(item, Numbers::Integers64)
            .map(Value::Object)
            .map_err(|FieldError(problem)| format!("[{at}]{problem}")),
    };
    items.iter().map(AsRef::as_ref).enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_can_not_become_another_path() {
        for good in ["b2a748d2-4516-456f-8781-314b6a4507d0", "0f", &"a".repeat(128)] {
            assert!(key_id(good).is_ok(), "{good}");
        }
        for bad in
            ["", ".", "..", "a/b", "a:revoke", "a%2f", "a b", "ü", "a?b", "ory_ak_v1_a_b", &"a".repeat(129)]
        {
            assert!(key_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn objects_are_sent_as_they_are_written() {
        let text = r#"{"b":9007199254740993,"a":[1.5,-7]}"#;
        assert_eq!(Value::Object(object(text).unwrap()).to_string(), text);
        for (text, problem) in [
            ("[]", "must be a JSON object such as"),
            ("{", "must be a JSON object such as"),
            (r#"{"a":1,"a":2}"#, ".a stands there twice"),
            (r#"{"a":18446744073709551616}"#, ".a must be a number"),
        ] {
            let told = object(text).unwrap_err();
            assert!(told.starts_with(problem), "{text}: {told}");
        }
    }

    #[test]
    fn reasons_in_every_spelling() {
        for text in ["superseded", "SUPERSEDED", "REVOCATION_REASON_SUPERSEDED"] {
            assert_eq!(Reason::parse(text).map(Reason::name), Ok("REVOCATION_REASON_SUPERSEDED"));
        }
        assert_eq!(Reason::parse("key-compromise").map(Reason::name), Ok("REVOCATION_REASON_KEY_COMPROMISE"));
        for bad in ["", "bored", "REVOCATION_REASON_"] {
            assert!(Reason::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(status("active"), Ok("KEY_STATUS_ACTIVE"));
        assert_eq!(status("KEY_STATUS_REVOKED"), Ok("KEY_STATUS_REVOKED"));
        assert!(status("dead").is_err());
    }

    #[test]
    fn batches_in_three_forms() {
        let one = serde_json::json!({ "raw_key": "a" });
        let two = vec![one.clone(), one.clone()];
        for text in [
            r#"[{"raw_key":"a"},{"raw_key":"a"}]"#,
            r#"{"requests":[{"raw_key":"a"},{"raw_key":"a"}]}"#,
            "{\"raw_key\":\"a\"}\n{\"raw_key\":\"a\"}\n",
        ] {
            assert_eq!(batch(text).as_ref(), Ok(&two), "{text}");
        }
        assert_eq!(batch("{\"raw_key\":\"a\"}"), Ok(vec![one]));
        for (text, place) in [
            (
                r#"[{"raw_key":"a"},{"metadata":{"n":18446744073709551616}}]"#,
                "[1].metadata.n must be a number",
            ),
            (r#"{"requests":[{"raw_key":"s3cret","raw_key":"a"}]}"#, "[0].raw_key stands there twice"),
        ] {
            assert!(batch(text).unwrap_err().starts_with(place), "{text}: {:?}", batch(text));
        }
        for bad in
            ["", "[]", "s3cret", "[\"s3cret\"]", "{\"requests\":\"s3cret\"}", "{\"raw_key\":\"s3cret\""]
        {
            let problem = batch(bad).unwrap_err();
            assert!(!problem.contains("s3cret"), "{problem}");
        }
    }
}
