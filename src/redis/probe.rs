//! Probe of Redis before anything is served.

use ::redis::RedisResult;

use super::connection::{Connection, Target};
use super::settings::RedisSettings;

/// Connects and sends a PING.
///
/// # Errors
/// With the reason, which names no password.
pub(crate) async fn probe(settings: &RedisSettings) -> Result<(), String> {
    let target = Target::new(settings).map_err(|error| error.to_string())?;
    let ping = async {
        let (connection, _pushes): (Connection, _) = target.connect(settings.timeout, None).await?;
        let pong: RedisResult<String> = connection.query(&::redis::cmd("PING")).await;
        pong.map(drop)
    };
    match tokio::time::timeout(settings.timeout, ping).await {
        Ok(result) => result.map_err(|error| format!("{}: {error}", settings.addrs.join(", "))),
        Err(_) => Err(format!("{}: no answer within {:?}", settings.addrs.join(", "), settings.timeout)),
    }
}
