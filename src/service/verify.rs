//! Is this credential good, now, from there? L1, then the database, one lookup a key.

use std::net::IpAddr;
use std::sync::Arc;

use super::Service;
use super::lookup::{CacheAccess, Place};
use crate::cache::freshness::{Mode, Slot};
use crate::cache::memory::{Answers, Entry, Index};
use crate::clock::Timestamp;
use crate::credential::claims::{Authority, Expectation};
use crate::credential::{Form, Presented, api_key, imported, jwt, macaroon};
use crate::key::verdict::{Denial, judge};
use crate::key::{Key, KeyId, KeyKind};
use crate::settings::Settings;

/// A credential, and what it is to be judged by.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// What was shown.
    pub credential: Presented<'a>,
    /// From where; None when that can't be known.
    pub client: Option<IpAddr>,
    /// Audiences of which a derived token must have one; any will do when empty.
    pub audiences: &'a [String],
    /// Whether what is remembered may be used.
    pub cache: CacheUse,
}

/// What may be remembered.
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

/// What the cache had to do with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    /// It came from there.
    Hit,
    /// It was looked for there, in vain.
    Miss,
    /// It wasn't looked for there.
    Skip,
}

/// Who a good credential stands for.
pub enum Identity {
    /// A key.
    Key(Arc<Entry>),
    /// A token that was derived from one.
    Token(Box<Authority>),
}

/// A bad credential: why, and of which key if possession of that was proven.
pub struct Refused {
    /// Why.
    pub denial: Denial,
    /// The key's id.
    pub key_id: Option<KeyId>,
    /// Its entry, if it was looked at.
    pub entry: Option<Arc<Entry>>,
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Self { denial, key_id: None, entry: None }
    }
}

/// The judgement.
pub struct Verification {
    /// Good or bad.
    pub verdict: Result<Identity, Refused>,
    /// Where it came from.
    pub cache: CacheResult,
}

impl Verification {
    /// The key whose possession was proven, good or bad.
    pub fn key(&self) -> Option<&Key> {
        match &self.verdict {
            Ok(Identity::Key(entry)) => Some(&entry.key),
            Ok(Identity::Token(_)) => None,
            Err(refused) => refused.entry.as_ref().map(|entry| &*entry.key),
        }
    }
}

/// No tier can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither a cache nor the database can tell at present")]
pub struct Unavailable;

/// A key id whose credential was shown: nothing else may be looked up on somebody's behalf.
#[derive(Clone, Copy)]
struct Proven {
    key_id: KeyId,
    hard_expiry: Option<Timestamp>,
}

impl Service {
    /// Judges from memory alone: no I/O, nothing to wait for. None when memory can't tell.
    pub fn verify_cached(&self, settings: &Settings, attempt: &Attempt<'_>) -> Option<Verification> {
        self.verify_remembered(settings, attempt, |entry, now| self.usable(entry, now))
    }

    /// As [`Service::verify_cached`], for when nobody else gives an answer: what was to be read again by now will do,
    /// as long as nothing is known to have changed.
    pub fn verify_overdue(&self, settings: &Settings, attempt: &Attempt<'_>) -> Option<Verification> {
        self.verify_remembered(settings, attempt, |entry, now| self.still_true(entry, now))
    }

    fn verify_remembered(
        &self,
        settings: &Settings,
        attempt: &Attempt<'_>,
        will_do: impl Fn(&Entry, Timestamp) -> bool,
    ) -> Option<Verification> {
        if !settings.cache_enabled || attempt.cache != CacheUse::Full {
            return None;
        }
        let index = self.memory.index(settings.network, attempt.credential.expose());
        let now = self.clock.now();
        if let Some(good) = self.recent(settings, &index, now, attempt.client, &will_do) {
            return Some(Verification { verdict: Ok(good), cache: CacheResult::Hit });
        }
        let verdict = match self.memory.get(&index).filter(|entry| will_do(entry, now)) {
            Some(entry) if entry.generation == settings.generation => {
                let verdict = self.judged(entry, now, attempt.client);
                if let Ok(Identity::Key(entry)) = &verdict {
                    self.memory.keep_recent(index, entry);
                }
                verdict
            }
            Some(_) => return None,
            // As quickly as a key that was revoked: how long a refusal takes doesn't tell the two apart.
            None => Err(self.recall_unknown(settings, &index, now)?),
        };
        Some(Verification { verdict, cache: CacheResult::Hit })
    }

    /// Who a credential stands for that this thread has used lately, if it is still good: a bad one takes the way of
    /// one that is unknown, and as long.
    fn recent(
        &self,
        settings: &Settings,
        index: &Index,
        now: Timestamp,
        client: Option<IpAddr>,
        will_do: impl Fn(&Entry, Timestamp) -> bool,
    ) -> Option<Identity> {
        let entry = self.memory.recent(index)?;
        if entry.generation == settings.generation
            && will_do(&entry, now)
            && let Ok(good) = self.judged(entry, now, client)
        {
            return Some(good);
        }
        self.memory.forget_recent(index);
        None
    }

    /// Judges a credential.
    ///
    /// # Errors
    /// [`Unavailable`] when no tier can tell: that is never a denial.
    pub async fn verify(
        &self,
        settings: &Settings,
        attempt: &Attempt<'_>,
    ) -> Result<Verification, Unavailable> {
        if let Some(verification) = self.verify_cached(settings, attempt) {
            return Ok(verification);
        }
        let skip = |verdict| Ok(Verification { verdict, cache: CacheResult::Skip });
        let now = self.clock.now();
        match settings.form(attempt.credential) {
            Form::Jwt => skip(self.verify_token(settings, attempt, now, |expected| {
                jwt::verify(&settings.keys, attempt.credential.expose(), expected)
            })),
            Form::Macaroon(parts) => skip(self.verify_token(settings, attempt, now, |expected| {
                verify_macaroon(settings, &parts, expected)
            })),
            Form::Issued(parts) => match prove(settings, &parts, now) {
                Some(proven) => self.look_up(settings, attempt, proven).await,
                None => skip(Err(Denial::NotFound.into())),
            },
            Form::Imported => {
                let key_id = imported::key_id(settings.network, attempt.credential.expose());
                let proven = Proven { key_id, hard_expiry: None };
                self.look_up(settings, attempt, proven).await
            }
        }
    }

    /// A token proves itself: neither memory nor the database knows it.
    fn verify_token(
        &self,
        settings: &Settings,
        attempt: &Attempt<'_>,
        now: Timestamp,
        verify: impl FnOnce(&Expectation<'_>) -> Result<Authority, Denial>,
    ) -> Result<Identity, Refused> {
        let issuers: Vec<&str> = settings
            .issuers
            .iter()
            .filter(|issuer| issuer.counts(now))
            .map(|issuer| issuer.value.as_str())
            .collect();
        let authority = verify(&Expectation {
            network: settings.network,
            now,
            clock_skew: settings.clock_skew,
            issuers: &issuers,
            audiences: attempt.audiences,
            client: attempt.client,
            max_age: settings.max_token_age,
        })?;
        // A parent's revocation doesn't end its tokens; the operator's list does.
        let parent = KeyId::parse_any(&authority.key_id);
        if parent.is_some_and(|parent| self.denies(&parent)) {
            return Err(Denial::Revoked.into());
        }
        Ok(Identity::Token(Box::new(authority)))
    }

    async fn look_up(
        &self,
        settings: &Settings,
        attempt: &Attempt<'_>,
        proven: Proven,
    ) -> Result<Verification, Unavailable> {
        if self.denies(&proven.key_id) {
            // Needn't be looked up, and perhaps can't be.
            let refused = Refused { key_id: Some(proven.key_id), ..Denial::Revoked.into() };
            return Ok(Verification { verdict: Err(refused), cache: CacheResult::Skip });
        }
        if self.freshness.mode() == Mode::Closed {
            // The lease has lapsed: one poll, shared by all who wait here, before anything is said.
            let _ = self.freshness.renew(&self.store).await;
        }
        let index = self.memory.index(settings.network, attempt.credential.expose());
        let reads = settings.cache_enabled && attempt.cache == CacheUse::Full;
        let writes = settings.cache_enabled && attempt.cache != CacheUse::None;
        let now = self.clock.now();
        if reads && let Some(verdict) = self.recall(settings, &index, proven, now, attempt.client) {
            return Ok(Verification { verdict, cache: CacheResult::Hit });
        }
        let place = Place {
            memory: self.memory.clone(),
            index,
            key_id: proven.key_id,
            is_guess: proven.key_id.kind() == KeyKind::Imported && self.memory.get(&index).is_none(),
            slot: Slot::of(settings.network, proven.key_id),
            generation: settings.generation,
            proof_ends: proven.hard_expiry,
            cache_ttl: settings.cache_ttl,
            negative_ttl: settings.negative_ttl,
        };
        let access = CacheAccess { reads, writes };
        let found = self.fetch(settings, proven.key_id, &place, access).await?;
        let now = self.clock.now();
        let verdict = match found.key {
            Some(key) => {
                // The entry that all who waited share, if it is in L1 already, with the answers made for it.
                let is_it = |entry: &Arc<Entry>| {
                    entry.generation == settings.generation && Arc::ptr_eq(&entry.key, &key)
                };
                let shared = self.memory.get(&index).filter(|entry| writes && is_it(entry));
                let entry = shared.unwrap_or_else(|| {
                    let entry = place.entry(key, found.stamp, found.read);
                    if writes {
                        self.memory.insert(index, Arc::clone(&entry));
                    }
                    entry
                });
                self.judged(entry, now, attempt.client)
            }
            None => Err(Denial::NotFound.into()),
        };
        let cache = if reads { CacheResult::Miss } else { CacheResult::Skip };
        Ok(Verification { verdict, cache })
    }

    /// What memory knows of a credential whose possession has just been proven under `settings`.
    fn recall(
        &self,
        settings: &Settings,
        index: &Index,
        proven: Proven,
        now: Timestamp,
        client: Option<IpAddr>,
    ) -> Option<Result<Identity, Refused>> {
        if let Some(entry) = self.memory.get(index).filter(|entry| self.usable(entry, now)) {
            let entry = if entry.generation == settings.generation {
                entry
            } else {
                // Proven under other settings: the row stays, its proof is the new one, its answers are gone.
                let renewed = Arc::new(Entry {
                    key: Arc::clone(&entry.key),
                    generation: settings.generation,
                    soft_expiry: entry.soft_expiry.min(now.plus(settings.cache_ttl)),
                    hard_expiry: proven.hard_expiry.into_iter().chain(entry.key.ends()).min(),
                    last_use: entry.last_use.clone(),
                    answers: Answers::default(),
                    holder: entry.holder.clone(),
                    ..*entry
                });
                self.memory.insert(*index, Arc::clone(&renewed));
                renewed
            };
            return Some(self.judged(entry, now, client));
        }
        self.recall_unknown(settings, index, now).map(Err)
    }

    /// That there is no such key, if memory knows.
    fn recall_unknown(&self, settings: &Settings, index: &Index, now: Timestamp) -> Option<Refused> {
        let unknown = self.memory.unknown(index)?;
        let counts = unknown.generation == settings.generation
            && now < unknown.expires
            && self.freshness.allows(unknown.slot, unknown.stamp);
        counts.then(|| match self.denies(&unknown.key_id) {
            true => Refused { key_id: Some(unknown.key_id), ..Denial::Revoked.into() },
            false => Denial::NotFound.into(),
        })
    }

    fn usable(&self, entry: &Entry, now: Timestamp) -> bool {
        // While the database can't be asked, what is known stays known.
        self.still_true(entry, now) && (now < entry.soft_expiry || self.freshness.mode().spares_rereading())
    }

    fn still_true(&self, entry: &Entry, now: Timestamp) -> bool {
        self.freshness.allows(entry.slot, entry.stamp) && entry.hard_expiry.is_none_or(|at| now < at)
    }

    fn judged(&self, entry: Arc<Entry>, now: Timestamp, client: Option<IpAddr>) -> Result<Identity, Refused> {
        let verdict = match self.denies(&entry.key.id) {
            true => Err(Denial::Revoked),
            false => judge(&entry.key, now, client),
        };
        match verdict {
            Ok(()) => Ok(Identity::Key(entry)),
            Err(denial) => Err(Refused { denial, key_id: Some(entry.key.id), entry: Some(entry) }),
        }
    }

    /// Whether the operator's own list refuses the key. It needs no database.
    fn denies(&self, key_id: &KeyId) -> bool {
        self.deny_list.load().denies(key_id)
    }
}

/// Form, checksum, age and prefix of an issued key, before any I/O.
fn prove(settings: &Settings, parts: &api_key::Parts<'_>, now: Timestamp) -> Option<Proven> {
    let prefix = settings.prefix(parts.prefix(), now)?;
    let proof = parts.prove(&settings.secrets, now)?;
    let dies = proof.issued_at.plus(settings.max_key_ttl);
    let timely = now < dies && proof.issued_at <= now.plus(settings.clock_skew);
    timely.then(|| Proven {
        key_id: proof.key_id,
        hard_expiry: [Some(dies), proof.secret_expires, prefix.expires].into_iter().flatten().min(),
    })
}

/// A macaroon whose prefix no longer counts is as unknown as if that had never been one.
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
