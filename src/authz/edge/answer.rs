//! Answers to a module's Asks: what a Check is answered from the cache, in parts.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use talos_proto::CheckResponse;
use talos_proto::edge::{self, Ask, CountedAs, Header, NoEntryReason};

use super::super::check_answer::CheckAnswer;
use super::super::policy::check_key;
use super::super::response::Extras;
use super::super::server::AuthorizationService;
use super::settings::Generation;
use crate::cache::freshness::Freshness;
use crate::cache::memory::Entry;
use crate::clock::Timestamp;
use crate::config::RouteMode;
use crate::settings::Settings;
use crate::settings::policy::Policy;

/// Bytes of an index.
pub(super) const INDEX_LEN: usize = 32;
/// Most bytes of a policy's fingerprint.
const MAX_FINGERPRINT: usize = 32;
/// Most bytes of a host.
const MAX_HOST: usize = 255;
/// Most settings of Envoy's route.
const MAX_EXTENSIONS: usize = 16;
/// Most bytes of all settings of Envoy's route.
const MAX_EXTENSION_BYTES: usize = 2 * 1024;
/// Prefix of a context extension that is ours.
const KEY_PREFIX: &str = "talos.";
/// Field of the dynamic metadata that the module sets by its own lease.
const FRESH_UNTIL: &str = "fresh_until";

/// Returns the time for which a module doesn't repeat an Ask that has no entry.
pub(super) const fn wait(reason: NoEntryReason) -> Duration {
    match reason {
        NoEntryReason::NoEntryOtherSettings => Duration::ZERO,
        NoEntryReason::NoEntryUnspecified | NoEntryReason::NoEntryNotCached => Duration::from_secs(1),
        NoEntryReason::NoEntryCheckOnly => Duration::from_secs(10),
        NoEntryReason::NoEntryInvalid => Duration::from_secs(60),
    }
}

/// Returns the name of a reason, for metrics.
pub(super) const fn label(reason: NoEntryReason) -> &'static str {
    match reason {
        NoEntryReason::NoEntryUnspecified => "unspecified",
        NoEntryReason::NoEntryNotCached => "not_cached",
        NoEntryReason::NoEntryCheckOnly => "check_only",
        NoEntryReason::NoEntryOtherSettings => "other_settings",
        NoEntryReason::NoEntryInvalid => "invalid",
    }
}

impl AuthorizationService {
    /// Answers an Ask from what the cache holds, without I/O.
    ///
    /// # Errors
    /// The reason for which there is no entry.
    pub(super) fn answer_ask(
        &self,
        generation: &Generation,
        ask: &Ask,
    ) -> Result<edge::Entry, NoEntryReason> {
        let index = check_bounds(ask).ok_or(NoEntryReason::NoEntryInvalid)?;
        if ask.generation != generation.number {
            return Err(NoEntryReason::NoEntryOtherSettings);
        }
        let settings = generation.settings.for_host(|| str::from_utf8(&ask.host).ok());
        let settings = settings.ok_or(NoEntryReason::NoEntryCheckOnly)?;
        let policy = policy_of(settings, ask)?;
        if policy.mode == RouteMode::Off {
            return Err(NoEntryReason::NoEntryCheckOnly);
        }
        let now = self.service.clock.now();
        let entry = self.service.entry_by_index(settings, index, now);
        let entry = entry.ok_or(NoEntryReason::NoEntryNotCached)?;
        let key = &entry.key;
        let is_charged = key.has_rate_policy() || key.credits.is_some();
        if is_charged || check_key(&policy, &key.scopes, key.visibility).is_err() {
            return Err(NoEntryReason::NoEntryCheckOnly);
        }
        let ready = self.ready_answer(settings, &policy, (&entry, now));
        let ready = ready.map_err(|_| NoEntryReason::NoEntryCheckOnly)?;
        let refresh_at = ready.refresh_at();
        let times = (refresh_at, last_use_of_token(refresh_at, ready.expires()));
        // The module sets the time until which it counts by its own lease.
        let answer = CheckAnswer::of_kept(ready, now, &Extras::default());
        let response = CheckResponse::decode(answer.into_bytes());
        let response = response.map_err(|_| NoEntryReason::NoEntryNotCached)?;
        if !is_of_requests(&response) {
            return Err(NoEntryReason::NoEntryCheckOnly);
        }
        Ok(entry_of(ask, generation.number, &policy, &entry, times, response))
    }
}

/// Returns true if a module can do everything that an answer says: it changes request headers only.
fn is_of_requests(response: &CheckResponse) -> bool {
    response.ok_response.as_ref().is_some_and(|ok| ok.response_headers_to_add.is_empty())
}

/// Returns the index, if the Ask keeps to all bounds.
fn check_bounds(ask: &Ask) -> Option<[u8; INDEX_LEN]> {
    let extensions = ask.extensions.iter();
    let extension_bytes: usize = extensions.map(|one| one.key.len() + one.value.len()).sum();
    let fits = ask.policy.len() <= MAX_FINGERPRINT
        && ask.host.len() <= MAX_HOST
        && ask.extensions.len() <= MAX_EXTENSIONS
        && extension_bytes <= MAX_EXTENSION_BYTES;
    ask.index[..].try_into().ok().filter(|_| fits)
}

/// Returns the policy of the rule that the module found, with the settings of Envoy's route.
fn policy_of(settings: &Settings, ask: &Ask) -> Result<Policy, NoEntryReason> {
    let mut policy = match ask.rule {
        None => settings.routes.unmatched().clone(),
        Some(rule) => {
            let route = settings.authz.routes.get(usize::try_from(rule).unwrap_or(usize::MAX));
            Policy::of_route(route.ok_or(NoEntryReason::NoEntryInvalid)?)
        }
    };
    for extension in &ask.extensions {
        if let Some(name) = extension.key.strip_prefix(KEY_PREFIX) {
            // A Check with it is refused.
            let set = policy.set(name.as_bytes(), extension.value.as_bytes());
            set.map_err(|_| NoEntryReason::NoEntryCheckOnly)?;
        }
    }
    Ok(policy)
}

/// Returns the time until which a module may send a token: halfway from its renewal to its end.
///
/// A Check renews a token for the very request that finds it due. A module goes on with the old one
/// until its question is answered, and a request that comes after a long pause asks too late: by
/// its end alone, a token could reach upstream with no time left.
fn last_use_of_token(refresh_at: Option<Timestamp>, expires: Option<Timestamp>) -> Option<Timestamp> {
    let end = expires?;
    let halfway = refresh_at.map(|at| {
        let left = end.as_micros().saturating_sub(at.as_micros());
        Timestamp::from_micros(at.as_micros().saturating_add(left / 2))
    });
    Some(halfway.unwrap_or(end).min(end))
}

fn entry_of(
    ask: &Ask,
    generation: u64,
    policy: &Policy,
    entry: &Arc<Entry>,
    (refresh_at, token_end): (Option<Timestamp>, Option<Timestamp>),
    response: CheckResponse,
) -> edge::Entry {
    let ok = response.ok_response.unwrap_or_default();
    let headers = ok.headers.into_iter().filter_map(|option| option.header);
    let mut metadata = response.dynamic_metadata.unwrap_or_default();
    metadata.fields.remove(FRESH_UNTIL);
    let (stamp, [key_slot, actor_slot]) = Freshness::position(entry.slot, entry.stamp);
    let ends = [entry.end(), token_end].into_iter().flatten();
    let key = &entry.key;
    edge::Entry {
        id: ask.id,
        policy: ask.policy.clone(),
        set_headers: headers.map(|one| Header { name: one.key, value: one.value }).collect(),
        remove_headers: ok.headers_to_remove,
        metadata: Some(metadata),
        stamp,
        key_slot,
        actor_slot,
        generation,
        refresh_at_micros: refresh_at.map(Timestamp::as_micros),
        expires_micros: ends.fold(entry.soft_expiry, Timestamp::min).as_micros(),
        key_end_micros: entry.end().map(Timestamp::as_micros),
        addresses: key.addresses.iter().map(ToString::to_string).collect(),
        counted_as: Some(CountedAs {
            network: key.network.as_bytes().to_vec().into(),
            key: key.id.to_string(),
            route: policy.name.as_str().to_owned(),
            index: ask.index.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_sent_for_three_quarters_of_their_time() {
        let time = |seconds: Option<i64>| seconds.map(Timestamp::from_secs);
        for (refresh_at, expires, expected) in [
            (Some(150), Some(300), Some(225)),
            (Some(300), Some(300), Some(300)),
            (Some(400), Some(300), Some(300)),
            (None, Some(300), Some(300)),
            (Some(150), None, None),
            (None, None, None),
        ] {
            let found = last_use_of_token(time(refresh_at), time(expires));
            assert_eq!(found, time(expected), "{refresh_at:?} {expires:?}");
        }
    }
}
