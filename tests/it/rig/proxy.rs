//! A TCP proxy that does to connections what networks do. It looks at no byte, so TLS passes like
//! anything else; only [`Fault::LoseCommits`] looks, and needs a connection without TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::rig::process::free_port;
use crate::rig::support::{Must, TIMEOUT};

/// A fault of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// No fault.
    Pass,
    /// Data of the client arrive that much later.
    Delay(Duration),
    /// An RST in both directions.
    Reset,
    /// Connections stay open, and lose what either side sends; they stay useless, whatever
    /// comes after.
    BlackHole,
    /// The client is told that the server has finished; what it sends still arrives.
    HalfClose,
    /// New connections are refused; open ones pass.
    Refuse,
    /// The server gets each request and answers it; instead of its answer comes an RST.
    LoseAnswers,
    /// Does as [`Fault::LoseAnswers`], for the statement COMMIT.
    LoseCommits,
}

/// Goes on until it is dropped.
pub struct Proxy {
    pub port: u16,
    links: Arc<Links>,
    accepting: AbortHandle,
}

/// The connections, and what happens to them.
struct Links {
    /// The port that new connections are carried to.
    server: AtomicU16,
    for_new: watch::Sender<Fault>,
    open: Mutex<Vec<watch::Sender<Fault>>>,
}

impl Proxy {
    /// A proxy in front of a server on loopback.
    pub async fn start(server: u16) -> Proxy {
        let port = free_port();
        let for_new = watch::Sender::new(Fault::Pass);
        let links = Arc::new(Links { server: AtomicU16::new(server), for_new, open: Mutex::default() });
        let listener = runtime().spawn(bind(port)).await.must("binding the proxy's port");
        let accepting = runtime().spawn(accept(listener, Arc::clone(&links))).abort_handle();
        Proxy { port, links, accepting }
    }

    /// Leads new connections to another server from now on; those that are open stay where they
    /// are.
    pub fn redirect_to(&self, server: u16) {
        self.links.server.store(server, Ordering::SeqCst);
    }

    /// Sets the fault of all connections, open and new ones.
    pub fn set(&self, fault: Fault) {
        self.set_new(fault);
        self.set_open(fault);
    }

    /// Sets the fault of new connections.
    pub fn set_new(&self, fault: Fault) {
        self.links.for_new.send_replace(fault);
    }

    /// Sets the fault of the connections that are open now.
    pub fn set_open(&self, fault: Fault) {
        for connection in self.links.live().iter() {
            connection.send_replace(fault);
        }
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.links.live().len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Links {
    /// Returns the connections whose task still listens.
    fn live(&self) -> std::sync::MutexGuard<'_, Vec<watch::Sender<Fault>>> {
        let mut open = self.open.lock().must("the list of connections");
        open.retain(|connection| connection.receiver_count() > 0);
        open
    }
}

async fn bind(port: u16) -> TcpListener {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await {
            Ok(listener) => return listener,
            // Somebody's outgoing connection may have the port for a moment.
            Err(error) => assert!(Instant::now() < deadline, "binding the proxy's port: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns a runtime for proxies alone, so that a busy test doesn't slow its network down.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().must("a runtime for proxies")
    })
}

async fn accept(listener: TcpListener, links: Arc<Links>) {
    let port = listener.local_addr().must("the proxy's address").port();
    let mut listener = Some(listener);
    let mut for_new = links.for_new.subscribe();
    // Ends the connections together with this task.
    let mut connections = JoinSet::new();
    loop {
        let refuses = *for_new.borrow_and_update() == Fault::Refuse;
        if refuses {
            listener = None;
            for_new.changed().await.must("the proxy's switch");
            continue;
        }
        let open = match &listener {
            Some(open) => open,
            None => listener.insert(bind(port).await),
        };
        tokio::select! {
            accepted = open.accept() => {
                let (client, _) = accepted.must("accepting a connection");
                let (switch, fault) = watch::channel(*for_new.borrow());
                links.live().push(switch);
                let server = links.server.load(Ordering::SeqCst);
                connections.spawn(carry(client, server, fault));
            }
            _ = for_new.changed() => {}
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Carries one connection to its end.
async fn carry(mut client: TcpStream, server: u16, fault: watch::Receiver<Fault>) {
    // A network that swallows the data swallows the handshake with the server, too.
    let server = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], server))).await;
    let Ok(mut server) = server else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let loss = Loss::default();
    let reset = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let both = async {
            tokio::join!(
                pump(from_client, to_server, Direction::Request, fault.clone(), &loss),
                pump(from_server, to_client, Direction::Answer, fault.clone(), &loss),
            )
        };
        tokio::select! {
            _ = both => false,
            () = reset(fault.clone()) => true,
            () = loss.happened.notified() => true,
        }
    };
    if reset {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// An answer that is to be lost.
#[derive(Default)]
struct Loss {
    expected: AtomicBool,
    happened: Notify,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Request,
    Answer,
}

/// Carries bytes one way until their end.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    direction: Direction,
    mut fault: watch::Receiver<Fault>,
    loss: &Loss,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut lost = false;
    loop {
        let now = *fault.borrow_and_update();
        if now == Fault::HalfClose && direction == Direction::Answer {
            // Never to be opened again: what the server says from here on is of interest to nobody.
            let _ = to.shutdown().await;
            while matches!(from.read(&mut buffer).await, Ok(1..)) {}
            return;
        }
        lost |= now == Fault::BlackHole;
        let count = tokio::select! {
            count = from.read(&mut buffer) => count,
            changed = fault.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok(count @ 1..) = count else {
            let _ = to.shutdown().await;
            return;
        };
        let delay = match (*fault.borrow(), direction) {
            (Fault::Delay(delay), Direction::Request) => delay,
            _ => Duration::ZERO,
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // Data underway when the network broke are lost as well.
        lost |= *fault.borrow() == Fault::BlackHole;
        match (direction, *fault.borrow()) {
            (Direction::Request, Fault::LoseAnswers) => loss.expected.store(true, Ordering::SeqCst),
            (Direction::Request, Fault::LoseCommits) => {
                // The whole statement, as PostgreSQL and MySQL get it, and no READ COMMITTED.
                let is_commit = |word: &[u8]| [b"COMMIT\0", b"\x03COMMIT"].iter().any(|whole| word == *whole);
                let commits = buffer[..count].windows(7).any(is_commit);
                loss.expected.fetch_or(commits, Ordering::SeqCst);
            }
            (Direction::Answer, _) if loss.expected.load(Ordering::SeqCst) => {
                loss.happened.notify_one();
                lost = true;
            }
            _ => {}
        }
        if !lost && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Waits until the connection is to be reset.
async fn reset(mut fault: watch::Receiver<Fault>) {
    if fault.wait_for(|fault| *fault == Fault::Reset).await.is_err() {
        // The sender of faults is gone, so no reset can come.
        let never: Infallible = std::future::pending().await;
        match never {}
    }
}

mod tests {
    use super::*;
    use crate::rig::support::{until, within};
    use std::io::ErrorKind;

    /// A server that says everything twice.
    async fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.must("binding");
        let port = listener.local_addr().must("an address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    tokio::io::copy(&mut reader, &mut writer).await
                });
            }
        });
        port
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.must("connecting");
        assert_eq!(ask(&mut stream).await.must("an echo"), 4);
        stream
    }

    async fn ask(stream: &mut TcpStream) -> std::io::Result<usize> {
        stream.write_all(b"talk").await?;
        within("an answer or an end", stream.read(&mut [0; 4])).await
    }

    #[tokio::test]
    async fn passes_delays_and_resets() {
        let proxy = Proxy::start(echo().await).await;
        let mut stream = connect(&proxy).await;
        proxy.set(Fault::Delay(Duration::from_millis(200)));
        let began = Instant::now();
        assert_eq!(ask(&mut stream).await.must("an echo"), 4);
        assert!(began.elapsed() >= Duration::from_millis(200));
        proxy.set_open(Fault::Reset);
        until("the connection is gone", async || (proxy.open() == 0).then_some(())).await;
        let error = ask(&mut stream).await.expect_err("a reset connection");
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        proxy.set_new(Fault::Pass);
        connect(&proxy).await;
    }

    #[tokio::test]
    async fn swallows_and_says_nothing() {
        let proxy = Proxy::start(echo().await).await;
        let mut stream = connect(&proxy).await;
        proxy.set(Fault::BlackHole);
        let silence = Duration::from_millis(200);
        assert!(tokio::time::timeout(silence, ask(&mut stream)).await.is_err());
        proxy.set(Fault::Pass);
        assert!(tokio::time::timeout(silence, ask(&mut stream)).await.is_err(), "what is lost is lost");
        connect(&proxy).await;
    }

    #[tokio::test]
    async fn loses_an_answer_that_was_given() {
        let proxy = Proxy::start(echo().await).await;
        for (fault, request) in [(Fault::LoseAnswers, b"talk"), (Fault::LoseCommits, b"COMM")] {
            let mut stream = connect(&proxy).await;
            proxy.set(fault);
            stream.write_all(request).await.must("a request");
            if fault == Fault::LoseCommits {
                assert_eq!(within("an echo", stream.read(&mut [0; 4])).await.must("an echo"), 4);
                stream.write_all(b"COMMIT\0").await.must("a request");
            }
            let error = within("the end", stream.read(&mut [0; 4])).await.expect_err("a reset connection");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{fault:?}: {error}");
            proxy.set(Fault::Pass);
        }
        connect(&proxy).await;
    }

    #[tokio::test]
    async fn closes_one_half() {
        let proxy = Proxy::start(echo().await).await;
        let mut stream = connect(&proxy).await;
        proxy.set_open(Fault::HalfClose);
        assert_eq!(within("the end", stream.read(&mut [0; 4])).await.must("the end"), 0);
        stream.write_all(b"talk").await.must("the other half");
    }

    #[tokio::test]
    async fn refuses_and_takes_in_again() {
        let proxy = Proxy::start(echo().await).await;
        let mut stream = connect(&proxy).await;
        proxy.set(Fault::Refuse);
        until("nobody listens", async || {
            let refused = TcpStream::connect(("127.0.0.1", proxy.port)).await.err()?;
            (refused.kind() == ErrorKind::ConnectionRefused).then_some(())
        })
        .await;
        assert_eq!(ask(&mut stream).await.must("an echo"), 4, "what is open stays open");
        proxy.set(Fault::Pass);
        until("somebody listens", async || {
            TcpStream::connect(("127.0.0.1", proxy.port)).await.ok().map(drop)
        })
        .await;
        connect(&proxy).await;
    }
}
