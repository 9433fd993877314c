//! The stream's transport: one gRPC call over HTTP/2 on the server's Unix socket, in a thread of
//! its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use talos_proto::edge::{FromModule, FromServer};
use tokio::net::UnixStream;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::abi;
use crate::accelerator::Accelerator;
use crate::clock::{BootTime, Clock};
use crate::entry::Entry;
use crate::guard::{PANICS, PAUSE};
use crate::now_micros;
use crate::session::{MAX_SENT_BYTES, ProtocolError, Session};

/// gRPC method of the stream.
const METHOD: &str = "http://talos/talos.edge.v1.Edge/Connect";
/// Time for the connection, and for the server's first message.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two looks at what is to be sent.
const SEND_INTERVAL: Duration = Duration::from_millis(100);
/// Time between two reports of uses.
const USES_INTERVAL: Duration = Duration::from_secs(1);
/// Waits before the next try.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Largest message from the server in bytes.
const MAX_RECEIVED_BYTES: usize = 256 * 1024;
/// Bytes before each message: a flag, which says compressed, and the length.
const PREFIX_BYTES: usize = 5;

/// Reason for which a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
    #[error("no answer within 5 s")]
    TimedOut,
    #[error("refused with HTTP status {0}")]
    Status(u16),
    #[error("refused with gRPC status {0}")]
    Refused(String),
    #[error("the server ended the stream")]
    Ended,
    #[error("a message is compressed or too large")]
    Frame,
    #[error("a message can't be read: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// Keeps a stream open until the accelerator is over. While there is none, nothing is known.
pub(crate) fn run(accelerator: &Arc<Accelerator>) {
    loop {
        let served = catch_unwind(AssertUnwindSafe(|| {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(serve(accelerator)),
                Err(error) => accelerator.note(format!("no runtime for the stream: {error}")),
            }
        }));
        let old = accelerator.set_state(None);
        if let Err(payload) = served {
            PANICS.contain(now_micros, (), || std::panic::resume_unwind(payload));
        }
        if accelerator.is_over() {
            return;
        }
        std::thread::sleep(PAUSE);
        drop(old);
    }
}

async fn serve(accelerator: &Accelerator) {
    let mut backoff = MIN_BACKOFF;
    // Used before the last stream ended, and not reported yet.
    let mut used = vec![];
    loop {
        let mut has_begun = false;
        let ended = stream(accelerator, &mut has_begun, &mut used).await;
        let old = accelerator.set_state(None);
        if accelerator.is_over() {
            sleep(MIN_BACKOFF).await;
            return;
        }
        if has_begun {
            backoff = MIN_BACKOFF;
        }
        if let Err(error) = ended {
            // One line for each time that it changes.
            if has_begun || backoff == MIN_BACKOFF {
                accelerator.note(format!("no stream to the server, nothing is accelerated: {error}"));
            }
        }
        sleep(backoff + jitter(backoff)).await;
        // By now no thread of Envoy's looks at it.
        if let Some(old) = old {
            used = old.take_used();
        }
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

/// Returns up to a quarter of a wait, by the clock's last digits, which differ between processes.
fn jitter(wait: Duration) -> Duration {
    let digits = now_micros() % 1_000;
    wait.mul_f64(0.25 * digits as f64 / 1_000.0)
}

/// Runs one stream until it ends. It reports what was used before, once it has begun.
async fn stream(
    accelerator: &Accelerator,
    has_begun: &mut bool,
    used: &mut Vec<Arc<Entry>>,
) -> Result<(), StreamError> {
    let connected = timeout(CONNECT_TIMEOUT, async {
        let socket = UnixStream::connect(accelerator.socket()).await?;
        Ok::<_, StreamError>(h2::client::handshake(socket).await?)
    });
    let (client, connection) = connected.await.map_err(|_| StreamError::TimedOut)??;
    // It ends with the runtime, or when the stream is dropped.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let mut client = client.ready().await?;
    let request = http::Request::post(METHOD)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(());
    let Ok(request) = request else { return Err(StreamError::Frame) };
    let (response, mut sender) = client.send_request(request, false)?;
    let envoy = abi::callbacks().map_or("unknown", |callbacks| callbacks.version().envoy());
    send(&mut sender, &Session::hello(envoy))?;
    let response = timeout(CONNECT_TIMEOUT, response).await.map_err(|_| StreamError::TimedOut)??;
    check_head(&response)?;
    exchange(accelerator, has_begun, used, response.into_body(), sender).await
}

fn check_head<T>(response: &http::Response<T>) -> Result<(), StreamError> {
    if response.status() != http::StatusCode::OK {
        return Err(StreamError::Status(response.status().as_u16()));
    }
    match response.headers().get("grpc-status") {
        None => Ok(()),
        Some(status) => Err(StreamError::Refused(String::from_utf8_lossy(status.as_bytes()).into_owned())),
    }
}

async fn exchange(
    accelerator: &Accelerator,
    has_begun: &mut bool,
    used: &mut Vec<Arc<Entry>>,
    mut body: h2::RecvStream,
    mut sender: h2::SendStream<Bytes>,
) -> Result<(), StreamError> {
    let clock = Clock::system();
    let mut session = Session::new(clock.clone(), accelerator.max_bytes());
    let mut received = BytesMut::new();
    let (opened, mut last_tick, mut last_uses) = (clock.boot_now(), None, clock.boot_now());
    let mut looks = interval(SEND_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            data = body.data() => {
                let data = data.ok_or(StreamError::Ended)??;
                body.flow_control().release_capacity(data.len())?;
                received.extend_from_slice(&data);
                while let Some(message) = take_message(&mut received)? {
                    session.receive(message)?;
                    if !*has_begun && let Some(state) = session.state() {
                        *has_begun = true;
                        state.add_used(std::mem::take(used));
                        drop(accelerator.set_state(Some(Arc::clone(state))));
                        accelerator.note("the stream to the server is open".to_owned());
                    }
                }
            }
            _ = looks.tick() => {
                let now = clock.boot_now();
                if accelerator.is_over() {
                    return Ok(());
                }
                if session.state().is_none() {
                    if now.since(opened) > CONNECT_TIMEOUT { return Err(StreamError::TimedOut) }
                    continue;
                }
                if is_due(last_tick, session.tick_interval(), now) {
                    last_tick = Some(now);
                    send(&mut sender, &session.tick()?)?;
                }
                for ask in session.asks() {
                    send(&mut sender, &ask)?;
                }
                if is_due(Some(last_uses), USES_INTERVAL, now) {
                    last_uses = now;
                    for used in session.uses() {
                        send(&mut sender, &used)?;
                    }
                }
            }
        }
    }
}

fn is_due(last: Option<BootTime>, every: Duration, now: BootTime) -> bool {
    // A little earlier rather than a whole look later.
    last.is_none_or(|last| now.since(last) + SEND_INTERVAL / 2 >= every)
}

fn send(sender: &mut h2::SendStream<Bytes>, message: &FromModule) -> Result<(), StreamError> {
    let len = message.encoded_len();
    let Some(announced) = u32::try_from(len).ok().filter(|_| len <= MAX_SENT_BYTES) else {
        // It exceeds what the server takes; each message is bounded where it is made.
        return Ok(());
    };
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + len);
    frame.put_u8(0);
    frame.put_u32(announced);
    frame.put_slice(&message.encode_to_vec());
    Ok(sender.send_data(frame.freeze(), false)?)
}

/// Takes the next whole message out of what was received.
fn take_message(received: &mut BytesMut) -> Result<Option<FromServer>, StreamError> {
    let Some(prefix) = received.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let [flag, a, b, c, d] = *prefix;
    let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if flag != 0 || len > MAX_RECEIVED_BYTES {
        return Err(StreamError::Frame);
    }
    if received.len() < PREFIX_BYTES + len {
        return Ok(None);
    }
    received.advance(PREFIX_BYTES);
    Ok(Some(FromServer::decode(received.split_to(len).freeze())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use talos_proto::edge::{Forget, from_server};

    #[test]
    fn messages_are_cut_out_of_the_bytes_as_they_come() {
        let message = FromServer { message: Some(from_server::Message::Forget(Forget::default())) };
        let encoded = message.encode_to_vec();
        let frame = [&[0, 0, 0, 0, encoded.len() as u8], encoded.as_slice()].concat();
        let mut received = BytesMut::new();
        for byte in frame.iter().chain(&frame).chain(&frame[..3]) {
            let before = received.len() + 1;
            received.put_u8(*byte);
            let taken = take_message(&mut received).unwrap();
            assert_eq!(taken.is_some(), before == frame.len());
            assert!(taken.is_none_or(|taken| taken == message));
        }
        assert_eq!(received.len(), 3);
        for bad in [[1, 0, 0, 0, 0], [0, 0, 4, 0, 1]] {
            assert!(take_message(&mut bad.as_slice().into()).is_err());
        }
    }
}
