//! Secrets of Kubernetes: Authorino's API keys, and those of Envoy Gateway's APIKeyAuth.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::document::documents;
use super::entry::{Entry, Export, Material, items, label};

/// Label by which Authorino finds its Secrets.
const AUTHORINO_LABEL: &str = "authorino.kuadrant.io/managed-by";
/// Entry of an Authorino Secret that holds the key.
const AUTHORINO_KEY: &str = "api_key";
/// Annotations that name the user of an Authorino Secret, the most exact first.
const USERS: [&str; 4] = ["secret.kuadrant.io/user-id", "user-id", "userid", "username"];
/// Annotation of `kubectl apply`, which repeats the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object, its place in the file and its name.
struct Object<'a> {
    place: String,
    name: String,
    namespace: String,
    value: &'a Value,
}

/// Reads the Secrets of Authorino.
///
/// # Errors
/// Fails if the text isn't YAML or JSON of Kubernetes objects.
pub(super) fn read_authorino(text: &str) -> Result<Export, String> {
    let documents = documents(text)?;
    let mut export = Export::default();
    for object in objects(&documents, "Secret")? {
        let meta = &object.value["metadata"];
        if meta["labels"][AUTHORINO_LABEL].is_null() {
            export.note(format!("{}: has no label {AUTHORINO_LABEL}, and is left out", object.place));
            continue;
        }
        let mut entry = Entry::new(object.place.clone(), object.path());
        entry.material = secret_value(object.value, AUTHORINO_KEY);
        let annotations = texts(&meta["annotations"]);
        let user = USERS.into_iter().find_map(|name| annotations.get(name).cloned());
        entry.actor = user.or_else(|| Some(object.name.clone()));
        let mut kept = Map::new();
        for (name, text) in texts(&meta["labels"]).into_iter().chain(annotations) {
            if name != AUTHORINO_LABEL && name != LAST_APPLIED {
                kept.insert(name, text.into());
            }
        }
        entry.metadata = kept;
        export.entries.push(entry);
    }
    if !export.entries.is_empty() {
        export.note(
            "Authorino: labels and annotations of the Secrets became metadata; rules of AuthConfigs that read them \
             (auth.identity.metadata) read talos.metadata, or become scopes and authz.routes"
                .to_owned(),
        );
    }
    for config in objects(&documents, "AuthConfig").unwrap_or_default() {
        export.note(format!("{}: its rules don't carry over; say them as authz.routes", config.place));
    }
    Ok(export)
}

/// Reads the Secrets of Envoy Gateway: each entry is a client's id and its key.
///
/// # Errors
/// Fails if the text isn't YAML or JSON of Kubernetes objects.
pub(super) fn read_envoy_gateway(text: &str) -> Result<Export, String> {
    let documents = documents(text)?;
    let mut export = Export::default();
    let policies = objects(&documents, "SecurityPolicy").unwrap_or_default();
    let mut wanted = vec![];
    for policy in &policies {
        let auth = &policy.value["spec"]["apiKeyAuth"];
        for reference in items(&auth["credentialRefs"]) {
            let namespace = label(&reference["namespace"]).unwrap_or_else(|| policy.namespace.clone());
            wanted.push((namespace, label(&reference["name"]).unwrap_or_default()));
        }
        note_policy(policy, auth, &mut export);
    }
    for object in objects(&documents, "Secret")? {
        let is_wanted = wanted.contains(&(object.namespace.clone(), object.name.clone()));
        if !policies.is_empty() && !is_wanted {
            export.note(format!("{}: no SecurityPolicy of the file refers to it; left out", object.place));
            continue;
        }
        let mut clients: Vec<String> = vec![];
        for list in ["data", "stringData"] {
            let members = object.value[list].as_object().into_iter().flatten();
            clients.extend(members.map(|(client, _)| client.clone()));
        }
        clients.sort();
        clients.dedup();
        for client in clients {
            let place = format!("{}, {client}", object.place);
            let mut entry = Entry::new(place, format!("{}/{client}", object.path()));
            entry.material = secret_value(object.value, &client);
            entry.actor = Some(client);
            export.entries.push(entry);
        }
    }
    for (namespace, name) in wanted {
        let is_there = objects(&documents, "Secret")?
            .iter()
            .any(|object| object.namespace == namespace && object.name == name);
        if !is_there {
            export.note(format!(
                "the Secret {namespace}/{name}, to which a SecurityPolicy refers, isn't in the file"
            ));
        }
    }
    Ok(export)
}

/// Notes what Talos and Envoy have to be told instead of a policy.
fn note_policy(policy: &Object<'_>, auth: &Value, export: &mut Export) {
    let mut sources = vec![];
    for from in items(&auth["extractFrom"]) {
        for (list, source) in [("headers", "header"), ("params", "query"), ("cookies", "cookie")] {
            let names = items(&from[list]).iter().filter_map(label);
            sources.extend(names.map(|name| format!("{{{source}: {name}}}")));
        }
    }
    if !sources.is_empty() {
        export.note(format!(
            "{}: clients show their keys in authz.sources: [{}]",
            policy.place,
            sources.join(", ")
        ));
    }
    if let Some(header) = label(&auth["forwardClientIDHeader"]) {
        export.note(format!(
            "{}: forwardClientIDHeader {header}: backends find the client id in x-talos-actor-id instead",
            policy.place
        ));
    }
    if !auth.is_null() {
        export.note(format!("{}: replace apiKeyAuth by extAuth (docs/envoy-gateway.md)", policy.place));
    }
}

impl Object<'_> {
    fn path(&self) -> String {
        match self.namespace.as_str() {
            "" => self.name.clone(),
            namespace => format!("{namespace}/{}", self.name),
        }
    }
}

/// Returns all objects of a kind, also those within lists.
fn objects<'a>(documents: &'a [Value], kind: &str) -> Result<Vec<Object<'a>>, String> {
    let all = documents.iter().flat_map(|document| match items(&document["items"]) {
        [] => std::slice::from_ref(document),
        items => items,
    });
    let mut found = vec![];
    let mut is_kubernetes = false;
    for (index, value) in all.enumerate() {
        is_kubernetes |= value["kind"].is_string();
        if value["kind"] == kind {
            let name = label(&value["metadata"]["name"]).unwrap_or_default();
            let namespace = label(&value["metadata"]["namespace"]).unwrap_or_default();
            let place = format!("object {} ({kind} {name})", index + 1);
            found.push(Object { place, name, namespace, value });
        }
    }
    match is_kubernetes {
        true => Ok(found),
        false => Err("has no Kubernetes objects; make it with `kubectl get secrets -o yaml`".to_owned()),
    }
}

/// Returns an entry of a Secret.
fn secret_value(secret: &Value, name: &str) -> Result<Material, String> {
    if let Some(text) = secret["stringData"][name].as_str() {
        return Ok(Material::Raw(text.into()));
    }
    let encoded = secret["data"][name].as_str().ok_or_else(|| format!("has no entry {name} in data"))?;
    let decoded = STANDARD.decode(encoded.trim()).map_err(|_| format!("data.{name}: isn't base64"))?;
    let text = String::from_utf8(decoded)
        .map_err(|_| format!("data.{name}: isn't UTF-8, so no request carries it"))?;
    Ok(Material::Raw(text.into()))
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let members = value.as_object().into_iter().flatten();
    members.filter_map(|(name, value)| Some((name.clone(), label(value)?))).collect()
}
