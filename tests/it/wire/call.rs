//! Valid calls, in pieces that tests send in any way.

use prost::Message;
use serde_json::json;

use super::frames::{headers, last_data};
use super::hpack::{AS_IT_IS, Encoder, Field};
use crate::rig::check::Check;
use crate::rig::support::{Must, until};
use crate::rig::talos::Talos;

pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
pub const HEALTH: &str = "/grpc.health.v1.Health/Check";
pub const WATCH: &str = "/grpc.health.v1.Health/Watch";
pub const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
pub const NOWHERE: &str = "/talos.Nowhere/Nothing";

/// Messages of the health service: SERVING, and NOT_SERVING.
pub const SERVING: &[u8] = &[8, 1];
pub const NOT_SERVING: &[u8] = &[8, 2];

/// The head of a call, as gRPC's clients send it.
pub const CALL: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", CHECK),
    (":authority", "talos.test"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
];

pub fn fields(fields: &[(&str, &str)]) -> Vec<Field> {
    fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// A block that depends on nothing and changes nothing.
pub fn block(pairs: &[(&str, &str)]) -> Vec<u8> {
    Encoder::new().block(&fields(pairs), AS_IT_IS)
}

/// The head of a call, with one of its fields another one.
pub fn call_with(name: &str, value: &str) -> Vec<u8> {
    block(&CALL.map(|(known, its)| if known == name { (name, value) } else { (known, its) }))
}

/// The head of a call of this method.
pub fn call_of(path: &str) -> Vec<u8> {
    call_with(":path", path)
}

/// The head of a Check, with more behind it.
pub fn call_and(more: &[(&str, &str)]) -> Vec<u8> {
    block(&[&CALL[..], more].concat())
}

/// A message with its prefix.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).must("a message under 4 GiB");
    [&[0], &length.to_be_bytes()[..], message].concat()
}

/// A message of reflection that asks for one thing.
pub fn reflect(field: u8, value: &str) -> Vec<u8> {
    let length = u8::try_from(value.len()).must("a short value");
    framed(&[&[field << 3 | 2, length], value.as_bytes()].concat())
}

/// A Check of a key that is good, and whose caller is known.
#[derive(Clone)]
pub struct Good {
    pub actor: String,
    secret: String,
    /// The message of the Check, with its prefix.
    pub message: Vec<u8>,
}

impl Good {
    pub async fn new(talos: &Talos, actor: &str) -> Good {
        let key = talos.issue(json!({ "actor_id": actor })).await;
        let ask = Check::bearer(&key.secret);
        // From here on memory answers: a busy machine may refuse what has to be looked up.
        until("the key is known", async || talos.check(ask.clone()).await.passes().then_some(())).await;
        let message = framed(&ask.build().encode_to_vec());
        Good { actor: actor.to_owned(), secret: key.secret, message }
    }

    /// Returns the call with `bytes` more in its message, which have no meaning.
    pub fn grown_by(&self, bytes: usize) -> Good {
        let ask = Check::bearer(&self.secret).header("x-long", "a".repeat(bytes));
        Good { message: framed(&ask.build().encode_to_vec()), ..self.clone() }
    }

    /// Returns the Check with a response that is longer by about `bytes`: each header of a reserved
    /// name is removed by its name, which the response lists.
    pub fn answered_by(&self, bytes: usize) -> Good {
        let names = (0..bytes / 100).map(|n| format!("x-talos-{}-{n:05}", "a".repeat(84)));
        let ask = names.fold(Check::bearer(&self.secret), |ask, name| ask.header(&name, "1"));
        Good { message: framed(&ask.build().encode_to_vec()), ..self.clone() }
    }

    pub fn head(&self) -> Vec<u8> {
        block(&CALL)
    }

    /// All of it in two frames.
    pub fn on(&self, stream: u32) -> Vec<u8> {
        [headers(stream, &self.head()), last_data(stream, &self.message)].concat()
    }

    /// Returns the message in two halves.
    pub fn halves(&self) -> (&[u8], &[u8]) {
        self.message.split_at(self.message.len() / 2)
    }
}
