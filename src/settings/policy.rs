//! Policy of a route: what a request needs to pass.

use std::str::FromStr;

pub use crate::config::{RouteMode, RouteName};

use crate::config::{Audience, Route, RouteCost, RouteToken, RouteVisibility, ScopeList};
use crate::key::{Scope, Scopes, Visibility};

/// Policy of one route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Need for a credential: required, optional or none.
    pub mode: RouteMode,
    /// Scopes that the credential must all have.
    pub scopes: Scopes,
    /// Scopes of which the credential must have one, unless this is empty.
    pub any_scope: Scopes,
    /// `aud` of the minted token.
    pub audience: Option<String>,
    /// Token that is sent upstream; by default a JWT if there is a signing key.
    pub token: Option<RouteToken>,
    /// True if publishable keys are refused.
    pub secret_only: bool,
    /// Cost of a request: the amount that it takes from each rate limit of its key.
    pub cost: RouteCost,
    /// Name under which its requests are counted.
    pub name: RouteName,
}

/// Demand of a policy that a request doesn't meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// Reason of the refusal, as in metrics and usage.
    pub reason: &'static str,
    /// Scopes that are lacking: all of them, or one of them where any is enough.
    pub missing: Vec<String>,
}

/// Returns true for a key of Envoy's configuration that isn't one of Talos, but was meant as one:
/// `Talos.scopes`, ` talos.scopes`, `talos_scopes`. Ignoring it would drop what the route demands.
pub fn is_misspelled_key(key: &[u8]) -> bool {
    let key = key.trim_ascii_start();
    let Some((name, rest)) = key.split_at_checked("talos".len()) else { return false };
    name.eq_ignore_ascii_case(b"talos") && rest.first().is_some_and(|next| !next.is_ascii_alphanumeric())
}

impl Policy {
    /// Returns the demand that a key doesn't meet; `None` if it may pass.
    pub fn unmet(&self, scopes: &Scopes, visibility: Visibility) -> Option<Unmet> {
        if self.mode == RouteMode::Off {
            return None;
        }
        if self.secret_only && visibility == Visibility::Public {
            return Some(Unmet { reason: "publishable", missing: vec![] });
        }
        let lacks_all = !scopes.grant_all(&self.scopes);
        let lacks_any = !self.any_scope.is_empty() && !scopes.grant_any(&self.any_scope);
        let needed = match (lacks_all, lacks_any) {
            (true, _) => &self.scopes,
            (false, true) => &self.any_scope,
            (false, false) => return None,
        };
        let missing = needed.iter().filter(|scope| !scopes.grant(scope)).map(Scope::as_str);
        Some(Unmet { reason: "insufficient_scope", missing: missing.map(str::to_owned).collect() })
    }

    /// The policy of an entry of `authz.routes`.
    pub fn of_route(route: &Route) -> Self {
        Self {
            mode: route.mode.unwrap_or_default(),
            scopes: route.scopes.clone().map(ScopeList::into_scopes).unwrap_or_default(),
            any_scope: route.any_scope.clone().map(ScopeList::into_scopes).unwrap_or_default(),
            audience: route.audience.as_ref().map(|audience| audience.as_str().to_owned()),
            token: route.token,
            secret_only: route.visibility == Some(RouteVisibility::Secret),
            cost: route.cost.unwrap_or_default(),
            name: route.name.unwrap_or_default(),
        }
    }

    /// Sets one value from a context extension of Envoy; `key` is what follows `talos.`.
    ///
    /// # Errors
    /// With the reason, when the key is unknown or its value is out of range.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let value = std::str::from_utf8(value).map_err(|_| "must be UTF-8")?;
        match key {
            b"mode" => self.mode = parse(value)?,
            b"scopes" => self.scopes = parse::<ScopeList>(value)?.into_scopes(),
            b"any_scope" => self.any_scope = parse::<ScopeList>(value)?.into_scopes(),
            b"audience" => self.audience = Some(parse::<Audience>(value)?.as_str().to_owned()),
            b"token" => self.token = Some(parse(value)?),
            b"route" => self.name = parse(value)?,
            b"visibility" => self.secret_only = parse::<RouteVisibility>(value)? == RouteVisibility::Secret,
            b"cost" => self.cost = parse(value)?,
            _ => return Err("is not known".to_owned()),
        }
        Ok(())
    }
}

fn parse<T: FromStr<Err: ToString>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}
