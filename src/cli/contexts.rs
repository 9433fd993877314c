//! The file of contexts: named servers, and the one that commands use by default.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::exit::Failure;

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A named server. It holds paths of credentials, never credentials themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Context {
    /// Base URL of the server, or `unix://` and the path of a socket.
    pub endpoint: String,
    /// File of the CA certificates that verify the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_cert: Option<PathBuf>,
    /// File of the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<PathBuf>,
    /// File of the client certificate's private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// File of the bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Host name of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// All contexts.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contexts {
    /// Name of the context that commands use by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The contexts by name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Reads the file of this user. A missing file has no contexts.
    ///
    /// # Errors
    /// Fails when the file can't be read or is invalid.
    pub(super) fn load() -> Result<Self, Failure> {
        path().map_or_else(|| Ok(Self::default()), |path| Self::read(&path))
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = super::input::read_file(path, MAX_FILE_BYTES)?;
        serde_norway::from_str(&text).map_err(|error| {
            Failure::usage(format!(
                "{}: {error}; correct or delete the file, or name a server by --endpoint",
                path.display()
            ))
        })
    }

    /// Writes the file of this user, readable only by them.
    ///
    /// # Errors
    /// Fails when there is no place for it or it can't be written.
    pub(super) fn save(&self) -> Result<(), Failure> {
        let Some(path) = path() else {
            return Err(Failure::usage("no place for contexts: set HOME or XDG_CONFIG_HOME"));
        };
        let text = serde_norway::to_string(self).map_err(Failure::failed)?;
        write_private(&path, &text).map_err(|error| {
            let cure = "set XDG_CONFIG_HOME to a directory that you may write to";
            Failure::failed(format!("{}: {error}; {cure}", path.display()))
        })
    }

    /// Returns a context by name, or the current one.
    ///
    /// # Errors
    /// Fails when there is no context of this name.
    pub(super) fn find(&self, name: Option<&str>) -> Result<Option<&Context>, Failure> {
        let Some(name) = name.or(self.current.as_deref()) else { return Ok(None) };
        match self.contexts.get(name) {
            Some(context) => Ok(Some(context)),
            None => Err(Failure::usage(format!(
                "there is no context {name}: `talos context list` lists them, `talos context set` adds one"
            ))),
        }
    }
}

/// Returns the path of the file: `talos/contexts.yaml` in the user's directory of configurations.
fn path() -> Option<PathBuf> {
    let directory = |variable: &str| {
        std::env::var_os(variable).map(PathBuf::from).filter(|directory| directory.is_absolute())
    };
    let base = directory("XDG_CONFIG_HOME").or_else(|| Some(directory("HOME")?.join(".config")))?;
    Some(base.join("talos/contexts.yaml"))
}

/// Replaces a file as a whole, so that a reader never sees a part of it.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let new = path.with_extension(format!("yaml.{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let replaced = written.and_then(|()| std::fs::rename(&new, path));
    if replaced.is_err() {
        // The error that is returned matters more than a file left behind.
        let _ = std::fs::remove_file(&new);
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("talos/contexts.yaml");
        assert_eq!(Contexts::read(&path).unwrap(), Contexts::default());
        let prod = Context { endpoint: "https://keys.example".into(), ..Context::default() };
        let contexts = Contexts {
            current: Some("prod".into()),
            contexts: BTreeMap::from([("prod".to_owned(), prod.clone())]),
        };
        write_private(&path, &serde_norway::to_string(&contexts).unwrap()).unwrap();
        let read = Contexts::read(&path).unwrap();
        assert_eq!(read, contexts);
        assert_eq!(read.find(None).unwrap(), Some(&prod));
        assert!(read.find(Some("other")).is_err());
        assert_eq!(Contexts::default().find(None).unwrap(), None);
    }

    #[test]
    fn an_invalid_file_is_refused_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("contexts.yaml");
        for text in ["contexts: [a]", "contexts: {a: {endpoint: b, token: c}}", "curent: a"] {
            std::fs::write(&path, text).unwrap();
            assert!(format!("{:?}", Contexts::read(&path).unwrap_err()).contains("contexts.yaml"), "{text}");
        }
    }
}
