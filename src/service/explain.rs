//! Explanation of what the edge would decide about a request.
//!
//! The types are here, as the HTTP planes report it; only the authz plane can decide it.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::key::{ActorId, KeyId};
use crate::secret::SecretString;
use crate::settings::Settings;
pub use crate::settings::policy::Policy;
pub use crate::settings::routes::RuleOrigin;

/// A request to explain.
#[derive(Debug, Clone, Default)]
pub struct ExplainRequest {
    /// Method.
    pub method: String,
    /// Host, with or without a port.
    pub host: String,
    /// Path, with or without a query.
    pub path: String,
    /// Credential that it presents in a header. One in the path or query is found there.
    pub credential: Option<SecretString>,
    /// Address of the client.
    pub client: Option<IpAddr>,
    /// Context extensions of Envoy's route.
    pub context_extensions: Vec<(String, String)>,
}

/// Explanation of a decision.
#[derive(Debug, Clone, Default)]
pub struct Explanation {
    /// True if the request passes.
    pub is_allowed: bool,
    /// Reason: as in logs and metrics where it is refused, else what lets it pass.
    pub reason: &'static str,
    /// The reason, in words.
    pub message: String,
    /// Rule of `authz.routes` that the request matches; `None` if it matches none.
    pub rule: Option<RuleOrigin>,
    /// Demand of the route; `None` if that isn't known.
    pub policy: Option<Policy>,
    /// Key of the credential, if it is proven.
    pub key_id: Option<KeyId>,
    /// Actor of that key.
    pub actor: Option<ActorId>,
    /// Scopes that the credential lacks.
    pub missing_scopes: Vec<String>,
}

/// Explains decisions; the authz plane implements it with the code that makes them.
pub trait Explain: Send + Sync {
    /// Explains the decision about a request to the network of these settings. Charges nothing,
    /// counts no use, and records nothing of the credential.
    fn explain<'a>(
        &'a self,
        settings: &'a Arc<Settings>,
        request: &'a ExplainRequest,
    ) -> BoxFuture<'a, Explanation>;
}
