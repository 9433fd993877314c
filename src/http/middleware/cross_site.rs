//! Protection of the admin plane against cross-site requests.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::cors;
use crate::error::{ApiError, Reason};
use crate::http::console;
use crate::http::context::Context;
use crate::plane::Plane;
use crate::telemetry::refused_requests::RequestRefusal;

/// Refuses requests that a browser marks as cross-site, unless CORS allows the origin, or a person
/// follows a link to a page.
pub(crate) async fn refuse(State(context): State<Context>, request: Request, next: Next) -> Response {
    let settings = context.service.snapshot();
    let headers = request.headers();
    let own = request.uri().authority().map(|authority| authority.as_str());
    let own = own.or_else(|| headers.get(HOST)?.to_str().ok()).unwrap_or_default();
    let allowed = |origin: &str| cors::allows(&settings.admin_cors, origin);
    match is_cross_site(headers, own, allowed) && !console::is_opened(&request) {
        false => next.run(request).await,
        true => {
            context.metrics.refused_requests.count(Plane::Admin, RequestRefusal::CrossSite);
            let problem = "requests of other sites' pages aren't answered (serve.http.cors)";
            ApiError::new(Reason::Forbidden, problem).into_response()
        }
    }
}

fn is_cross_site(headers: &HeaderMap, own: &str, allowed: impl Fn(&str) -> bool) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter().map(|value| value.to_str().unwrap_or_default());
    let origin = origins.next();
    if origins.next().is_some() {
        return true;
    }
    if let Some(origin) = origin {
        // A proxy that terminates TLS changes the scheme, and thereby the default port.
        let same = origin.split_once("://").is_some_and(|(_, host)| host.eq_ignore_ascii_case(own));
        return !same && !allowed(origin);
    }
    let mut sites = headers.get_all("sec-fetch-site").iter();
    sites.any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_site_that_a_browser_speaks_for() {
        for (origin, site, crosses) in [
            (None, None, false),
            (None, Some("none"), false),
            (None, Some("same-origin"), false),
            (None, Some("same-site"), true),
            (None, Some("cross-site"), true),
            (None, Some("nonsense"), true),
            (Some("http://localhost:4420"), None, false),
            (Some("http://localhost:4420"), Some("same-origin"), false),
            (Some("http://localhost"), None, true),
            (Some("http://localhost:4420.evil"), None, true),
            (Some("http://evil.example"), None, true),
            (Some("http://evil.example"), Some("same-origin"), true),
            (Some("null"), None, true),
            (Some(""), None, true),
            (Some("https://let.in"), Some("cross-site"), false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [("origin", origin), ("sec-fetch-site", site)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            let crossing = is_cross_site(&headers, "localhost:4420", |origin| origin == "https://let.in");
            assert_eq!(crossing, crosses, "{origin:?} {site:?}");
        }
    }
}
