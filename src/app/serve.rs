//! One start for all forms of `serve`: build, bind, serve, drain.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body as AxumBody;
use futures_util::FutureExt;
use http::Request;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body as TonicBody;
use tonic_health::pb::health_server::Health;
use tower::ServiceExt;

use super::accept::Acceptor;
use super::background;
use super::callers;
use super::certificates::Certificates;
use super::connections;
use super::denied::{self, TemplateFileError};
use super::deny::{self, DenyFileError};
use super::listeners::{BindError, Listener, raise_file_limit};
use super::relay::{self, Relay};
use super::reload::Reloader;
use super::signals::stop_signal;
use super::workers::{MakeOthers, Workers};
use crate::admission::Admission;
use crate::audit::{Audit, AuditError, AuditLog, ChainKeys, Heads, LogSettings};
use crate::authz::{MAX_OTHER_MESSAGE, Plane, Reflection};
use crate::cache::freshness::{Freshness, Terms};
use crate::cache::memory::Memory;
use crate::cache::shared::{LinkError, RedisSettings, RedisTls, Shared};
use crate::clock::Clock;
use crate::config::{CacheType, Config, Consistency, LastUsed, RateLimitBackend, Source, Tls};
use crate::http::{Context, admin_router, metrics_router, public_router};
use crate::key::deny::DenyList;
use crate::limit::{Limiter, RedisLimiter};
use crate::rng::Rng;
use crate::service::{Guards, NotedUses, Records, Service, Tiers, uses};
use crate::settings::sources::{Documents, Reading};
use crate::settings::{Settings, SettingsError};
use crate::store::{Store, StoreError};
use crate::telemetry::status::Process;
use crate::telemetry::traces::{self, TracesError};
use crate::tls::{Alpn, Files, Identity, TlsError};

/// How long the database may take to be told where the audit log ends, once all else has stopped.
const AUDIT_PATIENCE: Duration = Duration::from_secs(5);

/// Which planes to serve. The metrics plane is always among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planes {
    /// The admin plane.
    pub admin: bool,
    /// The public plane.
    pub public: bool,
    /// The authz plane.
    pub authz: bool,
}

impl Planes {
    fn names(self) -> Vec<&'static str> {
        let Self { admin, public, authz } = self;
        let planes = [(admin, "admin"), (public, "public"), (authz, "authz"), (true, "metrics")];
        planes.into_iter().filter(|(served, _)| *served).map(|(_, name)| name).collect()
    }
}

/// Why serving didn't begin, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration can't be put into force.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The deny list can't be used.
    #[error(transparent)]
    DenyFile(#[from] DenyFileError),
    /// The texts for refusals can't be used.
    #[error(transparent)]
    TemplateFile(#[from] TemplateFileError),
    /// The audit log can't be used.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Traces can't be sent.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// L2 can't be used as it is configured.
    #[error(transparent)]
    Shared(#[from] LinkError),
    /// The keys of who issues tokens to admin callers can't be used.
    #[error("serve.http.auth.jwt.jwks: {0}")]
    CallerKeys(String),
    /// A listener can't be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The authz plane can't describe itself.
    #[error("server reflection: {0}")]
    Reflection(String),
    /// A listener's certificate can't be used.
    #[error("serve.{section}.tls: {problem}")]
    Tls {
        /// The section of its settings.
        section: &'static str,
        /// What is wrong.
        problem: TlsError,
    },
    /// The system lets us have no threads, or no signals.
    #[error("the operating system: {0}")]
    System(#[from] std::io::Error),
    /// A task that should go on for ever has ended.
    #[error("the {0} task ended; half a service is none")]
    TaskEnded(&'static str),
}

/// Serves `config`, which came from `source`, until SIGTERM or SIGINT; changes of the source are taken up meanwhile.
///
/// # Errors
/// When it can't begin, or one of its tasks ends before it is told to.
pub async fn serve(source: Source, config: Config, planes: Planes) -> Result<(), ServeError> {
    let traces = traces::start(&config.tracing)?;
    let templates = config.authz.denied_template_file.as_deref().map(denied::read).transpose()?;
    let templates = Arc::new(ArcSwap::from_pointee(templates.unwrap_or_default()));
    let Built { context, documents, noted_uses, heads } = build(&config, planes).await?;
    let (service, metrics) = (Arc::clone(&context.service), Arc::clone(&context.metrics));
    let reloader = Reloader::new(source, config.clone(), documents, service, metrics)?;
    let (health, health_server) = tonic_health::server::health_reporter();
    let health_server = health_server.max_decoding_message_size(MAX_OTHER_MESSAGE);
    background::set_serving(&health, false).await;
    let stop = CancellationToken::new();
    let mut tasks: JoinSet<&'static str> = JoinSet::new();

    background::prepare(&context.service).await;
    // All listeners first: a process either serves everything or nothing.
    raise_file_limit();
    let acceptors = bind(&config, planes, &context).await?;
    let identities = acceptors.iter().filter_map(|(name, acceptor)| Some((*name, acceptor.identity()?)));
    let certificates = Certificates::new(
        identities.collect(),
        context.service.clock.clone(),
        context.metrics.connections.clone(),
    )?;
    for (name, acceptor) in acceptors {
        let stop = stop.clone();
        let router = match name {
            "admin" => Some(admin_router(context.clone())),
            "public" => Some(public_router(context.clone())),
            "metrics" => Some(metrics_router(context.clone())),
            _ => None,
        };
        match router {
            Some(router) => tasks.spawn(async move {
                connections::serve(acceptor, stop, move |request| answer(router.clone(), request)).await;
                name
            }),
            None => {
                let (service, metrics) = (Arc::clone(&context.service), Arc::clone(&context.metrics));
                let plane =
                    Plane::new(service, metrics, Handle::current()).with_templates(Arc::clone(&templates));
                let health = health_server.clone();
                let reflection =
                    Reflection::new().map_err(|error| ServeError::Reflection(error.to_string()))?;
                let others: MakeOthers = Arc::new(move || {
                    let (health, reflection) = (health.clone(), reflection.clone());
                    Rc::new(move |request| {
                        answer_grpc(health.clone(), reflection.clone(), request).boxed_local()
                    })
                });
                let age = Some(config.serve.authz.max_connection_age).filter(|age| !age.is_zero());
                let workers = Workers::start(&plane, &others, age, context.service.rng.clone(), stop)?;
                tasks.spawn(async move {
                    workers.serve(acceptor).await;
                    name
                })
            }
        };
    }
    let (service, readiness) = (Arc::clone(&context.service), Arc::clone(&context.readiness));
    let changed = Arc::new(Notify::new());
    let relay = Relay::of(&service);
    let poll = background::poll(
        service,
        config.consistency.poll,
        Arc::clone(&changed),
        relay.clone(),
        health.clone(),
        Arc::clone(&readiness),
    );
    let ping = background::ping(Arc::clone(&context.service), Arc::clone(&readiness));
    // Outlives the planes: what they noted last is written, too.
    let LastUsed { flush_size, flush_interval, .. } = config.last_used;
    let (store, planes_ended) = (context.service.store.clone(), CancellationToken::new());
    let mut writer = JoinSet::new();
    writer.spawn(noted_uses.write(store, flush_size, flush_interval, planes_ended.clone()));
    // So does this: what was recorded last is told to the database, too.
    let mut audit = JoinSet::new();
    if let Some(heads) = heads {
        audit.spawn(heads.tell());
    }
    let mut endless = JoinSet::new();
    endless.spawn(poll);
    endless.spawn(ping);
    endless.spawn(reloader.run());
    endless.spawn(certificates.run());
    if planes.admin && context.admission.bearer().is_some() {
        endless.spawn(callers::keep_keys(Arc::clone(&context.admission), context.service.rng.clone()));
    }
    let (service, metrics) = (&context.service, &context.metrics);
    endless.spawn(background::watch_log(Arc::clone(service), Arc::clone(&context.process)));
    endless.spawn({
        let service = Arc::clone(service);
        async move { service.audit.look_after(&service.clock).await }
    });
    endless.spawn(background::trim_log(Arc::clone(service), Arc::clone(metrics)));
    if let Some(path) = &config.authz.denied_template_file {
        endless.spawn(denied::watch(path.clone(), templates));
    }
    if let Some(path) = &config.consistency.deny_file {
        endless.spawn(deny::watch(path.clone(), Arc::clone(service), Arc::clone(metrics)));
    }
    if matches!(*service.limiter, Limiter::Redis(_)) {
        endless.spawn(background::keep_limiter(Arc::clone(&service.limiter)));
    }
    if let Some(shared) = service.shared.clone() {
        if let Some(relay) = relay {
            endless.spawn(relay.read(config.consistency.poll));
            endless.spawn(relay::ask(Arc::clone(service), Arc::clone(&shared), config.consistency.poll));
        }
        endless.spawn(background::share(Arc::clone(service), shared, changed));
    }

    tokio::select! {
        signal = stop_signal() => tracing::info!(signal = signal?, "stopping"),
        ended = tasks.join_next() => {
            return Err(ServeError::TaskEnded(ended.and_then(Result::ok).unwrap_or("a plane's")));
        }
        _ = writer.join_next() => return Err(ServeError::TaskEnded("last use")),
        _ = endless.join_next() => return Err(ServeError::TaskEnded("background")),
    }
    readiness.start_draining();
    background::set_serving(&health, false).await;
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    endless.shutdown().await;
    planes_ended.cancel();
    while writer.join_next().await.is_some() {}
    let store = context.service.store.clone();
    context.service.audit.tell_of_failures(None);
    // The log is closed once nobody has it any more.
    drop(context);
    if tokio::time::timeout(AUDIT_PATIENCE, audit.join_all()).await.is_err() {
        tracing::warn!("the database was not told where the audit log ends");
    }
    store.close().await;
    if let Some(traces) = traces {
        traces.stop().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// What is served, and what it is kept up with.
pub(crate) struct Built {
    pub(crate) context: Context,
    documents: Documents,
    noted_uses: NotedUses,
    heads: Option<Heads>,
}

pub(crate) async fn build(config: &Config, planes: Planes) -> Result<Built, ServeError> {
    let (clock, rng) = (Clock::system(), Rng::system());
    let urls = &config.key_set_urls();
    let documents = Documents::default().renew(urls, Reading::All).await.complete(urls)?.documents;
    let settings = Settings::build(config, &documents, 1)?;
    if settings.all().any(|(_, settings)| settings.signing_key().is_none()) {
        tracing::warn!(
            "no key signs tokens (credentials.derived_tokens.jwt): upstream gets identity headers alone"
        );
    }
    let deny_list = match &config.consistency.deny_file {
        Some(path) => deny::read_for_start(path, &clock).await?,
        None => DenyList::default(),
    };
    let store = Store::open(config.db.dsn.expose(), rng.clone()).await?;
    let memory = Memory::new(config.cache.memory.max_size, config.cache.negative_size, &rng);
    let shared = match config.cache.kind {
        CacheType::Redis => Some(Arc::new(Shared::new(redis_settings(config)?, clock.clone())?)),
        CacheType::Memory | CacheType::Noop => None,
    };
    let Consistency { lease, poll, relay, grace, .. } = config.consistency;
    let terms = Terms { lease, poll, relay, grace };
    let freshness = Freshness::new(clock.clone(), terms, config.cache.ttl);
    let settings = Arc::new(ArcSwap::from_pointee(settings));
    let tiers = Tiers { memory, shared, freshness: Arc::new(freshness) };
    let (uses, noted_uses) = uses(config.last_used.queue_size);
    let process = Arc::new(Process::new(planes.names(), &clock));
    let own_uid = rustix::process::geteuid().as_raw();
    let admission = Arc::new(Admission::new(&config.serve.http.auth, own_uid, clock.clone()));
    if planes.admin {
        callers::read_keys(&admission).await?;
    }
    let (log, heads) = open_audit(config, &store, &clock, &rng).await?.unzip();
    let records = Records { uses, audit: Arc::new(Audit::new(log)) };
    let guards = Guards { limiter: Arc::new(limiter(config, &clock)?), deny_list };
    let service = Service::new(clock, rng, settings, store, tiers, guards, records);
    let context = Context {
        service: Arc::new(service),
        metrics: Arc::default(),
        readiness: Arc::default(),
        process,
        exclude_health: config.serve.http.request_log.exclude_health_endpoints,
        admission,
        throttle: Arc::default(),
    };
    Ok(Built { context, documents, noted_uses, heads })
}

/// The audit log as the configuration wants it; None when it wants none.
async fn open_audit(
    config: &Config,
    store: &Store,
    clock: &Clock,
    rng: &Rng,
) -> Result<Option<(AuditLog, Heads)>, AuditError> {
    let audit = &config.audit;
    let Some(path) = audit.file.clone() else {
        return Ok(None);
    };
    if audit.key.is_none() {
        tracing::warn!(
            "audit.key is unset: whoever can write audit.file can rewrite it, and nobody will know"
        );
    }
    let settings = LogSettings { path, max_size: audit.max_size, keys: ChainKeys::of(audit, clock.now()) };
    AuditLog::open(settings, store.clone(), clock.clone(), rng).await.map(Some)
}

/// Where uses of keys are counted. Without a Redis there is nothing to be counted until `rate_limit.enabled` says so,
/// and then there must be one.
fn limiter(config: &Config, clock: &Clock) -> Result<Limiter, LinkError> {
    match config.rate_limit.backend {
        RateLimitBackend::Redis if !config.cache.redis.addrs.is_empty() => {
            Ok(Limiter::Redis(Box::new(RedisLimiter::new(redis_settings(config)?, clock.clone())?)))
        }
        RateLimitBackend::Redis | RateLimitBackend::Memory => Ok(Limiter::memory(clock.clone())),
    }
}

/// Redis as the configuration wants it.
fn redis_settings(config: &Config) -> Result<RedisSettings, LinkError> {
    let redis = &config.cache.redis;
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| LinkError::Tls(format!("{}: {error}", path.display())))
    };
    let tls = match redis.tls.enabled {
        Some(true) => {
            let client = match (&redis.tls.cert_file, &redis.tls.key_file) {
                (Some(certificate), Some(key)) => {
                    let key = String::from_utf8(read(key)?)
                        .map_err(|_| LinkError::Tls("key_file: must be PEM".to_owned()))?;
                    Some((read(certificate)?, key.into()))
                }
                _ => None,
            };
            let ca = redis.tls.ca_file.as_deref().map(read).transpose()?;
            Some(RedisTls { ca, client, server_name: redis.tls.server_name.clone() })
        }
        Some(false) | None => None,
    };
    Ok(RedisSettings {
        addrs: redis.addrs.clone(),
        username: redis.username.clone(),
        password: redis.password.clone(),
        db: redis.db,
        timeout: redis.timeout,
        check_timeout: redis.check_timeout,
        tls,
        plaintext_allowed: redis.tls.enabled == Some(false),
    })
}

/// The listeners of these planes, each with its certificate.
async fn bind(
    config: &Config,
    planes: Planes,
    context: &Context,
) -> Result<Vec<(&'static str, Acceptor)>, ServeError> {
    let serve = &config.serve;
    // Their certificates before any of them: a bad one shows before anything is to be seen of us.
    let identity = |section, tls: &Tls, alpn| {
        let files = Files::of(tls);
        let read = files.map(|files| Identity::read(files, alpn, context.service.clock.clone()));
        let fail = |problem| ServeError::Tls { section, problem };
        read.transpose().map(|identity| identity.map(Arc::new)).map_err(fail)
    };
    let (public_host, public_port, public_tls) = match !planes.admin && !planes.authz {
        // A file of Ory's for `serve public` knows only serve.http.
        true => serve.public_alone(),
        false => (serve.public.host.as_str(), serve.public.port, &serve.public.tls),
    };
    let admin = planes.admin.then(|| identity("http", &serve.http.tls, Alpn::Http)).transpose()?;
    let public = planes.public.then(|| identity("public", public_tls, Alpn::Http)).transpose()?;
    let authz = planes.authz.then(|| identity("authz", &serve.authz.tls, Alpn::Http2)).transpose()?;
    let metrics = identity("metrics", &serve.metrics.tls, Alpn::Http)?;

    let mut acceptors = vec![];
    let mut add = |name, listener, identity| {
        acceptors.push((name, Acceptor::new(name, listener, identity, context.metrics.connections.clone())));
    };
    if let Some(identity) = admin {
        add("admin", Listener::tcp("http", &serve.http.host, serve.http.port).await?, identity);
    }
    if let Some(identity) = public {
        add("public", Listener::tcp("public", public_host, public_port).await?, identity);
    }
    if let Some(identity) = authz {
        let listener = match &serve.authz.socket {
            Some(path) => Listener::unix("authz", path).await?,
            None => Listener::tcp("authz", &serve.authz.host, serve.authz.port).await?,
        };
        add("authz", listener, identity);
    }
    if let (true, Some(path)) = (planes.admin, &serve.http.socket) {
        // What the system says of the other end is enough.
        add("admin", Listener::unix("http", path).await?, None);
    }
    add("metrics", Listener::tcp("metrics", &serve.metrics.host, serve.metrics.port).await?, metrics);
    Ok(acceptors)
}

async fn answer(router: Router, request: Request<Incoming>) -> http::Response<AxumBody> {
    match router.oneshot(request.map(AxumBody::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn no_such_method() -> http::Response<TonicBody> {
    tonic::Status::unimplemented("there is no such method").into_http()
}

/// Answers a call that isn't a Check.
async fn answer_grpc<H: Health>(
    health: tonic_health::pb::health_server::HealthServer<H>,
    reflection: Reflection,
    request: Request<TonicBody>,
) -> http::Response<TonicBody> {
    let service = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
    match service {
        Some(("grpc.health.v1.Health", _)) => match health.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Some((name, _)) => match reflection.named(name).cloned() {
            Some(service) => Reflection::answer(service, request).await,
            None => no_such_method(),
        },
        None => no_such_method(),
    }
}
