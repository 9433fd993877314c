//! The caller, as the admin plane knows it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::caller::{Caller, Proof};
use crate::key::NetworkId;

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
        }
    }
}
