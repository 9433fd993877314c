//! Between bytes and messages: requests are decoded leanly, answers come encoded already.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use talos_proto::CheckRequest;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Decodes a [`CheckRequest`], passes an encoded CheckResponse on.
#[derive(Default)]
pub struct CheckCodec;

impl Codec for CheckCodec {
    type Encode = Bytes;
    type Decode = CheckRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for CheckCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, answer: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(answer.len());
        out.put(answer);
        Ok(())
    }
}

impl Decoder for CheckCodec {
    type Item = CheckRequest;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<CheckRequest>, Status> {
        // One copy of the whole, of which the fields are slices.
        let bytes = bytes.copy_to_bytes(bytes.remaining());
        let request = CheckRequest::decode(bytes);
        request.map(Some).map_err(|_| Status::invalid_argument("not a CheckRequest"))
    }
}
