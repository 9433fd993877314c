//! A round of admin operations, mixed as a service that lives from them would: most are verifications.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::Failure;
use crate::http::Http;
use crate::keys::{ISSUED, wish};
use crate::outcome::{Look, Outcome, Window};

#[derive(Args)]
pub struct Options {
    /// Address of the admin plane, which must have selfRevoke, too.
    #[arg(long)]
    admin: String,
    /// Connections, each with one operation at a time.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// How long the round goes on.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// One operation alone instead of the mix.
    #[arg(long)]
    only: Option<Operation>,
    /// Processes whose CPU time is told.
    #[arg(long)]
    pid: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Operation {
    Verify,
    Issue,
    Derive,
    Rotate,
    List,
    SelfRevoke,
}

/// Of a hundred operations.
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
pub async fn run(options: Options) -> Result<Value, Failure> {
    let round = Rc::new(Round {
        only: options.only,
        outcomes: RefCell::default(),
        all: RefCell::new(Outcome::new()),
        over: Cell::new(false),
        n: Cell::new(0),
    });
    let mut workers = Vec::new();
    let mut holders = Vec::new();
    for _ in 0..options.connections {
        let mut admin = Http::connect(&options.admin).await?;
        holders.push(Holder { keys: vec![issue(&mut admin, 0).await?], admin });
    }
    let look = Look::now(&options.pid);
    for mut holder in holders {
        let round = Rc::clone(&round);
        workers.push(tokio::task::spawn_local(async move {
            while !round.over.get() {
                let n = round.n.replace(round.n.get() + 1);
                let operation = round.only.unwrap_or_else(|| chosen(n));
                let begun = Instant::now();
                let done = holder.perform(operation, n).await;
                round.note(operation, done, begun.elapsed());
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    round.over.set(true);
    let window = look.until_now();
    let told = round.tell(&window);
    for worker in workers {
        worker.await?;
    }
    Ok(told)
}

/// Spread over the hundred, so that none comes in a run.
fn chosen(n: usize) -> Operation {
    let mut at = (n * 37 % 100) as u32;
    for (operation, share) in MIX {
        if at < share {
            return operation;
        }
        at -= share;
    }
    Operation::Verify
}

impl Round {
    fn tell(&self, window: &Window) -> Value {
        let mut told = self.all.borrow().tell(window);
        let each = self.outcomes.borrow();
        let each = each
            .iter()
            .map(|(operation, outcome)| (format!("{operation:?}").to_lowercase(), outcome.tell(window)));
        told["operations"] = each.collect::<serde_json::Map<_, _>>().into();
        told
    }

    fn note(&self, operation: Operation, done: Result<(), Failure>, latency: Duration) {
        let mut outcomes = self.outcomes.borrow_mut();
        let one = outcomes.entry(operation).or_insert_with(Outcome::new);
        let mut all = self.all.borrow_mut();
        match done {
            Ok(()) => {
                one.right(true, latency);
                all.right(true, latency);
            }
            Err(error) => {
                one.wrong(|| error.to_string());
                all.wrong(|| error.to_string());
            }
        }
    }
}

/// A connection and the keys that were issued over it: the first one stays.
struct Holder {
    admin: Http,
    keys: Vec<(String, String)>,
}

impl Holder {
    async fn perform(&mut self, operation: Operation, n: usize) -> Result<(), Failure> {
        match operation {
            Operation::Verify => {
                let (id, secret) = self.keys[n % self.keys.len()].clone();
                let verified = self.verify(&secret).await?;
                let named = verified["key_id"] == id.as_str();
                right(verified["is_valid"] == true && named, "a good key was refused", &verified)
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
                    self.admin.ask("POST", "/v2alpha1/admin/apiKeys:derive", Some(&body), 200).await?;
                let token = derived.pointer("/token/token").and_then(Value::as_str).unwrap_or_default();
                right(token.starts_with("eyJ"), "no token", &derived)
            }
            Operation::List => {
                let listed = self.admin.ask("GET", &format!("{ISSUED}?page_size=50"), None, 200).await?;
                let some = listed["issued_api_keys"].as_array().is_some_and(|keys| !keys.is_empty());
                right(some, "an empty list", &listed)
            }
            Operation::Rotate => {
                let (id, secret) = self.spare(n).await?;
                let path = format!("{ISSUED}/{id}:rotate");
                let rotated = self.admin.ask("POST", &path, Some(&json!({})), 201).await?;
                let new = rotated["secret"].as_str().ok_or("a rotation without a secret")?.to_owned();
                let (old, new) = (self.verify(&secret).await?, self.verify(&new).await?);
                right(old["is_valid"] == false, "a rotated key is still good", &old)?;
                right(new["is_valid"] == true, "the key after a rotation isn't good", &new)
            }
            Operation::SelfRevoke => {
                let (_, secret) = self.spare(n).await?;
                let body = json!({ "credential": secret });
                self.admin.ask("POST", "/v2alpha1/apiKeys:selfRevoke", Some(&body), 200).await?;
                let verified = self.verify(&secret).await?;
                right(verified["is_valid"] == false, "a revoked key is still good", &verified)
            }
        }
    }

    /// A key that may go.
    async fn spare(&mut self, n: usize) -> Result<(String, String), Failure> {
        match self.keys.len() {
            0 | 1 => issue(&mut self.admin, n).await,
            _ => self.keys.pop().ok_or_else(|| "no key".into()),
        }
    }

    async fn verify(&mut self, secret: &str) -> Result<Value, Failure> {
        let body = json!({ "credential": secret });
        self.admin.ask("POST", "/v2alpha1/admin/apiKeys:verify", Some(&body), 200).await
    }
}

fn right(is_right: bool, problem: &str, answer: &Value) -> Result<(), Failure> {
    if is_right { Ok(()) } else { Err(format!("{problem}: {answer}").into()) }
}

async fn issue(admin: &mut Http, n: usize) -> Result<(String, String), Failure> {
    let issued = admin.ask("POST", ISSUED, Some(&wish(n)), 201).await?;
    let text = |at: &str| issued.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((text("/issued_api_key/key_id"), text("/secret")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_operations_are_the_mix() {
        for (operation, share) in MIX {
            assert_eq!((0..100).filter(|n| chosen(*n) == operation).count(), share as usize);
        }
    }
}
