//! Changes that a call finds done already, as when the response to an earlier call was lost and its
//! caller repeats it.
//!
//! The call is answered as if it had made them, so its line has them, too: no other line may, and a
//! database that is restored from a backup lacks them. They are no events, as nothing happened.

use super::Call;
use super::recorded::UPDATED_AT;
use crate::event::{Event, Occurrence};
use crate::key::{Actor, Key, KeyId, NetworkId};

impl Call {
    /// Records that a key has the state that `event` leads to.
    pub fn confirm_key(&self, event: Event, key: &Key) {
        let is_update = event == Event::updated(key.id.kind());
        let updated = is_update.then(|| key.updated.to_rfc3339());
        self.confirm(Occurrence::of_key(event, key).with(UPDATED_AT, updated));
    }

    /// Records that a key is revoked, or ends because it was rotated.
    pub fn confirm_end(&self, key: &Key) {
        if key.revocation.is_some() {
            self.confirm_key(Event::revoked(key.id.kind()), key);
        } else if let Some(end) = key.superseded {
            let rotated = Occurrence::new(Event::IssuedKeyRotated, key.network);
            let rotated = match key.provenance.replaced_by {
                Some(successor) => rotated.of_id(successor),
                None => rotated,
            };
            let rotated = rotated.with("RotatedFrom", Some(key.id.to_string()));
            self.confirm(rotated.with("OldKeyExpiry", Some(end.to_rfc3339())));
        }
    }

    /// Records that the key of an id has the state that `event` leads to.
    pub fn confirm_id(&self, event: Event, network: NetworkId, id: KeyId) {
        self.confirm(Occurrence::new(event, network).of_id(id));
    }

    /// Records that an actor is suspended, or isn't.
    pub fn confirm_actor(&self, event: Event, actor: &Actor) {
        let suspension = actor.suspension.as_ref().filter(|_| event == Event::ActorSuspended);
        let until = suspension.and_then(|one| one.until).map(crate::clock::Timestamp::to_rfc3339);
        let occurrence = Occurrence::new(event, actor.network).with("ActorID", Some(actor.id.as_str()));
        self.confirm(occurrence.with("Until", until));
    }
}
