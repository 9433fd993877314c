//! JSON of Unkey's API: lists of keys, with their hash or plaintext.

use std::time::Duration;

use serde_json::{Value, json};

use super::document::documents;
use super::entry::{End, Entry, Export, Material, items, label};
use crate::clock::Timestamp;

/// Reads an export: answers of `apis.listKeys`, a list of keys, or one key per line.
///
/// # Errors
/// Fails if the text isn't JSON.
pub(super) fn read(text: &str) -> Result<Export, String> {
    let mut export = Export::default();
    for (index, document) in documents(text)?.iter().enumerate() {
        let (path, list) = match document {
            Value::Array(list) => (format!("[{index}]"), list.as_slice()),
            Value::Object(_) => match ["keys", "data"].into_iter().find(|name| document[*name].is_array()) {
                Some(name) => (format!("[{index}].{name}"), items(&document[name])),
                None if document["data"]["keys"].is_array() => {
                    (format!("[{index}].data.keys"), items(&document["data"]["keys"]))
                }
                None => (String::new(), std::slice::from_ref(document)),
            },
            _ => return Err(format!("[{index}]: isn't an answer of Unkey's apis.listKeys")),
        };
        for (at, key) in list.iter().enumerate() {
            let place = if path.is_empty() { format!("[{index}]") } else { format!("{path}[{at}]") };
            export.entries.push(read_key(place, key));
        }
        let is_cut = document["pagination"]["hasMore"] == true;
        if is_cut {
            export
                .note(format!("[{index}]: has further pages (pagination.hasMore); append them to the file"));
        }
    }
    Ok(export)
}

fn read_key(place: String, key: &Value) -> Entry {
    let id = ["keyId", "id"].into_iter().find_map(|name| label(&key[name]));
    let start = label(&key["start"]);
    let name = label(&key["name"]).or_else(|| start.clone()).or_else(|| id.clone());
    let mut entry = Entry::new(place, name.unwrap_or_else(|| "unkey".to_owned()));
    entry.actor =
        [&key["externalId"], &key["identity"]["externalId"], &key["ownerId"]].into_iter().find_map(label);
    entry.material = material(key);
    if let Value::Object(meta) = &key["meta"] {
        entry.metadata = meta.clone();
    }
    for (name, text) in [("unkey_id", id), ("unkey_start", start)] {
        if let Some(text) = text {
            entry.metadata.insert(name.into(), text.into());
        }
    }
    let permissions: Vec<String> = items(&key["permissions"]).iter().filter_map(named).collect();
    entry.add_scopes("the permission", permissions.iter().map(String::as_str));
    let roles: Vec<String> = items(&key["roles"]).iter().filter_map(named).collect();
    if !roles.is_empty() {
        entry
            .lost
            .push(format!("its roles ({}): give the key their permissions as scopes", roles.join(", ")));
    }
    if let Some(millis) = key["expires"].as_i64().filter(|millis| *millis > 0) {
        entry.end = Some(End::At(Timestamp::from_micros(millis.saturating_mul(1_000))));
    }
    if key["enabled"] == false {
        entry.left_out = Some("is disabled".to_owned());
    }
    read_limits(key, &mut entry);
    read_credits(key, &mut entry);
    entry
}

/// Takes credits, which are unlimited where none are named. Unkey refills at midnight UTC, every
/// day or on a day of the month.
fn read_credits(key: &Value, entry: &mut Entry) {
    let credits = if key["credits"].is_object() { &key["credits"] } else { key };
    let Some(remaining) = credits["remaining"].as_i64() else { return };
    let remaining = remaining.max(0);
    let mut taken = json!({ "remaining": remaining.to_string() });
    let refill = &credits["refill"];
    if let Some(amount) = refill["amount"].as_i64() {
        let refill = match refill["interval"].as_str() {
            Some("daily") => json!({ "amount": amount.to_string(), "every": "day" }),
            Some("monthly") => {
                let day = refill["refillDay"].as_u64().unwrap_or(1);
                json!({ "amount": amount.to_string(), "every": "month", "at": day.to_string() })
            }
            _ => {
                entry.lost.push(format!("the refill of its credits ({refill})"));
                Value::Null
            }
        };
        if refill.is_object() {
            if amount < remaining {
                entry.lost.push("that a refill takes what is left above its amount".to_owned());
            }
            taken["refill"] = refill;
        }
    }
    entry.credits = Some(taken);
}

/// Returns the name of a permission or role, which is a text or has one.
fn named(value: &Value) -> Option<String> {
    label(value).or_else(|| ["name", "slug"].into_iter().find_map(|name| label(&value[name])))
}

/// Takes the plaintext, else the hash. Unkey's own hashes are SHA-256 in base64.
fn material(key: &Value) -> Result<Material, String> {
    if let Some(plaintext) = ["plaintext", "key"].into_iter().find_map(|name| key[name].as_str()) {
        return Ok(Material::Raw(plaintext.into()));
    }
    match &key["hash"] {
        Value::String(hash) => Ok(Material::Hash {
            algorithm: Some("sha256".to_owned()),
            encoding: None,
            value: hash.as_str().into(),
        }),
        Value::Object(hash) => {
            let value = hash.get("value").and_then(Value::as_str).ok_or("its hash has no value")?;
            let variant = hash.get("variant").and_then(Value::as_str).unwrap_or("sha256_base64");
            let (algorithm, encoding) = match variant.rsplit_once('_') {
                Some((algorithm, encoding)) => (algorithm, Some(encoding.to_owned())),
                None => (variant, None),
            };
            Ok(Material::Hash { algorithm: Some(algorithm.to_owned()), encoding, value: value.into() })
        }
        _ => Err("has neither plaintext nor hash; export the keys with `decrypt: true`, or ask Unkey for the hashes"
            .to_owned()),
    }
}

/// Takes rate limits: those of the key, and those of its identity, which count over all its keys.
fn read_limits(key: &Value, entry: &mut Entry) {
    let lists = [(&key["ratelimits"], false), (&key["identity"]["ratelimits"], true)];
    for (list, is_of_actor) in lists {
        for limit in items(list) {
            let name = label(&limit["name"]).unwrap_or_else(|| "default".to_owned());
            if let (Some(quota), Some(millis)) = (limit["limit"].as_i64(), limit["duration"].as_u64()) {
                entry.add_limit(&name, quota, Duration::from_millis(millis), is_of_actor);
            }
            if limit["autoApply"] == false {
                entry.lost.push(format!("that the limit {name} applies only where a request names it"));
            }
        }
    }
    // Version 1 has one limit.
    let old = &key["ratelimit"];
    let quota = ["limit", "refillRate"].into_iter().find_map(|name| old[name].as_i64());
    let millis = ["duration", "refillInterval"].into_iter().find_map(|name| old[name].as_u64());
    if let (Some(quota), Some(millis)) = (quota, millis) {
        entry.add_limit("default", quota, Duration::from_millis(millis), false);
    }
}
