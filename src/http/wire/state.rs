//! Suspensions and actors, in requests and responses.

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::lists;
use super::rate_limits::{
    NamedRateLimitPolicy, NamedRateLimitPolicyOut, actor_limits, policy_list, rate_limit_policies_out,
};
use super::requests::{NO_CONTROL, metadata};
use super::scalars::field;
use crate::clock::Timestamp;
use crate::error::ApiError;
use crate::http::body::object;
use crate::key::{KeyName, MAX_LABEL, Metadata, RatePolicies, Suspension};
use crate::service::{ActorUpdate, CountedActor, MAX_COUNTED_KEYS, SuspendRequest};

/// A suspension.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Suspension")]
pub(crate) struct SuspensionOut {
    /// Reason, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Time at which it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    until: Option<String>,
    /// Time at which it began.
    #[schemars(extend("format" = "date-time"))]
    suspended_at: String,
    /// Caller who made it, if authenticated.
    #[serde(skip_serializing_if = "Option::is_none")]
    suspended_by: Option<String>,
}

impl SuspensionOut {
    /// Returns a suspension; `None` once it has ended by itself.
    pub(super) fn in_force(suspension: Option<&Suspension>, now: Timestamp) -> Option<Self> {
        suspension.filter(|one| one.is_in_force(now)).map(|one| Self {
            reason: one.reason.as_ref().map(ToString::to_string),
            until: one.until.map(Timestamp::to_rfc3339),
            suspended_at: one.at.to_rfc3339(),
            suspended_by: one.by.as_ref().map(ToString::to_string),
        })
    }
}

/// The suspension to make.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SuspendBody")]
pub(crate) struct SuspendBody {
    /// Reason, for people.
    #[schemars(length(max = Suspension::MAX_REASON))]
    reason: Option<String>,
    /// Time at which the suspension ends by itself, at most ten years from now. Without it, it
    /// lasts until it is taken back.
    #[schemars(extend("format" = "date-time"))]
    until: Option<String>,
}

impl TryFrom<SuspendBody> for SuspendRequest {
    type Error = ApiError;

    fn try_from(body: SuspendBody) -> Result<Self, ApiError> {
        let reason = body.reason.filter(|reason| !reason.is_empty());
        let until = body.until.map(|text| set_time("until", &text)).transpose()?;
        Ok(Self { reason, until })
    }
}

/// Parses a time, unset if empty.
pub(super) fn time(name: &'static str, text: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    set_time(name, text).map(Some)
}

/// Parses a time that isn't unset by an empty text.
pub(super) fn set_time(name: &'static str, text: &str) -> Result<Timestamp, ApiError> {
    let time = Timestamp::from_rfc3339(text);
    time.ok_or_else(|| ApiError::field(name, "must be a time such as 2026-04-17T05:45:37Z"))
}

/// Nothing but the resource in the path.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EmptyBody")]
pub(crate) struct EmptyBody {}

/// An actor. It needs neither keys nor anything recorded to exist.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Actor")]
pub(crate) struct ActorOut<'a> {
    /// Id of the actor.
    actor_id: &'a str,
    /// Name, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<&'a str>,
    /// The owner's own attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Map<String, Value>")]
    metadata: Option<&'a RawValue>,
    /// Limits of the actor. Each counts the uses of all its keys together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<NamedRateLimitPolicy>")]
    rate_limit_policies: Option<Vec<NamedRateLimitPolicyOut>>,
    /// Suspension of all keys of the actor.
    #[serde(skip_serializing_if = "Option::is_none")]
    suspension: Option<SuspensionOut>,
    /// Time at which something was first recorded of the actor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    create_time: Option<String>,
    /// Time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    update_time: Option<String>,
    /// Caller who made the last change, if authenticated.
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_by: Option<&'a str>,
    /// Number of issued keys in any state, at most 1000.
    #[schemars(with = "i32")]
    issued_api_key_count: u64,
    /// Number of imported keys in any state, at most 1000.
    #[schemars(with = "i32")]
    imported_api_key_count: u64,
    /// True if there are more keys than these numbers say.
    has_more: bool,
    /// Parts that the settings keep from working, such as limits that aren't enforced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<String>>")]
    warnings: Vec<&'static str>,
}

impl<'a> ActorOut<'a> {
    /// Returns an actor as of `now`.
    pub(crate) fn new(counted: &'a CountedActor, now: Timestamp) -> Self {
        let CountedActor { actor, keys } = counted;
        let most = u64::from(MAX_COUNTED_KEYS);
        Self {
            actor_id: actor.id.as_str(),
            display_name: actor.display_name.as_ref().map(KeyName::as_str),
            metadata: actor.metadata.as_ref().map(Metadata::raw),
            rate_limit_policies: rate_limit_policies_out(&actor.rate_policies),
            suspension: SuspensionOut::in_force(actor.suspension.as_deref(), now),
            create_time: actor.recorded.map(|recorded| recorded.created.to_rfc3339()),
            update_time: actor.recorded.map(|recorded| recorded.updated.to_rfc3339()),
            updated_by: actor.updated_by.as_deref(),
            issued_api_key_count: keys.issued.min(most),
            imported_api_key_count: keys.imported.min(most),
            has_more: keys.issued > most || keys.imported > most,
            warnings: vec![],
        }
    }

    /// Adds what the settings keep from working.
    pub(crate) fn with_warnings(self, warnings: Vec<&'static str>) -> Self {
        Self { warnings, ..self }
    }
}

/// An actor to update. Fields that can't be set may be present, as in a response.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "UpdateActorBody")]
#[allow(dead_code, reason = "fields that only we set are accepted and left alone")]
pub(crate) struct ActorBody {
    /// Id of the actor in the path, or absent.
    actor_id: Option<String>,
    /// Name, for people.
    #[schemars(length(max = MAX_LABEL), pattern(NO_CONTROL))]
    display_name: Option<String>,
    /// The owner's own attributes: at most 4096 bytes of JSON, nested at most 16 levels, without
    /// repeated names, numbers that a double represents (integers within 2^53 - 1).
    #[schemars(with = "Option<Map<String, Value>>")]
    metadata: Option<Box<RawValue>>,
    /// Limits of the actor, which count the uses of all its keys together; the list replaces the
    /// whole. Their `scope` is `ACTOR`.
    #[serde(default, deserialize_with = "policy_list")]
    #[schemars(length(max = RatePolicies::MAX))]
    rate_limit_policies: Option<Vec<NamedRateLimitPolicy>>,
    /// Ignored.
    #[serde(default, deserialize_with = "object")]
    #[schemars(with = "Option<Map<String, Value>>")]
    suspension: Option<IgnoredAny>,
    /// Ignored.
    #[schemars(extend("format" = "date-time"))]
    create_time: Option<String>,
    /// Ignored.
    #[schemars(extend("format" = "date-time"))]
    update_time: Option<String>,
    /// Ignored.
    updated_by: Option<String>,
    /// Ignored.
    issued_api_key_count: Option<u64>,
    /// Ignored.
    imported_api_key_count: Option<u64>,
    /// Ignored.
    has_more: Option<bool>,
    /// Ignored.
    #[serde(default, deserialize_with = "lists::ignored")]
    warnings: Option<Vec<String>>,
}

/// Fields that an update may change.
const UPDATABLE: [&str; 3] = ["display_name", "metadata", "rate_limit_policies"];

/// Returns the changes that the query's `update_mask` selects from the body; without a mask, those
/// that the body sets.
pub(crate) fn actor_update(
    actor: &str,
    query: &[(String, String)],
    body: ActorBody,
) -> Result<ActorUpdate, ApiError> {
    let mask = match query {
        [] => "",
        [(name, mask)] if name == "update_mask" => mask,
        _ => return Err(ApiError::field("query", "must be one update_mask or empty")),
    };
    let fields: Vec<&str> = mask.split(',').filter(|_| !mask.is_empty()).collect();
    if !fields.iter().all(|field| UPDATABLE.contains(field) || *field == "*") {
        return Err(ApiError::field(
            "update_mask",
            "may name display_name, metadata and rate_limit_policies, or be *",
        ));
    }
    if body.actor_id.as_ref().is_some_and(|id| !id.is_empty() && id != actor) {
        return Err(ApiError::field("actor_id", "is not the one of the path"));
    }
    let names = |field: &str, is_set| match fields.is_empty() {
        true => is_set,
        false => fields.contains(&field) || fields.contains(&"*"),
    };
    let name = body.display_name.filter(|name| !name.is_empty());
    let mut update = ActorUpdate::default();
    if names("display_name", name.is_some()) {
        let name = name.map(|name| KeyName::parse(&name)).transpose();
        update.display_name = Some(field("display_name", name)?);
    }
    if names("metadata", body.metadata.is_some()) {
        update.metadata = Some(metadata(body.metadata.as_deref())?);
    }
    let limits = body.rate_limit_policies.unwrap_or_default();
    if names("rate_limit_policies", !limits.is_empty()) {
        update.rate_policies = Some(actor_limits(limits)?);
    }
    Ok(update)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(mask: &str, body: &str) -> Result<ActorUpdate, ApiError> {
        let query = [("update_mask".to_owned(), mask.to_owned())];
        let query = if mask.is_empty() { &[][..] } else { &query };
        actor_update("a", query, serde_json::from_str(body).unwrap())
    }

    #[test]
    fn a_mask_selects_and_clears() {
        let set = update("", r#"{"display_name":"Ada","suspension":{},"has_more":true}"#).unwrap();
        assert_eq!(set.display_name.unwrap().unwrap().as_str(), "Ada");
        assert_eq!(set.metadata, None);
        let cleared = update("metadata", r#"{"display_name":"Ada"}"#).unwrap();
        assert_eq!((cleared.display_name, cleared.metadata), (None, Some(None)));
        let all = update("*", "{}").unwrap();
        assert_eq!((all.display_name, all.metadata), (Some(None), Some(None)));
        for (mask, body) in [
            ("suspension", "{}"),
            ("display_name,", "{}"),
            ("", r#"{"actor_id":"b"}"#),
            ("", r#"{"display_name":"a\u0000"}"#),
            ("", r#"{"metadata":[]}"#),
        ] {
            assert!(update(mask, body).is_err(), "{mask} {body}");
        }
    }
}
