//! Discovery of the primary by Sentinels.

use std::time::Duration;

use ::redis::RedisResult;
use futures_util::FutureExt;
use futures_util::future::select_ok;

use super::cause::{Cause, CauseKind};
use super::endpoint::{HostPort, Login};
use super::settings::RedisSentinel;
use super::single::{TlsFiles, config, connect};

/// Asks all Sentinels at once; the first that knows the primary counts.
///
/// # Errors
/// When none answers, or none knows the primary.
pub(super) async fn primary(
    sentinels: &[HostPort],
    sentinel: &RedisSentinel,
    tls: TlsFiles<'_>,
    timeout: Duration,
) -> Result<HostPort, Cause> {
    let asked = sentinels.iter().map(|address| {
        async move {
            match tokio::time::timeout(timeout, ask(address, sentinel, tls, timeout)).await {
                Ok(Ok(Some(primary))) => Ok(primary),
                Ok(Ok(None)) => {
                    let reason = format!("the Sentinels know no primary named {:?}", sentinel.master);
                    Err(Cause::new(CauseKind::NoPrimary, reason))
                }
                Ok(Err(error)) => Err(of_sentinel(address, error.into())),
                Err(_) => Err(of_sentinel(address, Cause::timed_out())),
            }
        }
        .boxed()
    });
    select_ok(asked).await.map(|(primary, _)| primary)
}

fn of_sentinel((host, port): &HostPort, cause: Cause) -> Cause {
    let says_unknown = cause.reason.contains("unknown command");
    let kind = if says_unknown { CauseKind::NoPrimary } else { cause.kind };
    Cause::new(kind, format!("Sentinel {host}:{port}: {}", cause.reason))
}

async fn ask(
    address: &HostPort,
    sentinel: &RedisSentinel,
    tls: TlsFiles<'_>,
    timeout: Duration,
) -> RedisResult<Option<HostPort>> {
    let mut connection = connect(address, &Login::to_sentinel(sentinel), tls, config(timeout)).await?;
    let mut command = ::redis::cmd("SENTINEL");
    command.arg("get-master-addr-by-name").arg(&sentinel.master);
    command.query_async(&mut connection).await
}
