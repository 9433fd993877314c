//! The connection to Redis, alone or a cluster: kept up beside the requests, over TLS, listening for announcements.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::AsyncDNSResolver;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisFuture, RedisResult,
    TlsCertificates, Value,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::{Notify, mpsc};

use crate::secret::SecretString;

/// Where changes are announced.
const CHANNEL: &str = "talos:v1:changes";
/// Announcements that wait to be looked at; beyond that it is enough to know that there are some.
const MAX_WAITING: usize = 1_024;
/// The first pause after a connection that failed; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a silent connection is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Where Redis is and how to talk to it.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `host:port`; one is a single server, several are nodes of a cluster.
    pub addrs: Vec<String>,
    /// ACL user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
    /// Number of the logical database; a cluster has only 0.
    pub db: u32,
    /// For connecting, and for what nobody waits for.
    pub timeout: Duration,
    /// What a lookup waits at most.
    pub check_timeout: Duration,
    /// None speaks plaintext.
    pub tls: Option<RedisTls>,
    /// Whether plaintext may leave this machine.
    pub plaintext_allowed: bool,
}

/// TLS to Redis.
#[derive(Debug, Clone, Default)]
pub struct RedisTls {
    /// PEM of the issuers to trust; the system's when None.
    pub ca: Option<Vec<u8>>,
    /// PEM of the client's certificate chain and key.
    pub client: Option<(Vec<u8>, SecretString)>,
    /// Name that the certificate must carry; the address's host when None.
    pub server_name: Option<String>,
}

/// Settings that can't be used. Names the key, and no secret.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// An address isn't one.
    #[error("cache.redis.addrs[{0}]: must be host:port")]
    Address(usize),
    /// A certificate or key can't be used.
    #[error("cache.redis.tls: {0}")]
    Tls(String),
    /// Plaintext to another machine that nobody asked for.
    #[error(
        "cache.redis.tls.enabled: is needed, as cache.redis.addrs[{0}] is no loopback address; \
         set it to true, or to false to send keys' data in plaintext"
    )]
    Plaintext(usize),
    /// A cluster can't be asked for one name.
    #[error("cache.redis.tls.server_name: is for a single server; a cluster's nodes have their own names")]
    ClusterName,
}

enum Target {
    Single { client: Client, resolver: Option<FixedHost> },
    Cluster(Vec<ConnectionInfo>, Option<TlsCertificates>),
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A connection to Redis that is kept up.
pub(crate) struct Link {
    target: Target,
    settings: RedisSettings,
    connection: ArcSwapOption<Connection>,
}

impl Link {
    pub fn new(settings: RedisSettings) -> Result<Self, LinkError> {
        let addresses: Vec<(String, u16)> = settings
            .addrs
            .iter()
            .enumerate()
            .map(|(index, address)| host_and_port(address).ok_or(LinkError::Address(index)))
            .collect::<Result<_, _>>()?;
        let exposed = addresses.iter().position(|(host, _)| !is_loopback(host));
        if let Some(index) = exposed.filter(|_| settings.tls.is_none() && !settings.plaintext_allowed) {
            return Err(LinkError::Plaintext(index));
        }
        let certificates = settings.tls.as_ref().map(certificates).transpose()?;
        let name = settings.tls.as_ref().and_then(|tls| tls.server_name.clone());
        let infos = addresses.iter().map(|address| info(&settings, address, name.as_deref()));
        let infos: Vec<ConnectionInfo> =
            infos.collect::<RedisResult<_>>().map_err(|error| LinkError::Tls(error.to_string()))?;
        let target = match (infos.as_slice(), name) {
            ([info], name) => {
                let client = match &certificates {
                    Some(certificates) => Client::build_with_tls(info.clone(), certificates.clone()),
                    None => Client::open(info.clone()),
                };
                let client = client.map_err(|error| LinkError::Tls(error.to_string()))?;
                let resolver = name.map(|_| FixedHost(addresses[0].0.clone()));
                Target::Single { client, resolver }
            }
            (_, Some(_)) => return Err(LinkError::ClusterName),
            (_, None) => Target::Cluster(infos, certificates),
        };
        Ok(Self { target, settings, connection: ArcSwapOption::empty() })
    }

    /// How long connecting, and what nobody waits for, may take.
    pub const fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    pub async fn get(&self, name: &str) -> RedisResult<Option<Vec<u8>>> {
        self.query(redis::cmd("GET").arg(name)).await
    }

    /// The values of names that a cluster keeps on one node.
    pub async fn get_all(&self, names: &[String]) -> RedisResult<Vec<Option<Vec<u8>>>> {
        self.query(redis::cmd("MGET").arg(names)).await
    }

    pub async fn set(&self, name: &str, value: Vec<u8>, ttl: Duration) -> RedisResult<()> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        self.query(redis::cmd("SET").arg(name).arg(value).arg("PX").arg(millis)).await
    }

    /// Deletes entries and publishes messages. One command each, as a cluster's keys lie apart.
    pub async fn announce(&self, names: &[String], messages: Vec<Vec<u8>>) -> RedisResult<()> {
        let deletions = names.iter().map(|name| redis::cmd("DEL").arg(name).to_owned());
        let messages =
            messages.into_iter().map(|message| redis::cmd("PUBLISH").arg(CHANNEL).arg(message).to_owned());
        let commands: Vec<redis::Cmd> = messages.chain(deletions).collect();
        let all = commands.iter().map(|command| self.query::<()>(command));
        futures_util::future::try_join_all(all).await.map(drop)
    }

    /// Runs a script on one key, whose answer is two numbers.
    pub async fn eval(&self, script: &str, name: &str, arguments: &[u64]) -> RedisResult<[u64; 2]> {
        let (first, second) =
            self.query(redis::cmd("EVAL").arg(script).arg(1).arg(name).arg(arguments)).await?;
        Ok([first, second])
    }

    async fn query<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> RedisResult<T> {
        let connection = self.connection.load_full().ok_or_else(not_connected)?;
        match (*connection).clone() {
            Connection::Single(mut connection) => command.query_async(&mut connection).await,
            Connection::Cluster(mut connection) => command.query_async(&mut connection).await,
        }
    }

    /// Connects, listens, and connects again, for ever.
    pub async fn run(&self, changed: &Notify, is_ours: impl Fn(&[u8]) -> bool) {
        let mut pause = FIRST_PAUSE;
        loop {
            let (pushed, mut pushes) = mpsc::channel(MAX_WAITING);
            let connected = tokio::time::timeout(self.settings.timeout, self.connect(pushed)).await;
            match connected {
                Ok(Ok(connection)) => {
                    tracing::info!("connected to the shared cache");
                    pause = FIRST_PAUSE;
                    self.connection.store(Some(Arc::new(connection.clone())));
                    // What was announced before that was not heard here.
                    changed.notify_one();
                    listen(connection, &mut pushes, self.settings.timeout, changed, &is_ours).await;
                    self.connection.store(None);
                    tracing::warn!("the connection to the shared cache is gone");
                    changed.notify_one();
                }
                Ok(Err(error)) => {
                    // Its own words may hold a server's answer, and never hold a password.
                    tracing::warn!(kind = ?error.kind(), %error, "the shared cache can't be reached");
                }
                Err(_) => tracing::warn!("the shared cache gives no answer"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self, pushed: mpsc::Sender<PushInfo>) -> RedisResult<Connection> {
        // Never blocks: what doesn't fit in is only one more of the same.
        let push = move |info: PushInfo| match pushed.try_send(info) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(()),
        };
        match &self.target {
            Target::Single { client, resolver } => {
                let mut config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(self.settings.timeout))
                    .set_response_timeout(Some(self.settings.timeout))
                    .set_push_sender(push);
                if let Some(resolver) = resolver {
                    config = config.set_dns_resolver(resolver.clone());
                }
                let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
                connection.subscribe(CHANNEL).await?;
                Ok(Connection::Single(connection))
            }
            Target::Cluster(nodes, certificates) => {
                let mut builder = ClusterClient::builder(nodes.clone())
                    .use_protocol(ProtocolVersion::RESP3)
                    .connection_timeout(self.settings.timeout)
                    .response_timeout(self.settings.timeout)
                    .push_sender(push);
                if let Some(certificates) = certificates {
                    builder = builder.certs(certificates.clone());
                }
                let mut connection = builder.build()?.get_async_connection().await?;
                connection.subscribe(CHANNEL).await?;
                Ok(Connection::Cluster(connection))
            }
        }
    }
}

/// Listens until the connection is gone.
async fn listen(
    connection: Connection,
    pushes: &mut mpsc::Receiver<PushInfo>,
    timeout: Duration,
    changed: &Notify,
    is_ours: &impl Fn(&[u8]) -> bool,
) {
    loop {
        match tokio::time::timeout(PING_INTERVAL, pushes.recv()).await {
            Ok(Some(push)) => match push.kind {
                PushKind::Message if push.data.iter().any(|part| is_message(part, is_ours)) => {
                    changed.notify_one()
                }
                // A cluster mends itself, and may have missed something meanwhile.
                PushKind::Disconnection if matches!(connection, Connection::Cluster(_)) => {
                    changed.notify_one()
                }
                PushKind::Disconnection => return,
                _ => {}
            },
            Ok(None) => return,
            Err(_) => {
                let ping = tokio::time::timeout(timeout, answers(connection.clone())).await;
                if !ping.unwrap_or(false) {
                    return;
                }
            }
        }
    }
}

fn is_message(part: &Value, is_ours: &impl Fn(&[u8]) -> bool) -> bool {
    match part {
        Value::BulkString(bytes) => is_ours(bytes),
        _ => false,
    }
}

async fn answers(connection: Connection) -> bool {
    async fn ping(mut connection: impl ConnectionLike) -> RedisResult<()> {
        redis::cmd("PING").query_async(&mut connection).await
    }
    match connection {
        Connection::Single(connection) => ping(connection).await.is_ok(),
        Connection::Cluster(connection) => ping(connection).await.is_ok(),
    }
}

fn not_connected() -> RedisError {
    (redis::ErrorKind::Io, "not connected").into()
}

fn info(
    settings: &RedisSettings,
    (host, port): &(String, u16),
    name: Option<&str>,
) -> RedisResult<ConnectionInfo> {
    let address = match &settings.tls {
        Some(_) => ConnectionAddr::TcpTls {
            // The name that is asked for; where to find it is the resolver's matter.
            host: name.unwrap_or(host).to_owned(),
            port: *port,
            insecure: false,
            tls_params: None,
        },
        None => ConnectionAddr::Tcp(host.clone(), *port),
    };
    let mut redis =
        RedisConnectionInfo::default().set_db(i64::from(settings.db)).set_protocol(ProtocolVersion::RESP3);
    if let Some(username) = &settings.username {
        redis = redis.set_username(username);
    }
    if let Some(password) = &settings.password {
        redis = redis.set_password(password.expose());
    }
    Ok(address.into_connection_info()?.set_redis_settings(redis))
}

fn certificates(tls: &RedisTls) -> Result<TlsCertificates, LinkError> {
    if tls.ca.as_ref().is_some_and(|ca| CertificateDer::pem_slice_iter(ca).next().is_none()) {
        return Err(LinkError::Tls("ca_file: has no certificate".to_owned()));
    }
    let client_tls = tls.client.as_ref().map(|(certificate, key)| ClientTlsConfig {
        client_cert: certificate.clone(),
        client_key: key.expose().as_bytes().to_vec(),
    });
    Ok(TlsCertificates { client_tls, root_cert: tls.ca.clone() })
}

fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']')?,
        None => Some(host).filter(|host| !host.contains([':', '/']))?,
    };
    let port = port.parse().ok()?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Looks up another host than the one whose certificate is asked for.
#[derive(Clone)]
struct FixedHost(String);

impl AsyncDNSResolver for FixedHost {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let addresses: Vec<SocketAddr> =
                tokio::net::lookup_host((self.0.as_str(), port)).await.map_err(RedisError::from)?.collect();
            Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn plaintext_stays_on_this_machine_unless_told() {
        for local in ["localhost:6379", "127.0.0.1:1", "[::1]:6379", "127.9.9.9:1"] {
            assert!(Link::new(settings(&[local])).is_ok(), "{local}");
        }
        let far = settings(&["127.0.0.1:6379", "redis.internal:6379"]);
        assert!(matches!(Link::new(far.clone()), Err(LinkError::Plaintext(1))));
        assert!(Link::new(RedisSettings { plaintext_allowed: true, ..far }).is_ok());
    }

    #[test]
    fn addresses_and_certificates_are_checked_at_the_start() {
        for bad in ["localhost", ":6379", "localhost:", "localhost:70000", "redis://localhost:6379"] {
            assert!(matches!(Link::new(settings(&[bad])), Err(LinkError::Address(0))), "{bad}");
        }
        let tls = |ca: &[u8]| RedisSettings {
            tls: Some(RedisTls { ca: Some(ca.to_vec()), ..RedisTls::default() }),
            ..settings(&["redis.internal:6379"])
        };
        let no_certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for bad in [&no_certificate[..], b"", b"nonsense"] {
            assert!(matches!(Link::new(tls(bad)), Err(LinkError::Tls(_))));
        }
    }
}
