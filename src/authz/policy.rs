//! Policy of a request's route: Talos's own rules, overridden by Envoy's route.

use std::borrow::Cow;

use prost::Message;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use super::attributes::Attributes;
use super::deny_reason::{DenyReason, ScopeDemand};
use super::request::{Headers, Malformed};
use crate::config::{Preflight, RouteMode};
use crate::key::{Scopes, Visibility};
use crate::settings::Settings;
use crate::settings::policy::{Policy, is_misspelled_key};

/// Invalid setting of a route in Envoy's configuration. Requests of the route are denied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} {key}: {problem}")]
pub(super) struct PolicyError {
    place: &'static str,
    key: String,
    problem: String,
}

/// Namespaces of route metadata that are read: Talos's own, and that of Envoy Gateway, which copies
/// the annotations of an HTTPRoute there.
const OWN_METADATA: &[u8] = b"talos";
const GATEWAY_METADATA: &[u8] = b"envoy-gateway";

/// Most bytes of one of these namespaces. Decoded, they take many times that.
const MAX_NAMESPACE: usize = 64 * 1024;

/// Prefix of each key. Optional in Talos's own metadata.
const KEY_PREFIX: &[u8] = b"talos.";

/// Returns the policy of a request. `target` is the one that goes upstream. An invalid setting is
/// logged if `may_log` allows its text, as every request of its route finds it.
///
/// # Errors
/// Fails if its path is ambiguous, or a setting in Envoy's configuration is invalid.
pub(super) fn route_policy<'a>(
    settings: &'a Settings,
    headers: &Headers<'_>,
    target: &[u8],
    attributes: &Attributes<'_>,
    may_log: impl FnOnce(&str) -> bool,
) -> Result<Cow<'a, Policy>, DenyReason> {
    let rule = settings.routes.find(headers.host(), headers.method(), target);
    let rule = rule.map_err(|_| Malformed::AmbiguousPath)?;
    let mut policy = Cow::Borrowed(rule.unwrap_or(settings.routes.unmatched()));
    apply_envoy_route(&mut policy, attributes).map_err(|error| {
        if may_log(&error.to_string()) {
            tracing::error!(%error, "an Envoy route has an invalid Talos setting; its requests are denied");
        }
        DenyReason::Misconfigured
    })?;
    if settings.authz.preflight == Preflight::Allow && headers.is_preflight() {
        policy.to_mut().mode = RouteMode::Off;
    }
    Ok(policy)
}

/// Overrides the policy of the rules by Envoy's route metadata, then by its context extensions.
fn apply_envoy_route(policy: &mut Cow<'_, Policy>, attributes: &Attributes<'_>) -> Result<(), PolicyError> {
    for (namespace, value) in &attributes.route_metadata {
        match *namespace {
            OWN_METADATA => set_own_metadata(policy, "metadata", &decode_struct("metadata", value)?)?,
            GATEWAY_METADATA => set_annotations(policy, &decode_struct("metadata", value)?)?,
            _ => {}
        }
    }
    for (key, value) in &attributes.context_extensions {
        if let Some(name) = own_name("context extension", key)? {
            set(policy, "context extension", key, name, value)?;
        }
    }
    Ok(())
}

/// Returns the name behind the prefix of a key that is for Talos.
fn own_name<'k>(place: &'static str, key: &'k [u8]) -> Result<Option<&'k [u8]>, PolicyError> {
    match key.strip_prefix(KEY_PREFIX) {
        Some(name) => Ok(Some(name)),
        None if is_misspelled_key(key) => Err(PolicyError {
            place,
            key: truncated(key),
            problem: "must begin with `talos.`, as it is written here".to_owned(),
        }),
        None => Ok(None),
    }
}

fn decode_struct(place: &'static str, value: &[u8]) -> Result<Struct, PolicyError> {
    let error = |problem| PolicyError { place, key: "value".to_owned(), problem };
    if value.len() > MAX_NAMESPACE {
        return Err(error(format!("is longer than {MAX_NAMESPACE} bytes")));
    }
    Struct::decode(value).map_err(|_| error("can't be decoded".to_owned()))
}

/// Applies all fields of Talos's own metadata. An unknown name is an error.
fn set_own_metadata(
    policy: &mut Cow<'_, Policy>,
    place: &'static str,
    fields: &Struct,
) -> Result<(), PolicyError> {
    for (key, value) in &fields.fields {
        let name = key.as_bytes();
        set(policy, place, name, name.strip_prefix(KEY_PREFIX).unwrap_or(name), &text(place, key, value)?)?;
    }
    Ok(())
}

/// Applies the annotations that Envoy Gateway sends. `gateway.envoyproxy.io/talos.mode` arrives as
/// `talos.mode`.
fn set_annotations(policy: &mut Cow<'_, Policy>, metadata: &Struct) -> Result<(), PolicyError> {
    let Some(Kind::ListValue(resources)) =
        metadata.fields.get("resources").and_then(|list| list.kind.as_ref())
    else {
        return Ok(());
    };
    for resource in &resources.values {
        let Some(Kind::StructValue(resource)) = &resource.kind else { continue };
        let annotations =
            resource.fields.get("annotations").and_then(|annotations| annotations.kind.as_ref());
        let Some(Kind::StructValue(annotations)) = annotations else { continue };
        for (key, value) in &annotations.fields {
            if let Some(name) = own_name("annotation", key.as_bytes())? {
                set(policy, "annotation", key.as_bytes(), name, &text("annotation", key, value)?)?;
            }
        }
    }
    Ok(())
}

fn text<'a>(place: &'static str, key: &str, value: &'a Value) -> Result<Cow<'a, [u8]>, PolicyError> {
    match &value.kind {
        Some(Kind::StringValue(text)) => Ok(Cow::Borrowed(text.as_bytes())),
        // A cost needs no quotes. Numbers that aren't whole are refused by the setting.
        Some(Kind::NumberValue(number)) => Ok(Cow::Owned(number.to_string().into_bytes())),
        // YAML parses `off` as false.
        _ => Err(PolicyError {
            place,
            key: truncated(key.as_bytes()),
            problem: "must be text, in quotes".to_owned(),
        }),
    }
}

fn set(
    policy: &mut Cow<'_, Policy>,
    place: &'static str,
    key: &[u8],
    name: &[u8],
    value: &[u8],
) -> Result<(), PolicyError> {
    policy.to_mut().set(name, value).map_err(|problem| PolicyError { place, key: truncated(key), problem })
}

fn truncated(key: &[u8]) -> String {
    String::from_utf8_lossy(key).chars().take(64).collect()
}

/// Checks that a key's scopes and visibility are what a route demands.
///
/// # Errors
/// Fails with what the route demands and the key hasn't.
pub(super) fn check_key(policy: &Policy, scopes: &Scopes, visibility: Visibility) -> Result<(), DenyReason> {
    if policy.secret_only && visibility == Visibility::Public {
        return Err(DenyReason::Publishable);
    }
    if !scopes.grant_all(&policy.scopes) {
        return Err(DenyReason::InsufficientScope(ScopeDemand::new(&policy.scopes, true, scopes)));
    }
    if !policy.any_scope.is_empty() && !scopes.grant_any(&policy.any_scope) {
        return Err(DenyReason::InsufficientScope(ScopeDemand::new(&policy.any_scope, false, scopes)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RouteToken;

    fn read(attributes: &Attributes<'_>) -> Result<Policy, PolicyError> {
        let mut policy = Cow::Owned(Policy::default());
        apply_envoy_route(&mut policy, attributes).map(|()| policy.into_owned())
    }

    fn extensions(pairs: &[(&'static str, &'static str)]) -> Attributes<'static> {
        let context_extensions =
            pairs.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect();
        Attributes { context_extensions, ..Attributes::default() }
    }

    fn metadata(namespace: &'static str, value: &serde_json::Value) -> Attributes<'static> {
        let value = crate::authz::metadata::json(value.clone());
        let Some(Kind::StructValue(fields)) = value.kind else { panic!("not an object") };
        let value: &[u8] = fields.encode_to_vec().leak();
        Attributes { route_metadata: vec![(namespace.as_bytes(), value)], ..Attributes::default() }
    }

    #[test]
    fn every_key_is_understood_or_refused() {
        let policy = read(&extensions(&[
            ("talos.mode", "optional"),
            ("talos.scopes", "a b"),
            ("talos.audience", "orders"),
            ("talos.token", "none"),
            ("talos.visibility", "secret"),
            ("talos.cost", "0"),
            ("other", "is not ours"),
        ]))
        .unwrap();
        assert_eq!(policy.mode, RouteMode::Optional);
        assert_eq!(policy.scopes.to_string(), "a b");
        assert_eq!(policy.audience.as_deref(), Some("orders"));
        assert_eq!(policy.token, Some(RouteToken::None));
        assert!(policy.secret_only);
        assert_eq!(policy.cost.get(), 0);
        for bad in [
            ("talos.mode", "Required"),
            ("talos.mode", ""),
            ("talos.scopes", ""),
            ("talos.any_scope", "a\u{1}"),
            ("talos.token", "macaroon"),
            ("talos.visibility", "public"),
            ("talos.cost", ""),
            ("talos.cost", "-1"),
            ("talos.cost", "+1"),
            ("talos.cost", "1.5"),
            ("talos.cost", "10001"),
            ("talos.scope", "a"),
            ("Talos.scopes", "a"),
            (" talos.scopes", "a"),
            ("talos_scopes", "a"),
            ("TALOS/scopes", "a"),
            ("talos.", ""),
        ] {
            assert!(read(&extensions(&[bad])).unwrap_err().to_string().contains(bad.0), "{bad:?}");
        }
    }

    #[test]
    fn a_route_of_envoy_says_it_in_its_metadata() {
        let own = |value| read(&metadata("talos", &value));
        let annotated = |annotations| {
            let resource = serde_json::json!({
                "kind": "HTTPRoute", "name": "a", "namespace": "b", "annotations": annotations
            });
            read(&metadata("envoy-gateway", &serde_json::json!({ "resources": [resource], "policies": [] })))
        };
        let keys = serde_json::json!({ "talos.mode": "off", "talos.scopes": "a" });
        assert_eq!(own(keys.clone()).unwrap().mode, RouteMode::Off);
        assert_eq!(annotated(keys).unwrap().scopes.to_string(), "a");
        assert_eq!(own(serde_json::json!({ "mode": "optional" })).unwrap().mode, RouteMode::Optional);
        for cost in [serde_json::json!("25"), serde_json::json!(25)] {
            assert_eq!(own(serde_json::json!({ "cost": cost })).unwrap().cost.get(), 25);
        }
        own(serde_json::json!({ "cost": 2.5 })).unwrap_err();
        own(serde_json::json!({ "cost": 1e300 })).unwrap_err();
        assert_eq!(
            annotated(serde_json::json!({ "mode": "optional", "x": "y" })).unwrap(),
            Policy::default()
        );
        for bad in [serde_json::json!({ "talos.mode": false }), serde_json::json!({ "talos.scope": "a" })] {
            own(bad.clone()).unwrap_err();
            annotated(bad).unwrap_err();
        }
        own(serde_json::json!({ "unknown": "a" })).unwrap_err();
        assert_eq!(
            read(&metadata("other", &serde_json::json!({ "mode": "off" }))).unwrap(),
            Policy::default()
        );
        for odd in
            [serde_json::json!({}), serde_json::json!({ "resources": ["a", {}, { "annotations": 1 }] })]
        {
            assert_eq!(read(&metadata("envoy-gateway", &odd)).unwrap(), Policy::default());
        }
    }

    #[test]
    fn metadata_longer_than_any_route_needs_is_refused() {
        // A key and a text of the length; the other bytes are tags and lengths.
        let with = |namespace, length| {
            let ignored = serde_json::json!({ "resources": "a".repeat(length) });
            metadata(namespace, &ignored)
        };
        let others = with("envoy-gateway", MAX_NAMESPACE).route_metadata[0].1.len() - MAX_NAMESPACE;
        let longest = MAX_NAMESPACE - others;
        for (namespace, more, refused) in
            [("envoy-gateway", 0, false), ("envoy-gateway", 1, true), ("talos", 1, true), ("other", 1, false)]
        {
            assert_eq!(read(&with(namespace, longest + more)).is_err(), refused, "{namespace} {more}");
        }
        let error = read(&with("talos", longest + 1)).unwrap_err();
        assert_eq!(error.to_string(), "metadata value: is longer than 65536 bytes");
    }

    #[test]
    fn context_extensions_win_key_by_key() {
        let mut attributes = metadata("talos", &serde_json::json!({ "mode": "off", "scopes": "a" }));
        attributes.context_extensions = extensions(&[("talos.scopes", "b")]).context_extensions;
        let policy = read(&attributes).unwrap();
        assert_eq!((policy.mode, policy.scopes.to_string()), (RouteMode::Off, "b".to_owned()));
    }
}
