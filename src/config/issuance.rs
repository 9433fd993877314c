//! `issuance_policies` and `roles`: what keys may be like, and named sets of scopes.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::error::Problems;
use super::lists::{list_up_to, optional_list_up_to};
use super::serde_forms;
use crate::clock::Timestamp;
use crate::key::{FieldError, MAX_LABEL, NamePattern, Scopes, TEN_YEARS, Visibility};

/// Most policies.
pub const MAX_POLICIES: usize = 64;
/// Most named sets of scopes.
pub(super) const MAX_ROLES: usize = 256;
/// Most bytes of a policy's name, and of that of a set of scopes.
const MAX_NAME: usize = 64;
/// Most members of metadata that a policy may require.
const MAX_REQUIRED: usize = 32;
/// Most bytes of the name of such a member.
const MAX_MEMBER: usize = 128;
/// Largest number of keys of an actor that a policy may name.
const MAX_KEYS: u32 = 1_000_000;
/// Roles of callers that may write keys.
const WRITERS: [&str; 2] = ["issuer", "admin"];
/// Roles of callers.
const CALLERS: [&str; 3] = ["viewer", "issuer", "admin"];

/// Named sets of scopes, by name.
pub(super) type Roles = BTreeMap<String, ScopeSet>;

/// One entry of `issuance_policies`: a name, the keys that it is for, and what they must be like.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IssuancePolicy {
    /// Name, by which errors and `talos policy check` refer to the policy: 1 to 64 letters, digits,
    /// `_`, `-` and `.`. Required.
    #[schemars(length(min = 1, max = MAX_NAME))]
    pub name: String,
    /// Keys that it is for; all by default.
    #[serde(rename = "match")]
    pub applies_to: PolicyMatch,
    /// Longest lifetime of a key, counted from its issue or import.
    #[serde(with = "serde_forms::OptionalDuration", skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<Duration>,
    /// If true, a key must have an end.
    pub require_ttl: bool,
    /// Scopes of which each scope of a key must be one, or be covered by one that ends in `:*`.
    #[serde(deserialize_with = "scope_set", skip_serializing_if = "Option::is_none")]
    pub allowed_scopes: Option<ScopeSet>,
    /// Members that the metadata of a key must have, other than null.
    #[serde(deserialize_with = "members")]
    pub required_metadata: Vec<String>,
    /// If true, a key must be restricted to addresses.
    pub require_ip_restriction: bool,
    /// Regular expression for the names of keys. Without `^` and `$` it must match the whole name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_pattern: Option<PatternText>,
    /// Most active keys that an actor may have. Judged when a key is made or revived, never for
    /// those that exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_keys_per_actor: Option<u32>,
    /// Keys to which the policy applies: `new` judges what is written, `all` also ends keys that
    /// exist and break it. Default `new`.
    pub apply: ApplyTo,
    /// Time (RFC 3339) from which the policy counts. Unset means at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PolicyTime>,
}

impl IssuancePolicy {
    fn has_rule(&self) -> bool {
        self.max_ttl.is_some()
            || self.require_ttl
            || self.allowed_scopes.is_some()
            || !self.required_metadata.is_empty()
            || self.require_ip_restriction
            || self.name_pattern.is_some()
            || self.max_keys_per_actor.is_some()
    }
}

/// Keys that a policy is for. Unset conditions match all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyMatch {
    /// Beginning of the actor's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_prefix: Option<String>,
    /// Role of the caller who writes the key (`issuer` or `admin`), or one of `roles` that the
    /// request names. Only with `apply: new`, as keys don't record it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Visibility of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<PolicyVisibility>,
}

/// Visibility of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyVisibility {
    /// Secret keys.
    Secret,
    /// Publishable keys.
    Public,
}

impl From<PolicyVisibility> for Visibility {
    fn from(visibility: PolicyVisibility) -> Self {
        match visibility {
            PolicyVisibility::Secret => Self::Secret,
            PolicyVisibility::Public => Self::Public,
        }
    }
}

/// Keys to which a policy applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApplyTo {
    /// Keys that are written from now on.
    #[default]
    New,
    /// Keys that exist, too.
    All,
}

/// List of up to 100 different scopes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct ScopeSet(#[schemars(with = "Vec<String>")] Scopes);

impl ScopeSet {
    /// Returns the scopes.
    pub const fn scopes(&self) -> &Scopes {
        &self.0
    }
}

impl TryFrom<Vec<String>> for ScopeSet {
    type Error = FieldError;

    fn try_from(texts: Vec<String>) -> Result<Self, FieldError> {
        Scopes::parse(&texts).map(Self)
    }
}

impl From<ScopeSet> for Vec<String> {
    fn from(set: ScopeSet) -> Self {
        set.0.iter().map(ToString::to_string).collect()
    }
}

/// Deserialises a list of scopes, of which no more is kept than shows that there are too many.
fn scope_set<'de, D: Deserializer<'de>>(list: D) -> Result<Option<ScopeSet>, D::Error> {
    let texts: Option<Vec<String>> = optional_list_up_to(list, Scopes::MAX)?;
    texts.map(ScopeSet::try_from).transpose().map_err(D::Error::custom)
}

/// Deserialises the names of members, likewise.
fn members<'de, D: Deserializer<'de>>(list: D) -> Result<Vec<String>, D::Error> {
    list_up_to(list, MAX_REQUIRED)
}

/// Pattern of names.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct PatternText(#[schemars(with = "String")] NamePattern);

impl PatternText {
    /// Returns the pattern.
    pub const fn pattern(&self) -> &NamePattern {
        &self.0
    }
}

impl TryFrom<String> for PatternText {
    type Error = FieldError;

    fn try_from(text: String) -> Result<Self, FieldError> {
        NamePattern::parse(&text).map(Self)
    }
}

impl From<PatternText> for String {
    fn from(text: PatternText) -> Self {
        text.0.as_str().to_owned()
    }
}

/// Time in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyTime(#[schemars(with = "String")] Timestamp);

impl PolicyTime {
    /// Returns the time.
    pub const fn time(self) -> Timestamp {
        self.0
    }
}

impl TryFrom<String> for PolicyTime {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let time = Timestamp::from_rfc3339(&text);
        time.map(Self).ok_or("must be an RFC 3339 time such as 2026-12-01T00:00:00Z")
    }
}

impl From<PolicyTime> for String {
    fn from(time: PolicyTime) -> Self {
        time.0.to_rfc3339()
    }
}

/// Finds the problems of policies and sets of scopes.
pub(super) fn check(policies: &[IssuancePolicy], roles: &Roles, problems: &mut Problems) {
    if roles.len() > MAX_ROLES {
        problems.push(("roles".to_owned(), format!("must be {MAX_ROLES} sets at most")));
    }
    for name in roles.keys().filter(|name| !is_name(name)) {
        let key = if name.len() > MAX_NAME { "roles".to_owned() } else { format!("roles.{name}") };
        let problem = "must have names of 1 to 64 letters, digits, _, - and .";
        problems.push((key, problem.to_owned()));
    }
    let names: Vec<&str> = roles.keys().map(String::as_str).collect();
    for (place, problem) in problems_of(policies, &names) {
        problems.push((format!("issuance_policies{place}"), problem));
    }
}

/// Returns what is wrong with a number of policies.
pub fn problem_of_count(policies: usize) -> Option<String> {
    (policies > MAX_POLICIES).then(|| format!("must be {MAX_POLICIES} policies at most"))
}

/// Returns what is wrong with policies, each with its place in the list. `roles` are the names of
/// sets of scopes.
pub fn problems_of(policies: &[IssuancePolicy], roles: &[&str]) -> Vec<(String, String)> {
    if let Some(problem) = problem_of_count(policies.len()) {
        return vec![(String::new(), problem)];
    }
    let mut problems = vec![];
    for (index, policy) in policies.iter().enumerate() {
        let mut add = |field: &str, problem: String| {
            problems.push((format!("[{index}]{field}"), problem));
        };
        if !is_name(&policy.name) {
            add(".name", "must be 1 to 64 letters, digits, _, - and .".to_owned());
        } else if policies[..index].iter().any(|other| other.name == policy.name) {
            add(".name", "is that of an earlier policy; choose another".to_owned());
        }
        if !policy.has_rule() {
            let problem = "has no rule: set max_ttl, require_ttl, allowed_scopes, required_metadata, \
                           require_ip_restriction, name_pattern or max_keys_per_actor";
            add("", problem.to_owned());
        }
        if let Some(problem) = problem_of_prefix(&policy.applies_to) {
            add(".match.actor_prefix", problem.to_owned());
        }
        if let Some(problem) = problem_of_role(policy, roles) {
            add(".match.role", problem);
        }
        if policy.max_ttl.is_some_and(|ttl| !(Duration::from_secs(1)..=TEN_YEARS).contains(&ttl)) {
            add(".max_ttl", "must be between 1s and 315360000s".to_owned());
        }
        let required = &policy.required_metadata;
        if required.len() > MAX_REQUIRED
            || required.iter().any(|name| !(1..=MAX_MEMBER).contains(&name.len()))
        {
            let problem = format!("must be {MAX_REQUIRED} names at most, each of 1 to {MAX_MEMBER} bytes");
            add(".required_metadata", problem);
        }
        if policy.max_keys_per_actor.is_some_and(|most| most > MAX_KEYS) {
            add(".max_keys_per_actor", format!("must be at most {MAX_KEYS}"));
        }
    }
    problems
}

fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_allowed)
}

fn problem_of_prefix(applies_to: &PolicyMatch) -> Option<&'static str> {
    let prefix = applies_to.actor_prefix.as_ref()?;
    let fits = (1..=MAX_LABEL).contains(&prefix.chars().count());
    (!fits).then_some("must be 1 to 255 characters; leave it out to match all actors")
}

fn problem_of_role(policy: &IssuancePolicy, roles: &[&str]) -> Option<String> {
    let role = policy.applies_to.role.as_deref()?;
    if policy.apply == ApplyTo::All {
        return Some("can't go with apply: all, as keys don't record it; use apply: new".to_owned());
    }
    match (roles.contains(&role), CALLERS.contains(&role)) {
        (true, true) => {
            Some("is the role of a caller and one of `roles`; give the latter another name".to_owned())
        }
        (true, false) => None,
        (false, _) if WRITERS.contains(&role) => None,
        (false, _) => Some("must be issuer, admin or the name of one of `roles`".to_owned()),
    }
}
