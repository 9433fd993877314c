//! `list` of issued and imported keys: one page, or all pages as one list.

use clap::Args;
use serde_json::Value;

use super::selection::{Selection, Sorting};
use super::view;
use crate::cli::client::{Client, JsonBody, Request};
use crate::cli::exit::Failure;
use crate::cli::output::Output;
use crate::cli::pages::next_page;

/// Largest page size of the API.
pub(super) const MAX_PAGE_SIZE: u32 = 1000;

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    sorting: Sorting,
    /// Count the keys of the list as well (total_size), if that is cheap
    #[arg(long, conflicts_with = "all")]
    total: bool,
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
        let mut next = next_page(&body.value, self.page_token.as_deref().unwrap_or_default())?;
        if self.all {
            let mut keys = take_list(&mut body.value, field);
            while let Some(token) = next {
                let mut page = self.page(client, path, Some(&token)).await?;
                next = next_page(&page.value, &token)?;
                keys.append(&mut take_list(&mut page.value, field));
            }
            body = JsonBody::from(serde_json::json!({ (field): keys, "next_page_token": "" }));
        }
        let total = body.value["total_size"].as_u64();
        let is_estimate = body.value["total_size_is_estimate"] == true;
        output.print(&view::keys(body, field))?;
        if self.total && output.is_table() {
            output.note(&match (total, is_estimate) {
                (Some(total), false) => format!("{total} keys in all"),
                (Some(total), true) => format!("about {total} keys in all, or more"),
                (None, _) => "counting these keys would take long".to_owned(),
            });
        }
        if let Some(token) = next.filter(|_| output.is_table()) {
            output.note(&format!("There are more keys: use --all, or --page-token {token}"));
        }
        Ok(())
    }

    async fn page(&self, client: &Client, path: &str, token: Option<&str>) -> Result<JsonBody, Failure> {
        let size = self.page_size.or(self.all.then_some(MAX_PAGE_SIZE));
        let mut request = self.selection.apply(page(path, size, token));
        if let Some(order) = &self.sorting.order_by {
            request = request.query("order_by", order.clone());
        }
        if self.total {
            request = request.query("total", "true");
        }
        Ok(client.send(request).await?)
    }
}

/// Returns the request for a page of the collection at `path`.
pub(super) fn page(path: &str, size: Option<u32>, token: Option<&str>) -> Request {
    let mut request = Request::get(path).expect(&["issued_api_keys", "imported_api_keys", "next_page_token"]);
    if let Some(size) = size {
        request = request.query("page_size", size.to_string());
    }
    if let Some(token) = token {
        request = request.query("page_token", token);
    }
    request
}

pub(super) fn take_list(page: &mut Value, field: &str) -> Vec<Value> {
    match page.get_mut(field).map(Value::take) {
        Some(Value::Array(keys)) => keys,
        _ => vec![],
    }
}
