//! The parts of an allowed request's response that depend on the request itself.

use bytes::Bytes;

use super::charge::Charges;
use super::deny_reason::DenyReason;
use super::request::Headers;
use super::response::{Extras, encode_with_extras};
use super::sources::PresentedCredential;
use super::strip::{strip_headers, strip_repeated_urls, strip_target};
use crate::cache::memory::EncodedResponse;
use crate::settings::Settings;

/// Returns a response with the parts that this request makes necessary.
pub(super) fn finish(
    settings: &Settings,
    ready: EncodedResponse,
    headers: &Headers<'_>,
    presented: Option<&PresentedCredential<'_>>,
    overwritten: Option<&str>,
    charges: Charges,
) -> Result<Bytes, DenyReason> {
    Ok(encode_with_extras(ready, &extras(settings, headers, presented, overwritten, charges)?))
}

/// Returns the parts of a response that this request makes necessary.
///
/// Carriers of the credential are removed, unless our token overwrites them; so are headers that
/// only Talos may set.
pub(super) fn extras(
    settings: &Settings,
    headers: &Headers<'_>,
    presented: Option<&PresentedCredential<'_>>,
    overwritten: Option<&str>,
    charges: Charges,
) -> Result<Extras, DenyReason> {
    let mut extras = Extras::default();
    if let Some(charge) = charges.rate {
        extras.add_rate_limit(&charge);
    }
    if let Some(spent) = charges.credits {
        extras.add_credits(&spent);
    }
    let sources = &settings.authz.sources;
    if let Some(presented) = presented {
        strip_headers(presented, headers, overwritten, &mut extras)?;
    }
    strip_target(headers, sources, presented, &mut extras);
    strip_repeated_urls(headers, sources, presented, overwritten, &mut extras);
    for name in headers.spoofed(&settings.authz.token_header) {
        extras.remove_header(name);
    }
    Ok(extras)
}
