//! Reloads the configuration and its key sets while the process runs.
//!
//! A request keeps the settings that it began with. New settings are built as a whole, and replace
//! the old ones at once or not at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::watched::{Fingerprint, Watched, fingerprint};
use crate::config::{Change, Config, ConfigError, KeySetUrl, Source};
use crate::http::Context;
use crate::service::Service;
use crate::settings::sources::{Documents, Reading, Renewed, is_https};
use crate::settings::{Settings, SettingsError, SourceError};
use crate::telemetry::metrics::{Metrics, Reload};

/// Time between two looks at the files, beside notifications.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// Mean time between two fetches of key sets from servers; each wait is within 10 % of it.
const FETCH_INTERVAL: Duration = Duration::from_secs(300);

/// A reason for which what was read isn't put into force.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(
        "{}credentials.derived_tokens.jwt.signing_key_id: names no key that can sign, while the one in force can",
        .hostname.as_ref().map(|hostname| format!("{hostname}: ")).unwrap_or_default()
    )]
    NoSigner { hostname: Option<String> },
}

impl ReloadError {
    /// Returns true if another try may succeed without a change of any file.
    fn is_transient(&self) -> bool {
        let problem = match self {
            Self::Settings(SettingsError::KeySource { problem, .. }) => problem,
            _ => return false,
        };
        matches!(problem, SourceError::Server { .. })
    }
}

/// The outcome of a reload that wasn't refused.
struct Applied {
    outcome: Reload,
    /// True if everything that was read is in force.
    is_complete: bool,
}

/// Keeps the settings in force equal to the configuration.
pub(super) struct Reloader {
    source: Source,
    service: Arc<Service>,
    metrics: Arc<Metrics>,
    hangup: Signal,
    /// The configuration in force.
    config: Config,
    /// The key sets in force.
    documents: Documents,
    /// All files that settings are made of.
    files: Watched<Fingerprint>,
    /// True if a refused reload is tried again without a change.
    retry: bool,
}

impl Reloader {
    /// Starts from what is in force. From now on SIGHUP doesn't end the process.
    ///
    /// # Errors
    /// When the operating system refuses a signal handler.
    pub(super) fn new(
        source: Source,
        config: Config,
        documents: Documents,
        context: &Context,
    ) -> std::io::Result<Self> {
        let (service, metrics) = (Arc::clone(&context.service), Arc::clone(&context.metrics));
        let files = Watched::by_notification(POLL_INTERVAL, fingerprint);
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { source, service, metrics, hangup, config, documents, files, retry: false })
    }

    /// Reloads forever.
    pub(super) async fn run(mut self) {
        let mut fetches: JoinSet<Renewed> = JoinSet::new();
        let mut next_fetch = Box::pin(sleep(self.fetch_interval()));
        // A file may have changed since the start read it.
        if let Err(error) = self.apply().await {
            self.report(&error);
        }
        loop {
            let mut fetch_now = false;
            tokio::select! {
                () = self.files.wait() => fetch_now = self.reload_if_changed().await,
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: reloading");
                    self.reload().await;
                    fetch_now = true;
                }
                () = &mut next_fetch => fetch_now = true,
                Some(fetched) = fetches.join_next() => self.apply_fetched(fetched.ok()),
            }
            if fetch_now {
                next_fetch = Box::pin(sleep(self.fetch_interval()));
                // One round at a time.
                let (documents, urls) = (self.documents.clone(), self.config.key_set_urls());
                if fetches.is_empty() && urls.iter().any(|set| is_https(&set.url)) {
                    fetches.spawn(async move { documents.renew(&urls, Reading::Servers).await });
                }
            }
        }
    }

    fn fetch_interval(&self) -> Duration {
        self.service.rng.jittered(FETCH_INTERVAL, 0.1)
    }

    /// Reloads when the content of a file has changed. Returns whether it has.
    async fn reload_if_changed(&mut self) -> bool {
        let has_changed = !self.files.look().await.is_empty() || self.retry;
        if has_changed {
            self.reload().await;
        }
        has_changed
    }

    async fn reload(&mut self) {
        match self.apply().await {
            Ok(Applied { outcome, is_complete }) => self.metrics.reloads.count(outcome, is_complete),
            Err(error) => {
                self.report(&error);
                self.metrics.reloads.count(Reload::Refused, false);
            }
        }
    }

    fn report(&mut self, error: &ReloadError) {
        for problem in error.to_string().lines() {
            tracing::error!(problem, "the configuration was refused; the one in force stays");
        }
        self.retry = error.is_transient();
    }

    /// Reads everything anew, and puts it into force if it is good.
    async fn apply(&mut self) -> Result<Applied, ReloadError> {
        self.retry = false;
        let config_files = self.source.files();
        let files: Vec<PathBuf> = config_files.iter().chain(self.files.files()).cloned().collect();
        self.files.set_files(files);
        self.files.look().await;
        let loaded = self.source.load()?;
        for warning in &loaded.warnings {
            tracing::debug!("{warning}");
        }
        loaded.config.require_serving_secret()?;
        let Change { config, applied, needs_restart } = self.config.change_to(loaded)?;
        let urls = &config.key_set_urls();
        self.watch_key_sets(config_files, urls).await;
        let Renewed { documents, failures } =
            self.documents.renew(urls, Reading::Local).await.complete(urls)?;
        let has_changed = !applied.is_empty() || documents != self.documents;
        if has_changed {
            self.put_into_force(&config, &documents)?;
            self.config = config;
            self.documents = documents;
        }

        for failure in failures.values() {
            tracing::error!(problem = %failure, "a key set can't be read; the last one stays in force");
        }
        if !needs_restart.is_empty() {
            let keys = needs_restart.join(", ");
            tracing::warn!(keys, "these settings have changed and need a restart");
        }
        if has_changed {
            let (keys, generation) = (applied.join(", "), self.service.settings.load().generation);
            tracing::info!(keys, generation, "a new configuration is in force");
        }
        let outcome = match (has_changed, failures.is_empty()) {
            (true, _) => Reload::Applied,
            (false, true) => Reload::Unchanged,
            (false, false) => Reload::Refused,
        };
        Ok(Applied { outcome, is_complete: failures.is_empty() })
    }

    /// Watches the files of these key sets and no others, and looks at new ones before they are
    /// read.
    async fn watch_key_sets(&mut self, config_files: Vec<PathBuf>, urls: &[KeySetUrl]) {
        let key_sets = urls.iter().filter_map(|set| set.url.expose().strip_prefix("file://"));
        self.files.set_files(config_files.into_iter().chain(key_sets.map(PathBuf::from)));
        self.files.look_at_new().await;
    }

    /// Builds settings, and then replaces those in force.
    fn put_into_force(&self, config: &Config, documents: &Documents) -> Result<(), ReloadError> {
        let old = self.service.snapshot();
        let mut new = Settings::build(config, documents, old.generation + 1)?;
        new.limit_tokens_of(&old);
        for (host, settings) in new.all() {
            let has_signer = |settings: &Settings| settings.signing_key().is_some();
            let had_signer = old.all().any(|(other, settings)| other == host && has_signer(settings));
            if settings.signing_key_id.is_some() && !has_signer(settings) && had_signer {
                return Err(ReloadError::NoSigner { hostname: host.map(str::to_owned) });
            }
        }
        self.service.settings.store(Arc::new(new));
        self.service.signers.request();
        // Other instances have derived tokens under the old settings until now, too.
        self.service.outstanding.note(self.service.clock.boot_now(), old.longest_token_ttl());
        Ok(())
    }

    /// Puts fetched key sets into force. None stands for a round that ended early.
    fn apply_fetched(&mut self, fetched: Option<Renewed>) {
        let Some(Renewed { documents, failures }) = fetched else {
            return;
        };
        let mut failures: Vec<ReloadError> = failures.into_values().map(ReloadError::from).collect();
        let documents = self.documents.with_servers_of(&documents);
        if documents != self.documents {
            match self.put_into_force(&self.config, &documents) {
                Ok(()) => {
                    self.documents = documents;
                    let generation = self.service.settings.load().generation;
                    tracing::info!(generation, "new key sets are in force");
                }
                Err(error) => failures.push(error),
            }
        }
        for failure in &failures {
            tracing::error!(problem = %failure, "key sets can't be fetched; the last ones stay in force");
        }
        self.metrics.reloads.fetched(failures.is_empty());
    }
}
