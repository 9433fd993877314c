//! Handlers that verify one credential or a batch.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::future::join_all;

use super::extract::{QueryPairs, batch, presented};
use crate::audit::Origin;
use crate::clock::Timestamp;
use crate::error::{ApiError, Reason};
use crate::event::Operation;
use crate::http::audit::origin;
use crate::http::body;
use crate::http::context::{Context, NetworkSettings};
use crate::http::epoch::min_epoch;
use crate::http::notice::add_limit_warnings;
use crate::http::reply::{Reply, ok};
use crate::http::wire::{BatchVerifyBody, BatchVerifyOut, MAX_BATCH_VERIFY, VerifyBody, VerifyOut};
use crate::key::{CreditBalance, Key, SpentCredits};
use crate::limit::RateDecision;
use crate::secret::SecretString;
use crate::service::Unavailable;
use crate::service::verify::{CacheResult, CacheUse, Identity, Verification, VerifyRequest};
use crate::settings::Settings;

pub(crate) async fn verify(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    QueryPairs(query): QueryPairs,
    request: Request,
) -> Reply {
    let origin = origin(&context, &request);
    let cache = cache_use(request.headers());
    let (epoch, cost) = (min_epoch(request.headers())?, cost(&query)?);
    let body: VerifyBody = body::read(request, body::ADMIN_LIMIT).await?;
    let credential = body.credential.unwrap_or_default();
    let audiences = body.expected_audiences.unwrap_or_default();
    let verify_request = VerifyRequest {
        credential: presented(&credential)?,
        client: origin.client,
        audiences: &audiences,
        cache,
    };
    context.service.require_epoch(epoch).await?;
    let verification =
        context.service.verify(&settings, &verify_request).await.map_err(|Unavailable| unavailable())?;
    let verified = charge(&context, &settings, verification, cost, &origin).await;
    let verified = verified.map_err(|Unavailable| unavailable())?;
    let now = context.service.clock.now();
    let mut response = ok(StatusCode::OK, &verified.out(settings.issuer(), now))?;
    set_cache_header(&mut response, verified.verification.cache);
    set_rate_headers(&mut response, &settings, &verified);
    Ok(response)
}

/// Verifies the credentials of a batch concurrently. Results are in the order of the requests.
pub(crate) async fn verify_batch(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    QueryPairs(query): QueryPairs,
    request: Request,
) -> Reply {
    let origin = origin(&context, &request);
    let cache = cache_use(request.headers());
    let (epoch, cost) = (min_epoch(request.headers())?, cost(&query)?);
    let body: BatchVerifyBody = body::read(request, body::ADMIN_LIMIT).await?;
    let requests: Vec<(SecretString, Vec<String>)> = batch(body.requests, MAX_BATCH_VERIFY)?
        .into_iter()
        .map(|body| (body.credential.unwrap_or_default(), body.expected_audiences.unwrap_or_default()))
        .collect();
    context.service.require_epoch(epoch).await?;
    let one = async |(credential, audiences): &(SecretString, Vec<String>)| {
        let credential = presented(credential).map_err(NotVerified::Malformed)?;
        let verify_request = VerifyRequest { credential, client: origin.client, audiences, cache };
        let verification = context.service.verify(&settings, &verify_request).await;
        let verification = verification.map_err(|Unavailable| NotVerified::Unavailable)?;
        let verified = charge(&context, &settings, verification, cost, &origin).await;
        verified.map_err(|Unavailable| NotVerified::Unavailable)
    };
    let results: Vec<_> = join_all(requests.iter().map(one)).await;
    if results.iter().all(|result| matches!(result, Err(NotVerified::Unavailable))) {
        return Err(unavailable());
    }
    let now = context.service.clock.now();
    let results_out = results.iter().map(|result| result_out(result, settings.issuer(), now)).collect();
    let answer = BatchVerifyOut { results: results_out };
    let mut response = ok(StatusCode::OK, &answer)?;
    set_cache_header(
        &mut response,
        overall(results.iter().flatten().map(|verified| verified.verification.cache)),
    );
    let keys = results.iter().flatten().filter_map(|verified| verified.verification.key());
    add_limit_warnings(&mut response, &settings, keys);
    Ok(response)
}

fn result_out<'a>(
    result: &'a Result<Verified, NotVerified>,
    issuer: &'a str,
    now: Timestamp,
) -> VerifyOut<'a> {
    match result {
        Ok(verified) => verified.out(issuer, now),
        Err(NotVerified::Malformed(error)) => {
            VerifyOut::failed("VERIFICATION_ERROR_INVALID_FORMAT", error.message.to_string())
        }
        Err(NotVerified::Unavailable) => {
            VerifyOut::failed("VERIFICATION_ERROR_INTERNAL", unavailable().message.into_owned())
        }
    }
}

/// Error that leaves one credential of a batch without a result.
enum NotVerified {
    Malformed(ApiError),
    Unavailable,
}

fn unavailable() -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, "the credential can't be checked at present; try again")
}

/// A verification, and the charges for it.
struct Verified {
    verification: Verification,
    charge: Option<RateDecision>,
    /// Credits that it cost.
    spent: Option<SpentCredits>,
    /// Balance of the key, unless its row or `spent` says it.
    balance: Option<CreditBalance>,
}

impl Verified {
    fn out<'a>(&'a self, issuer: &'a str, now: Timestamp) -> VerifyOut<'a> {
        let out = VerifyOut::new(&self.verification, issuer, now);
        let out = match &self.charge {
            Some(charge) => out.charged(charge, now),
            None => out,
        };
        let known = self.verification.key().and_then(|key| key.credits.as_ref());
        match self.balance.or(known.map(|credits| credits.balance)) {
            Some(balance) => out.paid(balance, self.spent.as_ref()),
            None => out,
        }
    }
}

/// Records the use of a valid key and charges `cost` for it, or records the failure.
///
/// # Errors
/// Fails with [`Unavailable`] if the key has credits, and none can be spent at present.
async fn charge(
    context: &Context,
    settings: &Settings,
    verification: Verification,
    cost: u32,
    origin: &Origin,
) -> Result<Verified, Unavailable> {
    let (mut charge, mut spent, mut balance) = (None, None, None);
    match &verification.verdict {
        Ok(Identity::Key(entry)) => {
            charge = context.service.charge(settings, &entry.key, cost).await;
            let mut is_allowed = charge.is_none_or(|charge| charge.allowed);
            if is_allowed {
                spent = context.service.spend_credits(&entry.key, cost).await?;
                is_allowed = spent.is_none_or(|spent| spent.allowed);
            }
            if spent.is_none() {
                balance = context.service.credit_balance(&entry.key).await;
            }
            if is_allowed {
                context.service.record_use(entry, context.service.clock.now());
            }
        }
        Ok(Identity::Token(_)) => {}
        Err(rejection) => {
            context.service.record_failure(settings, rejection, Operation::Verify, origin);
        }
    }
    Ok(Verified { verification, charge, spent, balance })
}

/// Returns what a verification costs: nothing with `charge=false`. Other parameters are ignored, as
/// they always were.
fn cost(query: &[(String, String)]) -> Result<u32, ApiError> {
    let mut cost = 1;
    for (_, value) in query.iter().filter(|(name, _)| name == "charge") {
        cost = match value.as_str() {
            "true" => 1,
            "false" => 0,
            _ => return Err(ApiError::field("charge", "must be true or false")),
        };
    }
    Ok(cost)
}

/// Adds headers with the key's rate policies, a warning of those that aren't enforced and, if uses
/// are counted, its remaining quota.
fn set_rate_headers(response: &mut Response, settings: &Settings, verified: &Verified) {
    let Verified { verification, charge, spent, .. } = verified;
    let key = verification.key();
    add_limit_warnings(response, settings, key.into_iter());
    let values = [
        ("ratelimit-policy", key.and_then(Key::rate_policy_header)),
        ("ratelimit", charge.map(|charge| charge.header())),
        (
            "retry-after",
            charge
                .and_then(|charge| charge.retry_after_secs())
                .or(spent.and_then(|spent| spent.retry_after_secs()))
                .map(|seconds| seconds.to_string()),
        ),
    ];
    for (name, value) in values {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().append(name, value);
        }
    }
}

/// Combines the cache results of a batch: miss if there was one, else hit if there was one.
fn overall(results: impl Iterator<Item = CacheResult>) -> CacheResult {
    results.fold(CacheResult::Skip, |overall, result| match (overall, result) {
        (CacheResult::Miss, _) | (_, CacheResult::Miss) => CacheResult::Miss,
        (CacheResult::Hit, _) | (_, CacheResult::Hit) => CacheResult::Hit,
        _ => CacheResult::Skip,
    })
}

fn set_cache_header(response: &mut Response, result: CacheResult) {
    let value = match result {
        CacheResult::Hit => "HIT",
        CacheResult::Miss => "MISS",
        CacheResult::Skip => "SKIP",
    };
    response.headers_mut().insert("ory-talos-cache", HeaderValue::from_static(value));
}

/// `no-store` spares the cache altogether, `no-cache` (and its HTTP/1.0 form) only the reading.
fn cache_use(headers: &HeaderMap) -> CacheUse {
    let says = |name: &str, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    if says("cache-control", "no-store") {
        CacheUse::None
    } else if says("cache-control", "no-cache") || says("pragma", "no-cache") {
        CacheUse::NoRead
    } else {
        CacheUse::Full
    }
}
