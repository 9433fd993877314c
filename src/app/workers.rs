//! Worker threads of the authz plane: one per core, each with its own runtime and connections.
//!
//! A Check that the cache can answer never leaves the thread that read it: no task is stolen, and
//! no other core is woken. What has to wait for the database continues on the process's main
//! runtime.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http2_server::MemoryPool;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use super::accept::{Acceptor, Connection, Detached};
use super::limits::{ACCEPT_RETRY_DELAY, AUTHZ, AUTHZ_MEMORY};
use super::tasks::panic_message;
use super::turns::Turns;
use crate::authz::{AuthorizationService, FallbackService, Server, serve_connection};
use crate::rng::Rng;

/// Makes the fallback service of one thread: what answers calls that aren't Checks.
pub(super) type FallbackFactory = Arc<dyn Fn() -> FallbackService + Send + Sync>;

/// The worker threads.
pub(super) struct Workers {
    workers: Vec<Worker>,
    max_age: Option<Duration>,
    rng: Rng,
    stop: CancellationToken,
}

struct Worker {
    queue: mpsc::UnboundedSender<Assigned>,
    load: Arc<AtomicUsize>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

/// A connection that was assigned to a worker.
struct Assigned {
    connection: Detached,
    max_age: Option<Duration>,
    load: LoadGuard,
}

/// Counts one connection of a worker until it is dropped.
struct LoadGuard(Arc<AtomicUsize>);

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A worker thread that ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("worker thread {thread}: {problem}")]
pub(super) struct WorkerEnded {
    thread: String,
    problem: String,
}

impl Workers {
    /// Starts one thread per core. Connections are closed at about `max_age`, if given, and on
    /// `stop`.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub(super) fn start(
        service: &AuthorizationService,
        fallback: &FallbackFactory,
        max_age: Option<Duration>,
        rng: Rng,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let memory = Arc::new(MemoryPool::new(AUTHZ_MEMORY));
        let start = |n| {
            let (queue, queued) = mpsc::unbounded_channel();
            let (running, ended) = oneshot::channel();
            let (service, fallback, stop) = (service.clone(), Arc::clone(fallback), stop.clone());
            let memory = Arc::clone(&memory);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = thread::Builder::new().name(format!("authz-{n}")).spawn(move || {
                // Dropped when the thread ends, by a panic, too.
                let _running: oneshot::Sender<()> = running;
                let (authorization, fallback) = (Rc::new(service), fallback());
                let server = Rc::new(Server { authorization, fallback, limits: AUTHZ, memory, stop });
                LocalSet::new().block_on(&runtime, work(queued, server));
            })?;
            Ok(Worker { queue, load: Arc::default(), ended, thread })
        };
        let workers = (0..cores).map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { workers, max_age, rng, stop })
    }

    /// Spreads the connections of a listener over the threads until the process stops, then waits
    /// for them to drain.
    ///
    /// # Errors
    /// When a thread ends before that.
    pub(super) async fn serve(self, acceptor: Acceptor) -> Result<(), WorkerEnded> {
        let Self { mut workers, max_age, rng, stop } = self;
        loop {
            let any_ended =
                futures_util::future::select_all(workers.iter_mut().map(|worker| &mut worker.ended));
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                (_, index, _) = any_ended => return Err(workers.swap_remove(index).why_it_ended()),
                accepted = acceptor.accept() => accepted,
            };
            let connection = match accepted.detach() {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be given to a worker thread; closing it");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    continue;
                }
            };
            // Envoy opens few connections and keeps them: each thread gets the same number.
            let Some(worker) = workers.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed)) else {
                return Ok(());
            };
            worker.load.fetch_add(1, Ordering::Relaxed);
            let load = LoadGuard(Arc::clone(&worker.load));
            // Connections that were opened together must not all close together.
            let max_age = max_age.map(|age| rng.jittered(age, 0.1));
            // Sending fails when the thread has ended, which the next round notices.
            let _ = worker.queue.send(Assigned { connection, max_age, load });
        }
        drop(acceptor);
        for Worker { queue, ended, .. } in workers {
            drop(queue);
            let _ = ended.await;
        }
        Ok(())
    }
}

impl Worker {
    /// Joins the thread, which has ended.
    fn why_it_ended(self) -> WorkerEnded {
        let thread = self.thread.thread().name().unwrap_or_default().to_owned();
        let problem = match self.thread.join() {
            Ok(()) => "ended".to_owned(),
            Err(panic) => format!("panicked: {}", panic_message(&*panic)),
        };
        WorkerEnded { thread, problem }
    }
}

/// Serves the connections assigned to this thread until the queue is closed and all are over.
async fn work(mut queued: mpsc::UnboundedReceiver<Assigned>, server: Rc<Server>) {
    let mut connections = JoinSet::new();
    let handshakes = Rc::new(Turns::new());
    let handover = tokio::task::spawn_local(hand_over_usage(Rc::clone(&server)));
    loop {
        let next = tokio::select! {
            next = queued.recv() => next,
            Some(_) = connections.join_next() => continue,
        };
        let Some(assigned) = next else {
            break;
        };
        connections.spawn_local(serve_assigned(assigned, Rc::clone(&handshakes), Rc::clone(&server)));
    }
    while connections.join_next().await.is_some() {}
    handover.abort();
    server.authorization.hand_over_usage();
}

/// Hands over what this thread has counted, again and again.
async fn hand_over_usage(server: Rc<Server>) {
    while let Some(pause) = server.authorization.hand_over_usage() {
        tokio::time::sleep(pause).await;
    }
}

/// Serves one connection on this thread.
async fn serve_assigned(assigned: Assigned, handshakes: Rc<Turns>, server: Rc<Server>) {
    let Assigned { connection, max_age, load } = assigned;
    let Ok(accepted) = connection.attach() else {
        return;
    };
    let connection = tokio::select! {
        () = server.stop.cancelled() => None,
        connection = handshakes.run(accepted.handshake()) => connection,
    };
    if let Some(Connection { stream, peer, guard }) = connection {
        if let Some(reason) = serve_connection(server, stream, max_age, peer.uid).await {
            guard.count_refused(reason);
        }
        drop(guard);
    }
    drop(load);
}
