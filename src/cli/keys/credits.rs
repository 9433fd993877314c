//! `--credits` and `--credits-refill`: the credits of a key.

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cli::output::cell;

/// Form of a refill, for errors.
const FORM: &str =
    "expected AMOUNT/EVERY or AMOUNT/EVERY@AT, such as 100/day, 500/week@mon 03:00 or 1000/month@1 03:00";

/// Options for the credits of a key.
#[derive(Args)]
pub(super) struct CreditOptions {
    /// Credits that uses of the key cost; '' for none, so that uses cost nothing
    #[arg(long, value_name = "N", value_parser = remaining)]
    credits: Option<Remaining>,
    /// Refill of the credits up to an amount, in UTC: 100/day, 500/week@mon 03:00, 1000/month@1
    /// 03:00
    #[arg(long, value_name = "AMOUNT/EVERY[@AT]", value_parser = refill)]
    credits_refill: Option<Value>,
}

/// Number of credits; `None` for an empty text.
type Remaining = Option<u64>;

impl CreditOptions {
    /// Returns the credits as the API takes them; `Some(None)` for none, and `None` if no option
    /// is given.
    pub(super) fn value(&self) -> Option<Option<Value>> {
        let mut credits = Map::new();
        match self.credits {
            Some(None) => return Some(None),
            Some(Some(number)) => drop(credits.insert("remaining".to_owned(), number.to_string().into())),
            None => {}
        }
        credits.extend(self.credits_refill.clone().map(|refill| ("refill".to_owned(), refill)));
        (!credits.is_empty()).then_some(Some(Value::Object(credits)))
    }
}

fn remaining(text: &str) -> Result<Remaining, String> {
    match text {
        "" => Ok(None),
        number => number.parse().map(Some).map_err(|_| "expected a number, or '' for none".to_owned()),
    }
}

/// Parses `AMOUNT/EVERY[@AT]`. The server checks the values.
fn refill(text: &str) -> Result<Value, String> {
    let (amount, rest) = text.split_once('/').ok_or(FORM)?;
    let amount: u64 = amount.parse().map_err(|_| FORM)?;
    let (every, at) = rest.split_once('@').map_or((rest, None), |(every, at)| (every, Some(at)));
    if every.is_empty() {
        return Err(FORM.to_owned());
    }
    let mut refill = json!({ "amount": amount.to_string(), "every": every });
    if let Some(at) = at {
        refill["at"] = at.into();
    }
    Ok(refill)
}

/// Formats credits in words.
pub(super) fn in_words(credits: &Value) -> String {
    let left = cell(&credits["remaining"]);
    match credits.get("refill") {
        None => left,
        Some(refill) => {
            let [amount, every, at] = ["amount", "every", "at"].map(|name| cell(&refill[name]));
            format!("{left}, refilled up to {amount} every {every} at {at} UTC")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refill_is_an_amount_an_interval_and_a_time() {
        assert_eq!(refill("100/day").unwrap(), json!({ "amount": "100", "every": "day" }));
        let weekly = json!({ "amount": "5", "every": "week", "at": "mon 03:00" });
        assert_eq!(refill("5/week@mon 03:00").unwrap(), weekly);
        for bad in ["", "100", "/day", "x/day", "-1/day", "1/", "1/@03:00"] {
            assert!(refill(bad).is_err(), "{bad}");
        }
        assert_eq!((remaining(""), remaining("7")), (Ok(None), Ok(Some(7))));
        assert!(remaining("-7").is_err() && remaining("many").is_err());
        let shown = json!({ "remaining": "4", "refill": { "amount": "9", "every": "day", "at": "00:00" } });
        assert_eq!(in_words(&shown), "4, refilled up to 9 every day at 00:00 UTC");
    }
}
