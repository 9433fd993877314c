//! A Check from beginning to end: policy, credential, verification, answer.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::attributes::Attributes;
use super::denied::denied;
use super::policy;
use super::refusal::{Refusal, Refused};
use super::request::Headers;
use super::response::{Caller, Extras, OkParts, anonymous_parts, ok, ok_parts};
use super::sources::Shown;
use super::template::Templates;
use crate::audit::Failure;
use crate::cache::memory::{Answer, Entry};
use crate::config::{OnUnavailable, RouteMode, RouteToken};
use crate::credential::TokenFormat;
use crate::credential::claims::Authority;
use crate::event::Operation;
use crate::key::{Key, Scopes, Visibility};
use crate::limit::Charge;
use crate::service::verify::{Attempt, CacheUse, Identity, Unavailable, Verification};
use crate::service::{MintError, Service};
use crate::settings::Settings;
use crate::settings::policy::Policy;
use crate::telemetry::metrics::{Metrics, Tier};
use crate::trace;

/// The gRPC name of the service that Envoy calls.
pub const SERVICE_NAME: &str = "envoy.service.auth.v3.Authorization";

/// How long a Check may wait for what isn't in memory: Envoy itself gives up at 200 ms.
const MISS_BUDGET: Duration = Duration::from_millis(150);
/// How much of that a key that is known waits for its row to be read again.
const REFRESH_BUDGET: Duration = Duration::from_millis(30);

/// The authz plane.
#[derive(Clone)]
pub struct Plane {
    service: Arc<Service>,
    metrics: Arc<Metrics>,
    runtime: Handle,
    templates: Arc<ArcSwap<Templates>>,
}

impl Plane {
    /// A plane that decides by `service`.
    /// What has to wait for the database waits in `runtime`, whose the database's connections are.
    pub fn new(service: Arc<Service>, metrics: Arc<Metrics>, runtime: Handle) -> Self {
        Self { service, metrics, runtime, templates: Arc::default() }
    }

    /// The same, showing refused clients what these say.
    pub fn with_templates(self, templates: Arc<ArcSwap<Templates>>) -> Self {
        Self { templates, ..self }
    }

    /// Answers one Check. Ready at once when memory can tell; what has to wait goes on in the main runtime.
    ///
    /// # Errors
    /// What the call ends with instead of an answer.
    pub async fn check(self: Rc<Self>, message: Bytes) -> Result<Bytes, tonic::Status> {
        let attributes = Attributes::decode(&message);
        let attributes = attributes.map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
        self.answer(&attributes).await
    }

    /// Decides about one request, and counts how long that took.
    async fn answer(&self, attributes: &Attributes<'_>) -> Result<Bytes, tonic::Status> {
        let clock = &self.service.clock;
        let (began, mut tier) = (clock.boot(), Tier::default());
        let answer = match trace::is_on() {
            false => self.judge(attributes, &mut tier).await,
            true => self.judge_traced(attributes, &mut tier).await,
        };
        self.metrics.checks.took(tier, clock.boot().since(began));
        answer
    }

    /// As [`Plane::judge`], in a span that goes on from Envoy's.
    async fn judge_traced(
        &self,
        attributes: &Attributes<'_>,
        tier: &mut Tier,
    ) -> Result<Bytes, tonic::Status> {
        let parent = Headers::of(attributes).values("traceparent").next();
        let Some(span) = trace::server("Check", parent) else {
            return self.judge(attributes, tier).await;
        };
        span.run(async {
            let answer = self.judge(attributes, tier).await;
            trace::note("talos.tier", tier.name());
            answer
        })
        .await
    }

    /// Decides about one request. A panic is an outage of ours, not an allow and not a dropped connection.
    async fn judge(&self, attributes: &Attributes<'_>, tier: &mut Tier) -> Result<Bytes, tonic::Status> {
        let settings = self.service.snapshot();
        let decision = AssertUnwindSafe(self.decide(&settings, attributes, tier)).catch_unwind().await;
        let refused = match decision.unwrap_or_else(|_| Err(Refusal::Unavailable.into())) {
            Ok(answer) => {
                self.metrics.checks.allowed();
                trace::note("talos.decision", "allow");
                return Ok(answer);
            }
            Err(refused) => refused,
        };
        let refusal = &refused.refusal;
        self.metrics.checks.refused(refusal.label());
        trace::note("talos.decision", refusal.label());
        tracing::debug!(reason = refusal.label(), "refused");
        if *refusal == Refusal::Unavailable && settings.authz.on_unavailable == OnUnavailable::Error {
            return Err(tonic::Status::unavailable(refusal.to_string()));
        }
        Ok(denied(refused, &settings.authz, &self.templates.load(), &Headers::of(attributes)))
    }

    async fn decide(
        &self,
        settings: &Arc<Settings>,
        attributes: &Attributes<'_>,
        tier: &mut Tier,
    ) -> Result<Bytes, Refused> {
        let headers = Headers::of(attributes);
        let settings =
            settings.of_host(|| str::from_utf8(headers.host()).ok()).ok_or(Refusal::UnknownHost)?;
        let policy = policy::of_request(settings, &headers, attributes)?;
        let shown = match policy.mode {
            RouteMode::Off => None,
            RouteMode::Required | RouteMode::Optional => Shown::find(&headers, &settings.authz.sources)?,
        };
        let Some(shown) = shown else {
            return match policy.mode {
                RouteMode::Required => Err(Refusal::Missing.into()),
                RouteMode::Optional | RouteMode::Off => {
                    let reason = if policy.mode == RouteMode::Off { "off" } else { "anonymous" };
                    let parts = anonymous_parts(&settings.authz, reason);
                    let parts = (&parts.ok_fields[..], &parts.outer_fields[..]);
                    Ok(finish(settings, parts, &headers, None, None, None)?)
                }
            };
        };
        let attempt = Attempt {
            credential: shown.credential()?,
            client: headers.client(&settings.authz),
            audiences: policy.audience.as_slice(),
            cache: CacheUse::Full,
        };
        let verification = match self.service.verify_cached(settings, &attempt) {
            Some(verification) => verification,
            None => {
                // Apart, so that Checks which needn't wait don't carry around what this takes.
                let looking_up = inside(&self.runtime, Box::pin(self.look_up(settings, &attempt)));
                looking_up.await.ok_or(Refusal::Unavailable)?
            }
        };
        self.metrics.lookups.count(verification.cache);
        *tier = verification.cache.into();
        match verification.verdict {
            Ok(Identity::Key(entry)) => {
                let key = &entry.key;
                let refused = |refusal| Refused::of_holder(refusal, &entry);
                satisfies(&policy, &key.scopes, key.visibility).map_err(refused)?;
                let charge = self.charge(settings, key).await.map_err(refused)?;
                let answer = self.admit_key(settings, &policy, &headers, &shown, &entry, charge)?;
                self.service.note_use(&entry);
                Ok(answer)
            }
            Ok(Identity::Token(authority)) => {
                self.admit_token(settings, &policy, &headers, &shown, &authority)
            }
            Err(refused) => {
                let failure = Failure {
                    network: settings.network,
                    operation: Operation::Check,
                    denial: refused.denial,
                    key_id: refused.key_id,
                    client: attempt.client,
                    request_id: None,
                };
                self.service.audit.failed(&failure, self.service.clock.boot());
                Err(refused.into())
            }
        }
    }

    /// Judges what memory can't; None when nobody can in time.
    async fn look_up(&self, settings: &Settings, attempt: &Attempt<'_>) -> Option<Verification> {
        let within = async |budget| {
            let verification = tokio::time::timeout(budget, self.service.verify(settings, attempt));
            verification.await.unwrap_or(Err(Unavailable)).ok()
        };
        let overdue = || self.service.verify_overdue(settings, attempt);
        if overdue().is_none() {
            return within(MISS_BUDGET).await;
        }
        // It would be good to read the row again, but nothing is known to have changed.
        match within(REFRESH_BUDGET).await.or_else(overdue) {
            Some(verification) => Some(verification),
            // The lease has run out meanwhile: that is told by the poll which the rest of the budget is for.
            None => within(MISS_BUDGET - REFRESH_BUDGET).await,
        }
    }

    /// Counts the use; None when there is no limit to it.
    async fn charge(&self, settings: &Settings, key: &Key) -> Result<Option<Charge>, Refusal> {
        match (self.service.charge(settings, key).await, key.rate_policy) {
            (Some(charge), Some(policy)) if !charge.allowed => Err(Refusal::RateLimited(policy, charge)),
            (charge, _) => Ok(charge),
        }
    }

    fn admit_key(
        &self,
        settings: &Settings,
        policy: &Policy,
        headers: &Headers<'_>,
        shown: &Shown<'_>,
        entry: &Arc<Entry>,
        charge: Option<Charge>,
    ) -> Result<Bytes, Refused> {
        let with_token = sends_token(settings, policy);
        let audience = policy.audience.as_deref();
        let now = self.service.clock.now();
        let fits = |answer: &Answer| {
            answer.generation == settings.generation
                && match &answer.token {
                    Some(for_audience) => with_token && for_audience.as_deref() == audience,
                    None => !with_token,
                }
        };
        let make = || self.make_answer(settings, entry, with_token, audience);
        let answer = entry.answers.get_or_make(now, fits, make)?;
        let overwritten = with_token.then_some(settings.authz.token_header.as_str());
        let parts = (&answer.ok_fields[..], &answer.outer_fields[..]);
        Ok(finish(settings, parts, headers, Some(shown), overwritten, charge)?)
    }

    fn make_answer(
        &self,
        settings: &Settings,
        entry: &Arc<Entry>,
        with_token: bool,
        audience: Option<&str>,
    ) -> Result<Answer, Refusal> {
        let caller = Caller::of_key(&entry.key);
        if !with_token {
            let OkParts { ok_fields, outer_fields } = ok_parts(&settings.authz, &caller, None);
            return Ok(Answer {
                generation: settings.generation,
                token: None,
                refresh_at: None,
                expires: None,
                ok_fields,
                outer_fields,
            });
        }
        let now = self.service.clock.now();
        let minted = self.service.mint_for_upstream(settings, entry, audience, now).map_err(no_token)?;
        self.metrics.tokens_minted.inc();
        let OkParts { ok_fields, outer_fields } = ok_parts(&settings.authz, &caller, Some(&minted.token));
        let half_life = (minted.expires.as_micros() - minted.issued_at.as_micros()) / 2;
        let half_life = Duration::from_micros(half_life.try_into().unwrap_or(0));
        Ok(Answer {
            generation: settings.generation,
            token: Some(audience.map(Into::into)),
            refresh_at: Some(minted.issued_at.plus(half_life)),
            expires: Some(minted.expires),
            ok_fields,
            outer_fields,
        })
    }

    /// A derived JWT goes upstream as it is, a macaroon as a JWT: no backend can verify what is keyed with our secret.
    fn admit_token(
        &self,
        settings: &Settings,
        policy: &Policy,
        headers: &Headers<'_>,
        shown: &Shown<'_>,
        authority: &Authority,
    ) -> Result<Bytes, Refused> {
        let (network, audience) = (settings.network, policy.audience.as_deref());
        let caller = Caller::of_token(authority, network);
        satisfies(policy, &authority.scopes, authority.visibility)
            .map_err(|refusal| Refused::of_caller(refusal, &caller))?;
        let token = match authority.format {
            _ if !sends_token(settings, policy) => None,
            TokenFormat::Jwt => Some(Cow::Borrowed(shown.credential()?.expose())),
            TokenFormat::Macaroon => {
                let minted = self.service.exchange_for_upstream(settings, network, authority, audience);
                let minted = minted.map_err(no_token)?;
                self.metrics.tokens_minted.inc();
                Some(Cow::Owned(minted.token))
            }
        };
        let parts = ok_parts(&settings.authz, &caller, token.as_deref());
        let overwritten = token.is_some().then_some(settings.authz.token_header.as_str());
        Ok(finish(
            settings,
            (&parts.ok_fields, &parts.outer_fields),
            headers,
            Some(shown),
            overwritten,
            None,
        )?)
    }
}

fn no_token(error: MintError) -> Refusal {
    tracing::error!(%error, "no token can be minted");
    Refusal::Misconfigured
}

fn satisfies(policy: &Policy, scopes: &Scopes, visibility: Visibility) -> Result<(), Refusal> {
    if policy.secret_only && visibility == Visibility::Public {
        return Err(Refusal::Publishable);
    }
    if !scopes.grant_all(&policy.scopes) {
        return Err(Refusal::InsufficientScope(policy.scopes.clone()));
    }
    if !policy.any_scope.is_empty() && !scopes.grant_any(&policy.any_scope) {
        return Err(Refusal::InsufficientScope(policy.any_scope.clone()));
    }
    Ok(())
}

fn sends_token(settings: &Settings, policy: &Policy) -> bool {
    match policy.token {
        Some(RouteToken::None) => false,
        Some(RouteToken::Jwt) => true,
        None => !settings.keys.is_empty(),
    }
}

/// Adds what this one request makes necessary: whatever carried the credential goes, unless our token overwrites it,
/// and so does what claims to be ours.
fn finish(
    settings: &Settings,
    (ok_fields, outer_fields): (&[u8], &[u8]),
    headers: &Headers<'_>,
    shown: Option<&Shown<'_>>,
    overwritten: Option<&str>,
    charge: Option<Charge>,
) -> Result<Bytes, Refusal> {
    let mut extras = Extras::default();
    if let Some(charge) = charge {
        extras.charged(&charge);
    }
    if let Some(shown) = shown {
        shown.take_out(headers, overwritten, &mut extras)?;
    }
    for name in headers.spoofed(&settings.authz.token_header) {
        extras.remove_header(name);
    }
    Ok(ok(ok_fields, outer_fields, &extras))
}

/// Polls a future as if in `runtime`: what it opens and starts belongs there, whoever waits for it.
async fn inside<F: Future>(runtime: &Handle, future: F) -> F::Output {
    let mut future = pin!(future);
    let polled = poll_fn(|context| {
        let _entered = runtime.enter();
        future.as_mut().poll(context)
    });
    polled.await
}
