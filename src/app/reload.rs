//! Changes of the configuration and of key sets, put into force while the process runs.
//!
//! Whoever serves a request goes on with the settings that it began with: new ones are made whole and put in their
//! place at once, or not at all.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::watch::{Fingerprint, Watch, fingerprint};
use crate::config::{Change, Config, ConfigError, KeySetUrl, Source};
use crate::service::Service;
use crate::settings::sources::{Documents, Reading, Renewed, SourceError, is_https};
use crate::settings::{Settings, SettingsError};
use crate::telemetry::metrics::{Metrics, Reload};

/// How long to wait once a file changes: it may be one of several, or be written in parts.
const SETTLE: Duration = Duration::from_millis(200);
/// How often files are looked at although nothing was noticed, as network file systems notice nothing.
const POLL: Duration = Duration::from_secs(10);
/// How often key sets are fetched from other servers, give or take a tenth.
const FETCH: Duration = Duration::from_secs(300);

/// Why what was read isn't put into force.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(
        "{}credentials.derived_tokens.jwt.signing_key_id: names no key that can sign, and the one in force can",
        .hostname.as_ref().map(|hostname| format!("{hostname}: ")).unwrap_or_default()
    )]
    NoSigner { hostname: Option<String> },
}

impl Refusal {
    /// Whether the same may be good the next time.
    fn passes(&self) -> bool {
        let problem = match self {
            Self::Settings(SettingsError::KeySource { problem, .. }) => problem,
            _ => return false,
        };
        matches!(problem, SourceError::Server { .. })
    }
}

/// Keeps the settings in step with what they are made of.
pub struct Reloader {
    source: Source,
    service: Arc<Service>,
    metrics: Arc<Metrics>,
    hangup: Signal,
    /// In force.
    config: Config,
    /// In force.
    documents: Documents,
    /// All files that settings are made of, as they were when they were last read.
    seen: BTreeMap<PathBuf, Fingerprint>,
    /// Whether what was refused is worth another try.
    again: bool,
}

impl Reloader {
    /// Begins with what is in force. From now on SIGHUP doesn't end the process.
    ///
    /// # Errors
    /// When SIGHUP can't be listened for.
    pub fn new(
        source: Source,
        config: Config,
        documents: Documents,
        service: Arc<Service>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        let seen = BTreeMap::new();
        Ok(Self { source, service, metrics, hangup, config, documents, seen, again: false })
    }

    /// Goes on for ever.
    pub async fn run(mut self) {
        let mut watch = Watch::new();
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fetches: JoinSet<Renewed> = JoinSet::new();
        let mut next_fetch = Box::pin(sleep(self.until_fetch()));
        // A file may have changed since it was read for the start.
        if let Err(refusal) = self.take_up().await {
            self.refuse(&refusal);
        }
        watch.set(&self.files());
        loop {
            let mut fetch_now = false;
            tokio::select! {
                () = watch.changed() => {
                    sleep(SETTLE).await;
                    fetch_now = self.reload_if_changed().await;
                }
                _ = poll.tick() => fetch_now = self.reload_if_changed().await,
                _ = self.hangup.recv() => {
                    tracing::info!("asked to reload by SIGHUP");
                    self.reload().await;
                    fetch_now = true;
                }
                () = &mut next_fetch => fetch_now = true,
                Some(fetched) = fetches.join_next() => self.take_fetched(fetched.ok()),
            }
            watch.set(&self.files());
            if fetch_now {
                next_fetch = Box::pin(sleep(self.until_fetch()));
                // One round at a time; the one under way is as good as another.
                let (documents, urls) = (self.documents.clone(), self.urls());
                if fetches.is_empty() && urls.iter().any(|set| is_https(&set.url)) {
                    fetches.spawn(async move { documents.renew(&urls, Reading::Servers).await });
                }
            }
        }
    }

    fn urls(&self) -> Vec<KeySetUrl> {
        self.config.key_set_urls()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.seen.keys().cloned().collect()
    }

    fn until_fetch(&self) -> Duration {
        self.service.rng.jittered(FETCH, 0.1)
    }

    /// Reloads when a file has other content than it had; says whether it did.
    async fn reload_if_changed(&mut self) -> bool {
        let changed = self.again || self.seen.iter().any(|(file, seen)| fingerprint(file) != *seen);
        if changed {
            self.reload().await;
        }
        changed
    }

    async fn reload(&mut self) {
        match self.take_up().await {
            Ok((reload, all_in_force)) => self.metrics.reloads.count(reload, all_in_force),
            Err(refusal) => {
                self.refuse(&refusal);
                self.metrics.reloads.count(Reload::Refused, false);
            }
        }
    }

    fn refuse(&mut self, refusal: &Refusal) {
        for problem in refusal.to_string().lines() {
            tracing::error!(problem, "the configuration was refused; the one in force stays");
        }
        self.again = refusal.passes();
    }

    /// Reads everything anew and puts it into force if it is good; says what came of it, and whether all of it is
    /// in force.
    async fn take_up(&mut self) -> Result<(Reload, bool), Refusal> {
        self.again = false;
        // Looked at before they are read: what changes in between is noticed the next time.
        let files = self.source.files();
        self.seen.extend(files.iter().map(|file| (file.clone(), Fingerprint::default())));
        for (file, seen) in &mut self.seen {
            *seen = fingerprint(file);
        }
        let loaded = self.source.load()?;
        for warning in &loaded.warnings {
            tracing::debug!("{warning}");
        }
        loaded.config.require_serving_secret()?;
        let Change { config, applied, needs_restart } = self.config.change_to(loaded)?;
        let urls = &config.key_set_urls();
        self.look_at_key_files(&files, urls);
        let Renewed { documents, failures } =
            self.documents.renew(urls, Reading::Local).await.complete(urls)?;
        let changed = !applied.is_empty() || documents != self.documents;
        if changed {
            self.put_into_force(&config, &documents)?;
            self.config = config;
            self.documents = documents;
        }

        for failure in failures.values() {
            tracing::error!(problem = %failure, "a key set can't be read again; the one that was read stays");
        }
        if !needs_restart.is_empty() {
            let keys = needs_restart.join(", ");
            tracing::warn!(keys, "these settings have changed and need a restart");
        }
        if changed {
            let (keys, generation) = (applied.join(", "), self.service.settings.load().generation);
            tracing::info!(keys, generation, "a new configuration is in force");
        }
        let reload = match (changed, failures.is_empty()) {
            (true, _) => Reload::Applied,
            (false, true) => Reload::Unchanged,
            (false, false) => Reload::Refused,
        };
        Ok((reload, failures.is_empty()))
    }

    /// Notes how the files of key sets are before they are read, and forgets those that aren't read any more.
    fn look_at_key_files(&mut self, files: &[PathBuf], urls: &[KeySetUrl]) {
        self.seen.retain(|path, _| files.contains(path));
        for path in urls.iter().filter_map(|set| set.url.expose().strip_prefix("file://")) {
            self.seen.insert(path.into(), fingerprint(path.as_ref()));
        }
    }

    /// Makes settings of it, whole, and then puts them in the place of those in force.
    fn put_into_force(&self, config: &Config, documents: &Documents) -> Result<(), Refusal> {
        let old = self.service.snapshot();
        let mut new = Settings::build(config, documents, old.generation + 1)?;
        new.limit_tokens_of(&old);
        for (host, settings) in new.all() {
            let has_signer = |settings: &Settings| settings.signing_key().is_some();
            let had_one = old.all().any(|(other, settings)| other == host && has_signer(settings));
            if settings.signing_key_id.is_some() && !has_signer(settings) && had_one {
                return Err(Refusal::NoSigner { hostname: host.map(str::to_owned) });
            }
        }
        self.service.settings.store(Arc::new(new));
        // Other instances have derived until now, too.
        self.service.outstanding.note(self.service.clock.boot_now(), old.longest_token_ttl());
        Ok(())
    }

    /// Takes what a round of fetches brought; None when it ended early.
    fn take_fetched(&mut self, fetched: Option<Renewed>) {
        let Some(Renewed { documents, failures }) = fetched else {
            return;
        };
        let mut failures: Vec<Refusal> = failures.into_values().map(Refusal::from).collect();
        let documents = self.documents.with_servers_of(&documents);
        if documents != self.documents {
            match self.put_into_force(&self.config, &documents) {
                Ok(()) => {
                    self.documents = documents;
                    let generation = self.service.settings.load().generation;
                    tracing::info!(generation, "new key sets are in force");
                }
                Err(refusal) => failures.push(refusal),
            }
        }
        for failure in &failures {
            tracing::error!(problem = %failure, "key sets can't be fetched; those that were fetched stay");
        }
        self.metrics.reloads.fetched(failures.is_empty());
    }
}
