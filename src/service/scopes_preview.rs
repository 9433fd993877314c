//! Keys whose recorded requests candidate routes would refuse.
//!
//! Usage records the names of routes, not paths: a request with the name of a candidate is taken
//! for one that the candidate gets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::retry::fingerprint;
use super::usage::{ALLOW, hour_of};
use super::{Service, unavailable};
use crate::clock::Timestamp;
use crate::credential::page_token::{self, Cursor};
use crate::error::ApiError;
use crate::key::{Key, KeyId, NetworkId, Status};
use crate::settings::Settings;
use crate::settings::policy::{Policy, RouteMode, Unmet};
use crate::settings::routes::Route;
use crate::store::{UsageGroup, UsageQuery, UsageSum};

/// Most candidates.
pub const MAX_PREVIEWED_ROUTES: usize = 1_000;
/// Sums of usage of a page if the request doesn't say.
const DEFAULT_PAGE: u32 = 500;
/// Most sums of usage of a page.
const MAX_PAGE: u32 = 1_000;
/// Most sums of all pages.
const MAX_SUMS: u32 = 10_000_000;
/// Time of a preview that has no start.
const DEFAULT_SPAN: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Keys that are read at the same time.
const CONCURRENT_READS: usize = 100;

/// Request for a preview.
#[derive(Debug, Clone, Default)]
pub struct ScopesPreviewRequest {
    /// Candidates for `authz.routes`.
    pub routes: Vec<Route>,
    /// Start; the beginning of its hour counts. By default seven days before the end.
    pub start: Option<Timestamp>,
    /// End; hours that begin before it count. By default now.
    pub end: Option<Timestamp>,
    /// Sums of usage of a page. 0 means 500; more than 1000 is cut to that.
    pub page_size: u32,
    /// Token of the previous page. Empty for the first page.
    pub page_token: String,
}

/// Answer of candidate routes to recorded requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreviewVerdict {
    /// All of them would be refused.
    Refused,
    /// Some may be refused: of several candidates of that name, some refuse the key.
    Possible,
}

/// Recorded requests that would be refused.
#[derive(Debug)]
pub struct PreviewRow {
    /// The key; `None` for requests without a credential.
    pub key: Option<Box<Key>>,
    /// Name of the route.
    pub route: String,
    /// Number of requests that were allowed.
    pub count: u64,
    /// The verdict.
    pub verdict: PreviewVerdict,
    /// Reason of the refusal.
    pub reason: &'static str,
    /// Scopes that the key lacks.
    pub missing: Vec<String>,
}

/// Recorded requests that can't be judged.
#[derive(Debug, PartialEq, Eq)]
pub struct UntoldRow {
    /// Name of the route; empty if it has none.
    pub route: String,
    /// Number of requests that were allowed.
    pub count: u64,
    /// Reason, in words.
    pub reason: &'static str,
}

/// Page of a preview.
#[derive(Debug)]
pub struct ScopesPreview {
    /// Start of the first hour.
    pub start: Timestamp,
    /// End.
    pub end: Timestamp,
    /// Requests that would be refused, those of the most frequent first.
    pub rows: Vec<PreviewRow>,
    /// Requests that can't be judged.
    pub untold: Vec<UntoldRow>,
    /// Number of requests that this page looks at.
    pub requests: u64,
    /// Token of the next page. Empty on the last page.
    pub next_page_token: String,
}

const UNNAMED: &str = "their route had no name when they were counted";
const NO_CANDIDATE: &str = "no candidate has the name of their route";
const OVERFLOWED: &str = "their keys were counted together, beyond usage.max_rows";

impl Service {
    /// Returns a page of the recorded requests that candidate routes would refuse, judged by the
    /// scopes that their keys have now. Keys that are no longer active are left out.
    ///
    /// # Errors
    /// Fails if the request is invalid, or the database fails.
    pub async fn preview_scopes(
        &self,
        settings: &Settings,
        request: ScopesPreviewRequest,
    ) -> Result<ScopesPreview, ApiError> {
        let (network, now) = (settings.network, self.clock.now());
        if request.routes.is_empty() || request.routes.len() > MAX_PREVIEWED_ROUTES {
            let problem = format!("must be 1 to {MAX_PREVIEWED_ROUTES} routes");
            return Err(ApiError::field("routes", problem));
        }
        let start = request.start.map(Timestamp::as_micros);
        let described = fingerprint(&json!(["preview", request.routes, start]));
        // Every page is of the same time, whenever it is asked for.
        let (offset, end) = match request.page_token.as_str() {
            "" => (0, request.end.unwrap_or(now)),
            token => {
                let cursor = page_token::open(&settings.secrets, now, network, &described, token);
                let found =
                    cursor.and_then(|cursor| Some((cursor.key_id.parse::<u32>().ok()?, cursor.created)));
                let problem = "is not one that this preview gave; start again without it";
                found.ok_or_else(|| ApiError::field("page_token", problem))?
            }
        };
        let start = hour_of(request.start.unwrap_or_else(|| end.minus(DEFAULT_SPAN)));
        if start > end || request.start.is_some_and(|start| start >= end) {
            return Err(ApiError::field("start_time", "must be before end_time"));
        }
        let size = match request.page_size {
            0 => DEFAULT_PAGE,
            size => size.min(MAX_PAGE),
        };
        let query = UsageQuery {
            network,
            start,
            end,
            key: None,
            actor: None,
            route: None,
            outcome: Some(ALLOW.to_owned()),
            groups: vec![UsageGroup::Key, UsageGroup::Route],
            size,
            offset,
        };
        let (sums, has_more) = self.store.sum_usage(query).await.map_err(unavailable)?;
        let keys = self.keys_of(network, &sums).await?;
        let (rows, untold) = judge(&Candidates::new(settings, &request.routes), &sums, &keys, now);
        let next = offset + size;
        let next_page_token = match has_more && next < MAX_SUMS {
            true => {
                let cursor = Cursor { created: end, key_id: next.to_string() };
                page_token::seal(&settings.secrets, &self.rng, network, &described, &cursor)
            }
            false => String::new(),
        };
        let requests = sums.iter().map(|sum| sum.count).sum();
        Ok(ScopesPreview { start, end, rows, untold, requests, next_page_token })
    }

    /// Reads the keys by which sums are grouped.
    async fn keys_of(&self, network: NetworkId, sums: &[UsageSum]) -> Result<HashMap<String, Key>, ApiError> {
        let ids: BTreeSet<KeyId> =
            sums.iter().filter_map(|sum| KeyId::parse_any(sum.key.as_deref()?)).collect();
        let ids: Vec<KeyId> = ids.into_iter().collect();
        let mut keys = HashMap::with_capacity(ids.len());
        for chunk in ids.chunks(CONCURRENT_READS) {
            let found = join_all(chunk.iter().map(|id| self.store.find_key(network, *id))).await;
            for found in found {
                let key = found.map_err(unavailable)?.key;
                keys.extend(
                    key.map(|key| (key.id.to_string(), (*key).clone().with_last_use_until(self.clock.now()))),
                );
            }
        }
        Ok(keys)
    }
}

/// Policies of candidates, by the name under which their requests were counted.
struct Candidates(HashMap<String, Vec<Policy>>);

impl Candidates {
    /// Takes the candidates with a name. One without takes that of the rule in force with the same
    /// host, methods and path.
    fn new(settings: &Settings, routes: &[Route]) -> Self {
        let mut by_name: HashMap<String, Vec<Policy>> = HashMap::new();
        for route in routes {
            let is_same = |known: &&Route| {
                (&known.host, &known.methods, &known.path) == (&route.host, &route.methods, &route.path)
            };
            let inherited = || settings.authz.routes.iter().find(is_same).and_then(|known| known.name);
            if let Some(name) = route.name.or_else(inherited) {
                by_name.entry(name.as_str().to_owned()).or_default().push(Policy::of_route(route));
            }
        }
        Self(by_name)
    }
}

/// Judges recorded requests.
fn judge(
    candidates: &Candidates,
    sums: &[UsageSum],
    keys: &HashMap<String, Key>,
    now: Timestamp,
) -> (Vec<PreviewRow>, Vec<UntoldRow>) {
    let mut rows = vec![];
    let mut untold: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    for sum in sums {
        let (route, id) = (sum.route.clone().unwrap_or_default(), sum.key.as_deref().unwrap_or_default());
        let Some(policies) = candidates.0.get(&route) else {
            let reason = if route.is_empty() { UNNAMED } else { NO_CANDIDATE };
            *untold.entry((route, reason)).or_default() += sum.count;
            continue;
        };
        let key = keys.get(id).filter(|key| key.status(now) == Status::Active);
        let refusals: Vec<Option<Unmet>> = match (key, id) {
            (Some(key), _) => {
                policies.iter().map(|policy| policy.unmet(&key.scopes, key.visibility)).collect()
            }
            (None, "") => policies.iter().map(without_credential).collect(),
            // A key that was deleted or has ended is refused whatever the routes say.
            (None, id) if KeyId::parse_any(id).is_some() => continue,
            (None, _) => {
                *untold.entry((route, OVERFLOWED)).or_default() += sum.count;
                continue;
            }
        };
        let are_all = refusals.iter().all(Option::is_some);
        if let Some(Unmet { reason, missing }) = refusals.into_iter().flatten().next() {
            let verdict = if are_all { PreviewVerdict::Refused } else { PreviewVerdict::Possible };
            let key = key.cloned().map(Box::new);
            rows.push(PreviewRow { key, route, count: sum.count, verdict, reason, missing });
        }
    }
    let untold = untold.into_iter().map(|((route, reason), count)| UntoldRow { route, count, reason });
    (rows, untold.collect())
}

/// Returns the refusal of a request without a credential.
fn without_credential(policy: &Policy) -> Option<Unmet> {
    (policy.mode == RouteMode::Required).then(|| Unmet { reason: "missing", missing: vec![] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(routes: &serde_json::Value) -> Candidates {
        let mut by_name: HashMap<String, Vec<Policy>> = HashMap::new();
        for route in serde_json::from_value::<Vec<Route>>(routes.clone()).unwrap() {
            let name = route.name.unwrap_or_default().as_str().to_owned();
            by_name.entry(name).or_default().push(Policy::of_route(&route));
        }
        Candidates(by_name)
    }

    #[test]
    fn undecidable_requests_are_listed_with_the_reason() {
        let routes = json!([
            { "name": "orders", "scopes": "orders:write" },
            { "name": "open", "mode": "optional" },
            { "name": "both" },
            { "name": "both", "mode": "off" },
        ]);
        let sum = |route: &str, key: &str, count| UsageSum {
            route: Some(route.to_owned()),
            key: Some(key.to_owned()),
            count,
            ..UsageSum::default()
        };
        let sums = [
            sum("", "", 1),
            sum("gone", "other", 2),
            sum("orders", "other", 4),
            sum("orders", "", 8),
            sum("open", "", 16),
            sum("both", "", 32),
            sum("orders", "6ba7b810-9dad-41d1-80b4-00c04fd430c8", 64),
            sum("", "other", 128),
        ];
        let (rows, untold) = judge(&candidates(&routes), &sums, &HashMap::new(), Timestamp::from_secs(0));
        let found: Vec<_> = rows.iter().map(|row| (row.count, row.verdict, row.reason)).collect();
        assert_eq!(
            found,
            [(8, PreviewVerdict::Refused, "missing"), (32, PreviewVerdict::Possible, "missing")]
        );
        let untold: Vec<_> = untold.iter().map(|row| (row.route.as_str(), row.count, row.reason)).collect();
        assert_eq!(untold, [("", 129, UNNAMED), ("gone", 2, NO_CANDIDATE), ("orders", 4, OVERFLOWED)]);
    }
}
