//! Loads a checked [`Config`] from defaults, file and environment.

use std::path::{Path, PathBuf};

use serde_norway::Mapping;

use super::error::ConfigError;
use super::merged_config::{MergedConfig, Origins};
use super::model::Config;
use super::{env, file, openings, secrets, tenants, validate};

/// A loaded and checked configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings to log, such as names of unknown `TALOS_*` variables. They never hold a value.
    pub warnings: Vec<String>,
    pub(super) origins: Origins,
}

/// Source of a configuration, which can be loaded again. Its environment is that of the start.
#[derive(Clone)]
pub struct Source {
    file: Option<PathBuf>,
    variables: Vec<(String, String)>,
    admin: bool,
}

impl Source {
    /// A file, if given, overridden by environment variables.
    pub fn new(file: Option<PathBuf>, env: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables = env.into_iter().filter(|(name, _)| name.starts_with("TALOS_")).collect();
        Self { file, variables, admin: true }
    }

    /// The source for a process without the admin plane, to which its rules don't apply: `serve
    /// public`, which may bind the address of `serve.http`, and `migrate`, which binds nothing.
    pub fn without_admin(self) -> Self {
        Self { admin: false, ..self }
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
        self.load_mapping(self.file().map(file::read).transpose()?)
    }

    /// Like [`Source::load`], for a file with this content.
    ///
    /// # Errors
    /// As [`Source::load`].
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn load_text(&self, content: &[u8]) -> Result<Loaded, ConfigError> {
        self.load_mapping(Some(file::parse(Path::new("talos.yaml"), content)?))
    }

    fn load_mapping(&self, mapping: Option<Mapping>) -> Result<Loaded, ConfigError> {
        let mut merged = MergedConfig::new(self.file());
        if let Some(mapping) = mapping {
            file::collect(mapping, "", &mut merged);
        }
        let mut warnings = env::collect(self.variables.iter().cloned(), &mut merged);
        let mut config = merged.read();
        merged.add_problems(validate::check(&config, self.admin));
        if !merged.problems.is_empty() {
            return Err(ConfigError::Invalid(merged.problems));
        }
        tenants::read_files(&mut config, &merged, &mut warnings)?;
        let mut told = secrets::warnings(&config);
        if self.admin {
            told.extend(openings::warnings(&config));
        }
        let told = told.into_iter();
        warnings.extend(told.map(|(key, message)| merged.origins.problem(key, message).to_string()));
        Ok(Loaded { config, warnings, origins: merged.origins })
    }

    /// All files that the configuration is read from, as far as they are known.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut merged = MergedConfig::new(self.file());
        if let Some(Ok(mapping)) = self.file().map(file::read) {
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

/// Like [`load`], for a process [without the admin plane](Source::without_admin).
///
/// # Errors
/// As [`Source::load`].
pub fn load_without_admin(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    Source::new(path.map(Path::to_owned), env).without_admin().load()
}
