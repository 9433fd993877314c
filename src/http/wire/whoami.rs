//! The caller, as the admin plane knows it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::caller::{Caller, Proof};
use crate::key::NetworkId;

/// A network of the server.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NetworkOfServer")]
struct NetworkOut {
    /// Host by which it is reached.
    hostname: String,
    /// Id.
    network_id: String,
}

/// The caller, and what it may do.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "WhoamiResponse")]
pub(crate) struct WhoamiOut<'a> {
    /// Name: of the certificate, the token's subject, `uid:…`, or `anonymous`.
    caller: &'a str,
    /// True if something proves it.
    is_verified: bool,
    /// Proof of it: `mtls`, `xfcc`, `jwt`, `unix`, or `none`.
    proof: &'static str,
    /// `serve.http.auth.mode`: how callers over the network prove who they are.
    auth_mode: &'static str,
    /// Role: `viewer`, `issuer` or `admin`.
    role: &'static str,
    /// Network that the host of the request chose.
    network_id: String,
    /// Ids of the operations that the role may call.
    operations: Vec<&'static str>,
    /// All networks of the server, for callers with the role `admin`; absent without multitenancy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<NetworkOut>>")]
    networks: Vec<NetworkOut>,
}

impl<'a> WhoamiOut<'a> {
    /// Returns what is known of a caller.
    pub(crate) fn new(
        caller: &'a Caller,
        auth_mode: &'static str,
        network: NetworkId,
        operations: Vec<&'static str>,
    ) -> Self {
        Self {
            caller: &caller.name,
            is_verified: caller.proof != Proof::None,
            proof: caller.proof.name(),
            auth_mode,
            role: caller.role.name(),
            network_id: network.to_string(),
            operations,
            networks: vec![],
        }
    }

    /// Adds the networks that an admin may look after, by host.
    pub(crate) fn with_networks<'h>(self, networks: impl Iterator<Item = (&'h str, NetworkId)>) -> Self {
        let mut networks: Vec<NetworkOut> = networks
            .map(|(host, id)| NetworkOut { hostname: host.to_owned(), network_id: id.to_string() })
            .collect();
        networks.sort_by(|one, other| one.hostname.cmp(&other.hostname));
        Self { networks, ..self }
    }
}
