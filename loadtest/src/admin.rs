//! A round of admin operations in a realistic mix: most are verifications.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::LoadError;
use crate::http::Http;
use crate::key_file::{ISSUED, new_key_request};
use crate::stats::{Outcome, Snapshot, Window};

#[derive(Args)]
pub(crate) struct Options {
    /// Address of the admin plane, which must also serve selfRevoke.
    #[arg(long)]
    admin: String,
    /// Connections, each with one operation at a time.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Duration of the round.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Only this operation instead of the mix.
    #[arg(long)]
    only: Option<Operation>,
    /// Processes whose CPU time is reported.
    #[arg(long)]
    pid: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Operation {
    Verify,
    Issue,
    Derive,
    Rotate,
    List,
    SelfRevoke,
}

/// Operations and their share in percent.
const MIX: [(Operation, u32); 6] = [
    (Operation::Verify, 70),
    (Operation::Derive, 10),
    (Operation::Issue, 8),
    (Operation::List, 6),
    (Operation::Rotate, 3),
    (Operation::SelfRevoke, 3),
];

struct Round {
    only: Option<Operation>,
    outcomes: RefCell<BTreeMap<Operation, Outcome>>,
    all: RefCell<Outcome>,
    over: Cell<bool>,
    n: Cell<usize>,
}

/// Runs the round.
pub(crate) async fn run(options: Options) -> Result<Value, LoadError> {
    let round = Rc::new(Round {
        only: options.only,
        outcomes: RefCell::default(),
        all: RefCell::new(Outcome::new()),
        over: Cell::new(false),
        n: Cell::new(0),
    });
    let mut workers = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..options.connections {
        let mut admin = Http::connect(&options.admin).await?;
        clients.push(Client { keys: vec![issue(&mut admin, 0).await?], admin });
    }
    let snapshot = Snapshot::take(&options.pid);
    for mut client in clients {
        let round = Rc::clone(&round);
        workers.push(tokio::task::spawn_local(async move {
            while !round.over.get() {
                let n = round.n.replace(round.n.get() + 1);
                let operation = round.only.unwrap_or_else(|| pick_operation(n));
                let started = Instant::now();
                let done = client.perform(operation, n).await;
                round.record(operation, done, started.elapsed());
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    round.over.set(true);
    let window = snapshot.window();
    let report = round.report(&window);
    for worker in workers {
        worker.await?;
    }
    Ok(report)
}

/// Picks the operation of a request number, spread so that no kind comes in a row.
fn pick_operation(n: usize) -> Operation {
    let mut position = (n * 37 % 100) as u32;
    for (operation, share) in MIX {
        if position < share {
            return operation;
        }
        position -= share;
    }
    Operation::Verify
}

impl Round {
    fn report(&self, window: &Window) -> Value {
        let mut report = self.all.borrow().report(window);
        let each = self.outcomes.borrow();
        let each = each
            .iter()
            .map(|(operation, outcome)| (format!("{operation:?}").to_lowercase(), outcome.report(window)));
        report["operations"] = each.collect::<serde_json::Map<_, _>>().into();
        report
    }

    fn record(&self, operation: Operation, done: Result<(), LoadError>, latency: Duration) {
        let mut outcomes = self.outcomes.borrow_mut();
        let one = outcomes.entry(operation).or_insert_with(Outcome::new);
        let mut all = self.all.borrow_mut();
        match done {
            Ok(()) => {
                one.succeeded(true, latency);
                all.succeeded(true, latency);
            }
            Err(error) => {
                one.wrong(|| error.to_string());
                all.wrong(|| error.to_string());
            }
        }
    }
}

/// A connection and the keys issued over it. The first key is never rotated or revoked.
struct Client {
    admin: Http,
    keys: Vec<(String, String)>,
}

impl Client {
    async fn perform(&mut self, operation: Operation, n: usize) -> Result<(), LoadError> {
        match operation {
            Operation::Verify => {
                let (id, secret) = self.keys[n % self.keys.len()].clone();
                let verified = self.verify(&secret).await?;
                let named = verified["key_id"] == id.as_str();
                expect(verified["is_valid"] == true && named, "a valid key was refused", &verified)
            }
            Operation::Issue => {
                let key = issue(&mut self.admin, n).await?;
                if self.keys.len() < 100 {
                    self.keys.push(key);
                }
                Ok(())
            }
            Operation::Derive => {
                let body =
                    json!({ "credential": self.keys[0].1, "algorithm": "TOKEN_ALGORITHM_JWT", "ttl": "60s" });
                let derived =
                    self.admin.call("POST", "/v2alpha1/admin/apiKeys:derive", Some(&body), 200).await?;
                let token = derived.pointer("/token/token").and_then(Value::as_str).unwrap_or_default();
                expect(token.starts_with("eyJ"), "no token", &derived)
            }
            Operation::List => {
                let listed = self.admin.call("GET", &format!("{ISSUED}?page_size=50"), None, 200).await?;
                let some = listed["issued_api_keys"].as_array().is_some_and(|keys| !keys.is_empty());
                expect(some, "an empty list", &listed)
            }
            Operation::Rotate => {
                let (id, secret) = self.disposable_key(n).await?;
                let path = format!("{ISSUED}/{id}:rotate");
                let rotated = self.admin.call("POST", &path, Some(&json!({})), 201).await?;
                let new = rotated["secret"].as_str().ok_or("a rotation without a secret")?.to_owned();
                let (old, new) = (self.verify(&secret).await?, self.verify(&new).await?);
                expect(old["is_valid"] == false, "a rotated key is still valid", &old)?;
                expect(new["is_valid"] == true, "the new key of a rotation is invalid", &new)
            }
            Operation::SelfRevoke => {
                let (_, secret) = self.disposable_key(n).await?;
                let body = json!({ "credential": secret });
                self.admin.call("POST", "/v2alpha1/apiKeys:selfRevoke", Some(&body), 200).await?;
                let verified = self.verify(&secret).await?;
                expect(verified["is_valid"] == false, "a revoked key is still valid", &verified)
            }
        }
    }

    /// Returns a key that may be rotated or revoked.
    async fn disposable_key(&mut self, n: usize) -> Result<(String, String), LoadError> {
        match self.keys.len() {
            0 | 1 => issue(&mut self.admin, n).await,
            _ => self.keys.pop().ok_or_else(|| "no key".into()),
        }
    }

    async fn verify(&mut self, secret: &str) -> Result<Value, LoadError> {
        let body = json!({ "credential": secret });
        self.admin.call("POST", "/v2alpha1/admin/apiKeys:verify", Some(&body), 200).await
    }
}

fn expect(is_expected: bool, problem: &str, response: &Value) -> Result<(), LoadError> {
    if is_expected { Ok(()) } else { Err(format!("{problem}: {response}").into()) }
}

async fn issue(admin: &mut Http, n: usize) -> Result<(String, String), LoadError> {
    let issued = admin.call("POST", ISSUED, Some(&new_key_request(n)), 201).await?;
    let text = |at: &str| issued.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((text("/issued_api_key/key_id"), text("/secret")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_operations_are_the_mix() {
        for (operation, share) in MIX {
            assert_eq!((0..100).filter(|n| pick_operation(*n) == operation).count(), share as usize);
        }
    }
}
