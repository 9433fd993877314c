//! Deletion of imported keys.

use super::{Acknowledged, Service, no_such_key, unavailable};
use crate::audit::Call;
use crate::error::ApiError;
use crate::event::{Event, Occurrence};
use crate::key::{KeyId, KeyKind, NetworkId};

impl Service {
    /// Deletes an imported key and all its data. The same key may be imported again afterwards.
    ///
    /// # Errors
    /// Fails if there is no such key, or the database fails.
    pub async fn delete_imported(
        &self,
        network: NetworkId,
        id: &str,
        call: &Call,
    ) -> Result<Acknowledged<()>, ApiError> {
        let id = KeyId::parse(KeyKind::Imported, id).ok_or_else(no_such_key)?;
        call.record_intent(network, vec![id]).await?;
        match self.store.delete_key(network, id, self.clock.now()).await {
            Ok(Some(mutation)) => {
                self.publish(&[mutation]).await;
                call.record_event(Occurrence::new(Event::ImportedKeyDeleted, network).of_id(id));
                Ok(Acknowledged { value: (), epoch: Some(mutation.n) })
            }
            Ok(None) => Err(no_such_key()),
            Err(error) => {
                self.freshness.invalidate_unknown(network, id);
                Err(unavailable(error))
            }
        }
    }
}
