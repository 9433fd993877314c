//! Options for the fields of a key, shared by issue, import, update and rotate.

use clap::Args;
use serde_json::{Map, Value, json};

use super::credits::CreditOptions;
use super::rate_limit::RateLimit;
use crate::cli::exit::Failure;
use crate::cli::input::{Visibility, duration, json_object, non_empty, time};

/// Fields that can be set on new and existing keys.
#[derive(Args)]
pub(super) struct KeyFields {
    /// Scopes (comma-separated); empty for none
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// Named set of scopes of the server's configuration (roles), in place of --scopes
    #[arg(long, value_name = "NAME", conflicts_with = "scopes")]
    role: Option<String>,
    /// Custom attributes
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    metadata: Option<Map<String, Value>>,
    /// Addresses it may be used from, such as 10.0.0.0/8 (comma-separated); empty for any
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    allowed_cidrs: Option<Vec<String>>,
    /// Requests per window; 0 for no limit
    #[arg(long, value_name = "N")]
    rate_limit_quota: Option<u64>,
    /// Length of the window, such as 60s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    rate_limit_window: Option<String>,
    /// One of several limits, each with a name, such as burst=10/1s or day=1000/24h,actor; repeat
    /// it for more, '' for none
    ///
    /// `,actor` counts over all keys of the actor; `,envoy` leaves counting to Envoy's rate limit
    /// filter. The limits replace all that the key has.
    #[arg(long, value_name = "NAME=QUOTA/WINDOW", value_parser = RateLimit::parse)]
    rate_limit: Vec<RateLimit>,
    #[command(flatten)]
    credits: CreditOptions,
}

impl KeyFields {
    /// Inserts the given fields into a request body and returns their names.
    ///
    /// # Errors
    /// Fails when only one of the two rate limit options is given.
    pub(super) fn insert_into(&self, body: &mut Map<String, Value>) -> Result<Vec<&'static str>, Failure> {
        let mut put = vec![];
        let mut set = |name: &'static str, value: Option<Value>| {
            put.push(name);
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        };
        if let Some(scopes) = &self.scopes {
            set("scopes", Some(json!(non_empty(scopes))));
        }
        if let Some(role) = &self.role {
            set("role", Some(role.as_str().into()));
        }
        if let Some(metadata) = &self.metadata {
            set("metadata", Some(Value::Object(metadata.clone())));
        }
        if let Some(blocks) = &self.allowed_cidrs {
            set("ip_restriction", Some(json!({ "allowed_cidrs": non_empty(blocks) })));
        }
        match (self.rate_limit_quota, &self.rate_limit_window) {
            (None, None) => {}
            // A field that is in update_mask but not in the body is cleared.
            (Some(0), _) => set("rate_limit_policy", None),
            (Some(quota), Some(window)) => {
                set("rate_limit_policy", Some(json!({ "quota": quota.to_string(), "window": window })));
            }
            (Some(_), None) => return Err(Failure::usage("--rate-limit-quota needs --rate-limit-window")),
            (None, Some(_)) => return Err(Failure::usage("--rate-limit-window needs --rate-limit-quota")),
        }
        if !self.rate_limit.is_empty() {
            set("rate_limit_policies", RateLimit::list(&self.rate_limit));
        }
        if let Some(credits) = self.credits.value() {
            set("credits", credits);
        }
        Ok(put)
    }
}

/// Fields of a new key.
#[derive(Args)]
pub(super) struct NewKey {
    /// Display name of the key
    name: String,
    /// The actor on whose behalf the key acts
    #[arg(long, value_name = "ID")]
    actor: String,
    #[command(flatten)]
    fields: KeyFields,
    /// Visibility of the key
    #[arg(long, value_enum)]
    visibility: Option<Visibility>,
    /// Idempotency id: repeating the request with it returns the same key (at most 36 characters)
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl NewKey {
    /// Returns the body of the request.
    ///
    /// # Errors
    /// Fails as [`KeyFields::insert_into`] does.
    pub(super) fn body(&self, ttl: Option<&str>) -> Result<Map<String, Value>, Failure> {
        let mut body = Map::new();
        body.insert("name".into(), self.name.as_str().into());
        body.insert("actor_id".into(), self.actor.as_str().into());
        self.fields.insert_into(&mut body)?;
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

/// Options of both `update` commands.
#[derive(Args)]
pub(super) struct Update {
    /// The key's id
    #[arg(value_name = "KEY_ID")]
    pub id: String,
    /// New name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    fields: KeyFields,
    /// New lifetime, from now on: 24h, 30d, 1y6mo
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "expire_time")]
    ttl: Option<String>,
    /// New end: a time (2026-12-07T08:00:00Z) or a date (2026-12-07, midnight UTC)
    #[arg(long, value_name = "TIME", value_parser = time)]
    expire_time: Option<String>,
    /// The fields to update (comma-separated) [default: those given]; a listed field without an
    /// option is cleared
    ///
    /// The fields are name, scopes, metadata, ip_restriction, rate_limit_policy,
    /// rate_limit_policies, credits, and one of ttl and expire_time.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    update_mask: Option<Vec<String>>,
}

impl Update {
    /// Returns the request body and its update mask.
    ///
    /// # Errors
    /// Fails when nothing is to be changed, or an option is given that isn't in the mask.
    pub(super) fn body_and_mask(&self) -> Result<(Value, String), Failure> {
        let mut body = Map::new();
        let mut given = self.fields.insert_into(&mut body)?;
        if let Some(name) = &self.name {
            body.insert("name".into(), name.as_str().into());
            given.insert(0, "name");
        }
        for (name, value) in [("ttl", &self.ttl), ("expire_time", &self.expire_time)] {
            if let Some(value) = value {
                body.insert(name.into(), value.as_str().into());
                given.push(name);
            }
        }
        let mask = match &self.update_mask {
            None => given,
            Some(mask) => {
                let mask = non_empty(mask);
                if let Some(left_out) = given.iter().find(|field| !mask.contains(field)) {
                    return Err(Failure::usage(format!(
                        "{left_out} is given but not listed in --update-mask: add it there"
                    )));
                }
                mask
            }
        };
        if mask.is_empty() {
            return Err(Failure::usage("nothing to change: give --name, --scopes or another option"));
        }
        Ok((Value::Object(body), mask.join(",")))
    }
}
