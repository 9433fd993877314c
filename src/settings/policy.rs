//! What a route asks of a credential.

use std::str::FromStr;

use crate::config::{Audience, Route, RouteMode, RouteToken, RouteVisibility, ScopeList};
use crate::key::Scopes;

/// The demands of one route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether a credential is needed at all.
    pub mode: RouteMode,
    /// Scopes that it must all have.
    pub scopes: Scopes,
    /// Scopes of which it must have one, unless empty.
    pub any_scope: Scopes,
    /// Whom the minted token is for.
    pub audience: Option<String>,
    /// What goes upstream; by default a JWT when one can be signed.
    pub token: Option<RouteToken>,
    /// Whether publishable keys are refused.
    pub secret_only: bool,
}

impl Policy {
    /// What a route of our own configuration says, over the defaults.
    pub fn of_route(route: &Route) -> Self {
        Self {
            mode: route.mode.unwrap_or_default(),
            scopes: route.scopes.clone().map(ScopeList::into_scopes).unwrap_or_default(),
            any_scope: route.any_scope.clone().map(ScopeList::into_scopes).unwrap_or_default(),
            audience: route.audience.as_ref().map(|audience| audience.as_str().to_owned()),
            token: route.token,
            secret_only: route.visibility == Some(RouteVisibility::Secret),
        }
    }

    /// Sets one demand as Envoy writes it; `key` is what follows `talos.`.
    ///
    /// # Errors
    /// What is wrong, when the key is unknown or its value out of range.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let value = std::str::from_utf8(value).map_err(|_| "must be UTF-8")?;
        match key {
            b"mode" => self.mode = parse(value)?,
            b"scopes" => self.scopes = parse::<ScopeList>(value)?.into_scopes(),
            b"any_scope" => self.any_scope = parse::<ScopeList>(value)?.into_scopes(),
            b"audience" => self.audience = Some(parse::<Audience>(value)?.as_str().to_owned()),
            b"token" => self.token = Some(parse(value)?),
            b"visibility" => self.secret_only = parse::<RouteVisibility>(value)? == RouteVisibility::Secret,
            _ => return Err("is not known".to_owned()),
        }
        Ok(())
    }
}

fn parse<T: FromStr<Err: ToString>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}
