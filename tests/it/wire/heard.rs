//! The frames that a server sends on one stream.

use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use prost::Message;

use super::call::Good;
use super::frames::NO_ERROR;
use super::hpack::Field;
use crate::rig::check::Verdict;
use crate::rig::support::Must;

#[derive(Debug, Default)]
pub struct Heard {
    /// The head, and the trailers.
    pub heads: Vec<Vec<Field>>,
    pub data: Vec<u8>,
    pub ended: bool,
    pub reset: Option<u32>,
}

impl Heard {
    pub fn head(&mut self, fields: Vec<Field>) {
        assert!(!self.is_over(), "{fields:?} after the end: {self:?}");
        let is_pseudo = |(name, _): &&Field| name.starts_with(b":");
        let pseudo = fields.iter().filter(is_pseudo).count();
        if self.heads.is_empty() {
            assert!(pseudo == 1 && fields[0].0 == b":status", "a head: {fields:?}");
        } else {
            assert!(pseudo == 0, "trailers: {fields:?}");
        }
        let is_connection_specific =
            |name: &[u8]| matches!(name, b"connection" | b"transfer-encoding" | b"keep-alive" | b"upgrade");
        let bad = fields.iter().find(|(name, _)| {
            name.iter().any(|byte| !matches!(byte, 0x21..=0x40 | 0x5b..=0x7e)) || is_connection_specific(name)
        });
        assert!(bad.is_none(), "a field that may not be sent: {bad:?}");
        self.heads.push(fields);
        assert!(self.heads.len() <= 2, "{self:?}");
    }

    pub fn data(&mut self, data: &[u8]) {
        assert!(!self.is_over() && self.heads.len() == 1, "data before the head or after the end: {self:?}");
        self.data.extend_from_slice(data);
    }

    pub fn end(&mut self) {
        self.ended = true;
    }

    pub fn reset(&mut self, code: u32) {
        // Each frame for a closed stream may be answered by another RST_STREAM; the first counts.
        self.reset.get_or_insert(code);
    }

    /// Returns whether the stream has ended.
    pub const fn is_over(&self) -> bool {
        self.ended || self.reset.is_some()
    }

    fn find(fields: &[Field], name: &str) -> Option<String> {
        let found = fields.iter().find(|(known, _)| known == name.as_bytes());
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    pub fn header(&self, name: &str) -> Option<String> {
        Self::find(self.heads.first()?, name)
    }

    #[track_caller]
    pub fn status(&self) -> u16 {
        self.header(":status").must("a status").parse().must("a number")
    }

    /// The status of the call, of its trailers or of its head if that is all.
    pub fn grpc_status(&self) -> Option<u32> {
        Self::find(self.heads.last()?, "grpc-status").map(|code| code.parse().must("a number"))
    }

    /// The whole messages that came.
    pub fn messages(&self) -> Vec<&[u8]> {
        let (mut messages, mut rest) = (vec![], &self.data[..]);
        while let [0, a, b, c, d, after @ ..] = rest {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let Some((message, following)) = after.split_at_checked(length) else { break };
            messages.push(message);
            rest = following;
        }
        messages
    }

    /// Returns the message of a complete response: head, one message, trailers.
    #[track_caller]
    pub fn message(&self) -> &[u8] {
        assert!(self.ended && matches!(self.reset, None | Some(NO_ERROR)), "{self:?}");
        assert_eq!((self.status(), self.grpc_status()), (200, Some(0)), "{self:?}");
        assert_eq!(self.header("content-type").as_deref(), Some("application/grpc"));
        let messages = self.messages();
        assert!(messages.len() == 1 && self.data.len() == 5 + messages[0].len(), "{self:?}");
        messages[0]
    }

    /// Checks that the response allows this Check, and names its actor.
    #[track_caller]
    pub fn allows(&self, good: &Good) {
        let verdict = Verdict(CheckResponse::decode(self.message()).must("a CheckResponse"));
        assert_eq!(verdict.allowed().header("x-talos-actor-id").as_deref(), Some(good.actor.as_str()));
    }
}
