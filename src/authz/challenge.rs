//! Challenges of a 401, and of a 407 where Envoy is a proxy that clients know (RFC 9110, 11.7).

use talos_proto::HeaderValueOption;

use super::deny_reason::DenyReason;
use super::request::Headers;
use super::response::{add_line, overwrite};
use crate::config::{Authz, CredentialSource, HeaderForm};

const PROXY_AUTHORIZATION: &str = "proxy-authorization";

/// Kind of server that the client has to authenticate to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authenticator {
    /// The server that it wants to reach: 401.
    Origin,
    /// A proxy on the way: 407.
    Proxy,
}

impl Authenticator {
    /// Returns the kind for a request: a proxy if credentials for proxies are looked for, and the
    /// request is a CONNECT or no other credentials are looked for.
    pub(super) fn of(sources: &[CredentialSource], headers: &Headers<'_>) -> Self {
        let mut proxies = sources.iter().map(is_for_proxy);
        let is_proxy = match headers.method() {
            b"CONNECT" => proxies.any(|is_proxy| is_proxy),
            _ => proxies.all(|is_proxy| is_proxy),
        };
        if is_proxy { Self::Proxy } else { Self::Origin }
    }

    /// Returns the status of a response that asks for credentials.
    pub(super) const fn status(self) -> u16 {
        match self {
            Self::Origin => 401,
            Self::Proxy => 407,
        }
    }

    /// Returns the headers with the challenges of a response. Basic is asked for if it is looked
    /// for, Bearer if it is, too, or nothing is.
    pub(super) fn challenges(self, reason: &DenyReason, settings: &Authz) -> Vec<HeaderValueOption> {
        let name = match self {
            Self::Origin => "www-authenticate",
            Self::Proxy => "proxy-authenticate",
        };
        let is_asked = reason.asks_for_credential();
        let forms = || {
            settings.sources.iter().filter_map(move |source| match source {
                CredentialSource::Header { form, .. } if is_for_proxy(source) == (self == Self::Proxy) => {
                    Some(form)
                }
                _ => None,
            })
        };
        let has_basic = is_asked && forms().any(|form| matches!(form, HeaderForm::Basic(_)));
        let is_bearer =
            |form: &HeaderForm| matches!(form, HeaderForm::Scheme(_) | HeaderForm::OptionalScheme(_));
        let bearer = reason.bearer_challenge(&settings.realm, settings.reveal_reason);
        let bearer = bearer.filter(|_| !has_basic || forms().any(is_bearer));
        let basic = has_basic.then(|| format!("Basic realm=\"{}\", charset=\"UTF-8\"", settings.realm));
        match (bearer, basic) {
            // Two lines: some clients read one challenge of a line.
            (Some(bearer), Some(basic)) => vec![overwrite(name, &bearer), add_line(name, &basic)],
            (bearer, basic) => bearer.or(basic).iter().map(|challenge| overwrite(name, challenge)).collect(),
        }
    }
}

fn is_for_proxy(source: &CredentialSource) -> bool {
    matches!(source, CredentialSource::Header { name, .. } if name == PROXY_AUTHORIZATION)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authz::attributes::Attributes;
    use crate::key::verdict::Denial;

    #[test]
    fn challenges_ask_for_the_configured_sources() {
        let (bearer, basic) = ("Bearer realm=\"talos\"", "Basic realm=\"talos\", charset=\"UTF-8\"");
        let (www, proxy) = ("www-authenticate", "proxy-authenticate");
        let authorization = json!({ "header": "authorization", "scheme": "Bearer" });
        let with_basic = json!({ "header": "authorization", "scheme": "Basic" });
        let for_proxy = json!({ "header": "proxy-authorization", "scheme": "Basic" });
        let api_key = json!({ "header": "x-api-key" });
        for (sources, method, status, name, expected) in [
            (json!([api_key]), "GET", 401, www, &[bearer][..]),
            (json!([authorization, api_key]), "GET", 401, www, &[bearer]),
            (json!([with_basic]), "GET", 401, www, &[basic]),
            (json!([api_key, with_basic]), "GET", 401, www, &[basic]),
            (json!([authorization, with_basic]), "GET", 401, www, &[bearer, basic]),
            (json!([authorization, with_basic]), "CONNECT", 401, www, &[bearer, basic]),
            (json!([authorization, for_proxy]), "GET", 401, www, &[bearer]),
            (json!([authorization, for_proxy]), "CONNECT", 407, proxy, &[basic]),
            (json!([for_proxy]), "GET", 407, proxy, &[basic]),
        ] {
            let settings =
                Authz { sources: serde_json::from_value(sources.clone()).unwrap(), ..Authz::default() };
            let attributes = Attributes { method: method.as_bytes(), ..Attributes::default() };
            let authenticator = Authenticator::of(&settings.sources, &Headers::of(&attributes));
            assert_eq!(authenticator.status(), status, "{method} {sources}");
            let lines = authenticator.challenges(&DenyReason::Missing, &settings);
            let lines: Vec<_> = lines.into_iter().filter_map(|line| line.header).collect();
            assert!(lines.iter().all(|line| line.key == name), "{method} {sources}");
            let values: Vec<_> = lines.iter().map(|line| &line.value[..]).collect();
            let expected: Vec<_> = expected.iter().map(|challenge| challenge.as_bytes()).collect();
            assert_eq!(values, expected, "{method} {sources}");
            let denied = DenyReason::Denied(Denial::AddressNotAllowed);
            assert!(authenticator.challenges(&denied, &settings).is_empty());
        }
    }
}
