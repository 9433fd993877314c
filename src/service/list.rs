//! Listing of keys, page by page.

use super::{Service, filter, unavailable};
use crate::credential::page_token::{self, Cursor};
use crate::error::ApiError;
use crate::key::{Key, KeyKind};
use crate::settings::Settings;
use crate::store::{Order, PageRequest};

/// Page size if the request has none.
pub const DEFAULT_PAGE: u32 = 50;
/// Maximum page size.
pub const MAX_PAGE: u32 = 1_000;

/// Request for one page.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Page size. 0 means [`DEFAULT_PAGE`]; more than [`MAX_PAGE`] is cut to that.
    pub page_size: u32,
    /// Token of the previous page. Empty for the first page.
    pub page_token: String,
    /// AIP-160 filter over `actor_id`, `status`, `secret_id` and `key_prefix`.
    pub filter: String,
    /// Order of the keys (AIP-132): `create_time`, the default, or `create_time desc`.
    pub order_by: String,
}

/// One page of keys.
#[derive(Debug)]
pub struct Listed {
    /// The keys.
    pub keys: Vec<Key>,
    /// Token of the next page. Empty on the last page.
    pub next_page_token: String,
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
        let filter = filter::parse(&request.filter).map_err(|problem| ApiError::field("filter", problem))?;
        let order = parse_order(&request.order_by)
            .ok_or_else(|| ApiError::field("order_by", "must be `create_time` or `create_time desc`"))?;
        let mut listing = format!("{kind:?} {}", filter.describe());
        if order == Order::NewestFirst {
            listing += " newest first";
        }
        let after = match request.page_token.as_str() {
            "" => None,
            token => {
                let cursor = page_token::open(&settings.secrets, now, network, &listing, token);
                let problem = "is not one that this listing gave; start again without it";
                Some(cursor.ok_or_else(|| ApiError::field("page_token", problem))?)
            }
        };
        let size = match request.page_size {
            0 => DEFAULT_PAGE,
            size => size.min(MAX_PAGE),
        };
        let request = PageRequest { filter: filter.resolve(settings, now), order, after, size };
        let page = self.store.list_keys(network, kind, request, now).await.map_err(unavailable)?;
        let next_page_token = match page.keys.last().filter(|_| page.more) {
            Some(last) => {
                let cursor = Cursor { created: last.created, key_id: last.id.to_string() };
                page_token::seal(&settings.secrets, &self.rng, network, &listing, &cursor)
            }
            None => String::new(),
        };
        let keys = page.keys.into_iter().map(|key| key.with_last_use_until(now)).collect();
        Ok(Listed { keys, next_page_token })
    }
}

/// Parses an order. Spaces around its parts don't matter, as AIP-132 says.
fn parse_order(text: &str) -> Option<Order> {
    match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        [] | ["create_time"] => Some(Order::OldestFirst),
        ["create_time", "desc"] => Some(Order::NewestFirst),
        _ => None,
    }
}
