//! Claims of derived tokens, in either format, and their verification.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::TokenFormat;
use super::caveat::Caveat;
use crate::clock::Timestamp;
use crate::key::verdict::Denial;
use crate::key::{ActorId, AddressList, Key, Metadata, NetworkId, Scope, Scopes, Visibility};

/// Claims that a request can't set. Removed from custom claims.
pub const RESERVED: [&str; 18] = [
    "jti", "sub", "iss", "aud", "iat", "exp", "nbf", "nid", "akid", "pid", "tty", "oid", "act", "scp",
    "scope", "meta", "vis", "acl",
];

/// Subject of a token.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// Id of the parent key.
    pub key_id: String,
    /// Network of the parent key.
    pub network: NetworkId,
    /// Actor.
    pub actor: Option<&'a ActorId>,
    /// Metadata of the parent key.
    pub metadata: Option<&'a Metadata>,
    /// Visibility of the parent key.
    pub visibility: Visibility,
    /// Addresses from which it may be used.
    pub addresses: &'a AddressList,
}

impl<'a> Subject<'a> {
    /// Returns the holder of a key as subject.
    pub fn of_key(key: &'a Key) -> Self {
        Self {
            key_id: key.id.to_string(),
            network: key.network,
            actor: Some(&key.actor),
            metadata: key.metadata.as_ref(),
            visibility: key.visibility,
            addresses: &key.addresses,
        }
    }

    /// Returns the holder of another token, verified for `network`, as subject.
    pub fn of_token(authority: &'a Authority, network: NetworkId) -> Self {
        Self {
            key_id: authority.key_id.clone(),
            network,
            actor: authority.actor.as_ref(),
            metadata: authority.metadata.as_ref(),
            visibility: authority.visibility,
            addresses: &authority.addresses,
        }
    }
}

/// Content of a token, apart from its subject.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    /// Issuer.
    pub issuer: &'a str,
    /// Token id.
    pub id: Uuid,
    /// Start of validity, in whole seconds.
    pub issued_at: Timestamp,
    /// Expiry, in whole seconds.
    pub expires: Timestamp,
    /// Audiences. Any if empty.
    pub audiences: &'a [String],
    /// Scopes.
    pub scopes: &'a Scopes,
    /// Custom claims at top level, without reserved names.
    pub custom: &'a Map<String, Value>,
}

/// Claims, those first that tokens of many keys have in common, of which the cache keeps the
/// encoding once.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    aud: &'a [String],
    nid: String,
    vis: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    acl: Vec<String>,
    scp: Vec<&'a str>,
    jti: String,
    sub: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
    #[serde(flatten)]
    custom: &'a Map<String, Value>,
}

/// Name of the first claim that no other token has, as it stands in [`claims_json`].
pub const FIRST_OWN_CLAIM: &str = r#""jti":"#;

/// Returns the claims of a token as JSON.
#[expect(clippy::expect_used, reason = "texts, numbers and JSON always serialise")]
pub fn claims_json(subject: &Subject<'_>, grant: &Grant<'_>) -> String {
    let claims = Claims {
        iss: grant.issuer,
        aud: grant.audiences,
        nid: subject.network.to_string(),
        vis: subject.visibility.claim(),
        acl: subject.addresses.iter().map(ToString::to_string).collect(),
        scp: grant.scopes.iter().map(Scope::as_str).collect(),
        jti: grant.id.to_string(),
        sub: &subject.key_id,
        iat: grant.issued_at.as_secs(),
        nbf: grant.issued_at.as_secs(),
        exp: grant.expires.as_secs(),
        act: subject.actor.map(ActorId::as_str),
        meta: subject.metadata.map(Metadata::raw),
        custom: grant.custom,
    };
    serde_json::to_string(&claims).expect("claims are texts, numbers and JSON")
}

/// Expectations of a presented token.
#[derive(Debug)]
pub struct Expectation<'a> {
    /// Network of the request.
    pub network: NetworkId,
    /// Time of the request.
    pub now: Timestamp,
    /// Tolerated clock skew, for `nbf`.
    pub clock_skew: Duration,
    /// Issuers that are valid at `now`.
    pub issuers: &'a [&'a str],
    /// Audiences of which the token must have one. Any if empty.
    pub audiences: &'a [String],
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Maximum age, whatever the token's `exp`. Any if `None`.
    pub max_age: Option<Duration>,
}

/// Permissions of a verified token.
#[derive(Debug, Clone)]
pub struct Authority {
    /// Format of the token.
    pub format: TokenFormat,
    /// Id of the parent key.
    pub key_id: String,
    /// Actor.
    pub actor: Option<ActorId>,
    /// Scopes.
    pub scopes: Scopes,
    /// Metadata of the parent key.
    pub metadata: Option<Metadata>,
    /// Visibility of the parent key.
    pub visibility: Visibility,
    /// Addresses from which it may be used.
    pub addresses: AddressList,
    /// Expiry.
    pub expires: Timestamp,
    /// Issuer.
    pub issuer: String,
    /// Audiences.
    pub audiences: Vec<String>,
    /// Custom claims.
    pub custom: Map<String, Value>,
}

/// Claims of a presented token. The format has verified the signature before.
#[derive(Deserialize)]
pub(super) struct PresentedClaims {
    sub: String,
    iss: Option<String>,
    exp: i64,
    iat: Option<i64>,
    nbf: Option<i64>,
    #[serde(default)]
    aud: Audience,
    nid: Option<String>,
    act: Option<String>,
    #[serde(default)]
    scp: Vec<String>,
    meta: Option<Map<String, Value>>,
    vis: Option<String>,
    #[serde(default)]
    acl: Vec<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Audience {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl PresentedClaims {
    /// Returns the claimed issuer.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.iss.as_deref()
    }

    /// Returns the time at which the token reaches the maximum age, `None` if there is none.
    fn oldest_end(&self, expected: &Expectation<'_>) -> Option<Timestamp> {
        let max_age = expected.max_age?;
        // Times of a token are whole seconds: a part of one more counts whole.
        let whole = Duration::from_secs(max_age.as_secs() + u64::from(max_age.subsec_nanos() > 0));
        match self.iat.or(self.nbf) {
            Some(issued) => Some(Timestamp::from_secs(issued).plus(whole)),
            // Of unknown age. Accepted while it expires no later than a token issued now may.
            None => (Timestamp::from_secs(self.exp) > expected.now.plus(whole)).then_some(expected.now),
        }
    }

    /// Verifies claims and caveats: issuer, network, times, audience, address. Returns what all of
    /// them allow.
    ///
    /// # Errors
    /// Fails with the first that doesn't hold.
    pub(super) fn judge(
        self,
        format: TokenFormat,
        caveats: &[Caveat],
        expected: &Expectation<'_>,
    ) -> Result<Authority, Denial> {
        let oldest_end = self.oldest_end(expected);
        let issuer = self.iss.ok_or(Denial::SignatureInvalid)?;
        let accepted = |issuer: &String| expected.issuers.contains(&issuer.as_str());
        if !accepted(&issuer) || !caveats.iter().all(|caveat| accepted(&caveat.issuer)) {
            return Err(Denial::SignatureInvalid);
        }
        if self.nid.as_deref().and_then(NetworkId::parse) != Some(expected.network) {
            return Err(Denial::NotFound);
        }
        let starts = caveats.iter().filter_map(|caveat| caveat.starts);
        let starts = starts.chain(self.nbf.map(Timestamp::from_secs)).max();
        let expires = caveats.iter().filter_map(|caveat| caveat.expires);
        let expires = expires.chain(oldest_end).fold(Timestamp::from_secs(self.exp), Timestamp::min);
        let early = starts.is_some_and(|at| expected.now.plus(expected.clock_skew) < at);
        if early || expires <= expected.now {
            return Err(Denial::Expired);
        }
        let audiences = match self.aud {
            Audience::None => vec![],
            Audience::One(audience) => vec![audience],
            Audience::Many(audiences) => audiences,
        };
        if !expected.audiences.is_empty() && !audiences.iter().any(|one| expected.audiences.contains(one)) {
            return Err(Denial::AudienceMismatch);
        }
        // We have signed these claims, but can't parse them any more.
        let unreadable = |_| Denial::SignatureInvalid;
        let addresses = AddressList::parse(&self.acl).map_err(unreadable)?;
        let addresses = narrowed_addresses(addresses, caveats).ok_or(Denial::AddressNotAllowed)?;
        if !addresses.allow(expected.client) {
            return Err(Denial::AddressNotAllowed);
        }
        let scopes = Scopes::parse(&self.scp).map_err(unreadable)?;
        let mut custom = self.rest;
        custom.retain(|name, _| !RESERVED.contains(&name.as_str()));
        Ok(Authority {
            format,
            key_id: self.sub,
            actor: self.act.map(|act| ActorId::from_stored(&act)).transpose().map_err(unreadable)?,
            scopes: narrowed_scopes(scopes, caveats).ok_or(Denial::SignatureInvalid)?,
            metadata: self.meta.map(Metadata::new).transpose().map_err(unreadable)?,
            visibility: match self.vis.as_deref() {
                None => Visibility::Secret,
                Some(vis) => Visibility::from_claim(vis).ok_or(Denial::SignatureInvalid)?,
            },
            addresses,
            expires,
            issuer,
            audiences,
            custom,
        })
    }
}

/// Returns the addresses that all lists allow, `None` if there are none.
fn narrowed_addresses(granted: AddressList, caveats: &[Caveat]) -> Option<AddressList> {
    caveats.iter().filter_map(|caveat| caveat.addresses.as_ref()).try_fold(granted, |left, narrower| {
        // An empty list of a key allows everyone. A holder who writes one allows nobody.
        if narrower.is_empty() { None } else { left.intersection(narrower) }
    })
}

/// Returns the scopes that all lists grant, `None` if there are too many.
fn narrowed_scopes(granted: Scopes, caveats: &[Caveat]) -> Option<Scopes> {
    let mut narrower = caveats.iter().filter_map(|caveat| caveat.scopes.as_ref());
    narrower.try_fold(granted, |left, narrower| left.intersection(narrower))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claims_of(actor: &ActorId) -> String {
        let (addresses, scopes) = (AddressList::default(), Scopes::parse(&["a"]).unwrap());
        let subject = Subject {
            key_id: "k".to_owned(),
            network: NetworkId::SINGLE,
            actor: Some(actor),
            metadata: None,
            visibility: Visibility::Secret,
            addresses: &addresses,
        };
        let now = Timestamp::from_secs(0);
        let grant = Grant {
            issuer: "i",
            id: Uuid::nil(),
            issued_at: now,
            expires: now,
            audiences: &[],
            scopes: &scopes,
            custom: &Map::new(),
        };
        claims_json(&subject, &grant)
    }

    proptest! {
        /// Backends that read the claims can tell actors apart.
        #[test]
        fn different_actors_are_different_claims(a in any::<String>(), b in any::<String>()) {
            if let (Ok(a), Ok(b)) = (ActorId::from_stored(&a), ActorId::from_stored(&b)) {
                prop_assert_eq!(a == b, claims_of(&a) == claims_of(&b));
                let shown: PresentedClaims = serde_json::from_str(&claims_of(&a)).unwrap();
                prop_assert_eq!(shown.act.as_deref(), Some(a.as_str()));
            }
        }
    }
}
