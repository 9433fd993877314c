//! A key of another product's export, and what becomes of it.

use std::time::Duration;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::credential::{Form, Presented, classify, imported};
use crate::duration;
use crate::http::check_import;
use crate::key::{RatePolicies, Scope};
use crate::secret::SecretString;

/// Material of a key in an export.
pub(super) enum Material {
    /// The key itself.
    Raw(SecretString),
    /// A hash of it: algorithm and encoding, if they are named, and the value.
    Hash { algorithm: Option<String>, encoding: Option<String>, value: SecretString },
}

/// Key of an export.
pub(super) struct Entry {
    /// Place in the file, for people.
    pub place: String,
    /// Name, for people.
    pub name: String,
    /// Actor, if the export names one.
    pub actor: Option<String>,
    /// The key, or why it can't be taken from the export.
    pub material: Result<Material, String>,
    /// Scopes.
    pub scopes: Vec<String>,
    /// Metadata.
    pub metadata: Map<String, Value>,
    /// Addresses from which it may be used.
    pub cidrs: Vec<String>,
    /// End.
    pub end: Option<End>,
    /// Named rate limits, as in a request.
    pub limits: Vec<Value>,
    /// Credits, as in a request.
    pub credits: Option<Value>,
    /// Parts of it that don't carry over.
    pub lost: Vec<String>,
    /// Reason not to import it, if it works no more.
    pub left_out: Option<String>,
}

/// End of a key.
#[derive(Clone)]
pub(super) enum End {
    /// At a time.
    At(Timestamp),
    /// A lifetime in the form of the API, from now on.
    After(String),
}

impl Entry {
    /// Creates an entry of which only place and name are known.
    pub(super) fn new(place: String, name: String) -> Self {
        Self {
            place,
            name,
            actor: None,
            material: Err("has no key".to_owned()),
            scopes: vec![],
            metadata: Map::new(),
            cidrs: vec![],
            end: None,
            limits: vec![],
            credits: None,
            lost: vec![],
            left_out: None,
        }
    }

    /// Adds scopes. What isn't a scope-token is lost.
    pub(super) fn add_scopes<'a>(&mut self, what: &str, texts: impl IntoIterator<Item = &'a str>) {
        for text in texts {
            if Scope::parse(text).is_err() {
                self.lost.push(format!("{what} {text:?}, which is no scope-token"));
            } else if !self.scopes.iter().any(|scope| scope == text) {
                self.scopes.push(text.to_owned());
            }
        }
    }

    /// Adds a rate limit. One that the API can't express is lost.
    pub(super) fn add_limit(&mut self, name: &str, quota: i64, window: Duration, is_of_actor: bool) {
        let name: String = name.to_ascii_lowercase().chars().map(policy_char).take(32).collect();
        let is_named = self.limits.iter().any(|limit| limit["name"] == name.as_str());
        let shown = format!("the limit {name} of {quota} in {}", duration::to_proto(window));
        if name.is_empty() || is_named || quota < 1 || window < Duration::from_secs(1) {
            self.lost
                .push(format!("{shown}: a limit needs a name of its own, a quota, and a second at least"));
        } else if self.limits.len() == RatePolicies::MAX {
            self.lost.push(format!("{shown}: a key has {} limits at most", RatePolicies::MAX));
        } else {
            let scope = if is_of_actor { "ACTOR" } else { "KEY" };
            let window = duration::to_proto(window);
            self.limits
                .push(json!({ "name": name, "quota": quota.to_string(), "window": window, "scope": scope }));
        }
    }

    /// Returns the body of its import.
    ///
    /// # Errors
    /// Returns why it can't be imported, without the key.
    pub(super) fn body(&self, default_actor: Option<&str>, now: Timestamp) -> Result<Value, String> {
        let mut body = Map::new();
        match self.material.as_ref().map_err(Clone::clone)? {
            Material::Raw(raw_key) => {
                check_raw_key(raw_key)?;
                body.insert("raw_key".into(), raw_key.expose().into());
            }
            Material::Hash { algorithm, encoding, value } => {
                let mut hash = Map::new();
                let named = [("algorithm", algorithm), ("encoding", encoding)];
                for (name, text) in named {
                    if let Some(text) = text {
                        hash.insert(name.into(), text.as_str().into());
                    }
                }
                hash.insert("value".into(), value.expose().into());
                body.insert("hash".into(), hash.into());
            }
        }
        let actor = self.actor.as_deref().or(default_actor);
        let actor = actor.ok_or("names nobody on whose behalf it acts; give --actor for such keys")?;
        body.insert("name".into(), self.name.as_str().into());
        body.insert("actor_id".into(), actor.into());
        if !self.scopes.is_empty() {
            body.insert("scopes".into(), json!(self.scopes));
        }
        if !self.metadata.is_empty() {
            body.insert("metadata".into(), self.metadata.clone().into());
        }
        if !self.cidrs.is_empty() {
            body.insert("ip_restriction".into(), json!({ "allowed_cidrs": self.cidrs }));
        }
        if !self.limits.is_empty() {
            body.insert("rate_limit_policies".into(), json!(self.limits));
        }
        if let Some(credits) = &self.credits {
            body.insert("credits".into(), credits.clone());
        }
        match &self.end {
            None => {}
            Some(End::After(ttl)) => drop(body.insert("ttl".into(), ttl.as_str().into())),
            Some(End::At(end)) => {
                let micros = end.as_micros().saturating_sub(now.as_micros());
                let ttl = Duration::from_secs(u64::try_from(micros / 1_000_000).unwrap_or(0).max(1));
                body.insert("ttl".into(), duration::to_proto(ttl).into());
            }
        }
        let body = Value::Object(body);
        check_import(&body.to_string()).map_err(|error| error.message.to_string())?;
        Ok(body)
    }

    /// Returns why the key isn't to be imported.
    pub(super) fn left_out(&self, now: Timestamp) -> Option<String> {
        let has_ended = matches!(self.end, Some(End::At(end)) if end <= now);
        self.left_out.clone().or_else(|| has_ended.then(|| "has expired".to_owned()))
    }

    /// Returns a digest by which two entries of one key are the same.
    pub(super) fn fingerprint(&self) -> Option<[u8; 32]> {
        let text = match self.material.as_ref().ok()? {
            Material::Raw(text) => text.expose(),
            Material::Hash { value, .. } => value.expose(),
        };
        Some(Sha256::digest(text).into())
    }
}

fn policy_char(char: char) -> char {
    if char.is_ascii_alphanumeric() { char } else { '_' }
}

/// Checks what the server would refuse, so that a dry run says it.
fn check_raw_key(raw_key: &SecretString) -> Result<(), String> {
    let Some(presented) = Presented::new(raw_key.expose()) else {
        return Err("raw_key: must be 1 to 16384 bytes long".to_owned());
    };
    if classify(presented, []) != Form::Imported {
        return Err(
            "raw_key: has the form of a credential that Talos makes itself, and could never verify; \
                    issue a new key"
                .to_owned(),
        );
    }
    imported::unpresentable(raw_key.expose()).map_or(Ok(()), |problem| Err(format!("raw_key: {problem}")))
}

/// Keys of an export, and what else it has.
#[derive(Default)]
pub(super) struct Export {
    /// The keys.
    pub entries: Vec<Entry>,
    /// Notes on what belongs to no single key, with what to do about it.
    pub notes: Vec<String>,
}

impl Export {
    /// Adds a note, unless it is there already.
    pub(super) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// Returns a text, or a number as a text.
pub(super) fn label(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Returns the items of a list; none if it isn't one.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
