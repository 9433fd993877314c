//! A round of Checks.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use clap::Args;
use h2::client::SendRequest;
use serde_json::Value;

use crate::Failure;
use crate::answer::Answer;
use crate::http::Http;
use crate::keys;
use crate::mix::{Expected, Mix, MixOptions, Owner, Shown, State};
use crate::outcome::{Look, Outcome};
use crate::pace;
use crate::request::Requests;
use crate::target::Target;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Longest time without an answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct Options {
    /// Address of the server, or `unix:` and its socket.
    #[arg(long)]
    target: Target,
    /// Keys, as `loadtest keys` wrote them.
    #[arg(long)]
    keys: PathBuf,
    #[command(flatten)]
    mix: MixOptions,
    /// HTTP/2 connections.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Checks of a connection that are under way at once; with --rate the most that may be.
    #[arg(long, default_value_t = 16)]
    streams: usize,
    /// Checks a second over all connections, each begun when it is due; without, each begins when one has ended.
    #[arg(long)]
    rate: Option<f64>,
    /// How long the round goes on.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How many Checks it has, instead.
    #[arg(long)]
    count: Option<u64>,
    /// Each good key once, in their order, is the whole round.
    #[arg(long, conflicts_with_all = ["count", "rate", "touch"])]
    once: bool,
    /// How long it goes on before anything is counted.
    #[arg(long, default_value_t = 0.5)]
    warm: f64,
    /// Asks for each good key once, before all else.
    #[arg(long)]
    touch: bool,
    /// Processes whose CPU time is told, beginning with the server's.
    #[arg(long)]
    pid: Vec<u32>,
    /// The server says OK to everything: the floor.
    #[arg(long)]
    always_ok: bool,
    /// Admin plane of the server.
    #[arg(long)]
    admin: Option<String>,
    /// How many of the most wanted keys to revoke in the middle of the round.
    #[arg(long, default_value_t = 0, requires = "admin")]
    revoke: usize,
}

struct Round {
    mix: Mix,
    requests: RefCell<Requests>,
    outcome: RefCell<Outcome>,
    always_ok: bool,
    /// Whether answers count.
    counting: Cell<bool>,
    /// How many more may begin.
    left: Cell<u64>,
    /// The next key, where each is asked for once.
    in_order: Option<Cell<usize>>,
}

/// Runs the round.
pub async fn run(options: Options) -> Result<Value, Failure> {
    let round = Rc::new(Round {
        mix: Mix::new(options.mix, keys::read(&options.keys)?)?,
        requests: RefCell::default(),
        outcome: RefCell::new(Outcome::new()),
        always_ok: options.always_ok,
        counting: Cell::new(false),
        left: Cell::new(u64::MAX),
        in_order: options.once.then(Cell::default),
    });
    let count = if options.once { Some(round.mix.good().len() as u64) } else { options.count };
    let mut senders = Vec::new();
    for _ in 0..options.connections {
        senders.push(connect(&options.target).await?);
    }
    if options.touch {
        touch(&round, &senders[0]).await?;
    }
    let look = Rc::new(RefCell::new(Look::now(&options.pid)));
    let begin = || {
        *look.borrow_mut() = Look::now(&options.pid);
        round.counting.set(true);
    };
    match count {
        Some(count) => {
            round.left.set(count);
            begin();
            let workers = spawn_workers(&round, &senders, &options);
            for worker in workers {
                worker.await?;
            }
        }
        None => {
            let workers = spawn_workers(&round, &senders, &options);
            tokio::time::sleep(Duration::from_secs_f64(options.warm)).await;
            begin();
            let half = Duration::from_secs_f64(options.seconds / 2.0);
            tokio::time::sleep(half).await;
            if let Some(admin) = options.admin.as_ref().filter(|_| options.revoke > 0) {
                revoke(&round, admin, options.revoke).await?;
            }
            tokio::time::sleep(half).await;
            // What is under way is checked, but no longer counted.
            round.left.set(0);
            let window = look.borrow().until_now();
            let told = round.outcome.borrow().tell(&window);
            for worker in workers {
                tokio::time::timeout(PATIENCE, worker).await.map_err(|_| "a Check without an answer")??;
            }
            return Ok(told);
        }
    }
    let window = look.borrow().until_now();
    let told = round.outcome.borrow().tell(&window);
    Ok(told)
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
pub async fn connect(target: &Target) -> Result<SendRequest<Bytes>, Failure> {
    let stream = target.connect().await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
    let (sender, connection) = builder.handshake(stream).await?;
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

async fn touch(round: &Rc<Round>, sender: &SendRequest<Bytes>) -> Result<(), Failure> {
    let next = Rc::new(Cell::new(0));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (round, sender, next) = (Rc::clone(round), sender.clone(), Rc::clone(&next));
            tokio::task::spawn_local(async move {
                while next.get() < round.mix.good().len() {
                    let n = next.replace(next.get() + 1);
                    round.ask(&sender, round.mix.key(n), Instant::now()).await;
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
    while round.begins() {
        let shown = match &round.in_order {
            Some(next) => round.mix.key(next.replace(next.get() + 1)),
            None => round.mix.draw(),
        };
        round.ask(&sender, shown, Instant::now()).await;
    }
}

async fn open_loop(round: Rc<Round>, senders: Vec<SendRequest<Bytes>>, rate: f64, streams: usize) {
    let mut starts = pace::starts(rate);
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(streams * senders.len()));
    let mut turn = senders.iter().cycle();
    while let Some(intended) = starts.recv().await {
        if !round.begins() {
            break;
        }
        let (Some(sender), Ok(place)) =
            (turn.next().cloned(), std::sync::Arc::clone(&places).acquire_owned().await)
        else {
            break;
        };
        let round = Rc::clone(&round);
        tokio::task::spawn_local(async move {
            let shown = round.mix.draw();
            round.ask(&sender, shown, intended).await;
            drop(place);
        });
    }
    // All places back: nothing is under way.
    let all = u32::try_from(streams * senders.len()).unwrap_or(u32::MAX);
    let _ = places.acquire_many(all).await;
}

async fn revoke(round: &Round, admin: &str, count: usize) -> Result<(), Failure> {
    let mut admin = Http::connect(admin).await?;
    for n in 0..count.min(round.mix.good().len()) {
        round.mix.note(n, State::BeingRevoked);
        keys::revoke(&mut admin, &round.mix.good()[n].id).await?;
        round.mix.note(n, State::Revoked);
    }
    Ok(())
}

impl Round {
    fn begins(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    async fn ask(&self, sender: &SendRequest<Bytes>, shown: Shown, intended: Instant) {
        let message = self.requests.borrow_mut().with(&shown.credential);
        let answer = tokio::time::timeout(PATIENCE, call(sender, message)).await;
        let latency = intended.elapsed();
        let mut outcome = self.outcome.borrow_mut();
        let message = match answer {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => return outcome.failed(|| error.to_string()),
            Err(_) => return outcome.failed(|| "no answer in time".to_owned()),
        };
        let Some(answer) = Answer::read(&message) else {
            return outcome.wrong(|| "not a CheckResponse".to_owned());
        };
        let passes = answer.passes();
        if !self.is_right(&answer, shown.owner) {
            return outcome.wrong(|| format!("{:?}: {:?}, passes: {passes}", shown.owner, answer.denied));
        }
        if self.counting.get() {
            outcome.right(passes, latency);
            if matches!(shown.owner, Owner::Key(..)) && !passes {
                outcome.refused_after_revocation();
            }
        }
    }

    fn is_right(&self, answer: &Answer<'_>, owner: Owner) -> bool {
        if self.always_ok {
            return answer.passes();
        }
        let as_allowed = || match owner {
            Owner::Key(n, _) => answer.passes() && answer.names(&self.mix.good()[n].id),
            Owner::Revoked | Owner::Nobody => false,
        };
        let as_refused = || answer.denied == Some(401) && answer.code == 16 && answer.ok.is_none();
        match self.mix.expected(owner) {
            Expected::Allowed => as_allowed(),
            Expected::Refused => as_refused(),
            Expected::Either => as_allowed() || as_refused(),
        }
    }
}

/// Sends one Check; returns the message that came back.
pub async fn call(sender: &SendRequest<Bytes>, framed: Bytes) -> Result<Bytes, Failure> {
    let mut sender = sender.clone().ready().await?;
    let request = http::Request::post(format!("http://talos{CHECK}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "200m")
        .body(())?;
    let (answer, mut body) = sender.send_request(request, false)?;
    body.send_data(framed, true)?;
    let (head, mut body) = answer.await?.into_parts();
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
