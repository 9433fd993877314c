//! Pages of keys: what is asked for, and what is found.

use super::filter::{Filter, NEVER_EXPIRES, NEVER_USED};
use crate::clock::Timestamp;
use crate::credential::page_token::Cursor;
use crate::key::Key;

/// Time by which keys are ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OrderBy {
    /// Creation.
    #[default]
    Created,
    /// Expiry. Keys that never expire are later than all others.
    Expires,
    /// Last use. Keys that were never used are earlier than all others.
    LastUsed,
}

/// Order of keys; the id decides between equal times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    /// Time by which they are ordered.
    pub by: OrderBy,
    /// True for descending.
    pub is_descending: bool,
}

/// Most keys that are examined for a page by each range that it reads: those that match one
/// condition, or those that follow in the order of the page.
pub const MAX_EXAMINED: u32 = 1_000;

/// Request for a page of keys.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Filter of the keys.
    pub filter: Filter,
    /// Order of the keys.
    pub order: Order,
    /// Position after which the page begins; `None` for the first page.
    pub after: Option<Cursor>,
    /// Maximum number of keys.
    pub size: u32,
    /// Maximum number of keys that are examined.
    pub max_examined: u32,
}

impl Default for PageRequest {
    fn default() -> Self {
        let (filter, order) = (Filter::default(), Order::default());
        Self { filter, order, after: None, size: 0, max_examined: MAX_EXAMINED }
    }
}

/// Page of keys.
#[derive(Debug)]
pub struct Page {
    /// The keys.
    pub keys: Vec<Key>,
    /// Position after which the next page begins; `None` on the last one.
    pub next: Option<Cursor>,
}

impl OrderBy {
    /// Returns the column.
    pub(super) const fn column(self) -> &'static str {
        match self {
            Self::Created => "created_at",
            Self::Expires => "expires_at",
            Self::LastUsed => "last_used_at",
        }
    }

    /// Returns the number that stands for no time; `None` if the column always has one.
    pub(super) const fn missing(self) -> Option<i64> {
        match self {
            Self::Created => None,
            Self::Expires => Some(NEVER_EXPIRES),
            Self::LastUsed => Some(NEVER_USED),
        }
    }

    /// Returns the position of a key.
    pub(super) fn position(self, key: &Key) -> Cursor {
        let time = match self {
            Self::Created => Some(key.created),
            Self::Expires => key.expires,
            Self::LastUsed => key.last_used,
        };
        let missing = || Timestamp::from_micros(self.missing().unwrap_or(NEVER_USED));
        Cursor { created: time.unwrap_or_else(missing), key_id: key.id.to_string() }
    }
}
