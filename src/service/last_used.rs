//! When keys were last used: noted without waiting, written in batches beside the requests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Service;
use crate::cache::memory::Entry;
use crate::clock::Timestamp;
use crate::key::{KeyId, NetworkId};
use crate::store::{PRECISION, Store};

type Subject = (NetworkId, KeyId);

/// Where uses are noted.
pub struct Uses {
    queue: mpsc::Sender<(Subject, Timestamp)>,
    dropped: AtomicU64,
}

/// Where noted uses come out, to be written.
pub struct NotedUses(mpsc::Receiver<(Subject, Timestamp)>);

/// A queue of at most `size` uses.
pub fn uses(size: usize) -> (Uses, NotedUses) {
    let (queue, noted) = mpsc::channel(size);
    (Uses { queue, dropped: AtomicU64::new(0) }, NotedUses(noted))
}

impl Uses {
    /// How many uses found the queue full. They are noted when the key is used again.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Service {
    /// Notes that a key was used `now`, at most once a day; never waits.
    pub fn note_use(&self, entry: &Entry, now: Timestamp) {
        if !entry.last_use.is_due(now, PRECISION) {
            return;
        }
        if self.uses.queue.try_send(((entry.key.network, entry.key.id), now)).is_err() {
            entry.last_use.forget();
            self.uses.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl NotedUses {
    /// Writes what comes, `flush_size` uses or `flush_interval` at a time; ends with what is left once told to stop.
    /// What can't be written is tried again; meanwhile the queue fills up.
    pub async fn write(
        self,
        store: Store,
        flush_size: usize,
        flush_interval: Duration,
        stop: CancellationToken,
    ) {
        let Self(mut queue) = self;
        let mut pending = HashMap::new();
        let mut received = Vec::with_capacity(flush_size);
        let mut tick = tokio::time::interval(flush_interval);
        loop {
            let room = flush_size - pending.len();
            tokio::select! {
                _ = queue.recv_many(&mut received, room), if room > 0 => {
                    pending.extend(received.drain(..));
                    if pending.len() < flush_size {
                        continue;
                    }
                }
                _ = tick.tick() => {}
                () = stop.cancelled() => break,
            }
            write(&store, &mut pending).await;
        }
        queue.close();
        while let Some((subject, at)) = queue.recv().await {
            pending.insert(subject, at);
        }
        write(&store, &mut pending).await;
    }
}

/// Writes all or nothing, and empties `uses` if it did.
async fn write(store: &Store, uses: &mut HashMap<Subject, Timestamp>) {
    if uses.is_empty() {
        return;
    }
    let rows = uses.iter().map(|((network, id), at)| (*network, *id, *at)).collect();
    match store.note_last_used(rows).await {
        Ok(()) => uses.clear(),
        Err(error) => tracing::warn!(%error, count = uses.len(), "uses of keys can't be noted at present"),
    }
}
