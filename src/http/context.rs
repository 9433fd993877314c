//! State that the handlers and middleware of all planes share.

use std::sync::Arc;

use axum::Extension;

use super::middleware::throttle::Throttle;
use crate::admin_auth::AdminAuth;
use crate::readiness::Readiness;
use crate::service::Service;
use crate::service::explain::Explain;
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{Process, Status};

/// Extractor of the settings of the network that a request is for.
pub(super) type NetworkSettings = Extension<Arc<Settings>>;

/// State of the planes.
#[derive(Clone)]
pub struct Context {
    /// Operations.
    pub service: Arc<Service>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Readiness of the process.
    pub readiness: Arc<Readiness>,
    /// Facts about the process.
    pub process: Arc<Process>,
    /// Authentication of the admin plane's callers.
    pub admin_auth: Arc<AdminAuth>,
    /// Explains what the edge would decide.
    pub explainer: Arc<dyn Explain>,
    /// Rate limit of selfRevoke.
    pub throttle: Arc<Throttle>,
}

impl Context {
    /// Returns the status of the process.
    pub fn status(&self) -> Status {
        Status::read(&self.service, &self.metrics, &self.readiness, &self.process)
    }
}
