//! The keys with which tokens of admin callers are verified, kept in step with what their issuer publishes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::serve::ServeError;
use crate::admission::{Admission, Bearer};
use crate::rng::Rng;
use crate::settings::sources::{self, is_https};

/// How often they are read anew, give or take a tenth, where that means to ask the issuer.
const INTERVAL: Duration = Duration::from_secs(300);
/// How often they are read anew from a file; elsewhere, how soon at the earliest: when a token
/// names one that isn't known, or they couldn't be had.
const SOON: Duration = Duration::from_secs(10);

/// Reads them for the start. An issuer that gives no answer is no reason not to serve: until it does, no token is good.
///
/// # Errors
/// When they can't be used, or are in a file that can't be read.
pub async fn read_keys(admission: &Admission) -> Result<(), ServeError> {
    let Some(bearer) = admission.bearer() else {
        return Ok(());
    };
    match read(bearer).await {
        Err(problem) if bearer.url().is_some_and(is_https) => {
            tracing::error!(problem, "the keys of admin callers' tokens can't be had yet");
            Ok(())
        }
        Err(problem) => Err(ServeError::CallerKeys(problem)),
        Ok(_) => Ok(()),
    }
}

/// Reads them again and again, for ever.
pub async fn keep_keys(admission: Arc<Admission>, rng: Rng) {
    let Some(bearer) = admission.bearer() else {
        return std::future::pending().await;
    };
    let is_remote = bearer.url().is_some_and(is_https);
    let mut failing = false;
    loop {
        let until = rng.jittered(INTERVAL, 0.1);
        let mut waited = Duration::ZERO;
        loop {
            sleep(SOON).await;
            waited += SOON;
            if waited >= until || failing || !is_remote || bearer.has_missed() {
                break;
            }
        }
        let was_failing = failing;
        failing = match read(bearer).await {
            Ok(keys) if was_failing => {
                tracing::info!(keys, "the keys of admin callers' tokens are there again");
                false
            }
            Ok(_) => false,
            Err(problem) => {
                tracing::error!(
                    problem,
                    "the keys of admin callers' tokens can't be read; those that were read stay"
                );
                true
            }
        };
    }
}

async fn read(bearer: &Bearer) -> Result<usize, String> {
    let url = bearer.url().ok_or_else(|| "is unset".to_owned())?;
    let document = sources::read(url).await.map_err(|error| error.to_string())?;
    bearer.take_keys(document.expose()).map_err(str::to_owned)
}
