//! Messages on the stream: reading and framing.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;

use bytes::BytesMut;
use http_body::Body;
use http2_server::{EndStream, StreamId};
use prost::Message;
use talos_proto::edge::{FromModule, FromServer, from_module, from_server};
use tokio::time::timeout;
use tonic::Status;

use super::super::fallback_body::IncomingBody;
use super::super::grpc::{self, PREFIX_LEN};
use super::super::session::SharedSession;
use super::{MAX_MESSAGE, MAX_SENT_MESSAGE, WRITE_TIMEOUT};

/// Reads the messages of a module.
pub(super) struct Input {
    body: IncomingBody,
    buffer: BytesMut,
}

impl Input {
    /// Reads from a body.
    pub(super) fn new(body: IncomingBody) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// Returns the next message, `None` at the end of the stream. A message that isn't known is
    /// skipped. Cancel-safe: no part of a message is lost.
    ///
    /// # Errors
    /// The status with which the stream ends, when it can't be read.
    pub(super) async fn next(&mut self) -> Result<Option<from_module::Message>, Status> {
        loop {
            while let Some(frame) = self.take_frame()? {
                let message = FromModule::decode(frame)
                    .map_err(|_| Status::invalid_argument("a message can't be decoded"))?;
                if let Some(message) = message.message {
                    return Ok(Some(message));
                }
            }
            let frame = poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await;
            match frame {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::invalid_argument("the stream ended within a message")),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(never)) => match never {},
            }
        }
    }

    /// Takes a whole message off the buffer.
    fn take_frame(&mut self) -> Result<Option<BytesMut>, Status> {
        let Some((prefix, rest)) = self.buffer.split_first_chunk::<PREFIX_LEN>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = *prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if compressed != 0 {
            return Err(Status::unimplemented("messages must not be compressed"));
        }
        if length > MAX_MESSAGE {
            return Err(Status::resource_exhausted("a message is larger than 16 KiB"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(PREFIX_LEN + length);
        Ok(Some(frame.split_off(PREFIX_LEN)))
    }
}

/// Writes messages to a module.
pub(super) struct Output {
    id: StreamId,
    session: Rc<SharedSession>,
}

impl Output {
    /// Begins the response of a stream.
    pub(super) fn begin(id: StreamId, session: Rc<SharedSession>) -> Self {
        session.with(|session| session.send_headers(id, &grpc::RESPONSE_HEAD));
        Self { id, session }
    }

    /// Sends a message, and waits until the connection has taken it.
    ///
    /// # Errors
    /// The status with which the stream ends, when that takes too long.
    pub(super) async fn send(&self, message: from_server::Message) -> Result<(), Status> {
        let message = FromServer { message: Some(message) };
        let length = message.encoded_len();
        if length > MAX_SENT_MESSAGE {
            return Err(Status::internal("a message to the module is larger than 256 KiB"));
        }
        let mut frame = BytesMut::with_capacity(PREFIX_LEN + length);
        frame.extend_from_slice(&grpc::prefix(length)?);
        message.encode(&mut frame).map_err(|error| Status::internal(error.to_string()))?;
        self.session.with(|session| session.send_data(self.id, frame.freeze()));
        let sent = timeout(WRITE_TIMEOUT, self.session.sent(self.id)).await;
        sent.map_err(|_| Status::deadline_exceeded("a message wasn't read in time"))
    }

    /// Ends the stream.
    pub(super) fn end(&self, status: &Status) {
        let trailers = EndStream::Trailers(grpc::trailers(status));
        self.session.with(|session| session.end_stream(self.id, trailers));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fallback_body::channel_of;
    use super::*;
    use futures_util::FutureExt;
    use talos_proto::edge::Tick;

    fn framed(message: &FromModule) -> Vec<u8> {
        let message = message.encode_to_vec();
        [&grpc::prefix(message.len()).unwrap()[..], &message].concat()
    }

    fn tick(id: u64) -> from_module::Message {
        from_module::Message::Tick(Tick { id })
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let ticks = [1, 200, 70_000].map(|id| framed(&FromModule { message: Some(tick(id)) }));
        // Of a later version.
        let unknown = framed(&FromModule { message: None });
        let octets = [&ticks[0][..], &unknown, &ticks[1], &ticks[2]].concat();
        for size in 1..octets.len() {
            let (sender, body) = channel_of(1 << 20);
            let mut input = Input::new(body);
            assert!(input.next().now_or_never().is_none());
            for part in octets.chunks(size) {
                assert!(sender.push(part));
            }
            for id in [1, 200, 70_000] {
                assert_eq!(input.next().now_or_never().unwrap().unwrap(), Some(tick(id)));
            }
            drop(sender);
            assert_eq!(input.next().now_or_never().unwrap().unwrap(), None);
        }
    }

    #[test]
    fn a_stream_that_ends_within_a_message_is_an_error() {
        let (sender, body) = channel_of(1 << 20);
        assert!(sender.push(&framed(&FromModule { message: Some(tick(70_000)) })[..7]));
        let mut input = Input::new(body);
        assert!(input.next().now_or_never().is_none());
        drop(sender);
        assert!(input.next().now_or_never().unwrap().is_err());
    }

    #[test]
    fn what_is_no_message_ends_the_stream() {
        for bad in [&[1, 0, 0, 0, 0][..], &[0, 0, 0, 64, 1], &[0, 255, 255, 255, 255], &[0, 0, 0, 0, 1, 7]] {
            let (sender, body) = channel_of(1 << 20);
            assert!(sender.push(bad));
            let read = Input::new(body).next().now_or_never().unwrap();
            assert!(read.is_err(), "{bad:?}: {read:?}");
        }
    }
}
