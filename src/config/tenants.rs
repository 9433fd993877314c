//! Networks: each has the whole configuration, overridden by its own file.

use std::path::{Path, PathBuf};

use super::error::{ConfigError, Problem, locate};
use super::merged_config::MergedConfig;
use super::model::{Config, Network};
use super::{contradictions, file, secrets, validate};
use crate::secret::SecretString;

/// Keys and sections that a network's file may set.
const OVERRIDABLE: [&str; 6] =
    ["credentials", "secrets", "rate_limit.enabled", "cache.ttl", "issuance_policies", "roles"];

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

/// Reads the files of networks, and sets the configuration of each.
pub(super) fn read_files(
    config: &mut Config,
    merged: &MergedConfig,
    warnings: &mut Vec<Problem>,
    must_exist: bool,
) -> Result<(), Vec<Problem>> {
    let mut problems = vec![];
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
                Ok(Overlaid { config, weak_secrets }) => {
                    network.config = Some(Box::new(config));
                    warnings.extend(weak_secrets.into_iter().map(|weak| {
                        let key = format!("{}: {}", network.hostname, weak.key);
                        Problem { key, ..weak }
                    }));
                }
                Err(found) => problems.extend(found),
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Configuration of a network.
struct Overlaid {
    config: Config,
    /// Warnings about secrets in its own file.
    weak_secrets: Vec<Problem>,
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
    whole.add_problems(validate::check(&config, false));
    whole.add_problems(contradictions::check(&config));
    if !whole.problems.is_empty() {
        locate(&mut whole.problems, path, &text);
        return Ok(Err(whole.problems));
    }
    // Warnings about the main file are given once, with the main file.
    let own =
        secrets::warnings(&config).into_iter().filter(|(key, _)| own_keys.iter().any(|own| is_at(key, own)));
    let mut weak_secrets: Vec<Problem> =
        own.map(|(key, message)| whole.origins.problem(key, message)).collect();
    locate(&mut weak_secrets, path, &text);
    Ok(Ok(Overlaid { config, weak_secrets }))
}

/// Returns true if `key`, which may be an entry of a list, has this path.
fn is_at(key: &str, path: &str) -> bool {
    key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
}
