//! One call that changes something or returns a secret, from its intent to its outcome.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value, json};

use super::{Audit, WriteFailed, network as network_json, object, trace};
use crate::caller::Caller;
use crate::error::{ApiError, Reason};
use crate::event::{Occurrence, Operation};
use crate::key::{KeyId, NetworkId};

/// Origin of a call.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Authenticated caller. `None` where callers need not authenticate.
    pub caller: Option<Caller>,
    /// The client's address, from the configured source.
    pub client: Option<IpAddr>,
    /// Address of the connection's peer.
    pub peer: Option<IpAddr>,
    /// The request id of the client, or a generated one.
    pub request_id: String,
}

impl Origin {
    /// Returns the caller's name for the records of keys and actors; `None` if nothing proves it.
    pub fn verified_caller(&self) -> Option<Arc<str>> {
        self.caller.as_ref().and_then(Caller::verified_name)
    }

    fn members(&self) -> [(&'static str, Value); 4] {
        let caller = match &self.caller {
            Some(caller) => {
                json!({ "name": caller.name, "proof": caller.proof.name(), "role": caller.role.name() })
            }
            None => json!({ "name": "anonymous", "proof": "none" }),
        };
        let address =
            |address: Option<IpAddr>| address.map_or(Value::Null, |address| address.to_string().into());
        [
            ("caller", caller),
            ("client_address", address(self.client)),
            ("peer_address", address(self.peer)),
            ("request_id", self.request_id.clone().into()),
        ]
    }
}

/// Outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// HTTP status of the response.
    pub status: u16,
    /// Error reason, if it failed.
    pub reason: Option<Reason>,
}

/// A call that is recorded.
pub struct Call {
    audit: Arc<Audit>,
    operation: Operation,
    origin: Origin,
    state: Mutex<CallState>,
}

/// State of a call so far.
#[derive(Default)]
struct CallState {
    intent: Option<u64>,
    network: Option<NetworkId>,
    keys: Vec<KeyId>,
    occurrences: Vec<Occurrence>,
    confirmed: Vec<Occurrence>,
}

impl Call {
    /// Begins a call.
    pub fn new(audit: Arc<Audit>, operation: Operation, origin: Origin) -> Self {
        Self { audit, operation, origin, state: Mutex::default() }
    }

    /// Returns the operation.
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// Returns the origin.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Records the intent of the call, before anything is done.
    ///
    /// # Errors
    /// Fails if that can't be written. Then nothing must be done.
    pub async fn record_intent(&self, network: NetworkId, keys: Vec<KeyId>) -> Result<(), ApiError> {
        let line = {
            let mut state = self.state();
            state.network = Some(network);
            state.keys = keys;
            self.line("intent", &state)
        };
        let Some(log) = self.audit.log() else {
            return Ok(());
        };
        let number = log.write(line, false).await.map_err(nothing_done)?;
        self.state().intent = Some(number);
        Ok(())
    }

    /// Sets the keys that the call is about, once they are known.
    pub fn set_keys(&self, keys: Vec<KeyId>) {
        self.state().keys = keys;
    }

    /// Records an event of the call.
    pub fn record_event(&self, occurrence: Occurrence) {
        let occurrence = occurrence.with("Operation", Some(self.operation.name()));
        trace(&occurrence);
        self.state().occurrences.push(occurrence);
    }

    /// Records a change that the call finds done already.
    pub(super) fn confirm(&self, occurrence: Occurrence) {
        self.state().confirmed.push(occurrence);
    }

    /// Records the outcome, before the call is answered.
    ///
    /// # Errors
    /// Fails if that can't be written, although something may have been done.
    pub async fn record_outcome(&self, result: Outcome) -> Result<(), ApiError> {
        let Some(log) = self.audit.log() else {
            return Ok(());
        };
        let line = {
            let state = self.state();
            let has_intent = state.intent.is_some();
            if !has_intent && self.operation == Operation::SelfRevoke {
                // Anybody may call this. Strangers must not fill the disk; their failures are
                // counted elsewhere.
                return Ok(());
            }
            let outcome = match result.status {
                ..400 => "success",
                400..500 => "refused",
                // The change may have been made before the call failed.
                _ if has_intent => "unknown",
                _ => "failed",
            };
            let mut line = self.line("outcome", &state);
            line.extend(object([
                ("intent", state.intent.into()),
                ("outcome", outcome.into()),
                ("status", result.status.into()),
                ("reason", result.reason.map(Reason::name).into()),
            ]));
            for (member, occurrences) in [("events", &state.occurrences), ("confirmed", &state.confirmed)] {
                let events: Vec<Value> = occurrences.iter().map(Occurrence::to_json).collect();
                if !events.is_empty() {
                    line.insert(member.to_owned(), events.into());
                }
            }
            line
        };
        let has_intent = line.contains_key("intent");
        match log.write(line, has_intent).await {
            Ok(number) => {
                log.wait_for_head(number).await;
                Ok(())
            }
            // Nothing was done, and the response says so.
            Err(WriteFailed) if !has_intent => Ok(()),
            Err(WriteFailed) => {
                let problem =
                    "it may have been done, but the audit log can't be written; look before you try again";
                Err(ApiError::new(Reason::ServiceUnavailable, problem))
            }
        }
    }

    fn line(&self, kind: &'static str, state: &CallState) -> Map<String, Value> {
        let mut line = object([
            ("kind", kind.into()),
            ("operation", self.operation.name().into()),
            ("network", state.network.map_or(Value::Null, network_json)),
        ]);
        if !state.keys.is_empty() {
            line.insert("keys".to_owned(), state.keys.iter().map(ToString::to_string).collect());
        }
        line.extend(object(self.origin.members()));
        line
    }

    fn state(&self) -> MutexGuard<'_, CallState> {
        self.state.lock()
    }
}

fn nothing_done(WriteFailed: WriteFailed) -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, "nothing was done: the audit log can't be written")
}
