//! A round of one kind of change, by many clients of many networks, beside the revocations of a
//! network that does nothing else.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::LoadError;
use crate::http::Http;
use crate::key_file::{ISSUED, new_key_request, revoke};
use crate::stats::{Outcome, Snapshot};

/// Pause between two revocations of the network that does nothing else.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Args)]
pub(crate) struct Options {
    /// Address of the admin plane.
    #[arg(long)]
    admin: String,
    /// The kind of change.
    #[arg(long)]
    kind: Kind,
    /// Connections, each with one request at a time.
    #[arg(long)]
    clients: usize,
    /// Host names of networks, which the requests go to in turn.
    #[arg(long, value_delimiter = ',', required = true)]
    hosts: Vec<String>,
    /// Host name of the network whose revocations are timed.
    #[arg(long)]
    quiet_host: String,
    /// Duration of the round.
    #[arg(long)]
    seconds: f64,
    /// Processes whose CPU time is reported.
    #[arg(long)]
    pid: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Issues a key.
    Issue,
    /// Issues a key and revokes it: one change each.
    Revoke,
    /// Rotates a key: one change.
    Rotate,
}

struct Round {
    kind: Kind,
    hosts: Vec<String>,
    changes: RefCell<Outcome>,
    /// Revocations of the network that does nothing else.
    quiet: RefCell<Outcome>,
    over: Cell<bool>,
    n: Cell<usize>,
}

/// Runs the round.
pub(crate) async fn run(options: Options) -> Result<Value, LoadError> {
    let round = Rc::new(Round {
        kind: options.kind,
        hosts: options.hosts,
        changes: RefCell::new(Outcome::new()),
        quiet: RefCell::new(Outcome::new()),
        over: Cell::new(false),
        n: Cell::new(0),
    });
    let mut clients = vec![];
    for _ in 0..options.clients {
        clients.push(Client { admin: Http::connect(&options.admin).await?, key: None });
    }
    let quiet = Http::connect(&options.admin).await?.with_host(&options.quiet_host);
    let snapshot = Snapshot::take(&options.pid);
    let mut workers = vec![tokio::task::spawn_local(revoke_quietly(Rc::clone(&round), quiet))];
    for mut client in clients {
        let round = Rc::clone(&round);
        workers.push(tokio::task::spawn_local(async move {
            while !round.over.get() {
                if let Err(error) = client.change(&round).await {
                    round.changes.borrow_mut().wrong(|| error.to_string());
                }
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    round.over.set(true);
    let window = snapshot.window();
    let mut report = round.changes.borrow().report(&window);
    for worker in workers {
        worker.await?;
    }
    report["quiet"] = round.quiet.borrow().report(&window);
    Ok(report)
}

/// Issues and revokes keys of a network, and records how long the revocations take.
async fn revoke_quietly(round: Rc<Round>, mut admin: Http) {
    while !round.over.get() {
        let revoked = async {
            let id = issue(&mut admin, 0).await?;
            let started = Instant::now();
            revoke(&mut admin, &id).await?;
            Ok::<_, LoadError>(started.elapsed())
        };
        match revoked.await {
            Ok(latency) => round.quiet.borrow_mut().succeeded(true, latency),
            Err(error) => round.quiet.borrow_mut().wrong(|| error.to_string()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A connection, and the key that it rotates next, with its network.
struct Client {
    admin: Http,
    key: Option<(String, String)>,
}

impl Client {
    /// Makes one or two changes, and records each.
    async fn change(&mut self, round: &Round) -> Result<(), LoadError> {
        let n = round.n.replace(round.n.get() + 1);
        let host = round.hosts[n % round.hosts.len()].clone();
        let record = |started: Instant| round.changes.borrow_mut().succeeded(true, started.elapsed());
        if let (Kind::Rotate, Some((host, id))) = (round.kind, self.key.take()) {
            self.admin.set_host(&host);
            let started = Instant::now();
            let path = format!("{ISSUED}/{id}:rotate");
            let rotated = self.admin.call("POST", &path, Some(&json!({})), 201).await?;
            record(started);
            self.key = Some((host, key_id(&rotated)?));
            return Ok(());
        }
        self.admin.set_host(&host);
        let started = Instant::now();
        let id = issue(&mut self.admin, n).await?;
        record(started);
        if round.kind == Kind::Revoke {
            let started = Instant::now();
            revoke(&mut self.admin, &id).await?;
            record(started);
        }
        self.key = Some((host, id));
        Ok(())
    }
}

async fn issue(admin: &mut Http, n: usize) -> Result<String, LoadError> {
    key_id(&admin.call("POST", ISSUED, Some(&new_key_request(n)), 201).await?)
}

fn key_id(answer: &Value) -> Result<String, LoadError> {
    let id = answer.pointer("/issued_api_key/key_id").and_then(Value::as_str);
    Ok(id.ok_or("an answer without a key's id")?.to_owned())
}
