//! Reading of the changes that an audit log records, and what a database lacks of them.
//!
//! A database that was restored from a backup has lost what was changed since. The log has not.

use std::collections::HashMap;

use serde_json::Value;

use super::actor_changes::find_lacking_of_actors;
use super::merge::merge;
use super::recorded::UPDATED_AT;
pub use super::recorded::{ChangeKind, Difference, RecordedChange, Subject};
use crate::clock::Timestamp;
use crate::event::{Event, IMPORTED_AS};
use crate::key::{ActorId, Key, KeyId, KeyKind, NetworkId, RevocationReason};
use crate::store::{Store, StoreError};

/// Member of a line: time by which the clock that dated it was ahead of the database's, if it was
/// off; negative if it was behind.
pub const CLOCK_AHEAD_SECONDS: &str = "clock_ahead_seconds";
/// Keys that are compared by one call of the store.
const BATCH_SIZE: usize = 1_000;

/// Reads the changes of an outcome: those that it made, whatever failed after them, and those that
/// it found done. `began` is the time of its intent.
pub fn changes_of(outcome: &Value, line: u64, began: Option<Timestamp>) -> Vec<RecordedChange> {
    let Some(at) = outcome["time"].as_str().and_then(Timestamp::from_rfc3339) else {
        return vec![];
    };
    // By the database's clock, so that several logs can be put in order.
    let ahead = outcome[CLOCK_AHEAD_SECONDS].as_i64().unwrap_or(0).saturating_mul(1_000_000);
    let corrected = |time: Timestamp| Timestamp::from_micros(time.as_micros().saturating_sub(ahead));
    let (began, at) = (corrected(began.unwrap_or(at)), corrected(at));
    let mut changes = vec![];
    for (member, is_confirmed) in [("events", false), ("confirmed", true)] {
        for event in outcome[member].as_array().into_iter().flatten() {
            let text = |member: &str| event[member].as_str().unwrap_or_default();
            let Some(network) = NetworkId::parse(text("ProjectID")) else { continue };
            let imported_as = KeyId::parse(KeyKind::Imported, text(IMPORTED_AS));
            // As the row has it.
            let began = Timestamp::from_rfc3339(text(UPDATED_AT)).unwrap_or(began);
            changes.extend(changes_in(event).into_iter().map(|(subject, kind)| RecordedChange {
                network,
                subject,
                imported_as,
                kind,
                began,
                at,
                line,
                is_confirmed,
            }));
        }
    }
    changes
}

/// Returns the changes that an event is.
fn changes_in(event: &Value) -> Vec<(Subject, ChangeKind)> {
    let text = |member: &str| event[member].as_str().unwrap_or_default();
    let time = |member: &str| Timestamp::from_rfc3339(text(member));
    let of_key = |member: &str, kind: ChangeKind| {
        KeyId::parse_any(text(member)).map(|key| (Subject::Key(key), kind)).into_iter()
    };
    let kind = match text("event") {
        name if name == Event::IssuedKeyRotated.name() => {
            let old = of_key("RotatedFrom", ChangeKind::Superseded(time("OldKeyExpiry")));
            return old.chain(of_key("APIKeyID", ChangeKind::Created)).collect();
        }
        name if is_one_of(name, Event::revoked) => {
            let reason = RevocationReason::from_name(text("Reason"));
            ChangeKind::Revoked(reason.unwrap_or(RevocationReason::Unspecified))
        }
        name if is_one_of(name, Event::updated) => ChangeKind::Updated,
        name if is_one_of(name, Event::suspended) => ChangeKind::Suspended(time("Until")),
        name if is_one_of(name, Event::resumed) => ChangeKind::Resumed,
        name if is_one_of(name, Event::created) => ChangeKind::Created,
        // Deletions of either kind of key. `KeyErased` is no event so far.
        name if name.starts_with("I") && (name.ends_with("KeyDeleted") || name.ends_with("KeyErased")) => {
            ChangeKind::Deleted
        }
        name => return change_of_actor(name, text("ActorID"), time("Until")).into_iter().collect(),
    };
    of_key("APIKeyID", kind).collect()
}

/// Returns the change of an actor that an event is, if it is one that counts.
fn change_of_actor(name: &str, id: &str, until: Option<Timestamp>) -> Option<(Subject, ChangeKind)> {
    if name == Event::ActorDeleted.name() {
        return Some((Subject::ErasedActor, ChangeKind::Deleted));
    }
    let kind = match name {
        name if name == Event::ActorSuspended.name() => ChangeKind::Suspended(until),
        name if name == Event::ActorResumed.name() => ChangeKind::Resumed,
        _ => return None,
    };
    Some((Subject::Actor(ActorId::from_stored(id).ok()?), kind))
}

/// Returns true if a name is that of an event of either kind of key.
fn is_one_of(name: &str, event: fn(KeyKind) -> Event) -> bool {
    [KeyKind::Issued, KeyKind::Imported].iter().any(|kind| event(*kind).name() == name)
}

/// Changes of one key that count in the end.
#[derive(Debug, Default)]
struct History {
    created: Option<RecordedChange>,
    updated: Option<RecordedChange>,
    /// Suspension, or its end.
    suspended: Option<RecordedChange>,
    /// Revocation, rotation or deletion.
    ended: Option<RecordedChange>,
}

impl History {
    /// Adds the next change.
    fn add(&mut self, change: RecordedChange) {
        // A key that was found after its deletion was made again. A call that began before may have
        // found it before.
        let is_new = |ended: &RecordedChange| ended.kind == ChangeKind::Deleted && change.began > ended.at;
        let is_found = change.is_confirmed && !self.ended.as_ref().is_some_and(is_new);
        match (change.kind, self.ended.as_ref().map(|ended| ended.kind)) {
            // What happened to it since stays so.
            (ChangeKind::Created, _) if is_found => {
                self.created.get_or_insert(change);
            }
            // A key may be imported again.
            (ChangeKind::Created, _) => {
                *self = Self { created: Some(change), ..Self::default() };
            }
            (ChangeKind::Updated, _) => self.updated = Some(change),
            (ChangeKind::Suspended(_) | ChangeKind::Resumed, _) => self.suspended = Some(change),
            // After a revocation only a deletion counts.
            (ChangeKind::Superseded(_), Some(ChangeKind::Revoked(_))) => {}
            (_, Some(ChangeKind::Deleted)) => {}
            _ => self.ended = Some(change),
        }
    }

    /// Returns what the database lacks at `now`, which has this row for the key.
    fn difference(self, row: Option<&Key>, now: Timestamp) -> Option<Difference> {
        let created = self.created.as_ref().filter(|created| !created.is_confirmed).map(|created| created.at);
        let (lacking, is_lost) = match (self.ended, row) {
            (None, None) => (self.created.filter(|_| row.is_none())?, true),
            (Some(_), None) => return None,
            // Imported again since, which another log may record. A row of the import that this log
            // has before the end is another matter, whatever the clock said later.
            (Some(ended), Some(row))
                if row.id.kind() == KeyKind::Imported
                    && row.created > ended.at
                    && created.is_none_or(|created| row.created > created) =>
            {
                return None;
            }
            (Some(ended), Some(row)) => {
                let is_lacking = match ended.kind {
                    ChangeKind::Deleted => true,
                    ChangeKind::Superseded(Some(until)) => {
                        row.revocation.is_none() && row.superseded.is_none_or(|end| end > until)
                    }
                    _ => row.revocation.is_none(),
                };
                (Some(ended).filter(|_| is_lacking)?, false)
            }
            (None, Some(row)) => {
                let suspended =
                    self.suspended.filter(|change| change.is_lacking(row.suspensions.own.as_deref(), now));
                let updated = self.updated.filter(|updated| row.updated < updated.began);
                (suspended.or(updated)?, false)
            }
        };
        Some(Difference { change: lacking, is_lost })
    }
}

/// Returns what the database lacks at `now` of the changes of these logs, in the order of time.
///
/// # Errors
/// When the database fails.
pub async fn find_lacking(
    store: &Store,
    logs: Vec<Vec<RecordedChange>>,
    now: Timestamp,
) -> Result<Vec<Difference>, StoreError> {
    let mut changes = merge(logs);
    use_current_ids(store, &mut changes).await?;
    let mut histories: HashMap<(NetworkId, KeyId), History> = HashMap::new();
    let mut of_actors = vec![];
    for change in changes {
        match change.key() {
            Some(key) => histories.entry((change.network, key)).or_default().add(change),
            None => of_actors.push(change),
        }
    }
    let mut lacking = find_lacking_of_actors(store, of_actors, now).await?;
    let mut histories: Vec<_> = histories.into_iter().collect();
    while !histories.is_empty() {
        let batch = histories.split_off(histories.len().saturating_sub(BATCH_SIZE));
        let ids = batch.iter().map(|(id, _)| *id).collect();
        let rows = store.find_rows(ids).await?;
        let rows: HashMap<_, _> = rows.iter().map(|row| ((row.network, row.id), row)).collect();
        let differences =
            batch.into_iter().filter_map(|(id, history)| history.difference(rows.get(&id).copied(), now));
        lacking.extend(differences);
    }
    lacking.sort_by_key(|difference| (difference.change.at, difference.change.line));
    Ok(lacking)
}

/// Gives changes of a key whose hash was imported the id that it has in the database: the new one,
/// or again the earlier one, if the database was restored to a time before its first use.
async fn use_current_ids(store: &Store, changes: &mut [RecordedChange]) -> Result<(), StoreError> {
    let mut missing: HashMap<(NetworkId, KeyId), Option<KeyId>> = HashMap::new();
    for change in changes.iter() {
        if let Some(key) = change.key().filter(|key| key.kind() == KeyKind::Imported) {
            let imported_as = missing.entry((change.network, key)).or_default();
            *imported_as = imported_as.or(change.imported_as);
        }
    }
    let ids: Vec<_> = missing.keys().copied().collect();
    for batch in ids.chunks(BATCH_SIZE) {
        for row in store.find_rows(batch.to_vec()).await? {
            missing.remove(&(row.network, row.id));
        }
    }
    let mut current = HashMap::new();
    for ((network, key), imported_as) in missing {
        for id in [Some(key), imported_as].into_iter().flatten() {
            if let Some(found) = store.current_id(network, id).await? {
                current.insert((network, key), found);
                break;
            }
        }
    }
    for change in changes {
        if let Some(found) = change.key().and_then(|key| current.get(&(change.network, key))) {
            change.subject = Subject::Key(*found);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ISSUED: &str = "5b8a31f2-97d5-4c3b-8a67-111111111111";
    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const NEW: &str = "5b8a31f2-97d5-4c3b-8a67-222222222222";

    fn outcome(second: u8, event: Value) -> Vec<RecordedChange> {
        let time = format!("2026-01-01T00:00:{second:02}Z");
        let outcome = json!({ "time": time, "events": [event] });
        changes_of(&outcome, u64::from(second), None)
    }

    fn event(name: &str, id: &str) -> Value {
        json!({ "event": name, "ProjectID": NetworkId::SINGLE.to_string(), "APIKeyID": id })
    }

    #[test]
    fn events_are_changes() {
        let revoked = outcome(1, event("IssuedAPIKeyRevoked", ISSUED));
        assert_eq!(revoked[0].kind, ChangeKind::Revoked(RevocationReason::Unspecified));
        let mut rotated = event("IssuedAPIKeyRotated", NEW);
        rotated["RotatedFrom"] = ISSUED.into();
        let kinds: Vec<_> = outcome(2, rotated.clone()).iter().map(|change| change.kind).collect();
        assert_eq!(kinds, [ChangeKind::Superseded(None), ChangeKind::Created]);
        rotated["OldKeyExpiry"] = "2026-02-01T00:00:00Z".into();
        let until = Timestamp::from_rfc3339("2026-02-01T00:00:00Z");
        assert_eq!(outcome(2, rotated)[0].kind, ChangeKind::Superseded(until));
        for name in ["ImportedAPIKeyDeleted", "IssuedAPIKeyDeleted", "IssuedAPIKeyErased"] {
            assert_eq!(outcome(3, event(name, ISSUED))[0].kind, ChangeKind::Deleted, "{name}");
        }
        let mut suspended = event("ImportedAPIKeySuspended", ISSUED);
        assert_eq!(outcome(3, suspended.clone())[0].kind, ChangeKind::Suspended(None));
        suspended["Until"] = "2026-02-01T00:00:00Z".into();
        assert_eq!(outcome(3, suspended)[0].kind, ChangeKind::Suspended(until));
        assert_eq!(outcome(3, event("IssuedAPIKeyResumed", ISSUED))[0].kind, ChangeKind::Resumed);
        let mut of_actor = event("ActorSuspended", "");
        assert_eq!(outcome(3, of_actor.clone()), [], "no actor");
        of_actor["ActorID"] = "user:1".into();
        let change = outcome(3, of_actor).remove(0);
        assert_eq!((change.subject.to_string(), change.kind), ("user:1".into(), ChangeKind::Suspended(None)));
        for name in ["APIKeyDerivedToken", "APIKeyVerificationFailed", "APIKeyImportFailed"] {
            assert_eq!(outcome(3, event(name, ISSUED)), [], "{name}");
        }
        assert_eq!(outcome(3, event("IssuedAPIKeyRevoked", "no id")), []);
    }

    #[test]
    fn times_are_those_of_the_database() {
        let event = event("IssuedAPIKeyRevoked", ISSUED);
        let outcome =
            json!({ "time": "2031-01-01T00:00:00Z", CLOCK_AHEAD_SECONDS: 86_400, "events": [event] });
        let change = changes_of(&outcome, 1, None).remove(0);
        assert_eq!(change.at.to_rfc3339(), "2030-12-31T00:00:00Z");
        assert_eq!(change.began, change.at);
    }

    #[test]
    fn the_last_change_of_a_key_counts() {
        let history = |names: &[&str]| {
            let mut history = History::default();
            for (second, name) in (1..).zip(names) {
                outcome(second, event(name, ISSUED)).into_iter().for_each(|change| history.add(change));
            }
            history
        };
        let revoked_then_updated = history(&["IssuedAPIKeyRevoked", "IssuedAPIKeyUpdated"]);
        assert!(revoked_then_updated.ended.is_some());
        let again = history(&["ImportedAPIKeyDeleted", "ImportedAPIKeyCreated"]);
        assert!(again.ended.is_none() && again.difference(None, NOW).is_some_and(|lacking| lacking.is_lost));
        let gone = history(&["ImportedAPIKeyRevoked", "ImportedAPIKeyDeleted"]);
        assert_eq!(gone.ended.as_ref().map(|change| change.kind), Some(ChangeKind::Deleted));
        assert_eq!(gone.difference(None, NOW), None, "what is not there is deleted");
    }

    #[test]
    fn what_a_call_found_done_is_a_change() {
        let confirmed = |second: u8, event: Value| {
            let time = format!("2026-01-01T00:00:{second:02}Z");
            changes_of(&json!({ "time": time, "confirmed": [event] }), u64::from(second), None)
        };
        let revoked = confirmed(1, event("IssuedAPIKeyRevoked", ISSUED)).remove(0);
        assert!(revoked.is_confirmed && revoked.key().is_some());
        assert!(!outcome(1, event("IssuedAPIKeyRevoked", ISSUED)).remove(0).is_confirmed);
        let mut updated = event("IssuedAPIKeyUpdated", ISSUED);
        updated[UPDATED_AT] = "2025-12-31T00:00:00Z".into();
        assert_eq!(confirmed(1, updated)[0].began.to_rfc3339(), "2025-12-31T00:00:00Z");

        // A key that is found is not a new one, unless it was deleted before.
        let found = confirmed(2, event("ImportedAPIKeyCreated", ISSUED)).remove(0);
        let before = RecordedChange { began: Timestamp::from_secs(0), ..found.clone() };
        for (earlier, found, is_ended) in [
            ("ImportedAPIKeyRevoked", &found, true),
            ("ImportedAPIKeyDeleted", &found, false),
            ("ImportedAPIKeyDeleted", &before, true),
        ] {
            let mut history = History::default();
            outcome(1, event(earlier, ISSUED)).into_iter().for_each(|change| history.add(change));
            history.add(found.clone());
            assert_eq!(history.ended.is_some(), is_ended, "{earlier}");
            assert!(history.created.is_some());
        }
    }

    #[test]
    fn a_clock_that_is_set_back_hides_no_revocation() {
        let on_line = |line, mut changes: Vec<RecordedChange>| {
            changes.iter_mut().for_each(|change| change.line = line);
            changes
        };
        let created = on_line(2, outcome(40, event("ImportedAPIKeyCreated", ISSUED)));
        let revoked = on_line(4, outcome(10, event("ImportedAPIKeyRevoked", ISSUED)));
        let mut history = History::default();
        merge(vec![[created, revoked].concat()]).into_iter().for_each(|change| history.add(change));
        assert!(history.created.is_some());
        assert_eq!(history.ended.map(|ended| ended.line), Some(4));
    }
}
