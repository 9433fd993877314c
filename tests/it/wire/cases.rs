//! Tables of what a client may send and how a server may react to it.

use std::time::Duration;

use super::call::Good;
use super::client::Wire;
use super::frames::NO_ERROR;
use super::heard::Heard;
use crate::rig::talos::Talos;

/// The reaction of a server to frames; stream 1 is the one that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// No frame came on the stream.
    Silence,
    /// The good Check on it was answered as such.
    Allowed,
    /// The call ended with this status of gRPC's.
    Grpc(u32),
    /// The request was refused with this HTTP status.
    Status(u16),
    /// The stream was reset.
    Reset(u32),
    /// The connection was ended, with that error.
    Goaway(u32),
    /// The connection was ended without a word.
    Hangup,
}

use Reaction::{Allowed, Goaway, Grpc, Hangup, Reset, Silence, Status};

impl Reaction {
    const fn ends_the_connection(self) -> bool {
        matches!(self, Goaway(_) | Hangup)
    }
}

/// A case: its name, its frames, and every reaction that is right.
pub type Case<'a> = (&'a str, &'a dyn Fn(&Good) -> Vec<u8>, &'a [Reaction]);

/// Longest time for a reaction.
const MOMENT: Duration = Duration::from_secs(5);

/// The stream of the good Check that follows each case.
const NEXT: u32 = 1_001;

/// Checks the server's reactions against a table, each case on a connection of its own after the
/// handshake. If the connection may live, the good Check that follows must be answered on it, else
/// on a new one.
pub async fn hold(talos: &Talos, good: &Good, cases: &[Case<'_>]) {
    let mut problems = vec![];
    for (name, make, due) in cases {
        let mut wire = Wire::open(talos.authz).await;
        wire.send(&make(good)).await;
        let reaction = react(&mut wire, good, due).await;
        println!("{name}: {reaction:?}");
        if !due.contains(&reaction) {
            problems.push(format!("{name}: {reaction:?}, not one of {due:?}"));
        }
        if reaction.ends_the_connection() {
            answers(talos, good).await;
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// A good Check on a new connection must be answered.
pub async fn answers(talos: &Talos, good: &Good) {
    let mut wire = Wire::open(talos.authz).await;
    wire.send(&good.on(1)).await;
    wire.answer(1).await.allows(good);
}

/// Returns the server's reaction to the frames just sent on a connection.
pub async fn react(wire: &mut Wire, good: &Good, due: &[Reaction]) -> Reaction {
    wire.send(&good.on(NEXT)).await;
    let is_over = |wire: &Wire, stream| wire.heard.get(&stream).is_some_and(Heard::is_over);
    while !is_over(wire, NEXT) {
        if !wire.step().await {
            return end(wire);
        }
    }
    wire.heard.remove(&NEXT).unwrap_or_default().allows(good);
    // The reaction comes before the answer to this PING.
    let barrier = u64::MAX.to_be_bytes();
    wire.send(&super::frames::ping(barrier)).await;
    let saying = async {
        let waits = |wire: &Wire| !is_over(wire, 1) && !due.contains(&Silence);
        while !wire.goaways.is_empty() || !wire.pongs.contains(&barrier) || waits(wire) {
            if !wire.step().await {
                return true;
            }
        }
        false
    };
    if tokio::time::timeout(MOMENT, saying).await == Ok(true) {
        return end(wire);
    }
    let Some(heard) = wire.heard.get(&1).filter(|heard| heard.is_over()) else {
        return Silence;
    };
    match heard.reset {
        // 431 and the like: the rest of the request isn't wanted.
        Some(_) if heard.ended && heard.status() >= 400 => return Status(heard.status()),
        Some(code) if !(heard.ended && code == NO_ERROR) => return Reset(code),
        _ => {}
    }
    match (heard.status(), heard.grpc_status()) {
        (200, Some(0)) => {
            heard.allows(good);
            Allowed
        }
        (200, Some(code)) => Grpc(code),
        (status, _) => Status(status),
    }
}

fn end(wire: &Wire) -> Reaction {
    wire.goaways.last().map_or(Hangup, |goaway| Goaway(goaway.code))
}
