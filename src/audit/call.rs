//! One call that changes something or shows a secret, from its intent to its outcome.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value, json};

use super::{Audit, Unrecorded, network as network_json, object, trace};
use crate::caller::Caller;
use crate::error::{ApiError, Reason};
use crate::event::{Occurrence, Operation};
use crate::key::{KeyId, NetworkId};

/// Whose call it is.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Its caller, as the transport has proven it; None where nobody has to say who they are.
    pub caller: Option<Caller>,
    /// The client's address, from where the settings say.
    pub client: Option<IpAddr>,
    /// The other end of the connection.
    pub peer: Option<IpAddr>,
    /// The caller's own number for it, or one that we made.
    pub request_id: String,
}

impl Origin {
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

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The HTTP status of the answer.
    pub status: u16,
    /// What was wrong, if something was.
    pub reason: Option<Reason>,
}

/// A call that is recorded.
pub struct Call {
    audit: Arc<Audit>,
    operation: Operation,
    origin: Origin,
    known: Mutex<Known>,
}

/// What is known of a call by now.
#[derive(Default)]
struct Known {
    intent: Option<u64>,
    network: Option<NetworkId>,
    keys: Vec<KeyId>,
    occurrences: Vec<Occurrence>,
}

impl Call {
    /// A call that begins.
    pub fn new(audit: Arc<Audit>, operation: Operation, origin: Origin) -> Self {
        Self { audit, operation, origin, known: Mutex::default() }
    }

    /// What is asked for.
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// Whose it is.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Records what is about to be done, before it is.
    ///
    /// # Errors
    /// When that can't be recorded: then it must not be done.
    pub async fn intend(&self, network: NetworkId, keys: Vec<KeyId>) -> Result<(), ApiError> {
        let line = {
            let mut known = self.known();
            known.network = Some(network);
            known.keys = keys;
            self.line("intent", &known)
        };
        let Some(log) = self.audit.log() else {
            return Ok(());
        };
        let number = log.write(line, false).await.map_err(unrecorded)?;
        self.known().intent = Some(number);
        Ok(())
    }

    /// Says which keys it was about in the end.
    pub fn concerns(&self, keys: Vec<KeyId>) {
        self.known().keys = keys;
    }

    /// Notes what came of it.
    pub fn happened(&self, occurrence: Occurrence) {
        let occurrence = occurrence.with("Operation", Some(self.operation.name()));
        trace(&occurrence);
        self.known().occurrences.push(occurrence);
    }

    /// Records how it ended, before that is answered.
    ///
    /// # Errors
    /// When that can't be recorded.
    pub async fn close(&self, ended: Ended) -> Result<(), ApiError> {
        let Some(log) = self.audit.log() else {
            return Ok(());
        };
        let line = {
            let known = self.known();
            let was_begun = known.intent.is_some();
            if !was_begun && self.operation == Operation::SelfRevoke {
                // Anybody may ask for that: strangers must not fill the disk. Their failures are counted elsewhere.
                return Ok(());
            }
            let outcome = match ended.status {
                ..400 => "success",
                400..500 => "refused",
                // Whether it was done before it failed can't be told.
                _ if was_begun => "unknown",
                _ => "failed",
            };
            let mut line = self.line("outcome", &known);
            line.extend(object([
                ("intent", known.intent.into()),
                ("outcome", outcome.into()),
                ("status", ended.status.into()),
                ("reason", ended.reason.map(Reason::name).into()),
            ]));
            let events: Vec<Value> = known.occurrences.iter().map(Occurrence::to_json).collect();
            if !events.is_empty() {
                line.insert("events".to_owned(), events.into());
            }
            line
        };
        let was_begun = line.contains_key("intent");
        match log.write(line, was_begun).await {
            Ok(number) => {
                log.told(number).await;
                Ok(())
            }
            // Nothing was done, and the caller is told so.
            Err(Unrecorded) if !was_begun => Ok(()),
            Err(Unrecorded) => {
                let problem =
                    "it may have been done, but the audit log can't be written; look before you try again";
                Err(ApiError::new(Reason::ServiceUnavailable, problem))
            }
        }
    }

    fn line(&self, kind: &'static str, known: &Known) -> Map<String, Value> {
        let mut line = object([
            ("kind", kind.into()),
            ("operation", self.operation.name().into()),
            ("network", known.network.map_or(Value::Null, network_json)),
        ]);
        if !known.keys.is_empty() {
            line.insert("keys".to_owned(), known.keys.iter().map(ToString::to_string).collect());
        }
        line.extend(object(self.origin.members()));
        line
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

fn unrecorded(Unrecorded: Unrecorded) -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, "nothing was done: the audit log can't be written")
}
