//! Clients that send an input, and what they send.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{CONNECTION_BYTES, budget};
use crate::rig::http::{Base, Version};
use crate::rig::support::Must;
use crate::rig::tls::Client;

/// Time in which a server that reads at all takes what is sent.
const STALL: Duration = Duration::from_secs(1);
/// Bytes that are given to the socket at once.
const CHUNK: usize = 8 * 1024;
/// Most connections that an input is sent over: their ports can't be used again at once.
const MAX_CONNECTIONS: usize = 4_000;
/// Most that an input sends while others' Checks are timed: the server is to be measured, not a
/// machine without idle time.
const BYTES_A_SECOND: f64 = (1 << 20) as f64;
const CONNECTIONS_A_SECOND: f64 = 2_000.0;
/// Time for the answer on a connection that has one.
const ANSWER: Duration = Duration::from_secs(10);

/// A listener and how it is spoken to.
#[derive(Clone)]
pub struct Plane {
    pub name: &'static str,
    pub base: Base,
    pub tls: Option<Client>,
}

impl Plane {
    pub fn plain(name: &'static str, base: Base) -> Plane {
        Plane { name, base, tls: None }
    }

    /// Bytes that each input sends. A page of metrics is so much work that few bytes ask for a lot.
    pub fn budget(&self) -> usize {
        if self.name == "metrics" { budget() / 64 } else { budget() }
    }
}

/// The part of an input that has this number on its connection.
pub type Part = Arc<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

/// Behaviour of a client, beside the bytes that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Takes the answers.
    Reads,
    /// Takes no answers.
    Stalls,
    /// Gives each part to the network by itself, and takes the answers.
    Dribbles,
    /// Sends each part over a connection of its own and waits for an answer, or for the end.
    Reconnects,
    /// Sends each part over a connection of its own, without waiting for an answer.
    Leaves,
    /// Sends nothing but new keys of TLS after the opening.
    RenewsKeys,
}

/// Bytes that clients send, and the way in which they do.
#[derive(Clone)]
pub struct Input {
    pub name: String,
    /// First bytes of each connection.
    pub opening: Vec<u8>,
    pub part: Part,
    pub style: Style,
    /// True if the input is sent without TLS even to a plane that has it.
    pub is_raw: bool,
    /// Bytes of content in each TLS record, if limited.
    pub record: Option<usize>,
    /// True for an honest use of another operation: its CPU time is reported and not judged.
    pub is_honest: bool,
}

impl Input {
    pub fn new(
        name: &str,
        opening: Vec<u8>,
        style: Style,
        part: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
    ) -> Input {
        Input {
            name: name.to_owned(),
            opening,
            part: Arc::new(part),
            style,
            is_raw: false,
            record: None,
            is_honest: false,
        }
    }

    /// Returns the input with a connection for each part.
    pub fn reconnecting(&self) -> Input {
        Input { style: Style::Reconnects, name: format!("{}, a connection each", self.name), ..self.clone() }
    }

    pub fn honest(self) -> Input {
        Input { is_honest: true, ..self }
    }

    pub fn raw(self) -> Input {
        Input { is_raw: true, ..self }
    }
}

/// Totals of the bytes that were sent.
#[derive(Default)]
pub struct Sent {
    pub bytes: usize,
    pub connections: usize,
    /// Connections that the server ended.
    pub ended: usize,
    /// Connections that are still there.
    open: Vec<Open>,
}

/// A connection that isn't to end yet.
struct Open {
    _reader: Option<ReadHalf<Box<dyn Both>>>,
    _writer: WriteHalf<Box<dyn Both>>,
    /// Ends with it.
    _drain: JoinSet<()>,
}

/// Both directions of a connection.
trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Both for S {}

enum End {
    /// All of the budget is sent.
    Done,
    /// The server takes no more.
    Stalled,
    /// The server ended the connection.
    Closed,
}

/// Sends an input through `clients` clients at once, `budget` bytes all together.
pub async fn send(plane: &Plane, input: &Input, clients: usize, budget: usize, pace: Pace) -> Sent {
    let mut all = JoinSet::new();
    for _ in 0..clients {
        let (plane, input, pace) = (plane.clone(), input.clone(), pace.clone());
        let most = MAX_CONNECTIONS / clients;
        all.spawn(async move { one(&plane, &input, budget / clients, most, &pace).await });
    }
    let mut sum = Sent::default();
    while let Some(sent) = all.join_next().await {
        let sent = sent.must("a client");
        sum.bytes += sent.bytes;
        sum.connections += sent.connections;
        sum.ended += sent.ended;
        sum.open.extend(sent.open);
    }
    sum
}

/// Time by which input may come too early.
const AHEAD: Duration = Duration::from_millis(5);

/// Speed of all clients of an input together.
#[derive(Clone)]
pub enum Pace {
    /// As fast as the machine sends.
    Unlimited,
    /// [`BYTES_A_SECOND`] and [`CONNECTIONS_A_SECOND`] at most; holds when the next bytes are due.
    Limited(Arc<Mutex<Instant>>),
}

impl Pace {
    pub fn limited() -> Pace {
        Pace::Limited(Arc::new(Mutex::new(Instant::now())))
    }

    pub async fn bytes(&self, count: usize) {
        self.wait(Duration::from_secs(1).mul_f64(count as f64 / BYTES_A_SECOND)).await;
    }

    async fn connection(&self) {
        self.wait(Duration::from_secs(1).div_f64(CONNECTIONS_A_SECOND)).await;
    }

    /// Waits until it is nearly the caller's turn, which takes this time.
    async fn wait(&self, turn: Duration) {
        let Pace::Limited(next) = self else { return };
        let due = {
            let mut next = next.lock().must("the pace");
            let due = (*next).max(Instant::now());
            *next = due + turn;
            due
        };
        // A sleep for each of many bytes would take far longer than the bytes.
        if due > Instant::now() + AHEAD {
            tokio::time::sleep_until((due - AHEAD).into()).await;
        }
    }
}

async fn one(plane: &Plane, input: &Input, budget: usize, most: usize, pace: &Pace) -> Sent {
    let mut sent = Sent::default();
    let mut number = 0;
    while (sent.bytes < budget || sent.connections == 0) && sent.connections <= most {
        pace.connection().await;
        sent.connections += 1;
        sent.bytes += CONNECTION_BYTES;
        if input.style == Style::RenewsKeys {
            super::tls::renew_keys(plane, &input.opening, budget, pace, &mut sent.bytes).await;
            sent.ended += 1;
            continue;
        }
        let Some(stream) = connect(plane, input).await else {
            sent.ended += 1;
            continue;
        };
        if matches!(input.style, Style::Reconnects | Style::Leaves) {
            let bytes = [&input.opening[..], &(input.part)(number)].concat();
            number += 1;
            sent.bytes += bytes.len();
            pace.bytes(bytes.len()).await;
            exchange(stream, &bytes, input.style == Style::Reconnects).await;
            continue;
        }
        match feed(stream, input, budget, &mut sent, pace).await {
            End::Done | End::Stalled => break,
            End::Closed => sent.ended += 1,
        }
    }
    sent
}

async fn connect(plane: &Plane, input: &Input) -> Option<Box<dyn Both>> {
    match plane.tls.as_ref().filter(|_| !input.is_raw) {
        Some(client) => {
            let client = client.clone().with_records(input.record);
            let stream = client.connect(plane.base, Version::Http2).await.ok()?;
            Some(Box::new(stream))
        }
        None => {
            let stream = TcpStream::connect(plane.base.0).await.ok()?;
            stream.set_nodelay(true).ok()?;
            Some(Box::new(stream))
        }
    }
}

/// One part, and the first of what comes back.
async fn exchange(mut stream: Box<dyn Both>, bytes: &[u8], waits: bool) {
    let exchange = async {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        let mut answer = vec![0; CHUNK];
        while waits && stream.read(&mut answer).await? == answer.len() {}
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(ANSWER, exchange).await;
}

/// Parts over one connection, for as long as the server takes them.
async fn feed(stream: Box<dyn Both>, input: &Input, budget: usize, sent: &mut Sent, pace: &Pace) -> End {
    let (mut reader, mut writer) = split(stream);
    let mut drain = JoinSet::new();
    let unread = match input.style {
        Style::Stalls => Some(reader),
        _ => {
            drain.spawn(async move {
                let mut answers = vec![0; CHUNK];
                while reader.read(&mut answers).await.is_ok_and(|count| count > 0) {}
            });
            None
        }
    };
    let (mut number, mut waiting) = (0, input.opening.clone());
    let end = loop {
        if sent.bytes >= budget {
            break End::Done;
        }
        while waiting.len() < CHUNK && sent.bytes + waiting.len() < budget {
            waiting.extend((input.part)(number));
            number += 1;
            if input.style == Style::Dribbles {
                break;
            }
        }
        let chunk = std::mem::take(&mut waiting);
        sent.bytes += chunk.len();
        pace.bytes(chunk.len()).await;
        let write = async {
            writer.write_all(&chunk).await?;
            writer.flush().await
        };
        match timeout(STALL, write).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break End::Closed,
            Err(_) => break End::Stalled,
        }
    };
    if !matches!(end, End::Closed) {
        sent.open.push(Open { _reader: unread, _writer: writer, _drain: drain });
    }
    end
}
