//! `--rate-limit`: one of several limits of a key.

use serde_json::{Value, json};

use crate::cli::input::duration;

/// Form of the option's value, for errors.
const FORM: &str = "expected NAME=QUOTA/WINDOW such as burst=10/1s, then ,actor or ,envoy if wanted";

/// A limit with a name; `None` for an empty text, which stands for no limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RateLimit(Option<Value>);

impl RateLimit {
    /// Parses `NAME=QUOTA/WINDOW[,actor|,envoy]`.
    ///
    /// # Errors
    /// Fails if the text has another form. The server checks the values.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let mut parts = text.split(',');
        let limit = parts.next().unwrap_or_default();
        let (name, limit) = limit.split_once('=').ok_or(FORM)?;
        let (quota, window) = limit.split_once('/').ok_or(FORM)?;
        let quota: u64 = quota.parse().map_err(|_| FORM)?;
        let window = duration(window).map_err(|error| format!("{error}; {FORM}"))?;
        let mut policy = json!({ "name": name, "quota": quota.to_string(), "window": window });
        for part in parts {
            match part {
                "actor" => policy["scope"] = "ACTOR".into(),
                "envoy" => policy["enforce"] = "ENVOY".into(),
                _ => return Err(FORM.to_owned()),
            }
        }
        Ok(Self(Some(policy)))
    }

    /// Returns the limits as the API takes them; `None` if there are none.
    pub(super) fn list(limits: &[Self]) -> Option<Value> {
        let limits: Vec<&Value> = limits.iter().filter_map(|limit| limit.0.as_ref()).collect();
        (!limits.is_empty()).then(|| json!(limits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_name_a_quota_and_a_window() {
        let parsed = |text: &str| RateLimit::parse(text).map(|limit| limit.0);
        assert_eq!(
            parsed("day=1000/24h,actor").unwrap().unwrap(),
            json!({ "name": "day", "quota": "1000", "window": duration("24h").unwrap(), "scope": "ACTOR" })
        );
        assert_eq!(parsed("edge=5/60s,envoy").unwrap().unwrap()["enforce"], "ENVOY");
        assert_eq!(parsed(""), Ok(None));
        for bad in ["burst", "burst=10", "burst=x/1s", "burst=-1/1s", "burst=1/soon", "burst=1/1s,both"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
