//! Networks: each has the whole configuration, with its own file laid over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Problem};
use super::model::{Config, Network};
use super::settings::Settings;
use super::{file, secrets, validate};
use crate::host::name_of;
use crate::key::NetworkId;
use crate::secret::SecretString;

/// Most networks.
const MAX_NETWORKS: usize = 1000;

/// Keys, and sections of keys, that a network's file may set.
const OWN: [&str; 4] = ["credentials", "secrets", "rate_limit.enabled", "cache.ttl"];

/// URL of a key set, and which setting it is.
#[derive(Clone)]
pub struct KeySetUrl {
    /// The setting.
    pub key: String,
    /// From where the key set comes.
    pub url: SecretString,
}

impl Config {
    /// The networks with what is in force for each; none when there is but the one.
    pub fn tenants(&self) -> impl Iterator<Item = (&Network, &Self)> {
        let networks = self.multitenancy.networks.iter().filter(|_| self.multitenancy.enabled);
        networks.map(|network| (network, network.config.as_deref().unwrap_or(self)))
    }

    /// The URLs of all key sets, each once: the main ones, then those of networks.
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

/// The files that networks lay over the rest.
pub(super) fn files(config: &Config) -> Vec<PathBuf> {
    config.multitenancy.networks.iter().filter_map(|network| network.config_path.clone()).collect()
}

/// Reads the files of the networks, and gives each network the configuration that comes of it.
pub(super) fn read_files(
    config: &mut Config,
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let mut problems = vec![];
    for network in &mut config.multitenancy.networks {
        if let Some(path) = &network.config_path {
            match overlaid(settings, path)? {
                Ok(Overlaid { config, weak }) => {
                    network.config = Some(Box::new(config));
                    warnings.extend(weak.iter().map(|weak| format!("{}: {weak}", network.hostname)));
                }
                Err(found) => problems.extend(found),
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
}

/// What is in force for a network.
struct Overlaid {
    config: Config,
    /// Warnings of the secrets that its own file has.
    weak: Vec<Problem>,
}

/// The configuration of a network whose own file is `path`.
fn overlaid(settings: &Settings, path: &Path) -> Result<Result<Overlaid, Vec<Problem>>, ConfigError> {
    let mut own = Settings::new(Some(path));
    file::collect(file::read(path)?, "", &mut own);
    let is_own = |key: &str| {
        OWN.iter().any(|section| {
            key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    for key in own.keys().filter(|key| !is_own(key)).map(str::to_owned).collect::<Vec<_>>() {
        own.problem(&key, &format!("cannot be set for one network; {} can", OWN.join(", ")));
    }
    let own_keys: Vec<String> = own.keys().map(str::to_owned).collect();
    let mut whole = settings.overlaid_by(own);
    whole.remove_section("multitenancy");
    let config = whole.read();
    whole.refuse(validate::check(&config, false));
    if !whole.problems.is_empty() {
        return Ok(Err(whole.problems));
    }
    // Those of the main file are told once, with the main file.
    let own =
        secrets::warnings(&config).into_iter().filter(|(key, _)| own_keys.iter().any(|own| is_at(key, own)));
    let weak = own.map(|(key, message)| whole.origins.problem(key, message)).collect();
    Ok(Ok(Overlaid { config, weak }))
}

/// Whether `key`, which may go into a list, is the setting `path`.
fn is_at(key: &str, path: &str) -> bool {
    key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
}

/// What is wrong with the list of networks.
pub(super) fn check(config: &Config) -> Vec<(String, String)> {
    let networks = &config.multitenancy.networks;
    let mut problems = vec![];
    if networks.len() > MAX_NETWORKS {
        let message = format!("must be {MAX_NETWORKS} networks at most");
        problems.push(("multitenancy.networks".to_owned(), message));
    }
    let (mut hosts, mut files) = (BTreeMap::new(), BTreeMap::new());
    for (index, network) in networks.iter().enumerate() {
        let mut add = |field: &str, message: &str| {
            problems.push((format!("multitenancy.networks[{index}].{field}"), message.to_owned()));
        };
        match name_of(&network.hostname) {
            None => add("hostname", "must be a host's name or address"),
            Some(name) => {
                if hosts.insert(name, index).is_some() {
                    add("hostname", "is that of an earlier network");
                }
            }
        }
        match NetworkId::parse(&network.id) {
            None => add("id", "must be a UUID such as 6ba7b810-9dad-41d1-80b4-00c04fd430c8"),
            // What is remembered of a network was proven under its settings: two sets of them for one would mix.
            Some(id) => {
                let file = files.entry(id.to_string()).or_insert(&network.config_path);
                if *file != &network.config_path {
                    add("config_path", "must be that of the earlier host of this network");
                }
            }
        }
    }
    problems
}
