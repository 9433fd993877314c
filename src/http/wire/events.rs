//! Events of the mutation log, as CloudEvents 1.0.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::query::{page_size, parameters};
use super::state::set_time;
use crate::duration;
use crate::error::ApiError;
use crate::key::{ChangeKind, ChangeRecord, FieldChange, KeyId, KeyKind, NetworkId};
use crate::service::{EventFilter, EventKind, FeedPosition, FeedStart, FollowRequest, Followed, LoggedEvent};

/// Events after a place in the mutation log.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ListEventsResponse")]
pub(crate) struct EventsOut {
    /// Events in the order of the log; none if there was none in time.
    events: Vec<EventOut>,
    /// Place up to which the log was read: the next `after`.
    next: String,
    /// Number of that place.
    epoch: u64,
    /// True if the log goes on after it.
    has_more: bool,
}

/// A change of a key or an actor (CloudEvents 1.0, structured).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Event")]
pub(crate) struct EventOut {
    /// Always `1.0`.
    specversion: &'static str,
    /// Id of the event, unique for its source, and a place to go on after.
    id: String,
    /// Network: `urn:talos:network:` and its id.
    source: String,
    /// Kind of event: `talos.key.issued`, `talos.actor.suspended` and so on; `talos.key.changed` or
    /// `talos.actor.changed` if nothing is known of it but the subject.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Id of the key or actor; absent for an erased actor.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// Time of the change.
    #[schemars(extend("format" = "date-time"))]
    time: String,
    /// Always `application/json`.
    datacontenttype: &'static str,
    data: EventDataOut,
}

/// The change.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventData")]
pub(crate) struct EventDataOut {
    /// Number of the change in the log.
    epoch: u64,
    /// Operation, as in the audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'static str>,
    /// Id of the changed key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    /// `issued` or `imported`.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_type: Option<&'static str>,
    /// Actor of the key, or the changed actor.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_id: Option<String>,
    /// Verified caller; absent if nothing proved who it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    /// Key that replaces the rotated one.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<String>,
    /// Fields that differ.
    changes: Vec<FieldChangeOut>,
    /// True if the values were left out, as they were too long.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(with = "bool")]
    values_left_out: bool,
    /// True if the key or actor was erased since, with what the event said of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(with = "bool")]
    erased: bool,
}

/// Difference of a field. A value that is absent is unset, or isn't told (`metadata`).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "FieldChange")]
pub(crate) struct FieldChangeOut {
    /// Name of the field.
    field: String,
    /// Value before the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Value")]
    before: Option<Value>,
    /// Value after the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Value")]
    after: Option<Value>,
}

impl EventsOut {
    /// Returns events of a network.
    pub(crate) fn new(followed: Followed, network: NetworkId) -> Self {
        let Followed { events, next, has_more } = followed;
        Self {
            events: events.into_iter().map(|event| EventOut::new(event, network)).collect(),
            next: place(next),
            epoch: next.n,
            has_more,
        }
    }

    /// Returns the events alone: a batch of CloudEvents.
    pub(crate) fn batch(&self) -> &[EventOut] {
        &self.events
    }

    /// Returns the place to go on from.
    pub(crate) fn next(&self) -> &str {
        &self.next
    }

    /// Returns the number of that place.
    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl EventOut {
    fn new(event: LoggedEvent, network: NetworkId) -> Self {
        let kind = type_of(EventKind::of(&event));
        let LoggedEvent { position, at, key_id, actor, record } = event;
        let record = record.unwrap_or_default();
        let ChangeRecord { kind: operation, actor: actor_of_key, caller, replaced_by, changes, .. } = record;
        let key_type = key_id.map(|id| match id.kind() {
            KeyKind::Issued => "issued",
            KeyKind::Imported => "imported",
        });
        let key_id = key_id.as_ref().map(KeyId::to_string);
        Self {
            specversion: "1.0",
            id: place(position),
            source: format!("urn:talos:network:{network}"),
            kind,
            subject: key_id.clone().or_else(|| actor.clone()),
            time: at.to_rfc3339(),
            datacontenttype: "application/json",
            data: EventDataOut {
                epoch: position.n,
                operation: operation.map(ChangeKind::name),
                key_id,
                key_type,
                actor_id: actor_of_key.or(actor),
                caller: caller.map(|caller| caller.to_string()),
                replaced_by,
                changes: changes.into_iter().map(FieldChangeOut::from).collect(),
                values_left_out: record.is_shortened,
                erased: record.is_erased,
            },
        }
    }
}

impl From<FieldChange> for FieldChangeOut {
    fn from(FieldChange { field, before, after }: FieldChange) -> Self {
        Self { field, before, after }
    }
}

const fn type_of(kind: EventKind) -> &'static str {
    let kind = match kind {
        EventKind::Known(kind) => kind,
        EventKind::OfKey => return "talos.key.changed",
        EventKind::OfActor => return "talos.actor.changed",
    };
    match kind {
        ChangeKind::Issue => "talos.key.issued",
        ChangeKind::Import => "talos.key.imported",
        ChangeKind::Update => "talos.key.updated",
        ChangeKind::Rotate => "talos.key.rotated",
        ChangeKind::Revoke => "talos.key.revoked",
        ChangeKind::Suspend => "talos.key.suspended",
        ChangeKind::Resume => "talos.key.resumed",
        ChangeKind::Finish => "talos.key.finished",
        ChangeKind::Upgrade => "talos.key.upgraded",
        ChangeKind::Delete => "talos.key.deleted",
        ChangeKind::UpdateActor => "talos.actor.updated",
        ChangeKind::SuspendActor => "talos.actor.suspended",
        ChangeKind::ResumeActor => "talos.actor.resumed",
        ChangeKind::DeleteActor => "talos.actor.deleted",
    }
}

/// Returns a place in the log as text.
fn place(FeedPosition { n, mark }: FeedPosition) -> String {
    format!("{n}-{mark:016x}")
}

/// Parses `after`: a place, the number of an epoch, `now`, or `oldest`.
fn start(text: &str) -> Result<FeedStart, ApiError> {
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| is_number)
    };
    let mark = |digits: &str| {
        let is_mark = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|_| is_mark)
    };
    let start = match text {
        "" | "oldest" => Some(FeedStart::Oldest),
        "now" => Some(FeedStart::Now),
        _ => match text.split_once('-') {
            None => number(text).map(|n| FeedStart::After(n, None)),
            Some((n, digits)) => number(n).zip(mark(digits)).map(|(n, m)| FeedStart::After(n, Some(m))),
        },
    };
    let problem = "must be the next of an answer, the id of an event, the number of an epoch, now or oldest";
    start.ok_or_else(|| ApiError::field("after", problem))
}

/// Parses the query of a request for events.
pub(crate) fn follow_request(pairs: Vec<(String, String)>) -> Result<FollowRequest, ApiError> {
    let mut request = FollowRequest {
        start: FeedStart::Oldest,
        wait: Default::default(),
        page_size: 0,
        filter: EventFilter::default(),
    };
    let mut has_start = false;
    parameters(pairs, |name, value| {
        match name {
            "after" | "since" if std::mem::replace(&mut has_start, true) => {
                return Err(ApiError::field(
                    name.to_owned(),
                    "may not stand beside the other of after and since",
                ));
            }
            "after" => request.start = start(&value)?,
            "since" => request.start = FeedStart::Since(set_time("since", &value)?),
            "wait" if value.is_empty() => {}
            "wait" => {
                request.wait = duration::parse(&value).map_err(|problem| ApiError::field("wait", problem))?;
            }
            "page_size" => request.page_size = page_size(&value)?,
            "type" => request.filter.kinds = kinds(&value)?,
            "key_id" | "actor_id" if value.is_empty() => {}
            "key_id" => {
                let id = KeyId::parse_any(&value).ok_or_else(|| ApiError::field("key_id", NO_KEY_ID))?;
                request.filter.key_id = Some(id);
            }
            "actor_id" => request.filter.actor = Some(value),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(request)
}

/// Problem of a text that no key has as its id.
const NO_KEY_ID: &str = "must be the id of a key: a UUID, or the 64 hex digits of an imported one";

/// Parses types of events, separated by commas.
fn kinds(text: &str) -> Result<Vec<EventKind>, ApiError> {
    if text.is_empty() {
        return Ok(vec![]);
    }
    let all =
        || ChangeKind::ALL.map(EventKind::Known).into_iter().chain([EventKind::OfKey, EventKind::OfActor]);
    let kind = |name: &str| all().find(|kind| type_of(*kind) == name.trim());
    let kinds: Option<Vec<EventKind>> = text.split(',').map(kind).collect();
    let problem = "must be types of events such as talos.key.revoked, separated by commas";
    kinds.ok_or_else(|| ApiError::field("type", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        for (text, expected) in [
            ("", FeedStart::Oldest),
            ("oldest", FeedStart::Oldest),
            ("now", FeedStart::Now),
            ("0", FeedStart::After(0, None)),
            ("4711", FeedStart::After(4711, None)),
            ("4711-00000000000000ff", FeedStart::After(4711, Some(255))),
        ] {
            assert_eq!(start(text).unwrap(), expected, "{text}");
        }
        assert_eq!(start(&place(FeedPosition { n: 3, mark: 5 })).unwrap(), FeedStart::After(3, Some(5)));
        for bad in ["-1", "+1", "1.0", "x", "1-", "1-ff", "-00000000000000ff", "18446744073709551616", " 1"] {
            assert!(start(bad).unwrap_err().message.starts_with("after: must be"), "{bad}");
        }
    }

    #[test]
    fn each_parameter_is_there_once_and_known() {
        let read = |pairs: &[(&str, &str)]| {
            follow_request(
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            )
        };
        let request = read(&[("after", "7"), ("wait", "30s"), ("page_size", "5")]).unwrap();
        assert_eq!(request.start, FeedStart::After(7, None));
        assert_eq!((request.wait.as_secs(), request.page_size), (30, 5));
        assert!(request.filter.kinds.is_empty());
        let request = read(&[("type", "talos.key.revoked, talos.actor.suspended"), ("key_id", "")]).unwrap();
        let known = [ChangeKind::Revoke, ChangeKind::SuspendActor].map(EventKind::Known);
        assert_eq!(request.filter.kinds, known);
        let request = read(&[("type", "talos.key.changed,talos.actor.changed")]).unwrap();
        assert_eq!(request.filter.kinds, [EventKind::OfKey, EventKind::OfActor]);
        assert_eq!(request.filter.key_id, None);
        for bad in [
            &[("after", "1"), ("after", "1")][..],
            &[("after", "1"), ("since", "2026-01-01T00:00:00Z")],
            &[("since", "yesterday")],
            &[("wait", "30")],
            &[("page_size", "-1")],
            &[("afetr", "1")],
            &[("type", "talos.key.lost")],
            &[("type", ",")],
            &[("key_id", "nonesuch")],
            &[("type", "talos.key.issued"), ("type", "talos.key.revoked")],
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
