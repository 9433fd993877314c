//! Values from file and environment, each with its origin, and their conversion to a [`Config`].

use std::collections::BTreeMap;
use std::path::Path;

use serde_norway::{Mapping, Value};

use super::advice::advice;
use super::error::Problem;
use super::model::Config;
use super::serde_forms::MASK;
use super::{audit_file, keys};

/// Origin of values that nothing sets.
const NO_FILE: &str = "default";

/// One value per key, from the environment or the file, and the problems that were found.
pub(super) struct MergedConfig {
    values: BTreeMap<String, Value>,
    pub origins: Origins,
    pub problems: Vec<Problem>,
}

/// Origin of each value. Holds no values.
#[derive(Debug)]
pub(super) struct Origins {
    file: String,
    found: BTreeMap<String, Origin>,
}

/// Origin of a value.
#[derive(Debug, Clone)]
enum Origin {
    /// The file with this name.
    File(String),
    /// The environment variable with this name.
    Variable(String),
    /// The environment variable with this name, which has several pieces between commas.
    Split(String),
    /// Environment variables with this name and an index.
    Indexed(String),
}

impl Origins {
    /// The origin of the value at `key`, which may be an entry of a list. The origin of a section
    /// is that of its first value.
    pub(super) fn of(&self, key: &str) -> String {
        let (path, inside) = key.split_once('[').unwrap_or((key, ""));
        let is_inside = |found: &str| found.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        let of_section = || self.found.iter().find(|(found, _)| is_inside(found)).map(|(_, origin)| origin);
        let around = || self.found.iter().find(|(found, _)| is_around(found, path)).map(|(_, origin)| origin);
        match self.found.get(path).or_else(of_section).or_else(around) {
            None => NO_FILE.to_owned(),
            Some(Origin::File(name)) => name.clone(),
            Some(Origin::Variable(name) | Origin::Split(name)) => name.clone(),
            Some(Origin::Indexed(name)) => {
                let index = inside.split_once(']').map_or("0", |(index, _)| index);
                format!("{name}_{index}")
            }
        }
    }

    /// Returns true if the file or the environment sets this key.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.found.contains_key(key)
    }

    /// Makes a problem of the value at `key`. It names the origin and, for a variable that was
    /// split, the piece.
    pub(super) fn problem(&self, key: String, mut message: String) -> Problem {
        if let Some((variable, index)) = self.piece(&key) {
            let piece = index + 1;
            message.push_str(&format!(
                "; it is piece {piece} of the variable, which is split at commas: if a comma belongs to the {}, set \
                 {variable}_0 instead",
                if keys::is_secret(&key) { "secret" } else { "value" },
            ));
        }
        let origin = self.of(&key);
        Problem::new(key, message, origin)
    }

    /// The variable that was split at commas, and the index of the piece at `key`.
    fn piece(&self, key: &str) -> Option<(&str, usize)> {
        let (path, inside) = key.split_once('[')?;
        let index = inside.split_once(']')?.0.parse().ok()?;
        match self.found.get(path)? {
            Origin::Split(name) => Some((name, index)),
            _ => None,
        }
    }
}

impl MergedConfig {
    pub(super) fn new(file: Option<&Path>) -> Self {
        let file = file.map_or_else(|| NO_FILE.to_owned(), |file| file.display().to_string());
        let origins = Origins { file, found: BTreeMap::new() };
        Self { values: BTreeMap::new(), origins, problems: Vec::new() }
    }

    pub(super) fn set_from_file(&mut self, path: &str, value: Value) {
        let file = self.origins.file.clone();
        self.set(path, value, Origin::File(file));
    }

    pub(super) fn set_from_variable(&mut self, path: &str, value: Value, variable: &str) {
        let is_split =
            !keys::OBJECT_LISTS.contains(&path) && value.as_sequence().is_some_and(|pieces| pieces.len() > 1);
        let origin = if is_split { Origin::Split } else { Origin::Variable };
        self.set(path, value, origin(variable.to_owned()));
    }

    pub(super) fn set_from_indexed(&mut self, path: &str, value: Value, variable: &str) {
        self.set(path, value, Origin::Indexed(variable.to_owned()));
    }

    fn set(&mut self, path: &str, value: Value, origin: Origin) {
        self.values.insert(path.to_owned(), value);
        self.origins.found.insert(path.to_owned(), origin);
    }

    /// Values with their keys.
    pub(super) fn values(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Keys with a value.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// These values, overridden by others, with the problems of the others.
    pub(super) fn overlaid_by(&self, other: Self) -> Self {
        let (mut values, mut found) = (self.values.clone(), self.origins.found.clone());
        values.extend(other.values);
        found.extend(other.origins.found);
        Self { values, origins: Origins { found, ..other.origins }, problems: other.problems }
    }

    /// Removes the values of a section.
    pub(super) fn remove_section(&mut self, section: &str) {
        self.values.retain(|key, _| !key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')));
    }

    /// Adds a problem of the file.
    pub(super) fn problem(&mut self, key: &str, message: &str) {
        let origin = self.origins.file.clone();
        self.problem_of(key, message, origin);
    }

    /// Adds a problem of the file, with advice.
    pub(super) fn problem_with_cure(&mut self, key: &str, message: &str, cure: Option<String>) {
        let origin = self.origins.file.clone();
        self.problems.push(Problem::new(key, message, origin).with_cure(cure));
    }

    /// Adds a problem of any origin.
    pub(super) fn problem_of(&mut self, key: &str, message: &str, origin: String) {
        self.problems.push(Problem::new(key, message, origin));
    }

    /// Adds problems, each with the origin of the value at its key.
    pub(super) fn add_problems(&mut self, problems: impl IntoIterator<Item = (String, String)>) {
        for (key, message) in problems {
            let problem = self.origins.problem(key, message);
            self.problems.push(problem);
        }
    }

    /// Converts the values. One of a wrong type becomes a problem, and its default is used. Each
    /// value is tried alone, as a deserializer stops at its first error.
    pub(super) fn read(&mut self) -> Config {
        let mut good = Mapping::new();
        let mut found = Vec::new();
        for (path, value) in &self.values {
            let mut alone = Mapping::new();
            put(&mut alone, path, value.clone());
            match serde_path_to_error::deserialize::<_, Config>(Value::Mapping(alone)) {
                Ok(_) => put(&mut good, path, value.clone()),
                Err(error) => found.push(describe(path, &error)),
            }
        }
        for (key, message) in found {
            let cure = if keys::is_secret(&key) { None } else { advice(&message) };
            let problem = self.origins.problem(key, message).with_cure(cure);
            self.problems.push(problem);
        }
        let config = serde_norway::from_value(Value::Mapping(good)).unwrap_or_else(|_| {
            // Each value was accepted alone, so the types of the configuration contradict each
            // other.
            self.problem("top level", "cannot be read as a whole");
            Config::default()
        });
        if self.origins.file != NO_FILE {
            let problem = audit_file::check_own(&config, Path::new(&self.origins.file));
            self.add_problems(problem);
        }
        config
    }
}

/// Returns true if `path` lies within the mapping at `found`.
fn is_around(found: &str, path: &str) -> bool {
    keys::MAPPINGS.contains(&found) && path.strip_prefix(found).is_some_and(|rest| rest.starts_with('.'))
}

/// Sets the value at a dotted path, and makes missing mappings.
fn put(mapping: &mut Mapping, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            mapping.insert(Value::from(path), value);
        }
        Some((section, rest)) => {
            let inner = mapping.entry(Value::from(section)).or_insert_with(|| Value::Mapping(Mapping::new()));
            if let Value::Mapping(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// Key and message for a refused value of `path`. Neither repeats anything of a secret.
fn describe(path: &str, error: &serde_path_to_error::Error<serde_norway::Error>) -> (String, String) {
    let place = error.path().to_string();
    let inside = place.strip_prefix(path).unwrap_or("");
    if keys::is_secret(path) {
        // Up to the index, as an unknown field name may hold the secret.
        let end = inside.find(']').map_or(0, |end| end + 1);
        let field =
            ["value", "expires_at"].into_iter().find(|field| inside[end..].strip_prefix('.') == Some(field));
        let key = format!("{path}{}{}", &inside[..end], field.map(|f| format!(".{f}")).unwrap_or_default());
        let message = match (field, keys::find(path).map(|key| key.kind)) {
            (Some("expires_at"), _) => {
                "must be an RFC 3339 time such as 2026-01-31T00:00:00Z, or unix seconds"
            }
            (None, Some(keys::Kind::List)) if keys::entry_fields(path).is_empty() => {
                "must be a list of texts"
            }
            (None, Some(keys::Kind::List)) => "must be a list of texts or of {value, expires_at}",
            _ => "must be a text; put it in quotes",
        };
        return (key, message.to_owned());
    }
    // The name of an unknown field may be a URL as well.
    let end = inside.find("://").map_or(inside.len(), |at| inside[..at].rfind(']').map_or(0, |end| end + 1));
    (format!("{path}{}", &inside[..end]), without_rust_types(&error.inner().to_string()))
}

/// Replaces Rust types in a message of serde by ranges and words of YAML.
fn without_rust_types(message: &str) -> String {
    /// Messages of values that may have several types.
    const UNTAGGED: [(&str, &str); 2] = [
        ("untagged enum Uid", "must be numbers of users, from 0 to 4294967295"),
        ("untagged enum Truth", "must be true or false"),
    ];
    if let Some((_, ours)) = UNTAGGED.iter().find(|(theirs, _)| message.ends_with(theirs)) {
        return (*ours).to_owned();
    }
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return masked(message);
    };
    let ours = match expected {
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0",
        "i64" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a string" => "a text",
        "a map" => "a mapping",
        "a Value::Tag enum" | "a Value::Tagged enum" => "one of the allowed names",
        _ if expected.starts_with("struct ") => "a mapping",
        _ => expected,
    };
    format!("{}, expected {ours}", masked(found))
}

/// Masks what a message of serde quotes, if that may be a URL: it may hold a password.
fn masked(message: &str) -> String {
    const QUOTES: [char; 2] = ['"', '`'];
    match (message.find(QUOTES), message.rfind(QUOTES)) {
        (Some(start), Some(end)) if start < end && message[start..end].contains("://") => {
            format!("{}{MASK}{}", &message[..=start], &message[end..])
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_neither_rust_types_nor_urls() {
        for (message, expected) in [
            (
                "invalid type: floating point `1.5`, expected i64",
                "invalid type: floating point `1.5`, expected a whole number",
            ),
            (
                "invalid type: string \"a\", expected struct Network",
                "invalid type: string \"a\", expected a mapping",
            ),
            (
                "invalid length 0, expected struct Network with 3 elements",
                "invalid length 0, expected a mapping",
            ),
            (
                "invalid type: string \"p://u:hunter2, expected \\\"@h\", expected u64",
                "invalid type: string \"***\", expected a whole number from 0",
            ),
            (
                "unknown variant `p://hunter2`, expected one of `a`, `b`",
                "unknown variant `***`, expected one of `a`, `b`",
            ),
            ("unknown field `p://hunter2`, there are no fields", "unknown field `***`, there are no fields"),
            ("must be a URL such as https://a", "must be a URL such as https://a"),
        ] {
            assert_eq!(without_rust_types(message), expected);
        }
    }
}
