//! Derived JWTs (talos.md section 1): minted with EdDSA or RS256, verified without any state.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::{DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::jwk::{KeySet, SigningKey};
use crate::clock::Timestamp;
use crate::key::verdict::Denial;
use crate::key::{ActorId, AddressList, Key, Metadata, NetworkId, Scopes, Visibility};

/// Claims that a request can't set: they are stripped from custom claims.
pub const RESERVED: [&str; 18] = [
    "jti", "sub", "iss", "aud", "iat", "exp", "nbf", "nid", "akid", "pid", "tty", "oid", "act", "scp",
    "scope", "meta", "vis", "acl",
];

/// What a token says beside its key.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    /// Who issues it.
    pub issuer: &'a str,
    /// Its own id.
    pub id: Uuid,
    /// From when on it is valid; whole seconds count.
    pub issued_at: Timestamp,
    /// Until when it is valid; whole seconds count.
    pub expires: Timestamp,
    /// Whom it is for; anyone when empty.
    pub audiences: &'a [String],
    /// What it allows.
    pub scopes: &'a Scopes,
    /// Free claims at top level, without reserved names.
    pub custom: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    kid: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    jti: String,
    sub: String,
    iss: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    aud: &'a [String],
    nid: String,
    act: &'a str,
    scp: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
    vis: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    acl: Vec<String>,
    #[serde(flatten)]
    custom: &'a Map<String, Value>,
}

/// The claims of a token for `key`, as JSON.
pub fn claims_json(key: &Key, grant: &Grant<'_>) -> String {
    let claims = Claims {
        jti: grant.id.to_string(),
        sub: key.id.to_string(),
        iss: grant.issuer,
        iat: grant.issued_at.as_secs(),
        nbf: grant.issued_at.as_secs(),
        exp: grant.expires.as_secs(),
        aud: grant.audiences,
        nid: key.network.to_string(),
        act: key.actor.as_str(),
        scp: grant.scopes.iter().map(crate::key::Scope::as_str).collect(),
        meta: key.metadata.as_ref().map(Metadata::raw),
        vis: key.visibility.claim(),
        acl: key.addresses.iter().map(ToString::to_string).collect(),
        custom: grant.custom,
    };
    serde_json::to_string(&claims).expect("claims are texts, numbers and JSON")
}

/// Signs claims. None when `signer` has no private half.
pub fn sign(signer: &SigningKey, claims_json: &str) -> Option<String> {
    let mut token = unsigned(signer, claims_json);
    let signature = signer.sign(token.as_bytes())?;
    token.push('.');
    BASE64URL.encode_string(signature, &mut token);
    Some(token)
}

/// How long the token of these claims will be, in bytes.
pub fn signed_len(signer: &SigningKey, claims_json: &str) -> usize {
    let signature = signer.signature_len();
    unsigned(signer, claims_json).len() + 1 + (signature * 4).div_ceil(3)
}

fn unsigned(signer: &SigningKey, claims_json: &str) -> String {
    let header = Header { alg: &format!("{:?}", signer.algorithm()), typ: "JWT", kid: signer.kid() };
    let header = serde_json::to_vec(&header).expect("three texts serialise");
    let mut token = String::with_capacity((header.len() + claims_json.len()) * 4 / 3 + 512);
    BASE64URL.encode_string(header, &mut token);
    token.push('.');
    BASE64URL.encode_string(claims_json, &mut token);
    token
}

/// What is asked of a token that a client shows.
#[derive(Debug)]
pub struct Expectation<'a> {
    /// The request's network.
    pub network: NetworkId,
    /// Now.
    pub now: Timestamp,
    /// How far clocks may be apart, for `nbf`.
    pub clock_skew: Duration,
    /// Issuers whose tokens count at `now`.
    pub issuers: &'a [&'a str],
    /// When not empty: one of them must be the token's, exactly.
    pub audiences: &'a [String],
    /// From where it is used.
    pub client: Option<IpAddr>,
}

/// The authority of a verified token.
#[derive(Debug, Clone)]
pub struct Authority {
    /// Id of the key that it was derived from.
    pub key_id: String,
    /// On whose behalf it acts.
    pub actor: Option<ActorId>,
    /// What it allows.
    pub scopes: Scopes,
    /// The parent's attributes.
    pub metadata: Option<Metadata>,
    /// The parent's visibility.
    pub visibility: Visibility,
    /// Until when.
    pub expires: Timestamp,
    /// Who issued it.
    pub issuer: String,
    /// Whom it is for.
    pub audiences: Vec<String>,
}

#[derive(Deserialize)]
struct Shown {
    sub: String,
    iss: Option<String>,
    exp: i64,
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
}

#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Audience {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

/// Verifies a token: signature by the key that its `kid` names, then issuer, network, times, audience, address.
///
/// # Errors
/// The first of these that doesn't hold.
pub fn verify(keys: &KeySet, token: &str, expected: &Expectation<'_>) -> Result<Authority, Denial> {
    let shown = check_signature(keys, token).ok_or(Denial::SignatureInvalid)?;
    let issuer = shown.iss.ok_or(Denial::SignatureInvalid)?;
    if !expected.issuers.contains(&issuer.as_str()) {
        return Err(Denial::SignatureInvalid);
    }
    if shown.nid.as_deref().and_then(NetworkId::parse) != Some(expected.network) {
        return Err(Denial::NotFound);
    }
    let starts = shown.nbf.map(Timestamp::from_secs);
    let expires = Timestamp::from_secs(shown.exp);
    let early = starts.is_some_and(|at| expected.now.plus(expected.clock_skew) < at);
    if early || expires <= expected.now {
        return Err(Denial::Expired);
    }
    let audiences = match shown.aud {
        Audience::None => vec![],
        Audience::One(audience) => vec![audience],
        Audience::Many(audiences) => audiences,
    };
    if !expected.audiences.is_empty() && !audiences.iter().any(|one| expected.audiences.contains(one)) {
        return Err(Denial::AudienceMismatch);
    }
    // Claims that we signed but can't read any more: refuse rather than guess.
    let addresses = AddressList::parse(&shown.acl).map_err(|_| Denial::SignatureInvalid)?;
    if !addresses.allow(expected.client) {
        return Err(Denial::AddressNotAllowed);
    }
    let unreadable = |_| Denial::SignatureInvalid;
    Ok(Authority {
        key_id: shown.sub,
        actor: shown.act.map(|act| ActorId::parse(&act)).transpose().map_err(unreadable)?,
        scopes: Scopes::parse(&shown.scp).map_err(unreadable)?,
        metadata: shown.meta.map(Metadata::new).transpose().map_err(unreadable)?,
        visibility: match shown.vis.as_deref() {
            None => Visibility::Secret,
            Some(vis) => Visibility::from_claim(vis).ok_or(Denial::SignatureInvalid)?,
        },
        expires,
        issuer,
        audiences,
    })
}

fn check_signature(keys: &KeySet, token: &str) -> Option<Shown> {
    let header = jsonwebtoken::decode_header(token).ok()?;
    let extended = header.crit.is_some_and(|names| !names.is_empty());
    let key = keys.find(&header.kid?).filter(|_| !extended)?;
    decode(token, key.verifier(), key)
}

fn decode(token: &str, verifier: &DecodingKey, key: &SigningKey) -> Option<Shown> {
    // The library checks the signature under the key's own algorithm; times and names are checked above, by our clock.
    let mut validation = Validation::new(key.algorithm());
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let decoded = jsonwebtoken::decode(token, verifier, &validation).ok()?;
    Some(decoded.claims)
}
