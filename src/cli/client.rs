//! HTTP client of the client commands: sends one request and returns a bounded JSON response, or an
//! error that fits on one line.

use std::time::Duration;

use reqwest::header::{CACHE_CONTROL, CONTENT_TYPE, WARNING};
use reqwest::{Method, Url, redirect};
use serde_json::Value;

use crate::escape::visible;

/// URL of the admin plane when neither `--endpoint` nor the environment names one.
pub const DEFAULT_ENDPOINT: &str = "http://localhost:4420";
/// Environment variable that names the server's base URL.
const ENDPOINT_ENV: &str = "TALOS_ENDPOINT";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest response body that is read, in bytes.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// Error of a request to a server.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The endpoint isn't a usable URL. Its text may hold a password, so it isn't repeated.
    #[error("--endpoint (or TALOS_ENDPOINT): {0}")]
    Endpoint(&'static str),
    /// No response was received.
    #[error("{endpoint} gave no answer: {problem}")]
    Unreachable {
        /// The server's URL, without credentials.
        endpoint: String,
        /// The innermost cause, such as `Connection refused`.
        problem: String,
    },
    /// The server answered with an error of its API.
    #[error("{message} ({reason}, HTTP {status})")]
    Api {
        /// The server's message.
        message: String,
        /// The reason in the AIP-193 error details.
        reason: String,
        /// The HTTP status.
        status: u16,
    },
    /// The response isn't one of this API.
    #[error("{endpoint} answered HTTP {status}, {problem}: is it the base URL of a Talos server?")]
    NotTalos {
        /// The server's URL, without credentials.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// Why the response can't be used.
        problem: &'static str,
    },
    /// The response is larger than [`MAX_RESPONSE_BYTES`].
    #[error("the response is larger than {} MiB; request smaller pages (--page-size)", MAX_RESPONSE_BYTES / (1024 * 1024))]
    TooLarge,
}

/// One request to the API.
pub struct Request {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    no_cache: bool,
    body: Option<Value>,
}

impl Request {
    /// Creates a request without a body. `path` begins with a slash.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: vec![], no_cache: false, body: None }
    }

    /// Creates a GET request.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Creates a POST request with a JSON body.
    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::POST, path) }
    }

    /// Creates a PATCH request with a JSON body.
    pub fn patch(path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::PATCH, path) }
    }

    /// Adds a query parameter.
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Sets whether the server must read from its database instead of its cache.
    pub fn no_cache(mut self, no_cache: bool) -> Self {
        self.no_cache = no_cache;
        self
    }
}

/// A JSON document, parsed and as received. An empty response body is `null`.
pub struct JsonBody {
    /// The parsed value.
    pub value: Value,
    /// The received text, unchanged.
    pub text: String,
}

impl From<Value> for JsonBody {
    fn from(value: Value) -> Self {
        Self { text: value.to_string(), value }
    }
}

/// A client of one Talos server.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    /// The base URL without user and password, for error messages.
    display_url: String,
}

impl Client {
    /// Creates a client of the given endpoint, else of $TALOS_ENDPOINT, else of the default.
    ///
    /// # Errors
    /// Fails when the endpoint isn't a base URL, or no CA certificates are found for https.
    pub fn new(endpoint: Option<&str>) -> Result<Self, ClientError> {
        let from_environment = std::env::var(ENDPOINT_ENV).ok().filter(|value| !value.is_empty());
        let endpoint = endpoint.or(from_environment.as_deref()).unwrap_or(DEFAULT_ENDPOINT);
        let base = parse_endpoint(endpoint).map_err(ClientError::Endpoint)?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            // $HTTP_PROXY is often set for other programs: credentials must not go there.
            .no_proxy();
        if base.scheme() == "http" {
            // Plain HTTP needs no CA certificates, and must work where none are installed.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|_| {
            ClientError::Endpoint("no CA certificates found to verify https:// with; set SSL_CERT_FILE")
        })?;
        let mut public = base.clone();
        // Fails only for URLs that can't have a user.
        let _ = public.set_username("");
        let _ = public.set_password(None);
        Ok(Self { http, base, display_url: public.as_str().trim_end_matches('/').to_owned() })
    }

    /// Sends a request and returns the response's body.
    ///
    /// # Errors
    /// Fails when the server is unreachable, answers with an error, or isn't a Talos server.
    pub async fn send(&self, request: Request) -> Result<JsonBody, ClientError> {
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
        let mut response = call.send().await.map_err(|error| self.unreachable(error))?;
        for warning in response.headers().get_all(WARNING) {
            eprintln!("talos: the server warns: {}", visible(&String::from_utf8_lossy(warning.as_bytes())));
        }
        let status = response.status();
        let mut bytes = vec![];
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if bytes.len() + chunk.len() > MAX_RESPONSE_BYTES {
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
            (Some(value), Some(text)) if status.is_success() => Ok(JsonBody { value, text }),
            (Some(value), _) if value["error"]["message"].is_string() => {
                Err(api_error(&value, status.as_u16()))
            }
            _ => {
                let problem = if status.is_redirection() {
                    "a redirect, which is not followed"
                } else {
                    "which is not a response of this API"
                };
                Err(ClientError::NotTalos {
                    endpoint: self.display_url.clone(),
                    status: status.as_u16(),
                    problem,
                })
            }
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> ClientError {
        let problem = if error.is_timeout() {
            "the request timed out".to_owned()
        } else {
            // The innermost error names the cause, such as `Connection refused`.
            let error = error.without_url();
            let mut innermost: &dyn std::error::Error = &error;
            while let Some(source) = innermost.source() {
                innermost = source;
            }
            innermost.to_string()
        };
        ClientError::Unreachable { endpoint: self.display_url.clone(), problem }
    }
}

fn parse_endpoint(endpoint: &str) -> Result<Url, &'static str> {
    let url = Url::parse(endpoint.trim()).map_err(|_| "must be a URL such as http://localhost:4420")?;
    match () {
        () if !matches!(url.scheme(), "http" | "https") => Err("must begin with http:// or https://"),
        () if url.query().is_some() || url.fragment().is_some() => Err("must have no ? and no #"),
        () => Ok(url),
    }
}

/// Converts an AIP-193 error body.
fn api_error(document: &Value, status: u16) -> ClientError {
    let error = &document["error"];
    let text = |value: &Value| visible(value.as_str().unwrap_or_default()).into_owned();
    let reason = text(&error["details"][0]["reason"]);
    let reason = if reason.is_empty() { text(&error["status"]) } else { reason };
    ClientError::Api { message: text(&error["message"]), reason, status }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for good in ["http://localhost:4420", "https://talos.example/prefix/", " http://[::1]:4420 "] {
            assert!(parse_endpoint(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost:4420", "ftp://talos.example", "http://", "http://a/?b=c", "http://a/#b"] {
            assert!(matches!(parse_endpoint(bad), Err(problem) if problem.starts_with("must")), "{bad}");
        }
    }

    #[test]
    fn a_password_of_the_endpoint_is_never_shown() {
        let client = Client::new(Some("http://user:s3cret@localhost:1/base/")).ok().unwrap();
        assert_eq!(client.display_url, "http://localhost:1/base");
        let error = Client::new(Some("nonsense://user:s3cret@localhost")).err().unwrap();
        assert!(!error.to_string().contains("s3cret"));
    }

    #[test]
    fn an_error_is_one_line_whatever_the_server_says() {
        let document = serde_json::json!({ "error": {
            "message": "no\u{1b}[31m such\nkey", "details": [{ "reason": "API_KEY_NOT_FOUND" }],
        }});
        let line = api_error(&document, 404).to_string();
        assert_eq!(line, r"no\u{1b}[31m such\u{a}key (API_KEY_NOT_FOUND, HTTP 404)");
    }
}
