//! Networks: each has the whole configuration, overridden by its own file.

use std::path::{Path, PathBuf};

use super::error::{ConfigError, Problem, locate};
use super::merged_config::{MergedConfig, Origins};
use super::model::{Config, Network};
use super::{contradictions, file, secrets, validate};
use crate::secret::SecretString;

/// Keys and sections that a network's file may set.
const OVERRIDABLE: [&str; 6] =
    ["credentials", "secrets", "rate_limit.enabled", "cache.ttl", "issuance_policies", "roles"];

/// A network's own file, with the origins of the network's values: this file, or those of the main
/// configuration.
#[derive(Debug)]
pub(super) struct NetworkFile {
    /// Host name of the network.
    pub hostname: String,
    path: PathBuf,
    pub origins: Origins,
}

impl NetworkFile {
    /// Returns true if the file itself sets this key.
    pub(super) fn sets(&self, key: &str) -> bool {
        self.origins.is_set(key) && self.origins.of(key) == self.path.display().to_string()
    }

    /// Finds the place of a problem in the file.
    pub(super) fn locate(&self, problem: &mut Problem) {
        if let Ok(text) = file::read(&self.path) {
            locate(std::slice::from_mut(problem), &self.path, &text);
        }
    }
}

/// URL of a key set, with the key that sets it.
#[derive(Clone)]
pub struct KeySetUrl {
    /// Dotted key, after the host name of a network.
    pub key: String,
    /// URL.
    pub url: SecretString,
}

impl Config {
    /// Networks with their configuration; none without multitenancy.
    pub fn tenants(&self) -> impl Iterator<Item = (&Network, &Self)> {
        let networks = self.multitenancy.networks.iter().filter(|_| self.multitenancy.enabled);
        networks.map(|network| (network, network.config.as_deref().unwrap_or(self)))
    }

    /// URLs of all key sets, each once: those of the main configuration, then those of networks.
    pub fn key_set_urls(&self) -> Vec<KeySetUrl> {
        let mut found: Vec<KeySetUrl> = vec![];
        let mut add = |config: &Self, place: &str| {
            for (index, url) in config.credentials.derived_tokens.jwt.signing_keys.urls.iter().enumerate() {
                if !found.iter().any(|known| known.url == *url) {
                    let key = format!("{place}credentials.derived_tokens.jwt.signing_keys.urls[{index}]");
                    found.push(KeySetUrl { key, url: url.clone() });
                }
            }
        };
        add(self, "");
        for (network, config) in self.tenants() {
            add(config, &format!("{}: ", network.hostname));
        }
        found
    }
}

/// Files of networks.
pub(super) fn files(config: &Config) -> Vec<PathBuf> {
    config.multitenancy.networks.iter().filter_map(|network| network.config_path.clone()).collect()
}

/// Reads the files of networks, sets the configuration of each, and returns the files.
pub(super) fn read_files(
    config: &mut Config,
    merged: &MergedConfig,
    warnings: &mut Vec<Problem>,
    must_exist: bool,
) -> Result<Vec<NetworkFile>, Vec<Problem>> {
    let (mut files, mut problems) = (vec![], vec![]);
    for (index, network) in config.multitenancy.networks.iter_mut().enumerate() {
        if let Some(path) = &network.config_path {
            let overlaid = match overlaid(merged, path) {
                Ok(overlaid) => overlaid,
                Err(error) => {
                    let key = format!("multitenancy.networks[{index}].config_path");
                    let problem = merged.origins.problem(key, error.to_string());
                    match error {
                        ConfigError::Unreadable { .. } if !must_exist => warnings.push(problem),
                        _ => problems.push(problem),
                    }
                    continue;
                }
            };
            match overlaid {
                Ok(Overlaid { config, warnings: own, origins }) => {
                    network.config = Some(Box::new(config));
                    warnings.extend(own.into_iter().map(|warning| {
                        let key = format!("{}: {}", network.hostname, warning.key);
                        Problem { key, ..warning }
                    }));
                    let (hostname, path) = (network.hostname.clone(), path.clone());
                    files.push(NetworkFile { hostname, path, origins });
                }
                Err(found) => problems.extend(found),
            }
        }
    }
    if problems.is_empty() { Ok(files) } else { Err(problems) }
}

/// Configuration of a network.
struct Overlaid {
    config: Config,
    /// Warnings about its own file.
    warnings: Vec<Problem>,
    origins: Origins,
}

/// Builds the configuration of a network with its own file.
fn overlaid(merged: &MergedConfig, path: &Path) -> Result<Result<Overlaid, Vec<Problem>>, ConfigError> {
    let mut own = MergedConfig::new(Some(path));
    let text = file::read(path)?;
    file::collect(file::parse(path, &text)?, "", &mut own);
    let is_own = |key: &str| {
        OVERRIDABLE.iter().any(|section| {
            key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    for key in own.keys().filter(|key| !is_own(key)).map(str::to_owned).collect::<Vec<_>>() {
        own.problem(&key, &format!("cannot be set for one network; {} can", OVERRIDABLE.join(", ")));
    }
    let own_keys: Vec<String> = own.keys().map(str::to_owned).collect();
    let mut whole = merged.overlaid_by(own);
    whole.remove_section("multitenancy");
    let config = whole.read();
    whole.add_problems(validate::check(&config, None));
    whole.add_problems(contradictions::check(&config));
    if !whole.problems.is_empty() {
        locate(&mut whole.problems, path, &text);
        return Ok(Err(whole.problems));
    }
    // Warnings about the main file are given once, with the main file.
    let found = secrets::warnings(&config).into_iter().chain(contradictions::warnings(&config, false));
    let own = found.filter(|(key, _)| own_keys.iter().any(|own| is_at(key, own)));
    let mut warnings: Vec<Problem> = own.map(|(key, message)| whole.origins.problem(key, message)).collect();
    locate(&mut warnings, path, &text);
    Ok(Ok(Overlaid { config, warnings, origins: whole.origins }))
}

/// Returns true if `key`, which may be an entry of a list, has this path.
fn is_at(key: &str, path: &str) -> bool {
    key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
}
