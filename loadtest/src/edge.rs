//! A round of HTTP requests through Envoy.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use crate::LoadError;
use crate::http::Http;
use crate::key_file;
use crate::open_loop;
use crate::stats::{Outcome, Snapshot};
use crate::workload::{Expected, Workload, WorkloadOptions};

#[derive(Args)]
pub(crate) struct Options {
    /// Address of Envoy's listener.
    #[arg(long)]
    target: String,
    /// File of keys, written by `loadtest keys`.
    #[arg(long)]
    keys: PathBuf,
    #[command(flatten)]
    workload: WorkloadOptions,
    /// HTTP/1.1 connections, each with one request at a time.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests per second (open loop); without it each request starts when another ends.
    #[arg(long)]
    rate: Option<f64>,
    /// Duration of the round, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Warm-up before the measurement, in seconds.
    #[arg(long, default_value_t = 0.5)]
    warm: f64,
    /// Processes whose CPU time is reported.
    #[arg(long)]
    pid: Vec<u32>,
    /// Expect every request to be allowed.
    #[arg(long)]
    always_ok: bool,
}

struct Round {
    workload: Workload,
    outcome: RefCell<Outcome>,
    always_ok: bool,
    counting: Cell<bool>,
    over: Cell<bool>,
}

/// Runs the round.
pub(crate) async fn run(options: Options) -> Result<Value, LoadError> {
    let round = Rc::new(Round {
        workload: Workload::new(options.workload, key_file::read(&options.keys)?)?,
        outcome: RefCell::new(Outcome::new()),
        always_ok: options.always_ok,
        counting: Cell::new(false),
        over: Cell::new(false),
    });
    let starts = options.rate.map(|rate| Rc::new(tokio::sync::Mutex::new(open_loop::intended_starts(rate))));
    let mut workers = Vec::new();
    for _ in 0..options.connections {
        let mut connection = Http::connect(&options.target).await?;
        let (round, starts) = (Rc::clone(&round), starts.clone());
        workers.push(tokio::task::spawn_local(async move {
            while !round.over.get() {
                let intended = match &starts {
                    Some(starts) => starts.lock().await.recv().await.unwrap_or_else(Instant::now),
                    None => Instant::now(),
                };
                round.check(&mut connection, intended).await;
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs_f64(options.warm)).await;
    let snapshot = Snapshot::take(&options.pid);
    round.counting.set(true);
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    round.counting.set(false);
    round.over.set(true);
    let report = round.outcome.borrow().report(&snapshot.window());
    for worker in workers {
        worker.await?;
    }
    Ok(report)
}

impl Round {
    async fn check(&self, connection: &mut Http, intended: Instant) {
        let request = self.workload.draw();
        let bearer = format!("Bearer {}", request.credential);
        let headers = [
            ("authorization", bearer.as_str()),
            ("accept", "application/json"),
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
            ("cookie", "theme=dark; consent=1"),
        ];
        let response = connection.send("GET", "/v1/orders/4711/items?page=2", &headers, None).await;
        let latency = intended.elapsed();
        let mut outcome = self.outcome.borrow_mut();
        let status = match response {
            Ok((status, _)) => status,
            Err(error) => return outcome.failed(|| error.to_string()),
        };
        let expected = if self.always_ok { Expected::Allowed } else { self.workload.expected(request.owner) };
        let is_correct = match expected {
            Expected::Allowed => status == 200,
            Expected::Refused => status == 401,
            Expected::Either => status == 200 || status == 401,
        };
        if !is_correct {
            return outcome.wrong(|| format!("{:?}: {status}", request.owner));
        }
        if self.counting.get() {
            outcome.succeeded(status == 200, latency);
        }
    }
}
