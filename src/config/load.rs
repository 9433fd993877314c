//! Defaults, file and environment made into one checked [`Config`].

use std::path::{Path, PathBuf};

use serde_norway::Mapping;

use super::error::ConfigError;
use super::model::Config;
use super::settings::{Origins, Settings};
use super::{env, file, secrets, tenants, validate};

/// A configuration that was read and checked.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What to log, such as the names of unknown `TALOS_*` variables. Never a value.
    pub warnings: Vec<String>,
    pub(super) origins: Origins,
}

/// Where a configuration comes from: it can be read again and again. The environment is that of the beginning.
#[derive(Clone)]
pub struct Source {
    file: Option<PathBuf>,
    variables: Vec<(String, String)>,
    admin: bool,
}

impl Source {
    /// A file, if given, and the environment over it.
    pub fn new(file: Option<PathBuf>, env: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables = env.into_iter().filter(|(name, _)| name.starts_with("TALOS_")).collect();
        Self { file, variables, admin: true }
    }

    /// For a process that doesn't open the admin listener: an admin plane that would stand open is no error.
    /// For `serve public`, which may bind `serve.http`'s address, and for `migrate`, which binds nothing.
    pub fn without_admin(self) -> Self {
        Self { admin: false, ..self }
    }

    /// The file.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file, lays the environment over it, and checks the whole.
    ///
    /// # Errors
    /// A file that can't be read or isn't a YAML mapping, else every wrong setting at once.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        self.load_mapping(self.file().map(file::read).transpose()?)
    }

    /// As [`Source::load`], of a file that has this content.
    ///
    /// # Errors
    /// As [`Source::load`].
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn load_text(&self, content: &[u8]) -> Result<Loaded, ConfigError> {
        self.load_mapping(Some(file::parse(Path::new("talos.yaml"), content)?))
    }

    fn load_mapping(&self, mapping: Option<Mapping>) -> Result<Loaded, ConfigError> {
        let mut settings = Settings::new(self.file());
        if let Some(mapping) = mapping {
            file::collect(mapping, "", &mut settings);
        }
        let mut warnings = env::collect(self.variables.iter().cloned(), &mut settings);
        let mut config = settings.read();
        settings.refuse(validate::check(&config, self.admin));
        if !settings.problems.is_empty() {
            return Err(ConfigError::Invalid(settings.problems));
        }
        tenants::read_files(&mut config, &settings, &mut warnings)?;
        let weak = secrets::warnings(&config).into_iter();
        warnings.extend(weak.map(|(key, message)| settings.origins.problem(key, message).to_string()));
        Ok(Loaded { config, warnings, origins: settings.origins })
    }

    /// All files that the configuration is read from, as far as it can be told what they are.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut settings = Settings::new(self.file());
        if let Some(Ok(mapping)) = self.file().map(file::read) {
            file::collect(mapping, "", &mut settings);
        }
        env::collect(self.variables.iter().cloned(), &mut settings);
        self.file.iter().cloned().chain(tenants::files(&settings.read())).collect()
    }
}

/// Reads `path`, if given, lays the environment over it, and checks the whole.
///
/// # Errors
/// As [`Source::load`].
pub fn load(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    Source::new(path.map(Path::to_owned), env).load()
}

/// As [`load`], [without an admin listener](Source::without_admin).
///
/// # Errors
/// As [`Source::load`].
pub fn load_without_admin(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    Source::new(path.map(Path::to_owned), env).without_admin().load()
}
