//! Filter configuration in use, and what it does with a request.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::abi::{self, Counter, HeaderRoom, Headers, Level, Stream};
use crate::accelerator::{Accelerator, User};
use crate::config::{ConfigError, FilterSettings, MAX_EXTENSIONS, RouteSettings};
use crate::credential::{self, Credential};
use crate::entry::Entry;
use crate::guard::PANICS;
use crate::metadata::{ALLOW, ASKED, DECISION, NAMESPACE};
use crate::now_micros;
use crate::settings::Settings;
use crate::state::{Found, Lookup, NotFound, State, Usable};

/// Namespace of route metadata with the policy.
const POLICY_METADATA: &str = "talos";
/// Namespace in which Envoy Gateway puts annotations, where the server looks for a policy, too.
const GATEWAY_METADATA: &str = "envoy-gateway";
/// Longest host that is sent with a question.
const MAX_HOST: usize = 255;

/// Counters of a filter configuration, in Envoy's statistics. One that Envoy refused isn't counted.
/// Each request of a route that has opted in counts in one of the first four.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counters {
    /// Requests that were let pass.
    hits: Option<Counter>,
    /// Requests with a credential that isn't known here.
    misses: Option<Counter>,
    /// Requests with a known credential that must be asked about.
    stale: Option<Counter>,
    /// Requests about which the module says nothing.
    left_alone: Option<Counter>,
    /// Panics that were caught.
    panics: Option<Counter>,
}

impl Counters {
    /// Defines all counters.
    pub(crate) fn define(define: impl Fn(&str) -> Option<Counter>) -> Self {
        Self {
            hits: define("talos_hits"),
            misses: define("talos_misses"),
            stale: define("talos_stale"),
            left_alone: define("talos_left_alone"),
            panics: define("talos_panics"),
        }
    }
}

/// What was found out about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Hit,
    Miss,
    Stale,
    LeftAlone,
}

/// Filter configuration, shared by all its streams.
pub(crate) struct Filter {
    is_enabled: bool,
    accelerator: User,
    counters: Counters,
}

/// Changes that let a request pass.
struct Pass {
    entry: Arc<Entry>,
    usable: Usable,
    /// Header that carried the credential.
    carrier: Option<String>,
    /// Headers of the client that must not go upstream.
    forged: Vec<Vec<u8>>,
    /// Address of the client, if the module can tell.
    client: Option<IpAddr>,
}

impl Filter {
    /// Makes the configuration.
    ///
    /// # Errors
    /// Fails if this Envoy has too many sockets.
    pub(crate) fn new(settings: &FilterSettings, counters: Counters) -> Result<Self, ConfigError> {
        let accelerator = Accelerator::of_socket(&settings.socket, settings.max_bytes)?;
        Ok(Self { is_enabled: settings.enabled, accelerator, counters })
    }

    /// Looks at a request of a route.
    pub(crate) fn on_request(&self, stream: &mut Stream<'_>, route: Option<&RouteSettings>) {
        // An allow of some other filter's, or of this request before an internal redirect, would
        // let it pass unchecked.
        if stream.metadata_text(NAMESPACE, DECISION) == Some(ALLOW.as_bytes()) {
            stream.set_metadata_text(NAMESPACE, DECISION, ASKED.as_bytes());
        }
        for note in self.accelerator.take_notes() {
            abi::log(Level::Info, &format!("talos module: {note}"));
        }
        let panics = PANICS.take_uncounted();
        if panics > 0
            && let Some(counter) = self.counters.panics
        {
            stream.count(counter, panics);
        }
        let Some(route) = route.filter(|route| route.accelerate && self.is_enabled) else { return };
        self.accelerator.start();
        let finding =
            if PANICS.is_pausing(now_micros) { Finding::LeftAlone } else { self.judge(stream, route) };
        let counter = match finding {
            Finding::Hit => self.counters.hits,
            Finding::Miss => self.counters.misses,
            Finding::Stale => self.counters.stale,
            Finding::LeftAlone => self.counters.left_alone,
        };
        if let Some(counter) = counter {
            stream.count(counter, 1);
        }
    }

    fn judge(&self, stream: &mut Stream<'_>, route: &RouteSettings) -> Finding {
        let state = self.accelerator.state();
        let Some(state) = state.as_ref() else { return Finding::LeftAlone };
        let settings = state.settings();
        let Some(settings) = settings.as_ref() else { return Finding::LeftAlone };
        if stream.metadata_text(NAMESPACE, DECISION).is_some() {
            return Finding::LeftAlone;
        }
        let Some(policy) = policy(stream, route) else { return Finding::LeftAlone };
        match find(stream, state, settings, &policy) {
            Ok(pass) if pass.apply(stream) => {
                state.record_use(&pass.entry, pass.usable.now, pass.client);
                Finding::Hit
            }
            Ok(_) => Finding::LeftAlone,
            Err(finding) => finding,
        }
    }
}

/// Returns the policy of a request: what the route's metadata say, over which its settings for the
/// module stand. `None` if it can't be told.
fn policy<'a>(stream: &Stream<'_>, route: &'a RouteSettings) -> Option<Cow<'a, RouteSettings>> {
    if !stream.route_metadata_keys::<1>(GATEWAY_METADATA)?.is_empty() {
        return None;
    }
    let keys = stream.route_metadata_keys::<MAX_EXTENSIONS>(POLICY_METADATA)?;
    if keys.is_empty() {
        return Some(Cow::Borrowed(route));
    }
    // Only texts can be read here; the server takes others, too.
    let pair = |key: &[u8]| {
        let value = stream.route_metadata_text(POLICY_METADATA, key)?;
        Some((str::from_utf8(key).ok()?.to_owned(), str::from_utf8(value).ok()?.to_owned()))
    };
    route.over(keys.into_iter().map(pair).collect::<Option<_>>()?).map(Cow::Owned)
}

/// Returns how to let a request pass, by an entry that may be used now.
fn find(
    stream: &Stream<'_>,
    state: &State,
    settings: &Settings,
    route: &RouteSettings,
) -> Result<Pass, Finding> {
    let mut room = HeaderRoom::default();
    let headers = stream.headers(&mut room).ok_or(Finding::LeftAlone)?;
    if settings.preflight_allowed && credential::is_preflight(headers) {
        return Err(Finding::LeftAlone);
    }
    let credential = credential::find(headers, &settings.sources).ok_or(Finding::LeftAlone)?;
    let host = match settings.by_host {
        true => Some(only_host(headers).ok_or(Finding::LeftAlone)?),
        false => None,
    };
    let lookup = Lookup { credential: credential.text, route, host, settings };
    let found = state.find(lookup).map_err(|reason| match reason {
        NotFound::Unknown => Finding::Miss,
        NotFound::Unusable => Finding::Stale,
    })?;
    let entry = &found.entry;
    if !entry.metadata.suits(stream.version()) {
        return Err(Finding::LeftAlone);
    }
    let origin = settings.client_address;
    let client =
        origin.and_then(|origin| credential::client_address(headers, stream.source_address(), origin));
    if !entry.addresses.is_empty() && !client.is_some_and(|client| entry.allows(client)) {
        return Err(Finding::LeftAlone);
    }
    state.refresh_if_due(&found, lookup);
    Ok(Pass { client, ..Pass::new(headers, settings, credential, found) })
}

/// Returns the request's host, if there is one and the server takes it.
fn only_host(headers: Headers<'_>) -> Option<&[u8]> {
    headers.values(":authority").next().filter(|host| (1..=MAX_HOST).contains(&host.len()))
}

impl Pass {
    fn new(headers: Headers<'_>, settings: &Settings, credential: Credential<'_>, found: Found) -> Self {
        let Found { entry, usable, .. } = found;
        let carrier = settings.sources.get(credential.source).map(|source| source.name.clone());
        let carrier = carrier.filter(|name| !entry.sets(name.as_bytes()));
        let is_forged = |name: &[u8]| credential::is_forged(name, settings) && !entry.sets(name);
        let forged = headers.lines().map(|(name, _)| name).filter(|name| is_forged(name));
        let forged = forged.map(<[u8]>::to_vec).collect();
        Self { entry, usable, carrier, forged, client: None }
    }

    /// Changes the request, and then, if all went well, its metadata, upon which ext_authz lets it
    /// pass. If something fails, ext_authz checks what is left of the request.
    fn apply(&self, stream: &mut Stream<'_>) -> bool {
        let entry = &self.entry;
        let are_set = entry.set_headers.iter().all(|(name, value)| stream.set_header(name, value));
        let removed = entry.remove_headers.iter().filter(|name| !entry.sets(name));
        let removed = removed.chain(&self.forged).map(Vec::as_slice);
        let mut removed = removed.chain(self.carrier.as_deref().map(str::as_bytes));
        are_set
            && removed.all(|name| stream.remove_header(name))
            && entry.metadata.set(stream, self.usable.fresh_until_seconds())
    }
}
