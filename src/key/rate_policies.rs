//! Several rate policies of one key, each with a name.
//!
//! The policy named `default` is also the key's `rate_limit_policy`. Its numbers stand in columns
//! of their own, which releases that know one policy read and write.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::FieldError;
use super::rate::{RatePolicy, RateUnit};

/// Name of a policy: 1 to 32 characters of `[a-z0-9_]`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

impl PolicyName {
    /// Maximum length, in bytes.
    pub const MAX_LEN: usize = 32;
    /// Name of the policy that `rate_limit_policy` stands for.
    pub const DEFAULT: Self = Self::known("default");

    const fn known(text: &str) -> Self {
        let (from, mut bytes, mut at) = (text.as_bytes(), [0; Self::MAX_LEN], 0);
        while at < from.len() && at < Self::MAX_LEN {
            bytes[at] = from[at];
            at += 1;
        }
        Self { bytes, len: at as u8 }
    }

    /// Parses a name.
    ///
    /// # Errors
    /// Fails if it is empty, too long or has another character.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        match (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(is_allowed) {
            true => Ok(Self::known(text)),
            false => Err(FieldError::new("must be 1 to 32 characters: a to z, 0 to 9 and _")),
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }

    /// Returns whether it is `default`.
    pub fn is_default(&self) -> bool {
        *self == Self::DEFAULT
    }
}

impl fmt::Debug for PolicyName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Uses that a policy counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RateScope {
    /// Uses of the key.
    #[default]
    Key,
    /// Uses of all keys of its actor that have a policy of the same name and window.
    Actor,
}

impl RateScope {
    /// All scopes.
    pub const ALL: [Self; 2] = [Self::Key, Self::Actor];

    /// Returns the name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "KEY",
            Self::Actor => "ACTOR",
        }
    }

    /// Parses the name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// Program that enforces a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RateEnforcer {
    /// Talos counts.
    #[default]
    Talos,
    /// Envoy's rate limit filter counts, by the limit in the dynamic metadata.
    Envoy,
}

impl RateEnforcer {
    /// All enforcers.
    pub const ALL: [Self; 2] = [Self::Talos, Self::Envoy];

    /// Returns the name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Talos => "TALOS",
            Self::Envoy => "ENVOY",
        }
    }

    /// Parses the name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|enforcer| enforcer.name() == name)
    }
}

/// Windows that Envoy's limits can have (`envoy.type.v3.RateLimitUnit`), in seconds.
const ENVOY_UNITS: [(u64, &str); 6] = [
    (1, "SECOND"),
    (60, "MINUTE"),
    (3_600, "HOUR"),
    (86_400, "DAY"),
    (2_592_000, "MONTH"),
    (31_536_000, "YEAR"),
];

/// A policy with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedRatePolicy {
    /// Name, unique within the key.
    pub name: PolicyName,
    /// Quota and window.
    pub policy: RatePolicy,
    /// Uses that are counted together.
    pub scope: RateScope,
    /// Program that enforces it.
    pub enforcer: RateEnforcer,
}

impl NamedRatePolicy {
    /// Returns `policy` as the one named `default`, per key and enforced by Talos.
    pub const fn default_of(policy: RatePolicy) -> Self {
        Self { name: PolicyName::DEFAULT, policy, scope: RateScope::Key, enforcer: RateEnforcer::Talos }
    }

    /// Returns whether Talos counts uses for it.
    pub const fn is_counted(&self) -> bool {
        matches!(self.enforcer, RateEnforcer::Talos) && self.policy.unit.is_enforced()
    }

    /// Returns the limit for Envoy's filter, requests and unit; `None` if Talos enforces it.
    pub fn envoy_limit(&self) -> Option<(u32, &'static str)> {
        if self.enforcer == RateEnforcer::Talos || self.policy.unit != RateUnit::Requests {
            return None;
        }
        Some((u32::try_from(self.policy.quota).ok()?, envoy_unit(self.policy.window)?))
    }

    /// Returns its item of the `RateLimit-Policy` header.
    fn header(&self) -> String {
        self.policy.header_named(self.name.as_str())
    }

    /// Checks what depends on name and enforcer. The first text of an error is the field.
    fn check(&self) -> Result<(), (&'static str, FieldError)> {
        if self.policy.unit != RateUnit::Requests
            && (!self.name.is_default() || self.enforcer == RateEnforcer::Envoy)
        {
            return Err(("unit", FieldError::new("must be requests")));
        }
        if self.enforcer == RateEnforcer::Talos {
            return Ok(());
        }
        if u32::try_from(self.policy.quota).is_err() {
            return Err(("quota", FieldError::new("must be 4294967295 at most with enforce: ENVOY")));
        }
        if envoy_unit(self.policy.window).is_none() {
            let windows = "must be 1s, 60s, 3600s, 86400s, 2592000s or 31536000s with enforce: ENVOY, \
                           as Envoy knows no others";
            return Err(("window", FieldError::new(windows)));
        }
        if self.scope == RateScope::Actor {
            let problem =
                "must be KEY with enforce: ENVOY; a descriptor of Envoy's filter can have the actor";
            return Err(("scope", FieldError::new(problem)));
        }
        Ok(())
    }
}

fn envoy_unit(window: Duration) -> Option<&'static str> {
    let is_it = |(seconds, _): &&(u64, &str)| Duration::from_secs(*seconds) == window;
    ENVOY_UNITS.iter().find(is_it).map(|(_, unit)| *unit)
}

/// Rate policies of a key, in the order in which they were set; unset if only
/// `rate_limit_policy` was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RatePolicies(Option<Arc<[NamedRatePolicy]>>);

impl RatePolicies {
    /// Maximum number of policies.
    pub const MAX: usize = 8;
    /// No list.
    pub const UNSET: Self = Self(None);

    /// Checks policies; none means unset.
    ///
    /// # Errors
    /// Fails if there are too many, two have one name, or one can't be enforced. The text begins
    /// with the place in the list.
    pub fn new(policies: Vec<NamedRatePolicy>) -> Result<Self, FieldError> {
        if policies.is_empty() {
            return Ok(Self(None));
        }
        let policies = Self(Some(policies.into()));
        policies.check()?;
        Ok(policies)
    }

    /// Checks policies of an actor; none means unset. Each counts the uses of all its keys.
    ///
    /// # Errors
    /// Fails as [`RatePolicies::new`] does.
    pub fn of_actor(mut policies: Vec<NamedRatePolicy>) -> Result<Self, FieldError> {
        let is_wrong = |policy: &NamedRatePolicy| policy.policy.unit != RateUnit::Requests;
        if let Some(at) = policies.iter().position(is_wrong) {
            return Err(FieldError(format!("[{at}].unit must be requests").into()));
        }
        // What Envoy counts together depends on its descriptor alone.
        for policy in &mut policies {
            policy.scope = RateScope::Key;
        }
        Self::new(policies).map(Self::by_actor)
    }

    fn by_actor(self) -> Self {
        let by_actor = |policy: &NamedRatePolicy| NamedRatePolicy { scope: RateScope::Actor, ..*policy };
        Self(self.0.map(|policies| policies.iter().map(by_actor).collect()))
    }

    /// Checks the policies, for example after `default` has changed.
    ///
    /// # Errors
    /// Fails as [`RatePolicies::new`] does.
    pub fn check(&self) -> Result<(), FieldError> {
        let policies = self.as_slice();
        if policies.len() > Self::MAX {
            return Err(FieldError::new("must be 8 policies at most"));
        }
        for (at, policy) in policies.iter().enumerate() {
            if policies[..at].iter().any(|other| other.name == policy.name) {
                return Err(FieldError(format!("[{at}].name is there twice").into()));
            }
            let problem = |(field, problem): (&str, FieldError)| format!("[{at}].{field} {problem}");
            policy.check().map_err(|error| FieldError(problem(error).into()))?;
        }
        Ok(())
    }

    /// Returns the policies.
    pub fn as_slice(&self) -> &[NamedRatePolicy] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Returns whether no list was set.
    pub const fn is_unset(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the policy named `default`.
    pub fn default_policy(&self) -> Option<&NamedRatePolicy> {
        self.as_slice().iter().find(|policy| policy.name.is_default())
    }

    /// Returns the policies with other numbers for `default`, or without it. An unset list stays
    /// unset.
    pub(super) fn with_default(&self, default: Option<RatePolicy>) -> Self {
        let Some(policies) = &self.0 else { return Self(None) };
        let mut policies = policies.to_vec();
        match (default, policies.iter_mut().find(|policy| policy.name.is_default())) {
            (Some(policy), Some(there)) => there.policy = policy,
            (Some(policy), None) => policies.insert(0, NamedRatePolicy::default_of(policy)),
            (None, _) => policies.retain(|policy| !policy.name.is_default()),
        }
        Self((!policies.is_empty()).then(|| policies.into()))
    }

    /// Returns the `RateLimit-Policy` header: the policies that Talos enforces.
    pub(super) fn header(policies: impl Iterator<Item = NamedRatePolicy>) -> Option<String> {
        let counted = policies.filter(|policy| policy.enforcer == RateEnforcer::Talos);
        let counted: Vec<String> = counted.map(|policy| policy.header()).collect();
        (!counted.is_empty()).then(|| counted.join(", "))
    }

    /// Returns all that the list says, for comparison with another request's; `None` if unset.
    pub fn fingerprint(&self) -> Option<serde_json::Value> {
        let of = |policy: &NamedRatePolicy| {
            let NamedRatePolicy { name, policy: RatePolicy { quota, window, unit }, scope, enforcer } =
                policy;
            let window = window.as_micros().to_string();
            serde_json::json!([name.as_str(), quota, window, unit.name(), scope.name(), enforcer.name()])
        };
        self.0.as_deref().map(|policies| policies.iter().map(of).collect())
    }

    /// Returns the list as stored: JSON, in which `default` has no numbers.
    pub(super) fn to_json(&self) -> Option<String> {
        self.stored(|policy| !policy.name.is_default())
    }

    /// Returns the list of an actor as stored: JSON.
    pub fn to_whole_json(&self) -> Option<String> {
        self.stored(|_| true)
    }

    /// Restores a list from the output of [`RatePolicies::to_whole_json`]. `None` if it can't be
    /// read.
    pub fn from_whole_json(json: Option<&str>) -> Option<Self> {
        let Some(json) = json else { return Some(Self::UNSET) };
        let stored: Vec<StoredPolicy> = serde_json::from_str(json).ok()?;
        let read = |stored: StoredPolicy| {
            let policy = stored.numbers()?;
            stored.read(Some(policy))?
        };
        let policies = stored.into_iter().map(read).collect::<Option<Vec<_>>>()?;
        Some(Self((!policies.is_empty()).then(|| policies.into())))
    }

    fn stored(&self, has_numbers: impl Fn(&NamedRatePolicy) -> bool) -> Option<String> {
        let stored = |policy: &NamedRatePolicy| {
            let numbers = has_numbers(policy).then_some(policy.policy);
            StoredPolicy {
                name: policy.name.as_str().to_owned(),
                quota: numbers.map(|numbers| numbers.quota),
                window: numbers.and_then(|numbers| i64::try_from(numbers.window.as_micros()).ok()),
                scope: policy.scope.name().to_owned(),
                enforce: policy.enforcer.name().to_owned(),
            }
        };
        let policies = self.0.as_deref()?;
        serde_json::to_string(&policies.iter().map(stored).collect::<Vec<_>>()).ok()
    }

    /// Restores the list from the output of [`RatePolicies::to_json`] and the numbers of
    /// `default`, which another release may have set or removed. `None` if it can't be read.
    pub(super) fn from_json(json: Option<&str>, default: Option<RatePolicy>) -> Option<Self> {
        let Some(json) = json.filter(|json| !json.is_empty()) else { return Some(Self(None)) };
        let stored: Vec<StoredPolicy> = serde_json::from_str(json).ok()?;
        let policies = stored.into_iter().map(|stored| stored.read(default)).collect::<Option<Vec<_>>>()?;
        let policies: Vec<NamedRatePolicy> = policies.into_iter().flatten().collect();
        Some(Self(Some(policies.into())).with_default(default))
    }
}

/// A policy as stored. The window is in microseconds.
#[derive(Serialize, Deserialize)]
struct StoredPolicy {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<i64>,
    scope: String,
    enforce: String,
}

impl StoredPolicy {
    fn numbers(&self) -> Option<RatePolicy> {
        let window = Duration::from_micros(u64::try_from(self.window?).ok()?);
        RatePolicy::new(self.quota?, window, RateUnit::Requests).ok()
    }

    /// Returns the policy; `Some(None)` for a `default` that has been removed, `None` if it can't
    /// be read.
    fn read(self, default: Option<RatePolicy>) -> Option<Option<NamedRatePolicy>> {
        let name = PolicyName::parse(&self.name).ok()?;
        let policy = if name.is_default() { default } else { Some(self.numbers()?) };
        let scope = RateScope::from_name(&self.scope)?;
        let enforcer = RateEnforcer::from_name(&self.enforce)?;
        Some(policy.map(|policy| NamedRatePolicy { name, policy, scope, enforcer }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::key::{Key, KeyId};

    fn policy(name: &str, quota: i64, seconds: u64) -> NamedRatePolicy {
        NamedRatePolicy {
            name: PolicyName::parse(name).unwrap(),
            policy: RatePolicy::new(quota, Duration::from_secs(seconds), RateUnit::Requests).unwrap(),
            scope: RateScope::Actor,
            enforcer: RateEnforcer::Talos,
        }
    }

    fn for_envoy(quota: i64, seconds: u64) -> NamedRatePolicy {
        let (scope, enforcer) = (RateScope::Key, RateEnforcer::Envoy);
        NamedRatePolicy { scope, enforcer, ..policy("edge", quota, seconds) }
    }

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "default", "burst_2", &"x".repeat(32)] {
            assert_eq!(PolicyName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "a-b", "a b", "ü", "a\"", &"x".repeat(33)] {
            assert!(PolicyName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(PolicyName::parse("default").unwrap().is_default());
    }

    #[test]
    fn unenforceable_policies_are_refused_with_their_place() {
        let refused = |policies| RatePolicies::new(policies).unwrap_err().to_string();
        assert!(refused(vec![policy("a", 1, 1); 2]).starts_with("[1].name "));
        let many = (0..9).map(|number| policy(&format!("p{number}"), 1, 1)).collect();
        assert_eq!(refused(many), "must be 8 policies at most");
        assert!(refused(vec![for_envoy(1, 90)]).starts_with("[0].window "));
        assert!(refused(vec![for_envoy(1 << 32, 60)]).starts_with("[0].quota "));
        let by_actor = NamedRatePolicy { scope: RateScope::Actor, ..for_envoy(1, 60) };
        assert!(refused(vec![policy("a", 1, 1), by_actor]).starts_with("[1].scope "));
        let mut bytes = policy("a", 1, 1);
        bytes.policy.unit = RateUnit::ContentBytes;
        assert!(refused(vec![bytes]).starts_with("[0].unit "));
    }

    #[test]
    fn every_window_of_envoys_has_its_unit() {
        for (seconds, unit) in ENVOY_UNITS {
            assert_eq!(for_envoy(7, seconds).envoy_limit(), Some((7, unit)));
        }
        assert_eq!(policy("a", 7, 60).envoy_limit(), None);
    }

    #[test]
    fn a_list_survives_its_row_and_other_releases() {
        let default = policy("default", 10, 60);
        let list = RatePolicies::new(vec![policy("burst", 3, 1), default, for_envoy(9, 3_600)]).unwrap();
        let json = list.to_json().unwrap();
        assert!(!json.contains("\"quota\":10"), "the numbers of default are in their own columns: {json}");
        let read = |default| RatePolicies::from_json(Some(&json), default).unwrap();
        assert_eq!(read(Some(default.policy)), list);
        let names = |list: &RatePolicies| {
            list.as_slice().iter().map(|policy| policy.name.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&read(None)), ["burst", "edge"], "another release removed it");
        let only = RatePolicies::new(vec![policy("burst", 3, 1)]).unwrap().to_json();
        let set = RatePolicies::from_json(only.as_deref(), Some(default.policy)).unwrap();
        assert_eq!(names(&set), ["default", "burst"], "another release set it");
        assert_eq!(RatePolicies::from_json(None, Some(default.policy)), Some(RatePolicies::default()));
        assert_eq!(RatePolicies::from_json(Some("[{}]"), None), None);
    }

    #[test]
    fn headers_name_the_policies_that_talos_counts() {
        let list = [policy("default", 10, 60), policy("day", 100, 86_400), for_envoy(9, 1)];
        let header = RatePolicies::header(list.into_iter()).unwrap();
        assert_eq!(header, "\"default\";q=10;w=60, \"day\";q=100;w=86400");
    }

    /// Whoever enforces them: a policy of the key never leaves one of its actor to nobody.
    #[test]
    fn each_limit_of_an_actor_is_counted_or_given_to_envoy() {
        let named = |enforcer, scope| NamedRatePolicy { enforcer, scope, ..policy("day", 100, 60) };
        let (talos, envoy) = (RateEnforcer::Talos, RateEnforcer::Envoy);
        for (own, scope, of_actor, counted, given) in [
            (talos, RateScope::Key, talos, 2, 0),
            (talos, RateScope::Actor, talos, 1, 0),
            (talos, RateScope::Key, envoy, 1, 1),
            (talos, RateScope::Actor, envoy, 0, 1),
            (envoy, RateScope::Key, talos, 1, 1),
        ] {
            let key = Key {
                rate_policies: RatePolicies::new(vec![named(own, scope)]).unwrap(),
                actor_limits: RatePolicies::of_actor(vec![named(of_actor, RateScope::Key)]).unwrap(),
                ..Key::sample(KeyId::Imported([7; 32]), Timestamp::from_secs(1))
            };
            let found = (key.counted_rate_policies().count(), key.envoy_limits().count());
            assert_eq!(found, (counted, given), "{own:?} {scope:?}, of the actor {of_actor:?}");
        }
    }
}
