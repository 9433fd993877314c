//! The authz plane's threads: one a core, each with a runtime of its own, connections spread over them.
//!
//! A Check that memory can answer never leaves the thread that read it: no task is stolen, no other core woken. What
//! has to wait for the database goes on in the process's main runtime (see [`Plane::check`]).

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use super::accept::{Acceptor, Connection, Parked};
use super::bounds::{
    ACCEPT_PAUSE, ANSWER_TIMEOUT, CALL_TIMEOUT, DRAIN, HEAD_TIMEOUT, KEEPALIVE, LAST_WORDS, MAX_HEADERS,
    MAX_OTHER_CALLS, MAX_QUEUED, MAX_STREAMS, MAX_UNREST, MEMORY, WATCH_TIMEOUT,
};
use crate::authz::{Bounds, MemoryPool, Others, Plane, Server, serve_connection};
use crate::rng::Rng;

/// What each thread answers with, made in it.
pub type MakeOthers = Arc<dyn Fn() -> Others + Send + Sync>;

/// The threads.
pub struct Workers {
    workers: Vec<Worker>,
    age: Option<Duration>,
    rng: Rng,
    stop: CancellationToken,
}

struct Worker {
    queue: mpsc::UnboundedSender<(Parked, Load, Option<Duration>)>,
    load: Arc<AtomicUsize>,
    ended: oneshot::Receiver<()>,
}

/// One connection of a thread, for as long as it is there.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts a thread a core. Connections end after about `age`, if there is one, and on `stop`.
    ///
    /// # Errors
    /// When the system gives us no thread.
    pub fn start(
        plane: &Plane,
        others: &MakeOthers,
        age: Option<Duration>,
        rng: Rng,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let memory = Arc::new(MemoryPool::new(MEMORY));
        let start = |n| {
            let (queue, queued) = mpsc::unbounded_channel();
            let (running, ended) = oneshot::channel();
            let (plane, others, stop) = (plane.clone(), Arc::clone(others), stop.clone());
            let memory = Arc::clone(&memory);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            thread::Builder::new().name(format!("authz-{n}")).spawn(move || {
                let bounds = Bounds {
                    patience: HEAD_TIMEOUT,
                    silence: KEEPALIVE.0,
                    pong: KEEPALIVE.1,
                    streams: MAX_STREAMS,
                    unrest: MAX_UNREST,
                    head: MAX_HEADERS,
                    untaken: ANSWER_TIMEOUT,
                    call: CALL_TIMEOUT,
                    watch: WATCH_TIMEOUT,
                    others: MAX_OTHER_CALLS,
                    queued: MAX_QUEUED,
                    drain: DRAIN,
                    last_words: LAST_WORDS,
                };
                let plane = Rc::new(plane);
                let server = Rc::new(Server { plane, others: others(), bounds, memory, stop });
                LocalSet::new().block_on(&runtime, work(queued, server));
                drop(running);
            })?;
            Ok(Worker { queue, load: Arc::default(), ended })
        };
        let workers = (0..cores).map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { workers, age, rng, stop })
    }

    /// Serves a listener until it is time to stop, then lets what is under way end. Ends before that if a thread does.
    pub async fn serve(self, acceptor: Acceptor) {
        let Self { mut workers, age, rng, stop } = self;
        loop {
            let any_ended =
                futures_util::future::select_all(workers.iter_mut().map(|worker| &mut worker.ended));
            let incoming = tokio::select! {
                () = stop.cancelled() => break,
                _ = any_ended => return,
                incoming = acceptor.accept() => incoming,
            };
            let parked = match incoming.park() {
                Ok(parked) => parked,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be handed on");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Envoy opens few and keeps them: what counts is that each thread has as many as the others.
            let Some(worker) = workers.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed)) else {
                return;
            };
            worker.load.fetch_add(1, Ordering::Relaxed);
            let load = Load(Arc::clone(&worker.load));
            // Connections that were opened together must not all close together.
            let age = age.map(|age| rng.jittered(age, 0.1));
            // A thread that has ended is noticed above.
            let _ = worker.queue.send((parked, load, age));
        }
        drop(acceptor);
        for worker in workers {
            let Worker { queue, ended, .. } = worker;
            drop(queue);
            let _ = ended.await;
        }
    }
}

async fn work(mut queued: mpsc::UnboundedReceiver<(Parked, Load, Option<Duration>)>, server: Rc<Server>) {
    let mut connections = JoinSet::new();
    loop {
        let next = tokio::select! {
            next = queued.recv() => next,
            Some(_) = connections.join_next() => continue,
        };
        let Some((parked, load, age)) = next else {
            break;
        };
        let server = Rc::clone(&server);
        connections.spawn_local(async move {
            let Ok(incoming) = parked.resume() else {
                return;
            };
            let opened = tokio::select! {
                () = server.stop.cancelled() => None,
                opened = incoming.open() => opened,
            };
            if let Some(Connection { stream, peer: _, place }) = opened {
                if let Some(why) = serve_connection(server, stream, age).await {
                    place.refused(why);
                }
                drop(place);
            }
            drop(load);
        });
    }
    while connections.join_next().await.is_some() {}
}
