//! Reports of usage: sums of Checks by groups, for administrators and for the holder of a key.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::rows::hour_of;
use crate::audit::Origin;
use crate::clock::Timestamp;
use crate::credential::Presented;
use crate::credential::page_token::{self, Cursor};
use crate::error::{ApiError, Reason};
use crate::event::Operation;
use crate::key::{Key, KeyId, NetworkId};
use crate::service::filter::comparisons;
use crate::service::verify::{CacheUse, Identity, VerifyRequest};
use crate::service::{Service, Unavailable, unavailable};
use crate::settings::Settings;
use crate::store::{KeyUse, UsageGroup, UsageQuery, UsageSum};

/// Maximum length of a filter, in bytes.
pub const MAX_USAGE_FILTER: usize = 1_024;
/// Sums of a page if the request doesn't say.
const DEFAULT_PAGE: u32 = 100;
/// Most sums of a page.
const MAX_PAGE: u32 = 1_000;
/// Most sums of all pages of a report.
const MAX_SUMS: u32 = 10_000_000;
/// Time of a report that has no start.
const DEFAULT_SPAN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Request for a report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageRequest {
    /// AIP-160 filter over `key_id`, `actor_id`, `route` and `outcome`.
    pub filter: String,
    /// Attributes by which Checks are grouped.
    pub groups: Vec<UsageGroup>,
    /// Start; the beginning of its hour counts, or that of its day, once hours are added up by day.
    /// By default seven days before the end.
    pub start: Option<Timestamp>,
    /// End; hours, or later days, that begin before it count. By default now.
    pub end: Option<Timestamp>,
    /// Sums of a page. 0 means 100; more than 1000 is cut to that.
    pub page_size: u32,
    /// Token of the previous page. Empty for the first page.
    pub page_token: String,
}

/// Use of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUsage {
    /// First use that was counted.
    pub first: Timestamp,
    /// Last use, to the minute.
    pub last: Timestamp,
    /// Address of the client of the last use, if known.
    pub address: Option<IpAddr>,
}

/// A report.
#[derive(Debug)]
pub struct UsageReport {
    /// Start of the first hour or day that is counted.
    pub start: Timestamp,
    /// End of what is counted: hours that begin before it are.
    pub end: Timestamp,
    /// The sums.
    pub sums: Vec<UsageSum>,
    /// Uses of the keys in the sums, by id.
    pub uses: HashMap<String, KeyUsage>,
    /// Token of the next page. Empty on the last page.
    pub next_page_token: String,
}

/// Report for the holder of a key.
#[derive(Debug)]
pub struct SelfUsage {
    /// The key.
    pub key: Arc<Key>,
    /// The report.
    pub report: UsageReport,
}

/// Parses the names of groups, separated by commas.
///
/// # Errors
/// Fails with a description of the problem.
pub fn parse_groups(text: &str) -> Result<Vec<UsageGroup>, &'static str> {
    let mut groups = vec![];
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let group = match name {
            "day" => UsageGroup::Day,
            "hour" => UsageGroup::Hour,
            "outcome" => UsageGroup::Outcome,
            "route" => UsageGroup::Route,
            "key" => UsageGroup::Key,
            "actor" => UsageGroup::Actor,
            _ => return Err("must be some of day, hour, outcome, route, key, actor, separated by commas"),
        };
        if groups.contains(&group) {
            return Err("names a group twice");
        }
        groups.push(group);
    }
    if groups.contains(&UsageGroup::Day) && groups.contains(&UsageGroup::Hour) {
        return Err("must have day or hour, not both");
    }
    Ok(groups)
}

/// Filter of a report.
#[derive(Debug, Default, PartialEq, Eq)]
struct UsageFilter {
    key: Option<String>,
    actor: Option<String>,
    route: Option<String>,
    outcome: Option<String>,
}

fn parse_filter(text: &str) -> Result<UsageFilter, &'static str> {
    const FORM: &str = "must be `key_id = …`, `actor_id = \"…\"`, `route = …` or `outcome = …`, or several of them joined \
                        by AND";
    if text.len() > MAX_USAGE_FILTER {
        return Err("must be 1024 bytes at most");
    }
    if text.chars().any(|char| char.is_control() && !char.is_whitespace()) {
        return Err("must have no control characters");
    }
    let mut filter = UsageFilter::default();
    for (name, value) in comparisons(text).ok_or(FORM)? {
        let field = match name {
            "key_id" => &mut filter.key,
            "actor_id" => &mut filter.actor,
            "route" => &mut filter.route,
            "outcome" => &mut filter.outcome,
            _ => return Err(FORM),
        };
        if field.replace(value).is_some() {
            return Err("names a field twice");
        }
    }
    // An issued key's id may be written in upper case.
    filter.key = filter.key.map(|text| KeyId::parse_any(&text).map_or(text, |id| id.to_string()));
    Ok(filter)
}

impl Service {
    /// Returns a report on all keys of a network.
    ///
    /// # Errors
    /// Fails if the request is invalid, or the database fails.
    pub async fn usage(&self, settings: &Settings, request: UsageRequest) -> Result<UsageReport, ApiError> {
        let now = self.clock.now();
        let filter = parse_filter(&request.filter).map_err(|problem| ApiError::field("filter", problem))?;
        // Every page is of the same time, whenever it is asked for.
        let described = format!("usage {filter:?} {:?} {:?}", request.groups, request.start);
        let (offset, end) = match request.page_token.as_str() {
            "" => (0, request.end.unwrap_or(now)),
            token => open(settings, now, &described, token)?,
        };
        let start = hour_of(request.start.unwrap_or_else(|| end.minus(DEFAULT_SPAN)));
        if start > end || request.start.is_some_and(|start| start >= end) {
            return Err(ApiError::field("start_time", "must be before end_time"));
        }
        let size = match request.page_size {
            0 => DEFAULT_PAGE,
            size => size.min(MAX_PAGE),
        };
        let UsageFilter { key, actor, route, outcome } = filter;
        let (network, groups) = (settings.network, request.groups);
        let asked_end = end;
        let (start, end) = self.store.counted_time(network, start, end).await.map_err(unavailable)?;
        let query = UsageQuery { network, start, end, key, actor, route, outcome, groups, size, offset };
        let (sums, has_more) = self.store.sum_usage(query).await.map_err(unavailable)?;
        let uses = self.uses_of(network, &sums).await?;
        let next = offset + size;
        let next_page_token = match has_more && next < MAX_SUMS {
            true => {
                let cursor = Cursor { created: asked_end, key_id: next.to_string() };
                page_token::seal(&settings.secrets, &self.rng, network, &described, &cursor)
            }
            false => String::new(),
        };
        Ok(UsageReport { start, end, sums, uses, next_page_token })
    }

    /// Returns a report on the key whose credential is presented.
    ///
    /// # Errors
    /// Fails if the request is invalid, the database fails, and, always with the same error, for
    /// all but the credential of a key that may be used from the client's address.
    pub async fn self_usage(
        &self,
        settings: &Settings,
        credential: &str,
        request: UsageRequest,
        origin: &Origin,
    ) -> Result<SelfUsage, ApiError> {
        let credential = Presented::new(credential).ok_or_else(unknown_credential)?;
        if settings.form(credential).is_derived() {
            return Err(unknown_credential());
        }
        let verify_request =
            VerifyRequest { credential, client: origin.client, audiences: &[], cache: CacheUse::None };
        let verification = self.verify(settings, &verify_request).await.map_err(|Unavailable| {
            ApiError::new(Reason::ServiceUnavailable, "the database gives no answer; try again")
        })?;
        let key = match verification.verdict {
            Ok(Identity::Key(entry)) => Arc::clone(&entry.key),
            Err(rejection) => {
                self.record_failure(settings, &rejection, Operation::Verify, origin);
                return Err(unknown_credential());
            }
            Ok(Identity::Token(_)) => return Err(unknown_credential()),
        };
        let id = key.id;
        let filter = format!("key_id = \"{id}\"");
        let mut report = self.usage(settings, UsageRequest { filter, ..request }).await?;
        if let Some(used) = self.key_uses(settings.network, vec![id]).await?.remove(&id) {
            report.uses.insert(id.to_string(), used);
        }
        Ok(SelfUsage { key, report })
    }

    /// Returns the uses of the keys by which sums are grouped.
    async fn uses_of(
        &self,
        network: NetworkId,
        sums: &[UsageSum],
    ) -> Result<HashMap<String, KeyUsage>, ApiError> {
        // Beside an hour or day, a last use would be taken for that of the hour.
        let keys = sums.iter().filter(|sum| sum.at.is_none()).filter_map(|sum| sum.key.as_deref());
        let mut keys: Vec<KeyId> = keys.filter_map(KeyId::parse_any).collect();
        keys.sort_unstable();
        keys.dedup();
        let uses = self.key_uses(network, keys).await?;
        Ok(uses.into_iter().map(|(key, used)| (key.to_string(), used)).collect())
    }

    /// Returns the address of a key's last use that was counted.
    ///
    /// # Errors
    /// Fails if the database fails.
    pub async fn last_address(&self, network: NetworkId, key: KeyId) -> Result<Option<IpAddr>, ApiError> {
        Ok(self.key_uses(network, vec![key]).await?.remove(&key).and_then(|used| used.address))
    }

    async fn key_uses(
        &self,
        network: NetworkId,
        keys: Vec<KeyId>,
    ) -> Result<HashMap<KeyId, KeyUsage>, ApiError> {
        let uses = self.store.uses_of(network, keys).await.map_err(unavailable)?;
        let usage = |KeyUse { first, last, address, .. }| KeyUsage { first, last, address };
        Ok(uses.into_iter().map(|(key, used)| (key, usage(used))).collect())
    }
}

/// Returns the number of sums on earlier pages, and the end of the report.
fn open(
    settings: &Settings,
    now: Timestamp,
    described: &str,
    token: &str,
) -> Result<(u32, Timestamp), ApiError> {
    let cursor = page_token::open(&settings.secrets, now, settings.network, described, token);
    let found = cursor.and_then(|cursor| Some((cursor.key_id.parse().ok()?, cursor.created)));
    found.ok_or_else(|| {
        ApiError::field("page_token", "is not one that this report gave; start again without it")
    })
}

fn unknown_credential() -> ApiError {
    ApiError::new(Reason::UnknownCredential, "credential: is not that of a key whose usage can be read here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_filters() {
        assert_eq!(parse_groups("day,actor"), Ok(vec![UsageGroup::Day, UsageGroup::Actor]));
        assert_eq!(parse_groups(""), Ok(vec![]));
        for bad in ["days", "day,hour", "key,key"] {
            assert!(parse_groups(bad).is_err(), "{bad}");
        }
        let filter = parse_filter("actor_id = \"a b\" AND outcome = allow AND route=orders").unwrap();
        assert_eq!(filter.actor.as_deref(), Some("a b"));
        assert_eq!((filter.outcome.as_deref(), filter.route.as_deref()), (Some("allow"), Some("orders")));
        assert_eq!(parse_filter(""), Ok(UsageFilter::default()));
        for bad in
            ["actor_id", "status = x", "route = a AND route = b", "route = a AND ", "route = \"\u{1}\""]
        {
            assert!(parse_filter(bad).is_err(), "{bad}");
        }
    }
}
