//! The part of the configuration that a module needs.

use std::sync::Arc;

use prost::Message;
use talos_proto::edge::{self, HeaderSource, Rule, Source, rule, source};

use super::super::identity_headers::IDENTITY_HEADERS;
use super::MAX_SENT_MESSAGE;
use crate::config::{ClientAddress, CredentialSource, HeaderForm, PathMatch, Preflight, Route};
use crate::key::deny::DenyList;
use crate::service::Service;
use crate::settings::Settings;

/// Part of [`MAX_SENT_MESSAGE`] that the message around the settings takes, in bytes.
const ENVELOPE: usize = 64;

/// The state of this process by which entries count, with a number of its own on each stream.
pub(super) struct Generation {
    /// Never 0.
    pub(super) number: u64,
    pub(super) settings: Arc<Settings>,
    deny_list: Arc<DenyList>,
}

impl Generation {
    /// The state as it is now.
    pub(super) fn first(service: &Service) -> Self {
        // Entries are checked against the deny list when they are sent, not when they are used.
        let deny_list = service.deny_list.load_full();
        Self { number: 1, settings: service.snapshot(), deny_list }
    }

    /// Returns the state as it is now, if it differs.
    pub(super) fn next(&self, service: &Service) -> Option<Self> {
        let now = Self { number: self.number + 1, ..Self::first(service) };
        let is_same = now.settings.generation == self.settings.generation
            && Arc::ptr_eq(&now.deny_list, &self.deny_list);
        (!is_same).then_some(now)
    }

    /// Returns the message.
    pub(super) fn message(&self, service: &Service) -> edge::Settings {
        let settings = &*self.settings;
        let disabled = |reason: &str| edge::Settings {
            generation: self.number,
            reason: reason.to_owned(),
            ..edge::Settings::default()
        };
        if !settings.authz.edge.enabled {
            return disabled("authz.edge.enabled is false");
        }
        if !settings.cache_enabled {
            return disabled("cache.enabled is false");
        }
        let lease = service.freshness.config().lease;
        let message = edge::Settings {
            generation: self.number,
            enabled: true,
            reason: String::new(),
            lease_micros: u64::try_from(lease.as_micros()).unwrap_or(u64::MAX),
            sources: settings.authz.sources.iter().map(source).collect(),
            client_address: client_address(settings.authz.client_address).into(),
            trusted_hops: settings.authz.trusted_hops,
            token_header: settings.authz.token_header.clone(),
            by_host: settings.has_tenants(),
            rules: settings.authz.routes.iter().map(rule).collect(),
            own_headers: IDENTITY_HEADERS.map(str::to_owned).into(),
            preflight_allowed: settings.authz.preflight == Preflight::Allow,
        };
        match message.encoded_len() + ENVELOPE > MAX_SENT_MESSAGE {
            true => disabled("authz.routes are too large for a module"),
            false => message,
        }
    }
}

fn source(source: &CredentialSource) -> Source {
    let kind = match source {
        CredentialSource::Header { name, form } => match form {
            HeaderForm::Basic(_) => source::Kind::Other("basic".to_owned()),
            HeaderForm::Bare | HeaderForm::Scheme(_) | HeaderForm::OptionalScheme(_) => {
                source::Kind::Header(HeaderSource {
                    name: name.clone(),
                    scheme: form.scheme().unwrap_or_default().to_owned(),
                    is_scheme_optional: matches!(form, HeaderForm::OptionalScheme(_)),
                })
            }
        },
        CredentialSource::Query { name } => source::Kind::Query(name.clone()),
        CredentialSource::Cookie { name } => source::Kind::Cookie(name.clone()),
        CredentialSource::Path(_) => source::Kind::Other("path".to_owned()),
        CredentialSource::WebsocketProtocol { .. } => source::Kind::Other("websocket_protocol".to_owned()),
    };
    Source { kind: Some(kind) }
}

const fn client_address(origin: ClientAddress) -> edge::ClientAddress {
    match origin {
        ClientAddress::Peer => edge::ClientAddress::Peer,
        ClientAddress::External => edge::ClientAddress::External,
        ClientAddress::Xff => edge::ClientAddress::Xff,
    }
}

fn rule(route: &Route) -> Rule {
    Rule {
        host: route.host.clone().unwrap_or_default(),
        methods: route.methods.clone(),
        path: route.path.as_ref().map(|path| match path {
            PathMatch::Exact(path) => rule::Path::Exact(path.clone()),
            PathMatch::Prefix(path) => rule::Path::Prefix(path.clone()),
            PathMatch::Template(path) => rule::Path::Template(path.clone()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_that_a_module_can_not_read_are_named() {
        let kind = |json: serde_json::Value| {
            source(&serde_json::from_value::<CredentialSource>(json).unwrap()).kind.unwrap()
        };
        let header = |name: &str, scheme: &str| {
            let (name, scheme) = (name.to_owned(), scheme.to_owned());
            source::Kind::Header(HeaderSource { name, scheme, is_scheme_optional: false })
        };
        for (json, expected) in [
            (serde_json::json!({ "header": "x-api-key" }), header("x-api-key", "")),
            (
                serde_json::json!({ "header": "authorization", "scheme": "Bearer" }),
                header("authorization", "Bearer"),
            ),
            (serde_json::json!({ "query": "key" }), source::Kind::Query("key".to_owned())),
            (serde_json::json!({ "cookie": "key" }), source::Kind::Cookie("key".to_owned())),
            (serde_json::json!({ "path": "/v2/{key}" }), source::Kind::Other("path".to_owned())),
        ] {
            assert_eq!(kind(json), expected);
        }
    }
}
