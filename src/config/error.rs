//! Errors of the configuration. No text holds the value of a secret key.

use std::fmt;
use std::path::{Path, PathBuf};

use super::location::{self, Location};

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing, or may not be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Unreadable {
        /// The file as given.
        file: PathBuf,
        /// Reason of the operating system.
        source: std::io::Error,
    },
    /// The file isn't YAML, or has a key twice.
    #[error("{}: {}{reason}", file.display(), location.map(|location| format!("{location}: ")).unwrap_or_default())]
    NotYaml {
        /// The file as given.
        file: PathBuf,
        /// None when the parser knows no location.
        location: Option<Location>,
        /// One of a fixed set of texts, as the parser's own texts quote the content.
        reason: &'static str,
    },
    /// The file has a text, a number or a list instead of keys.
    #[error("{}: must be a mapping of keys to values", file.display())]
    NotAMapping {
        /// The file as given.
        file: PathBuf,
    },
    /// All wrong settings, one per line.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Problem>),
    /// `secrets.hmac.current` is unset.
    #[error(
        "project has no HMAC key configured\n\
         secrets.hmac.current (TALOS_SECRETS_HMAC_CURRENT): \
         make one with `openssl rand -base64 48 | tr -d '\\n+/=' | cut -c1-64`"
    )]
    NoHmacKey,
}

/// Dotted keys, each with a problem.
pub(super) type Problems = Vec<(String, String)>;

/// One setting that is wrong, or hardly intended. Prints as
/// `serve.http.prot: unknown key (talos.yaml), line 3 column 5; did you mean serve.http.port?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path, with `[0]` for entries of lists.
    pub key: String,
    /// Problem.
    pub message: String,
    /// The file, the environment variable, or `default`; empty where the key itself tells.
    pub origin: String,
    /// Location in the file.
    pub location: Option<Location>,
    /// Advice, where the message has none.
    pub cure: Option<String>,
}

impl Problem {
    /// A problem at no known location.
    pub fn new(key: impl Into<String>, message: impl Into<String>, origin: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), origin: origin.into(), location: None, cure: None }
    }

    /// The problem with advice.
    pub fn with_cure(self, cure: Option<impl Into<String>>) -> Self {
        Self { cure: cure.map(Into::into), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)?;
        if !self.origin.is_empty() {
            write!(f, " ({})", self.origin)?;
        }
        // An error of the parser begins with its location.
        if let Some(location) =
            self.location.filter(|location| !self.message.starts_with(&location.to_string()))
        {
            write!(f, ", {location}")?;
        }
        match &self.cure {
            Some(cure) => write!(f, "; {cure}"),
            None => Ok(()),
        }
    }
}

/// Number of problems that get a location; each costs passes over the file.
const MAX_PLACES: usize = 100;

/// Finds the locations of problems in a file with this text. A setting that is absent gets the
/// location of the section around it.
pub(super) fn locate(problems: &mut [Problem], file: &Path, yaml: &[u8]) {
    let name = file.display().to_string();
    let is_here = |problem: &&mut Problem| {
        problem.location.is_none() && (problem.origin == name || problem.origin == "default")
    };
    for problem in problems.iter_mut().filter(is_here).take(MAX_PLACES) {
        problem.location = location::find(yaml, &problem.key);
    }
}

/// Problems, one per line.
struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
