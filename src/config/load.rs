//! Loads a checked [`Config`] from defaults, file and environment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::error::{ConfigError, Problem, locate};
use super::listeners::Served;
use super::merged_config::{MergedConfig, Origins};
use super::model::Config;
use super::tenants::NetworkFile;
use super::{contradictions, env, file, keys, openings, placeholders, secrets, tenants, validate};
use crate::plane::{Plane, Planes};

/// A loaded and checked configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings to log, such as names of unknown `TALOS_*` variables. They never hold a value.
    pub warnings: Vec<Problem>,
    pub(super) origins: Origins,
    /// The files of networks.
    network_files: Vec<NetworkFile>,
}

impl Loaded {
    /// Returns true if the file or the environment sets this key.
    pub fn is_set(&self, key: &str) -> bool {
        self.origins.is_set(key)
    }

    /// Returns true if the file of the network with this host name sets this key.
    pub fn is_set_by_network(&self, hostname: &str, key: &str) -> bool {
        self.network_files.iter().any(|file| file.hostname == hostname && file.sets(key))
    }
}

/// Source of a configuration, which can be loaded again. Its environment is that of the start.
#[derive(Clone)]
pub struct Source {
    file: Option<PathBuf>,
    /// Content of the file, if it isn't read from there.
    text: Option<Arc<Zeroizing<Vec<u8>>>>,
    variables: Vec<(String, String)>,
    /// The planes that the process serves; None: a command, which serves none.
    planes: Option<Planes>,
    /// True if the files of networks must be there.
    network_files: bool,
}

impl Source {
    /// A file, if given, overridden by environment variables, for a process that serves all planes.
    pub fn new(file: Option<PathBuf>, env: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables = env.into_iter().filter(|(name, _)| name.starts_with("TALOS_")).collect();
        Self { file, text: None, variables, planes: Some(Planes::All), network_files: true }
    }

    /// The source whose file has this content, whatever there is at its path.
    pub fn with_text(self, text: Vec<u8>) -> Self {
        Self { text: Some(Arc::new(Zeroizing::new(text))), ..self }
    }

    /// The source for a process that serves these planes: the rules of other listeners don't apply.
    pub fn for_planes(self, planes: Planes) -> Self {
        Self { planes: Some(planes), ..self }
    }

    /// The source for a command such as `migrate`: neither the rules of the admin plane apply to it
    /// nor those of any listener, as it opens none.
    pub fn without_admin(self) -> Self {
        Self { planes: None, ..self }
    }

    /// The source on a machine where the files of networks may be missing: each that is gets a
    /// warning, and its network the common settings.
    pub fn without_network_files(self) -> Self {
        Self { network_files: false, ..self }
    }

    /// Path of the file.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file, overrides it by the environment, and checks the result.
    ///
    /// # Errors
    /// When the file can't be read or isn't a YAML mapping; else with all wrong settings.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let text = self.text()?;
        let mut loaded = self.load_content(text.as_ref().map(|text| text.as_slice()))?;
        self.locate(&mut loaded.warnings);
        Ok(loaded)
    }

    /// Finds the places of problems in the file.
    pub fn locate(&self, problems: &mut [Problem]) {
        if let (Some(file), Ok(Some(text))) = (self.file(), self.text()) {
            locate(problems, file, &text);
        }
    }

    /// Makes a problem of `KEY: MESSAGE`, with origin and place of the key.
    pub fn problem(&self, loaded: &Loaded, text: &str, cure: Option<String>) -> Problem {
        let (key, message) = text.split_once(": ").unwrap_or(("", text));
        // The key of a network's setting follows its host name.
        if !keys::is_known(key)
            && let Some((setting, message)) = message.split_once(": ")
            && keys::is_known(setting)
        {
            let file = loaded.network_files.iter().find(|file| file.hostname == key);
            let origins = file.map_or(&loaded.origins, |file| &file.origins);
            let mut problem = origins.problem(setting.to_owned(), message.to_owned()).with_cure(cure);
            if let Some(file) = file {
                file.locate(&mut problem);
            }
            self.locate(std::slice::from_mut(&mut problem));
            return Problem { key: format!("{key}: {setting}"), ..problem };
        }
        let mut problem = loaded.origins.problem(key.to_owned(), message.to_owned()).with_cure(cure);
        self.locate(std::slice::from_mut(&mut problem));
        problem
    }

    /// Content of the file; None without one.
    fn text(&self) -> Result<Option<Arc<Zeroizing<Vec<u8>>>>, ConfigError> {
        match &self.text {
            Some(text) => Ok(Some(Arc::clone(text))),
            None => self.file().map(|file| file::read(file).map(Arc::new)).transpose(),
        }
    }

    /// Like [`Source::load`], for a file with this content.
    ///
    /// # Errors
    /// As [`Source::load`].
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn load_text(&self, content: &[u8]) -> Result<Loaded, ConfigError> {
        self.load_content(Some(content))
    }

    fn load_content(&self, text: Option<&[u8]>) -> Result<Loaded, ConfigError> {
        let mut merged = MergedConfig::new(self.file());
        let file = self.file().unwrap_or(Path::new("talos.yaml"));
        if let Some(text) = text {
            file::collect(file::parse(file, text)?, "", &mut merged);
        }
        let mut warnings = env::collect(self.variables.iter().cloned(), &mut merged);
        let mut config = merged.read();
        let is_metrics_port_set = merged.origins.is_set("serve.metrics.port");
        let served = self.planes.map(|planes| Served { planes, is_metrics_port_set });
        let admin = self.planes.is_some_and(|planes| planes.contains(Plane::Admin));
        merged.add_problems(validate::check(&config, served));
        merged.add_problems(contradictions::check(&config));
        warnings.extend(placeholders::warnings(&mut merged));
        if !merged.problems.is_empty() {
            locate(&mut merged.problems, file, text.unwrap_or_default());
            return Err(ConfigError::Invalid(merged.problems));
        }
        let network_files = match tenants::read_files(&mut config, &merged, &mut warnings, self.network_files)
        {
            Ok(files) => files,
            Err(mut problems) => {
                locate(&mut problems, file, text.unwrap_or_default());
                return Err(ConfigError::Invalid(problems));
            }
        };
        let mut found = secrets::warnings(&config);
        found.extend(contradictions::warnings(&config, admin));
        if admin {
            found.extend(openings::warnings(&config));
        }
        let found = found.into_iter();
        warnings.extend(found.map(|(key, message)| merged.origins.problem(key, message)));
        Ok(Loaded { config, warnings, origins: merged.origins, network_files })
    }

    /// All files that the configuration is read from, as far as they are known.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut merged = MergedConfig::new(self.file());
        if let Some(file) = self.file()
            && let Ok(Some(text)) = self.text()
            && let Ok(mapping) = file::parse(file, &text)
        {
            file::collect(mapping, "", &mut merged);
        }
        env::collect(self.variables.iter().cloned(), &mut merged);
        self.file.iter().cloned().chain(tenants::files(&merged.read())).collect()
    }
}

/// Loads a file, if given, overridden by environment variables.
///
/// # Errors
/// As [`Source::load`].
pub fn load(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    Source::new(path.map(Path::to_owned), env).load()
}

/// Like [`load`], for a command, [which serves no plane](Source::without_admin).
///
/// # Errors
/// As [`Source::load`].
pub fn load_without_admin(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    Source::new(path.map(Path::to_owned), env).without_admin().load()
}
