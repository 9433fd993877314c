//! gRPC for unary calls: the check of the request, its message, and the response.

use std::sync::LazyLock;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http2_server::{HeaderBlock, RequestHead};
use tonic::{Code, Status};

/// Length of a message's prefix, in bytes: the compressed flag, and the length of the message.
pub(super) const PREFIX_LEN: usize = 5;
/// Largest message, in bytes; Envoy may be configured to send request bodies along.
pub(super) const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Path of the Check call.
pub(super) const CHECK: &[u8] = b"/envoy.service.auth.v3.Authorization/Check";
/// The head of a response that has a message.
pub(super) static RESPONSE_HEAD: LazyLock<HeaderBlock> =
    LazyLock::new(|| HeaderBlock::response(StatusCode::OK, &HeaderMap::from_iter([(CONTENT_TYPE, GRPC)])));
/// The trailers of a response that has a message.
pub(super) static OK_TRAILERS: LazyLock<HeaderBlock> =
    LazyLock::new(|| HeaderBlock::trailers(&HeaderMap::from_iter([(GRPC_STATUS, GRPC_OK)])));

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_OK: HeaderValue = HeaderValue::from_static("0");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Checks that a request is a gRPC call whose messages can be read.
///
/// # Errors
/// The response to it: an HTTP status where the client may not know gRPC's.
pub(super) fn check_request(head: &RequestHead) -> Result<(), HeaderBlock> {
    if head.method() != b"POST" {
        let allow = HeaderMap::from_iter([(ALLOW, HeaderValue::from_static("POST"))]);
        return Err(HeaderBlock::response(StatusCode::METHOD_NOT_ALLOWED, &allow));
    }
    let content_type = head.value("content-type").and_then(|value| value.strip_prefix(b"application/grpc"));
    // A suffix names the encoding of messages, of which only protobuf is known.
    if !content_type.is_some_and(|rest| matches!(rest, [] | [b';' | b' ', ..]) || rest.starts_with(b"+proto"))
    {
        return Err(HeaderBlock::response(StatusCode::UNSUPPORTED_MEDIA_TYPE, &HeaderMap::new()));
    }
    if head.value("grpc-encoding").is_some_and(|encoding| encoding != IDENTITY.as_bytes()) {
        let mut headers = status_headers(&Status::unimplemented("messages must not be compressed"));
        headers.insert(GRPC_ACCEPT_ENCODING, IDENTITY);
        return Err(HeaderBlock::response(StatusCode::OK, &headers));
    }
    Ok(())
}

/// Returns a response without a message: gRPC's "Trailers-Only".
pub(super) fn error_response(status: &Status) -> HeaderBlock {
    HeaderBlock::response(StatusCode::OK, &status_headers(status))
}

/// Returns the trailers of a response that has begun.
pub(super) fn trailers(status: &Status) -> HeaderBlock {
    let mut headers = status_headers(status);
    headers.remove(CONTENT_TYPE);
    HeaderBlock::trailers(&headers)
}

fn status_headers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, GRPC)]);
    if status.add_header(&mut headers).is_err() {
        // No header can hold the message: the code is sent alone.
        headers.insert(GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    headers
}

/// Returns the prefix of a message of so many bytes.
///
/// # Errors
/// The message is longer than a prefix can tell.
pub(super) fn prefix(length: usize) -> Result<[u8; PREFIX_LEN], Status> {
    let length = u32::try_from(length).map_err(|_| Status::internal("the response is longer than 4 GiB"))?;
    let [a, b, c, d] = length.to_be_bytes();
    Ok([0, a, b, c, d])
}

/// Problem of a body that should hold one message of at most [`MAX_MESSAGE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The message isn't complete.
    #[error("the message isn't complete")]
    Incomplete,
    /// The message is compressed.
    #[error("messages must not be compressed")]
    Compressed,
    /// The data don't begin as a gRPC message does.
    #[error("not the beginning of a gRPC message")]
    NotGrpc,
    /// The message is larger than [`MAX_MESSAGE`].
    #[error("the message is larger than 4 MiB")]
    TooLarge,
    /// Another message follows.
    #[error("more than one message was sent")]
    Several,
}

impl From<MessageError> for Status {
    fn from(error: MessageError) -> Self {
        let code = match error {
            MessageError::Compressed => Code::Unimplemented,
            MessageError::TooLarge => Code::ResourceExhausted,
            MessageError::Incomplete | MessageError::NotGrpc | MessageError::Several => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// Returns the only message of a complete body.
///
/// # Errors
/// The body isn't one message of at most [`MAX_MESSAGE`].
pub(super) fn message(body: &[u8]) -> Result<&[u8], MessageError> {
    check_prefix(body)?;
    match body_length(body) {
        Some(length) if length == body.len() => Ok(&body[PREFIX_LEN..]),
        _ => Err(MessageError::Incomplete),
    }
}

/// Checks that a body can become one message of at most [`MAX_MESSAGE`].
fn check_prefix(body: &[u8]) -> Result<(), MessageError> {
    match body.first() {
        None | Some(0) => {}
        Some(1) => return Err(MessageError::Compressed),
        Some(_) => return Err(MessageError::NotGrpc),
    }
    match body_length(body) {
        Some(length) if length > PREFIX_LEN + MAX_MESSAGE => Err(MessageError::TooLarge),
        Some(length) if body.len() > length => Err(MessageError::Several),
        _ => Ok(()),
    }
}

/// Returns the length of a body that holds one message, once its prefix is there.
fn body_length(body: &[u8]) -> Option<usize> {
    let length = body.get(1..PREFIX_LEN)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(length)).ok()?.checked_add(PREFIX_LEN)
}

/// The body of a call while it arrives.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Appends a chunk.
    ///
    /// # Errors
    /// The body can't become one message of at most [`MAX_MESSAGE`].
    pub(super) fn push(&mut self, part: &[u8]) -> Result<(), MessageError> {
        let capacity = self.capacity_with(part.len());
        self.0.reserve_exact(capacity - self.0.len());
        self.0.extend_from_slice(part);
        check_prefix(&self.0)
    }

    /// Returns the memory that another `bytes` bytes take, in bytes.
    pub(super) fn growth(&self, bytes: usize) -> usize {
        self.capacity_with(bytes) - self.0.capacity()
    }

    /// Returns the capacity with another `bytes` bytes: twice their number, so that they aren't
    /// copied over and over, and never more than is announced, which may never arrive.
    fn capacity_with(&self, bytes: usize) -> usize {
        let needed = self.0.len() + bytes;
        if needed <= self.0.capacity() {
            return self.0.capacity();
        }
        body_length(&self.0).map_or(needed, |length| length.min(2 * needed)).max(needed)
    }

    /// Returns whether nothing has arrived.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the bytes that have arrived.
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(parts: &[&[u8]]) -> Result<Vec<u8>, Code> {
        let mut message = Message::default();
        for part in parts {
            message.push(part).map_err(|error| Status::from(error).code())?;
        }
        let message = message.finish();
        super::message(&message).map(<[u8]>::to_vec).map_err(|error| Status::from(error).code())
    }

    #[test]
    fn one_message_and_nothing_else() {
        for (parts, expected) in [
            (&[&[0, 0, 0, 0, 2, 7, 8][..]][..], Ok(vec![7, 8])),
            (&[&[0, 0, 0], &[0, 2, 7], &[8]], Ok(vec![7, 8])),
            (&[&[0, 0, 0, 0, 0], &[]], Ok(vec![])),
            (&[], Err(Code::Internal)),
            (&[&[0, 0, 0, 0, 2, 7]], Err(Code::Internal)),
            (&[&[0, 0, 0, 0, 1, 7, 8]], Err(Code::Internal)),
            (&[&[0, 0, 0, 0, 1, 7], &[0, 0, 0, 0, 0]], Err(Code::Internal)),
            (&[&[1, 0, 0, 0, 1, 7]], Err(Code::Unimplemented)),
            (&[&[9, 0, 0, 0, 1, 7]], Err(Code::Internal)),
            (&[&[0, 0, 64, 0, 1]], Err(Code::ResourceExhausted)),
            (&[&[0, 255, 255, 255, 255]], Err(Code::ResourceExhausted)),
        ] {
            assert_eq!(collect(parts), expected, "{parts:?}");
        }
    }

    #[test]
    fn constant_responses_decode_to_their_fields() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let head = [pair(":status", "200"), pair("content-type", "application/grpc")];
        assert_eq!(RESPONSE_HEAD.fields().as_deref(), Ok(&head[..]));
        assert_eq!(OK_TRAILERS.fields().as_deref(), Ok(&[pair("grpc-status", "0")][..]));
        assert_eq!(CHECK, format!("/{}/Check", crate::authz::SERVICE_NAME).as_bytes());
    }

    #[test]
    fn requests_that_are_no_grpc_calls_get_an_http_status() {
        let ask = |method: &str, headers: &[(&str, &str)]| {
            let fields = [&[(":method", method)][..], headers].concat();
            check_request(&RequestHead::of_fields(&fields)).map_err(|answer| {
                let answer = answer.fields().unwrap();
                let value = |name| answer.iter().find(|field| field.0 == name).map(|field| field.1.clone());
                (value(":status").unwrap(), value("grpc-status"))
            })
        };
        let kind = |kind| [("content-type", kind)];
        for good in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert_eq!(ask("POST", &kind(good)), Ok(()));
        }
        assert_eq!(
            ask("POST", &[("content-type", "application/grpc"), ("grpc-encoding", "identity")]),
            Ok(())
        );
        assert_eq!(ask("GET", &kind("application/grpc")), Err(("405".to_owned(), None)));
        assert_eq!(ask("POST", &[]), Err(("415".to_owned(), None)));
        for bad in ["application/json", "application/grpc-web", "application/grpc+json"] {
            assert_eq!(ask("POST", &kind(bad)), Err(("415".to_owned(), None)));
        }
        let compressed = [("content-type", "application/grpc"), ("grpc-encoding", "gzip")];
        assert_eq!(ask("POST", &compressed), Err(("200".to_owned(), Some("12".to_owned()))));
    }
}
