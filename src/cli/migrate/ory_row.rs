//! Conversion of a row of Ory Talos to a key as the API lists it, so that both are checked alike.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::store::OryRow;

/// Key in a list, with the names and forms of the API. Absent fields are null.
#[derive(Serialize)]
struct ListedKey<'r> {
    key_id: &'r str,
    name: Option<&'r str>,
    actor_id: Option<&'r str>,
    scopes: Option<&'r RawValue>,
    metadata: Option<&'r RawValue>,
    status: &'static str,
    visibility: Option<&'static str>,
    ip_restriction: Option<IpRestriction<'r>>,
    rate_limit_policy: Option<RateLimitPolicy<'r>>,
    create_time: Option<&'r str>,
    update_time: Option<&'r str>,
    expire_time: Option<&'r str>,
    last_used_time: Option<&'r str>,
    revocation_reason: Option<&'static str>,
    revocation_description: Option<&'r str>,
}

#[derive(Serialize)]
struct IpRestriction<'r> {
    allowed_cidrs: &'r RawValue,
}

#[derive(Serialize)]
struct RateLimitPolicy<'r> {
    quota: Option<&'r str>,
    window: Option<String>,
}

/// Converts a row to the JSON of a key in a list.
///
/// # Errors
/// Returns the column that can't be converted and why. The message never has its value.
pub(super) fn listed_key(row: &OryRow) -> Result<String, String> {
    let status = match row.status.as_deref() {
        Some("1") => "KEY_STATUS_ACTIVE",
        Some("2") => "KEY_STATUS_REVOKED",
        Some("3") => "KEY_STATUS_EXPIRED",
        _ => return Err("status: must be 1 (active), 2 (revoked) or 3 (expired)".to_owned()),
    };
    let visibility = match row.visibility.as_deref() {
        None | Some("0") => None,
        Some("1") => Some("KEY_VISIBILITY_SECRET"),
        Some("2") => Some("KEY_VISIBILITY_PUBLIC"),
        Some(_) => return Err("visibility: must be 1 (secret) or 2 (public)".to_owned()),
    };
    let revocation_reason = match row.revocation_reason.as_deref() {
        None | Some("0") => None,
        Some("1") => Some("REVOCATION_REASON_KEY_COMPROMISE"),
        Some("2") => Some("REVOCATION_REASON_AFFILIATION_CHANGED"),
        Some("3") => Some("REVOCATION_REASON_SUPERSEDED"),
        Some("4") => Some("REVOCATION_REASON_PRIVILEGE_WITHDRAWN"),
        Some(_) => return Err("revocation_reason: must be 0 to 4".to_owned()),
    };
    let allowed_cidrs = json("allowed_cidrs", row.allowed_cidrs.as_deref())?;
    let key = ListedKey {
        key_id: &row.key_id,
        name: row.name.as_deref(),
        actor_id: row.actor_id.as_deref(),
        scopes: json("scopes", row.scopes.as_deref())?,
        metadata: json("metadata", row.metadata.as_deref())?,
        status,
        visibility,
        ip_restriction: allowed_cidrs.map(|allowed_cidrs| IpRestriction { allowed_cidrs }),
        rate_limit_policy: rate_limit_policy(row),
        create_time: row.created_at.as_deref(),
        update_time: row.updated_at.as_deref(),
        expire_time: row.expires_at.as_deref(),
        last_used_time: row.last_used_at.as_deref(),
        revocation_reason,
        revocation_description: row.revocation_reason_text.as_deref(),
    };
    serde_json::to_string(&key).map_err(|error| error.to_string())
}

/// Returns the JSON of a column; none for NULL and null.
fn json<'r>(column: &str, text: Option<&'r str>) -> Result<Option<&'r RawValue>, String> {
    let Some(text) = text else { return Ok(None) };
    let value: &RawValue = serde_json::from_str(text).map_err(|_| format!("{column}: isn't JSON"))?;
    Ok((value.get() != "null").then_some(value))
}

/// Returns the rate limit; none where both of its columns are unset.
fn rate_limit_policy(row: &OryRow) -> Option<RateLimitPolicy<'_>> {
    let set = |text: &Option<String>| text.as_deref().is_some_and(|text| text != "0");
    (set(&row.rate_limit_quota) || set(&row.rate_limit_window)).then(|| RateLimitPolicy {
        quota: row.rate_limit_quota.as_deref(),
        window: row.rate_limit_window.as_deref().map(|seconds| format!("{seconds}s")),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::clock::Timestamp;
    use crate::http::listed_key as parse_listed;
    use crate::key::{Key, KeyKind, NetworkId, RevocationReason, Status};

    const ID: &str = "b2a748d2-4516-456f-8781-314b6a4507d0";

    fn now() -> Timestamp {
        Timestamp::from_rfc3339("2026-06-01T00:00:00Z").unwrap()
    }

    fn row() -> OryRow {
        let text = |text: &str| Some(text.to_owned());
        OryRow {
            key_id: ID.to_owned(),
            name: text("n"),
            actor_id: text("a"),
            scopes: text("[]"),
            status: text("1"),
            created_at: text("2026-01-01T00:00:00Z"),
            ..OryRow::default()
        }
    }

    fn key(row: &OryRow) -> Result<Key, String> {
        let json = listed_key(row)?;
        parse_listed(NetworkId::SINGLE, Some(KeyKind::Issued), &json, now())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_column_is_kept() {
        let text = |text: &str| Some(text.to_owned());
        let key = key(&OryRow {
            scopes: text(r#"["b", "a"]"#),
            metadata: text(r#"{"z": 1, "a": [null, 2.50]}"#),
            visibility: text("2"),
            allowed_cidrs: text(r#"["10.0.0.0/8"]"#),
            rate_limit_quota: text("5"),
            rate_limit_window: text("60"),
            status: text("2"),
            revocation_reason: text("4"),
            revocation_reason_text: text("left"),
            updated_at: text("2026-02-01T00:00:00.123456Z"),
            expires_at: text("2027-01-01T00:00:00Z"),
            last_used_at: text("2026-03-01T00:00:00Z"),
            ..row()
        })
        .unwrap();
        assert_eq!((key.id.to_string(), key.scopes.to_string()), (ID.to_owned(), "b a".to_owned()));
        let metadata: Value = serde_json::from_str(key.metadata.as_ref().unwrap().json()).unwrap();
        assert_eq!(metadata, serde_json::json!({ "z": 1, "a": [null, 2.5] }));
        assert_eq!(key.visibility.claim(), "public");
        assert_eq!(key.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8"]);
        let policy = key.rate_policy.unwrap();
        assert_eq!((policy.quota, policy.window.as_secs()), (5, 60));
        let revocation = key.revocation.as_ref().unwrap();
        assert_eq!(revocation.reason, RevocationReason::PrivilegeWithdrawn);
        assert_eq!(revocation.description.as_deref(), Some("left"));
        assert_eq!(key.updated.to_rfc3339(), "2026-02-01T00:00:00.123456Z");
        assert_eq!(key.expires.unwrap().to_rfc3339(), "2027-01-01T00:00:00Z");
        assert_eq!(key.last_used.unwrap().to_rfc3339(), "2026-03-01T00:00:00Z");
    }

    #[test]
    fn unset_columns_are_no_fields() {
        let text = |text: &str| Some(text.to_owned());
        let unset = key(&row()).unwrap();
        let zero = key(&OryRow {
            metadata: text("null"),
            visibility: text("0"),
            allowed_cidrs: text("null"),
            rate_limit_quota: text("0"),
            rate_limit_window: text("0"),
            revocation_reason: text("0"),
            revocation_reason_text: text(""),
            ..row()
        })
        .unwrap();
        assert_eq!(unset.differences(&zero), Vec::<&str>::new());
        assert_eq!((unset.status(now()), unset.rate_policy.is_none()), (Status::Active, true));
        let expired = OryRow { status: text("3"), expires_at: text("2026-05-01T00:00:00Z"), ..row() };
        assert_eq!(key(&expired).unwrap().status(now()), Status::Expired);
    }

    #[test]
    fn a_bad_column_is_named_without_its_value() {
        let bad = || Some("s3cret".to_owned());
        for (row, start) in [
            (OryRow { status: Some("0".to_owned()), ..row() }, "status: "),
            (OryRow { status: None, ..row() }, "status: "),
            (OryRow { visibility: bad(), ..row() }, "visibility: "),
            (OryRow { revocation_reason: bad(), ..row() }, "revocation_reason: "),
            (OryRow { scopes: bad(), ..row() }, "scopes: isn't JSON"),
            (OryRow { metadata: bad(), ..row() }, "metadata: isn't JSON"),
            (OryRow { allowed_cidrs: bad(), ..row() }, "allowed_cidrs: isn't JSON"),
        ] {
            let problem = listed_key(&row).unwrap_err();
            assert!(problem.starts_with(start) && !problem.contains("s3cret"), "{start}: {problem}");
        }
        for row in [
            OryRow { expires_at: bad(), ..row() },
            OryRow { rate_limit_quota: Some("5".to_owned()), ..row() },
            OryRow { allowed_cidrs: Some("[\"s3cret\"]".to_owned()), ..row() },
            OryRow { status: Some("3".to_owned()), ..row() },
        ] {
            let problem = key(&row).unwrap_err();
            assert!(!problem.contains("s3cret"), "{problem}");
        }
    }
}
