//! A round of Checks.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use clap::Args;
use h2::client::SendRequest;
use serde_json::Value;

use crate::LoadError;
use crate::check_response::CheckResponse;
use crate::http::Http;
use crate::key_file;
use crate::open_loop;
use crate::request::Requests;
use crate::stats::{Outcome, Snapshot};
use crate::target::Target;
use crate::workload::{Expected, Owner, Request, State, Workload, WorkloadOptions};

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Timeout of a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct Options {
    /// Address of the server, or `unix:` and the path of its socket.
    #[arg(long)]
    target: Target,
    /// File of keys, written by `loadtest keys`.
    #[arg(long)]
    keys: PathBuf,
    #[command(flatten)]
    workload: WorkloadOptions,
    /// HTTP/2 connections.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Concurrent Checks per connection; with --rate their maximum.
    #[arg(long, default_value_t = 16)]
    streams: usize,
    /// Checks per second over all connections (open loop); without it each Check starts when
    /// another ends.
    #[arg(long)]
    rate: Option<f64>,
    /// Duration of the round, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Number of Checks, instead of a duration.
    #[arg(long)]
    count: Option<u64>,
    /// Send each active key once, in order.
    #[arg(long, conflicts_with_all = ["count", "rate", "touch"])]
    once: bool,
    /// Warm-up before the measurement, in seconds.
    #[arg(long, default_value_t = 0.5)]
    warm: f64,
    /// Send each active key once before the round, to fill the cache.
    #[arg(long)]
    touch: bool,
    /// Processes whose CPU time is reported, the server first.
    #[arg(long)]
    pid: Vec<u32>,
    /// Expect every Check to be allowed, as by the floor server.
    #[arg(long)]
    always_ok: bool,
    /// Admin plane of the server.
    #[arg(long)]
    admin: Option<String>,
    /// Number of the most requested keys to revoke in the middle of the round.
    #[arg(long, default_value_t = 0, requires = "admin")]
    revoke: usize,
}

struct Round {
    workload: Workload,
    requests: RefCell<Requests>,
    outcome: RefCell<Outcome>,
    always_ok: bool,
    /// True while responses are counted.
    counting: Cell<bool>,
    /// Number of Checks that may still start.
    left: Cell<u64>,
    /// The next key, with --once.
    in_order: Option<Cell<usize>>,
}

/// Runs the round.
pub(crate) async fn run(options: Options) -> Result<Value, LoadError> {
    let round = Rc::new(Round {
        workload: Workload::new(options.workload, key_file::read(&options.keys)?)?,
        requests: RefCell::default(),
        outcome: RefCell::new(Outcome::new()),
        always_ok: options.always_ok,
        counting: Cell::new(false),
        left: Cell::new(u64::MAX),
        in_order: options.once.then(Cell::default),
    });
    let count = if options.once { Some(round.workload.active().len() as u64) } else { options.count };
    let mut senders = Vec::new();
    for _ in 0..options.connections {
        senders.push(connect(&options.target).await?);
    }
    if options.touch {
        touch(&round, &senders[0]).await?;
    }
    let snapshot = Rc::new(RefCell::new(Snapshot::take(&options.pid)));
    let start_measurement = || {
        *snapshot.borrow_mut() = Snapshot::take(&options.pid);
        round.counting.set(true);
    };
    match count {
        Some(count) => {
            round.left.set(count);
            start_measurement();
            let workers = spawn_workers(&round, &senders, &options);
            for worker in workers {
                worker.await?;
            }
        }
        None => {
            let workers = spawn_workers(&round, &senders, &options);
            tokio::time::sleep(Duration::from_secs_f64(options.warm)).await;
            start_measurement();
            let half = Duration::from_secs_f64(options.seconds / 2.0);
            tokio::time::sleep(half).await;
            if let Some(admin) = options.admin.as_ref().filter(|_| options.revoke > 0) {
                revoke(&round, admin, options.revoke).await?;
            }
            tokio::time::sleep(half).await;
            // Checks in flight are still verified, but not counted.
            round.left.set(0);
            let window = snapshot.borrow().window();
            let report = round.outcome.borrow().report(&window);
            for worker in workers {
                tokio::time::timeout(RESPONSE_TIMEOUT, worker)
                    .await
                    .map_err(|_| "a Check without a response")??;
            }
            return Ok(report);
        }
    }
    let window = snapshot.borrow().window();
    let report = round.outcome.borrow().report(&window);
    Ok(report)
}

fn spawn_workers(
    round: &Rc<Round>,
    senders: &[SendRequest<Bytes>],
    options: &Options,
) -> Vec<tokio::task::JoinHandle<()>> {
    match options.rate {
        Some(rate) => vec![tokio::task::spawn_local(open_loop(
            Rc::clone(round),
            senders.to_vec(),
            rate,
            options.streams,
        ))],
        None => {
            let senders = senders.iter().flat_map(|sender| std::iter::repeat_n(sender, options.streams));
            senders
                .map(|sender| tokio::task::spawn_local(closed_loop(Rc::clone(round), sender.clone())))
                .collect()
        }
    }
}

/// Opens a connection.
pub(crate) async fn connect(target: &Target) -> Result<SendRequest<Bytes>, LoadError> {
    let stream = target.connect().await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
    let (sender, connection) = builder.handshake(stream).await?;
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

async fn touch(round: &Rc<Round>, sender: &SendRequest<Bytes>) -> Result<(), LoadError> {
    let next = Rc::new(Cell::new(0));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (round, sender, next) = (Rc::clone(round), sender.clone(), Rc::clone(&next));
            tokio::task::spawn_local(async move {
                while next.get() < round.workload.active().len() {
                    let n = next.replace(next.get() + 1);
                    round.check(&sender, round.workload.key(n), Instant::now()).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await?;
    }
    Ok(())
}

async fn closed_loop(round: Rc<Round>, sender: SendRequest<Bytes>) {
    while round.begin() {
        let request = match &round.in_order {
            Some(next) => round.workload.key(next.replace(next.get() + 1)),
            None => round.workload.draw(),
        };
        round.check(&sender, request, Instant::now()).await;
    }
}

async fn open_loop(round: Rc<Round>, senders: Vec<SendRequest<Bytes>>, rate: f64, streams: usize) {
    let mut starts = open_loop::intended_starts(rate);
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(streams * senders.len()));
    let mut turn = senders.iter().cycle();
    while let Some(intended) = starts.recv().await {
        if !round.begin() {
            break;
        }
        let (Some(sender), Ok(permit)) =
            (turn.next().cloned(), std::sync::Arc::clone(&permits).acquire_owned().await)
        else {
            break;
        };
        let round = Rc::clone(&round);
        tokio::task::spawn_local(async move {
            let request = round.workload.draw();
            round.check(&sender, request, intended).await;
            drop(permit);
        });
    }
    // All permits returned: no Check is in flight.
    let all = u32::try_from(streams * senders.len()).unwrap_or(u32::MAX);
    let _ = permits.acquire_many(all).await;
}

async fn revoke(round: &Round, admin: &str, count: usize) -> Result<(), LoadError> {
    let mut admin = Http::connect(admin).await?;
    for n in 0..count.min(round.workload.active().len()) {
        round.workload.set_state(n, State::Revoking);
        key_file::revoke(&mut admin, &round.workload.active()[n].id).await?;
        round.workload.set_state(n, State::Revoked);
    }
    Ok(())
}

impl Round {
    fn begin(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    async fn check(&self, sender: &SendRequest<Bytes>, request: Request, intended: Instant) {
        let message = self.requests.borrow_mut().encode(&request.credential);
        let response = tokio::time::timeout(RESPONSE_TIMEOUT, call(sender, message)).await;
        let latency = intended.elapsed();
        let mut outcome = self.outcome.borrow_mut();
        let message = match response {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => return outcome.failed(|| error.to_string()),
            Err(_) => return outcome.failed(|| "no response in time".to_owned()),
        };
        let Some(response) = CheckResponse::decode(&message) else {
            return outcome.wrong(|| "not a CheckResponse".to_owned());
        };
        let is_allowed = response.is_allowed();
        if !self.is_expected(&response, request.owner) {
            return outcome
                .wrong(|| format!("{:?}: {:?}, is_allowed: {is_allowed}", request.owner, response.denied));
        }
        if self.counting.get() {
            outcome.succeeded(is_allowed, latency);
            if matches!(request.owner, Owner::Key(..)) && !is_allowed {
                outcome.refused_after_revocation();
            }
        }
    }

    fn is_expected(&self, response: &CheckResponse<'_>, owner: Owner) -> bool {
        if self.always_ok {
            return response.is_allowed();
        }
        let as_allowed = || match owner {
            Owner::Key(n, _) => response.is_allowed() && response.has_key_id(&self.workload.active()[n].id),
            Owner::Revoked | Owner::Unknown => false,
        };
        let as_refused = || response.denied == Some(401) && response.code == 16 && response.ok.is_none();
        match self.workload.expected(owner) {
            Expected::Allowed => as_allowed(),
            Expected::Refused => as_refused(),
            Expected::Either => as_allowed() || as_refused(),
        }
    }
}

/// Sends one Check and returns the message of the response.
pub(crate) async fn call(sender: &SendRequest<Bytes>, framed: Bytes) -> Result<Bytes, LoadError> {
    let mut sender = sender.clone().ready().await?;
    let request = http::Request::post(format!("http://talos{CHECK}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "200m")
        .body(())?;
    let (response, mut body) = sender.send_request(request, false)?;
    body.send_data(framed, true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut data = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        data.extend_from_slice(&part);
    }
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    let status = trailers.get("grpc-status").map(|status| status.as_bytes());
    if status != Some(b"0") {
        return Err(format!("grpc-status {:?}", status.map(String::from_utf8_lossy)).into());
    }
    if data.len() < 5 || data[0] != 0 {
        return Err("not a gRPC message".into());
    }
    Ok(data.split_off(5).freeze())
}
