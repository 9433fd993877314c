//! Connections to one server or to a cluster, and the messages that these push.

use std::time::Duration;

use ::redis::aio::{ConnectionLike, MultiplexedConnection};
use ::redis::cluster::ClusterClient;
use ::redis::cluster_async::ClusterConnection;
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, ProtocolVersion, PushInfo, PushKind,
    RedisResult, TlsCertificates, Value,
};
use tokio::sync::mpsc;

use super::endpoint::{self, FixedHost};
use super::settings::{RedisSettings, RedisSettingsError};
use super::tls;

/// Pushed messages that wait to be handled; further ones are dropped, as they say the same.
const MAX_QUEUED_PUSHES: usize = 1_024;
/// Time without a push after which a connection is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Checked target of connections.
pub(super) enum Target {
    Single { client: Client, resolver: Option<FixedHost> },
    Cluster(Vec<ConnectionInfo>, Option<TlsCertificates>),
}

/// Multiplexed connection; clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Messages that a connection pushes.
pub(super) type Pushes = mpsc::Receiver<PushInfo>;

/// Event on a connection.
pub(super) enum Event {
    /// A message of a subscribed channel.
    Message(PushInfo),
    /// A cluster reconnected a node by itself, and may have missed messages.
    Reconnected,
    /// The connection is lost.
    Closed,
}

impl Target {
    /// Checks settings; connects to nothing.
    ///
    /// # Errors
    /// When an address or a certificate can't be used, or plaintext would leave this machine and
    /// isn't allowed to.
    pub fn new(settings: &RedisSettings) -> Result<Self, RedisSettingsError> {
        let parse = |(index, address): (usize, &String)| {
            endpoint::parse(address).ok_or(RedisSettingsError::Address(index))
        };
        let addresses = settings.addrs.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
        let remote = addresses.iter().position(|(host, _)| !endpoint::is_loopback(host));
        if let Some(index) = remote.filter(|_| settings.tls.is_none() && !settings.plaintext_allowed) {
            return Err(RedisSettingsError::Plaintext(index));
        }
        let certificates = settings.tls.as_ref().map(tls::certificates).transpose()?;
        let server_name = settings.tls.as_ref().and_then(|tls| tls.server_name.clone());
        let infos = addresses
            .iter()
            .map(|address| endpoint::connection_info(settings, address, server_name.as_deref()));
        let infos: Vec<ConnectionInfo> =
            infos.collect::<RedisResult<_>>().map_err(|error| RedisSettingsError::Tls(error.to_string()))?;
        match (infos.as_slice(), server_name) {
            ([info], server_name) => {
                let client = match certificates {
                    Some(certificates) => Client::build_with_tls(info.clone(), certificates),
                    None => Client::open(info.clone()),
                };
                let client = client.map_err(|error| RedisSettingsError::Tls(error.to_string()))?;
                let resolver = server_name.map(|_| FixedHost(addresses[0].0.clone()));
                Ok(Self::Single { client, resolver })
            }
            (_, Some(_)) => Err(RedisSettingsError::ClusterName),
            (_, None) => Ok(Self::Cluster(infos, certificates)),
        }
    }

    /// Connects, and subscribes to a channel if there is one.
    pub async fn connect(
        &self,
        timeout: Duration,
        channel: Option<&str>,
    ) -> RedisResult<(Connection, Pushes)> {
        let (sender, pushes) = mpsc::channel(MAX_QUEUED_PUSHES);
        // Never blocks the connection: a message that doesn't fit in repeats those that wait.
        let push = move |info: PushInfo| match sender.try_send(info) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(()),
        };
        let connection = match self {
            Self::Single { client, resolver } => {
                let mut config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(timeout))
                    .set_response_timeout(Some(timeout))
                    .set_push_sender(push);
                if let Some(resolver) = resolver {
                    config = config.set_dns_resolver(resolver.clone());
                }
                let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
                if let Some(channel) = channel {
                    connection.subscribe(channel).await?;
                }
                Connection::Single(connection)
            }
            Self::Cluster(nodes, certificates) => {
                let mut builder = ClusterClient::builder(nodes.clone())
                    .use_protocol(ProtocolVersion::RESP3)
                    .connection_timeout(timeout)
                    .response_timeout(timeout)
                    .push_sender(push);
                if let Some(certificates) = certificates {
                    builder = builder.certs(certificates.clone());
                }
                let mut connection = builder.build()?.get_async_connection().await?;
                if let Some(channel) = channel {
                    connection.subscribe(channel).await?;
                }
                Connection::Cluster(connection)
            }
        };
        Ok((connection, pushes))
    }
}

impl Connection {
    /// Runs one command.
    pub async fn query<T: FromRedisValue>(self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Single(mut connection) => command.query_async(&mut connection).await,
            Self::Cluster(mut connection) => command.query_async(&mut connection).await,
        }
    }

    /// Waits for the next event. A connection that pushes nothing is pinged now and then, and must
    /// answer within `timeout`.
    pub async fn next_event(&self, pushes: &mut Pushes, timeout: Duration) -> Event {
        loop {
            match tokio::time::timeout(PING_INTERVAL, pushes.recv()).await {
                Ok(Some(push)) => match push.kind {
                    PushKind::Message => return Event::Message(push),
                    PushKind::Disconnection if matches!(self, Self::Cluster(_)) => return Event::Reconnected,
                    PushKind::Disconnection => return Event::Closed,
                    _ => {}
                },
                Ok(None) => return Event::Closed,
                Err(_) => {
                    let is_alive = tokio::time::timeout(timeout, self.clone().ping()).await;
                    if !is_alive.unwrap_or(false) {
                        return Event::Closed;
                    }
                }
            }
        }
    }

    async fn ping(self) -> bool {
        async fn ping(mut connection: impl ConnectionLike) -> RedisResult<()> {
            ::redis::cmd("PING").query_async(&mut connection).await
        }
        match self {
            Self::Single(connection) => ping(connection).await.is_ok(),
            Self::Cluster(connection) => ping(connection).await.is_ok(),
        }
    }
}

/// Returns the texts in a pushed message: its channel and its payload.
pub(super) fn texts(push: &PushInfo) -> impl Iterator<Item = &[u8]> {
    push.data.iter().filter_map(|part| match part {
        Value::BulkString(bytes) => Some(bytes.as_slice()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::RedisTls;

    fn settings(addrs: &[&str]) -> RedisSettings {
        RedisSettings {
            addrs: addrs.iter().map(|addr| (*addr).to_owned()).collect(),
            username: None,
            password: None,
            db: 0,
            timeout: Duration::from_secs(1),
            check_timeout: Duration::from_millis(10),
            tls: None,
            plaintext_allowed: false,
        }
    }

    #[test]
    fn plaintext_stays_on_this_machine_unless_allowed() {
        for local in ["localhost:6379", "127.0.0.1:1", "[::1]:6379", "127.9.9.9:1"] {
            assert!(Target::new(&settings(&[local])).is_ok(), "{local}");
        }
        let far = settings(&["127.0.0.1:6379", "redis.internal:6379"]);
        assert!(matches!(Target::new(&far), Err(RedisSettingsError::Plaintext(1))));
        assert!(Target::new(&RedisSettings { plaintext_allowed: true, ..far }).is_ok());
    }

    #[test]
    fn addresses_and_certificates_are_checked_at_the_start() {
        for bad in ["localhost", ":6379", "localhost:", "localhost:70000", "redis://localhost:6379"] {
            assert!(matches!(Target::new(&settings(&[bad])), Err(RedisSettingsError::Address(0))), "{bad}");
        }
        let tls = |ca: &[u8]| RedisSettings {
            tls: Some(RedisTls { ca: Some(ca.to_vec()), ..RedisTls::default() }),
            ..settings(&["redis.internal:6379"])
        };
        let no_certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for bad in [&no_certificate[..], b"", b"nonsense"] {
            assert!(matches!(Target::new(&tls(bad)), Err(RedisSettingsError::Tls(_))));
        }
    }
}
