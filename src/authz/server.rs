//! A Check from beginning to end: policy, credential, verification, answer.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use talos_proto::{AttributeContext, CheckRequest};
use tonic::server::{Grpc, UnaryService};

use super::codec::CheckCodec;
use super::policy::Policy;
use super::request::Headers;
use super::response::{Caller, Extras, OkParts, Refusal, anonymous_parts, denied, ok, ok_parts};
use super::sources::Shown;
use crate::audit::Failure;
use crate::cache::memory::{Answer, Entry};
use crate::config::{OnUnavailable, RouteMode, RouteToken};
use crate::credential::TokenFormat;
use crate::credential::claims::Authority;
use crate::event::Operation;
use crate::key::{NetworkId, Scopes, Visibility};
use crate::service::verify::{Attempt, CacheUse, Identity, Unavailable, Verification};
use crate::service::{MintError, Service};
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;

/// The gRPC name of the service that Envoy calls.
pub const SERVICE_NAME: &str = "envoy.service.auth.v3.Authorization";

/// How long a Check may wait for what isn't in memory: Envoy itself gives up at 200 ms.
const MISS_BUDGET: Duration = Duration::from_millis(150);
/// How much of that a key that is known waits for its row to be read again.
const REFRESH_BUDGET: Duration = Duration::from_millis(30);
/// Largest CheckRequest, in bytes: Envoy may be told to send bodies along.
const MAX_REQUEST: usize = 4 * 1024 * 1024;

/// The authz plane.
#[derive(Clone)]
pub struct Plane {
    service: Arc<Service>,
    metrics: Arc<Metrics>,
}

type Answered = Result<tonic::Response<Bytes>, tonic::Status>;

impl UnaryService<CheckRequest> for Plane {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Answered> + Send>>;

    fn call(&mut self, request: tonic::Request<CheckRequest>) -> Self::Future {
        let plane = self.clone();
        Box::pin(async move { plane.check(&request.into_inner()).await.map(tonic::Response::new) })
    }
}

impl Plane {
    /// A plane that decides by `service`.
    pub const fn new(service: Arc<Service>, metrics: Arc<Metrics>) -> Self {
        Self { service, metrics }
    }

    /// Answers one gRPC call of the service.
    pub async fn serve<B>(&self, request: http::Request<B>) -> http::Response<tonic::body::Body>
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let mut grpc = Grpc::new(CheckCodec).apply_max_message_size_config(Some(MAX_REQUEST), None);
        grpc.unary(self.clone(), request).await
    }

    /// Decides about one request. A panic is an outage of ours, not an allow and not a dropped connection.
    async fn check(&self, request: &CheckRequest) -> Result<Bytes, tonic::Status> {
        let settings = self.service.snapshot();
        let nothing = AttributeContext::default();
        let attributes = request.attributes.as_ref().unwrap_or(&nothing);
        let decision = AssertUnwindSafe(self.decide(&settings, attributes)).catch_unwind().await;
        let refusal = match decision.unwrap_or(Err(Refusal::Unavailable)) {
            Ok(answer) => {
                self.metrics.checks.allowed();
                return Ok(answer);
            }
            Err(refusal) => refusal,
        };
        self.metrics.checks.refused(refusal.label());
        tracing::debug!(reason = refusal.label(), "refused");
        if refusal == Refusal::Unavailable && settings.authz.on_unavailable == OnUnavailable::Error {
            return Err(tonic::Status::unavailable(refusal.to_string()));
        }
        let to_grpc = Headers::of(attributes).is_grpc();
        Ok(denied(&refusal, &settings.authz, to_grpc))
    }

    async fn decide(&self, settings: &Settings, attributes: &AttributeContext) -> Result<Bytes, Refusal> {
        let policy = Policy::from_extensions(&attributes.context_extensions).map_err(|error| {
            tracing::error!(%error, "a route of Envoy's is misconfigured");
            Refusal::Misconfigured
        })?;
        let headers = Headers::of(attributes);
        let shown = match policy.mode {
            RouteMode::Off => None,
            RouteMode::Required | RouteMode::Optional => Shown::find(&headers, &settings.authz.sources)?,
        };
        let Some(shown) = shown else {
            return match policy.mode {
                RouteMode::Required => Err(Refusal::Missing),
                RouteMode::Optional | RouteMode::Off => {
                    let parts = anonymous_parts(&settings.authz);
                    finish(settings, (&parts.ok_fields, &parts.outer_fields), &headers, None, None)
                }
            };
        };
        let audiences: Vec<String> = policy.audience.clone().into_iter().collect();
        let attempt = Attempt {
            network: NetworkId::SINGLE,
            credential: shown.credential()?,
            client: headers.client(attributes, &settings.authz),
            audiences: &audiences,
            cache: CacheUse::Full,
        };
        let verification = match self.service.verify_cached(settings, &attempt) {
            Some(verification) => verification,
            None => self.look_up(settings, &attempt).await.ok_or(Refusal::Unavailable)?,
        };
        self.metrics.lookups.count(verification.cache);
        match verification.verdict {
            Ok(Identity::Key(entry)) => {
                let answer = self.admit_key(settings, &policy, &headers, &shown, &entry)?;
                self.service.note_use(&entry);
                Ok(answer)
            }
            Ok(Identity::Token(authority)) => {
                self.admit_token(settings, &policy, &headers, &shown, &authority)
            }
            Err(refused) => {
                let failure = Failure {
                    network: attempt.network,
                    operation: Operation::Check,
                    denial: refused.denial,
                    key_id: refused.key_id,
                    client: attempt.client,
                    request_id: None,
                };
                self.service.audit.failed(&failure, self.service.clock.boot());
                Err(Refusal::Denied(refused.denial))
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

    fn admit_key(
        &self,
        settings: &Settings,
        policy: &Policy,
        headers: &Headers<'_>,
        shown: &Shown<'_>,
        entry: &Arc<Entry>,
    ) -> Result<Bytes, Refusal> {
        satisfies(policy, &entry.key.scopes, entry.key.visibility)?;
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
        finish(settings, (&answer.ok_fields, &answer.outer_fields), headers, Some(shown), overwritten)
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
    ) -> Result<Bytes, Refusal> {
        satisfies(policy, &authority.scopes, authority.visibility)?;
        let (network, audience) = (NetworkId::SINGLE, policy.audience.as_deref());
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
        let parts = ok_parts(&settings.authz, &Caller::of_token(authority, network), token.as_deref());
        let overwritten = token.is_some().then_some(settings.authz.token_header.as_str());
        finish(settings, (&parts.ok_fields, &parts.outer_fields), headers, Some(shown), overwritten)
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
) -> Result<Bytes, Refusal> {
    let mut extras = Extras::default();
    if let Some(shown) = shown {
        shown.take_out(headers, overwritten, &mut extras)?;
    }
    for name in headers.spoofed(&settings.authz.token_header) {
        extras.remove_header(name);
    }
    Ok(ok(ok_fields, outer_fields, &extras))
}
