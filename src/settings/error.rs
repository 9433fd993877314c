//! Reasons for which no settings can be made of a configuration.

use crate::credential::jwk::JwkError;

/// Largest document of a key set, in bytes.
pub(super) const MAX_DOCUMENT: usize = 1024 * 1024;

/// A configuration of which no settings can be made.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// `secrets.hmac.current` is unset.
    #[error("project has no HMAC key configured")]
    NoHmacSecret,
    /// The document of a key set can't be read.
    #[error("{key}: {problem}")]
    KeySource {
        /// Setting that names the key set.
        key: String,
        /// Reason, without any content.
        problem: SourceError,
    },
    /// The document of a key set wasn't read before settings were built.
    #[error("{key}: was not read")]
    NotRead {
        /// Setting that names the key set.
        key: String,
    },
    /// The document is no key set that can be used.
    #[error("{key}: {problem}")]
    KeySet {
        /// Setting that names the key set.
        key: String,
        /// Reason.
        problem: JwkError,
    },
    /// No signing key has the configured id.
    #[error("credentials.derived_tokens.jwt.signing_key_id: no signing key with this id is in the key sets")]
    NoSigningKey,
    /// A network has no valid host name or id. Validation refuses such a configuration before.
    #[error("multitenancy.networks: {hostname}: has no name or no id")]
    NoNetwork {
        /// Host name of the network.
        hostname: String,
    },
    /// The settings of one network can't be built.
    #[error("{hostname}: {problem}")]
    OfNetwork {
        /// Host name of the network.
        hostname: String,
        /// Reason.
        problem: Box<Self>,
    },
}

/// A document that can't be read. Holds nothing of its content, and no password of its URL.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The URL has no base64 after its scheme.
    #[error("must be base64 after base64://")]
    NotBase64,
    /// The document isn't UTF-8.
    #[error("must be UTF-8 text")]
    NotText,
    /// The document is too large.
    #[error("must be {MAX_DOCUMENT} bytes at most")]
    TooLarge,
    /// The file can't be read.
    #[error("{path}: {source}")]
    File {
        /// Path of the file.
        path: String,
        /// Reason of the operating system.
        source: std::io::Error,
    },
    /// The URL can't be parsed.
    #[error("must be a URL such as https://keys.example/jwks.json")]
    NotAUrl,
    /// The server gave no document. Another try may succeed.
    #[error("{host}: {problem}")]
    Server {
        /// Host name of the server.
        host: String,
        /// Reason.
        problem: String,
    },
    /// The URL has another scheme.
    #[error("must begin with base64://, file:// or https://")]
    UnknownScheme,
}
