//! Signers of issued keys: how many keys hang on each HMAC secret and prefix, for whoever is about
//! to remove one.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::Service;
use crate::clock::Timestamp;
use crate::settings::Settings;
use crate::store::{MAX_SIGNED_COUNT, SignedBy, StoreError};

/// State of a signer in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignerState {
    /// In the configuration, for new keys as well.
    Current,
    /// In the configuration for existing keys only.
    Retired,
    /// No configuration has it, or its time is over: its keys are refused as unknown.
    Removed,
    /// The rows don't know their signer yet: keys of earlier releases, until they are verified.
    Unknown,
}

impl SignerState {
    /// Returns the name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Retired => "retired",
            Self::Removed => "removed",
            Self::Unknown => "unknown",
        }
    }
}

/// Active keys of one secret or prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerCount {
    /// Id of the secret, or the prefix; empty for keys whose signer isn't known.
    pub signer: String,
    /// State in the configuration.
    pub state: SignerState,
    /// Number of active keys, counted up to a limit.
    pub keys: u64,
}

impl SignerCount {
    /// Returns true if there may be more keys than were counted.
    pub const fn is_capped(&self) -> bool {
        self.keys >= MAX_SIGNED_COUNT
    }
}

/// Active keys by secret and by prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignerCounts {
    /// By HMAC secret.
    pub secrets: Vec<SignerCount>,
    /// By prefix.
    pub prefixes: Vec<SignerCount>,
}

/// Last counts, and the request for new ones.
#[derive(Default)]
pub struct Signers {
    counts: ArcSwapOption<SignerCounts>,
    requested: Notify,
}

impl Signers {
    /// Returns the last counts; `None` before the first.
    pub fn counts(&self) -> Option<Arc<SignerCounts>> {
        self.counts.load_full()
    }

    /// Requests new counts, as the configuration has changed.
    pub fn request(&self) {
        self.requested.notify_one();
    }

    /// Waits until new counts are requested.
    pub async fn requested(&self) {
        self.requested.notified().await;
    }
}

impl Service {
    /// Counts the active keys of every signer anew.
    ///
    /// # Errors
    /// Fails if the database fails.
    pub async fn count_signers(&self) -> Result<Arc<SignerCounts>, StoreError> {
        let secrets = self.store.count_signed(SignedBy::Secret).await?;
        let prefixes = self.store.count_signed(SignedBy::Prefix).await?;
        let (settings, now) = (self.snapshot(), self.clock.now());
        let counts = Arc::new(SignerCounts {
            secrets: with_states(secrets, &secret_states(&settings, now)),
            prefixes: with_states(prefixes, &prefix_states(&settings, now)),
        });
        self.signers.counts.store(Some(Arc::clone(&counts)));
        Ok(counts)
    }
}

type States = BTreeMap<String, SignerState>;

/// Adds the states of counted signers, and signers of the configuration that no key has.
fn with_states(counted: Vec<(String, u64)>, configured: &States) -> Vec<SignerCount> {
    let mut keys: BTreeMap<String, u64> = configured.keys().map(|signer| (signer.clone(), 0)).collect();
    keys.extend(counted);
    let count = |(signer, keys): (String, u64)| {
        let state = match configured.get(&signer) {
            Some(state) => *state,
            None if signer.is_empty() => SignerState::Unknown,
            None => SignerState::Removed,
        };
        SignerCount { signer, state, keys }
    };
    let mut counts: Vec<_> = keys.into_iter().map(count).collect();
    // A removed secret without active keys is of no interest.
    counts
        .retain(|count| count.keys > 0 || matches!(count.state, SignerState::Current | SignerState::Retired));
    counts.sort_by(|one, other| (one.state, &one.signer).cmp(&(other.state, &other.signer)));
    counts
}

/// Returns the states of secrets in the configurations of all networks.
fn secret_states(settings: &Settings, now: Timestamp) -> States {
    let mut states = States::new();
    for (_, settings) in settings.all() {
        let current = settings.secrets.current().id();
        for secret in settings.secrets.verifying(now) {
            let state = if secret.id() == current { SignerState::Current } else { SignerState::Retired };
            let known = states.entry(secret.id().to_string()).or_insert(state);
            *known = state.min(*known);
        }
    }
    states
}

/// Returns the states of prefixes in the configurations of all networks.
fn prefix_states(settings: &Settings, now: Timestamp) -> States {
    let mut states = States::new();
    for (_, settings) in settings.all() {
        for prefix in settings.prefixes.iter().filter(|prefix| prefix.is_valid_at(now)) {
            let is_current = prefix.value == settings.secret_prefix
                || settings.public_prefix.as_ref() == Some(&prefix.value);
            let state = if is_current { SignerState::Current } else { SignerState::Retired };
            let known = states.entry(prefix.value.clone()).or_insert(state);
            *known = state.min(*known);
        }
    }
    states
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signer_that_no_configuration_has_is_removed() {
        let configured = States::from([
            ("new".to_owned(), SignerState::Current),
            ("old".to_owned(), SignerState::Retired),
        ]);
        let counted = [("", 3), ("gone", 2), ("old", 1), ("ended", 0)];
        let counts = with_states(counted.map(|(signer, keys)| (signer.to_owned(), keys)).into(), &configured);
        let rows: Vec<_> =
            counts.iter().map(|count| (&*count.signer, count.state.name(), count.keys)).collect();
        let expected =
            [("new", "current", 0), ("old", "retired", 1), ("gone", "removed", 2), ("", "unknown", 3)];
        assert_eq!(rows, expected);
    }
}
