//! Verification of a credential: from memory if possible, else by a lookup of its key.
//!
//! On the way from a credential to a key's row, `get_cached` reads L1, `get_shared` reads L2,
//! `load` reads the database and fills the caches, and `verify` does all of it and judges the row.

mod by_index;

use std::net::IpAddr;
use std::sync::Arc;

use super::lookup::{CacheAccess, FillTarget, FoundKey};
use super::{Service, Unavailable};
use crate::cache::freshness::{Mode, Slot};
use crate::cache::memory::{CacheKey, Entry, ResponseCache, Weight};
use crate::clock::Timestamp;
use crate::credential::claims::{Authority, Expectation};
use crate::credential::imported_hash::DigestIds;
use crate::credential::{Form, Presented, api_key, imported, jwt, macaroon};
use crate::key::verdict::{Denial, judge};
use crate::key::{Key, KeyId, KeyKind, KeyPrefix, NetworkId, Signer};
use crate::settings::Settings;

/// A credential to verify, and the conditions that it must meet.
#[derive(Debug, Clone, Copy)]
pub struct VerifyRequest<'a> {
    /// The presented credential.
    pub credential: Presented<'a>,
    /// The client's address, `None` if unknown.
    pub client: Option<IpAddr>,
    /// Audiences of which a derived token must have one. An empty slice accepts any.
    pub audiences: &'a [String],
    /// Permitted use of the caches.
    pub cache: CacheUse,
}

/// Permitted use of the caches by a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheUse {
    /// Read and write.
    #[default]
    Full,
    /// Write only (`Cache-Control: no-cache`).
    NoRead,
    /// Neither (`Cache-Control: no-store`).
    None,
}

/// Part of the caches in a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    /// L1 had the answer.
    Hit,
    /// L1 was read and had no answer.
    Miss,
    /// L1 was not read.
    Skip,
}

/// Identity behind a valid credential.
pub enum Identity {
    /// A key.
    Key(Arc<Entry>),
    /// A token that was derived from a key.
    Token(Box<Authority>),
}

/// Rejection of a credential.
pub struct Rejection {
    /// The reason.
    pub denial: Denial,
    /// Id of the key, if possession of it was proven.
    pub key_id: Option<KeyId>,
    /// Cache entry of the key, if it was read.
    pub entry: Option<Arc<Entry>>,
}

impl From<Denial> for Rejection {
    fn from(denial: Denial) -> Self {
        Self { denial, key_id: None, entry: None }
    }
}

/// Result of a verification.
pub struct Verification {
    /// The identity, or why the credential is rejected.
    pub verdict: Result<Identity, Rejection>,
    /// Part of the caches in it.
    pub cache: CacheResult,
}

impl Verification {
    /// Returns the key whose possession was proven, accepted or rejected.
    pub fn key(&self) -> Option<&Key> {
        match &self.verdict {
            Ok(Identity::Key(entry)) => Some(&entry.key),
            Ok(Identity::Token(_)) => None,
            Err(rejection) => rejection.entry.as_ref().map(|entry| &*entry.key),
        }
    }

    /// Returns the id of the key to which the use of the credential counts: none for an unknown
    /// credential, whatever it may be the id of.
    pub fn counted_key(&self) -> Option<KeyId> {
        match &self.verdict {
            Ok(Identity::Key(entry)) => Some(entry.key.id),
            Ok(Identity::Token(authority)) => KeyId::parse_any(&authority.key_id),
            Err(rejection) if rejection.denial == Denial::NotFound => None,
            Err(rejection) => rejection.key_id,
        }
    }
}

/// Id of a key whose credential was presented. No other key is looked up for a client.
#[derive(Clone, Copy)]
struct ProvenKey {
    id: KeyId,
    /// Ids that it may have instead, while only a hash of it is known.
    digests: Option<DigestIds>,
    hard_expiry: Option<Timestamp>,
    signer: Signer,
}

impl ProvenKey {
    /// Returns the ids that its row may have.
    fn ids(self) -> impl Iterator<Item = KeyId> {
        [self.id].into_iter().chain(self.digests.into_iter().flat_map(DigestIds::all))
    }

    /// Returns the slots of those ids; the first is that of its own.
    fn slots(self, network: NetworkId) -> [Slot; 3] {
        let [sha256, sha512] = self.digests.map_or([self.id; 2], DigestIds::all);
        [self.id, sha256, sha512].map(|id| Slot::for_key(network, id))
    }
}

impl Service {
    /// Verifies a credential from L1 alone, without I/O. Returns `None` if L1 has no usable entry.
    pub fn verify_cached(&self, settings: &Settings, request: &VerifyRequest<'_>) -> Option<Verification> {
        self.verify_cached_if(settings, request, |entry, now| self.is_usable(entry, now))
    }

    /// Verifies a credential from L1 alone, accepting entries whose row is due to be read again.
    ///
    /// Used when nothing else answers in time. No change to such a row is known.
    pub fn verify_stale(&self, settings: &Settings, request: &VerifyRequest<'_>) -> Option<Verification> {
        self.verify_cached_if(settings, request, |entry, now| self.is_valid(entry, now))
    }

    /// Verifies from memory, by entries that `accept` takes. None if that needs a lookup.
    fn verify_cached_if(
        &self,
        settings: &Settings,
        request: &VerifyRequest<'_>,
        accept: impl Fn(&Entry, Timestamp) -> bool,
    ) -> Option<Verification> {
        if !settings.cache_enabled || request.cache != CacheUse::Full {
            return None;
        }
        let index = self.memory.cache_key(settings.network, request.credential.expose());
        let now = self.clock.now();
        if let Some(good) = self.get_recent(settings, &index, now, request.client, &accept) {
            return Some(Verification { verdict: Ok(good), cache: CacheResult::Hit });
        }
        let verdict = match self.memory.get(&index).filter(|entry| accept(entry, now)) {
            Some(entry) if entry.generation == settings.generation => {
                let verdict = self.judge_entry(entry, now, request.client);
                if let Ok(Identity::Key(entry)) = &verdict {
                    self.memory.put_recent(entry);
                }
                verdict
            }
            Some(_) => return None,
            // Takes as long as for a revoked key: the duration of a refusal doesn't tell the two
            // apart.
            None => Err(self.get_cached_unknown(settings, &index, now)?),
        };
        Some(Verification { verdict, cache: CacheResult::Hit })
    }

    /// Returns the identity behind a credential that this thread has used recently and that is
    /// still valid.
    ///
    /// A credential that is no longer valid takes the path of an unknown one, and as long.
    fn get_recent(
        &self,
        settings: &Settings,
        index: &CacheKey,
        now: Timestamp,
        client: Option<IpAddr>,
        accept: impl Fn(&Entry, Timestamp) -> bool,
    ) -> Option<Identity> {
        let entry = self.memory.get_recent(index)?;
        if entry.generation == settings.generation
            && accept(&entry, now)
            && let Ok(good) = self.judge_entry(entry, now, client)
        {
            return Some(good);
        }
        self.memory.remove_recent(index);
        None
    }

    /// Verifies a credential.
    ///
    /// # Errors
    /// Fails with [`Unavailable`] if neither the caches nor the database can answer.
    pub async fn verify(
        &self,
        settings: &Settings,
        request: &VerifyRequest<'_>,
    ) -> Result<Verification, Unavailable> {
        if let Some(verification) = self.verify_cached(settings, request) {
            return Ok(verification);
        }
        let skip = |verdict| Ok(Verification { verdict, cache: CacheResult::Skip });
        let now = self.clock.now();
        match settings.form(request.credential) {
            Form::Jwt => skip(self.verify_token(settings, request, now, |expected| {
                jwt::verify(&settings.keys, request.credential.expose(), expected)
            })),
            Form::Macaroon(parts) => skip(self.verify_token(settings, request, now, |expected| {
                verify_macaroon(settings, &parts, expected)
            })),
            Form::Issued(parts) => match prove(settings, &parts, now) {
                Some(proven) => self.verify_key(settings, request, proven).await,
                None => skip(Err(Denial::NotFound.into())),
            },
            Form::Imported => {
                let raw_key = request.credential.expose();
                let id = imported::key_id(settings.network, raw_key);
                let digests = Some(DigestIds::of(settings.network, raw_key));
                let proven = ProvenKey { id, digests, hard_expiry: None, signer: Signer::default() };
                self.verify_key(settings, request, proven).await
            }
        }
    }

    /// Verifies a derived token by its signature. Needs neither the caches nor the database.
    fn verify_token(
        &self,
        settings: &Settings,
        request: &VerifyRequest<'_>,
        now: Timestamp,
        verify: impl FnOnce(&Expectation<'_>) -> Result<Authority, Denial>,
    ) -> Result<Identity, Rejection> {
        let issuers: Vec<&str> = settings
            .issuers
            .iter()
            .filter(|issuer| issuer.is_valid_at(now))
            .map(|issuer| issuer.value.as_str())
            .collect();
        let authority = verify(&Expectation {
            network: settings.network,
            now,
            clock_skew: settings.clock_skew,
            issuers: &issuers,
            audiences: request.audiences,
            client: request.client,
            max_age: settings.max_token_age,
        })?;
        // Revoking a parent key doesn't end its tokens. The operator's deny list does.
        let parent = KeyId::parse_any(&authority.key_id);
        if parent.is_some_and(|parent| self.is_on_deny_list(&parent)) {
            return Err(Denial::Revoked.into());
        }
        Ok(Identity::Token(Box::new(authority)))
    }

    /// Verifies a key whose credential was presented.
    async fn verify_key(
        &self,
        settings: &Settings,
        request: &VerifyRequest<'_>,
        proven: ProvenKey,
    ) -> Result<Verification, Unavailable> {
        if proven.ids().any(|id| self.is_on_deny_list(&id)) {
            // Needs no lookup, which may not be possible at present.
            let rejection = Rejection { key_id: Some(proven.id), ..Denial::Revoked.into() };
            return Ok(Verification { verdict: Err(rejection), cache: CacheResult::Skip });
        }
        if self.freshness.mode() == Mode::Closed {
            // The lease has expired. All who wait here share one poll.
            let _ = self.freshness.renew(&self.store).await;
        }
        let access = CacheAccess {
            reads: settings.cache_enabled && request.cache == CacheUse::Full,
            writes: settings.cache_enabled && request.cache != CacheUse::None,
        };
        let index = self.memory.cache_key(settings.network, request.credential.expose());
        let now = self.clock.now();
        if access.reads
            && let Some(verdict) = self.get_cached(settings, &index, proven, now, request.client)
        {
            return Ok(Verification { verdict, cache: CacheResult::Hit });
        }
        let target = self.fill_target(settings, index, proven);
        let found = self.load(settings, &target, access).await?;
        if let Some(key) = found.key.as_ref().filter(|_| found.is_row) {
            self.record_signer(key, proven.signer);
        }
        let verdict = match self.entry_of(&target, found, access) {
            Some(entry) => self.judge_entry(entry, self.clock.now(), request.client),
            None => Err(Denial::NotFound.into()),
        };
        let cache = if access.reads { CacheResult::Miss } else { CacheResult::Skip };
        Ok(Verification { verdict, cache })
    }

    /// Reads L1 for a credential whose possession has just been proven under `settings`.
    fn get_cached(
        &self,
        settings: &Settings,
        index: &CacheKey,
        proven: ProvenKey,
        now: Timestamp,
        client: Option<IpAddr>,
    ) -> Option<Result<Identity, Rejection>> {
        if let Some(entry) = self.memory.get(index).filter(|entry| self.is_usable(entry, now)) {
            let entry = if entry.generation == settings.generation {
                entry
            } else {
                // Proven under other settings: the row stays, with the new proof and no responses.
                let renewed = Arc::new(Entry {
                    key: Arc::clone(&entry.key),
                    generation: settings.generation,
                    soft_expiry: entry.soft_expiry.min(now.plus(settings.cache_ttl)),
                    hard_expiry: proven.hard_expiry.into_iter().chain(entry.key.ends()).min(),
                    policy_end: settings.issuance.end_of(&entry.key).map(|end| end.at),
                    last_use: entry.last_use.clone(),
                    responses: ResponseCache::default(),
                    denied_metadata: entry.denied_metadata.clone(),
                    weight: Weight::default(),
                    ..*entry
                });
                self.memory.insert(Arc::clone(&renewed));
                renewed
            };
            return Some(self.judge_entry(entry, now, client));
        }
        self.get_cached_unknown(settings, index, now).map(Err)
    }

    /// Reads the negative entry of L1. Returns a rejection if the key is known not to exist.
    fn get_cached_unknown(&self, settings: &Settings, index: &CacheKey, now: Timestamp) -> Option<Rejection> {
        let unknown = self.memory.get_negative(index)?;
        let is_usable = unknown.generation == settings.generation
            && now < unknown.expires
            && self.freshness.are_unknown(&unknown.slots, unknown.stamp, unknown.servers);
        is_usable.then(|| match self.is_on_deny_list(&unknown.key_id) {
            true => Rejection { key_id: Some(unknown.key_id), ..Denial::Revoked.into() },
            false => Denial::NotFound.into(),
        })
    }

    /// Describes the L1 entry that a lookup of this key fills.
    fn fill_target(&self, settings: &Settings, index: CacheKey, proven: ProvenKey) -> FillTarget {
        FillTarget {
            memory: self.memory.clone(),
            index,
            network: settings.network,
            key_id: proven.id,
            is_guess: proven.id.kind() == KeyKind::Imported && self.memory.get(&index).is_none(),
            digests: proven.digests,
            slots: proven.slots(settings.network),
            generation: settings.generation,
            proof_expires: proven.hard_expiry,
            cache_ttl: settings.cache_ttl,
            negative_ttl: settings.negative_ttl,
            issuance: settings.issuance.clone(),
        }
    }

    /// Returns the entry for a key that was looked up, `None` if there is no such key.
    ///
    /// If L1 has the entry already, it is used: callers that waited for one lookup share the
    /// responses encoded for it.
    fn entry_of(&self, target: &FillTarget, found: FoundKey, access: CacheAccess) -> Option<Arc<Entry>> {
        let FoundKey { key, stamp, read_at, .. } = found;
        let key = key?;
        let is_it =
            |entry: &Arc<Entry>| entry.generation == target.generation && Arc::ptr_eq(&entry.key, &key);
        let shared = self.memory.get(&target.index).filter(|entry| access.writes && is_it(entry));
        Some(shared.unwrap_or_else(|| {
            let entry = target.entry(key, stamp, read_at);
            if access.writes {
                self.memory.insert(Arc::clone(&entry));
            }
            entry
        }))
    }

    fn is_usable(&self, entry: &Entry, now: Timestamp) -> bool {
        // While the database can't be asked, rows that are due to be read again stay usable.
        self.is_valid(entry, now) && (now < entry.soft_expiry || self.freshness.mode().skips_refresh())
    }

    fn is_valid(&self, entry: &Entry, now: Timestamp) -> bool {
        self.freshness.is_fresh(entry.slot, entry.stamp) && entry.hard_expiry.is_none_or(|at| now < at)
    }

    /// Returns the identity of a cached key, or the reason for which it may not be used now.
    fn judge_entry(
        &self,
        entry: Arc<Entry>,
        now: Timestamp,
        client: Option<IpAddr>,
    ) -> Result<Identity, Rejection> {
        let verdict = match self.is_denied(&entry.key) {
            true => Err(Denial::Revoked),
            false => judge(&entry.key, now, client).and_then(|()| match entry.policy_end {
                Some(end) if end <= now => Err(Denial::Policy),
                _ => Ok(()),
            }),
        };
        match verdict {
            Ok(()) => Ok(Identity::Key(entry)),
            Err(denial) => Err(Rejection { denial, key_id: Some(entry.key.id), entry: Some(entry) }),
        }
    }

    /// Returns true if the operator's deny list has the key, by its id or by the one that it had
    /// while only a hash of it was known.
    fn is_denied(&self, key: &Key) -> bool {
        let earlier = key.provenance.replaces.filter(|_| key.id.kind() == KeyKind::Imported);
        self.is_on_deny_list(&key.id) || earlier.is_some_and(|id| self.is_on_deny_list(&id))
    }

    /// Checks the operator's deny list. Needs no database.
    fn is_on_deny_list(&self, key_id: &KeyId) -> bool {
        self.deny_list.load().denies(key_id)
    }
}

/// Checks form, checksum, age and prefix of an issued key, before any I/O.
fn prove(settings: &Settings, parts: &api_key::Parts<'_>, now: Timestamp) -> Option<ProvenKey> {
    let prefix = settings.prefix(parts.prefix(), now)?;
    let proof = parts.prove(&settings.secrets, now)?;
    let max_age_ends = proof.issued_at.plus(settings.max_key_ttl);
    let is_current = now < max_age_ends && proof.issued_at <= now.plus(settings.clock_skew);
    is_current.then(|| ProvenKey {
        id: proof.key_id,
        digests: None,
        hard_expiry: [Some(max_age_ends), proof.secret_expires, prefix.expires].into_iter().flatten().min(),
        signer: Signer { secret: Some(proof.secret_id), prefix: KeyPrefix::parse(parts.prefix()) },
    })
}

/// Verifies a macaroon. One with a retired prefix is rejected like any unknown credential.
fn verify_macaroon(
    settings: &Settings,
    parts: &macaroon::Parts<'_>,
    expected: &Expectation<'_>,
) -> Result<Authority, Denial> {
    let prefix = settings.macaroon_prefix_at(parts.prefix(), expected.now).ok_or(Denial::NotFound)?;
    let mut authority = macaroon::verify(&settings.secrets, parts, expected)?;
    authority.expires = prefix.expires.into_iter().fold(authority.expires, Timestamp::min);
    Ok(authority)
}
