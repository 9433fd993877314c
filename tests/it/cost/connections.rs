//! Inputs that a client of the authz plane sends over many connections: each part is one.

use super::client::{Input, Style};
use super::frames::{Check, hello};
use crate::wire::frames::{PREFACE, frame};

/// Everything that goes by connections.
pub fn inputs(check: &Check) -> Vec<Input> {
    let begun = check.clone();
    let left = check.clone();
    vec![
        Input::new("connections that say nothing", vec![], Style::Leaves, |_| vec![]),
        Input::new("half a preface", vec![], Style::Leaves, |_| PREFACE[..12].to_vec()),
        Input::new("a preface", vec![], Style::Leaves, |_| hello(&[])),
        Input::new("HTTP/1.1", vec![], Style::Reconnects, |_| b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        Input::new("bytes that are no frames", PREFACE.to_vec(), Style::Reconnects, |_| vec![0xff; 300]),
        Input::new("a frame that is too long", hello(&[]), Style::Reconnects, |_| {
            frame(0, 0, 1, &[0; 20_000])
        }),
        Input::new("half a Check", hello(&[]), Style::Leaves, move |_| {
            let whole = begun.on(1);
            whole[..whole.len() / 2].to_vec()
        }),
        Input::new("a Check whose answer isn't waited for", hello(&[]), Style::Leaves, move |_| left.on(1)),
    ]
}
