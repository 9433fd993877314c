//! Keys that exist and break issuance policies, those in force or candidates for them.

use serde_json::json;

use super::retry::fingerprint;
use super::{Service, unavailable};
use crate::credential::page_token::{self, Cursor};
use crate::error::ApiError;
use crate::key::{Key, KeyId, KeyKind, Status};
use crate::settings::Settings;
use crate::settings::issuance::{IssuancePolicies, IssuancePolicy, PolicyEnd, Violation, problems_of};
use crate::store::{Filter, PageRequest};

/// Keys of a page if the request doesn't say.
const DEFAULT_PAGE: usize = 100;
/// Most keys of a page.
const MAX_PAGE: usize = 1_000;
/// Keys that are read at a time.
const SCAN_PAGE: u32 = 1_000;
/// Number of keys after which a page ends, whether or not one breaks a policy.
const MAX_SCANNED: usize = 10_000;

/// Request for the keys that break policies.
#[derive(Debug, Clone, Default)]
pub struct PolicyCheckRequest {
    /// Candidates; `None` stands for the policies in force.
    pub policies: Option<Vec<IssuancePolicy>>,
    /// Most keys of a page. 0 means 100; more than 1000 is cut to that.
    pub page_size: usize,
    /// Token of the previous page. Empty for the first page.
    pub page_token: String,
}

/// Active key that breaks policies.
#[derive(Debug)]
pub struct BreakingKey {
    /// The key.
    pub key: Key,
    /// Rules that it breaks.
    pub violations: Vec<Violation>,
    /// End by a policy that applies to all keys.
    pub end: Option<PolicyEnd>,
}

/// Page of keys that break policies.
#[derive(Debug)]
pub struct BreakingKeys {
    /// The keys, by kind and the time of their creation.
    pub keys: Vec<BreakingKey>,
    /// Number of active keys that were read for this page.
    pub scanned: usize,
    /// Token of the next page. Empty on the last page.
    pub next_page_token: String,
}

/// Position in the list of all keys.
struct ListPosition {
    kind: KeyKind,
    /// Last key that was read; `None` at the start of its kind.
    after: Option<Cursor>,
}

impl ListPosition {
    /// Returns the cursor of a page token. The start of imported keys has no key.
    fn cursor(&self) -> Cursor {
        let start = || Cursor { created: crate::clock::Timestamp::from_micros(0), key_id: String::new() };
        self.after.clone().unwrap_or_else(start)
    }

    fn of(cursor: Cursor) -> Self {
        match KeyId::parse_any(&cursor.key_id) {
            Some(id) => Self { kind: id.kind(), after: Some(cursor) },
            None => Self { kind: KeyKind::Imported, after: None },
        }
    }
}

impl Service {
    /// Returns a page of the active keys that break policies. Nothing is changed.
    ///
    /// # Errors
    /// Fails if a policy or the page token is invalid, or the database fails.
    pub async fn check_policies(
        &self,
        settings: &Settings,
        request: PolicyCheckRequest,
    ) -> Result<BreakingKeys, ApiError> {
        let (network, now) = (settings.network, self.clock.now());
        let policies = candidates(settings, request.policies)?;
        let described = fingerprint(&json!(["policies", policies.as_slice()]));
        let mut position = match request.page_token.as_str() {
            "" => ListPosition { kind: KeyKind::Issued, after: None },
            token => {
                let cursor = page_token::open(&settings.secrets, now, network, &described, token);
                let problem = "is not one that this check gave; start again without it";
                ListPosition::of(cursor.ok_or_else(|| ApiError::field("page_token", problem))?)
            }
        };
        let size = match request.page_size {
            0 => DEFAULT_PAGE,
            size => size.min(MAX_PAGE),
        };
        let mut found = BreakingKeys { keys: vec![], scanned: 0, next_page_token: String::new() };
        loop {
            let page = PageRequest {
                filter: Filter { status: Some(Status::Active), ..Filter::default() },
                after: position.after.clone(),
                size: SCAN_PAGE,
                ..PageRequest::default()
            };
            let page = self.store.list_keys(network, position.kind, page, now).await.map_err(unavailable)?;
            for key in page.keys {
                // Patterns may take long to match: between keys, others get the thread, and the
                // request may reach its time limit.
                tokio::task::yield_now().await;
                found.scanned += 1;
                position.after = Some(Cursor { created: key.created, key_id: key.id.to_string() });
                let violations = policies.check(&key);
                if violations.is_empty() {
                    continue;
                }
                let end = policies.end_of(&key);
                found.keys.push(BreakingKey { key: key.with_last_use_until(now), violations, end });
                if found.keys.len() == size {
                    break;
                }
            }
            if found.keys.len() < size {
                // All of the page was looked at. Without a next one, the kind is done.
                let is_last = page.next.is_none() && position.kind == KeyKind::Imported;
                position = match page.next {
                    Some(next) => ListPosition { after: Some(next), ..position },
                    None => ListPosition { kind: KeyKind::Imported, after: None },
                };
                if is_last {
                    return Ok(found);
                }
                if found.scanned < MAX_SCANNED {
                    continue;
                }
            }
            found.next_page_token =
                page_token::seal(&settings.secrets, &self.rng, network, &described, &position.cursor());
            return Ok(found);
        }
    }
}

/// Returns the policies to check.
fn candidates(
    settings: &Settings,
    policies: Option<Vec<IssuancePolicy>>,
) -> Result<IssuancePolicies, ApiError> {
    let Some(policies) = policies else {
        return Ok(settings.issuance.clone());
    };
    // A set of scopes may be a candidate as well, and matters to no key that exists.
    let named = policies.iter().filter_map(|policy| policy.applies_to.role.as_deref());
    let roles: Vec<&str> = named.filter(|role| !["issuer", "admin"].contains(role)).collect();
    match problems_of(&policies, &roles).into_iter().next() {
        Some((place, problem)) => Err(ApiError::field(format!("issuance_policies{place}"), problem)),
        None => Ok(IssuancePolicies::new(policies)),
    }
}
