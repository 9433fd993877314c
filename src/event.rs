//! Events of the audit log: one closed table.

use serde_json::{Map, Value};

use crate::key::{Key, KeyId, KeyKind, NetworkId, Visibility};

/// Member of an event: the id that the key had while only a hash of it was known.
pub const IMPORTED_AS: &str = "ImportedAs";

/// Operation that a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Operation {
    Issue,
    Import,
    ImportBatch,
    Update,
    Rotate,
    Revoke,
    Delete,
    DeleteActor,
    Suspend,
    Resume,
    Finish,
    UpdateActor,
    SuspendActor,
    ResumeActor,
    SelfRevoke,
    Derive,
    /// Changes nothing: only failures are recorded.
    Verify,
    /// A Check of Envoy. Only failures are recorded.
    Check,
}

impl Operation {
    /// Name in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::Import => "import",
            Self::ImportBatch => "import_batch",
            Self::Update => "update",
            Self::Rotate => "rotate",
            Self::Revoke => "revoke",
            Self::Delete => "delete",
            Self::DeleteActor => "delete_actor",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Finish => "finish",
            Self::UpdateActor => "update_actor",
            Self::SuspendActor => "suspend_actor",
            Self::ResumeActor => "resume_actor",
            Self::SelfRevoke => "self_revoke",
            Self::Derive => "derive",
            Self::Verify => "verify",
            Self::Check => "check",
        }
    }
}

/// Event that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Event {
    IssuedKeyCreated,
    IssuedKeyUpdated,
    IssuedKeyRevoked,
    IssuedKeyRotated,
    IssuedKeyDeleted,
    ImportedKeyCreated,
    ImportedKeyUpdated,
    ImportedKeyRevoked,
    ImportedKeyDeleted,
    ImportFailed,
    DerivedToken,
    VerificationFailed,
    /// A retried request got the secret of its key again.
    IssuedKeySecretRepeated,
    IssuedKeySuspended,
    IssuedKeyResumed,
    ImportedKeySuspended,
    ImportedKeyResumed,
    ActorUpdated,
    ActorSuspended,
    ActorResumed,
    /// The row of an actor is erased.
    ActorDeleted,
}

impl Event {
    /// Name in the audit log, which existing tools know.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IssuedKeyCreated => "IssuedAPIKeyCreated",
            Self::IssuedKeyUpdated => "IssuedAPIKeyUpdated",
            Self::IssuedKeyRevoked => "IssuedAPIKeyRevoked",
            Self::IssuedKeyRotated => "IssuedAPIKeyRotated",
            Self::IssuedKeyDeleted => "IssuedAPIKeyDeleted",
            Self::ImportedKeyCreated => "ImportedAPIKeyCreated",
            Self::ImportedKeyUpdated => "ImportedAPIKeyUpdated",
            Self::ImportedKeyRevoked => "ImportedAPIKeyRevoked",
            Self::ImportedKeyDeleted => "ImportedAPIKeyDeleted",
            Self::ImportFailed => "APIKeyImportFailed",
            Self::DerivedToken => "APIKeyDerivedToken",
            Self::VerificationFailed => "APIKeyVerificationFailed",
            Self::IssuedKeySecretRepeated => "IssuedAPIKeySecretRepeated",
            Self::IssuedKeySuspended => "IssuedAPIKeySuspended",
            Self::IssuedKeyResumed => "IssuedAPIKeyResumed",
            Self::ImportedKeySuspended => "ImportedAPIKeySuspended",
            Self::ImportedKeyResumed => "ImportedAPIKeyResumed",
            Self::ActorUpdated => "ActorUpdated",
            Self::ActorSuspended => "ActorSuspended",
            Self::ActorResumed => "ActorResumed",
            Self::ActorDeleted => "ActorDeleted",
        }
    }

    /// The event of a new key.
    pub const fn created(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Issued => Self::IssuedKeyCreated,
            KeyKind::Imported => Self::ImportedKeyCreated,
        }
    }

    /// The event of a changed key.
    pub const fn updated(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Issued => Self::IssuedKeyUpdated,
            KeyKind::Imported => Self::ImportedKeyUpdated,
        }
    }

    /// The event of a deleted key.
    pub const fn deleted(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Issued => Self::IssuedKeyDeleted,
            KeyKind::Imported => Self::ImportedKeyDeleted,
        }
    }

    /// The event of a suspended key.
    pub const fn suspended(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Issued => Self::IssuedKeySuspended,
            KeyKind::Imported => Self::ImportedKeySuspended,
        }
    }

    /// The event of a resumed key.
    pub const fn resumed(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Issued => Self::IssuedKeyResumed,
            KeyKind::Imported => Self::ImportedKeyResumed,
        }
    }

    /// The event of a revoked key.
    pub const fn revoked(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Issued => Self::IssuedKeyRevoked,
            KeyKind::Imported => Self::ImportedKeyRevoked,
        }
    }
}

/// An event with its attributes.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurrence {
    /// The event.
    pub event: Event,
    attributes: Vec<(&'static str, Value)>,
}

impl Occurrence {
    /// An event in a network.
    pub fn new(event: Event, network: NetworkId) -> Self {
        Self { event, attributes: vec![("ProjectID", network.to_string().into())] }
    }

    /// An event of a key. The key's own metadata belongs to its owner and stays out of events:
    /// `metadata.*` is the context of the event.
    pub fn of_key(event: Event, key: &Key) -> Self {
        let expiry = key.ends().map(crate::clock::Timestamp::to_rfc3339);
        let reason = key.revocation.as_ref().filter(|_| {
            matches!(event, Event::IssuedKeyRevoked | Event::ImportedKeyRevoked | Event::IssuedKeyRotated)
        });
        let suspension = key.suspensions.own.as_ref();
        let suspension = suspension.filter(|_| event == Event::suspended(key.id.kind()));
        let until = suspension.and_then(|one| one.until).map(crate::clock::Timestamp::to_rfc3339);
        let imported_as = key.provenance.replaces.filter(|_| key.id.kind() == KeyKind::Imported);
        Self::new(event, key.network)
            .of_id(key.id)
            .with("Reason", reason.map(|revocation| revocation.reason.name()))
            .with("ActorID", Some(key.actor.as_str()))
            .with("Expiry", expiry)
            .with("Visibility", Some(visibility(key.visibility)))
            .with("Until", until)
            .with(IMPORTED_AS, imported_as.map(|id| id.to_string()))
    }

    /// Adds the id and the kind of a key.
    #[must_use]
    pub fn of_id(self, id: KeyId) -> Self {
        let kind = match id.kind() {
            KeyKind::Issued => "issued",
            KeyKind::Imported => "imported",
        };
        self.with("APIKeyID", Some(id.to_string())).with("KeyType", Some(kind))
    }

    /// Adds an attribute, if its value is known.
    #[must_use]
    pub fn with<T: Into<Value>>(mut self, name: &'static str, value: Option<T>) -> Self {
        self.attributes.extend(value.map(|value| (name, value.into())));
        self
    }

    /// Attributes by name.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.attributes.iter().map(|(name, value)| (*name, value))
    }

    /// JSON object with `event` first.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("event".to_owned(), self.event.name().into());
        object.extend(self.attributes().map(|(name, value)| (name.to_owned(), value.clone())));
        Value::Object(object)
    }
}

const fn visibility(visibility: Visibility) -> &'static str {
    match visibility {
        Visibility::Secret => "secret",
        Visibility::Public => "public",
    }
}
