//! Updates by field mask (AIP-134): the body is the resource, or wraps it, and the mask names the
//! fields to update.

#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::credits::{CreditsBody, credits};
use super::rate_limits::{NamedRateLimitPolicy, RateLimitPolicy, policy_list, rate_limit_changes};
use super::requests::{
    IpRestriction, MAX_ROLE, NO_CONTROL, SCOPE, addresses, metadata, role, scopes, ttl, visibility,
};
use super::scalars::field;
use super::{lists, names, state};
use crate::error::ApiError;
use crate::http::body::object;
use crate::key::{ActorId, KeyName, MAX_LABEL, RatePolicies, Scope, Scopes};
use crate::service::{Expiry, Fixed, Update};

/// Maximum length of an update mask, in bytes.
pub(crate) const MAX_MASK: usize = 1_024;

/// Fields that can be updated.
const UPDATABLE: [&str; 6] =
    ["name", "scopes", "metadata", "ip_restriction", "rate_limit_policy", "rate_limit_policies"];

/// Fields that `*` doesn't stand for, and that are updated only where a mask names them: a response
/// that is sent back leaves the expiry and the credits alone.
const UPDATABLE_BY_NAME: [&str; 4] = ["expire_time", "ttl", "credits", "role"];

/// The other fields of the resource.
const NOT_UPDATABLE: [&str; 20] = [
    "key_id",
    "actor_id",
    "visibility",
    "status",
    "create_time",
    "update_time",
    "last_used_time",
    "last_used_address",
    "revocation_reason",
    "revocation_description",
    "supersede_time",
    "warnings",
    "suspension",
    "actor_suspension",
    "actor_rate_limit_policies",
    "created_by",
    "updated_by",
    "revoked_by",
    "replaces",
    "replaced_by",
];

/// A key to update. Fields that can't be set may be present, as in a response.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "fields that only we set are accepted and left alone")]
pub(crate) struct KeyBody {
    /// Id of the key in the path, or absent.
    key_id: Option<String>,
    /// Name, for people.
    #[schemars(length(max = MAX_LABEL), pattern(NO_CONTROL))]
    name: Option<String>,
    /// Can't be changed: the present value, or absent.
    actor_id: Option<String>,
    /// Scopes of the key: RFC 6749 scope-tokens without duplicates.
    #[serde(default, deserialize_with = "lists::scopes")]
    #[schemars(length(max = Scopes::MAX), inner(length(min = 1, max = Scope::MAX_LEN), pattern(SCOPE)))]
    scopes: Option<Vec<String>>,
    /// Named set of scopes of the configuration (`roles`), in place of `scopes`.
    #[schemars(length(max = MAX_ROLE))]
    role: Option<String>,
    /// The owner's own attributes: at most 4096 bytes of JSON, nested at most 16 levels, without
    /// repeated names, numbers that a double represents (integers within 2^53 - 1).
    #[schemars(with = "Option<Map<String, Value>>")]
    metadata: Option<Box<RawValue>>,
    /// Ignored.
    #[schemars(with = "Option<names::KeyStatus>")]
    status: Option<String>,
    /// Can't be changed: the present value, or absent.
    #[schemars(with = "Option<names::KeyVisibility>")]
    visibility: Option<String>,
    #[serde(default, deserialize_with = "object")]
    ip_restriction: Option<IpRestriction>,
    #[serde(default, deserialize_with = "object")]
    rate_limit_policy: Option<RateLimitPolicy>,
    /// All limits; the list replaces the whole. `rate_limit_policy` stands for the one named
    /// `default`, and changes it alone.
    #[serde(default, deserialize_with = "policy_list")]
    #[schemars(length(max = RatePolicies::MAX))]
    rate_limit_policies: Option<Vec<NamedRateLimitPolicy>>,
    /// Credits, set anew as a whole. They count if `update_mask` names them; without a mask, unless
    /// the body is a key that was read (it has a `create_time`), whose credits others may have
    /// spent since.
    #[serde(default, deserialize_with = "object")]
    credits: Option<CreditsBody>,
    /// Ignored.
    #[schemars(extend("format" = "date-time"))]
    create_time: Option<String>,
    /// Ignored.
    #[schemars(extend("format" = "date-time"))]
    update_time: Option<String>,
    /// Time of expiry. It counts if `update_mask` names it; without a mask, unless the body is a
    /// key that was read (it has a `create_time`).
    #[schemars(extend("format" = "date-time"))]
    expire_time: Option<String>,
    /// Lifetime from now, such as `24h`. The mask `*` doesn't name it.
    ttl: Option<String>,
    /// Ignored.
    #[schemars(extend("format" = "date-time"))]
    last_used_time: Option<String>,
    /// Ignored.
    last_used_address: Option<String>,
    /// Ignored.
    #[schemars(with = "Option<names::RevocationReason>")]
    revocation_reason: Option<String>,
    /// Ignored.
    revocation_description: Option<String>,
    /// Ignored.
    #[schemars(extend("format" = "date-time"))]
    supersede_time: Option<String>,
    /// Ignored.
    #[serde(default, deserialize_with = "lists::ignored")]
    warnings: Option<Vec<String>>,
    /// Ignored: suspend and resume the key.
    #[serde(default, deserialize_with = "object")]
    #[schemars(with = "Option<Map<String, Value>>")]
    suspension: Option<IgnoredAny>,
    /// Ignored.
    #[serde(default, deserialize_with = "object")]
    #[schemars(with = "Option<Map<String, Value>>")]
    actor_suspension: Option<IgnoredAny>,
    /// Ignored: update the actor.
    #[schemars(with = "Option<Vec<Map<String, Value>>>")]
    actor_rate_limit_policies: Option<IgnoredAny>,
    /// Ignored.
    created_by: Option<String>,
    /// Ignored.
    updated_by: Option<String>,
    /// Ignored.
    revoked_by: Option<String>,
    /// Ignored.
    replaces: Option<String>,
    /// Ignored.
    replaced_by: Option<String>,
}

/// An issued key in a wrapping object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrappedIssued {
    /// The key.
    #[serde(default, deserialize_with = "object")]
    pub issued_api_key: Option<KeyBody>,
}

/// An imported key in a wrapping object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrappedImported {
    /// The key.
    #[serde(default, deserialize_with = "object")]
    pub imported_api_key: Option<KeyBody>,
}

/// Detects the wrapping object of a body.
#[derive(Deserialize)]
pub(crate) struct Wrapper {
    /// True for an issued key.
    #[serde(default, deserialize_with = "is_there")]
    pub issued_api_key: bool,
    /// True for an imported key.
    #[serde(default, deserialize_with = "is_there")]
    pub imported_api_key: bool,
}

fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Fields of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UpdateMask {
    /// Fields that the body sets.
    Populated,
    /// These, whether set or not.
    Fields(Vec<&'static str>),
}

impl UpdateMask {
    fn names(&self, field: &str, populated: bool) -> bool {
        match self {
            Self::Populated => populated,
            Self::Fields(fields) => fields.contains(&field),
        }
    }
}

/// Parses the query of an update.
pub(crate) fn update_mask(pairs: Vec<(String, String)>) -> Result<UpdateMask, ApiError> {
    let mut mask = None;
    for (name, value) in pairs {
        if name != "update_mask" {
            let name: String = name.chars().take(128).collect();
            return Err(ApiError::field(name, "is not a known parameter"));
        }
        if mask.replace(value).is_some() {
            return Err(mask_error("stands there twice"));
        }
    }
    let mask = mask.unwrap_or_default();
    if mask.is_empty() {
        return Ok(UpdateMask::Populated);
    }
    if mask.len() > MAX_MASK {
        return Err(mask_error("must be 1024 bytes at most"));
    }
    if mask == "*" {
        return Ok(UpdateMask::Fields(UPDATABLE.to_vec()));
    }
    mask.split(',').map(masked_field).collect::<Result<_, _>>().map(UpdateMask::Fields)
}

fn masked_field(path: &str) -> Result<&'static str, ApiError> {
    let path = ["issued_api_key.", "imported_api_key."]
        .iter()
        .find_map(|wrapper| path.strip_prefix(wrapper))
        .unwrap_or(path);
    // The only subfield.
    let path = if path == "ip_restriction.allowed_cidrs" { "ip_restriction" } else { path };
    if let Some(field) = UPDATABLE.into_iter().chain(UPDATABLE_BY_NAME).find(|field| *field == path) {
        return Ok(field);
    }
    if let Some(field) = NOT_UPDATABLE.into_iter().find(|field| *field == path) {
        return Err(mask_error(&format!("{field} can't be updated")));
    }
    match path.split_once('.') {
        Some(("rate_limit_policy" | "rate_limit_policies" | "metadata" | "credits", _)) => Err(mask_error(
            "rate_limit_policy, rate_limit_policies, credits and metadata are replaced whole; name them without a part",
        )),
        _ => Err(mask_error("names a field that a key doesn't have")),
    }
}

fn mask_error(problem: &str) -> ApiError {
    ApiError::field("update_mask", problem)
}

/// Returns the changes that the mask selects from the body.
pub(crate) fn update(mask: &UpdateMask, body: KeyBody) -> Result<(Fixed, Update), ApiError> {
    let named = |field, populated| mask.names(field, populated);
    let full = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    // A key that is sent back after it was read keeps its end and its credits.
    let was_read = body.create_time.is_some();
    let mut fixed = Fixed { key_id: body.key_id.filter(|id| !id.is_empty()), ..Fixed::default() };
    if *mask == UpdateMask::Populated {
        // Clients that send back a response send these as well.
        let actor = body.actor_id.filter(|actor| !actor.is_empty());
        fixed.actor = actor.map(|actor| field("actor_id", ActorId::from_stored(&actor))).transpose()?;
        let given = body.visibility.filter(|name| name != "KEY_VISIBILITY_UNSPECIFIED");
        fixed.visibility = given.map(|name| visibility(Some(&name))).transpose()?;
    }
    let mut update = Update::default();
    if named("name", full(&body.name)) {
        update.name = Some(field("name", KeyName::parse(&body.name.unwrap_or_default()))?);
    }
    if named("role", full(&body.role)) {
        let unset = || ApiError::field("role", "must be set where update_mask names it");
        update.role = Some(role(body.role, None)?.ok_or_else(unset)?);
    } else if full(&body.role) {
        return Err(ApiError::field("role", "must be named by update_mask, in place of scopes"));
    }
    if named("scopes", body.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty())) {
        let given = scopes(body.scopes)?;
        if update.role.is_some() {
            return Err(ApiError::field("role", "may not stand beside scopes; use one of the two"));
        }
        update.scopes = Some(given);
    }
    if named("metadata", body.metadata.is_some()) {
        update.metadata = Some(metadata(body.metadata.as_deref())?);
    }
    if named("ip_restriction", body.ip_restriction.is_some()) {
        update.addresses = Some(addresses(body.ip_restriction)?);
    }
    let has_policy = body.rate_limit_policy.is_some();
    let alias = named("rate_limit_policy", has_policy).then(|| body.rate_limit_policy.unwrap_or_default());
    let has_list = body.rate_limit_policies.as_ref().is_some_and(|policies| !policies.is_empty());
    let list = named("rate_limit_policies", has_list).then(|| body.rate_limit_policies.unwrap_or_default());
    (update.rate_policy, update.rate_policies) = rate_limit_changes(alias, list)?;
    if named("credits", body.credits.is_some() && !was_read) {
        update.credits = Some(credits(body.credits.unwrap_or_default())?);
    }
    update.expiry = expiry(
        named("expire_time", full(&body.expire_time) && !was_read).then_some(body.expire_time.as_deref()),
        named("ttl", full(&body.ttl)).then_some(body.ttl.as_deref()),
        mask,
    )?;
    Ok((fixed, update))
}

/// Returns the new expiry, from those of the two fields that count.
fn expiry(
    time: Option<Option<&str>>,
    lifetime: Option<Option<&str>>,
    mask: &UpdateMask,
) -> Result<Option<Expiry>, ApiError> {
    let unset = |name| ApiError::field(name, "must be set where update_mask names it");
    match (time, lifetime) {
        (None, None) => Ok(None),
        (Some(text), None) => {
            let time = state::time("expire_time", text)?.ok_or_else(|| unset("expire_time"))?;
            Ok(Some(Expiry::At(time)))
        }
        (None, Some(text)) => match ttl(text)? {
            Some(lifetime) => Ok(Some(Expiry::After(lifetime))),
            // As in other requests, 0s stands for none.
            None if *mask == UpdateMask::Populated => Ok(None),
            None => Err(unset("ttl")),
        },
        (Some(_), Some(_)) if *mask == UpdateMask::Populated => {
            Err(ApiError::field("ttl", "may not stand beside expire_time; set one of the two"))
        }
        (Some(_), Some(_)) => Err(mask_error("may name one of expire_time and ttl")),
    }
}
