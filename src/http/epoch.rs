//! Reading one's own changes: a change says its number, and who has that number is answered from knowledge as new.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

use crate::error::ApiError;

/// The number of the change that was made.
const EPOCH: HeaderName = HeaderName::from_static("talos-epoch");
/// The number of a change that an answer has to know of.
const MIN_EPOCH: &str = "talos-min-epoch";

/// The answer to a change, with the change's number.
pub fn with_epoch(mut response: Response, epoch: Option<u64>) -> Response {
    if let Some(epoch) = epoch {
        response.headers_mut().insert(EPOCH, HeaderValue::from(epoch));
    }
    response
}

/// The number of the change that the request's answer has to know of; 0 when it names none.
///
/// # Errors
/// When the header isn't one number.
pub fn min_epoch(headers: &HeaderMap) -> Result<u64, ApiError> {
    let mut values = headers.get_all(MIN_EPOCH).iter();
    let Some(value) = values.next() else {
        return Ok(0);
    };
    // Digits alone: `parse` would take a sign as well.
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match (digits.and_then(|digits| digits.parse().ok()), values.next()) {
        (Some(epoch), None) => Ok(epoch),
        _ => Err(ApiError::field("Talos-Min-Epoch", "must be the number of one Talos-Epoch header")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_nothing() {
        let read = |values: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(MIN_EPOCH, HeaderValue::from_bytes(value).unwrap());
            }
            min_epoch(&headers).map_err(|error| error.message.into_owned())
        };
        assert_eq!(read(&[]), Ok(0));
        assert_eq!(read(&[b"0"]), Ok(0));
        assert_eq!(read(&[b"18446744073709551615"]), Ok(u64::MAX));
        for wrong in [
            &[b"" as &[u8]] as &[&[u8]],
            &[b"x"],
            &[b"-1"],
            &[b"+1"],
            &[b"1.0"],
            &[b"1,2"],
            &[b"0x10"],
            &[b"18446744073709551616"],
            &[b"\xff"],
            &[b"1", b"2"],
        ] {
            let message = read(wrong).unwrap_err();
            assert!(message.starts_with("Talos-Min-Epoch: "), "{wrong:?}: {message}");
        }
    }
}
