//! Encoded responses as the cache keeps them: what those of many keys have in common is kept once,
//! and the time until which an answer counts is written when it is sent.

use super::principal::Principal;
use super::response::encode_halves;
use crate::cache::memory::{Conditions, Half, SplitResponse, Templates};
use crate::config::Authz;
use crate::credential::claims::FIRST_OWN_CLAIM;
use crate::service::Minted;

/// Encodes the response of [`encode_ok`](super::response::encode_ok) for a principal, with the
/// token that it carries, to be kept.
pub(super) fn split_ok(
    templates: &Templates,
    conditions: Conditions,
    settings: &Authz,
    principal: &Principal<'_>,
    minted: Option<&Minted>,
) -> SplitResponse {
    let token = minted.map(|minted| (minted.token.as_str(), own_start(minted)));
    let halves = encode_halves(settings, principal, token);
    templates
        .split(conditions, halves.each_ref().map(|half| Half { bytes: &half.bytes, own: half.own.clone() }))
}

/// Returns the offset in a JWT behind which it has little in common with others. It decides about
/// memory, and nothing else.
fn own_start(minted: &Minted) -> usize {
    let header = minted.token.find('.').map_or(0, |end| end + 1);
    let shared = minted.claims_json.find(FIRST_OWN_CLAIM).unwrap_or_default();
    // Three bytes are four characters.
    (header + shared / 3 * 4).min(minted.token.len())
}

#[cfg(test)]
mod tests;
