//! Connections to one server: made, asked for its role, and checked for the rights of our user.

use std::collections::HashMap;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Cmd, RedisResult, TlsCertificates, Value};

use super::cause::{Cause, CauseKind};
use super::endpoint::{FixedHost, HostPort, Login, connection_info};
use super::settings::RedisTls;

/// Commands that show whether our user may do what is needed, each with harmless arguments.
pub(crate) type RightsCheck = &'static [&'static [&'static str]];

/// Kind of a server, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerRole {
    /// Takes reads and writes.
    Primary,
    /// Follows a primary.
    Replica,
    /// Node of a cluster.
    ClusterNode,
    /// Watches over primaries.
    Sentinel,
}

/// TLS settings, and their files as they are now.
#[derive(Clone, Copy)]
pub(super) struct TlsFiles<'a> {
    pub settings: Option<&'a RedisTls>,
    pub certificates: Option<&'a TlsCertificates>,
}

/// Connects to one server.
pub(super) async fn connect(
    address: &HostPort,
    login: &Login<'_>,
    tls: TlsFiles<'_>,
    mut config: AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    let info = connection_info(login, address, tls.settings)?;
    let client = match tls.certificates {
        Some(certificates) => Client::build_with_tls(info, certificates.clone())?,
        None => Client::open(info)?,
    };
    if tls.settings.is_some_and(|tls| tls.server_name.is_some()) {
        config = config.set_dns_resolver(FixedHost(address.0.clone()));
    }
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Makes the configuration of a connection.
pub(super) fn config(timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout))
}

/// Asks a server for its role. HELLO is what every connection begins with, so a user who may
/// connect may send it.
pub(super) async fn role(connection: &mut MultiplexedConnection) -> RedisResult<ServerRole> {
    let hello: HashMap<String, Value> = ::redis::cmd("HELLO").query_async(connection).await?;
    let word = |name: &str| match hello.get(name) {
        Some(Value::BulkString(text)) => String::from_utf8_lossy(text).into_owned(),
        Some(Value::SimpleString(text) | Value::VerbatimString { text, .. }) => text.clone(),
        _ => String::new(),
    };
    Ok(match (word("mode").as_str(), word("role").as_str()) {
        ("sentinel", _) => ServerRole::Sentinel,
        ("cluster", _) => ServerRole::ClusterNode,
        (_, "replica" | "slave") => ServerRole::Replica,
        _ => ServerRole::Primary,
    })
}

/// Runs the commands that are needed.
///
/// # Errors
/// With the command that the user may not run, or that the server refuses.
pub(super) async fn check_rights(
    connection: &mut impl ::redis::aio::ConnectionLike,
    commands: RightsCheck,
) -> Result<(), Cause> {
    for words in commands {
        let mut command = Cmd::new();
        for word in *words {
            command.arg(*word);
        }
        if let Err(error) = command.query_async::<Value>(connection).await {
            let name = words.first().copied().unwrap_or_default();
            let cause = Cause::from(error);
            return Err(match cause.kind {
                CauseKind::Rights => Cause::new(cause.kind, format!("{name}: {}", cause.reason)),
                _ => cause,
            });
        }
    }
    Ok(())
}
