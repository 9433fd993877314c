//! Pages of lists.

use serde_json::Value;

use super::exit::Failure;

/// Returns the token of the page after `page`, whose own is `token`; `None` after the last one.
///
/// # Errors
/// Fails if it is that of the page itself: the list would have no end.
pub(super) fn next_page(page: &Value, token: &str) -> Result<Option<String>, Failure> {
    match page["next_page_token"].as_str().unwrap_or_default() {
        "" => Ok(None),
        next if next == token => Err(Failure::failed("the server returned the same next_page_token twice")),
        next => Ok(Some(next.to_owned())),
    }
}
