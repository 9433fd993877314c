//! The console: pages inside the binary, for people who look after keys (`/console/` of the admin
//! plane), and for holders of keys (`/keys` of the public plane).
//!
//! They are the same for everybody, so they need no authentication; what they show comes from the
//! API, with the rights of whoever looks.

mod file;
mod files;

use std::sync::{Arc, LazyLock};

use axum::Extension;
use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, LOCATION, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use self::file::File;
use super::context::{Context, NetworkSettings};
use super::reply::no_such_resource;
use super::telemetry::Route;
use crate::settings::Settings;

/// Path of the console, without its last slash, and label of its requests.
const CONSOLE: &str = "/console";
/// Path of the holder's page, and label of its requests.
const HOLDER: &str = "/keys";
/// The document of each.
const CONSOLE_DOCUMENT: &str = "index.html";
const HOLDER_DOCUMENT: &str = "keys.html";

/// Policy of the pages: they run the console's own scripts and ask its own server. Nothing else is
/// loaded and nothing may frame it; text can't become markup or script (Trusted Types).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const X_FRAME_OPTIONS: HeaderName = HeaderName::from_static("x-frame-options");

/// Digests of the files, in the order of [`files::FILES`]. They are computed for the first reader.
static DIGESTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let digest =
        |file: &File| Sha256::digest(file.plain).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    files::FILES.iter().map(digest).collect()
});

/// Returns the routes of the console and of the holder's page.
pub(super) fn admin_routes() -> Router<Context> {
    Router::new()
        .route(CONSOLE, get(to_console))
        .route("/console/", get(console))
        .route("/console/{*path}", get(console))
        .merge(public_routes())
}

/// Returns the routes of the holder's page.
pub(super) fn public_routes() -> Router<Context> {
    Router::new().route(HOLDER, get(holder)).route("/keys/{*path}", get(holder))
}

/// Returns whether a path is one of the pages, which are the same for everybody.
pub(super) fn is_page(path: &str) -> bool {
    [CONSOLE, HOLDER]
        .iter()
        .any(|page| path.strip_prefix(page).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Returns whether a browser asks for a page because a person opens it, maybe by a link of another
/// site. The pages change nothing, can't be framed, and other sites can't read them.
pub(super) fn is_opened(request: &Request) -> bool {
    let is = |name: &str, value: &str| {
        request.headers().get(name).is_some_and(|header| header.as_bytes() == value.as_bytes())
    };
    is_page(request.uri().path())
        && request.method() == Method::GET
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
}

/// Redirects to the path with a slash. It is relative, so that a proxy may add a prefix.
async fn to_console(Extension(settings): NetworkSettings) -> Response {
    if !settings.console_enabled {
        return no_such_resource().into_response();
    }
    (StatusCode::PERMANENT_REDIRECT, Extension(Route(CONSOLE)), [(LOCATION, "console/")]).into_response()
}

async fn console(Extension(settings): NetworkSettings, request: Request) -> Response {
    let path = request.uri().path().strip_prefix("/console/").unwrap_or_default();
    let path = if path.is_empty() { CONSOLE_DOCUMENT } else { path };
    // The other document belongs to the other page.
    answer(&settings, CONSOLE, Some(path).filter(|path| *path != HOLDER_DOCUMENT), request.headers())
}

async fn holder(Extension(settings): NetworkSettings, request: Request) -> Response {
    let path = request.uri().path().strip_prefix("/keys/").unwrap_or(HOLDER_DOCUMENT);
    let is_document = request.uri().path() == HOLDER;
    let found = Some(path).filter(|path| is_document || !path.ends_with(".html"));
    answer(&settings, HOLDER, found, request.headers())
}

/// Returns a file; 304 if the browser has it.
fn answer(settings: &Arc<Settings>, page: &'static str, path: Option<&str>, headers: &HeaderMap) -> Response {
    let index = path.and_then(|path| files::FILES.iter().position(|file| file.path == path));
    let found = index.filter(|_| settings.console_enabled);
    let Some((file, digest)) = found.and_then(|index| files::FILES.get(index).zip(DIGESTS.get(index))) else {
        return no_such_resource().into_response();
    };
    let is_gzip = accepts_gzip(headers);
    let tag = format!("\"{digest}{}\"", if is_gzip { "-gz" } else { "" });
    let is_known = matches_tag(headers, &tag);
    let fixed = HeaderValue::from_static;
    let mut common = HeaderMap::new();
    common.insert(ETAG, HeaderValue::from_str(&tag).unwrap_or_else(|_| fixed("\"\"")));
    // Asked about each time, so that a new version counts at once.
    common.insert(CACHE_CONTROL, fixed("no-cache"));
    common.insert(VARY, fixed("accept-encoding"));
    common.insert(CONTENT_SECURITY_POLICY, fixed(POLICY));
    common.insert(X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
    common.insert(X_FRAME_OPTIONS, fixed("DENY"));
    common.insert(REFERRER_POLICY, fixed("no-referrer"));
    common.insert(CROSS_ORIGIN_OPENER_POLICY, fixed("same-origin"));
    common.insert(CROSS_ORIGIN_RESOURCE_POLICY, fixed("same-origin"));
    common.insert(PERMISSIONS_POLICY, fixed("camera=(), geolocation=(), microphone=(), payment=(), usb=()"));
    if is_known {
        return (StatusCode::NOT_MODIFIED, Extension(Route(page)), common).into_response();
    }
    common.insert(CONTENT_TYPE, fixed(file.media_type.name()));
    if is_gzip {
        common.insert(CONTENT_ENCODING, fixed("gzip"));
    }
    (Extension(Route(page)), common, if is_gzip { file.gzip } else { file.plain }).into_response()
}

/// Returns whether the client takes gzip (RFC 9110, 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let refuses = |part: &str| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0))
        };
        is_gzip && !parts.any(refuses)
    })
}

/// Returns whether `If-None-Match` names the tag (RFC 9110, 13.1.2).
fn matches_tag(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn all_files_are_embedded() {
        fn walk(folder: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => walk(&path, found),
                    false => found.push(path.to_str().unwrap().to_owned()),
                }
            }
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("console/web");
        let mut found = vec![];
        walk(&folder, &mut found);
        found.sort();
        let prefix = format!("{}/", folder.to_str().unwrap());
        let found: Vec<_> = found.iter().map(|path| path.strip_prefix(&prefix).unwrap()).collect();
        let embedded: Vec<_> = files::FILES.iter().map(|file| file.path).collect();
        assert_eq!(embedded, found, "run console/pack");
    }

    #[test]
    fn pages_are_their_paths_and_what_is_below() {
        for (path, expected) in [
            ("/console", true),
            ("/console/", true),
            ("/console/js/main.js", true),
            ("/keys", true),
            ("/keys/app.css", true),
            ("/consoles", false),
            ("/keysight", false),
            ("/v2alpha1/console", false),
            ("/", false),
        ] {
            assert_eq!(is_page(path), expected, "{path}");
        }
    }

    #[test]
    fn codings_and_tags_are_read() {
        let with = |name: HeaderName, value: &'static str| {
            HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
        };
        for (value, expected) in [
            ("gzip, deflate, br", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
            ("gzipped", false),
        ] {
            assert_eq!(accepts_gzip(&with(ACCEPT_ENCODING, value)), expected, "{value}");
        }
        for (value, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
        ] {
            assert_eq!(matches_tag(&with(IF_NONE_MATCH, value), "\"a\""), expected, "{value}");
        }
    }
}
