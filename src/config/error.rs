//! What can be wrong with a configuration. No text holds a value of a secret key.

use std::fmt;
use std::path::PathBuf;

/// Why no configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing, or may not be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Unreadable {
        /// The file as given.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not YAML, or a key stands in it twice.
    #[error("{}: {place}{reason}", file.display())]
    NotYaml {
        /// The file as given.
        file: PathBuf,
        /// `line 3 column 5: `, or nothing when the parser knows no place.
        place: String,
        /// Of a fixed set, since the parser's own texts quote the content.
        reason: &'static str,
    },
    /// The file holds a text, a number or a list instead of keys.
    #[error("{}: must be a mapping of keys to values", file.display())]
    NotAMapping {
        /// The file as given.
        file: PathBuf,
    },
    /// Settings that are wrong, all of them, one a line.
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

/// One wrong setting. Prints as `serve.http.port: must be … (talos.yaml)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path, with `[0]` for entries of lists.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
    /// The file, the environment variable, or `default`.
    pub origin: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.key, self.message, self.origin)
    }
}

/// Problems, one a line.
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
