//! Checks of the settings and of Redis itself before anything is served.

use super::connection::Target;
use super::settings::{RedisSettings, RedisSettingsError};

/// Checks settings without connecting; reads their files.
///
/// # Errors
/// When an address or a certificate can't be used, or plaintext would leave this machine and isn't
/// allowed to.
pub(crate) fn check(settings: &RedisSettings) -> Result<(), RedisSettingsError> {
    Target::new(settings).map(drop)
}

/// Connects, and tries the commands that every connection begins with.
///
/// # Errors
/// With the reason, which names no password.
pub(crate) async fn probe(settings: &RedisSettings) -> Result<(), String> {
    let target = Target::new(settings).map_err(|error| error.to_string())?;
    let connected = target.connect(None, &[]).await;
    connected.map(drop).map_err(|cause| {
        let addresses = settings.addrs.join(", ");
        // Some reasons begin with the address.
        let reason = cause.reason.strip_prefix(&format!("{addresses}: ")).unwrap_or(&cause.reason);
        format!("{addresses}: {reason}; {}", cause.kind.cure())
    })
}
