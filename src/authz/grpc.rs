//! gRPC as far as a unary call needs it: which call it is, its one message, its one answer.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, request};
use tonic::Status;

/// Bytes before a message: whether it is compressed, and its length.
pub const PREFIX: usize = 5;
/// Largest message, in bytes: Envoy may be told to send bodies along.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const OK: HeaderValue = HeaderValue::from_static("0");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Refuses what isn't a gRPC call that we can read: with a status of HTTP's own, as such a client knows no other.
///
/// # Errors
/// The answer to it.
pub fn is_call(head: &request::Parts) -> Result<(), Response<()>> {
    let refuse = |status, header: Option<(HeaderName, &'static str)>| {
        let mut answer = Response::new(());
        *answer.status_mut() = status;
        if let Some((name, value)) = header {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    };
    if head.method != Method::POST {
        return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, Some((ALLOW, "POST"))));
    }
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    // With a suffix it says how messages are written: as protobuf is all that we know.
    if !rest.is_some_and(|rest| matches!(rest, [] | [b';' | b' ', ..]) || rest.starts_with(b"+proto")) {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, None));
    }
    let encoding = head.headers.get(GRPC_ENCODING);
    if encoding.is_some_and(|encoding| encoding != IDENTITY) {
        let mut answer = status_alone(&Status::unimplemented("messages must not be compressed"));
        answer.headers_mut().insert(GRPC_ACCEPT_ENCODING, IDENTITY);
        return Err(answer);
    }
    Ok(())
}

/// The head of an answer that has a message.
pub fn answer_head() -> Response<()> {
    let mut head = Response::new(());
    head.headers_mut().insert(CONTENT_TYPE, GRPC);
    head
}

/// What follows the message.
pub fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, OK);
    trailers
}

/// An answer without a message.
pub fn status_alone(status: &Status) -> Response<()> {
    let mut head = answer_head();
    if status.add_header(head.headers_mut()).is_err() {
        // A text that no header can hold: the number is what counts.
        head.headers_mut().insert(GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    head
}

/// The message of a call, as its parts come in.
#[derive(Default)]
pub struct Message(Parts);

#[derive(Default)]
enum Parts {
    #[default]
    None,
    /// As almost always: it came in one.
    One(Bytes),
    Many(BytesMut),
}

impl Message {
    /// Adds a part.
    ///
    /// # Errors
    /// When it can't become one message within bounds.
    pub fn push(&mut self, part: Bytes) -> Result<(), Status> {
        if part.is_empty() {
            return Ok(());
        }
        let parts = match std::mem::take(&mut self.0) {
            Parts::None => Parts::One(part),
            Parts::One(first) => {
                let mut all =
                    BytesMut::with_capacity(announced(&first).unwrap_or(0).max(first.len() + part.len()));
                all.put(first);
                all.put(part);
                Parts::Many(all)
            }
            Parts::Many(mut all) => {
                all.put(part);
                Parts::Many(all)
            }
        };
        self.0 = parts;
        let bytes = self.bytes();
        match bytes.first() {
            Some(0) => {}
            Some(1) => return Err(Status::unimplemented("messages must not be compressed")),
            _ => return Err(Status::internal("not the beginning of a gRPC message")),
        }
        match announced(bytes) {
            Some(length) if length > PREFIX + MAX_MESSAGE => {
                Err(Status::resource_exhausted("the message is larger than 4 MiB"))
            }
            Some(length) if bytes.len() > length => Err(Status::internal("more than one message was sent")),
            _ => Ok(()),
        }
    }

    /// How many bytes of it there are.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// The message, once there are no more parts.
    ///
    /// # Errors
    /// When a part is missing.
    pub fn finish(self) -> Result<Bytes, Status> {
        if announced(self.bytes()) != Some(self.len()) {
            return Err(Status::internal("the message isn't complete"));
        }
        Ok(match self.0 {
            Parts::None => Bytes::new(),
            Parts::One(bytes) => bytes.slice(PREFIX..),
            Parts::Many(bytes) => bytes.freeze().slice(PREFIX..),
        })
    }

    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Parts::None => &[],
            Parts::One(bytes) => bytes,
            Parts::Many(bytes) => bytes,
        }
    }
}

/// The length of all of a message, prefix included, once that is known.
fn announced(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(1..PREFIX)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(length)).ok()?.checked_add(PREFIX)
}

/// A part of an answer's body: a message and the prefix that belongs before it, neither of them copied.
#[derive(Debug)]
pub struct Framed {
    prefix: [u8; PREFIX],
    /// How much of the prefix is read.
    read: usize,
    message: Bytes,
}

impl Framed {
    /// A message.
    pub fn message(message: Bytes) -> Result<Self, Status> {
        let length = u32::try_from(message.len()).map_err(|_| Status::internal("the answer is too long"))?;
        let [a, b, c, d] = length.to_be_bytes();
        Ok(Self { prefix: [0, a, b, c, d], read: 0, message })
    }

    /// Bytes that have their prefixes.
    pub const fn ready(bytes: Bytes) -> Self {
        Self { prefix: [0; PREFIX], read: PREFIX, message: bytes }
    }
}

impl Buf for Framed {
    fn remaining(&self) -> usize {
        PREFIX - self.read + self.message.len()
    }

    fn chunk(&self) -> &[u8] {
        if self.read < PREFIX { &self.prefix[self.read..] } else { &self.message }
    }

    fn advance(&mut self, count: usize) {
        let of_prefix = count.min(PREFIX - self.read);
        self.read += of_prefix;
        self.message.advance(count - of_prefix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};
    use tonic::Code;

    fn collect(parts: &[&[u8]]) -> Result<Bytes, Code> {
        let mut message = Message::default();
        for part in parts {
            message.push(Bytes::copy_from_slice(part)).map_err(|status| status.code())?;
        }
        message.finish().map_err(|status| status.code())
    }

    #[test]
    fn one_message_and_nothing_else() {
        let empty = Bytes::new();
        for (parts, expected) in [
            (&[&[0, 0, 0, 0, 2, 7, 8][..]][..], Ok(Bytes::from_static(&[7, 8]))),
            (&[&[0, 0, 0], &[0, 2, 7], &[8]], Ok(Bytes::from_static(&[7, 8]))),
            (&[&[0, 0, 0, 0, 0], &[]], Ok(empty)),
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
    fn only_calls_are_taken_for_calls() {
        let ask = |method: &str, headers: &[(&str, &str)]| {
            let mut request = http::Request::builder().method(method);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            is_call(&request.body(()).unwrap().into_parts().0).map_err(|answer| {
                let status = answer.headers().get("grpc-status");
                (answer.status().as_u16(), status.map(|status| status.to_str().unwrap().to_owned()))
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
        assert_eq!(ask("GET", &kind("application/grpc")), Err((405, None)));
        assert_eq!(ask("POST", &[]), Err((415, None)));
        for bad in ["application/json", "application/grpc-web", "application/grpc+json"] {
            assert_eq!(ask("POST", &kind(bad)), Err((415, None)));
        }
        let compressed = [("content-type", "application/grpc"), ("grpc-encoding", "gzip")];
        assert_eq!(ask("POST", &compressed), Err((200, Some("12".to_owned()))));
    }

    proptest! {
        #[test]
        fn what_is_framed_is_read_however_it_is_cut(
            message in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(1_usize..40, 1..20),
        ) {
            let mut framed = Framed::message(message.clone().into()).unwrap();
            let mut cuts = cuts.iter().cycle();
            let mut collected = Message::default();
            while framed.has_remaining() {
                let cut = framed.remaining().min(*cuts.next().unwrap());
                collected.push(framed.copy_to_bytes(cut)).unwrap();
            }
            prop_assert_eq!(collected.finish().unwrap(), message);
        }
    }
}
