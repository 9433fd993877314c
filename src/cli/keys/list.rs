//! `list` of issued and imported keys: one page, or all pages as one list.

use clap::Args;
use serde_json::Value;

use super::view;
use crate::cli::client::{Client, JsonBody, Request};
use crate::cli::exit::Failure;
use crate::cli::input::parse_status;
use crate::cli::output::Output;

/// Largest page size of the API.
pub(super) const MAX_PAGE_SIZE: u32 = 1000;

/// Options that select keys.
#[derive(Args, Default)]
pub(super) struct Selection {
    /// Only keys of this actor
    #[arg(long, value_name = "ID", conflicts_with = "filter")]
    actor: Option<String>,
    /// Only keys that are active, revoked or expired
    #[arg(long, value_parser = parse_status, conflicts_with = "filter")]
    status: Option<&'static str>,
    /// Only keys that need this HMAC secret: current, retired, unknown, or an id of `talos status`
    #[arg(long, value_name = "WHICH|ID", conflicts_with = "filter")]
    secret: Option<String>,
    /// Only keys with this prefix
    #[arg(long, conflicts_with = "filter")]
    prefix: Option<String>,
    /// Only keys that match a filter, such as 'actor_id = "a" AND status = KEY_STATUS_ACTIVE'
    #[arg(long, value_name = "AIP-160")]
    filter: Option<String>,
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    selection: Selection,
    /// Keys per page, at most 1000 [default: 50, with --all 1000]
    #[arg(long, value_name = "N")]
    page_size: Option<u32>,
    /// Continue after the page that returned this next_page_token
    // It is base64url, which may begin with `-`.
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    page_token: Option<String>,
    /// All pages, as one list
    #[arg(long)]
    all: bool,
}

impl List {
    /// Runs the command on the collection at `path`; `field` names the list in its responses.
    ///
    /// # Errors
    /// Fails when the arguments are invalid or a request fails.
    pub(super) async fn run(
        self,
        client: &Client,
        output: &Output,
        path: &str,
        field: &'static str,
    ) -> Result<(), Failure> {
        let mut body = self.page(client, path, self.page_token.as_deref()).await?;
        let mut token = next_page_token(&body.value).to_owned();
        if self.all {
            let mut keys = take_list(&mut body.value, field);
            while !token.is_empty() {
                let mut page = self.page(client, path, Some(&token)).await?;
                let following = next_page_token(&page.value).to_owned();
                if following == token {
                    return Err(repeated_token());
                }
                keys.append(&mut take_list(&mut page.value, field));
                token = following;
            }
            body = JsonBody::from(serde_json::json!({ (field): keys, "next_page_token": "" }));
        }
        output.print(&view::keys(body, field))?;
        if !token.is_empty() && output.is_table() {
            output.note(&format!("There are more keys: use --all, or --page-token {token}"));
        }
        Ok(())
    }

    async fn page(&self, client: &Client, path: &str, token: Option<&str>) -> Result<JsonBody, Failure> {
        let size = self.page_size.or(self.all.then_some(MAX_PAGE_SIZE));
        Ok(client.send(page(path, size, token, self.selection.filter())).await?)
    }
}

impl Selection {
    /// Returns the filter of the API; `None` if all keys are selected.
    pub(super) fn filter(&self) -> Option<String> {
        let equals = |name: &str, value: &String| {
            let quoted = value.replace('\\', r"\\").replace('"', "\\\"");
            format!("{name} = \"{quoted}\"")
        };
        let actor = self.actor.as_ref().map(|actor| equals("actor_id", actor));
        let secret = self.secret.as_ref().map(|secret| equals("secret_id", secret));
        let prefix = self.prefix.as_ref().map(|prefix| equals("key_prefix", prefix));
        let status = self.status.map(|status| format!("status = {status}"));
        let parts = self.filter.clone().into_iter().chain(actor).chain(status).chain(secret).chain(prefix);
        let parts: Vec<String> = parts.collect();
        (!parts.is_empty()).then(|| parts.join(" AND "))
    }
}

/// Returns the request for a page of the collection at `path`.
pub(super) fn page(path: &str, size: Option<u32>, token: Option<&str>, filter: Option<String>) -> Request {
    let mut request = Request::get(path);
    if let Some(size) = size {
        request = request.query("page_size", size.to_string());
    }
    if let Some(token) = token {
        request = request.query("page_token", token);
    }
    match filter {
        Some(filter) => request.query("filter", filter),
        None => request,
    }
}

/// Returns the failure of a list that would have no end.
pub(super) fn repeated_token() -> Failure {
    Failure::failed("the server returned the same next_page_token twice")
}

pub(super) fn next_page_token(page: &Value) -> &str {
    page["next_page_token"].as_str().unwrap_or_default()
}

pub(super) fn take_list(page: &mut Value, field: &str) -> Vec<Value> {
    match page.get_mut(field).map(Value::take) {
        Some(Value::Array(keys)) => keys,
        _ => vec![],
    }
}
