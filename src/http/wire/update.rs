//! Updates by field mask (AIP-134): the body is the resource, or wraps it, and the mask names the
//! fields to update.

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::credits::{CreditsBody, credits};
use super::rate_limits::{NamedRateLimitPolicy, RateLimitPolicy, rate_limit_changes};
use super::requests::{
    IpRestriction, MAX_ROLE, NO_CONTROL, SCOPE, addresses, metadata, role, scopes, ttl, visibility,
};
use super::scalars::field;
use super::{names, state};
use crate::error::ApiError;
use crate::http::body::{object, objects};
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
    #[serde(default, deserialize_with = "objects")]
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
    warnings: Option<Vec<String>>,
    /// Ignored: suspend and resume the key.
    #[schemars(with = "Option<Map<String, Value>>")]
    suspension: Option<Map<String, Value>>,
    /// Ignored.
    #[schemars(with = "Option<Map<String, Value>>")]
    actor_suspension: Option<Map<String, Value>>,
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
        (None, Some(text)) => Ok(Some(Expiry::After(ttl(text)?.ok_or_else(|| unset("ttl"))?))),
        (Some(_), Some(_)) if *mask == UpdateMask::Populated => {
            Err(ApiError::field("ttl", "may not stand beside expire_time; set one of the two"))
        }
        (Some(_), Some(_)) => Err(mask_error("may name one of expire_time and ttl")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(text: &str) -> Result<UpdateMask, ApiError> {
        update_mask(vec![("update_mask".to_owned(), text.to_owned())])
    }

    fn changes(mask_text: &str, body: &str) -> Update {
        update(&mask(mask_text).unwrap(), serde_json::from_str(body).unwrap()).unwrap().1
    }

    #[test]
    fn a_mask_names_what_can_be_changed() {
        let fields = |names: &[&'static str]| Ok::<_, ()>(UpdateMask::Fields(names.to_vec()));
        for (text, expected) in [
            ("name", fields(&["name"])),
            ("name,scopes", fields(&["name", "scopes"])),
            ("issued_api_key.metadata", fields(&["metadata"])),
            ("ip_restriction.allowed_cidrs", fields(&["ip_restriction"])),
            ("*", fields(&UPDATABLE)),
            ("", Ok(UpdateMask::Populated)),
        ] {
            assert_eq!(mask(text).map_err(drop), expected, "{text}");
        }
        for text in [
            "key_id",
            "actor_id",
            "visibility",
            "status",
            "suspension",
            "created_by",
            "nmae",
            "name,",
            ",",
            " name",
            "rate_limit_policy.quota",
            "metadata.team",
            "Name",
            "**",
            "secret",
            "name;scopes",
        ] {
            let error = mask(text).unwrap_err();
            assert_eq!(error.field.as_deref(), Some("update_mask"), "{text}");
        }
        assert!(update_mask(vec![("mask".to_owned(), "name".to_owned())]).is_err());
    }

    #[test]
    fn an_expiry_counts_by_name_or_where_nothing_was_read() {
        let body = r#"{"expire_time":"2031-01-01T00:00:00Z","ttl":"1h"}"#;
        for mask in ["*", "name"] {
            let body = body.replace('{', r#"{"name":"n","#);
            assert_eq!(changes(mask, &body).expiry, None, "{mask}");
        }
        let time = crate::clock::Timestamp::from_rfc3339("2031-01-01T00:00:00Z").unwrap();
        let alone = r#"{"expire_time":"2031-01-01T00:00:00Z"}"#;
        assert_eq!(changes("", alone).expiry, Some(Expiry::At(time)));
        let read = alone.replace('{', r#"{"create_time":"2026-01-01T00:00:00Z","#);
        assert_eq!(changes("", &read).expiry, None);
        assert_eq!(changes("expire_time", body).expiry, Some(Expiry::At(time)));
        let hour = std::time::Duration::from_secs(3_600);
        assert_eq!(changes("issued_api_key.ttl", body).expiry, Some(Expiry::After(hour)));
        assert_eq!(changes("", r#"{"ttl":"1h"}"#).expiry, Some(Expiry::After(hour)));
        let refused = |mask_text, body| {
            let body = serde_json::from_str(body).unwrap();
            super::update(&mask(mask_text).unwrap(), body).unwrap_err().field
        };
        assert_eq!(refused("ttl", "{}").as_deref(), Some("ttl"));
        assert_eq!(refused("expire_time", r#"{"expire_time":"soon"}"#).as_deref(), Some("expire_time"));
        assert_eq!(refused("expire_time,ttl", body).as_deref(), Some("update_mask"));
        assert_eq!(refused("", body).as_deref(), Some("ttl"));
    }

    #[test]
    fn credits_that_were_read_set_none() {
        let body = r#"{"name":"n","credits":{"remaining":"5","refill":{"amount":9,"every":"day"}}}"#;
        let set = |mask: &str, body: &str| changes(mask, body).credits;
        let given = set("", body).unwrap().unwrap();
        assert_eq!((given.remaining, given.refill.unwrap().amount), (5, 9));
        assert_eq!(set("credits", body), Some(Some(given)));
        let read = body.replace('{', r#"{"create_time":"2026-01-01T00:00:00Z","#);
        let read = read.replacen(r#""credits":{"create_time":"2026-01-01T00:00:00Z","#, r#""credits":{"#, 1);
        let read = read.replacen(r#""refill":{"create_time":"2026-01-01T00:00:00Z","#, r#""refill":{"#, 1);
        for (mask, body) in [("*", body), ("name", body), ("", read.as_str())] {
            assert_eq!(set(mask, body), None, "{mask} {body}");
        }
        assert_eq!(set("credits", &read), Some(Some(given)));
        assert_eq!(set("credits", "{}"), Some(None), "it takes them away");
        assert_eq!(
            set("", r#"{"credits":{"refill":{"amount":7,"every":"week"}}}"#).unwrap().unwrap().remaining,
            7
        );
        for (part, field) in [
            (r#"{"remaining":-1}"#, "remaining"),
            (r#"{"remaining":"1000000000000001"}"#, "remaining"),
            (r#"{"refill":{"amount":0,"every":"day"}}"#, "refill.amount"),
            (r#"{"refill":{"amount":1}}"#, "refill.every"),
            (r#"{"refill":{"amount":1,"every":"year"}}"#, "refill.every"),
            (r#"{"refill":{"amount":1,"every":"day","at":"noon"}}"#, "refill.at"),
        ] {
            let body = serde_json::from_str(&format!(r#"{{"credits":{part}}}"#)).unwrap();
            let error = super::update(&mask("").unwrap(), body).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(format!("credits.{field}").as_str()), "{part}");
        }
    }

    #[test]
    fn without_a_mask_what_is_set_counts() {
        let update = changes("", r#"{"name":"n","scopes":[],"status":"KEY_STATUS_REVOKED","metadata":{}}"#);
        assert_eq!(update.name.unwrap().as_str(), "n");
        assert!(update.scopes.is_none());
        assert!(update.metadata.unwrap().is_some());
        assert!(update.addresses.is_none() && update.rate_policy.is_none());
    }

    #[test]
    fn with_a_mask_what_it_names_counts_set_or_not() {
        let update = changes("scopes,metadata,rate_limit_policy,ip_restriction", r#"{"name":"n"}"#);
        assert!(update.name.is_none());
        assert_eq!(update.scopes.unwrap().iter().count(), 0);
        assert_eq!(update.metadata, Some(None));
        assert_eq!(update.rate_policy, Some(None));
        assert!(update.addresses.unwrap().is_empty());
        assert!(super::update(&mask("name").unwrap(), KeyBody::default()).is_err());
    }

    #[test]
    fn a_rate_limit_is_the_default_of_the_list() {
        let list = r#""name":"n","rate_limit_policies":[{"name":"burst","quota":5,"window":"1s"},
            {"name":"default","quota":"10","window":"60s","scope":"ACTOR"}]"#;
        let alias =
            |quota: u32| format!(r#""name":"n","rate_limit_policy":{{"quota":"{quota}","window":"60s"}}"#);
        for mask_text in ["", "*", "rate_limit_policies", "rate_limit_policy,rate_limit_policies"] {
            let update = changes(mask_text, &format!("{{{list}}}"));
            assert_eq!(update.rate_policy, None, "{mask_text}");
            assert_eq!(update.rate_policies.unwrap().as_slice().len(), 2, "{mask_text}");
        }
        // Both fields, as a response has them that is sent back.
        let both = changes("", &format!("{{{list},{}}}", alias(10).replace(r#""name":"n","#, "")));
        assert_eq!((both.rate_policy, both.rate_policies.unwrap().as_slice().len()), (None, 2));
        let apart =
            serde_json::from_str(&format!("{{{list},{}}}", alias(11).replace(r#""name":"n","#, ""))).unwrap();
        let error = super::update(&mask("").unwrap(), apart).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("rate_limit_policy"));
        let alone = changes("", &format!("{{{}}}", alias(11)));
        assert_eq!((alone.rate_policy.unwrap().unwrap().quota, alone.rate_policies), (11, None));
        let all = changes("*", &format!("{{{}}}", alias(11)));
        assert_eq!(all.rate_policy.unwrap().unwrap().quota, 11);
        assert!(all.rate_policies.unwrap().is_unset(), "the list isn't in the body, so it is cleared");
        assert_eq!(changes("", r#"{"rate_limit_policies":[]}"#).rate_policies, None);
    }

    #[test]
    fn a_rate_limit_that_is_refused_is_named() {
        for (policy, field) in [
            (r#"{"quota":1,"window":"1s"}"#, "[1].name"),
            (r#"{"name":"A","quota":1,"window":"1s"}"#, "[1].name"),
            (r#"{"name":"ok","quota":1,"window":"1s"}"#, "[1].name"),
            (r#"{"name":"a","window":"1s"}"#, "[1].quota"),
            (r#"{"name":"a","quota":1}"#, "[1].window"),
            (r#"{"name":"a","quota":1,"window":"soon"}"#, "[1].window"),
            (r#"{"name":"a","quota":1,"window":"1s","unit":"content-bytes"}"#, "[1].unit"),
            (r#"{"name":"a","quota":1,"window":"1s","unit":"cows"}"#, "[1].unit"),
            (r#"{"name":"a","quota":1,"window":"1s","scope":"ALL"}"#, "[1].scope"),
            (r#"{"name":"a","quota":1,"window":"1s","enforce":"NOBODY"}"#, "[1].enforce"),
            (r#"{"name":"a","quota":1,"window":"2s","enforce":"ENVOY"}"#, "[1].window"),
        ] {
            let body =
                format!(r#"{{"rate_limit_policies":[{{"name":"ok","quota":1,"window":"1s"}},{policy}]}}"#);
            let error = super::update(&mask("").unwrap(), serde_json::from_str(&body).unwrap()).unwrap_err();
            assert_eq!(
                error.field.as_deref(),
                Some(format!("rate_limit_policies{field}").as_str()),
                "{policy}"
            );
        }
    }
}
