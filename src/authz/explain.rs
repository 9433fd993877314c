//! Explanation of decisions, by the functions that decide Checks.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::attributes::Attributes;
use super::deny_reason::{DeniedRequest, DenyReason};
use super::repeated::RepeatedCredential;
use super::request::{Headers, Malformed};
use super::sources::PresentedCredential;
use super::{path_key, policy};
use crate::config::RouteMode;
use crate::credential::Presented;
use crate::service::explain::{Explain, ExplainRequest, Explanation, Policy};
use crate::service::verify::{CacheUse, Identity, VerifyRequest};
use crate::service::{Service, Unavailable};
use crate::settings::Settings;

/// Explains the decisions of the authz plane.
pub struct RouteExplainer {
    service: Arc<Service>,
}

impl RouteExplainer {
    /// Makes an explainer of what `service` would decide.
    pub fn new(service: Arc<Service>) -> Self {
        Self { service }
    }

    async fn explain_request(&self, own: &Arc<Settings>, request: &ExplainRequest) -> Explanation {
        let extensions = request.context_extensions.iter();
        let attributes = Attributes {
            method: request.method.as_bytes(),
            path: request.path.as_bytes(),
            host: request.host.as_bytes(),
            context_extensions: extensions.map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect(),
            ..Attributes::default()
        };
        let headers = Headers::of(&attributes);
        let mut explanation = Explanation::default();
        let snapshot = self.service.snapshot();
        let settings = snapshot.for_host(|| Some(request.host.as_str()));
        // A caller gets no explanation for hosts of other networks.
        let Some(settings) = settings.filter(|found| found.network == own.network) else {
            return denied(explanation, &DenyReason::UnknownHost);
        };
        let target = path_key::upstream_target(headers.path(), &settings.authz.sources);
        let rule = settings.routes.find_origin(headers.host(), headers.method(), &target);
        explanation.rule = rule.ok().flatten().cloned();
        // Whoever may ask may have the line in the log each time.
        let policy = match policy::route_policy(settings, &headers, &target, &attributes, |_| true) {
            Ok(policy) => policy.into_owned(),
            Err(reason) => return denied(explanation, &reason),
        };
        explanation.policy = Some(policy.clone());
        let decided = self.decide(settings, &headers, &policy, request, &mut explanation).await;
        match decided {
            Ok((reason, message)) => {
                Explanation { is_allowed: true, reason, message: message.to_owned(), ..explanation }
            }
            Err(reason) => denied(explanation, &reason),
        }
    }

    /// Decides as a Check is decided, without charge, token and records.
    async fn decide(
        &self,
        settings: &Settings,
        headers: &Headers<'_>,
        policy: &Policy,
        request: &ExplainRequest,
        explanation: &mut Explanation,
    ) -> Result<(&'static str, &'static str), DenyReason> {
        if policy.mode == RouteMode::Off {
            return Ok(("off", "the route asks for no credential and looks at none"));
        }
        let sources = &settings.authz.sources;
        let found = PresentedCredential::find(headers, sources)?;
        let target = path_key::upstream_target(headers.path(), sources);
        RepeatedCredential::of(found.as_ref()).check_path(&target)?;
        let found = found.as_ref().map(|found| found.credential()).transpose()?;
        let given = request.credential.as_ref().filter(|given| !given.is_empty());
        let given = given.map(|given| Presented::new(given.expose()).ok_or(Malformed::Unreadable));
        let credential = match (found, given.transpose()?) {
            (Some(found), Some(given)) if found.expose() != given.expose() => {
                return Err(Malformed::Ambiguous.into());
            }
            (Some(credential), _) | (None, Some(credential)) => credential,
            (None, None) if policy.mode == RouteMode::Optional => {
                return Ok(("anonymous", "the route lets requests without a credential pass"));
            }
            (None, None) => return Err(DenyReason::Missing),
        };
        let client = request.client;
        let attempt = VerifyRequest {
            credential,
            client,
            audiences: policy.audience.as_slice(),
            cache: CacheUse::Full,
        };
        let verification =
            self.service.verify(settings, &attempt).await.map_err(|Unavailable| DenyReason::Unavailable)?;
        explanation.key_id = verification.counted_key();
        explanation.actor = verification.key().map(|key| key.actor.clone());
        match verification.verdict {
            Ok(Identity::Key(entry)) => {
                policy::check_key(policy, &entry.key.scopes, entry.key.visibility)?;
                Ok((
                    "ok",
                    "the key is valid and has what the route asks for; its rate limits are not looked at",
                ))
            }
            Ok(Identity::Token(authority)) => {
                explanation.actor = authority.actor.clone();
                policy::check_key(policy, &authority.scopes, authority.visibility)?;
                Ok(("ok", "the derived token is valid and has what the route asks for"))
            }
            Err(rejection) => Err(DeniedRequest::from(rejection).with_client(client).reason),
        }
    }
}

impl Explain for RouteExplainer {
    fn explain<'a>(
        &'a self,
        settings: &'a Arc<Settings>,
        request: &'a ExplainRequest,
    ) -> BoxFuture<'a, Explanation> {
        self.explain_request(settings, request).boxed()
    }
}

fn denied(explanation: Explanation, reason: &DenyReason) -> Explanation {
    let missing_scopes = match reason {
        DenyReason::InsufficientScope(demand) => demand.missing.clone(),
        _ => vec![],
    };
    let (label, message) = (reason.label(), reason.to_string());
    Explanation { is_allowed: false, reason: label, message, missing_scopes, ..explanation }
}
