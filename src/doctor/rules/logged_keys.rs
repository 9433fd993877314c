//! Findings about access logs and traces that show keys, and about copies of keys that are made
//! before the check.
//!
//! A header that carried a key is removed when the check passes. Of refused requests Envoy logs
//! what the client sent: also a valid key, which only lacked a scope or was used too often.

use std::collections::HashSet;

use crate::config::{Authz, CredentialSource};
use crate::doctor::connection_manager::ConnectionManager;
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::node::{Node, quoted, to_yaml};
use crate::doctor::options::Options;

/// Operator of an access log that shows a header; others begin like it.
const REQUEST_HEADER: &str = "%REQ";
/// Operator that shows the path.
const PATH: &str = "%PATH";
/// Operator that shows the path without its query.
const WITHOUT_QUERY: &str = "%PATH(NQ)%";
/// Operator that shows a cookie.
const COOKIE: &str = "%COOKIE(";
/// Operator that shows the first of several values, which JSON names.
const COALESCE: &str = "%COALESCE(";

/// Format of an access log that has none of its own.
const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";
/// Types of access logs that have a format.
const FORMATTED: [&str; 3] = ["StdoutAccessLog", "StderrAccessLog", "FileAccessLog"];

/// Consequence of an access log that shows keys.
const WHY: &str = "the access log shows keys: of requests that are refused, it has what the client sent, also a valid key \
                   that lacks a scope";

/// Examines one connection manager that calls Talos.
pub(crate) fn examine(manager: &ConnectionManager<'_>, options: Options<'_>, findings: &mut Findings) {
    let default = Authz::default();
    let carriers = Carriers::of(options.authz.unwrap_or(&default));
    let logs = [&manager.node, &manager.listener].into_iter().flat_map(|node| node.items("access_log"));
    let routers = manager.filters.iter().filter(|filter| filter.kind == Some("Router"));
    let upstream_logs = routers.flat_map(|router| router.config.items("upstream_log"));
    for log in logs.chain(upstream_logs) {
        check_log(&log, &carriers, findings);
    }
    check_tracing(&manager.node.get("tracing"), &carriers, findings);
    // Targets share their levels: each is examined once.
    let mut examined = HashSet::new();
    for level in manager.targets.iter().flat_map(|target| &target.levels) {
        if examined.insert(std::ptr::from_ref(level.tree)) {
            check_tracing(&level.get("tracing"), &carriers, findings);
        }
    }
    if let Some(first) = manager.checks.iter().map(|check| check.index).min() {
        let early = manager.node.items("early_header_mutation_extensions");
        for extension in early {
            let mutations = extension.get("typed_config").items("mutations");
            let cure = "# remove early_header_mutation_extensions\n# or, in it, this mutation";
            check_copies(&mutations, cure, &carriers, findings);
        }
        for filter in manager.filters.iter().take(first) {
            let cure = "request_mutations: [] # after the check the header has no key any more";
            check_copies(&filter.mutations(), cure, &carriers, findings);
        }
    }
}

/// Places of a request that carry keys.
struct Carriers {
    /// Names of headers, in lower case.
    headers: Vec<String>,
    is_in_query: bool,
    is_in_path: bool,
}

impl Carriers {
    fn of(authz: &Authz) -> Self {
        let mut carriers = Self { headers: vec![], is_in_query: false, is_in_path: false };
        for source in &authz.sources {
            match source {
                CredentialSource::Header { name, .. } => carriers.headers.push(name.to_ascii_lowercase()),
                CredentialSource::Cookie { .. } => carriers.headers.push("cookie".to_owned()),
                CredentialSource::WebsocketProtocol { .. } => {
                    carriers.headers.push("sec-websocket-protocol".to_owned());
                }
                CredentialSource::Query { .. } => carriers.is_in_query = true,
                CredentialSource::Path(_) => carriers.is_in_path = true,
            }
        }
        carriers
    }

    /// Returns true if a header may contain a key. `query` tells if it is shown with its query.
    fn has(&self, name: &str, query: bool) -> bool {
        let name = name.trim().to_ascii_lowercase();
        let is_path = matches!(name.as_str(), ":path" | "x-envoy-original-path");
        (is_path && (self.is_in_path || (self.is_in_query && query))) || self.headers.contains(&name)
    }

    /// Returns true if an operator of a format, from its `%` to its end, shows a key.
    fn is_shown_by(&self, operator: &str) -> bool {
        let arguments =
            operator.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inner, _)| inner);
        if operator.starts_with(COOKIE) {
            return self.headers.iter().any(|header| header == "cookie");
        }
        if operator.starts_with(COALESCE) {
            let operator = operator.to_ascii_lowercase();
            return self.headers.iter().any(|name| operator.contains(&format!("\"{name}\"")));
        }
        if operator.starts_with(PATH) && !operator.starts_with("%PATH_") {
            let is_without_query = arguments.is_some_and(|inner| inner.trim().starts_with("NQ"));
            return self.is_in_path || (self.is_in_query && !is_without_query);
        }
        let (true, Some(arguments)) = (operator.starts_with(REQUEST_HEADER), arguments) else { return false };
        let has_query = !operator.starts_with("%REQ_WITHOUT_QUERY");
        arguments.split('?').any(|name| self.has(name, has_query))
    }

    /// Returns true for an operator that shows the path.
    fn is_path(&self, operator: &str) -> bool {
        operator.starts_with(PATH) || operator.to_ascii_lowercase().contains(":path")
    }

    /// Returns a format without the operators that show a key. `None` if there are none.
    fn removed_from(&self, format: &str) -> Option<String> {
        let (mut rest, mut kept, mut is_changed) = (format, String::new(), false);
        while let Some(start) = rest.find('%') {
            let (before, operator) = rest.split_at(start);
            kept.push_str(before);
            let end = operator[1..].find('%').map_or(operator.len(), |end| end + 2);
            let (operator, after) = operator.split_at(end);
            let is_shown = self.is_shown_by(operator);
            is_changed |= is_shown;
            kept.push_str(match is_shown {
                false => operator,
                true if self.is_path(operator) && !self.is_in_path => WITHOUT_QUERY,
                true => "-",
            });
            rest = after;
        }
        kept.push_str(rest);
        is_changed.then_some(kept)
    }
}

fn check_log(log: &Node<'_>, carriers: &Carriers, findings: &mut Findings) {
    let (kind, config) = log.get("typed_config").unwrap_typed();
    let has_format = ["log_format", "format", "json_format", "typed_json_format"]
        .iter()
        .any(|field| !config.get(field).is_absent());
    if let (true, false, Some(kept)) = (
        kind.is_some_and(|kind| FORMATTED.contains(&kind)),
        has_format,
        carriers.removed_from(DEFAULT_FORMAT),
    ) {
        let fix = format!("log_format:\n  text_format_source: {{ inline_string: {} }}", quoted(&kept));
        findings.add("key-logged", Severity::Warning, &log.get("log_format"), WHY, fix);
    }
    for object in log.descendants() {
        for (name, value) in object.tree.entries() {
            let Some(kept) = value.text().and_then(|format| carriers.removed_from(format)) else { continue };
            let node = Node::new(value, format!("{}.{name}", object.path));
            let fix = format!("{}: {}", to_yaml(name), quoted(&kept));
            findings.add("key-logged", Severity::Warning, &node, WHY, fix);
        }
        let listed = object.items("additional_request_headers_to_log");
        let (shown, kept): (Vec<_>, Vec<_>) =
            listed.iter().filter_map(Node::text).partition(|name| carriers.has(name, true));
        if !shown.is_empty() {
            let kept: Vec<String> = kept.into_iter().map(to_yaml).collect();
            let fix = format!("additional_request_headers_to_log: [{}]", kept.join(", "));
            let node = object.get("additional_request_headers_to_log");
            findings.add("key-logged", Severity::Warning, &node, WHY, fix);
        }
    }
}

fn check_tracing(tracing: &Node<'_>, carriers: &Carriers, findings: &mut Findings) {
    for tag in tracing.items("custom_tags") {
        let header = tag.get("request_header").get("name");
        if header.text().is_some_and(|name| carriers.has(name, true)) {
            findings.add(
                "key-logged",
                Severity::Warning,
                &header,
                "traces show keys: the tag has the value of a header in which they come",
                "name: x-request-id # or another header that carries no keys",
            );
        }
    }
}

/// Checks that nothing before the check copies a key into a header that Talos doesn't know.
fn check_copies(mutations: &[Node<'_>], cure: &'static str, carriers: &Carriers, findings: &mut Findings) {
    for mutation in mutations {
        let value = mutation.get_path("append.header.value");
        if value.text().is_some_and(|value| carriers.removed_from(value).is_some()) {
            findings.add(
                "key-copied",
                Severity::Error,
                &value,
                "keys are copied into another header before the check: Talos doesn't know that header, so they go \
                 upstream",
                cure,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_that_show_keys_are_taken_out() {
        let sources = |sources: &str| {
            let sources = serde_norway::from_str(sources).unwrap();
            Carriers::of(&Authz { sources, ..Authz::default() })
        };
        let headers = sources("[{ header: authorization, scheme: Bearer }, { cookie: key }]");
        let query = sources("[{ query: key }]");
        let path = sources("[{ path: '/v2/{key}' }]");
        let default = "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%";
        for (carriers, format, kept) in [
            (&headers, "%START_TIME% %REQ(AUTHORIZATION)%\n", Some("%START_TIME% -\n")),
            (&headers, "%REQ(x-user?Authorization):12% %REQ(:METHOD)%", Some("- %REQ(:METHOD)%")),
            (&headers, "%REQ(cookie)%%COOKIE(key)%", Some("--")),
            (&headers, default, None),
            (&headers, "%RESP(AUTHORIZATION)% %REQ(X-USER)% %REQUESTED_SERVER_NAME% 100%%", None),
            (&headers, "%REQ(AUTHORIZATION", None),
            (
                &headers,
                "%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"Authorization\"}]})%",
                Some("-"),
            ),
            (&headers, "%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"x-other\"}]})%", None),
            (&query, default, Some("%PATH(NQ)%")),
            (&query, "%PATH% %PATH(WQ)% %PATH(NQ:ORIG)%", Some("%PATH(NQ)% %PATH(NQ)% %PATH(NQ:ORIG)%")),
            (&query, "%REQ_WITHOUT_QUERY(:PATH)% %REQ(COOKIE)%", None),
            (&path, "%REQ_WITHOUT_QUERY(:PATH)% %PATH(NQ)%", Some("- -")),
        ] {
            assert_eq!(carriers.removed_from(format).as_deref(), kept, "{format}");
        }
    }
}
