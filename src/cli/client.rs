//! The HTTP client of the client commands: one request, one bounded answer of JSON, or an error in one line.

use std::time::Duration;

use reqwest::header::{CACHE_CONTROL, CONTENT_TYPE, WARNING};
use reqwest::{Method, Url, redirect};
use serde_json::Value;

use crate::escape::visible;

/// Where the admin plane is when nobody says anything else.
pub const DEFAULT_ENDPOINT: &str = "http://localhost:4420";
/// The variable that says something else.
const ENDPOINT_VARIABLE: &str = "TALOS_ENDPOINT";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Why there is no answer to print.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The endpoint isn't a URL that can be asked. Its text may hold a password and isn't repeated.
    #[error("--endpoint (or TALOS_ENDPOINT): {0}")]
    Endpoint(&'static str),
    /// Nobody answered.
    #[error("{endpoint} gave no answer: {problem}")]
    NoAnswer {
        /// Who was asked.
        endpoint: String,
        /// What happened.
        problem: String,
    },
    /// The server's own error.
    #[error("{message} ({reason}, HTTP {status})")]
    Refused {
        /// In its words.
        message: String,
        /// The reason of the AIP-193 envelope.
        reason: String,
        /// The HTTP status.
        status: u16,
    },
    /// What answered doesn't speak our API.
    #[error("{endpoint} answered HTTP {status}, {problem}: is it the base URL of a Talos server?")]
    NotTalos {
        /// Who was asked.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More than we read.
    #[error("the answer is larger than {} MiB; ask for smaller pages", MAX_ANSWER / (1024 * 1024))]
    TooLarge,
}

/// A request in the making.
pub struct Request {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    no_cache: bool,
    body: Option<Value>,
}

impl Request {
    /// A request without a body. `path` begins with a slash.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: vec![], no_cache: false, body: None }
    }

    /// GET.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// POST of a JSON body.
    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::POST, path) }
    }

    /// PATCH of a JSON body.
    pub fn patch(path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::PATCH, path) }
    }

    /// With a parameter.
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// The server is to look things up itself, not in its cache.
    pub fn no_cache(mut self, asked: bool) -> Self {
        self.no_cache = asked;
        self
    }
}

/// What the server said: JSON, as it came and as a value. `null` when it said nothing.
pub struct Answer {
    /// The value.
    pub value: Value,
    /// Byte for byte.
    pub text: String,
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        Self { text: value.to_string(), value }
    }
}

/// A Talos server to ask.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    /// The base URL without a user or a password.
    name: String,
}

impl Client {
    /// For the endpoint given, else $TALOS_ENDPOINT, else the default.
    ///
    /// # Errors
    /// When the endpoint isn't a base URL, or this machine can't do TLS.
    pub fn new(endpoint: Option<&str>) -> Result<Self, ClientError> {
        let from_environment = std::env::var(ENDPOINT_VARIABLE).ok().filter(|value| !value.is_empty());
        let endpoint = endpoint.or(from_environment.as_deref()).unwrap_or(DEFAULT_ENDPOINT);
        let base = parse(endpoint).map_err(ClientError::Endpoint)?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            // $HTTP_PROXY is often set for other things; credentials don't go there by surprise.
            .no_proxy();
        if base.scheme() == "http" {
            // No need for the machine's certificates, and no failure where it has none.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|_| {
            ClientError::Endpoint("this machine has no certificates to check an https:// with")
        })?;
        let mut name = base.clone();
        // Fails only for URLs that can't have a user.
        let _ = name.set_username("");
        let _ = name.set_password(None);
        Ok(Self { http, base, name: name.as_str().trim_end_matches('/').to_owned() })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When nobody answers, the server refuses, or what answers isn't a Talos server.
    pub async fn send(&self, request: Request) -> Result<Answer, ClientError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}", self.base.path().trim_end_matches('/'), request.path));
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let mut call = self.http.request(request.method, url);
        if request.no_cache {
            call = call.header(CACHE_CONTROL, "no-cache");
        }
        if let Some(body) = request.body {
            call = call.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let mut response = call.send().await.map_err(|error| self.no_answer(error))?;
        for warning in response.headers().get_all(WARNING) {
            eprintln!("talos: the server warns: {}", visible(&String::from_utf8_lossy(warning.as_bytes())));
        }
        let status = response.status();
        let mut bytes = vec![];
        while let Some(chunk) = response.chunk().await.map_err(|error| self.no_answer(error))? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(ClientError::TooLarge);
            }
            bytes.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(bytes).ok();
        let value = match text.as_deref() {
            Some("") => Some(Value::Null),
            Some(text) => serde_json::from_str(text).ok(),
            None => None,
        };
        match (value, text) {
            (Some(value), Some(text)) if status.is_success() => Ok(Answer { value, text }),
            (Some(value), _) if value["error"]["message"].is_string() => {
                Err(refused(&value, status.as_u16()))
            }
            _ => {
                let problem = if status.is_redirection() {
                    "a redirect, which is not followed"
                } else {
                    "which is no answer of this API"
                };
                Err(ClientError::NotTalos { endpoint: self.name.clone(), status: status.as_u16(), problem })
            }
        }
    }

    fn no_answer(&self, error: reqwest::Error) -> ClientError {
        let problem = if error.is_timeout() {
            "it took too long".to_owned()
        } else {
            // The innermost error is the one that says something, such as `Connection refused`.
            let error = error.without_url();
            let mut innermost: &dyn std::error::Error = &error;
            while let Some(source) = innermost.source() {
                innermost = source;
            }
            innermost.to_string()
        };
        ClientError::NoAnswer { endpoint: self.name.clone(), problem }
    }
}

fn parse(endpoint: &str) -> Result<Url, &'static str> {
    let url = Url::parse(endpoint.trim()).map_err(|_| "must be a URL such as http://localhost:4420")?;
    match () {
        () if !matches!(url.scheme(), "http" | "https") => Err("must begin with http:// or https://"),
        () if url.query().is_some() || url.fragment().is_some() => Err("must have no ? and no #"),
        () => Ok(url),
    }
}

fn refused(document: &Value, status: u16) -> ClientError {
    let error = &document["error"];
    let text = |value: &Value| visible(value.as_str().unwrap_or_default()).into_owned();
    let reason = text(&error["details"][0]["reason"]);
    let reason = if reason.is_empty() { text(&error["status"]) } else { reason };
    ClientError::Refused { message: text(&error["message"]), reason, status }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for good in ["http://localhost:4420", "https://talos.example/prefix/", " http://[::1]:4420 "] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost:4420", "ftp://talos.example", "http://", "http://a/?b=c", "http://a/#b"] {
            assert!(matches!(parse(bad), Err(problem) if problem.starts_with("must")), "{bad}");
        }
    }

    #[test]
    fn a_password_of_the_endpoint_is_never_shown() {
        let client = Client::new(Some("http://user:s3cret@localhost:1/base/")).ok().unwrap();
        assert_eq!(client.name, "http://localhost:1/base");
        let error = Client::new(Some("nonsense://user:s3cret@localhost")).err().unwrap();
        assert!(!error.to_string().contains("s3cret"));
    }

    #[test]
    fn an_error_is_one_line_whatever_the_server_says() {
        let document = serde_json::json!({ "error": {
            "message": "no\u{1b}[31m such\nkey", "details": [{ "reason": "API_KEY_NOT_FOUND" }],
        }});
        let line = refused(&document, 404).to_string();
        assert_eq!(line, r"no\u{1b}[31m such\u{a}key (API_KEY_NOT_FOUND, HTTP 404)");
    }
}
