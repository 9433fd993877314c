//! Listing of keys, page by page.

use sha2::{Digest, Sha256};

use super::filter::ListFilter;
use super::{Service, filter, unavailable};
use crate::credential::page_token;
use crate::error::ApiError;
use crate::key::{Key, KeyKind, MAX_LABEL};
use crate::settings::Settings;
use crate::store::{KeyTotal, Order, OrderBy, PageRequest};

/// Page size if the request has none.
pub const DEFAULT_PAGE: u32 = 50;
/// Maximum page size.
pub const MAX_PAGE: u32 = 1_000;
/// Longest description of a list that its page tokens contain; of a longer one, the hash.
const MAX_LISTING: usize = 1_024;

/// Request for one page.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Page size. 0 means [`DEFAULT_PAGE`]; more than [`MAX_PAGE`] is cut to that.
    pub page_size: u32,
    /// Token of the previous page. Empty for the first page.
    pub page_token: String,
    /// AIP-160 filter.
    pub filter: String,
    /// Beginning of the name, actor, id or a value of the metadata; empty for any.
    pub query: String,
    /// Order of the keys (AIP-132): `create_time`, the default, `expire_time` or `last_used_time`,
    /// each with `desc` for the other direction.
    pub order_by: String,
    /// True if the keys are to be counted.
    pub has_total: bool,
}

/// One page of keys.
#[derive(Debug)]
pub struct Listed {
    /// The keys.
    pub keys: Vec<Key>,
    /// Token of the next page. Empty on the last page.
    pub next_page_token: String,
    /// Number of keys in the list, if it was asked for and is cheap.
    pub total: Option<KeyTotal>,
}

impl Service {
    /// Lists keys of one kind.
    ///
    /// # Errors
    /// Fails if the filter or page token is invalid, or the database fails.
    pub async fn list(
        &self,
        settings: &Settings,
        kind: KeyKind,
        request: ListRequest,
    ) -> Result<Listed, ApiError> {
        let (network, now) = (settings.network, self.clock.now());
        let mut filter =
            filter::parse(&request.filter).map_err(|problem| ApiError::field("filter", problem))?;
        filter.more.search = parse_query(&request.query)?;
        let order = parse_order(&request.order_by).ok_or_else(|| {
            let problem =
                "must be create_time, expire_time or last_used_time, with desc after it for descending";
            ApiError::field("order_by", problem)
        })?;
        let listing = describe(kind, &filter, order);
        let after = match request.page_token.as_str() {
            "" => None,
            token => {
                let cursor = page_token::open(&settings.secrets, now, network, &listing, token);
                let problem = "is not one that this listing gave: send it with the filter, query and order_by of the \
                               page before, or start again without it";
                Some(cursor.ok_or_else(|| ApiError::field("page_token", problem))?)
            }
        };
        let size = match request.page_size {
            0 => DEFAULT_PAGE,
            size => size.min(MAX_PAGE),
        };
        let filter = filter.resolve(settings, now);
        let total = match request.has_total {
            true => {
                let total = self.store.count_keys(network, kind, filter.clone(), now).await;
                total.map_err(unavailable)?
            }
            false => None,
        };
        let is_first = after.is_none();
        let request = PageRequest { filter, order, after, size, ..PageRequest::default() };
        let page = self.store.list_keys(network, kind, request, now).await.map_err(unavailable)?;
        // The only page has them all.
        let total = match (total, &page.next) {
            (Some(_), None) if is_first => Some(KeyTotal { count: page.keys.len() as u64, is_exact: true }),
            (total, _) => total,
        };
        let next_page_token = page.next.map_or_else(String::new, |next| {
            page_token::seal(&settings.secrets, &self.rng, network, &listing, &next)
        });
        let keys = page.keys.into_iter().map(|key| key.with_last_use_until(now)).collect();
        Ok(Listed { keys, next_page_token, total })
    }
}

/// Returns a text that no other list has, to which page tokens are bound.
fn describe(kind: KeyKind, filter: &ListFilter, order: Order) -> String {
    let mut listing = format!("{kind:?} {}", filter.describe());
    if order.by != OrderBy::Created {
        listing += &format!(" by {:?}", order.by);
    }
    if order.is_descending {
        listing += " newest first";
    }
    if listing.len() > MAX_LISTING {
        listing = hex::encode(Sha256::digest(&listing));
    }
    listing
}

/// Parses a search. An empty one finds all keys.
fn parse_query(text: &str) -> Result<Option<String>, ApiError> {
    let text = text.trim();
    if text.chars().count() > MAX_LABEL || text.chars().any(char::is_control) {
        return Err(ApiError::field("query", "must be 255 characters at most, without control characters"));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Parses an order. Spaces around its parts don't matter, as AIP-132 says.
fn parse_order(text: &str) -> Option<Order> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (by, rest) = words.split_first().unwrap_or((&"create_time", &[]));
    let by = match *by {
        "create_time" => OrderBy::Created,
        "expire_time" => OrderBy::Expires,
        "last_used_time" => OrderBy::LastUsed,
        _ => return None,
    };
    match rest {
        [] => Some(Order { by, is_descending: false }),
        ["desc"] => Some(Order { by, is_descending: true }),
        _ => None,
    }
}
