//! Errors of the configuration. No text holds the value of a secret key.

use std::fmt;
use std::path::PathBuf;

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
    #[error("{}: {place}{reason}", file.display())]
    NotYaml {
        /// The file as given.
        file: PathBuf,
        /// `line 3 column 5: `, or empty when the parser knows no place.
        place: String,
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

/// One wrong setting. Prints as `serve.http.port: must be … (talos.yaml)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path, with `[0]` for entries of lists.
    pub key: String,
    /// Problem.
    pub message: String,
    /// The file, the environment variable, or `default`.
    pub origin: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.key, self.message, self.origin)
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
