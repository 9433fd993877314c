//! Read-your-writes: a change returns its epoch, and verification takes a minimum epoch.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

use crate::error::ApiError;

/// Response header with the number of a change in the mutation log.
const EPOCH: HeaderName = HeaderName::from_static("talos-epoch");
/// Request header with the number of a change that must be known.
const MIN_EPOCH: &str = "talos-min-epoch";

/// Adds the number of the change to its response.
pub(super) fn with_epoch(mut response: Response, epoch: Option<u64>) -> Response {
    if let Some(epoch) = epoch {
        response.headers_mut().insert(EPOCH, HeaderValue::from(epoch));
    }
    response
}

/// Returns the minimum epoch of a request, 0 if it has none.
///
/// # Errors
/// Fails if the header is not one number.
pub(super) fn min_epoch(headers: &HeaderMap) -> Result<u64, ApiError> {
    let mut values = headers.get_all(MIN_EPOCH).iter();
    let Some(value) = values.next() else {
        return Ok(0);
    };
    // `parse` would accept a sign.
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
