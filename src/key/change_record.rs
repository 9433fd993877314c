//! Record of a change, as kept beside its entry in the mutation log for those who follow it.
//!
//! It has nothing of a secret, and of the owner's own attributes only that they changed.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Actor, CreditBalance, Credits, Key, KeyId, KeyKind, RatePolicies, RatePolicy, Refill, RevocationReason,
    Suspension,
};
use crate::clock::Timestamp;

/// Longest record, in bytes. The values of a longer one are left out.
const MAX_LEN: usize = 4_096;

/// Fields of a key that a new one may have, besides its ids and times.
const FIELDS_OF_NEW: [&str; 10] = [
    "name",
    "scopes",
    "metadata",
    "visibility",
    "ip_restriction",
    "rate_limit_policy",
    "rate_limit_policies",
    "credits",
    "expire_time",
    "suspension",
];
/// Differences that say nothing of their own: each change has a time, and a revocation a reason.
const IMPLIED: [&str; 4] = ["key_id", "status", "create_time", "update_time"];

/// Operation that made a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum ChangeKind {
    Issue,
    Import,
    Update,
    Rotate,
    Revoke,
    Suspend,
    Resume,
    Finish,
    /// A key of which a hash was imported got the id of an imported key.
    Upgrade,
    Delete,
    UpdateActor,
    SuspendActor,
    ResumeActor,
    DeleteActor,
}

impl ChangeKind {
    /// All kinds.
    pub const ALL: [Self; 14] = [
        Self::Issue,
        Self::Import,
        Self::Update,
        Self::Rotate,
        Self::Revoke,
        Self::Suspend,
        Self::Resume,
        Self::Finish,
        Self::Upgrade,
        Self::Delete,
        Self::UpdateActor,
        Self::SuspendActor,
        Self::ResumeActor,
        Self::DeleteActor,
    ];

    /// Returns the name of the operation, as in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::Import => "import",
            Self::Update => "update",
            Self::Rotate => "rotate",
            Self::Revoke => "revoke",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Finish => "finish",
            Self::Upgrade => "upgrade",
            Self::Delete => "delete",
            Self::UpdateActor => "update_actor",
            Self::SuspendActor => "suspend_actor",
            Self::ResumeActor => "resume_actor",
            Self::DeleteActor => "delete_actor",
        }
    }

    /// Returns the kind of a change that left a key in this state.
    fn of_change(before: &Key, after: &Key, successor: Option<KeyId>) -> Self {
        let revocation = after.revocation.as_ref().filter(|_| before.revocation.is_none());
        let suspensions = (&before.suspensions.own, &after.suspensions.own);
        match (successor, revocation, suspensions) {
            (Some(_), ..) => Self::Rotate,
            (_, Some(of), _) if of.reason == RevocationReason::Superseded && before.superseded.is_some() => {
                Self::Finish
            }
            (_, Some(_), _) => Self::Revoke,
            (_, _, (before, Some(after))) if before.as_ref() != Some(after) => Self::Suspend,
            (_, _, (Some(_), None)) => Self::Resume,
            _ => Self::Update,
        }
    }
}

/// Difference of one field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Name of the field in the API.
    pub field: String,
    /// Value before the change; `None` if unset or left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Value after the change; `None` if unset or left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Record of a change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Operation; `None` once erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ChangeKind>,
    /// Actor of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Verified caller; `None` if nothing proved who it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Arc<str>>,
    /// Key that replaces the changed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
    /// Fields that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
    /// True if the values were left out, as they were too long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_shortened: bool,
    /// True if the key or actor was erased since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_erased: bool,
}

impl ChangeRecord {
    /// Text that takes the place of a record once its key or actor is erased.
    pub const ERASED: &str = r#"{"is_erased":true}"#;

    /// Makes the record of a new key.
    pub fn of_new(key: &Key) -> Self {
        let is_set =
            |field: &str| value_of(key, field).is_some() || (field == "metadata" && key.metadata.is_some());
        let changes = FIELDS_OF_NEW.into_iter().filter(|field| is_set(field)).map(|field| FieldChange {
            field: field.to_owned(),
            before: None,
            after: value_of(key, field),
        });
        let kind = match key.id.kind() {
            KeyKind::Issued => ChangeKind::Issue,
            KeyKind::Imported => ChangeKind::Import,
        };
        Self {
            kind: Some(kind),
            actor: Some(key.actor.as_str().to_owned()),
            caller: key.provenance.created_by.clone(),
            changes: changes.collect(),
            ..Self::default()
        }
    }

    /// Makes the record of a change of a key, which `successor` replaces if there is one.
    pub fn of_change(before: &Key, after: &Key, successor: Option<KeyId>) -> Self {
        // Uses spend credits without a change; what is set is one, even if the refill stays.
        let sets_credits = !Credits::are_kept(before.credits.as_ref(), after.credits.as_ref());
        let differences = after.differences(before).into_iter();
        let differences = differences.filter(|field| !IMPLIED.contains(field) && *field != "credits");
        let differences = differences.chain(sets_credits.then_some("credits"));
        let changes = differences.map(|field| FieldChange {
            field: field.to_owned(),
            before: value_of(before, field),
            after: value_of(after, field),
        });
        Self {
            kind: Some(ChangeKind::of_change(before, after, successor)),
            actor: Some(after.actor.as_str().to_owned()),
            caller: after.provenance.updated_by.clone(),
            replaced_by: successor.map(|id| id.to_string()),
            changes: changes.collect(),
            ..Self::default()
        }
    }

    /// Makes the records of both ids of a key of which a hash was imported, once it is used. That
    /// of the earlier id doesn't tell whose it was.
    pub fn of_upgrade(key: &Key, to: KeyId) -> [Self; 2] {
        let (from, id) = (key.id.to_string(), to.to_string());
        let change = FieldChange {
            field: "key_id".to_owned(),
            before: Some(from.into()),
            after: Some(id.clone().into()),
        };
        let kind = Some(ChangeKind::Upgrade);
        let actor = Some(key.actor.as_str().to_owned());
        [
            Self { kind, replaced_by: Some(id), ..Self::default() },
            Self { kind, actor, changes: vec![change], ..Self::default() },
        ]
    }

    /// Makes the record of an erased key. It doesn't tell whose it was.
    pub fn of_deletion(caller: Option<Arc<str>>) -> Self {
        Self { kind: Some(ChangeKind::Delete), caller, ..Self::default() }
    }

    /// Makes the record of a change of an actor.
    pub fn of_actor(before: &Actor, after: &Actor) -> Self {
        let kind = match (&before.suspension, &after.suspension) {
            (before, Some(after)) if before.as_ref() != Some(after) => ChangeKind::SuspendActor,
            (Some(_), None) => ChangeKind::ResumeActor,
            _ => ChangeKind::UpdateActor,
        };
        let name = |actor: &Actor| actor.display_name.as_ref().map(|name| name.as_str().into());
        let suspension = |actor: &Actor| actor.suspension.as_deref().map(suspension_json);
        let limits = |actor: &Actor| policies_json(&actor.rate_policies);
        let mut changes = vec![];
        for (field, before, after) in [
            ("display_name", name(before), name(after)),
            ("rate_limit_policies", limits(before), limits(after)),
            ("suspension", suspension(before), suspension(after)),
        ] {
            if before != after {
                changes.push(FieldChange { field: field.to_owned(), before, after });
            }
        }
        if before.metadata != after.metadata {
            changes.push(FieldChange { field: "metadata".to_owned(), before: None, after: None });
        }
        Self { kind: Some(kind), caller: after.updated_by.clone(), changes, ..Self::default() }
    }

    /// Makes the record of an erased actor.
    pub fn of_actor_deletion(caller: Option<Arc<str>>) -> Self {
        Self { kind: Some(ChangeKind::DeleteActor), caller, ..Self::default() }
    }

    /// Returns the text for a row, of at most 4096 bytes unless names alone are longer.
    pub fn into_stored(mut self) -> String {
        let text = serde_json::to_string(&self).unwrap_or_default();
        if text.len() <= MAX_LEN {
            return text;
        }
        self.is_shortened = true;
        for change in &mut self.changes {
            (change.before, change.after) = (None, None);
        }
        serde_json::to_string(&self).unwrap_or_default()
    }

    /// Reads the text of a row; `None` if a newer release wrote what this one doesn't know.
    pub fn from_stored(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// Returns the value of a field; `None` if it is unset, or is left out.
fn value_of(key: &Key, field: &str) -> Option<Value> {
    let texts = |texts: Vec<String>| (!texts.is_empty()).then(|| json!(texts));
    match field {
        "name" => Some(key.name.as_str().into()),
        "actor_id" => Some(key.actor.as_str().into()),
        "scopes" => texts(key.scopes.iter().map(ToString::to_string).collect()),
        "visibility" => Some(key.visibility.name().into()),
        "ip_restriction" => texts(key.addresses.iter().map(ToString::to_string).collect())
            .map(|blocks| json!({ "allowed_cidrs": blocks })),
        "rate_limit_policy" => key.rate_policy.as_ref().map(policy_json),
        "rate_limit_policies" => policies_json(&key.rate_policies),
        "credits" => key.credits.as_deref().map(credits_json),
        "expire_time" => key.expires.map(|at| at.to_rfc3339().into()),
        "supersede_time" => key.superseded.map(|at| at.to_rfc3339().into()),
        "suspension" => key.suspensions.own.as_deref().map(suspension_json),
        "revocation_reason" => key.revocation.as_ref().map(|of| of.reason.name().into()),
        "revocation_description" => {
            key.revocation.as_ref().and_then(|of| of.description.clone()).map(Value::from)
        }
        _ => None,
    }
}

fn policies_json(policies: &RatePolicies) -> Option<Value> {
    let each = policies.as_slice().iter().map(|named| {
        let mut policy = policy_json(&named.policy);
        policy["name"] = named.name.as_str().into();
        policy["scope"] = named.scope.name().into();
        policy["enforce"] = named.enforcer.name().into();
        policy
    });
    (!policies.is_unset()).then(|| each.collect())
}

fn credits_json(credits: &Credits) -> Value {
    let CreditBalance { remaining, refill, .. } = credits.balance;
    let mut values = json!({ "remaining": remaining.to_string() });
    if let Some(Refill { amount, schedule }) = refill {
        let (every, at) = (schedule.every().name(), schedule.to_string());
        values["refill"] = json!({ "amount": amount.to_string(), "every": every, "at": at });
    }
    values
}

fn policy_json(policy: &RatePolicy) -> Value {
    let RatePolicy { quota, window, unit } = policy;
    json!({ "quota": quota.to_string(), "unit": unit.name(), "window": seconds(*window) })
}

fn suspension_json(suspension: &Suspension) -> Value {
    let mut values = serde_json::Map::new();
    if let Some(reason) = &suspension.reason {
        values.insert("reason".to_owned(), (**reason).into());
    }
    if let Some(until) = suspension.until {
        values.insert("until".to_owned(), Timestamp::to_rfc3339(until).into());
    }
    Value::Object(values)
}

fn seconds(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyName, Metadata, Provenance, Revocation, Scopes, Suspensions};

    fn key() -> Key {
        Key {
            scopes: Scopes::parse(&["orders:read"]).unwrap(),
            metadata: Metadata::from_json(r#"{"email":"ada@example.com"}"#.to_owned()),
            provenance: Provenance {
                created_by: Some("spiffe://a/b".into()),
                updated_by: Some("ops".into()),
                ..Provenance::default()
            }
            .into(),
            ..Key::sample(KeyId::Imported([7; 32]), Timestamp::from_secs(1_790_000_000))
        }
    }

    #[test]
    fn kinds_of_changes_are_derived_from_the_rows() {
        let old = key();
        let suspension = Suspension { reason: Some("unpaid".into()), until: None, at: old.created, by: None };
        let suspended = Key {
            suspensions: Suspensions { own: Some(Arc::new(suspension)), of_actor: None },
            ..old.clone()
        };
        let revoked =
            |reason| Key { revocation: Some(Box::new(Revocation { reason, description: None })), ..key() };
        let superseded = Key { superseded: Some(old.created), ..old.clone() };
        let renamed = Key { name: KeyName::parse("other").unwrap(), ..old.clone() };
        for (before, after, successor, kind, fields) in [
            (&old, &renamed, None, ChangeKind::Update, vec!["name"]),
            (&old, &suspended, None, ChangeKind::Suspend, vec!["suspension"]),
            (&suspended, &old, None, ChangeKind::Resume, vec!["suspension"]),
            (&old, &superseded, Some(old.id), ChangeKind::Rotate, vec!["supersede_time"]),
            (
                &old,
                &revoked(RevocationReason::KeyCompromise),
                None,
                ChangeKind::Revoke,
                vec!["revocation_reason"],
            ),
            (
                &superseded,
                &revoked(RevocationReason::Superseded),
                None,
                ChangeKind::Finish,
                vec!["supersede_time", "revocation_reason"],
            ),
        ] {
            let record = ChangeRecord::of_change(before, after, successor);
            assert_eq!(record.kind, Some(kind));
            let changed: Vec<&str> = record.changes.iter().map(|change| change.field.as_str()).collect();
            assert_eq!(changed, fields, "{kind:?}");
            assert_eq!(record.caller.as_deref(), Some("ops"));
            assert_eq!(ChangeRecord::from_stored(&record.clone().into_stored()), Some(record));
        }
    }

    #[test]
    fn a_new_key_tells_what_is_set_and_nothing_of_the_owners_attributes() {
        let stored = ChangeRecord::of_new(&key()).into_stored();
        let record = ChangeRecord::from_stored(&stored).unwrap();
        let fields: Vec<&str> = record.changes.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(fields, ["name", "scopes", "metadata", "visibility"]);
        assert_eq!((record.kind, record.caller.as_deref()), (Some(ChangeKind::Import), Some("spiffe://a/b")));
        assert!(!stored.contains("ada@example.com"), "{stored}");
    }

    #[test]
    fn values_that_are_too_long_are_left_out() {
        let scopes: Vec<String> = (0..100).map(|n| format!("{n:0>128}")).collect();
        let wide = Key { scopes: Scopes::parse(&scopes).unwrap(), ..key() };
        let stored = ChangeRecord::of_change(&key(), &wide, None).into_stored();
        assert!(stored.len() <= MAX_LEN, "{}", stored.len());
        let record = ChangeRecord::from_stored(&stored).unwrap();
        assert!(record.is_shortened);
        assert_eq!(record.changes, [FieldChange { field: "scopes".to_owned(), before: None, after: None }]);
    }

    #[test]
    fn an_erased_record_says_only_that() {
        let erased = ChangeRecord { is_erased: true, ..ChangeRecord::default() };
        assert_eq!(ChangeRecord::from_stored(ChangeRecord::ERASED), Some(erased));
        assert_eq!(ChangeRecord::from_stored(r#"{"kind":"of_a_newer_release"}"#), None);
    }

    #[test]
    fn names_are_those_that_are_stored() {
        for kind in ChangeKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
