//! decK's YAML: consumers of Kong, with their key-auth credentials.

use std::time::Duration;

use serde_json::{Map, Value};

use super::document::documents;
use super::entry::{End, Entry, Export, Material, items, label};
use crate::duration;

/// Windows of Kong's plugin `rate-limiting`, in seconds.
const WINDOWS: [(&str, u64); 6] = [
    ("second", 1),
    ("minute", 60),
    ("hour", 3_600),
    ("day", 86_400),
    ("month", 2_592_000),
    ("year", 31_536_000),
];

/// Lists of a consumer that hold other credentials.
const OTHER_CREDENTIALS: [&str; 6] = [
    "basicauth_credentials",
    "hmacauth_credentials",
    "jwt_secrets",
    "oauth2_credentials",
    "mtls_auth_credentials",
    "keyauth_enc_credentials",
];

/// Reads an export.
///
/// # Errors
/// Fails if the text isn't decK's YAML.
pub(super) fn read(text: &str) -> Result<Export, String> {
    let mut export = Export::default();
    let mut is_deck = false;
    for document in documents(text)? {
        is_deck |= ["_format_version", "consumers", "keyauth_credentials"]
            .iter()
            .any(|member| document.get(member).is_some());
        let consumers = items(&document["consumers"]);
        for (index, consumer) in consumers.iter().enumerate() {
            read_consumer(&format!("consumers[{index}]"), consumer, &document, &mut export);
        }
        for (index, credential) in items(&document["keyauth_credentials"]).iter().enumerate() {
            if consumers.iter().any(|consumer| is_of(credential, consumer)) {
                continue;
            }
            // The consumer isn't in the file.
            let named = consumer_names(credential).next();
            let place = format!("keyauth_credentials[{index}]");
            let mut entry = credential_entry(place, named.as_deref().unwrap_or_default(), 0, credential);
            entry.actor = named;
            export.entries.push(entry);
        }
        note_plugins(&document, &mut export);
    }
    match is_deck {
        true => Ok(export),
        false => Err("isn't decK's YAML: it has no consumers; make it with `deck gateway dump`".to_owned()),
    }
}

/// Returns what an item of decK's flat form says of its consumer: a name or id, or an object with
/// them.
fn consumer_names(item: &Value) -> impl Iterator<Item = String> {
    let of = &item["consumer"];
    [&of["username"], &of["custom_id"], &of["id"], of].into_iter().filter_map(label)
}

/// Returns true if an item of decK's flat form is of a consumer.
fn is_of(item: &Value, consumer: &Value) -> bool {
    let names: Vec<String> =
        ["username", "custom_id", "id"].iter().filter_map(|name| label(&consumer[*name])).collect();
    consumer_names(item).any(|name| names.contains(&name))
}

/// Returns the items of a consumer with their places: those in it, and those of the flat form.
fn items_of<'d>(
    list: &str,
    (place, consumer): (&str, &'d Value),
    document: &'d Value,
) -> Vec<(String, &'d Value)> {
    let own = items(&consumer[list]).iter().enumerate();
    let flat = items(&document[list]).iter().enumerate().filter(|(_, item)| is_of(item, consumer));
    own.map(|(index, item)| (format!("{place}.{list}[{index}]"), item))
        .chain(flat.map(|(index, item)| (format!("{list}[{index}]"), item)))
        .collect()
}

fn read_consumer(place: &str, consumer: &Value, document: &Value, export: &mut Export) {
    let of_consumer = |list: &str| items_of(list, (place, consumer), document);
    let username = label(&consumer["username"]);
    let custom_id = label(&consumer["custom_id"]);
    let name = username.clone().or_else(|| custom_id.clone()).or_else(|| label(&consumer["id"]));
    for list in OTHER_CREDENTIALS {
        let count = of_consumer(list).len();
        if count > 0 {
            export.note(format!(
                "{place}: its {list} ({count}) don't carry over: only key-auth credentials do"
            ));
        }
    }
    let credentials = of_consumer("keyauth_credentials");
    let is_several = credentials.len() > 1;
    for (index, (place, credential)) in credentials.into_iter().enumerate() {
        let shown = name.as_deref().unwrap_or_default();
        let mut entry = credential_entry(place, shown, if is_several { index + 1 } else { 0 }, credential);
        entry.actor = custom_id.clone().or_else(|| name.clone());
        if let (Some(username), Some(_)) = (&username, &custom_id) {
            entry.metadata.insert("kong_username".into(), username.as_str().into());
        }
        let tags = || items(&consumer["tags"]).iter().chain(items(&credential["tags"])).filter_map(label);
        let mut tags: Vec<String> = tags().collect();
        tags.dedup();
        if !tags.is_empty() {
            entry.metadata.insert("kong_tags".into(), tags.into());
        }
        let groups: Vec<String> =
            of_consumer("acls").into_iter().filter_map(|(_, acl)| label(&acl["group"])).collect();
        entry.add_scopes("the ACL group", groups.iter().map(String::as_str));
        for group in items(&consumer["groups"]) {
            let group = label(&group["name"]).unwrap_or_default();
            entry.lost.push(format!("the consumer group {group:?}, with its plugins"));
        }
        for (_, plugin) in of_consumer("plugins") {
            read_plugin(plugin, &mut entry);
        }
        export.entries.push(entry);
    }
}

fn credential_entry(place: String, consumer: &str, number: usize, credential: &Value) -> Entry {
    let name = match (consumer, number) {
        ("", _) => "kong key-auth".to_owned(),
        (consumer, 0) => consumer.to_owned(),
        (consumer, number) => format!("{consumer} {number}"),
    };
    let mut entry = Entry::new(place, name);
    entry.material = match &credential["key"] {
        Value::String(key) if key.starts_with("{vault://") => {
            Err("its key is a reference to a vault; put the key itself there".to_owned())
        }
        Value::String(key) if key.starts_with("${{") || key.starts_with("{{") => {
            Err("its key is a template of decK; render the file first (`deck file render`)".to_owned())
        }
        Value::String(key) if !key.is_empty() => Ok(Material::Raw(key.as_str().into())),
        Value::Number(_) => Err("its key is a number; put quotes around it, as zeros may be lost".to_owned()),
        _ => Err("has no key; dump it with a user who may read credentials".to_owned()),
    };
    if let Some(id) = label(&credential["id"]) {
        entry.metadata.insert("kong_id".into(), id.into());
    }
    if let Some(seconds) = credential["ttl"].as_u64().filter(|seconds| *seconds > 0) {
        entry.end = Some(End::After(duration::to_proto(Duration::from_secs(seconds))));
    }
    entry
}

/// Takes the limits of a consumer's plugin, which count over all its keys.
fn read_plugin(plugin: &Value, entry: &mut Entry) {
    let name = label(&plugin["name"]).unwrap_or_default();
    if plugin["enabled"] == false {
        return;
    }
    if name != "rate-limiting" {
        entry.lost.push(format!("the plugin {name:?} of its consumer"));
        return;
    }
    for (window, seconds) in WINDOWS {
        if let Some(quota) = plugin["config"][window].as_i64() {
            entry.add_limit(window, quota, Duration::from_secs(seconds), true);
        }
    }
}

/// Notes what of the routes' configuration has to be said elsewhere.
fn note_plugins(document: &Value, export: &mut Export) {
    let mut plugins: Vec<&Value> = items(&document["plugins"]).iter().collect();
    for service in items(&document["services"]) {
        plugins.extend(items(&service["plugins"]));
        plugins.extend(items(&service["routes"]).iter().flat_map(|route| items(&route["plugins"])));
    }
    plugins.extend(items(&document["routes"]).iter().flat_map(|route| items(&route["plugins"])));
    for plugin in plugins {
        let name = label(&plugin["name"]).unwrap_or_default();
        match name.as_str() {
            "key-auth" => note_key_auth(plugin["config"].as_object(), export),
            "acl" => export.note(
                "plugin acl: the groups of consumers became scopes; demand them of routes (authz.routes, scopes)"
                    .to_owned(),
            ),
            _ => {}
        }
    }
}

fn note_key_auth(config: Option<&Map<String, Value>>, export: &mut Export) {
    let member = |name: &str| config.and_then(|config| config.get(name));
    let names: Vec<String> =
        member("key_names").map(items).unwrap_or_default().iter().filter_map(label).collect();
    let names = if names.is_empty() { vec!["apikey".to_owned()] } else { names };
    let is_read = |name: &str, default: bool| member(name).and_then(Value::as_bool).unwrap_or(default);
    let mut sources = vec![];
    for name in names {
        if is_read("key_in_header", true) {
            sources.push(format!("{{header: {name}}}"));
        }
        if is_read("key_in_query", true) {
            sources.push(format!("{{query: {name}}}"));
        }
    }
    export
        .note(format!("plugin key-auth: clients show their keys in authz.sources: [{}]", sources.join(", ")));
}
