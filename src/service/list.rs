//! Listing keys, page by page.

use super::{Service, filter, unavailable};
use crate::credential::page_token::{self, Cursor};
use crate::error::ApiError;
use crate::key::{Key, KeyKind};
use crate::settings::Settings;

/// Keys on a page when the request doesn't say.
pub const DEFAULT_PAGE: u32 = 50;
/// Most keys on a page.
pub const MAX_PAGE: u32 = 1_000;

/// Which page of which keys.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Keys on a page; 0 means the default, and no page has more than 1,000.
    pub page_size: u32,
    /// Where the last page ended; empty for the first.
    pub page_token: String,
    /// AIP-160 over `actor_id` and `status`.
    pub filter: String,
}

/// A page.
#[derive(Debug)]
pub struct Listed {
    /// Its keys.
    pub keys: Vec<Key>,
    /// Where it ends; empty on the last.
    pub next_page_token: String,
}

impl Service {
    /// Lists the keys of one kind.
    ///
    /// # Errors
    /// When filter or page token can't be used, or the database fails.
    pub async fn list(
        &self,
        settings: &Settings,
        kind: KeyKind,
        request: ListRequest,
    ) -> Result<Listed, ApiError> {
        let (network, now) = (settings.network, self.clock.now());
        let filter = filter::parse(&request.filter).map_err(|problem| ApiError::field("filter", problem))?;
        let listing = format!("{kind:?} {filter:?}");
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
        let page =
            self.store.list_keys(network, kind, filter, after, size, now).await.map_err(unavailable)?;
        let next_page_token = match page.keys.last().filter(|_| page.more) {
            Some(last) => {
                let cursor = Cursor { created: last.created, key_id: last.id.to_string() };
                page_token::seal(&settings.secrets, &self.rng, network, &listing, &cursor)
            }
            None => String::new(),
        };
        Ok(Listed { keys: page.keys, next_page_token })
    }
}
