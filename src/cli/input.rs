//! Parses and validates arguments, files and stdin before a request is sent.

use std::collections::HashMap;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;

use clap::ValueEnum;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::exit::Failure;
use crate::cli::stderr;
use crate::clock::{Clock, Timestamp};
use crate::duration::{self, DurationError};
use crate::key::FieldError;
use crate::key::strict::{self, Numbers};
use crate::secret::SecretString;

/// Section of `--help` that recommends stdin for credentials.
pub(super) const STDIN_HELP: &str = "\
A credential given as `-` is read from stdin, without its final line ending. Prefer this to an argument: arguments
are visible to all users in the process list and stay in the shell's history.";

/// Character with which editors and shells of Windows begin texts.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// Largest credential that is read, in bytes; the server's limit is lower.
const MAX_CREDENTIAL_BYTES: u64 = 64 * 1024;
/// Largest batch that is read, in bytes; the server's limit is lower.
pub(super) const MAX_BATCH_BYTES: u64 = 16 * 1024 * 1024;

/// Validates a key id, which becomes part of a URL path.
///
/// Proxies log paths, so a secret given by mistake must not get there, nor a slash. This isn't a
/// clap value parser because clap repeats the rejected value in its message.
///
/// # Errors
/// Fails when the text can't be an id.
pub(super) fn check_key_id(text: &str) -> Result<&str, Failure> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=128).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text)
    } else {
        Err(Failure::usage(
            "KEY_ID: must have only letters, digits and hyphens; give the key's id, not its secret",
        ))
    }
}

/// Parses a duration in any form that the API accepts and returns its protobuf JSON form.
///
/// # Errors
/// Fails when the text isn't a duration.
pub(super) fn duration(text: &str) -> Result<String, DurationError> {
    duration::parse(text).map(duration::to_proto)
}

/// Parses a time in the future: a time, a date, which means its midnight in UTC, or a duration from
/// now.
///
/// # Errors
/// Fails when the text is none of these.
pub(super) fn time(text: &str) -> Result<String, String> {
    let date = || (text.len() == 10).then(|| Timestamp::from_rfc3339(&format!("{text}T00:00:00Z"))).flatten();
    let from_now = || duration::parse(text).ok().map(|after| Clock::system().now().plus(after));
    let time = Timestamp::from_rfc3339(text).or_else(date).or_else(from_now).map(Timestamp::to_rfc3339);
    time.ok_or_else(|| {
        "must be a time (2026-12-07T08:00:00Z), a date (2026-12-07) or a duration from now (72h)".to_owned()
    })
}

/// Parses a JSON object that can be sent unchanged.
///
/// # Errors
/// Fails when the text isn't an object, repeats a name, or has a number that would lose precision.
pub(super) fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    let json: Option<Box<RawValue>> = serde_json::from_str(text).ok();
    let json = json.filter(|json| json.get().starts_with('{'));
    let json = json.ok_or("must be a JSON object such as {\"team\":\"blue\"}")?;
    strict::object(&json, Numbers::Integers64).map_err(|FieldError(problem)| problem.into_owned())
}

/// Returns the trimmed items of a list without empty ones: `--scopes ""` is the empty list.
pub(super) fn non_empty(list: &[String]) -> Vec<&str> {
    list.iter().map(|item| item.trim()).filter(|item| !item.is_empty()).collect()
}

/// A revocation reason of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reason(&'static str);

impl Reason {
    const NAMES: [&str; 5] = [
        "REVOCATION_REASON_UNSPECIFIED",
        "REVOCATION_REASON_KEY_COMPROMISE",
        "REVOCATION_REASON_AFFILIATION_CHANGED",
        "REVOCATION_REASON_SUPERSEDED",
        "REVOCATION_REASON_PRIVILEGE_WITHDRAWN",
    ];

    /// Parses `key_compromise`, `key-compromise` or the API's name of a reason.
    ///
    /// # Errors
    /// Fails when there is no such reason.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let wanted = text.to_ascii_uppercase().replace('-', "_");
        let named =
            |name: &&&str| **name == wanted || name.strip_prefix("REVOCATION_REASON_") == Some(&wanted);
        let known = "must be key_compromise, affiliation_changed, superseded or privilege_withdrawn";
        Self::NAMES.iter().find(named).map(|name| Self(name)).ok_or(known)
    }

    /// Returns the API's name of the reason.
    pub(super) const fn name(self) -> &'static str {
        self.0
    }
}

/// Parses a key status: `active`, `revoked`, `expired`, or the API's name.
///
/// # Errors
/// Fails when there is no such status.
pub(super) fn parse_status(text: &str) -> Result<&'static str, &'static str> {
    let wanted = text.to_ascii_uppercase();
    let named = |name: &&&str| **name == wanted || name.strip_prefix("KEY_STATUS_") == Some(&wanted);
    ["KEY_STATUS_ACTIVE", "KEY_STATUS_REVOKED", "KEY_STATUS_EXPIRED"]
        .iter()
        .find(named)
        .copied()
        .ok_or("must be active, revoked or expired")
}

/// Visibility of a key.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Visibility {
    /// Known only to its holder
    Secret,
    /// Publishable: may be seen by anybody, and has its own prefix
    Public,
}

impl Visibility {
    /// Returns the API's name of the visibility.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Secret => "KEY_VISIBILITY_SECRET",
            Self::Public => "KEY_VISIBILITY_PUBLIC",
        }
    }
}

/// Reads a credential: the argument itself, or stdin when it is `-`.
///
/// # Errors
/// Fails when stdin can't be read or is empty.
pub(super) fn read_credential(argument: SecretString) -> Result<SecretString, Failure> {
    CredentialInput::read(argument).map(|input| input.credential)
}

/// A credential from the command line or stdin.
pub(super) struct CredentialInput {
    /// The credential.
    pub credential: SecretString,
    /// True when a final line ending was removed.
    pub was_trimmed: bool,
}

impl CredentialInput {
    /// Reads the credential: the argument itself, or stdin when it is `-`.
    ///
    /// # Errors
    /// Fails when stdin can't be read or is empty.
    pub(super) fn read(argument: SecretString) -> Result<Self, Failure> {
        if argument.expose() != "-" {
            return Ok(Self { credential: argument, was_trimmed: false });
        }
        announce_stdin("a credential");
        let text = read("stdin", std::io::stdin().lock(), MAX_CREDENTIAL_BYTES)?;
        let trimmed = text.strip_suffix('\n').unwrap_or(&text);
        let trimmed = trimmed.strip_suffix('\r').unwrap_or(trimmed);
        if trimmed.is_empty() {
            return Err(Failure::usage("stdin: is empty; expected a credential"));
        }
        Ok(Self { credential: trimmed.into(), was_trimmed: trimmed.len() < text.len() })
    }
}

/// Reads a text file of at most `limit` bytes, or stdin when its name is `-`, without a byte order
/// mark.
///
/// # Errors
/// Fails when it can't be read, is too large or isn't UTF-8.
pub(super) fn read_file(path: &Path, limit: u64) -> Result<Zeroizing<String>, Failure> {
    let mut text = if path.as_os_str() == "-" {
        announce_stdin("input");
        read("stdin", std::io::stdin().lock(), limit)?
    } else {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
        read(&name, file, limit)?
    };
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}

/// Tells a person at a terminal that the command waits for input.
fn announce_stdin(what: &str) {
    if std::io::stdin().is_terminal() {
        stderr::line(format_args!("talos: reading {what} from stdin; end it with Enter and Ctrl-D"));
    }
}

fn read(name: &str, from: impl Read, limit: u64) -> Result<Zeroizing<String>, Failure> {
    let fail = |problem: String| Failure::usage(format!("{name}: {problem}"));
    let mut bytes = Zeroizing::new(vec![]);
    from.take(limit + 1).read_to_end(&mut bytes).map_err(|error| fail(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(fail(format!("is too large: the limit is {limit} bytes")));
    }
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            *bytes = error.into_bytes();
            Err(fail("must be UTF-8".to_owned()))
        }
    }
}

/// Parses a batch of keys: a JSON list, `{"requests":[…]}`, or a sequence of JSON objects.
///
/// # Errors
/// Fails when the text is none of these or can't be sent unchanged. The message names the position
/// and never quotes the text, which holds keys.
pub(super) fn parse_batch(text: &str) -> Result<Vec<Value>, String> {
    let no_json = |error: serde_json::Error| {
        format!("invalid JSON at line {}, column {}", error.line(), error.column())
    };
    let values: Result<Vec<Box<RawValue>>, _> =
        serde_json::Deserializer::from_str(text).into_iter().collect();
    let values = values.map_err(no_json)?;
    match &values[..] {
        [one] if one.get().starts_with('[') => parse_objects(&parse_list(one)?),
        [one] if one.get().starts_with('{') => {
            let mut members: HashMap<String, Box<RawValue>> =
                serde_json::from_str(one.get()).map_err(no_json)?;
            match members.remove("requests") {
                None => parse_objects(&values),
                Some(requests) if requests.get().starts_with('[') => parse_objects(&parse_list(&requests)?),
                Some(_) => Err("requests: must be a list".to_owned()),
            }
        }
        [_] => Err("must be a JSON list, {\"requests\":[…]}, or JSON objects".to_owned()),
        lines => parse_objects(lines),
    }
}

fn parse_list(json: &RawValue) -> Result<Vec<Box<RawValue>>, String> {
    serde_json::from_str(json.get()).map_err(|_| "must be a JSON list".to_owned())
}

fn parse_objects(items: &[Box<RawValue>]) -> Result<Vec<Value>, String> {
    if items.is_empty() {
        return Err("is empty; expected at least one key".to_owned());
    }
    let parse = |(index, item): (usize, &RawValue)| match item.get().starts_with('{') {
        false => Err(format!("[{index}]: must be a JSON object")),
        true => strict::object(item, Numbers::Integers64)
            .map(Value::Object)
            .map_err(|FieldError(problem)| format!("[{index}]{problem}")),
    };
    items.iter().map(AsRef::as_ref).enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_can_not_become_another_path() {
        for good in ["b2a748d2-4516-456f-8781-314b6a4507d0", "0f", &"a".repeat(128)] {
            assert!(check_key_id(good).is_ok(), "{good}");
        }
        for bad in
            ["", ".", "..", "a/b", "a:revoke", "a%2f", "a b", "ü", "a?b", "ory_ak_v1_a_b", &"a".repeat(129)]
        {
            assert!(check_key_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn objects_are_sent_as_they_are_written() {
        let text = r#"{"b":9007199254740993,"a":[1.5,-7]}"#;
        assert_eq!(Value::Object(json_object(text).unwrap()).to_string(), text);
        for (text, problem) in [
            ("[]", "must be a JSON object such as"),
            ("{", "must be a JSON object such as"),
            (r#"{"a":1,"a":2}"#, ".a stands there twice"),
            (r#"{"a":18446744073709551616}"#, ".a must be a number"),
        ] {
            let message = json_object(text).unwrap_err();
            assert!(message.starts_with(problem), "{text}: {message}");
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
        assert_eq!(parse_status("active"), Ok("KEY_STATUS_ACTIVE"));
        assert_eq!(parse_status("KEY_STATUS_REVOKED"), Ok("KEY_STATUS_REVOKED"));
        assert!(parse_status("dead").is_err());
    }

    #[test]
    fn files_are_read_without_a_byte_order_mark() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (content, expected) in [
            ("\u{feff}[{\"raw_key\":\"a\"}]", Some("[{\"raw_key\":\"a\"}]")),
            ("\u{feff}first\nsecond\n", Some("first\nsecond\n")),
            ("first\n\u{feff}second", Some("first\n\u{feff}second")),
            ("\u{feff}", Some("")),
            ("plain", Some("plain")),
            ("\u{feff}longer than the limit of 30 bytes", None),
        ] {
            std::fs::write(&file, content).unwrap();
            let text = read_file(file.path(), 30).ok();
            assert_eq!(text.as_ref().map(|text| text.as_str()), expected, "{content:?}");
        }
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
            assert_eq!(parse_batch(text).as_ref(), Ok(&two), "{text}");
        }
        assert_eq!(parse_batch("{\"raw_key\":\"a\"}"), Ok(vec![one]));
        for (text, place) in [
            (
                r#"[{"raw_key":"a"},{"metadata":{"n":18446744073709551616}}]"#,
                "[1].metadata.n must be a number",
            ),
            (r#"{"requests":[{"raw_key":"s3cret","raw_key":"a"}]}"#, "[0].raw_key stands there twice"),
        ] {
            assert!(parse_batch(text).unwrap_err().starts_with(place), "{text}: {:?}", parse_batch(text));
        }
        for bad in
            ["", "[]", "s3cret", "[\"s3cret\"]", "{\"requests\":\"s3cret\"}", "{\"raw_key\":\"s3cret\""]
        {
            let problem = parse_batch(bad).unwrap_err();
            assert!(!problem.contains("s3cret"), "{problem}");
        }
    }
}
