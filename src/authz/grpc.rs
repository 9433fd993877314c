//! gRPC as far as a unary call needs it: which call it is, its one message, its one answer.

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tonic::Status;

use crate::http2::{Head, block};

/// Bytes before a message: whether it is compressed, and its length.
pub const PREFIX: usize = 5;
/// Largest message, in bytes: Envoy may be told to send bodies along.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// The call that all of this is about.
pub const CHECK: &[u8] = b"/envoy.service.auth.v3.Authorization/Check";
/// `:status: 200` and `content-type: application/grpc`: the head of an answer that has a message. Neither is to be
/// kept in a table: the first stands in everybody's, the name of the second, too.
pub const ANSWER_HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// `grpc-status: 0`, which follows the message.
pub const OK_TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Refuses what isn't a gRPC call that we can read: with a status of HTTP's own, as such a client knows no other.
///
/// # Errors
/// The head of the answer to it, as HTTP/2 writes it.
pub fn is_call(head: &Head) -> Result<(), Vec<u8>> {
    if head.method() != b"POST" {
        let allow = HeaderMap::from_iter([(ALLOW, HeaderValue::from_static("POST"))]);
        return Err(block(Some(StatusCode::METHOD_NOT_ALLOWED), &allow));
    }
    let content_type = head.value("content-type").and_then(|value| value.strip_prefix(b"application/grpc"));
    // With a suffix it says how messages are written: as protobuf is all that we know.
    if !content_type.is_some_and(|rest| matches!(rest, [] | [b';' | b' ', ..]) || rest.starts_with(b"+proto"))
    {
        return Err(block(Some(StatusCode::UNSUPPORTED_MEDIA_TYPE), &HeaderMap::new()));
    }
    if head.value("grpc-encoding").is_some_and(|encoding| encoding != IDENTITY.as_bytes()) {
        let mut headers = status_headers(&Status::unimplemented("messages must not be compressed"));
        headers.insert(GRPC_ACCEPT_ENCODING, IDENTITY);
        return Err(block(Some(StatusCode::OK), &headers));
    }
    Ok(())
}

/// The head of an answer without a message, as HTTP/2 writes it.
pub fn status_alone(status: &Status) -> Vec<u8> {
    block(Some(StatusCode::OK), &status_headers(status))
}

/// What follows an answer that has begun, as HTTP/2 writes it.
pub fn trailers(status: &Status) -> Vec<u8> {
    let mut headers = status_headers(status);
    headers.remove(CONTENT_TYPE);
    block(None, &headers)
}

fn status_headers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, GRPC)]);
    if status.add_header(&mut headers).is_err() {
        // A text that no header can hold: the number is what counts.
        headers.insert(GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    headers
}

/// What stands before a message.
///
/// # Errors
/// When it is too long for any client.
pub fn prefix(message: &[u8]) -> Result<[u8; PREFIX], Status> {
    let length = u32::try_from(message.len()).map_err(|_| Status::internal("the answer is too long"))?;
    let [a, b, c, d] = length.to_be_bytes();
    Ok([0, a, b, c, d])
}

/// The one message of a body.
///
/// # Errors
/// When it isn't one message within bounds.
pub fn whole(body: &[u8]) -> Result<&[u8], Status> {
    may_be_message(body)?;
    match announced(body) {
        Some(length) if length == body.len() => Ok(&body[PREFIX..]),
        _ => Err(Status::internal("the message isn't complete")),
    }
}

/// Refuses what can't become one message within bounds, whatever follows.
fn may_be_message(body: &[u8]) -> Result<(), Status> {
    match body.first() {
        None | Some(0) => {}
        Some(1) => return Err(Status::unimplemented("messages must not be compressed")),
        Some(_) => return Err(Status::internal("not the beginning of a gRPC message")),
    }
    match announced(body) {
        Some(length) if length > PREFIX + MAX_MESSAGE => {
            Err(Status::resource_exhausted("the message is larger than 4 MiB"))
        }
        Some(length) if body.len() > length => Err(Status::internal("more than one message was sent")),
        _ => Ok(()),
    }
}

/// The length of all of a message, prefix included, once that is known.
fn announced(body: &[u8]) -> Option<usize> {
    let length = body.get(1..PREFIX)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(length)).ok()?.checked_add(PREFIX)
}

/// The body of a call, as its parts come in.
#[derive(Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// Adds a part.
    ///
    /// # Errors
    /// When it can't become one message within bounds.
    pub fn push(&mut self, part: &[u8]) -> Result<(), Status> {
        let room = self.room_with(part.len());
        self.0.reserve_exact(room - self.0.len());
        self.0.extend_from_slice(part);
        may_be_message(&self.0)
    }

    /// Bytes of memory that it takes beyond what it has, once so many bytes are added.
    pub fn growth(&self, bytes: usize) -> usize {
        self.room_with(bytes) - self.0.capacity()
    }

    /// How much it has room for once so many bytes are added: twice as much, so that they aren't
    /// copied over and over, but what isn't announced isn't needed, and what is may never come.
    fn room_with(&self, bytes: usize) -> usize {
        let needed = self.0.len() + bytes;
        if needed <= self.0.capacity() {
            return self.0.capacity();
        }
        announced(&self.0).map_or(needed, |announced| announced.min(2 * needed)).max(needed)
    }

    /// Whether nothing has come.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that has come.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::{Decoder, write_field};
    use tonic::Code;

    fn collect(parts: &[&[u8]]) -> Result<Vec<u8>, Code> {
        let mut message = Message::default();
        for part in parts {
            message.push(part).map_err(|status| status.code())?;
        }
        whole(&message.finish()).map(<[u8]>::to_vec).map_err(|status| status.code())
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

    /// The fields of a block, as text.
    fn fields(block: &[u8]) -> Vec<(String, String)> {
        let mut fields = vec![];
        let text = |bytes: &[u8]| str::from_utf8(bytes).unwrap().to_owned();
        Decoder::default()
            .decode(block, |field| fields.push((text(field.name()), text(field.value()))))
            .unwrap();
        fields
    }

    #[test]
    fn what_every_answer_has_is_written_right() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let head = [pair(":status", "200"), pair("content-type", "application/grpc")];
        assert_eq!(fields(ANSWER_HEAD), head);
        assert_eq!(fields(OK_TRAILERS), [pair("grpc-status", "0")]);
        assert_eq!(CHECK, format!("/{}/Check", crate::authz::SERVICE_NAME).as_bytes());
    }

    #[test]
    fn only_calls_are_taken_for_calls() {
        let ask = |method: &str, headers: &[(&str, &str)]| {
            let mut block = vec![];
            for (name, value) in [(":method", method)].iter().chain(headers) {
                write_field(name.as_bytes(), value.as_bytes(), &mut block);
            }
            is_call(&Head::read(&block)).map_err(|answer| {
                let answer = fields(&answer);
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
