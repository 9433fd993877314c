//! Decodes the fields of a CheckResponse that decide whether it is correct.

/// The decoded part of a CheckResponse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckResponse<'a> {
    /// `status.code`.
    pub code: u64,
    /// The encoded OkHttpResponse, if there is one.
    pub ok: Option<&'a [u8]>,
    /// The HTTP status of a DeniedHttpResponse.
    pub denied: Option<u64>,
}

impl<'a> CheckResponse<'a> {
    /// Decodes a message; returns none if it is invalid.
    pub(crate) fn decode(message: &'a [u8]) -> Option<Self> {
        let mut response = CheckResponse { code: 0, ok: None, denied: None };
        for field in fields(message) {
            match field? {
                (1, Value::Bytes(status)) => response.code = number(status, 1)?,
                (2, Value::Bytes(denied)) => {
                    let mut status = 0;
                    for field in fields(denied) {
                        if let (1, Value::Bytes(http)) = field? {
                            status = number(http, 1)?;
                        }
                    }
                    response.denied = Some(status);
                }
                (3, Value::Bytes(ok)) => response.ok = Some(ok),
                _ => {}
            }
        }
        Some(response)
    }

    /// Returns true if Envoy would let the request pass.
    pub(crate) const fn is_allowed(&self) -> bool {
        self.code == 0 && self.denied.is_none()
    }

    /// Returns true if the response has the id of this key.
    pub(crate) fn has_key_id(&self, key_id: &str) -> bool {
        let id = key_id.as_bytes();
        self.ok.is_some_and(|ok| !id.is_empty() && ok.windows(id.len()).any(|part| part == id))
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Returns the number in a field of a message, 0 if it is absent.
fn number(message: &[u8], field: u64) -> Option<u64> {
    let mut found = 0;
    for read in fields(message) {
        if let (number, Value::Number(value)) = read?
            && number == field
        {
            found = value;
        }
    }
    Some(found)
}

fn fields(mut rest: &[u8]) -> impl Iterator<Item = Option<(u64, Value<'_>)>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = varint(rest)?;
    let mut take = |length: usize| {
        let (taken, left) = rest.split_at_checked(length)?;
        *rest = left;
        Some(taken)
    };
    let value = match key & 7 {
        0 => Value::Number(varint(rest)?),
        1 => take(8).map(|_| Value::Other)?,
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            let (taken, left) = rest.split_at_checked(length)?;
            *rest = left;
            Value::Bytes(taken)
        }
        5 => take(4).map(|_| Value::Other)?,
        _ => return None,
    };
    Some((key >> 3, value))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
    use envoy_types::pb::envoy::service::auth::v3::{self as pb, DeniedHttpResponse, OkHttpResponse};
    use envoy_types::pb::envoy::r#type::v3::HttpStatus;
    use envoy_types::pb::google::rpc::Status;
    use prost::Message;

    #[test]
    fn both_kinds_are_decoded() {
        let ok = OkHttpResponse { headers_to_remove: vec!["x-key-17".into()], ..OkHttpResponse::default() };
        let bytes = pb::CheckResponse {
            status: Some(Status::default()),
            http_response: Some(HttpResponse::OkResponse(ok)),
            ..pb::CheckResponse::default()
        }
        .encode_to_vec();
        let response = CheckResponse::decode(&bytes).unwrap();
        assert!(response.is_allowed() && response.has_key_id("key-17") && !response.has_key_id("key-18"));

        let denied =
            DeniedHttpResponse { status: Some(HttpStatus { code: 401 }), ..DeniedHttpResponse::default() };
        let bytes = pb::CheckResponse {
            status: Some(Status { code: 16, ..Status::default() }),
            http_response: Some(HttpResponse::DeniedResponse(denied)),
            ..pb::CheckResponse::default()
        }
        .encode_to_vec();
        let response = CheckResponse::decode(&bytes).unwrap();
        assert_eq!((response.code, response.denied, response.is_allowed()), (16, Some(401), false));
        assert_eq!(CheckResponse::decode(&[0xff]), None);
    }
}
