//! The fields of a key as options: what issue, import, update and rotate set in the same way.

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cli::exit::Failure;
use crate::cli::input::{Visibility, items, object, span};

/// What can be set on any key at any time.
#[derive(Args)]
pub struct Fields {
    /// What it may do: scopes with commas between them; empty for none
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// Attributes of your own
    #[arg(long, value_name = "JSON", value_parser = object)]
    metadata: Option<Map<String, Value>>,
    /// From where it may be used: blocks such as 10.0.0.0/8 with commas between them; empty for anywhere
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    allowed_cidrs: Option<Vec<String>>,
    /// Requests a window; 0 for no limit
    #[arg(long, value_name = "N")]
    rate_limit_quota: Option<u64>,
    /// Length of the window, such as 60s
    #[arg(long, value_name = "DURATION", value_parser = span)]
    rate_limit_window: Option<String>,
}

impl Fields {
    /// Puts what was given into a body; tells which fields these are.
    ///
    /// # Errors
    /// When a rate limit has only one of its two halves.
    pub fn put(&self, body: &mut Map<String, Value>) -> Result<Vec<&'static str>, Failure> {
        let mut put = vec![];
        let mut set = |name: &'static str, value: Option<Value>| {
            put.push(name);
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        };
        if let Some(scopes) = &self.scopes {
            set("scopes", Some(json!(items(scopes))));
        }
        if let Some(metadata) = &self.metadata {
            set("metadata", Some(Value::Object(metadata.clone())));
        }
        if let Some(blocks) = &self.allowed_cidrs {
            set("ip_restriction", Some(json!({ "allowed_cidrs": items(blocks) })));
        }
        match (self.rate_limit_quota, &self.rate_limit_window) {
            (None, None) => {}
            // Unset: with an update_mask that is how a field is cleared.
            (Some(0), _) => set("rate_limit_policy", None),
            (Some(quota), Some(window)) => {
                set("rate_limit_policy", Some(json!({ "quota": quota.to_string(), "window": window })));
            }
            (Some(_), None) => return Err(Failure::unusable("--rate-limit-quota needs --rate-limit-window")),
            (None, Some(_)) => return Err(Failure::unusable("--rate-limit-window needs --rate-limit-quota")),
        }
        Ok(put)
    }
}

/// What can be set on a new key only.
#[derive(Args)]
pub struct NewKey {
    /// Its name, for people
    name: String,
    /// On whose behalf it acts
    #[arg(long, value_name = "ID")]
    actor: String,
    #[command(flatten)]
    fields: Fields,
    /// Who may see it
    #[arg(long, value_enum)]
    visibility: Option<Visibility>,
    /// An id of this request: sent again, it gives the same key and not a second one (36 characters at most)
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl NewKey {
    /// The body of the request.
    ///
    /// # Errors
    /// As [`Fields::put`].
    pub fn body(&self, ttl: Option<&str>) -> Result<Map<String, Value>, Failure> {
        let mut body = Map::new();
        body.insert("name".into(), self.name.as_str().into());
        body.insert("actor_id".into(), self.actor.as_str().into());
        self.fields.put(&mut body)?;
        let optional = [
            ("ttl", ttl),
            ("visibility", self.visibility.map(Visibility::name)),
            ("request_id", self.request_id.as_deref()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                body.insert(name.into(), value.into());
            }
        }
        Ok(body)
    }
}

/// `update` of either kind.
#[derive(Args)]
pub struct Update {
    /// The key's id
    #[arg(value_name = "KEY_ID")]
    pub id: String,
    /// Its new name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// The fields to write, with commas between them [default: those given]; one that isn't given is cleared
    ///
    /// They are name, scopes, metadata, ip_restriction and rate_limit_policy.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    update_mask: Option<Vec<String>>,
}

impl Update {
    /// The body, and the update mask that goes with it.
    ///
    /// # Errors
    /// When nothing is to be changed, or an option is given that the mask leaves out.
    pub fn body_and_mask(&self) -> Result<(Value, String), Failure> {
        let mut body = Map::new();
        let mut given = self.fields.put(&mut body)?;
        if let Some(name) = &self.name {
            body.insert("name".into(), name.as_str().into());
            given.insert(0, "name");
        }
        let mask = match &self.update_mask {
            None => given,
            Some(mask) => {
                let mask = items(mask);
                if let Some(left_out) = given.iter().find(|field| !mask.contains(field)) {
                    return Err(Failure::unusable(format!(
                        "{left_out} is given, but is not in --update-mask"
                    )));
                }
                mask
            }
        };
        if mask.is_empty() {
            return Err(Failure::unusable("nothing to change; give --name, --scopes or another option"));
        }
        Ok((Value::Object(body), mask.join(",")))
    }
}
