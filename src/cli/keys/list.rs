//! `list` of either kind: one page, or all of them as one list.

use clap::Args;
use serde_json::Value;

use super::view;
use crate::cli::client::{Answer, Client, Request};
use crate::cli::exit::Failure;
use crate::cli::input::status;
use crate::cli::output::Output;

/// The largest page that the API gives.
const LARGEST_PAGE: u32 = 1000;

#[derive(Args)]
pub struct List {
    /// Only keys of this actor
    #[arg(long, value_name = "ID", conflicts_with = "filter")]
    actor: Option<String>,
    /// Only keys that are active, revoked or expired
    #[arg(long, value_parser = status, conflicts_with = "filter")]
    status: Option<&'static str>,
    /// Only keys of which this is true, such as 'actor_id = "a" AND status = KEY_STATUS_ACTIVE'
    #[arg(long, value_name = "AIP-160")]
    filter: Option<String>,
    /// Keys a page [default: 50, with --all 1000; at most 1000]
    #[arg(long, value_name = "N")]
    page_size: Option<u32>,
    /// Go on where another page ended, with the next_page_token of that page
    #[arg(long, value_name = "TOKEN")]
    page_token: Option<String>,
    /// All pages, as one list
    #[arg(long)]
    all: bool,
}

impl List {
    /// Runs it. `field` is the name of the list in the answer.
    ///
    /// # Errors
    /// As any command's.
    pub async fn run(
        self,
        client: &Client,
        output: &Output,
        path: &str,
        field: &'static str,
    ) -> Result<(), Failure> {
        let mut answer = self.page(client, path, self.page_token.as_deref()).await?;
        let mut token = next(&answer.value).to_owned();
        if self.all {
            let mut keys = take(&mut answer.value, field);
            while !token.is_empty() {
                let mut page = self.page(client, path, Some(&token)).await?;
                let following = next(&page.value).to_owned();
                if following == token {
                    return Err(Failure::failed("the server's pages have no end: a token leads to itself"));
                }
                keys.append(&mut take(&mut page.value, field));
                token = following;
            }
            answer = Answer::from(serde_json::json!({ (field): keys, "next_page_token": "" }));
        }
        output.print(&view::keys(answer, field))?;
        if !token.is_empty() && output.is_table() {
            output.tell(&format!("There are more: --all, or --page-token {token}"));
        }
        Ok(())
    }

    async fn page(&self, client: &Client, path: &str, token: Option<&str>) -> Result<Answer, Failure> {
        let mut request = Request::get(path);
        if let Some(size) = self.page_size.or(self.all.then_some(LARGEST_PAGE)) {
            request = request.query("page_size", size.to_string());
        }
        if let Some(token) = token {
            request = request.query("page_token", token);
        }
        if let Some(filter) = self.filter() {
            request = request.query("filter", filter);
        }
        Ok(client.send(request).await?)
    }

    fn filter(&self) -> Option<String> {
        let actor = self.actor.as_ref().map(|actor| {
            let quoted = actor.replace('\\', r"\\").replace('"', "\\\"");
            format!("actor_id = \"{quoted}\"")
        });
        let status = self.status.map(|status| format!("status = {status}"));
        let parts: Vec<String> = self.filter.clone().into_iter().chain(actor).chain(status).collect();
        (!parts.is_empty()).then(|| parts.join(" AND "))
    }
}

fn next(page: &Value) -> &str {
    page["next_page_token"].as_str().unwrap_or_default()
}

fn take(page: &mut Value, field: &str) -> Vec<Value> {
    match page.get_mut(field).map(Value::take) {
        Some(Value::Array(keys)) => keys,
        _ => vec![],
    }
}
