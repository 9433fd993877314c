//! Tools of all modules: failing with a sentence, waiting with a deadline, reading JSON, times and
//! tokens.

use std::fmt::Display;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

/// Time after which a test gives up waiting. Generous: the machine may be building something beside
/// us.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// `unwrap` with a message that says what was being done.
pub trait Must<T> {
    fn must(self, what: &str) -> T;
}

impl<T, E: Display> Must<T> for Result<T, E> {
    #[track_caller]
    fn must(self, what: &str) -> T {
        match self {
            Ok(value) => value,
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

impl<T> Must<T> for Option<T> {
    #[track_caller]
    fn must(self, what: &str) -> T {
        match self {
            Some(value) => value,
            None => panic!("{what}: nothing there"),
        }
    }
}

/// Returns a number, which a variable of the environment may change for long runs.
pub fn number_from(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().must(variable))
}

/// Asks `probe` again and again until it answers `Some`; gives up with `what` after [`TIMEOUT`].
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs a future with a deadline.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, work).await.must(what)
}

/// Reads a JSON document by pointer, and fails with the whole of it.
pub trait Json {
    fn at(&self, pointer: &str) -> &Value;
    fn text(&self, pointer: &str) -> &str;
    fn texts(&self, pointer: &str) -> Vec<&str>;
}

impl Json for Value {
    #[track_caller]
    fn at(&self, pointer: &str) -> &Value {
        match self.pointer(pointer) {
            Some(value) => value,
            None => panic!("no {pointer} in {self:#}"),
        }
    }

    #[track_caller]
    fn text(&self, pointer: &str) -> &str {
        match self.at(pointer).as_str() {
            Some(text) => text,
            None => panic!("{pointer} is not a string in {self:#}"),
        }
    }

    #[track_caller]
    fn texts(&self, pointer: &str) -> Vec<&str> {
        match self.at(pointer) {
            Value::Array(items) => items.iter().map(|item| item.as_str().must(pointer)).collect(),
            _ => panic!("{pointer} is not a list in {self:#}"),
        }
    }
}

/// Fails if `null` stands anywhere in an answer.
#[track_caller]
pub fn assert_no_null(document: &Value) {
    fn has_null(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(items) => items.iter().any(has_null),
            Value::Object(fields) => fields.values().any(has_null),
            _ => false,
        }
    }
    assert!(!has_null(document), "null in an answer: {document:#}");
}

/// Returns the seconds since 1970, by the wall clock.
pub fn unix_now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).must("the clock").as_secs_f64()
}

/// Returns the seconds since 1970 of an RFC 3339 time in UTC.
#[track_caller]
pub fn unix_seconds(time: &str) -> f64 {
    let number = |part: &str| -> f64 { part.parse().must(time) };
    let (date, clock) = time.strip_suffix('Z').must(time).split_once('T').must(time);
    let date: Vec<f64> = date.split('-').map(number).collect();
    let clock: Vec<f64> = clock.split(':').map(number).collect();
    let ([year, month, day], [hour, minute, second]) = (&date[..], &clock[..]) else {
        panic!("not an RFC 3339 time: {time}");
    };
    // Days since 1970 of a date in the Gregorian calendar, its years beginning in March.
    let (year, month) = if *month > 2.0 { (*year, month - 3.0) } else { (year - 1.0, month + 9.0) };
    let leap_days = (year / 4.0).floor() - (year / 100.0).floor() + (year / 400.0).floor();
    let days = year * 365.0 + leap_days + ((153.0 * month + 2.0) / 5.0).floor() + day - 1.0 - 719_468.0;
    days * 86_400.0 + hour * 3_600.0 + minute * 60.0 + second
}

/// Returns the claims of a JWT, without any verification.
#[track_caller]
pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).must("a JWT has three parts");
    let bytes = base64url(payload).must("base64url in a JWT");
    serde_json::from_slice(&bytes).must("JSON in a JWT")
}

fn base64url(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bits = 0_u32;
    let mut held = 0;
    let mut bytes = Vec::new();
    for symbol in text.bytes() {
        let six = ALPHABET.iter().position(|known| *known == symbol)?;
        bits = bits << 6 | u32::try_from(six).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[test]
fn the_tools_of_the_tests_are_right() {
    assert_eq!(unix_seconds("1970-01-01T00:00:00Z"), 0.0);
    assert_eq!(unix_seconds("2026-04-17T05:45:37.5Z"), 1_776_404_737.5);
    assert_eq!(unix_seconds("2024-02-29T23:59:59Z"), 1_709_251_199.0);
    assert_eq!(base64url("eyJhIjoiYj8_In0").as_deref(), Some(&br#"{"a":"b??"}"#[..]));
}
