//! Reports of usage.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::own_key::OwnKeyOut;
use super::query::{page_size, parameters};
use super::state::set_time;
use crate::clock::Timestamp;
use crate::error::ApiError;
use crate::service::usage::{KeyUsage, SelfUsage, UsageReport, UsageRequest, UsageSum, parse_groups};

/// Number of Checks of one group. Attributes by which nothing was grouped are absent, and so is
/// what a Check doesn't have, such as a known key.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UsageRow")]
pub(crate) struct UsageRowOut {
    /// Start of the hour or day.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    start_time: Option<String>,
    /// `allow`, or the reason of the refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    /// Name of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    /// Id of the key. `other` stands for keys beyond `usage.max_rows`.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    /// Actor of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_id: Option<String>,
    /// Number of Checks.
    count: u64,
    /// First use of the key that was counted, if grouped by key, and not by time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    first_used_time: Option<String>,
    /// Last use of the key, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    last_used_time: Option<String>,
    /// Address of the client of the last use.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_address: Option<String>,
}

/// Usage of the keys of a network.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GetUsageResponse")]
pub(crate) struct UsageOut {
    /// Start of the first hour that is counted.
    #[schemars(extend("format" = "date-time"))]
    start_time: String,
    /// Hours that begin before this time are counted.
    #[schemars(extend("format" = "date-time"))]
    end_time: String,
    /// Numbers, the largest first within each hour or day.
    rows: Vec<UsageRowOut>,
    /// Token of the next page; empty on the last one.
    next_page_token: String,
}

/// Usage of one key, for its holder.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GetSelfUsageResponse")]
pub(crate) struct SelfUsageOut {
    /// Id of the key.
    key_id: String,
    /// The key itself.
    key: OwnKeyOut,
    /// First use that was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    first_used_time: Option<String>,
    /// Last use, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    last_used_time: Option<String>,
    /// Address of the client of the last use.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_address: Option<String>,
    /// Start of the first hour that is counted.
    #[schemars(extend("format" = "date-time"))]
    start_time: String,
    /// Hours that begin before this time are counted.
    #[schemars(extend("format" = "date-time"))]
    end_time: String,
    /// Numbers, the largest first within each hour or day.
    rows: Vec<UsageRowOut>,
    /// Token of the next page; empty on the last one.
    next_page_token: String,
}

impl UsageRowOut {
    fn new(sum: &UsageSum, uses: &HashMap<String, KeyUsage>) -> Self {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let used = match (&sum.at, &sum.key) {
            (None, Some(key)) => uses.get(key),
            _ => None,
        };
        Self {
            start_time: sum.at.map(Timestamp::to_rfc3339),
            outcome: set(&sum.outcome),
            route: set(&sum.route),
            key_id: set(&sum.key),
            actor_id: set(&sum.actor),
            count: sum.count,
            first_used_time: used.map(|used| used.first.to_rfc3339()),
            last_used_time: used.map(|used| used.last.to_rfc3339()),
            last_used_address: used.and_then(|used| used.address).map(|address| address.to_string()),
        }
    }
}

impl From<UsageReport> for UsageOut {
    fn from(report: UsageReport) -> Self {
        Self {
            start_time: report.start.to_rfc3339(),
            end_time: report.end.to_rfc3339(),
            rows: report.sums.iter().map(|sum| UsageRowOut::new(sum, &report.uses)).collect(),
            next_page_token: report.next_page_token,
        }
    }
}

impl SelfUsageOut {
    /// Adds what the settings keep the key from.
    pub(crate) fn with_warnings(mut self, warnings: Vec<&'static str>) -> Self {
        self.key.warnings = warnings;
        self
    }
}

impl From<SelfUsage> for SelfUsageOut {
    fn from(SelfUsage { key, report }: SelfUsage) -> Self {
        let key_id = key.id.to_string();
        let used = report.uses.get(&key_id).copied();
        let UsageOut { start_time, end_time, rows, next_page_token } = report.into();
        Self {
            key_id,
            key: OwnKeyOut::from(key.as_ref()),
            first_used_time: used.map(|used| used.first.to_rfc3339()),
            last_used_time: used.map(|used| used.last.to_rfc3339()),
            last_used_address: used.and_then(|used| used.address).map(|address| address.to_string()),
            start_time,
            end_time,
            rows,
            next_page_token,
        }
    }
}

/// Parses the query of a report. With `is_of_one_key`, it has no filter.
pub(crate) fn usage_request(
    pairs: Vec<(String, String)>,
    is_of_one_key: bool,
) -> Result<UsageRequest, ApiError> {
    let mut request = UsageRequest::default();
    parameters(pairs, |name, value| {
        match name {
            "page_token" => request.page_token = value,
            "filter" if !is_of_one_key => request.filter = value,
            "group_by" => {
                request.groups =
                    parse_groups(&value).map_err(|problem| ApiError::field("group_by", problem))?;
            }
            "start_time" => request.start = Some(set_time("start_time", &value)?),
            "end_time" => request.end = Some(set_time("end_time", &value)?),
            "page_size" => request.page_size = page_size(&value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(request)
}
