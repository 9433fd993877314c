//! Values that several requests have.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::duration;
use crate::error::ApiError;
use crate::key::FieldError;

/// Names the field of an error.
pub(super) fn field<T>(name: &'static str, value: Result<T, FieldError>) -> Result<T, ApiError> {
    value.map_err(|FieldError(problem)| match problem.starts_with(['[', '.']) {
        // `[3] must be …` is about an item of a list, `.a must be …` about a member.
        true => {
            let (item, problem) = problem.split_once(' ').unwrap_or((&problem, ""));
            ApiError::field(format!("{name}{item}"), problem)
        }
        false => ApiError::field(name, problem),
    })
}

/// Parses a duration. Unset and zero mean the default.
pub(super) fn span(name: &'static str, text: Option<&str>) -> Result<Option<Duration>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let span = duration::parse(text).map_err(|error| ApiError::field(name, error))?;
    Ok(Some(span).filter(|span| !span.is_zero()))
}

/// Deserialises a 64-bit integer from a string or a number.
pub(super) fn int64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
    }
    let problem = || serde::de::Error::custom("expected a 64-bit integer");
    match Option::<Either>::deserialize(deserializer).map_err(|_| problem())? {
        None => Ok(None),
        Some(Either::Number(number)) => Ok(Some(number)),
        Some(Either::Text(text)) => text.parse().map(Some).map_err(|_| problem()),
    }
}
