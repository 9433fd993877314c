//! Identity behind an accepted credential, as upstream and Envoy's filters see it.

use crate::credential::claims::Authority;
use crate::key::{ActorId, Key, Metadata, NetworkId, Scopes};

/// Holder of a key or of a token derived from it.
pub struct Principal<'a> {
    /// Id of the key, or of the key that the token was derived from.
    pub key_id: String,
    /// Id of the network.
    pub network_id: String,
    /// Actor of the key.
    pub actor: Option<&'a str>,
    /// Scopes of the credential.
    pub scopes: &'a Scopes,
    /// `secret` or `public`.
    pub visibility: &'static str,
    /// Metadata of the key.
    pub metadata: Option<&'a Metadata>,
    /// Key whose rate policies apply. Tokens have no claim for them.
    pub rate_limits_of: Option<&'a Key>,
}

impl<'a> Principal<'a> {
    /// Returns the holder of a key.
    pub fn of_key(key: &'a Key) -> Self {
        Self {
            key_id: key.id.to_string(),
            network_id: key.network.to_string(),
            actor: Some(key.actor.as_str()),
            scopes: &key.scopes,
            visibility: key.visibility.claim(),
            metadata: key.metadata.as_ref(),
            rate_limits_of: Some(key),
        }
    }

    /// Returns the holder of a derived token.
    pub fn of_token(authority: &'a Authority, network: NetworkId) -> Self {
        Self {
            key_id: authority.key_id.clone(),
            network_id: network.to_string(),
            actor: authority.actor.as_ref().map(ActorId::as_str),
            scopes: &authority.scopes,
            visibility: authority.visibility.claim(),
            metadata: authority.metadata.as_ref(),
            rate_limits_of: None,
        }
    }
}
