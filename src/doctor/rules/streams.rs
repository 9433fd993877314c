//! Findings about requests that outlive their check, or are checked again: open streams, internal
//! redirects, and tunnels.

use crate::config::{Authz, CredentialSource, HeaderForm};
use crate::doctor::connection_manager::ConnectionManager;
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::node::{Node, to_yaml};
use crate::doctor::options::Options;
use crate::doctor::route_target::RouteTarget;

/// Examines one connection manager that calls Talos.
pub(crate) fn examine(manager: &ConnectionManager<'_>, options: Options<'_>, findings: &mut Findings) {
    check_durations(manager, findings);
    if let Some(authz) = options.authz {
        check_redirects(manager, authz, findings);
        check_tunnels(manager, authz, findings);
    }
}

fn is_limited(duration: &Node<'_>) -> bool {
    duration.seconds().is_some_and(|seconds| seconds > 0.0)
}

/// Returns the action of a route.
fn action<'a>(target: &RouteTarget<'a>) -> Option<Node<'a>> {
    target.levels.iter().map(|level| level.get("route")).find(|action| !action.is_absent())
}

/// Checks that streams end: a request is checked when it begins, and a WebSocket is one request.
fn check_durations(manager: &ConnectionManager<'_>, findings: &mut Findings) {
    let duration = manager.node.get_path("common_http_protocol_options.max_stream_duration");
    let is_limited_by_route = |target: &RouteTarget<'_>| {
        action(target)
            .is_some_and(|action| is_limited(&action.get_path("max_stream_duration.max_stream_duration")))
    };
    let mut open =
        manager.targets.iter().filter(|target| !target.is_answered_locally && !is_limited_by_route(target));
    if is_limited(&duration) || open.next().is_none() {
        return;
    }
    let has_upgrades = |node: &Node<'_>| !node.items("upgrade_configs").is_empty();
    let upgrades = has_upgrades(&manager.node)
        || manager.targets.iter().filter_map(action).any(|action| has_upgrades(&action));
    let (severity, what) = match upgrades {
        true => (Severity::Warning, "WebSockets and other tunnels"),
        false => (Severity::Note, "streams (gRPC, server-sent events, long downloads)"),
    };
    findings.add(
        "endless-streams",
        severity,
        &duration,
        format!("{what} are checked when they begin, and may go on for ever after their key is revoked"),
        "common_http_protocol_options:\n  max_stream_duration: 3600s",
    );
}

/// Checks that a request which Envoy itself redirects still has a credential for its second check.
fn check_redirects(manager: &ConnectionManager<'_>, authz: &Authz, findings: &mut Findings) {
    let finds_token = authz.sources.iter().any(|source| match source {
        CredentialSource::Header {
            name,
            form: HeaderForm::Scheme(scheme) | HeaderForm::OptionalScheme(scheme),
        } => *name == authz.token_header && scheme.eq_ignore_ascii_case("Bearer"),
        _ => false,
    });
    let redirects =
        manager.targets.iter().filter_map(action).map(|action| action.get("internal_redirect_policy"));
    let Some(redirect) = redirects.into_iter().find(|policy| !policy.is_absent()).filter(|_| !finds_token)
    else {
        return;
    };
    findings.add(
        "redirect-unauthenticated",
        Severity::Warning,
        &redirect,
        "Envoy checks a request again that it redirects internally; the key is gone by then, and Talos doesn't look for \
         the token that it has sent instead: such requests get 401",
        format!(
            "# talos.yaml\nauthz:\n  sources: # beside the others\n    - {{ header: {}, scheme: Bearer }}",
            to_yaml(&authz.token_header)
        ),
    );
}

/// Checks that clients of a proxy are asked for credentials in the way that they understand.
fn check_tunnels(manager: &ConnectionManager<'_>, authz: &Authz, findings: &mut Findings) {
    let for_proxy = |source: &CredentialSource| matches!(source, CredentialSource::Header { name, .. } if name == "proxy-authorization");
    if authz.sources.iter().any(for_proxy) {
        return;
    }
    let matches = manager.targets.iter().flat_map(|target| &target.levels);
    let connect = matches.map(|level| level.get_path("match.connect_matcher")).find(|node| !node.is_absent());
    if let Some(connect) = connect {
        findings.add(
            "connect-challenge",
            Severity::Warning,
            &connect,
            "clients send a proxy's credentials in Proxy-Authorization, where Talos doesn't look, and send them only \
             after a 407",
            "# talos.yaml\nauthz:\n  sources: # beside the others\n    - { header: proxy-authorization, scheme: Basic, \
             key_in: either }",
        );
    }
}
