//! Findings about access logs and traces that show keys.
//!
//! A header that carried a key is removed when the check passes. Of refused requests Envoy logs
//! what the client sent: also a valid key, which only lacked a scope or was used too often.

use std::collections::HashSet;

use crate::config::Authz;
use crate::doctor::carriers::Carriers;
use crate::doctor::connection_manager::ConnectionManager;
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::node::{Node, quoted, to_yaml};
use crate::doctor::options::Options;

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
