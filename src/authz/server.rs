//! The authorization service: policy, credential, verification and response of a Check.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::attributes::Attributes;
use super::charge::{Charges, charge, inside};
use super::check_answer::CheckAnswer;
use super::denied_response::encode_denied;
use super::deny_reason::{DeniedRequest, DenyReason};
use super::finish::{extras, finish};
use super::limits::MAX_EDGE_STREAMS;
use super::log_limiter::{LogLimiter, TextLimiter};
use super::principal::Principal;
use super::repeated::RepeatedCredential;
use super::request::Headers;
use super::response::{encode_anonymous, encode_ok};
use super::sources::PresentedCredential;
use super::split_response::split_ok;
use super::template::Templates;
use super::{path_key, policy};
use crate::audit::Origin;
use crate::cache::memory::{CachedResponse, Conditions, Entry};
use crate::clock::{BootTime, Timestamp};
use crate::config::{OnUnavailable, RouteMode, RouteToken};
use crate::credential::TokenFormat;
use crate::credential::claims::Authority;
use crate::event::Operation;
use crate::service::usage::{ALLOW, CountedCheck};
use crate::service::verify::{CacheUse, Identity, Verification, VerifyRequest};
use crate::service::{MintError, Service, Unavailable};
use crate::settings::Settings;
use crate::settings::policy::Policy;
use crate::telemetry::connections::StreamRefusal;
use crate::telemetry::metrics::{Metrics, Tier};
use crate::trace;

/// Name of the gRPC service that Envoy calls.
pub const SERVICE_NAME: &str = "envoy.service.auth.v3.Authorization";

/// Longest time for what isn't cached; Envoy gives up at 200 ms.
const MISS_BUDGET: Duration = Duration::from_millis(150);
/// Part of that budget in which a known key waits for its row to be read again.
const REFRESH_BUDGET: Duration = Duration::from_millis(30);

/// Permission of a Check to wait for what isn't cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Doesn't wait.
    Never,
    /// Waits as long as the budgets allow, counted from this time.
    Since(BootTime),
}

impl Wait {
    /// Returns the time from which the budgets count, if it may wait.
    const fn since(self) -> Option<BootTime> {
        match self {
            Self::Never => None,
            Self::Since(began) => Some(began),
        }
    }
}

/// Reason why a Check has no OK response.
enum Stop {
    /// The request is denied.
    Denied(DeniedRequest),
    /// The Check would have to wait; nothing is done or counted so far.
    WouldBlock,
}

impl<T: Into<DenyReason>> From<T> for Stop {
    fn from(reason: T) -> Self {
        Self::Denied(reason.into().into())
    }
}

impl From<DeniedRequest> for Stop {
    fn from(refused: DeniedRequest) -> Self {
        Self::Denied(refused)
    }
}

/// Answers Checks.
#[derive(Clone)]
pub struct AuthorizationService {
    pub(super) service: Arc<Service>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) runtime: Handle,
    /// Streams to modules that may still be opened.
    pub(super) edge_streams: Arc<Semaphore>,
    templates: Arc<ArcSwap<Templates>>,
    large_messages: LogLimiter,
    failed_lookups: LogLimiter,
    invalid_settings: TextLimiter,
    failed_mints: LogLimiter,
}

impl AuthorizationService {
    /// Makes a service that decides by `service`.
    ///
    /// Cache misses run on `runtime`, which owns the database pool.
    pub fn new(service: Arc<Service>, metrics: Arc<Metrics>, runtime: Handle) -> Self {
        let edge_streams = Arc::new(Semaphore::new(MAX_EDGE_STREAMS));
        Self {
            service,
            metrics,
            runtime,
            edge_streams,
            templates: Arc::default(),
            large_messages: LogLimiter::default(),
            failed_lookups: LogLimiter::default(),
            invalid_settings: TextLimiter::default(),
            failed_mints: LogLimiter::default(),
        }
    }

    /// Uses these templates for the responses to refused requests.
    pub fn with_templates(self, templates: Arc<ArcSwap<Templates>>) -> Self {
        Self { templates, ..self }
    }

    /// Answers a Check from the cache, without a task or a boxed future; None on a miss.
    ///
    /// # Errors
    /// The status that ends the call without a response.
    pub fn check_cached(&self, message: &[u8]) -> Option<Result<CheckAnswer, tonic::Status>> {
        if trace::is_enabled() {
            return None;
        }
        let attributes = match decode(message) {
            Ok(attributes) => attributes,
            Err(status) => return Some(Err(status)),
        };
        let (began, mut tier) = (self.service.clock.boot_now(), Tier::default());
        // Ready at the first poll, as it never waits.
        let answer = self.judge(&attributes, &mut tier, Wait::Never).now_or_never()??;
        self.took(began, tier);
        Some(answer)
    }

    /// Answers a Check; cache misses run on the main runtime.
    ///
    /// # Errors
    /// The status that ends the call without a response.
    pub async fn check(self: Rc<Self>, message: Bytes) -> Result<CheckAnswer, tonic::Status> {
        let attributes = decode(&message)?;
        let (began, mut tier) = (self.service.clock.boot_now(), Tier::default());
        let answer = match trace::is_enabled() {
            false => self.judge(&attributes, &mut tier, Wait::Since(began)).await,
            true => self.judge_traced(&attributes, &mut tier, Wait::Since(began)).await,
        };
        self.took(began, tier);
        // Never None here: only a Check that may not wait has no answer.
        answer.unwrap_or_else(|| Err(tonic::Status::internal("the request wasn't decided")))
    }

    /// Hands over what this thread has counted, and returns the time until it has to do so again;
    /// `None` if nothing is counted.
    pub fn hand_over_usage(&self) -> Option<Duration> {
        self.service.usage.hand_over(self.service.store.corrected(self.service.clock.now()))
    }

    /// Counts streams that were refused on a connection that goes on.
    pub fn stream_refused(&self, reason: StreamRefusal, count: u32) {
        self.metrics.connections.streams_refused(reason, count);
    }

    /// Counts a Check that is too large to be read, and logs one a minute.
    pub fn message_too_large(&self) {
        self.stream_refused(StreamRefusal::MessageTooLarge, 1);
        if self.large_messages.take(self.service.clock.boot_now()) {
            tracing::warn!(
                "a Check larger than 4 MiB was refused: Envoy sends the bodies of requests along, which Talos never \
                 reads; remove with_request_body from the ext_authz filter (talos_streams_refused_total counts them)"
            );
        }
    }

    /// Returns why a Check is refused whose lookup failed, and logs one a minute.
    fn lookup_failed(&self) -> DenyReason {
        if self.failed_lookups.take(self.service.clock.boot_now()) {
            tracing::warn!(
                "a Check was answered 503: its credential had to be looked up, and the database gave no answer within \
                 {} ms; look at the database's load and at this process's CPU limit (talos status)",
                MISS_BUDGET.as_millis()
            );
        }
        DenyReason::Unavailable
    }

    /// Returns why a Check is refused for which no token could be minted, and logs one a minute.
    fn no_token(&self, error: &MintError) -> DenyReason {
        if self.failed_mints.take(self.service.clock.boot_now()) {
            tracing::error!(%error, "upstream token could not be minted");
        }
        DenyReason::Misconfigured
    }

    /// Counts the time that a Check took.
    fn took(&self, began: BootTime, tier: Tier) {
        self.metrics.checks.took(tier, self.service.clock.boot_now().since(began));
    }

    /// Decides about a request as [`Self::judge`] does, in a child span of Envoy's.
    async fn judge_traced(
        &self,
        attributes: &Attributes<'_>,
        tier: &mut Tier,
        wait: Wait,
    ) -> Option<Result<CheckAnswer, tonic::Status>> {
        let parent = Headers::of(attributes).values("traceparent").next();
        let Some(span) = trace::start_server_span("Check", parent) else {
            return self.judge(attributes, tier, wait).await;
        };
        span.run(async {
            let answer = self.judge(attributes, tier, wait).await;
            trace::set_attribute("talos.tier", tier.name());
            answer
        })
        .await
    }

    /// Decides about a request; None when that would wait and may not.
    ///
    /// A panic counts as an outage: it neither allows the request nor closes the connection.
    async fn judge(
        &self,
        attributes: &Attributes<'_>,
        tier: &mut Tier,
        wait: Wait,
    ) -> Option<Result<CheckAnswer, tonic::Status>> {
        let settings = self.service.snapshot();
        let mut check = CountedCheck::default();
        let deciding = AssertUnwindSafe(self.decide(&settings, attributes, (tier, &mut check), wait));
        let decision = deciding.catch_unwind().await;
        let denied = match decision.unwrap_or_else(|_| Err(DenyReason::Unavailable.into())) {
            Ok(answer) => {
                self.metrics.checks.allowed();
                self.service.usage.count(&check, ALLOW);
                trace::set_attribute("talos.decision", "allow");
                return Some(Ok(answer));
            }
            Err(Stop::WouldBlock) => return None,
            Err(Stop::Denied(denied)) => denied,
        };
        let reason = &denied.reason;
        self.metrics.checks.refused(reason.label());
        self.service.usage.count(&check, reason.label());
        trace::set_attribute("talos.decision", reason.label());
        tracing::debug!(reason = reason.label(), "refused");
        if *reason == DenyReason::Unavailable && settings.authz.on_unavailable == OnUnavailable::Error {
            return Some(Err(tonic::Status::unavailable(reason.to_string())));
        }
        let headers = Headers::of(attributes);
        let sent = headers.request_id();
        let is_usable = !sent.is_empty() && sent.bytes().all(|byte| byte.is_ascii_graphic());
        let request_id = match is_usable {
            true => Cow::Borrowed(sent),
            false => Cow::Owned(self.service.rng.uuid().hyphenated().to_string()),
        };
        let templates = self.templates.load();
        Some(Ok(encode_denied(denied, &settings.authz, &templates, &headers, &request_id).into()))
    }

    /// Decides a Check: policy, credential, verification, demands of the route, charges, response.
    async fn decide(
        &self,
        settings: &Arc<Settings>,
        attributes: &Attributes<'_>,
        (tier, check): (&mut Tier, &mut CountedCheck),
        wait: Wait,
    ) -> Result<CheckAnswer, Stop> {
        let headers = Headers::of(attributes);
        let settings =
            settings.for_host(|| str::from_utf8(headers.host()).ok()).ok_or(DenyReason::UnknownHost)?;
        check.network = Some(settings.network);
        let target = path_key::upstream_target(headers.path(), &settings.authz.sources);
        let may_log = |error: &str| self.invalid_settings.take(error, self.service.clock.boot_now());
        let policy = policy::route_policy(settings, &headers, &target, attributes, may_log)?;
        check.route = policy.name;
        let presented = match policy.mode {
            RouteMode::Off => None,
            RouteMode::Required | RouteMode::Optional => {
                PresentedCredential::find(&headers, &settings.authz.sources)?
            }
        };
        let Some(presented) = presented else {
            return match policy.mode {
                RouteMode::Required => Err(DenyReason::Missing.into()),
                RouteMode::Optional | RouteMode::Off => {
                    let reason = if policy.mode == RouteMode::Off { "off" } else { "anonymous" };
                    let ready = encode_anonymous(&settings.authz, reason);
                    Ok(finish(settings, ready, &headers, None, None, Charges::default())?.into())
                }
            };
        };
        RepeatedCredential::of(Some(&presented)).check_path(&target)?;
        let attempt = VerifyRequest {
            credential: presented.credential()?,
            client: headers.client_address(&settings.authz),
            audiences: policy.audience.as_slice(),
            cache: CacheUse::Full,
        };
        let verification = match self.service.verify_cached(settings, &attempt) {
            Some(verification) => verification,
            None if wait == Wait::Never => return Err(Stop::WouldBlock),
            None => {
                // Boxed, so that the future of a cached Check stays small.
                Box::pin(self.verify_with_lookup(settings, &attempt))
                    .await
                    .ok_or_else(|| self.lookup_failed())?
            }
        };
        if wait == Wait::Never
            && let Ok(Identity::Key(entry)) = &verification.verdict
            && self.service.charge_needs_io(settings, &entry.key, policy.cost.get())
        {
            return Err(Stop::WouldBlock);
        }
        self.metrics.lookups.count(verification.cache);
        *tier = verification.cache.into();
        (check.key, check.client) = (verification.counted_key(), attempt.client);
        match verification.verdict {
            Ok(Identity::Key(entry)) => {
                let (key, cost) = (&entry.key, policy.cost.get());
                let denied = |reason| DeniedRequest::of_key(reason, &entry);
                policy::check_key(&policy, &key.scopes, key.visibility).map_err(denied)?;
                let parts = (&*self.service, &self.runtime);
                let charges = charge(parts, settings, key, cost, wait.since()).await.map_err(denied)?;
                let now = self.service.clock.now();
                let answer =
                    self.admit_key(settings, &policy, &headers, &presented, (&entry, now), charges)?;
                self.service.record_use(&entry, now);
                Ok(answer)
            }
            Ok(Identity::Token(authority)) => {
                Ok(self.admit_token(settings, &policy, &headers, &presented, &authority)?.into())
            }
            Err(rejection) => {
                let origin = Origin { client: attempt.client, ..Origin::default() };
                self.service.record_failure(settings, &rejection, Operation::Check, &origin);
                Err(DeniedRequest::from(rejection).with_client(attempt.client).into())
            }
        }
    }

    /// Verifies a credential that isn't cached; None when that takes longer than the budget.
    async fn verify_with_lookup(
        &self,
        settings: &Settings,
        attempt: &VerifyRequest<'_>,
    ) -> Option<Verification> {
        let within = async |budget| {
            let verification = inside(&self.runtime, self.service.verify(settings, attempt));
            // This thread's own timer: one of the other runtime would wake a thread there.
            tokio::time::timeout(budget, verification).await.unwrap_or(Err(Unavailable)).ok()
        };
        let overdue = || self.service.verify_stale(settings, attempt);
        if overdue().is_none() {
            return within(MISS_BUDGET).await;
        }
        // The row is due to be read again, but isn't known to have changed.
        match within(REFRESH_BUDGET).await.or_else(overdue) {
            Some(verification) => Some(verification),
            // The lease has run out meanwhile: the rest of the budget is for the poll.
            None => within(MISS_BUDGET - REFRESH_BUDGET).await,
        }
    }

    /// Returns the response for an allowed key: the one kept in the cache entry if it fits, else a
    /// new one, which is kept there.
    fn admit_key(
        &self,
        settings: &Settings,
        policy: &Policy,
        headers: &Headers<'_>,
        presented: &PresentedCredential<'_>,
        (entry, now): (&Arc<Entry>, Timestamp),
        charges: Charges,
    ) -> Result<CheckAnswer, DeniedRequest> {
        let ready = self.ready_answer(settings, policy, (entry, now))?;
        let overwritten = sends_token(settings, policy).then_some(settings.authz.token_header.as_str());
        let extras = extras(settings, headers, Some(presented), overwritten, charges)?;
        Ok(CheckAnswer::of_kept(ready, self.service.fresh_until(entry), &extras))
    }

    /// Returns the part of an answer that is the same for every request with a key under a policy.
    pub(super) fn ready_answer(
        &self,
        settings: &Settings,
        policy: &Policy,
        (entry, now): (&Arc<Entry>, Timestamp),
    ) -> Result<Arc<CachedResponse>, DenyReason> {
        let make = || self.make_answer(settings, entry, policy);
        let (ready, is_new) =
            entry.responses.get_or_encode(now, |conditions| fits(settings, policy, conditions), make)?;
        if is_new {
            self.service.memory.weigh_again(entry);
        }
        Ok(ready)
    }

    /// Encodes the response for a key, with a new token for upstream if the policy wants one.
    fn make_answer(
        &self,
        settings: &Settings,
        entry: &Arc<Entry>,
        policy: &Policy,
    ) -> Result<CachedResponse, DenyReason> {
        let (principal, audience) = (Principal::of_key(&entry.key), policy.audience.as_deref());
        let (with_token, now) = (sends_token(settings, policy), self.service.clock.now());
        let minted = match with_token {
            true => {
                let minted = self.service.mint_for_upstream(settings, entry, audience, now);
                Some(minted.map_err(|error| self.no_token(&error))?)
            }
            false => None,
        };
        let for_audience = with_token.then(|| audience.map(Into::into));
        let conditions = Conditions { generation: settings.generation, token: for_audience };
        let templates = self.service.memory.templates();
        let kept = split_ok(templates, conditions, &settings.authz, &principal, minted.as_ref());
        let Some(minted) = minted else {
            return Ok(CachedResponse::new(kept, None, None));
        };
        self.metrics.tokens_minted.inc();
        let half_life = (minted.expires.as_micros() - minted.issued_at.as_micros()) / 2;
        let half_life = Duration::from_micros(half_life.try_into().unwrap_or(0));
        Ok(CachedResponse::new(kept, Some(minted.issued_at.plus(half_life)), Some(minted.expires)))
    }

    /// Lets a derived token pass: a JWT goes upstream as it is, a macaroon as a JWT.
    ///
    /// No backend can verify a macaroon, as it would need our secret.
    fn admit_token(
        &self,
        settings: &Settings,
        policy: &Policy,
        headers: &Headers<'_>,
        presented: &PresentedCredential<'_>,
        authority: &Authority,
    ) -> Result<Bytes, DeniedRequest> {
        let (network, audience) = (settings.network, policy.audience.as_deref());
        let principal = Principal::of_token(authority, network);
        policy::check_key(policy, &authority.scopes, authority.visibility)
            .map_err(|reason| DeniedRequest::of_principal(reason, &principal))?;
        let token = match authority.format {
            _ if !sends_token(settings, policy) => None,
            TokenFormat::Jwt => Some(Cow::Borrowed(presented.credential()?.expose())),
            TokenFormat::Macaroon => {
                let minted = self.service.mint_for_macaroon(settings, network, authority, audience);
                let minted = minted.map_err(|error| self.no_token(&error))?;
                self.metrics.tokens_minted.inc();
                Some(Cow::Owned(minted.token))
            }
        };
        let fresh_until = self.service.token_fresh_until(authority.expires);
        let ready = encode_ok(&settings.authz, &principal, token.as_deref(), fresh_until);
        let overwritten = token.is_some().then_some(settings.authz.token_header.as_str());
        Ok(finish(settings, ready, headers, Some(presented), overwritten, Charges::default())?)
    }
}

fn decode(message: &[u8]) -> Result<Attributes<'_>, tonic::Status> {
    Attributes::decode(message).map_err(|error| tonic::Status::invalid_argument(error.to_string()))
}

/// Returns whether a cached answer is one for this policy, by its conditions.
fn fits(settings: &Settings, policy: &Policy, conditions: &Conditions) -> bool {
    let with_token = sends_token(settings, policy);
    conditions.generation == settings.generation
        && match &conditions.token {
            Some(for_audience) => with_token && for_audience.as_deref() == policy.audience.as_deref(),
            None => !with_token,
        }
}

fn sends_token(settings: &Settings, policy: &Policy) -> bool {
    match policy.token {
        Some(RouteToken::None) => false,
        Some(RouteToken::Jwt) => true,
        None => settings.signing_key().is_some(),
    }
}
