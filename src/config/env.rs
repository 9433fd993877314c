//! Environment variables: `TALOS_` and the path of a key; lists also by index.

use std::collections::BTreeMap;

use serde_norway::{Mapping, Value};

use super::error::Problem;
use super::keys::{self, KEYS, Key, Kind, MAPPINGS, OBJECT_LISTS};
use super::merged_config::MergedConfig;
use super::suggest;

/// Default of `--endpoint` of the client commands; not a setting of the server.
const CLIENT_VARIABLE: &str = "TALOS_ENDPOINT";

/// Number of entries that a list may have by index. A larger index is no index.
const MAX_ENTRIES: usize = 1_000;

/// Adds the values of environment variables to `merged`. Returns a warning for each unknown
/// `TALOS_*` variable. An empty variable counts as unset, except that it empties a list.
pub(super) fn collect(
    variables: impl IntoIterator<Item = (String, String)>,
    merged: &mut MergedConfig,
) -> Vec<Problem> {
    let variables: BTreeMap<String, String> = variables
        .into_iter()
        .filter(|(name, _)| name.starts_with("TALOS_") && name != CLIENT_VARIABLE)
        .collect();
    let mut warnings = Vec::new();
    let mut lists: BTreeMap<&'static str, List> = BTreeMap::new();
    for (name, text) in &variables {
        if let Some(key) = KEYS.iter().find(|key| key.variable == *name) {
            if text.is_empty() && key.kind != Kind::List {
                continue;
            }
            match convert(key, text) {
                Ok(value) => merged.set_from_variable(&key.path, value, name),
                Err(message) => merged.problem_of(&key.path, message, name.clone()),
            }
        } else if let Some((key, index, field)) = indexed(name) {
            let list = lists.entry(&key.path).or_insert_with(|| List::new(key));
            list.add(index, field, name, text, merged);
        } else if let Some((key, index)) = entry_of(name) {
            merged.problems.push(unknown_field(key, index, name));
        } else {
            // The value may be a secret under a misspelt name.
            let cure = suggest::variable(name).map(|known| format!("did you mean {known}?"));
            warnings.push(Problem::new(name, "unknown variable, ignored", "").with_cure(cure));
        }
    }
    for list in lists.into_values() {
        if variables.contains_key(&list.key.variable) {
            let message = "is set both as a whole and by index; use one form";
            merged.problem_of(&list.key.path, message, list.key.variable.clone());
        } else {
            list.finish(merged);
        }
    }
    warnings
}

/// Splits a variable such as `TALOS_AUTHZ_SOURCES_0_HEADER` into the key, 0 and `header`.
fn indexed(name: &str) -> Option<(&'static Key, usize, Option<&'static str>)> {
    KEYS.iter().filter(|key| key.kind == Kind::List).find_map(|key| {
        let rest = name.strip_prefix(&key.variable)?.strip_prefix('_')?;
        let (index, field) = match rest.split_once('_') {
            None => (rest, None),
            Some((index, field)) => {
                let known = keys::entry_fields(&key.path);
                (index, Some(*known.iter().find(|known| known.to_ascii_uppercase() == field)?))
            }
        };
        if !index.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let index = index.parse().ok().filter(|index| *index < MAX_ENTRIES)?;
        Some((key, index, field))
    })
}

/// Splits a variable that begins like one of a list's entry into the key and the index, whatever
/// follows.
fn entry_of(name: &str) -> Option<(&'static Key, &str)> {
    KEYS.iter().filter(|key| key.kind == Kind::List).find_map(|key| {
        let rest = name.strip_prefix(&key.variable)?.strip_prefix('_')?;
        let (index, _) = rest.split_once('_')?;
        let is_index = index.bytes().all(|b| b.is_ascii_digit())
            && index.parse::<usize>().is_ok_and(|index| index < MAX_ENTRIES);
        is_index.then_some((key, index))
    })
}

/// Makes the problem of a variable for a field of an entry that no variable sets. Ignored with a
/// warning, it would leave out what was meant, such as a route and its policy.
fn unknown_field(key: &Key, index: &str, name: &str) -> Problem {
    let variable = &key.variable;
    let fields = keys::entry_fields(&key.path);
    let cure = if MAPPINGS.contains(&key.path.as_str()) {
        format!("set {variable} to the whole mapping, as JSON or YAML")
    } else if OBJECT_LISTS.contains(&key.path.as_str()) && fields.is_empty() {
        format!("set {variable}_{index} to a mapping, or {variable} to the whole list, as JSON or YAML")
    } else if fields.is_empty() {
        format!("set {variable}_{index} to the text")
    } else {
        let known: Vec<String> = fields.iter().map(|field| field.to_ascii_uppercase()).collect();
        format!("after {variable}_{index}_ comes one of {}", known.join(", "))
    };
    let path = format!("{}[{index}]", key.path);
    Problem::new(path, "has no field that this variable sets", name).with_cure(Some(cure))
}

/// A list that is collected from indexed variables.
struct List {
    key: &'static Key,
    entries: BTreeMap<usize, Value>,
}

impl List {
    fn new(key: &'static Key) -> Self {
        Self { key, entries: BTreeMap::new() }
    }

    fn add(&mut self, index: usize, field: Option<&str>, name: &str, text: &str, merged: &mut MergedConfig) {
        let path = format!("{}[{index}]", self.key.path);
        let Some(field) = field else {
            let value = if OBJECT_LISTS.contains(&self.key.path.as_str()) {
                let Ok(value @ Value::Mapping(_)) = serde_norway::from_str(text) else {
                    merged.problem_of(&path, "must be a mapping, as JSON or YAML", name.to_owned());
                    return;
                };
                value
            } else {
                Value::from(text)
            };
            if self.entries.insert(index, value).is_some() {
                merged.problem_of(&path, "is set twice", name.to_owned());
            }
            return;
        };
        match self.entries.entry(index).or_insert_with(|| Value::Mapping(Mapping::new())) {
            Value::Mapping(mapping) => {
                mapping.insert(Value::from(field), Value::from(text));
            }
            _ => merged.problem_of(&path, "is set both as a whole and by field", name.to_owned()),
        }
    }

    fn finish(self, merged: &mut MergedConfig) {
        let (path, variable) = (&self.key.path, &self.key.variable);
        // Indices are distinct and sorted, so the first that differs from its position follows a
        // gap.
        if let Some(missing) = self.entries.keys().enumerate().position(|(at, index)| at != *index) {
            let message = format!("has a gap: {variable}_{missing} is not set");
            merged.problem_of(path, &message, variable.clone());
            return;
        }
        let entries = self.entries.into_values().collect();
        merged.set_from_indexed(path, Value::Sequence(entries), variable);
    }
}

/// Converts a variable's text to the kind of the key. The error never repeats the text.
fn convert(key: &Key, text: &str) -> Result<Value, &'static str> {
    match key.kind {
        Kind::Text => Ok(Value::from(text)),
        Kind::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Value::from(true)),
            "false" | "0" => Ok(Value::from(false)),
            _ => Err("must be true or false"),
        },
        Kind::Integer => text.parse::<u64>().map(Value::from).map_err(|_| "must be a whole number from 0"),
        Kind::Float => text
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
            .map(Value::from)
            .ok_or("must be a number"),
        Kind::List if OBJECT_LISTS.contains(&key.path.as_str()) => match serde_norway::from_str(text) {
            Ok(Value::Null) => Ok(Value::Sequence(Vec::new())),
            Ok(value @ Value::Sequence(_)) => Ok(value),
            _ => Err("must be a list, as JSON or YAML"),
        },
        Kind::List if MAPPINGS.contains(&key.path.as_str()) => match serde_norway::from_str(text) {
            Ok(Value::Null) => Ok(Value::Mapping(Mapping::new())),
            Ok(value @ Value::Mapping(_)) => Ok(value),
            _ => Err("must be a mapping, as JSON or YAML"),
        },
        Kind::List => list(text, has_exact_ends(&key.path)),
    }
}

/// Returns true for a list of secrets. White space around such a variable is a part of the secret,
/// as it was when the secret was the current one; a warning tells of it.
fn has_exact_ends(path: &str) -> bool {
    matches!(path, "secrets.hmac.retired" | "audit.key_retired")
}

/// Splits a list at commas, without the white space around them and, unless the ends are exact,
/// around the whole.
fn list(text: &str, has_exact_ends: bool) -> Result<Value, &'static str> {
    let mut items: Vec<&str> = text.split(',').collect();
    if items.last().is_some_and(|last| last.trim().is_empty()) {
        items.pop();
    }
    let last = items.len().saturating_sub(1);
    for (index, item) in items.iter_mut().enumerate() {
        if index > 0 || !has_exact_ends {
            *item = item.trim_start();
        }
        if index < last || !has_exact_ends {
            *item = item.trim_end();
        }
    }
    if items.iter().any(|item| item.trim().is_empty()) {
        return Err("has an empty item");
    }
    Ok(Value::Sequence(items.into_iter().map(Value::from).collect()))
}
