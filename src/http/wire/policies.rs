//! Lists and checks of issuance policies, and previews of routes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::state::set_time;
use crate::clock::Timestamp;
use crate::config::{IssuancePolicy, MAX_POLICIES, Route, optional_list_up_to, problem_of_count};
use crate::error::ApiError;
use crate::http::body::{objects, parse_at};
use crate::key::{ActorId, KeyName, Scope, Scopes};
use crate::service::{
    BreakingKey, BreakingKeys, MAX_PREVIEWED_ROUTES, PolicyCheckRequest, PreviewRow, PreviewVerdict,
    ScopesPreview, ScopesPreviewRequest,
};
use crate::settings::issuance::{IssuancePolicies, ScopeSets};

/// Issuance policies and named sets of scopes.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ListPoliciesResponse")]
pub(crate) struct ListPoliciesOut<'a> {
    /// Policies in force, in the form of `issuance_policies` of the configuration.
    #[schemars(with = "Vec<Map<String, Value>>")]
    issuance_policies: &'a [IssuancePolicy],
    /// Named sets of scopes, by name.
    #[schemars(with = "Map<String, Value>")]
    roles: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> ListPoliciesOut<'a> {
    /// Returns what is in force.
    pub(crate) fn new(policies: &'a IssuancePolicies, sets: &'a ScopeSets) -> Self {
        let scopes = |name: &'a str| sets.get(name).into_iter().flat_map(Scopes::iter).map(Scope::as_str);
        Self {
            issuance_policies: policies.as_slice(),
            roles: sets.names().map(|name| (name, scopes(name).collect())).collect(),
        }
    }
}

/// The policies to check keys against.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CheckPoliciesRequest")]
pub(crate) struct CheckPoliciesBody {
    /// Candidates, in the form of `issuance_policies` of the configuration. Without them, the
    /// policies in force are checked.
    #[serde(default, deserialize_with = "candidates")]
    #[schemars(with = "Option<Vec<Map<String, Value>>>")]
    issuance_policies: Option<Vec<Box<RawValue>>>,
    /// Maximum number of keys on the page: 0 means 100, more than 1000 means 1000. A page may have
    /// fewer keys although more follow.
    page_size: Option<u32>,
    /// The `next_page_token` of the previous page.
    page_token: Option<String>,
}

/// Deserialises candidates as they stand in the body. They are parsed once they are counted, as
/// each may have a pattern to compile.
fn candidates<'de, D: Deserializer<'de>>(list: D) -> Result<Option<Vec<Box<RawValue>>>, D::Error> {
    optional_list_up_to(list, MAX_POLICIES)
}

impl TryFrom<CheckPoliciesBody> for PolicyCheckRequest {
    type Error = ApiError;

    fn try_from(body: CheckPoliciesBody) -> Result<Self, ApiError> {
        Ok(Self {
            policies: body.issuance_policies.map(policies).transpose()?,
            page_size: usize::try_from(body.page_size.unwrap_or_default()).unwrap_or(usize::MAX),
            page_token: body.page_token.unwrap_or_default(),
        })
    }
}

/// Parses candidates, if there aren't too many.
fn policies(texts: Vec<Box<RawValue>>) -> Result<Vec<IssuancePolicy>, ApiError> {
    if let Some(problem) = problem_of_count(texts.len()) {
        return Err(ApiError::field("issuance_policies", problem));
    }
    let policy = |(at, text): (usize, Box<RawValue>)| {
        parse_at(&format!("issuance_policies[{at}]"), text.get().as_bytes())
    };
    texts.into_iter().enumerate().map(policy).collect()
}

/// Rule of a policy that a key breaks.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PolicyViolation")]
struct ViolationOut<'a> {
    /// Name of the policy.
    policy: &'a str,
    /// Field of the key.
    field: &'a str,
    /// Demand that the key doesn't meet.
    description: &'a str,
}

/// Active key that breaks policies.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BreakingKey")]
struct BreakingKeyOut<'a> {
    /// Id of the key.
    key_id: String,
    /// Name, for people.
    name: &'a str,
    /// Actor on whose behalf the key acts.
    actor_id: &'a str,
    /// Time of creation.
    #[schemars(extend("format" = "date-time"))]
    create_time: String,
    /// Time of expiry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    expire_time: Option<String>,
    /// Time of the last use, to the day.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    last_used_time: Option<String>,
    /// Rules that it breaks.
    violations: Vec<ViolationOut<'a>>,
    /// Time at which a policy with `apply: all` ends the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    policy_end_time: Option<String>,
    /// Name of that policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by_policy: Option<&'a str>,
}

/// Page of keys that break policies.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CheckPoliciesResponse")]
pub(crate) struct CheckPoliciesOut<'a> {
    /// The keys, the oldest first: issued ones, then imported ones.
    keys: Vec<BreakingKeyOut<'a>>,
    /// Number of active keys that were looked at for this page.
    #[schemars(with = "i32")]
    scanned_count: usize,
    /// Token of the next page; empty on the last one.
    next_page_token: &'a str,
}

impl<'a> From<&'a BreakingKeys> for CheckPoliciesOut<'a> {
    fn from(found: &'a BreakingKeys) -> Self {
        Self {
            keys: found.keys.iter().map(BreakingKeyOut::from).collect(),
            scanned_count: found.scanned,
            next_page_token: &found.next_page_token,
        }
    }
}

impl<'a> From<&'a BreakingKey> for BreakingKeyOut<'a> {
    fn from(BreakingKey { key, violations, end }: &'a BreakingKey) -> Self {
        let violations = violations.iter().map(|violation| ViolationOut {
            policy: &violation.policy,
            field: violation.field,
            description: &violation.problem,
        });
        Self {
            key_id: key.id.to_string(),
            name: key.name.as_str(),
            actor_id: key.actor.as_str(),
            create_time: key.created.to_rfc3339(),
            expire_time: key.expires.map(Timestamp::to_rfc3339),
            last_used_time: key.last_used.map(Timestamp::to_rfc3339),
            violations: violations.collect(),
            policy_end_time: end.as_ref().map(|end| end.at.to_rfc3339()),
            ended_by_policy: end.as_ref().map(|end| end.policy.as_str()),
        }
    }
}

/// The routes to preview.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PreviewScopesRequest", extend("required" = ["routes"]))]
pub(crate) struct PreviewScopesBody {
    /// Candidates, in the form of `authz.routes` of the configuration. Required.
    #[serde(default, deserialize_with = "previewed_routes")]
    #[schemars(required, with = "Vec<Map<String, Value>>")]
    routes: Option<Vec<Route>>,
    /// Start; its whole hour counts. By default seven days before the end.
    #[schemars(extend("format" = "date-time"))]
    start_time: Option<String>,
    /// End: hours that begin before it count. By default now.
    #[schemars(extend("format" = "date-time"))]
    end_time: Option<String>,
    /// Maximum number of keys and routes that are looked at for the page: 0 means 500, more than
    /// 1000 means 1000.
    page_size: Option<u32>,
    /// The `next_page_token` of the previous page.
    page_token: Option<String>,
}

fn previewed_routes<'de, D: Deserializer<'de>>(list: D) -> Result<Option<Vec<Route>>, D::Error> {
    objects(list, MAX_PREVIEWED_ROUTES)
}

impl TryFrom<PreviewScopesBody> for ScopesPreviewRequest {
    type Error = ApiError;

    fn try_from(body: PreviewScopesBody) -> Result<Self, ApiError> {
        Ok(Self {
            routes: body.routes.unwrap_or_default(),
            start: body.start_time.as_deref().map(|text| set_time("start_time", text)).transpose()?,
            end: body.end_time.as_deref().map(|text| set_time("end_time", text)).transpose()?,
            page_size: body.page_size.unwrap_or_default(),
            page_token: body.page_token.unwrap_or_default(),
        })
    }
}

/// Recorded requests of a key that the candidates would refuse.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PreviewRow")]
struct PreviewRowOut<'a> {
    /// Id of the key. Absent for requests without a credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    /// Name of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// Actor of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_id: Option<&'a str>,
    /// Time of the last use of the key, to the day.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    last_used_time: Option<String>,
    /// Name of the route.
    route: &'a str,
    /// Number of requests that were allowed.
    count: u64,
    /// `refused`; or `possible`, if only some of several candidates of that name refuse the key.
    verdict: &'static str,
    /// Reason of the refusal.
    reason: &'static str,
    /// Scopes that the key lacks.
    missing_scopes: &'a [String],
}

/// Recorded requests about which nothing can be told.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UntoldRow")]
struct UntoldRowOut<'a> {
    /// Name of the route; empty if it has none.
    route: &'a str,
    /// Number of requests that were allowed.
    count: u64,
    /// Reason, for people.
    reason: &'static str,
}

/// Page of a preview.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PreviewScopesResponse")]
pub(crate) struct PreviewScopesOut<'a> {
    /// Start of the first hour that is counted.
    #[schemars(extend("format" = "date-time"))]
    start_time: String,
    /// Hours that begin before this time are counted.
    #[schemars(extend("format" = "date-time"))]
    end_time: String,
    /// Requests that would be refused, the largest numbers first.
    rows: Vec<PreviewRowOut<'a>>,
    /// Requests about which nothing can be told.
    untold: Vec<UntoldRowOut<'a>>,
    /// Number of requests that this page looks at.
    request_count: u64,
    /// Token of the next page; empty on the last one.
    next_page_token: &'a str,
}

impl<'a> From<&'a ScopesPreview> for PreviewScopesOut<'a> {
    fn from(preview: &'a ScopesPreview) -> Self {
        let untold = preview.untold.iter().map(|untold| UntoldRowOut {
            route: &untold.route,
            count: untold.count,
            reason: untold.reason,
        });
        Self {
            start_time: preview.start.to_rfc3339(),
            end_time: preview.end.to_rfc3339(),
            rows: preview.rows.iter().map(PreviewRowOut::from).collect(),
            untold: untold.collect(),
            request_count: preview.requests,
            next_page_token: &preview.next_page_token,
        }
    }
}

impl<'a> From<&'a PreviewRow> for PreviewRowOut<'a> {
    fn from(row: &'a PreviewRow) -> Self {
        let key = row.key.as_deref();
        Self {
            key_id: key.map(|key| key.id.to_string()),
            name: key.map(|key| &key.name).map(KeyName::as_str),
            actor_id: key.map(|key| &key.actor).map(ActorId::as_str),
            last_used_time: key.and_then(|key| key.last_used).map(Timestamp::to_rfc3339),
            route: &row.route,
            count: row.count,
            verdict: match row.verdict {
                PreviewVerdict::Refused => "refused",
                PreviewVerdict::Possible => "possible",
            },
            reason: row.reason,
            missing_scopes: &row.missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::parse;

    fn check(policies: &str) -> Result<PolicyCheckRequest, ApiError> {
        let body: CheckPoliciesBody = parse(format!(r#"{{"issuance_policies":{policies}}}"#).as_bytes())?;
        body.try_into()
    }

    fn problem(policies: &str) -> String {
        check(policies).map(|_| ()).unwrap_err().message.into_owned()
    }

    #[test]
    fn candidates_are_counted_before_a_pattern_is_compiled() {
        let list =
            |count: usize| format!("[{}]", vec![r#"{"name":"a","name_pattern":"("}"#; count].join(","));
        for count in [65, 66, 10_000] {
            assert_eq!(problem(&list(count)), "issuance_policies: must be 64 policies at most");
        }
        let first = problem(&list(64));
        assert!(first.starts_with("issuance_policies[0].name_pattern: must be a regular"), "{first}");
    }

    #[test]
    fn errors_name_the_place_in_the_list() {
        for (policies, place) in [
            (r#"[{},{"name":5}]"#, "issuance_policies[1].name: "),
            (r#"[{},{"match":{"rule":"a"}}]"#, "issuance_policies[1].match.rule: "),
            (r#"[{"nmae":"a"}]"#, "issuance_policies[0].nmae: "),
            ("[null]", "issuance_policies[0]: must be an object"),
            (r#"[["a"]]"#, "issuance_policies[0]: must be an object"),
            (r#"{"name":"a"}"#, "issuance_policies: must be a list"),
            (r#"[{"max_ttl":"soon"}]"#, "issuance_policies[0].max_ttl: "),
        ] {
            let found = problem(policies);
            assert!(found.starts_with(place), "{policies}: {found}");
        }
        assert_eq!(check("null").unwrap().policies, None);
        assert_eq!(check("[]").unwrap().policies, Some(vec![]));
    }
}
