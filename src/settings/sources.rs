//! Reads the documents of key sets: from the configuration itself, from files, from servers.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::ACCEPT;
use reqwest::{Client, Response, StatusCode, Url, redirect};
use tokio::task::JoinSet;

use super::error::{MAX_DOCUMENT, SettingsError, SourceError};
use crate::config::KeySetUrl;
use crate::credential::jwk::KeySet;
use crate::secret::SecretString;

/// Time for a fetch, from the connection to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Documents of key sets, by URL. Each is a valid key set by itself.
#[derive(Clone, Default, PartialEq)]
pub struct Documents(Vec<Document>);

#[derive(Clone, PartialEq)]
struct Document {
    url: SecretString,
    text: SecretString,
}

/// Selects documents to read. Documents that were never read are read in any case, except by
/// `Offline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// All documents.
    All,
    /// Documents that don't come from servers.
    Local,
    /// Documents from servers.
    Servers,
    /// Documents that don't come from servers; others aren't read even for the first time.
    Offline,
}

/// Result of reading documents again.
pub struct Renewed {
    /// Documents, old ones where reading failed.
    pub documents: Documents,
    /// Reasons of failures, by position in the list of URLs.
    pub failures: BTreeMap<usize, SettingsError>,
}

impl Documents {
    /// Reads the documents of `urls` that are selected. Where that fails, the old document stays.
    pub async fn renew(&self, urls: &[KeySetUrl], selection: Reading) -> Renewed {
        let mut reading = JoinSet::new();
        let mut client = None;
        for (index, KeySetUrl { url, .. }) in urls.iter().enumerate() {
            let is_remote = is_https(url);
            let is_selected = match selection {
                Reading::All => true,
                Reading::Local => !is_remote || self.get(url).is_none(),
                Reading::Servers => is_remote || self.get(url).is_none(),
                Reading::Offline => !is_remote,
            };
            let url = url.clone();
            if is_selected && is_remote {
                let client = client.get_or_insert_with(new_client).clone();
                reading.spawn(async move { (index, fetch(url.expose(), client).await) });
            } else if is_selected {
                reading.spawn_blocking(move || (index, local(url.expose())));
            }
        }
        let mut read = BTreeMap::new();
        let mut failures = BTreeMap::new();
        while let Some(done) = reading.join_next().await {
            // A task that panicked leaves the old document.
            let Ok((index, text)) = done else { continue };
            let key = || urls[index].key.clone();
            let fail = |problem| SettingsError::KeySource { key: key(), problem };
            match text.map_err(fail).and_then(|text| key_set_alone(key(), text)) {
                Ok(text) => drop(read.insert(index, text)),
                Err(error) => drop(failures.insert(index, error)),
            }
        }
        let mut documents = vec![];
        for (index, KeySetUrl { url, .. }) in urls.iter().enumerate() {
            if let Some(text) = read.remove(&index).or_else(|| self.get(url).cloned()) {
                documents.push(Document { url: url.clone(), text });
            }
        }
        Renewed { documents: Self(documents), failures }
    }

    /// These documents, with those of `newer` that come from servers.
    pub fn with_servers_of(&self, newer: &Self) -> Self {
        let taken = |document: &Document| {
            let newer = newer.get(&document.url).filter(|_| is_https(&document.url));
            let text = newer.unwrap_or(&document.text).clone();
            Document { url: document.url.clone(), text }
        };
        Self(self.0.iter().map(taken).collect())
    }

    /// These documents, with an empty key set for each of `urls` that has none.
    pub fn or_empty(mut self, urls: &[KeySetUrl]) -> Self {
        for KeySetUrl { url, .. } in urls {
            if self.get(url).is_none() {
                self.0.push(Document { url: url.clone(), text: r#"{"keys":[]}"#.into() });
            }
        }
        self
    }

    /// The document of this URL.
    pub fn get(&self, url: &SecretString) -> Option<&SecretString> {
        self.0.iter().find(|document| document.url == *url).map(|document| &document.text)
    }
}

impl Renewed {
    /// This result, if there is a document for each of `urls`.
    ///
    /// # Errors
    /// With the reason for which the first missing document couldn't be read.
    pub fn complete(mut self, urls: &[KeySetUrl]) -> Result<Self, SettingsError> {
        match urls.iter().position(|KeySetUrl { url, .. }| self.documents.get(url).is_none()) {
            Some(index) => {
                let not_read = || SettingsError::NotRead { key: urls[index].key.clone() };
                Err(self.failures.remove(&index).unwrap_or_else(not_read))
            }
            None => Ok(self),
        }
    }
}

/// Reads one document, whatever its content.
///
/// # Errors
/// When it can't be read.
pub async fn read(url: &SecretString) -> Result<SecretString, SourceError> {
    if is_https(url) {
        return fetch(url.expose(), new_client()).await;
    }
    let url = url.clone();
    let read = tokio::task::spawn_blocking(move || local(url.expose())).await;
    read.unwrap_or(Err(SourceError::NotText))
}

/// Returns true if a document comes from a server.
pub fn is_https(url: &SecretString) -> bool {
    url.expose().starts_with("https://")
}

/// Checks that a document is a key set by itself.
fn key_set_alone(key: String, text: SecretString) -> Result<SecretString, SettingsError> {
    let read = KeySet::default().read(text.expose());
    read.map(|()| text).map_err(|problem| SettingsError::KeySet { key, problem })
}

/// Reads a document that doesn't come from a server.
fn local(url: &str) -> Result<SecretString, SourceError> {
    let bytes = if let Some(encoded) = url.strip_prefix("base64://") {
        // Both alphabets are accepted, with or without padding.
        let encoded = encoded.trim_end_matches('=').replace('-', "+").replace('_', "/");
        let padded = format!("{encoded}{}", "=".repeat(encoded.len().wrapping_neg() % 4));
        STANDARD.decode(padded).map_err(|_| SourceError::NotBase64)?
    } else if let Some(path) = url.strip_prefix("file://") {
        let fail = |source| SourceError::File { path: path.to_owned(), source };
        let mut bytes = vec![];
        let file = std::fs::File::open(path).map_err(fail)?;
        file.take(MAX_DOCUMENT as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
        bytes
    } else {
        return Err(SourceError::UnknownScheme);
    };
    text(bytes)
}

fn text(bytes: Vec<u8>) -> Result<SecretString, SourceError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(SourceError::TooLarge);
    }
    let mut text = String::from_utf8(bytes).map_err(|_| SourceError::NotText)?;
    // Editors and shells of Windows begin texts with a byte order mark.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(SecretString::from(text))
}

/// Builds a client for one round of fetches, so that it has the system's current CA certificates.
/// Proxies come from the environment (`HTTPS_PROXY`, `NO_PROXY`).
fn new_client() -> Result<Client, String> {
    Client::builder()
        .https_only(true)
        .redirect(redirect::Policy::none())
        .timeout(FETCH_TIMEOUT)
        .user_agent(concat!("talos/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(describe)
}

async fn fetch(url: &str, client: Result<Client, String>) -> Result<SecretString, SourceError> {
    let url = Url::parse(url).map_err(|_| SourceError::NotAUrl)?;
    let host = url.host_str().ok_or(SourceError::NotAUrl)?.to_owned();
    let fail = |problem| SourceError::Server { host: host.clone(), problem };
    let accept = "application/jwk-set+json, application/json";
    let request = client.map_err(fail)?.get(url).header(ACCEPT, accept);
    let response = request.send().await.map_err(|error| fail(describe(error)))?;
    if response.status() != StatusCode::OK {
        return Err(fail(format!("answered {} instead of 200", response.status().as_u16())));
    }
    match body(response).await {
        Ok(bytes) => text(bytes),
        Err(error) => Err(fail(describe(error))),
    }
}

/// Reads the body, at most a little more than the limit.
async fn body(mut response: Response) -> reqwest::Result<Vec<u8>> {
    let mut bytes = vec![];
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_DOCUMENT {
            break;
        }
    }
    Ok(bytes)
}

/// An error with its causes, without the URL, which may hold a password.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::URL_SAFE;

    const SET: &str = r#"{"keys":[]}"#;

    fn urls(texts: &[&str]) -> Vec<KeySetUrl> {
        let set =
            |(index, text): (usize, &&str)| KeySetUrl { key: format!("urls[{index}]"), url: (**text).into() };
        texts.iter().enumerate().map(set).collect()
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_document() {
        let text = format!("\u{feff}{SET}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, &text).unwrap();
        let (file, encoded) = (file.path().display(), STANDARD.encode(&text));
        for url in [format!("file://{file}"), format!("base64://{encoded}")] {
            assert_eq!(local(&url).unwrap().expose(), SET, "{url}");
        }
    }

    #[test]
    fn base64_in_every_common_form() {
        let text = r#"{"keys":[]}?>~"#;
        for engine in [STANDARD, URL_SAFE] {
            let encoded = engine.encode(text);
            for form in [encoded.as_str(), encoded.trim_end_matches('=')] {
                assert_eq!(local(&format!("base64://{form}")).unwrap().expose(), text, "{form}");
            }
        }
    }

    #[tokio::test]
    async fn a_document_that_cannot_be_read_is_named_by_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| format!("file://{}/{name}", dir.path().display());
        std::fs::write(dir.path().join("large"), vec![b' '; MAX_DOCUMENT + 1]).unwrap();
        std::fs::write(dir.path().join("binary"), [0xff]).unwrap();
        std::fs::write(dir.path().join("text"), "hunter2").unwrap();
        let table = [
            ("base64://???", "must be base64 after base64://"),
            ("ftp://x", "must begin with base64://, file:// or https://"),
            ("http://x", "must begin with base64://, file:// or https://"),
            ("https://", "must be a URL such as https://keys.example/jwks.json"),
            (&path("none"), "No such file"),
            (&path(""), "Is a directory"),
            (&path("large"), "must be 1048576 bytes at most"),
            (&path("binary"), "must be UTF-8 text"),
            (&path("text"), "must be a JSON object with a list `keys`"),
        ];
        let good = format!("base64://{}", STANDARD.encode(SET));
        for (url, problem) in table {
            let urls = urls(&[&good, url]);
            let renewed = Documents::default().renew(&urls, Reading::All).await;
            let error = renewed.complete(&urls).err().unwrap().to_string();
            let place = "urls[1]: ";
            assert!(error.starts_with(place) && error.contains(problem), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_document_that_was_good_stays_when_it_cannot_be_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, SET).unwrap();
        let urls = urls(&[&format!("file://{}", file.path().display())]);
        let first = Documents::default().renew(&urls, Reading::All).await.documents;
        for (content, failures) in [("{", 1), ("[]", 1), (r#"{"keys": []}"#, 0)] {
            std::fs::write(&file, content).unwrap();
            let renewed = first.renew(&urls, Reading::Local).await;
            assert_eq!(renewed.failures.len(), failures, "{content}");
            let expected = if failures == 0 { content } else { SET };
            assert_eq!(renewed.documents.get(&urls[0].url).unwrap().expose(), expected);
        }
        drop(file);
        assert!(first.renew(&urls, Reading::All).await.complete(&urls).is_ok());
        assert!(Documents::default().renew(&urls, Reading::All).await.complete(&urls).is_err());
    }
}
