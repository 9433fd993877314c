//! CORS (Fetch standard): pages of other origins may use a plane only if the settings allow it.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::config::Cors;
use crate::http::context::Context;

/// Applies the admin plane's settings.
pub(crate) async fn on_admin(State(context): State<Context>, request: Request, next: Next) -> Response {
    let settings = context.service.snapshot();
    answer(&settings.admin_cors, request, next).await
}

/// Applies the public plane's settings.
pub(crate) async fn on_public(State(context): State<Context>, request: Request, next: Next) -> Response {
    let settings = context.service.snapshot();
    answer(&settings.public_cors, request, next).await
}

/// Returns whether pages of this origin may use the plane.
pub(crate) fn allows(cors: &Cors, origin: &str) -> bool {
    cors.enabled && cors.allowed_origins.iter().any(|allowed| matches(allowed, origin))
}

/// Compares with a pattern in which one `*` matches anything.
fn matches(allowed: &str, origin: &str) -> bool {
    let origin = origin.to_ascii_lowercase();
    match allowed.to_ascii_lowercase().split_once('*') {
        None => allowed.eq_ignore_ascii_case(&origin),
        Some((before, after)) => {
            let inside = origin.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            inside.is_some()
        }
    }
}

async fn answer(cors: &Cors, request: Request, next: Next) -> Response {
    if !cors.enabled {
        return next.run(request).await;
    }
    let origin = request.headers().get(ORIGIN).cloned();
    let allowed = origin.filter(|origin| origin.to_str().is_ok_and(|origin| allows(cors, origin)));
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if cors.debug {
        tracing::debug!(allowed = allowed.is_some(), is_preflight, "CORS");
    }
    let mut response = if is_preflight {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        if allowed.is_some() && may(cors, request.headers()) {
            let asked = |name: HeaderName| request.headers().get(name).cloned();
            let headers = response.headers_mut();
            if let Some(method) = asked(ACCESS_CONTROL_REQUEST_METHOD) {
                headers.insert(ACCESS_CONTROL_ALLOW_METHODS, method);
            }
            if let Some(names) = asked(ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
            }
            if cors.max_age > 0 {
                headers.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age.into());
            }
        } else {
            // Without CORS headers, the browser sends no further request.
            return vary(response, is_preflight);
        }
        response
    } else {
        next.run(request).await
    };
    if let Some(origin) = allowed {
        let anyone = cors.allowed_origins.iter().any(|allowed| allowed == "*") && !cors.allow_credentials;
        let headers = response.headers_mut();
        let origin = if anyone { HeaderValue::from_static("*") } else { origin };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if cors.allow_credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        let exposed = HeaderValue::from_str(&cors.exposed_headers.join(", "));
        if let (false, Ok(exposed)) = (is_preflight || cors.exposed_headers.is_empty(), exposed) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
    vary(response, is_preflight)
}

fn vary(mut response: Response, is_preflight: bool) -> Response {
    let on = match is_preflight {
        true => "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        false => "Origin",
    };
    response.headers_mut().append(VARY, HeaderValue::from_static(on));
    response
}

/// Returns whether the request that a preflight announces is allowed.
fn may(cors: &Cors, headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("\0"));
    let method = text(ACCESS_CONTROL_REQUEST_METHOD).unwrap_or_default();
    let listed =
        |list: &[String], name: &str| list.iter().any(|item| item == "*" || item.eq_ignore_ascii_case(name));
    let mut names = text(ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or_default().split(',').map(str::trim);
    // HEAD is allowed with GET.
    let method = if method == "HEAD" { "GET" } else { method };
    listed(&cors.allowed_methods, method)
        && names.all(|name| {
            let safe = ["", "accept", "accept-language", "content-language", "origin"];
            safe.iter().any(|safe| safe.eq_ignore_ascii_case(name)) || listed(&cors.allowed_headers, name)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_as_written() {
        for (allowed, origin, matching) in [
            ("*", "https://any.example", true),
            ("https://app.example", "https://APP.example", true),
            ("https://app.example", "https://app.example.evil", false),
            ("https://app.example", "http://app.example", false),
            ("https://app.example", "https://app.example:8443", false),
            ("https://*.app.example", "https://a.app.example", true),
            ("https://*.app.example", "https://app.example", false),
            ("https://*.app.example", "https://evil.example/.app.example", true),
            ("https://*.app.example", "https://a.app.example.evil", false),
            ("https://app.example", "null", false),
        ] {
            assert_eq!(matches(allowed, origin), matching, "{allowed} {origin}");
        }
        let off = Cors::default();
        assert!(!allows(&off, "https://app.example"));
    }

    #[test]
    fn preflights_ask_for_what_is_listed() {
        let cors = Cors { enabled: true, ..Cors::default() };
        let ask = |method: &'static str, names: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static(method));
            headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static(names));
            may(&cors, &headers)
        };
        assert!(ask("POST", "content-type, Authorization") && ask("GET", "") && ask("HEAD", "accept"));
        assert!(!ask("TRACE", "") && !ask("POST", "content-type, x-other"));
    }
}
