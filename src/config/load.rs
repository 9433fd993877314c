//! Defaults, file and environment made into one checked [`Config`].

use std::path::Path;

use super::error::ConfigError;
use super::model::Config;
use super::settings::Settings;
use super::{env, file, validate};

/// A configuration that was read and checked.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What to log, such as the names of unknown `TALOS_*` variables. Never a value.
    pub warnings: Vec<String>,
}

/// Reads `path`, if given, lays the environment over it, and checks the whole.
///
/// # Errors
/// A file that can't be read or isn't a YAML mapping, else every wrong setting at once.
pub fn load(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    build(path, env, true)
}

/// As [`load`], for a process that doesn't open the admin listener: an admin plane that would stand open is no error.
/// For `serve public`, which may bind `serve.http`'s address, and for `migrate`, which binds nothing.
///
/// # Errors
/// As [`load`].
pub fn load_without_admin(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    build(path, env, false)
}

fn build(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    admin: bool,
) -> Result<Loaded, ConfigError> {
    let mut settings = Settings::new(path);
    if let Some(path) = path {
        file::collect(file::read(path)?, "", &mut settings);
    }
    let warnings = env::collect(env, &mut settings);
    let config = settings.read();
    for (key, message) in validate::check(&config, admin) {
        let origin = settings.origin(&key);
        settings.problem_of(&key, &message, origin);
    }
    if settings.problems.is_empty() {
        Ok(Loaded { config, warnings })
    } else {
        Err(ConfigError::Invalid(settings.problems))
    }
}
