//! Options of an examination.

use crate::config::{Authz, ServeAuthz};

/// Options of an examination.
#[derive(Debug, Default, Clone, Copy)]
pub struct Options<'a> {
    /// Clusters of the Talos servers. Empty: every gRPC ext_authz filter is taken to call Talos.
    pub clusters: &'a [String],
    /// Talos' own settings, to compare Envoy's with.
    pub authz: Option<&'a Authz>,
    /// Talos' own authz listener, likewise.
    pub listener: Option<&'a ServeAuthz>,
}
