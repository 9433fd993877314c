//! A key as plain values, as stored in a database row or in the shared cache.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::interned::Interned;
use super::{
    ActorId, AddressList, CreditBalance, Credits, Key, KeyId, KeyKind, KeyName, KeyPrefix, Metadata,
    NetworkId, Provenance, RatePolicies, RatePolicy, RateUnit, Refill, Revocation, RevocationReason, Scopes,
    SecretId, Signer, Suspension, Suspensions, UnusedGrace, Visibility,
};
use crate::clock::Timestamp;

/// Plain values of a key. Times are microseconds since 1970 UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the columns")]
pub struct Record {
    pub network_id: String,
    pub key_id: String,
    /// 1 issued, 2 imported.
    pub kind: i16,
    pub name: String,
    pub actor_id: String,
    /// JSON list.
    pub scopes: String,
    /// JSON object.
    pub metadata: Option<String>,
    /// 1 secret, 2 public.
    pub visibility: i16,
    /// JSON list.
    pub allowed_cidrs: String,
    pub rate_quota: Option<i64>,
    /// Microseconds.
    pub rate_window: Option<i64>,
    pub rate_unit: Option<String>,
    /// JSON list of named policies; unset if there is at most `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_policies: Option<String>,
    /// Id of the key that was first given the credits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits_id: Option<String>,
    /// The columns of the credits' own row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits_remaining: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits_refill: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits_due_at: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
    pub expires_at: Option<i64>,
    pub superseded_at: Option<i64>,
    pub revocation_reason: Option<String>,
    pub revocation_description: Option<String>,
    pub last_used_at: Option<i64>,
    pub mutation: i64,
    /// Hexadecimal digits; empty while the secret isn't known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secret_id: String,
    /// Empty while the prefix isn't known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key_prefix: String,
    /// JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
    /// Microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_grace: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_limit_at: Option<i64>,
    /// JSON object: the suspension of the actor, from the actor's row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_suspension: Option<String>,
    /// JSON list: the rate policies of the actor, from the actor's row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_rate_policies: Option<String>,
}

/// A column has a value that this program can't have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable(pub &'static str);

/// Returns the stored number of a kind.
pub const fn kind_code(kind: KeyKind) -> i16 {
    match kind {
        KeyKind::Issued => 1,
        KeyKind::Imported => 2,
    }
}

impl From<&Key> for Record {
    fn from(key: &Key) -> Self {
        let revocation = key.revocation.as_ref();
        let credits = key.credits.as_deref();
        let balance = credits.map(|credits| credits.balance);
        let stored = |one: &Option<Arc<Suspension>>| one.as_ref().map(|one| one.to_stored());
        let text = |name: &Option<Arc<str>>| name.as_ref().map(ToString::to_string);
        let id = |id: Option<KeyId>| id.map(|id| id.to_string());
        let Provenance { created_by, updated_by, revoked_by, replaces, replaced_by } = &*key.provenance;
        Self {
            network_id: key.network.to_string(),
            key_id: key.id.to_string(),
            kind: kind_code(key.id.kind()),
            name: key.name.as_str().to_owned(),
            actor_id: key.actor.as_str().to_owned(),
            scopes: list(key.scopes.iter()),
            metadata: key.metadata.as_ref().map(|metadata| metadata.json().to_owned()),
            visibility: match key.visibility {
                Visibility::Secret => 1,
                Visibility::Public => 2,
            },
            allowed_cidrs: list(key.addresses.iter()),
            rate_quota: key.rate_policy.map(|policy| policy.quota),
            rate_window: key.rate_policy.map(|policy| micros(policy.window)),
            rate_unit: key.rate_policy.map(|policy| policy.unit.name().to_owned()),
            rate_policies: key.rate_policies.to_json(),
            credits_id: credits.map(|credits| credits.account.to_string()),
            credits_remaining: balance.and_then(|balance| i64::try_from(balance.remaining).ok()),
            credits_refill: balance.and_then(|balance| balance.refill).map(|refill| refill.to_stored()),
            credits_due_at: balance.and_then(|balance| balance.due).map(Timestamp::as_micros),
            created_at: key.created.as_micros(),
            updated_at: key.updated.as_micros(),
            expires_at: key.expires.map(Timestamp::as_micros),
            superseded_at: key.superseded.map(Timestamp::as_micros),
            revocation_reason: revocation.map(|revocation| revocation.reason.name().to_owned()),
            revocation_description: revocation.and_then(|revocation| revocation.description.clone()),
            last_used_at: key.last_used.map(Timestamp::as_micros),
            mutation: i64::try_from(key.mutation).unwrap_or(i64::MAX),
            secret_id: key.signer.secret.map(|id| id.to_string()).unwrap_or_default(),
            key_prefix: key.signer.prefix.map(|prefix| prefix.as_str().to_owned()).unwrap_or_default(),
            suspension: stored(&key.suspensions.own),
            created_by: text(created_by),
            updated_by: text(updated_by),
            revoked_by: text(revoked_by),
            replaces: id(*replaces),
            replaced_by: id(*replaced_by),
            unused_grace: key.unused_grace.as_deref().map(|grace| micros(grace.after)),
            grace_limit_at: key.unused_grace.as_deref().map(|grace| grace.latest.as_micros()),
            actor_suspension: stored(&key.suspensions.of_actor),
            actor_rate_policies: key.actor_limits.to_whole_json(),
        }
    }
}

impl TryFrom<Record> for Key {
    type Error = Unreadable;

    fn try_from(record: Record) -> Result<Self, Unreadable> {
        let kind = match record.kind {
            1 => KeyKind::Issued,
            2 => KeyKind::Imported,
            _ => return Err(Unreadable("kind")),
        };
        let rate_policy = rate_policy(record.rate_quota, record.rate_window, record.rate_unit.as_deref())?;
        let rate_policies = RatePolicies::from_json(record.rate_policies.as_deref(), rate_policy)
            .ok_or(Unreadable("rate_policies"))?;
        let actor_limits = RatePolicies::from_whole_json(record.actor_rate_policies.as_deref())
            .ok_or(Unreadable("actor_rate_policies"))?;
        let credits = match &record.credits_id {
            Some(id) => Some(Arc::new(Credits {
                account: KeyId::parse_any(id).ok_or(Unreadable("credits_id"))?,
                balance: credit_balance(&record)?,
            })),
            None => None,
        };
        Ok(Self {
            network: NetworkId::parse(&record.network_id).ok_or(Unreadable("network_id"))?,
            id: KeyId::parse(kind, &record.key_id).ok_or(Unreadable("key_id"))?,
            name: KeyName::parse(&record.name).map_err(|_| Unreadable("name"))?,
            actor: ActorId::from_stored(&record.actor_id).map_err(|_| Unreadable("actor_id"))?,
            scopes: scopes(&record.scopes)?,
            metadata: match record.metadata {
                Some(json) => Some(Metadata::from_json(json).ok_or(Unreadable("metadata"))?),
                None => None,
            },
            visibility: match record.visibility {
                1 => Visibility::Secret,
                2 => Visibility::Public,
                _ => return Err(Unreadable("visibility")),
            },
            addresses: AddressList::parse(&texts(&record.allowed_cidrs, "allowed_cidrs")?)
                .map_err(|_| Unreadable("allowed_cidrs"))?,
            rate_policy,
            rate_policies,
            actor_limits,
            credits,
            created: Timestamp::from_micros(record.created_at),
            updated: Timestamp::from_micros(record.updated_at),
            expires: record.expires_at.map(Timestamp::from_micros),
            superseded: record.superseded_at.map(Timestamp::from_micros),
            unused_grace: unused_grace(record.unused_grace, record.grace_limit_at)?,
            revocation: match record.revocation_reason {
                Some(reason) => Some(Box::new(Revocation {
                    reason: RevocationReason::from_name(&reason).ok_or(Unreadable("revocation_reason"))?,
                    description: record.revocation_description,
                })),
                None => None,
            },
            suspensions: Suspensions {
                own: suspension(record.suspension, "suspension")?,
                of_actor: suspension(record.actor_suspension, "actor_suspension")?,
            },
            provenance: Provenance {
                created_by: record.created_by.map(Into::into),
                updated_by: record.updated_by.map(Into::into),
                revoked_by: record.revoked_by.map(Into::into),
                replaces: record.replaces.as_deref().and_then(KeyId::parse_any),
                replaced_by: record.replaced_by.as_deref().and_then(KeyId::parse_any),
            }
            .into(),
            last_used: record.last_used_at.map(Timestamp::from_micros),
            mutation: u64::try_from(record.mutation).map_err(|_| Unreadable("mutation"))?,
            signer: Signer {
                secret: SecretId::parse(&record.secret_id),
                prefix: KeyPrefix::parse(&record.key_prefix),
            },
        })
    }
}

/// Reads scopes; keys with the same ones share them.
fn scopes(json: &str) -> Result<Scopes, Unreadable> {
    static KNOWN: Interned<Scopes> = Interned::new();
    KNOWN.get_or_make(json, || Scopes::parse(&texts(json, "scopes")?).map_err(|_| Unreadable("scopes")))
}

/// Reads a suspension. One that can't be read fails the row, as it would count as none.
fn suspension(text: Option<String>, column: &'static str) -> Result<Option<Arc<Suspension>>, Unreadable> {
    let read = |text: String| Suspension::from_stored(&text).map(Arc::new).ok_or(Unreadable(column));
    text.map(read).transpose()
}

/// Reads the balance of credits. Without their row there is none left, and a use finds none.
fn credit_balance(record: &Record) -> Result<CreditBalance, Unreadable> {
    let refill = record.credits_refill.as_deref();
    let refill = refill.map(|refill| Refill::from_stored(refill).ok_or(Unreadable("credits_refill")));
    let remaining = u64::try_from(record.credits_remaining.unwrap_or(0));
    Ok(CreditBalance {
        remaining: remaining.map_err(|_| Unreadable("credits_remaining"))?,
        refill: refill.transpose()?,
        due: record.credits_due_at.map(Timestamp::from_micros),
    })
}

fn unused_grace(after: Option<i64>, limit: Option<i64>) -> Result<Option<Box<UnusedGrace>>, Unreadable> {
    let Some((after, latest)) = after.zip(limit) else {
        return Ok(None);
    };
    let after = u64::try_from(after).map_err(|_| Unreadable("unused_grace"))?;
    let (after, latest) = (Duration::from_micros(after), Timestamp::from_micros(latest));
    Ok(Some(Box::new(UnusedGrace { after, latest })))
}

fn rate_policy(
    quota: Option<i64>,
    window: Option<i64>,
    unit: Option<&str>,
) -> Result<Option<RatePolicy>, Unreadable> {
    let Some(quota) = quota else {
        return Ok(None);
    };
    let window = window.and_then(|micros| u64::try_from(micros).ok()).ok_or(Unreadable("rate_window"))?;
    let unit = unit.and_then(RateUnit::from_name).ok_or(Unreadable("rate_unit"))?;
    let policy = RatePolicy::new(quota, Duration::from_micros(window), unit);
    policy.map(Some).map_err(|_| Unreadable("rate_quota"))
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    serde_json::json!(items.map(|item| item.to_string()).collect::<Vec<_>>()).to_string()
}

fn texts(json: &str, column: &'static str) -> Result<Vec<String>, Unreadable> {
    serde_json::from_str(json).map_err(|_| Unreadable(column))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
