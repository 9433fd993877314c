//! HTTP client of the client commands: sends one request and returns a bounded JSON response, or an
//! error that fits on one line.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, WARNING};
use reqwest::{Certificate, Identity, Method, Url, redirect};
use serde_json::Value;

use super::hints;
use super::server::Server;
use crate::cli::stderr;
use crate::escape::visible;
use crate::secret::SecretString;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest response body that is read, in bytes.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// Error of a request to a server.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// An option of the connection is invalid. Its value may be a secret, so it isn't repeated.
    #[error("{option}: {problem}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Problem of its value.
        problem: &'static str,
    },
    /// No response was received.
    #[error("{endpoint} gave no answer: {problem}")]
    Unreachable {
        /// The server's URL, without credentials.
        endpoint: String,
        /// The innermost cause, such as `Connection refused`.
        problem: String,
    },
    /// The server answered with an error of its API.
    #[error("{message} ({reason}, HTTP {status}){hint}")]
    Api {
        /// The server's message.
        message: String,
        /// The reason in the AIP-193 error details.
        reason: String,
        /// The HTTP status.
        status: u16,
        /// The option that may help, if any.
        hint: &'static str,
    },
    /// The response isn't one of this API.
    #[error("{endpoint} answered HTTP {status}, {problem}")]
    NotTalos {
        /// The server's URL, without credentials.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// Problem of the response.
        problem: &'static str,
    },
    /// The response is larger than [`MAX_RESPONSE_BYTES`].
    #[error("the response is larger than {} MiB; request smaller pages (--page-size)", MAX_RESPONSE_BYTES / (1024 * 1024))]
    TooLarge,
}

/// One request to the API.
pub(super) struct Request {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    no_cache: bool,
    body: Option<Value>,
    /// Accepts an answer only if it is empty or has one of these members. None: any answer.
    members: &'static [&'static str],
}

impl Request {
    /// Creates a request without a body. `path` begins with a slash.
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: vec![], no_cache: false, body: None, members: &[] }
    }

    /// Creates a GET request.
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Creates a POST request with a JSON body.
    pub(super) fn post(path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::POST, path) }
    }

    /// Creates a PATCH request with a JSON body.
    pub(super) fn patch(path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::PATCH, path) }
    }

    /// Names members of which an answer of this API has one, unless it is empty.
    pub(super) fn expect(self, members: &'static [&'static str]) -> Self {
        Self { members, ..self }
    }

    /// Adds a query parameter.
    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Sets whether the server must read from its database instead of its cache.
    pub(super) fn no_cache(mut self, no_cache: bool) -> Self {
        self.no_cache = no_cache;
        self
    }
}

/// A JSON document, parsed and as received. An empty response body is `null`.
pub(super) struct JsonBody {
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
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    /// The base URL without user and password, for error messages.
    display_url: String,
    is_authenticated: bool,
    /// True for https without a client certificate.
    is_anonymous_tls: bool,
    /// True for `unix://`.
    is_socket: bool,
}

impl Client {
    /// Creates a client of a server.
    ///
    /// # Errors
    /// Fails when the endpoint, a certificate or the token is invalid, or no CA certificates are
    /// found for https.
    pub(super) fn new(server: &Server) -> Result<Self, ClientError> {
        let base = parse_endpoint(&server.endpoint).map_err(endpoint_error)?;
        let socket = server.socket();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            // $HTTP_PROXY is often set for other programs: credentials must not go there.
            .no_proxy();
        if let Some(path) = &socket {
            builder = builder.unix_socket(path.clone());
        }
        if let Some(pem) = &server.ca_cert {
            builder = builder.tls_certs_only(ca_certificates(pem)?);
        } else if base.scheme() == "http" {
            // Plain HTTP needs no CA certificates, and must work where none are installed.
            builder = builder.tls_certs_only([]);
        }
        if let Some(pem) = &server.identity {
            builder = builder.identity(identity(pem)?);
        }
        if server.network.is_some() {
            // HTTP/2 has the host in :authority, which is that of the endpoint.
            builder = builder.http1_only();
        }
        let builder = builder.default_headers(headers(server)?);
        let http = builder.build().map_err(|error| match format!("{error:?}").contains("KeyMismatch") {
            true => ClientError::Option {
                option: "--client-key",
                problem: "is not the private key of the certificate in --client-cert",
            },
            false => {
                let problem =
                    "no CA certificates found to verify https:// with; use --ca-cert or SSL_CERT_FILE";
                endpoint_error(problem)
            }
        })?;
        if server.token.is_some() && is_exposed(&base) {
            stderr::line(format_args!(
                "talos: warning: the token is sent unencrypted; use an https:// endpoint"
            ));
        }
        let mut public = base.clone();
        // Fails only for URLs that can't have a user.
        let _ = public.set_username("");
        let _ = public.set_password(None);
        let display_url = match socket {
            Some(path) => format!("unix://{}", visible(&path.to_string_lossy())),
            None => public.as_str().trim_end_matches('/').to_owned(),
        };
        let is_authenticated = server.token.is_some() || server.identity.is_some();
        let is_anonymous_tls = base.scheme() == "https" && server.identity.is_none();
        let is_socket = server.socket().is_some();
        Ok(Self { http, base, display_url, is_authenticated, is_anonymous_tls, is_socket })
    }

    /// Sends a request and returns the response's body.
    ///
    /// # Errors
    /// Fails when the server is unreachable, answers with an error, or isn't a Talos server.
    pub(super) async fn send(&self, request: Request) -> Result<JsonBody, ClientError> {
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
            stderr::line(format_args!(
                "talos: the server warns: {}",
                visible(&String::from_utf8_lossy(warning.as_bytes()))
            ));
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
        let is_known = |value: &Value| is_answer(value, request.members);
        let value = match text.as_deref() {
            Some("") => Some(Value::Null),
            Some(text) => serde_json::from_str(text).ok(),
            None => None,
        };
        match (value, text) {
            (Some(value), Some(text)) if status.is_success() && is_known(&value) => {
                Ok(JsonBody { value, text })
            }
            (Some(value), _) if value["error"]["message"].is_string() => {
                Err(api_error(&value, status.as_u16(), self.is_authenticated))
            }
            (_, text) => Err(ClientError::NotTalos {
                endpoint: self.display_url.clone(),
                status: status.as_u16(),
                problem: hints::of_foreign_answer(status.as_u16(), text.as_deref().unwrap_or_default()),
            }),
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> ClientError {
        let problem = if error.is_timeout() {
            format!(
                "the answer wasn't complete within {} s; `talos status` on that machine tells what is slow",
                TIMEOUT.as_secs()
            )
        } else {
            // TLS 1.3 reports a missing certificate after the handshake: a request that is on its
            // way by then may end before the server's alert is read.
            let may_lack_certificate = self.is_anonymous_tls && !error.is_connect();
            // The innermost error names the cause, such as `Connection refused`.
            let error = error.without_url();
            let mut innermost: &dyn std::error::Error = &error;
            while let Some(source) = innermost.source() {
                innermost = source;
            }
            hints::of_connection(&innermost.to_string(), self.is_socket, may_lack_certificate)
        };
        ClientError::Unreachable { endpoint: self.display_url.clone(), problem }
    }
}

/// Returns true for an empty object, and for one with one of the members.
fn is_answer(value: &Value, members: &[&str]) -> bool {
    let has_one = |object: &serde_json::Map<String, Value>| {
        object.is_empty() || members.iter().any(|member| object.contains_key(*member))
    };
    members.is_empty() || value.as_object().is_some_and(has_one)
}

/// Checks that an endpoint can be used.
///
/// # Errors
/// Fails when it is neither a base URL nor `unix://` and an absolute path.
pub(super) fn check_endpoint(endpoint: &str) -> Result<(), ClientError> {
    parse_endpoint(endpoint).map(drop).map_err(endpoint_error)
}

/// Returns true if an endpoint has a user or a password.
pub(super) fn has_user(endpoint: &str) -> bool {
    let url = parse_endpoint(endpoint);
    url.is_ok_and(|url| !url.username().is_empty() || url.password().is_some())
}

fn endpoint_error(problem: &'static str) -> ClientError {
    ClientError::Option { option: "--endpoint (or TALOS_ENDPOINT)", problem }
}

/// Parses an endpoint. Requests over a socket have the host localhost.
fn parse_endpoint(endpoint: &str) -> Result<Url, &'static str> {
    if let Some(path) = endpoint.trim().strip_prefix("unix://") {
        return match path.starts_with('/') {
            true => Url::parse("http://localhost").map_err(|_| "must be a URL"),
            false => Err("must have an absolute path, as in unix:///run/talos/admin.sock"),
        };
    }
    let url = Url::parse(endpoint.trim()).map_err(|_| "must be a URL such as http://localhost:4420")?;
    match () {
        () if !matches!(url.scheme(), "http" | "https") => {
            Err("must begin with http://, https:// or unix://, as in http://localhost:4420")
        }
        () if url.query().is_some() || url.fragment().is_some() => Err("must have no ? and no #"),
        () => Ok(url),
    }
}

fn ca_certificates(pem: &[u8]) -> Result<Vec<Certificate>, ClientError> {
    match Certificate::from_pem_bundle(pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(ClientError::Option { option: "--ca-cert", problem: "has no PEM certificate" }),
    }
}

fn identity(pem: &[u8]) -> Result<Identity, ClientError> {
    Identity::from_pem(pem).map_err(|_| ClientError::Option {
        option: "--client-cert, --client-key",
        problem: "must be a PEM certificate and its private key",
    })
}

/// Returns the headers of every request: the token, and the network's host.
fn headers(server: &Server) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::new();
    if let Some(token) = &server.token {
        headers.insert(AUTHORIZATION, bearer(token)?);
    }
    if let Some(host) = &server.network {
        let value = HeaderValue::from_str(host)
            .map_err(|_| ClientError::Option { option: "--network", problem: "must be a host name" })?;
        headers.insert(HOST, value);
    }
    Ok(headers)
}

fn bearer(token: &SecretString) -> Result<HeaderValue, ClientError> {
    let text = zeroize::Zeroizing::new(format!("Bearer {}", token.expose()));
    let mut value = HeaderValue::from_str(&text).map_err(|_| ClientError::Option {
        option: "--token",
        problem: "must have only visible ASCII characters",
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns true for an unencrypted connection that may leave this machine.
fn is_exposed(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_loopback =
        host.parse::<std::net::IpAddr>().map_or(host == "localhost", |address| address.is_loopback());
    base.scheme() == "http" && !is_loopback
}

/// Converts an AIP-193 error body.
fn api_error(document: &Value, status: u16, is_authenticated: bool) -> ClientError {
    let error = &document["error"];
    let text = |value: &Value| visible(value.as_str().unwrap_or_default()).into_owned();
    let reason = text(&error["details"][0]["reason"]);
    let reason = if reason.is_empty() { text(&error["status"]) } else { reason };
    let message = text(&error["message"]);
    let hint = hints::of_api(&reason, &message, is_authenticated);
    ClientError::Api { message, reason, status, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for good in [
            "unix:///run/talos.sock",
            "http://localhost:4420",
            "https://talos.example/prefix/",
            " http://[::1]:4420 ",
        ] {
            assert!(parse_endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "unix://talos.sock",
            "localhost:4420",
            "ftp://talos.example",
            "http://",
            "http://a/?b=c",
            "http://a/#b",
        ] {
            assert!(matches!(parse_endpoint(bad), Err(problem) if problem.starts_with("must")), "{bad}");
        }
    }

    #[test]
    fn a_password_of_the_endpoint_is_never_shown() {
        let client = Client::new(&Server::at("http://user:s3cret@localhost:1/base/")).ok().unwrap();
        assert_eq!(client.display_url, "http://localhost:1/base");
        let error = Client::new(&Server::at("nonsense://user:s3cret@localhost")).err().unwrap();
        assert!(!error.to_string().contains("s3cret"));
    }

    #[test]
    fn options_that_can_not_be_used_are_named() {
        let of = |server: Server| Client::new(&server).err().unwrap().to_string();
        let at = || Server::at("https://localhost");
        for (server, option) in [
            (Server { ca_cert: Some(b"s3cret".to_vec()), ..at() }, "--ca-cert: "),
            (Server { identity: Some(b"s3cret".to_vec().into()), ..at() }, "--client-cert, --client-key: "),
            (Server { token: Some("s3cret\n".into()), ..at() }, "--token: "),
            (Server { network: Some("a\nb".into()), ..at() }, "--network: "),
        ] {
            let error = of(server);
            assert!(error.starts_with(option) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_token_is_exposed_by_plain_http_to_other_machines() {
        for (endpoint, exposed) in [
            ("http://10.0.0.1", true),
            ("http://keys.example", true),
            ("https://keys.example", false),
            ("http://localhost:4420", false),
            ("http://127.0.0.1", false),
            ("http://[::1]:4420", false),
            ("unix:///run/a.sock", false),
        ] {
            assert_eq!(is_exposed(&parse_endpoint(endpoint).unwrap()), exposed, "{endpoint}");
        }
    }

    #[test]
    fn an_error_is_one_line_whatever_the_server_says() {
        let document = serde_json::json!({ "error": {
            "message": "no\u{1b}[31m such\nkey", "details": [{ "reason": "API_KEY_NOT_FOUND" }],
        }});
        let line = api_error(&document, 404, false).to_string();
        assert_eq!(line, r"no\u{1b}[31m such\u{a}key (API_KEY_NOT_FOUND, HTTP 404)");
    }
}
