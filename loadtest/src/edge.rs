//! A round of HTTP requests through Envoy.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use crate::Failure;
use crate::http::Http;
use crate::keys;
use crate::mix::{Expected, Mix, MixOptions};
use crate::outcome::{Look, Outcome};
use crate::pace;

#[derive(Args)]
pub struct Options {
    /// Address of Envoy's listener.
    #[arg(long)]
    target: String,
    /// Keys, as `loadtest keys` wrote them.
    #[arg(long)]
    keys: PathBuf,
    #[command(flatten)]
    mix: MixOptions,
    /// HTTP/1.1 connections, each with one request at a time.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests a second, each begun when it is due; without, each begins when one has ended.
    #[arg(long)]
    rate: Option<f64>,
    /// How long the round goes on.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How long it goes on before anything is counted.
    #[arg(long, default_value_t = 0.5)]
    warm: f64,
    /// Processes whose CPU time is told.
    #[arg(long)]
    pid: Vec<u32>,
    /// Every request passes, whatever it shows.
    #[arg(long)]
    always_ok: bool,
}

struct Round {
    mix: Mix,
    outcome: RefCell<Outcome>,
    always_ok: bool,
    counting: Cell<bool>,
    over: Cell<bool>,
}

/// Runs the round.
pub async fn run(options: Options) -> Result<Value, Failure> {
    let round = Rc::new(Round {
        mix: Mix::new(options.mix, keys::read(&options.keys)?)?,
        outcome: RefCell::new(Outcome::new()),
        always_ok: options.always_ok,
        counting: Cell::new(false),
        over: Cell::new(false),
    });
    let starts = options.rate.map(|rate| Rc::new(tokio::sync::Mutex::new(pace::starts(rate))));
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
                round.ask(&mut connection, intended).await;
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs_f64(options.warm)).await;
    let look = Look::now(&options.pid);
    round.counting.set(true);
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    round.counting.set(false);
    round.over.set(true);
    let told = round.outcome.borrow().tell(&look.until_now());
    for worker in workers {
        worker.await?;
    }
    Ok(told)
}

impl Round {
    async fn ask(&self, connection: &mut Http, intended: Instant) {
        let shown = self.mix.draw();
        let bearer = format!("Bearer {}", shown.credential);
        let headers = [
            ("authorization", bearer.as_str()),
            ("accept", "application/json"),
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
            ("cookie", "theme=dark; consent=1"),
        ];
        let answer = connection.send("GET", "/v1/orders/4711/items?page=2", &headers, None).await;
        let latency = intended.elapsed();
        let mut outcome = self.outcome.borrow_mut();
        let status = match answer {
            Ok((status, _)) => status,
            Err(error) => return outcome.failed(|| error.to_string()),
        };
        let expected = if self.always_ok { Expected::Allowed } else { self.mix.expected(shown.owner) };
        let right = match expected {
            Expected::Allowed => status == 200,
            Expected::Refused => status == 401,
            Expected::Either => status == 200 || status == 401,
        };
        if !right {
            return outcome.wrong(|| format!("{:?}: {status}", shown.owner));
        }
        if self.counting.get() {
            outcome.right(status == 200, latency);
        }
    }
}
