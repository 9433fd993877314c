//! TLS as a client speaks it, to listeners on loopback that are all called `talos.test`.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::rig::authority::Authority;
use crate::rig::grpc::Grpc;
use crate::rig::http::{Base, Call, Reply, Version};
use crate::rig::support::{Must, TIMEOUT};
use crate::rig::talos::Setup;

/// Name in the certificates of the listeners.
pub const NAME: &str = "talos.test";

/// A client that trusts an authority, with a certificate of its own or without.
#[derive(Clone)]
pub struct Client(ClientConfig);

impl Client {
    pub fn trusting(authority: &Authority) -> Client {
        Client::new(authority, None)
    }

    pub fn showing(authority: &Authority, pair: &(String, String)) -> Client {
        Client::new(authority, Some(pair))
    }

    fn new(authority: &Authority, pair: Option<&(String, String)>) -> Client {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.pem().as_bytes()) {
            roots.add(certificate.must("a certificate")).must("an authority");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().must("versions");
        let builder = builder.with_root_certificates(roots);
        Client(match pair {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
                let chain = chain.collect::<Result<Vec<_>, _>>().must("a chain");
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).must("a key");
                builder.with_client_auth_cert(chain, key).must("a pair")
            }
        })
    }

    /// Limits the bytes of each TLS record.
    pub fn with_records(mut self, bytes: Option<usize>) -> Client {
        self.0.max_fragment_size = bytes;
        self
    }

    /// Returns the first message of a handshake.
    pub fn hello(&self) -> Vec<u8> {
        let name = ServerName::try_from(NAME).must(NAME);
        let mut connection = ClientConnection::new(Arc::new(self.0.clone()), name).must("a handshake");
        let mut bytes = vec![];
        connection.write_tls(&mut bytes).must("a ClientHello");
        bytes
    }

    pub async fn connect(&self, base: Base, version: Version) -> Result<TlsStream<TcpStream>, String> {
        let stream = TcpStream::connect(base.0).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let protocol: &[u8] = if version == Version::Http2 { b"h2" } else { b"http/1.1" };
        let mut config = self.0.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from(NAME).must(NAME);
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        connected.map_err(|error| error.to_string())
    }

    /// Sends a request; an error when no whole answer came back.
    pub async fn try_send(&self, base: Base, version: Version, call: Call) -> Result<Reply, String> {
        let exchange = async {
            let stream = self.connect(base, version).await?;
            base.exchange_over(stream, version, call).await
        };
        tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| "no answer in time".to_owned())?
    }

    pub async fn send(&self, base: Base, version: Version, call: Call) -> Reply {
        self.try_send(base, version, call).await.must("a request over TLS")
    }

    pub async fn grpc(&self, base: Base) -> Result<Grpc, String> {
        Grpc::over(base, self.connect(base, Version::Http2).await?).await
    }
}

impl Setup {
    /// Turns TLS on for a plane (`HTTP`, `PUBLIC`, `METRICS` or `AUTHZ`), with files in the
    /// directory of the process.
    pub fn tls(self, plane: &str, pair: &(String, String)) -> Setup {
        self.put_pair(plane, pair);
        let path = |kind: &str| self.path(&format!("{plane}-{kind}.pem")).display().to_string();
        let (certificate, key) = (path("certificate"), path("key"));
        self.set(&format!("TALOS_SERVE_{plane}_TLS_CERT_FILE"), &certificate)
            .set(&format!("TALOS_SERVE_{plane}_TLS_KEY_FILE"), &key)
    }

    /// Writes the certificate and the key of a plane anew.
    pub fn put_pair(&self, plane: &str, (certificate, key): &(String, String)) {
        for (kind, text) in [("certificate", certificate), ("key", key)] {
            std::fs::write(self.path(&format!("{plane}-{kind}.pem")), text).must("writing a PEM file");
        }
    }

    /// Makes a plane ask for client certificates of an authority.
    pub fn client_ca(self, plane: &str, authority: &Authority) -> Setup {
        let path = self.path(&format!("{plane}-client-ca.pem"));
        std::fs::write(&path, authority.pem()).must("writing a PEM file");
        self.set(&format!("TALOS_SERVE_{plane}_TLS_CLIENT_CA_FILE"), &path.display().to_string())
    }
}
