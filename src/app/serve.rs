//! Runs the process: builds it, binds its listeners, serves until a signal, drains.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;
use tower::ServiceExt;

use super::accept::Acceptor;
use super::bind::bind;
use super::build::{Built, build};
use super::certificates::Certificates;
use super::error::ServeError;
use super::http_memory::HttpMemory;
use super::limits::HTTP_MEMORY;
use super::polling::{prepare, set_serving};
use super::preflight::{self, Preflight, preflight};
use super::reload::Reloader;
use super::signals::StopSignals;
use super::tasks::{TaskFailure, Tasks};
use super::workers::{FallbackFactory, Workers};
use super::{background, connections, container, denied_templates, fallback, start_log, unadopted};
use crate::audit::HeadReporter;
use crate::authz::{AuthorizationService, Templates};
use crate::config::{Config, LastUsed, Loaded, Source};
use crate::error;
use crate::http::{Context, admin_router, metrics_router, public_router};
use crate::plane::{Plane, Planes};
use crate::service::usage::UsageWriter;
use crate::service::{Service, UseWriter};
use crate::telemetry::traces::{self, Traces};

/// Time for the database to learn the end of the audit log, once all else has stopped.
const AUDIT_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a configuration, which was loaded from `source`, until SIGTERM or SIGINT. Changes of the
/// source are applied meanwhile.
///
/// # Errors
/// When the start fails, a task ends early, or a second signal comes while requests are completed.
pub async fn serve(source: Source, loaded: Loaded, planes: Planes) -> Result<(), ServeError> {
    let checks = preflight::Options { fetch: false, files: true };
    let Preflight { problems, .. } = preflight(&source, &loaded, planes, checks).await;
    if !problems.is_empty() {
        return Err(ServeError::Preflight(problems));
    }
    let is_metrics_port_set = loaded.is_set("serve.metrics.port");
    let config = loaded.config;
    error::set_branding(config.errors.domain.clone(), config.errors.docs_url.clone());
    let traces = traces::start(&config.tracing)?;
    let templates = Arc::new(denied_templates::read_at_start(&config.authz)?);
    let Built { context, documents, uses, usage, audit_heads } = build(&config, planes).await?;
    let file = source.file().map(Path::to_owned);
    let reloader = Reloader::new(source, config.clone(), documents, &context)?;
    let (health, health_service) = tonic_health::server::health_reporter();
    set_serving(&health, false).await;
    prepare(&context.service).await;
    start_log::log(file.as_deref(), &config, planes, &context.service).await;
    unadopted::look_at_start(&context).await;
    container::warn_of_hidden_listeners(&config, planes);

    let clock = &context.service.clock;
    let acceptors = bind(&config, planes, is_metrics_port_set, clock, &context.metrics.connections).await?;
    let certificates = Certificates::new(&acceptors, &context)?;
    let fallback = fallback::factory(health_service)?;
    let stop = CancellationToken::new();
    let mut running = Running {
        planes: serve_planes(acceptors, &config, &context, &templates, &fallback, &stop)?,
        background: background::spawn(
            &config,
            planes,
            &context,
            reloader,
            certificates,
            templates,
            health.clone(),
        ),
        records: Records::spawn(&config, &context, (uses, usage), audit_heads),
        context,
        health,
        stop,
        traces,
    };

    let mut signals = StopSignals::new()?;
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "stopping"),
        failure = running.next_failure() => {
            tracing::error!(task = failure.name, "stopping: {failure}");
            return Err(failure.into());
        }
    }
    tokio::select! {
        () = running.drain() => Ok(()),
        signal = signals.next() => Err(ServeError::Interrupted(signal)),
    }
}

/// The running process.
struct Running {
    context: Context,
    health: HealthReporter,
    /// Told to planes and their connections.
    stop: CancellationToken,
    planes: Tasks,
    background: Tasks,
    records: Records,
    traces: Option<Traces>,
}

impl Running {
    /// Waits until a task has ended early.
    async fn next_failure(&mut self) -> TaskFailure {
        tokio::select! {
            failure = self.planes.next_failure() => failure,
            failure = self.background.next_failure() => failure,
            failure = self.records.uses.next_failure() => failure,
            failure = self.records.audit.next_failure() => failure,
        }
    }

    /// Completes requests in flight, then writes what they have recorded.
    async fn drain(self) {
        self.context.readiness.start_draining();
        set_serving(&self.health, false).await;
        self.stop.cancel();
        self.planes.join().await;
        self.background.abort().await;
        self.records.planes_drained.cancel();
        self.records.uses.join().await;
        self.context.service.audit.report_suppressed(None);
        let store = self.context.service.store.clone();
        // The audit log is closed when its last owner is dropped.
        drop(self.context);
        if tokio::time::timeout(AUDIT_CLOSE_TIMEOUT, self.records.audit.join()).await.is_err() {
            tracing::warn!(
                "the end of the audit log could not be saved in the database in time: lines removed from it may go unnoticed"
            );
        }
        store.close().await;
        if let Some(traces) = self.traces {
            traces.stop().await;
        }
        tracing::info!("stopped");
    }
}

/// Tasks that write what requests have recorded. They outlive the planes.
struct Records {
    uses: Tasks,
    /// Tells `uses` to write the rest and end.
    planes_drained: CancellationToken,
    /// Ends when the audit log is closed.
    audit: Tasks,
}

impl Records {
    /// Spawns the tasks that write last uses, usage and the audit log's head.
    fn spawn(
        config: &Config,
        context: &Context,
        (uses, usage): (UseWriter, UsageWriter),
        audit_heads: Option<HeadReporter>,
    ) -> Self {
        let LastUsed { flush_size, flush_interval, .. } = config.last_used;
        let (store, clock) = (context.service.store.clone(), context.service.clock.clone());
        let planes_drained = CancellationToken::new();
        let mut records = Self { uses: Tasks::default(), planes_drained, audit: Tasks::default() };
        let writer = uses.write(store, flush_size, flush_interval, clock, records.planes_drained.clone());
        records.uses.spawn("write last uses of keys", writer);
        let Service { usage: counter, store, clock, rng, .. } = &*context.service;
        let (store, clock, stop) = (store.clone(), clock.clone(), records.planes_drained.clone());
        let writer = usage.write(Arc::clone(counter), store, clock, rng.uuid(), stop);
        records.uses.spawn("write usage of keys", writer);
        if let Some(heads) = audit_heads {
            records.audit.spawn("record the head of the audit log", heads.run());
        }
        records
    }
}

/// Starts one task per listener.
fn serve_planes(
    acceptors: Vec<Acceptor>,
    config: &Config,
    context: &Context,
    templates: &Arc<ArcSwap<Templates>>,
    fallback: &FallbackFactory,
    stop: &CancellationToken,
) -> Result<Tasks, ServeError> {
    let mut tasks = Tasks::default();
    let memory = Arc::new(HttpMemory::new(HTTP_MEMORY, context.metrics.refused_requests.clone()));
    for acceptor in acceptors {
        let stop = stop.clone();
        let (name, router) = match acceptor.plane() {
            Plane::Admin => ("serve the admin plane", admin_router(context.clone())),
            Plane::Public => ("serve the public plane", public_router(context.clone())),
            Plane::Metrics => ("serve the metrics plane", metrics_router(context.clone())),
            Plane::Authz => {
                let (service, metrics) = (Arc::clone(&context.service), Arc::clone(&context.metrics));
                let service = AuthorizationService::new(service, metrics, Handle::current())
                    .with_templates(Arc::clone(templates));
                let max_age = Some(config.serve.authz.max_connection_age).filter(|age| !age.is_zero());
                let rng = context.service.rng.clone();
                let workers = Workers::start(&service, fallback, max_age, rng, stop)?;
                tasks.spawn_fallible("serve the authz plane", workers.serve(acceptor));
                continue;
            }
        };
        let handle = move |request| answer(router.clone(), request);
        tasks.spawn(name, connections::serve(acceptor, Arc::clone(&memory), stop, handle));
    }
    Ok(tasks)
}

async fn answer(router: Router, request: Request<Body>) -> Response<Body> {
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
