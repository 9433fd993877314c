//! A proxy between the module and the server: a Unix socket that passes its stream on, cuts it,
//! delays it, holds it back, or says everything twice.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::rig::support::Must;

/// Preface of a client's connection (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes before the payload of a frame.
const FRAME_HEAD: usize = 9;
/// Type of the frames that carry messages.
const DATA: u8 = 0;

/// What happens to the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// Connections are closed, and new ones too.
    Cut,
    /// Each frame comes that much later, one after the other.
    Delay(Duration),
    /// Frames wait until something else happens.
    Hold,
    /// Each message comes twice.
    Repeat,
}

/// Goes on until it is dropped.
pub struct StreamProxy {
    fault: Arc<watch::Sender<Fault>>,
    accepting: JoinHandle<()>,
}

impl StreamProxy {
    /// Listens on a socket, and leads to another.
    pub fn start(socket: &Path, server: &Path) -> StreamProxy {
        let listener = UnixListener::bind(socket).must("binding the module's socket");
        let (fault, server) = (Arc::new(watch::Sender::new(Fault::Pass)), server.to_owned());
        let shared = Arc::clone(&fault);
        let accepting = tokio::spawn(async move {
            while let Ok((module, _)) = listener.accept().await {
                let (faults, server) = (shared.subscribe(), server.clone());
                tokio::spawn(async move {
                    // While the server is away, the module finds its connection closed.
                    if let Ok(server) = UnixStream::connect(&server).await {
                        pass(module, server, faults).await;
                    }
                });
            }
        });
        StreamProxy { fault, accepting }
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl Drop for StreamProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Fault::Cut);
    }
}

/// Passes a connection on in both directions, until one of them ends or it is cut.
async fn pass(module: UnixStream, server: UnixStream, mut faults: watch::Receiver<Fault>) {
    let (from_module, to_module) = module.into_split();
    let (from_server, to_server) = server.into_split();
    let (there, back) = (faults.clone(), faults.clone());
    let is_cut = async { faults.wait_for(|fault| *fault == Fault::Cut).await.map(drop) };
    tokio::select! {
        _ = frames(from_module, to_server, there, PREFACE.len()) => {}
        _ = frames(from_server, to_module, back, 0) => {}
        _ = is_cut => {}
    }
}

/// Passes frames on, after a preface of so many bytes.
async fn frames(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut faults: watch::Receiver<Fault>,
    preface: usize,
) -> io::Result<()> {
    let mut frame = vec![0; preface];
    from.read_exact(&mut frame).await?;
    to.write_all(&frame).await?;
    loop {
        frame.resize(FRAME_HEAD, 0);
        from.read_exact(&mut frame).await?;
        let length = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
        frame.resize(FRAME_HEAD + length, 0);
        from.read_exact(&mut frame[FRAME_HEAD..]).await?;
        let fault = *faults.wait_for(|fault| *fault != Fault::Hold).await.map_err(io::Error::other)?;
        if let Fault::Delay(time) = fault {
            tokio::time::sleep(time).await;
        }
        to.write_all(&frame).await?;
        if fault == Fault::Repeat && frame[3] == DATA && length > 0 {
            to.write_all(&frame).await?;
        }
    }
}
