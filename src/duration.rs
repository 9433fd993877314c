//! Durations in text: Go's `1h30m`, with `d`, `w`, `mo` and `y` as well, and protobuf's `3600s`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};

/// Largest duration, as in protobuf (10,000 years): added to a present time it doesn't overflow.
pub const MAX: Duration = Duration::from_secs(315_576_000_000);

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Nanoseconds per unit. All letters after a number are compared, so `m` never hides `mo` or `ms`.
const UNITS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000), // U+00B5, the micro sign
    ("μs", 1_000), // U+03BC, the Greek letter; Go takes both
    ("ms", 1_000_000),
    ("s", NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("h", 3_600 * NANOS_PER_SECOND),
    ("d", 86_400 * NANOS_PER_SECOND),
    ("w", 7 * 86_400 * NANOS_PER_SECOND),
    ("mo", 30 * 86_400 * NANOS_PER_SECOND),
    ("y", 365 * 86_400 * NANOS_PER_SECOND),
];

/// Reason why a text is not a duration. Messages name what was expected and never the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text is empty or blank.
    #[error("a duration is empty; write one such as 1h30m")]
    Empty,
    /// The text has a leading `+` or `-`.
    #[error("a duration has no sign; write one such as 1h30m")]
    Signed,
    /// A unit has no number before it.
    #[error("a duration needs a number before its unit, such as 1h30m")]
    NoNumber,
    /// A number other than a lone `0` has no unit.
    #[error("a duration needs a unit after its number: ns, us, ms, s, m, h, d, w, mo or y")]
    NoUnit,
    /// A unit is unknown.
    #[error("unknown unit in a duration; known are ns, us, ms, s, m, h, d, w, mo and y")]
    UnknownUnit,
    /// The duration is longer than [`MAX`].
    #[error("a duration is at most 315576000000s")]
    TooLong,
}

/// Parses a duration: pairs of number and unit, with or without spaces between them, or a lone `0`.
/// Accepts fractions (`1.5h`); truncates to nanoseconds.
///
/// # Errors
/// [`DurationError`] for signs, exponents, unknown units, a missing number or unit, and anything
/// above [`MAX`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    if rest.starts_with(['+', '-']) {
        return Err(DurationError::Signed);
    }
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (part, after) = parse_part(rest)?;
        nanos = nanos.checked_add(part).ok_or(DurationError::TooLong)?;
        // Checked for each part, so that no text is long enough to overflow the sum.
        if nanos > MAX.as_nanos() {
            return Err(DurationError::TooLong);
        }
        rest = after.trim_start();
    }
    let seconds = u64::try_from(nanos / NANOS_PER_SECOND).map_err(|_| DurationError::TooLong)?;
    let fraction = u32::try_from(nanos % NANOS_PER_SECOND).map_err(|_| DurationError::TooLong)?;
    Ok(Duration::new(seconds, fraction))
}

/// Parses one number with its unit; returns nanoseconds and the rest of the text.
fn parse_part(text: &str) -> Result<(u128, &str), DurationError> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => split_digits(after),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::NoNumber);
    }
    let unit_end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    if unit.is_empty() {
        return Err(DurationError::NoUnit);
    }
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(DurationError::UnknownUnit)?;
    let whole = digits_value(whole)?.checked_mul(*scale).ok_or(DurationError::TooLong)?;
    // 18 digits are precise to a nanosecond even for years, and their product fits.
    let fraction = &fraction[..fraction.len().min(18)];
    let below = digits_value(fraction)? * scale / 10_u128.pow(fraction.len() as u32);
    let nanos = whole.checked_add(below).ok_or(DurationError::TooLong)?;
    Ok((nanos, rest))
}

/// Splits off the ASCII digits at the start of `text`.
fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Returns the value of ASCII digits; of the empty text, zero.
fn digits_value(digits: &str) -> Result<u128, DurationError> {
    if digits.is_empty() { Ok(0) } else { digits.parse().map_err(|_| DurationError::TooLong) }
}

/// Formats as in protobuf's JSON: seconds, with 3, 6 or 9 fractional digits if any.
pub fn to_proto(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.subsec_nanos() {
        0 => format!("{seconds}s"),
        nanos if nanos % 1_000_000 == 0 => format!("{seconds}.{:03}s", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!("{seconds}.{:06}s", nanos / 1_000),
        nanos => format!("{seconds}.{nanos:09}s"),
    }
}

/// Formats in Go's shortest form: `5m`, `1h30m`, `10ms`, `0s`.
pub fn to_text(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for unit in ["h", "m", "s", "ms", "us", "ns"] {
        let scale = UNITS.iter().find(|(name, _)| *name == unit).map_or(1, |(_, scale)| *scale);
        if rest >= scale {
            text.push_str(&format!("{}{unit}", rest / scale));
            rest %= scale;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Deserializes a setting: a text that [`parse`] accepts, or the number 0.
///
/// # Errors
/// The texts of [`DurationError`]; any number other than 0, since it has no unit.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(DurationVisitor)
}

/// Deserializes a setting that may be unset.
///
/// # Errors
/// As [`deserialize`].
pub fn deserialize_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    deserializer.deserialize_option(OptionVisitor)
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 1h30m")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
        if number == 0 { Ok(Duration::ZERO) } else { Err(E::custom(DurationError::NoUnit)) }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
        if number == 0 { Ok(Duration::ZERO) } else { Err(E::custom(DurationError::NoUnit)) }
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Duration, E> {
        Err(E::custom(DurationError::NoUnit))
    }
}

struct OptionVisitor;

impl<'de> Visitor<'de> for OptionVisitor {
    type Value = Option<Duration>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 1h30m")
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_texts() {
        let table: &[(&str, Duration)] = &[
            ("0", Duration::ZERO),
            ("0s", Duration::ZERO),
            ("1ns", Duration::from_nanos(1)),
            ("100us", Duration::from_micros(100)),
            ("100µs", Duration::from_micros(100)),
            ("100μs", Duration::from_micros(100)),
            ("250ms", Duration::from_millis(250)),
            ("5m", Duration::from_secs(300)),
            ("1.5h", Duration::from_secs(5_400)),
            (".5s", Duration::from_millis(500)),
            ("1.s", Duration::from_secs(1)),
            ("1h30m", Duration::from_secs(5_400)),
            ("1h30m0.5s", Duration::from_millis(5_400_500)),
            ("8760h", Duration::from_secs(8_760 * 3_600)),
            ("3600s", Duration::from_secs(3_600)),
            ("1.000000001s", Duration::new(1, 1)),
            ("1.0000000019s", Duration::new(1, 1)),
            ("0.7ns", Duration::ZERO),
            ("1d", Duration::from_secs(86_400)),
            ("1w", Duration::from_secs(604_800)),
            ("1mo", Duration::from_secs(30 * 86_400)),
            ("1y", Duration::from_secs(365 * 86_400)),
            ("1y6mo", Duration::from_secs((365 + 180) * 86_400)),
            ("1d 12h", Duration::from_secs(36 * 3_600)),
            ("  1m  ", Duration::from_secs(60)),
            ("0.1d", Duration::from_secs(8_640)),
            ("0.999999999999d", Duration::new(86_399, 999_999_913)),
            ("0.3333333333333333333333333s", Duration::new(0, 333_333_333)),
            ("315576000000s", MAX),
        ];
        for (text, duration) in table {
            assert_eq!(parse(text), Ok(*duration), "{text}");
        }
    }

    #[test]
    fn bad_texts() {
        use DurationError::*;
        let table = [
            ("", Empty),
            ("   ", Empty),
            ("-1s", Signed),
            ("+1s", Signed),
            ("s", NoNumber),
            (".s", NoNumber),
            ("1h-5m", NoNumber),
            ("1s,", NoNumber),
            ("5", NoUnit),
            ("00", NoUnit),
            ("1h30", NoUnit),
            ("1 h", NoUnit),
            ("1e3s", UnknownUnit),
            ("1H", UnknownUnit),
            ("1mos", UnknownUnit),
            ("1minute", UnknownUnit),
            ("315576000001s", TooLong),
            ("99999999999999999999y", TooLong),
            ("340282366920938463463374607431768211455ns", TooLong),
            ("999999999999999999999999999999999999999999s", TooLong),
        ];
        for (text, error) in table {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn protobuf_form() {
        let table = [
            (Duration::from_secs(3_600), "3600s"),
            (Duration::ZERO, "0s"),
            (Duration::from_millis(1_500), "1.500s"),
            (Duration::from_micros(1), "0.000001s"),
            (Duration::from_nanos(1), "0.000000001s"),
        ];
        for (duration, text) in table {
            assert_eq!(to_proto(duration), text);
        }
    }

    #[test]
    fn short_form() {
        let table = [
            (Duration::ZERO, "0s"),
            (Duration::from_secs(300), "5m"),
            (Duration::from_secs(5_400), "1h30m"),
            (Duration::from_secs(8_760 * 3_600), "8760h"),
            (Duration::from_millis(10), "10ms"),
            (Duration::new(1, 1), "1s1ns"),
        ];
        for (duration, text) in table {
            assert_eq!(to_text(duration), text);
        }
    }

    #[test]
    fn numbers_in_files() {
        for (json, ok) in [("0", true), ("0.0", false), ("5", false), ("-1", false), ("\"5m\"", true)] {
            let mut deserializer = serde_json::Deserializer::from_str(json);
            assert_eq!(deserialize(&mut deserializer).is_ok(), ok, "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_safe(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn likely_text_is_safe(text in "[0-9.hmsudnwyo µ]{0,60}") {
            if let Ok(duration) = parse(&text) {
                prop_assert!(duration <= MAX);
            }
        }

        #[test]
        fn protobuf_round_trip(seconds in 0..MAX.as_secs(), nanos in 0..1_000_000_000_u32) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&to_proto(duration)), Ok(duration));
            prop_assert_eq!(parse(&to_text(duration)), Ok(duration));
        }

        #[test]
        fn compound_round_trip(y in 0..100_u64, mo in 0..50_u64, d in 0..50_u64, h in 0..50_u64, ms in 0..5_000_u64) {
            let expected = Duration::from_millis(
                (((y * 365 + mo * 30 + d) * 24) + h) * 3_600_000 + ms,
            );
            prop_assert_eq!(parse(&format!("{y}y{mo}mo{d}d{h}h{ms}ms")), Ok(expected));
            prop_assert_eq!(parse(&format!("{y}y {mo}mo {d}d {h}h {ms}ms")), Ok(expected));
        }
    }
}
