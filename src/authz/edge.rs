//! The stream to the accelerator: a module in Envoy that answers Checks of keys that it knows.
//!
//! `proto/edge.proto` is the protocol. The module is told what this process knows of changes, and
//! asks for ready answers by the index of a credential, never with the credential.

mod answer;
mod ended;
mod messages;
mod settings;
mod stream;
mod uses;

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::limits::MAX_EDGE_STREAMS;
use super::server::AuthorizationService;

/// Path of the call.
pub(super) const CONNECT: &[u8] = b"/talos.edge.v1.Edge/Connect";
/// Version of the protocol that is spoken here.
const PROTOCOL: u32 = 1;

/// Most bytes of a stream that aren't read yet, overhead counted.
pub(super) const MAX_UNREAD: usize = 192 * 1024;
/// Memory that a stream takes of its connection's account, in bytes: unread messages, one message
/// that is being written. The values of slots that it was sent are bounded by [`MAX_EDGE_STREAMS`].
pub(super) const STREAM_COST: usize = 512 * 1024;
/// Largest message of a module, in bytes.
const MAX_MESSAGE: usize = 16 * 1024;
/// Largest message to a module, in bytes.
const MAX_SENT_MESSAGE: usize = 256 * 1024;
/// Time for the first message of a module.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time without a Tick.
const MAX_SILENCE: Duration = Duration::from_secs(10);
/// Longest time for a module to read a message.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two Ticks that a module is asked for.
const TICK_INTERVAL: Duration = Duration::from_millis(500);
/// Most Ticks within a second.
const MAX_TICKS_A_SECOND: u32 = 20;
/// Shortest time between two pushes: changes that come meanwhile are sent together.
const PUSH_INTERVAL: Duration = Duration::from_millis(5);
/// Most changes in one message.
const MAX_CHANGES: usize = 4_096;
/// Most Asks without an answer.
const MAX_ASKS_IN_FLIGHT: u32 = 64;
/// Most rows of one Used.
const MAX_USED_ROWS: usize = 64;
/// Most entries that a module should hold.
const MAX_ENTRIES: u64 = 100_000;
/// Most bytes that a module should hold.
const MAX_ENTRY_BYTES: u64 = 256 * 1024 * 1024;

/// Permission to serve one stream.
pub(super) struct Admitted {
    authorization: Rc<AuthorizationService>,
    permit: OwnedSemaphorePermit,
}

/// Admits a module, by the user id of its process.
///
/// # Errors
/// The status that the module is sent.
pub(super) fn admit(
    authorization: &Rc<AuthorizationService>,
    peer_uid: Option<u32>,
) -> Result<Admitted, Status> {
    let metrics = &authorization.metrics.edge;
    let refuse = |reason: &'static str, status: Status| {
        metrics.ended(reason);
        status
    };
    if !authorization.service.snapshot().authz.edge.enabled {
        return Err(refuse("disabled", Status::unimplemented("authz.edge.enabled is false")));
    }
    let Some(uid) = peer_uid else {
        let text = "modules are served on a Unix socket only: set serve.authz.socket";
        return Err(refuse("not_unix", Status::unimplemented(text)));
    };
    if !is_trusted(uid, rustix::process::geteuid().as_raw()) {
        let text = "modules are served to the server's own user and to root only: run Envoy as the same user";
        return Err(refuse("user", Status::permission_denied(text)));
    }
    match authorization.edge_streams.clone().try_acquire_owned() {
        Ok(permit) => Ok(Admitted { authorization: Rc::clone(authorization), permit }),
        Err(_) => {
            let text = format!("{MAX_EDGE_STREAMS} modules are served already");
            Err(refuse("too_many", Status::resource_exhausted(text)))
        }
    }
}

/// Returns true if a process of this user could read the server's memory anyway.
const fn is_trusted(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_and_root_are_trusted() {
        for (peer, own, expected) in [
            (1_000, 1_000, true),
            (0, 1_000, true),
            (1_001, 1_000, false),
            (1_000, 0, false),
            (65_534, 0, false),
            (0, 0, true),
        ] {
            assert_eq!(is_trusted(peer, own), expected, "{peer} {own}");
        }
    }
}
