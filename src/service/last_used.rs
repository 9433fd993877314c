//! Recording of the last use of keys: queued by requests without waiting, written in batches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Service;
use crate::cache::memory::Entry;
use crate::clock::Timestamp;
use crate::key::{KeyId, NetworkId};
use crate::store::{LAST_USED_PRECISION, Store};

type Subject = (NetworkId, KeyId);

/// Keys whose use isn't written yet: as many as are queued or in the batch.
type Pending = Arc<Mutex<HashSet<Subject>>>;

/// Queue of uses to be written.
pub struct UseQueue {
    queue: mpsc::Sender<(Subject, Timestamp)>,
    pending: Pending,
    dropped: AtomicU64,
}

/// Receiving end of the queue.
pub struct UseWriter {
    queue: mpsc::Receiver<(Subject, Timestamp)>,
    pending: Pending,
}

/// Creates a queue for at most `size` uses.
pub fn use_queue(size: usize) -> (UseQueue, UseWriter) {
    let (queue, receiver) = mpsc::channel(size);
    let pending = Pending::default();
    let uses = UseQueue { queue, pending: Arc::clone(&pending), dropped: AtomicU64::new(0) };
    (uses, UseWriter { queue: receiver, pending })
}

impl UseQueue {
    /// Returns true if a use of this key isn't in its row yet.
    pub fn is_pending(&self, network: NetworkId, id: KeyId) -> bool {
        self.pending.lock().contains(&(network, id))
    }

    /// Returns the number of uses dropped because the queue was full. The next use of such a key is
    /// recorded instead.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Service {
    /// Records that a key is used `now`, at most once per `LAST_USED_PRECISION`. Never waits.
    pub fn record_use(&self, entry: &Entry, now: Timestamp) {
        if !entry.last_use.try_claim(now, LAST_USED_PRECISION) {
            return;
        }
        let subject = (entry.key.network, entry.key.id);
        // Held across the send, so that the writer can't be done before the key is noted.
        let mut pending = self.uses.pending.lock();
        if self.uses.queue.try_send((subject, now)).is_ok() {
            pending.insert(subject);
        } else {
            entry.last_use.reset();
            self.uses.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl UseWriter {
    /// Writes uses in batches of `flush_size`, or every `flush_interval`, until `stop` is
    /// cancelled. Then writes what is left.
    ///
    /// A failed write is repeated; meanwhile the queue fills up.
    pub async fn write(
        self,
        store: Store,
        flush_size: usize,
        flush_interval: Duration,
        stop: CancellationToken,
    ) {
        let Self { mut queue, pending: unwritten } = self;
        let mut pending = HashMap::new();
        let mut received = Vec::with_capacity(flush_size);
        let mut tick = tokio::time::interval(flush_interval);
        loop {
            let room = flush_size - pending.len();
            tokio::select! {
                count = queue.recv_many(&mut received, room), if room > 0 => {
                    if count == 0 {
                        // Nobody is left who could record a use.
                        break;
                    }
                    pending.extend(received.drain(..));
                    if pending.len() < flush_size {
                        continue;
                    }
                }
                _ = tick.tick() => {}
                () = stop.cancelled() => break,
            }
            write(&store, &mut pending, &unwritten).await;
        }
        queue.close();
        while let Some((subject, at)) = queue.recv().await {
            pending.insert(subject, at);
        }
        write(&store, &mut pending, &unwritten).await;
    }
}

/// Writes all of `uses` or none. Empties the map on success.
async fn write(store: &Store, uses: &mut HashMap<Subject, Timestamp>, unwritten: &Mutex<HashSet<Subject>>) {
    if uses.is_empty() {
        return;
    }
    let rows = uses.iter().map(|((network, id), at)| (*network, *id, *at)).collect();
    match store.record_last_used(rows).await {
        Ok(()) => {
            let mut unwritten = unwritten.lock();
            for (subject, _) in uses.drain() {
                unwritten.remove(&subject);
            }
        }
        Err(error) => {
            tracing::warn!(%error, count = uses.len(), "last_used of keys could not be written; trying again")
        }
    }
}
