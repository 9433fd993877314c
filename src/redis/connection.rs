//! Connections to one server, to the primary that Sentinels name, or to a cluster, and the messages
//! that these push.

use ::redis::aio::MultiplexedConnection;
use ::redis::cluster::ClusterClient;
use ::redis::cluster_async::ClusterConnection;
use ::redis::{
    AsyncConnectionConfig, Cmd, ConnectionInfo, FromRedisValue, ProtocolVersion, PushInfo, RedisResult,
    TlsCertificates, Value,
};
use tokio::sync::mpsc;

use super::cause::{Cause, CauseKind};
use super::endpoint::{self, HostPort, Login};
use super::sentinel;
use super::settings::{RedisSettings, RedisSettingsError};
#[cfg(feature = "sim")]
use super::simulated::{self, SimulatedConnection};
use super::single::{self, RightsCheck, ServerRole, TlsFiles};
use super::tls;

/// Pushed messages that wait to be handled; further ones are dropped, as they say the same.
const MAX_QUEUED_PUSHES: usize = 1_024;

/// Checked target of connections.
pub(super) struct Target {
    settings: RedisSettings,
    addresses: Vec<HostPort>,
}

/// Multiplexed connection; clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
    #[cfg(feature = "sim")]
    Simulated(SimulatedConnection),
}

/// Messages that a connection pushes.
pub(super) type Pushes = mpsc::Receiver<PushInfo>;

/// Connection that may be used, and what was found on the way to it.
pub(super) struct Connected {
    pub connection: Connection,
    pub pushes: Pushes,
    /// Address of the server or of the cluster, for people.
    pub server: String,
    /// Address that the Sentinels named; `None` without them.
    pub primary: Option<HostPort>,
}

/// Finding of a look at a connection.
pub(super) enum Alive {
    Yes,
    /// The connection is lost, or another server has become the primary.
    No,
    /// The server answers, and can't be used.
    Unusable(Cause),
}

impl Target {
    /// Checks settings; connects to nothing.
    ///
    /// # Errors
    /// When an address or a certificate can't be used, or plaintext would leave this machine and
    /// isn't allowed to.
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, RedisSettingsError> {
        let parse = |(index, address): (usize, &String)| {
            endpoint::parse(address).ok_or(RedisSettingsError::Address(index))
        };
        let addresses = settings.addrs.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
        let target = Self { settings: settings.clone(), addresses };
        if let Some(index) = target.addresses.iter().position(|address| !target.may_reach(address)) {
            return Err(RedisSettingsError::Plaintext(index));
        }
        let certificates = settings.tls.as_ref().map(tls::certificates).transpose()?;
        let is_cluster = settings.sentinel.is_none() && target.addresses.len() > 1;
        if is_cluster && settings.tls.as_ref().is_some_and(|tls| tls.server_name.is_some()) {
            return Err(RedisSettingsError::ClusterName);
        }
        if is_cluster && settings.db != 0 {
            return Err(RedisSettingsError::ClusterDatabase);
        }
        // The library parses certificates when it makes a client.
        for address in &target.addresses {
            let info = target.info(address);
            let client = info.and_then(|info| match &certificates {
                Some(certificates) => ::redis::Client::build_with_tls(info, certificates.clone()),
                None => ::redis::Client::open(info),
            });
            client.map_err(|error| RedisSettingsError::Tls(error.to_string()))?;
        }
        Ok(target)
    }

    /// Returns true if data may be sent to an address.
    fn may_reach(&self, (host, _): &HostPort) -> bool {
        self.settings.tls.is_some() || self.settings.plaintext_allowed || endpoint::is_loopback(host)
    }

    fn info(&self, address: &HostPort) -> RedisResult<ConnectionInfo> {
        endpoint::connection_info(&Login::to_server(&self.settings), address, self.settings.tls.as_ref())
    }

    /// Connects, checks that commands may be sent, and subscribes to a channel if there is one.
    pub(super) async fn connect(
        &self,
        channel: Option<&str>,
        rights: RightsCheck,
    ) -> Result<Connected, Cause> {
        let limit = self.settings.timeout;
        let connected = tokio::time::timeout(limit, self.connect_untimed(channel, rights)).await;
        connected.unwrap_or_else(|_| Err(Cause::timed_out()))
    }

    async fn connect_untimed(&self, channel: Option<&str>, rights: RightsCheck) -> Result<Connected, Cause> {
        #[cfg(feature = "sim")]
        if let Some(server) = simulated::server() {
            let (sender, pushes) = mpsc::channel(MAX_QUEUED_PUSHES);
            let connection = SimulatedConnection::open(server, channel, sender).await?;
            let (connection, server) = (Connection::Simulated(connection), "simulated".to_owned());
            return Ok(Connected { connection, pushes, server, primary: None });
        }
        let certificates = self.certificates()?;
        match (&self.settings.sentinel, self.addresses.as_slice()) {
            (Some(_), _) => {
                let primary = self.primary(certificates.as_ref()).await?;
                self.connect_single(primary.clone(), Some(primary), certificates, channel, rights).await
            }
            (None, [address]) => {
                self.connect_single(address.clone(), None, certificates, channel, rights).await
            }
            (None, addresses) => self.connect_cluster(addresses, certificates, channel, rights).await,
        }
    }

    /// Reads the certificates anew: they may have been renewed.
    fn certificates(&self) -> Result<Option<TlsCertificates>, Cause> {
        let certificates = self.settings.tls.as_ref().map(tls::certificates).transpose();
        certificates.map_err(|error| Cause::new(CauseKind::Tls, error.to_string()))
    }

    fn tls_files<'a>(&'a self, certificates: Option<&'a TlsCertificates>) -> TlsFiles<'a> {
        TlsFiles { settings: self.settings.tls.as_ref(), certificates }
    }

    /// Asks the Sentinels for the primary.
    async fn primary(&self, certificates: Option<&TlsCertificates>) -> Result<HostPort, Cause> {
        let Some(sentinel) = &self.settings.sentinel else {
            return Err(Cause::new(CauseKind::NoPrimary, "there are no Sentinels"));
        };
        let tls = self.tls_files(certificates);
        let primary = sentinel::primary(&self.addresses, sentinel, tls, self.settings.timeout).await?;
        match self.may_reach(&primary) {
            true => Ok(primary),
            false => {
                let reason = format!("the Sentinels name {}:{}, no loopback address", primary.0, primary.1);
                Err(Cause::new(CauseKind::Plaintext, reason))
            }
        }
    }

    /// Connects to one server and checks that it is a primary with the needed rights; to its
    /// cluster if it is a node of one.
    async fn connect_single(
        &self,
        address: HostPort,
        primary: Option<HostPort>,
        certificates: Option<TlsCertificates>,
        channel: Option<&str>,
        rights: RightsCheck,
    ) -> Result<Connected, Cause> {
        let server = format!("{}:{}", address.0, address.1);
        let (sender, pushes) = mpsc::channel(MAX_QUEUED_PUSHES);
        let config: AsyncConnectionConfig =
            single::config(self.settings.timeout).set_push_sender(push_into(sender));
        let (login, tls) = (Login::to_server(&self.settings), self.tls_files(certificates.as_ref()));
        let at = |cause: Cause| Cause::new(cause.kind, format!("{server}: {}", cause.reason));
        let connected = single::connect(&address, &login, tls, config).await;
        let mut connection = connected.map_err(|error| at(error.into()))?;
        match single::role(&mut connection).await.map_err(|error| at(error.into()))? {
            ServerRole::Primary => {}
            ServerRole::Replica => {
                return Err(at(Cause::new(CauseKind::Replica, "is a replica, and takes no writes")));
            }
            ServerRole::Sentinel => {
                return Err(at(Cause::new(
                    CauseKind::SentinelAddress,
                    "is a Sentinel, which stores nothing",
                )));
            }
            ServerRole::ClusterNode => {
                drop(connection);
                return self.connect_cluster(&[address], certificates, channel, rights).await;
            }
        }
        single::check_rights(&mut connection, rights).await.map_err(at)?;
        if let Some(channel) = channel {
            connection.subscribe(channel).await.map_err(|error| at(error.into()))?;
        }
        Ok(Connected { connection: Connection::Single(connection), pushes, server, primary })
    }

    async fn connect_cluster(
        &self,
        addresses: &[HostPort],
        certificates: Option<TlsCertificates>,
        channel: Option<&str>,
        rights: RightsCheck,
    ) -> Result<Connected, Cause> {
        let cluster = |reason: &str| Err(Cause::new(CauseKind::Cluster, reason));
        if self.settings.db != 0 {
            return cluster("the server belongs to a cluster, where cache.redis.db must be 0");
        }
        if self.settings.tls.as_ref().is_some_and(|tls| tls.server_name.is_some()) {
            return cluster(
                "the server belongs to a cluster, whose nodes have names of their own: remove \
                 cache.redis.tls.server_name",
            );
        }
        let (sender, pushes) = mpsc::channel(MAX_QUEUED_PUSHES);
        let infos = addresses.iter().map(|address| self.info(address)).collect::<RedisResult<Vec<_>>>()?;
        let mut builder = ClusterClient::builder(infos)
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(self.settings.timeout)
            .response_timeout(self.settings.timeout)
            .push_sender(push_into(sender));
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        let mut connection = builder.build()?.get_async_connection().await?;
        single::check_rights(&mut connection, rights).await?;
        if let Some(channel) = channel {
            connection.subscribe(channel).await?;
        }
        let names: Vec<String> = addresses.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let server = format!("cluster of {}", names.join(", "));
        Ok(Connected { connection: Connection::Cluster(connection), pushes, server, primary: None })
    }

    /// Looks whether a connection still leads to a primary.
    pub(super) async fn look_at(&self, connection: &Connection, primary: Option<&HostPort>) -> Alive {
        let asked = tokio::time::timeout(self.settings.timeout, connection.clone().look()).await;
        match asked {
            Err(_) => return Alive::No,
            Ok(Ok(ServerRole::Replica)) => {
                return Alive::Unusable(Cause::new(
                    CauseKind::Replica,
                    "has become a replica, and takes no writes",
                ));
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let cause = Cause::from(error);
                match cause.kind {
                    CauseKind::Unreachable | CauseKind::Tls => return Alive::No,
                    kind if kind.needs_new_connection() => return Alive::Unusable(cause),
                    _ => {}
                }
            }
        }
        let Some(primary) = primary else {
            return Alive::Yes;
        };
        // Sentinels that don't answer say nothing.
        let Ok(certificates) = self.certificates() else {
            return Alive::Yes;
        };
        match self.primary(certificates.as_ref()).await {
            Ok(named) if named != *primary => Alive::No,
            Ok(_) | Err(_) => Alive::Yes,
        }
    }
}

/// Returns the receiver of pushed messages. It never blocks the connection: a message that doesn't
/// fit in repeats those that wait.
fn push_into(sender: mpsc::Sender<PushInfo>) -> impl Fn(PushInfo) -> Result<(), ()> + Clone {
    move |info: PushInfo| match sender.try_send(info) {
        Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
        Err(mpsc::error::TrySendError::Closed(_)) => Err(()),
    }
}

impl Connection {
    /// Returns true for a connection to a cluster, which reconnects nodes by itself.
    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Runs one command.
    pub(super) async fn query<T: FromRedisValue>(self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Single(mut connection) => command.query_async(&mut connection).await,
            Self::Cluster(mut connection) => command.query_async(&mut connection).await,
            #[cfg(feature = "sim")]
            Self::Simulated(connection) => Ok(T::from_redis_value(connection.query(command).await?)?),
        }
    }

    /// Asks whether the server is alive, and for its role.
    async fn look(self) -> RedisResult<ServerRole> {
        match self {
            Self::Single(mut connection) => single::role(&mut connection).await,
            Self::Cluster(mut connection) => {
                let pong = ::redis::cmd("PING").query_async::<()>(&mut connection).await;
                pong.map(|()| ServerRole::ClusterNode)
            }
            #[cfg(feature = "sim")]
            Self::Simulated(connection) => {
                connection.query(&::redis::cmd("PING")).await.map(|_| ServerRole::Primary)
            }
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
    use std::time::Duration;

    use super::*;
    use crate::redis::RedisTls;

    fn settings(addrs: &[&str]) -> RedisSettings {
        RedisSettings {
            addrs: addrs.iter().map(|addr| (*addr).to_owned()).collect(),
            sentinel: None,
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
        let file = tempfile::NamedTempFile::new().unwrap();
        let tls = |ca: &[u8]| {
            std::fs::write(file.path(), ca).unwrap();
            RedisSettings {
                tls: Some(RedisTls { ca_file: Some(file.path().to_owned()), ..RedisTls::default() }),
                ..settings(&["redis.internal:6379"])
            }
        };
        let no_certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for bad in [&no_certificate[..], b"", b"nonsense"] {
            assert!(matches!(Target::new(&tls(bad)), Err(RedisSettingsError::Tls(_))));
        }
    }
}
