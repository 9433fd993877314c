//! Refreshes the key set that verifies tokens of admin callers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::error::ServeError;
use crate::admin_auth::{AdminAuth, TokenVerifier};
use crate::rng::Rng;
use crate::settings::sources::{self, is_https};

/// Mean time between two fetches from the issuer's server; each wait is within 10 % of it.
const FETCH_INTERVAL: Duration = Duration::from_secs(300);
/// Time between two readings of a file. For a server, the shortest time between two fetches: after
/// a token named an unknown key, or the last fetch failed.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// Reads the key set for the start. A server that doesn't answer doesn't stop the start: until it
/// does, every token is refused.
///
/// # Errors
/// When the key set can't be used, or is in a file that can't be read.
pub(super) async fn read_at_start(admin_auth: &AdminAuth) -> Result<(), ServeError> {
    let Some(bearer) = admin_auth.token_verifier() else {
        return Ok(());
    };
    match read(bearer).await {
        Err(problem) if bearer.url().is_some_and(is_https) => {
            tracing::error!(
                problem,
                "serve.http.auth.jwt.jwks can't be fetched yet: every token is refused until it can"
            );
            Ok(())
        }
        Err(problem) => Err(ServeError::AdminJwks(problem)),
        Ok(_) => Ok(()),
    }
}

/// Reads the key set again and again, forever.
pub(super) async fn run(admin_auth: Arc<AdminAuth>, rng: Rng) {
    let Some(bearer) = admin_auth.token_verifier() else {
        return std::future::pending().await;
    };
    let is_remote = bearer.url().is_some_and(is_https);
    let mut is_failing = false;
    loop {
        let interval = rng.jittered(FETCH_INTERVAL, 0.1);
        let mut waited = Duration::ZERO;
        loop {
            sleep(MIN_INTERVAL).await;
            waited += MIN_INTERVAL;
            if waited >= interval || is_failing || !is_remote || bearer.take_unknown_key_seen() {
                break;
            }
        }
        let was_failing = is_failing;
        is_failing = match read(bearer).await {
            Ok(keys) if was_failing => {
                tracing::info!(keys, "serve.http.auth.jwt.jwks can be read again");
                false
            }
            Ok(_) => false,
            Err(problem) => {
                tracing::error!(
                    problem,
                    "serve.http.auth.jwt.jwks can't be read; the last key set stays in force"
                );
                true
            }
        };
    }
}

/// Reads the key set and puts it into force. Returns the number of its keys.
async fn read(bearer: &TokenVerifier) -> Result<usize, String> {
    let url = bearer.url().ok_or_else(|| "is unset".to_owned())?;
    let document = sources::read(url).await.map_err(|error| error.to_string())?;
    bearer.replace_keys(document.expose()).map_err(str::to_owned)
}
