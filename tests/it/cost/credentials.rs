//! Checks whose credentials a stranger makes up: each must be found out with little work.

use serde_json::json;

use super::client::{Input, Style};
use super::frames::{Check, hello, stream};
use crate::rig::support::Must;
use crate::rig::talos::Talos;

/// Maximum length of a credential, in bytes.
const MAX_CREDENTIAL: usize = 16 * 1024;

/// Forms of credentials, none of which is valid, each with another text in every Check.
pub async fn inputs(talos: &Talos) -> Vec<Input> {
    let key = talos.issue(json!({ "actor_id": "honest" })).await;
    let token = talos.derive(&key, json!({})).await;
    let (signed, signature) = token.rsplit_once('.').must("a token");
    let (signed, signature) = (signed.to_owned(), signature.to_owned());
    let (payload, checksum) = key.secret.rsplit_once('_').must("an issued key");
    let (payload, checksum) = (payload.to_owned(), checksum.to_owned());
    let zeros = "1".repeat(MAX_CREDENTIAL - 100);
    vec![
        input("tokens with a known kid, signed by nobody", move |n| {
            format!("{signed}.{}", varied(&signature, n))
        }),
        input("issued keys with a wrong checksum", move |n| format!("{payload}_{}", varied(&checksum, n))),
        input("issued keys of 16 KB", move |n| format!("talos_v1_{zeros}_{}", varied(&"2".repeat(44), n))),
        input("imported keys that nobody has", |n| format!("nobody-has-this-{n:032}")),
        input("imported keys of 16 KB", |n| format!("{n:0width$}", width = MAX_CREDENTIAL)),
    ]
}

/// Checks of the credentials of this form.
fn input(name: &str, credential: impl Fn(u32) -> String + Send + Sync + 'static) -> Input {
    Input::new(name, hello(&[]), Style::Reads, move |n| Check::from_secret(&credential(n)).on(stream(n)))
}

/// Returns the text with eight of its characters replaced by the number. All of them are in the
/// alphabets of base58 and of base64url.
fn varied(text: &str, number: u32) -> String {
    let digits: String = (0..8).map(|digit| char::from(b'A' + (number >> (4 * digit) & 7) as u8)).collect();
    format!("{}{digits}{}", &text[..10], &text[18..])
}
