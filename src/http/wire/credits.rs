//! Credits of a key, in requests and responses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalars::int64;
use crate::error::ApiError;
use crate::http::body::object;
use crate::key::{CreditBalance, FieldError, Refill, RefillInterval, RefillSchedule};

/// Credits that uses of a key cost, one each or what the route says.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Credits")]
pub(super) struct CreditsBody {
    /// Credits that are left: 0 to 1000000000000000. If unset, the amount of the refill.
    #[serde(default, deserialize_with = "int64")]
    #[schemars(with = "Option<String>", extend("format" = "int64"))]
    remaining: Option<i64>,
    #[serde(default, deserialize_with = "object")]
    refill: Option<RefillBody>,
}

/// Refill of credits: it fills them up to an amount. What is above that stays.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CreditsRefill")]
pub(super) struct RefillBody {
    /// Credits that there are at least after it: 1 to 1000000000000000. Required.
    #[serde(default, deserialize_with = "int64")]
    #[schemars(required, with = "Option<String>", extend("format" = "int64"))]
    amount: Option<i64>,
    /// The interval: `day`, `week` or `month`. Required.
    #[schemars(required)]
    every: Option<String>,
    /// The time in UTC: `03:00` every day, `mon 03:00` every week, `1 03:00` every month, in which
    /// the last day stands for one that the month lacks. The default is the first midnight. An
    /// RFC 3339 time stands for its time of day, weekday or day of the month.
    at: Option<String>,
}

/// Credits of a key, in a response.
#[derive(Serialize)]
pub(super) struct CreditsOut {
    remaining: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refill: Option<RefillOut>,
}

#[derive(Serialize)]
struct RefillOut {
    amount: String,
    every: &'static str,
    at: String,
}

impl From<CreditBalance> for CreditsOut {
    fn from(balance: CreditBalance) -> Self {
        let refill = balance.refill.map(|Refill { amount, schedule }| RefillOut {
            amount: amount.to_string(),
            every: schedule.every().name(),
            at: schedule.to_string(),
        });
        Self { remaining: balance.remaining.to_string(), refill }
    }
}

/// Parses the credits of a new or changed key. Without a value in them, there are none.
pub(super) fn credits(body: CreditsBody) -> Result<Option<CreditBalance>, ApiError> {
    let refill = body.refill.map(refill).transpose()?.flatten();
    let remaining = match (body.remaining, refill) {
        (None, None) => return Ok(None),
        (None, Some(refill)) => refill.amount,
        (Some(remaining), _) => refused("credits.remaining", CreditBalance::check_remaining(remaining))?,
    };
    Ok(Some(CreditBalance { remaining, refill, due: None }))
}

fn refill(body: RefillBody) -> Result<Option<Refill>, ApiError> {
    let RefillBody { amount, every, at } = body;
    let every = every.filter(|every| !every.is_empty());
    if amount.is_none() && every.is_none() && at.is_none() {
        return Ok(None);
    }
    let amount = refused("credits.refill.amount", Refill::check_amount(amount.unwrap_or_default()))?;
    let every = every.as_deref().and_then(RefillInterval::from_name);
    let every = every.ok_or_else(|| ApiError::field("credits.refill.every", "must be day, week or month"))?;
    let schedule = RefillSchedule::parse(every, at.as_deref().unwrap_or_default());
    Ok(Some(Refill { amount, schedule: refused("credits.refill.at", schedule)? }))
}

fn refused<T>(field: &'static str, value: Result<T, FieldError>) -> Result<T, ApiError> {
    value.map_err(|FieldError(problem)| ApiError::field(field, problem))
}
