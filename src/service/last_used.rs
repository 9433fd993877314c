//! Recording of the last use of keys, and of signers that their rows don't know: queued by requests
//! without waiting, written in batches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Service;
use crate::cache::memory::Entry;
use crate::clock::{Clock, Timestamp};
use crate::key::{Key, KeyId, NetworkId, Signer};
use crate::store::{LAST_USED_PRECISION, Store};

type Subject = (NetworkId, KeyId);

/// Observation of a key that was verified.
enum Observation {
    Use(Timestamp),
    /// Use of a key whose grace period it puts off.
    GraceUse(Timestamp),
    Signer(Signer),
}

/// Keys whose use isn't written yet: as many as are queued or in the batch.
type Unwritten = Arc<Mutex<HashSet<Subject>>>;

/// Observations that are to be written.
#[derive(Default)]
struct Pending {
    uses: HashMap<Subject, Timestamp>,
    graces: HashMap<Subject, Timestamp>,
    signers: HashMap<Subject, Signer>,
}

/// Queue of uses to be written.
pub struct UseQueue {
    queue: mpsc::Sender<(Subject, Observation)>,
    unwritten: Unwritten,
    dropped: AtomicU64,
}

/// Receiving end of the queue.
pub struct UseWriter {
    queue: mpsc::Receiver<(Subject, Observation)>,
    unwritten: Unwritten,
}

/// Creates a queue for at most `size` uses.
pub fn use_queue(size: usize) -> (UseQueue, UseWriter) {
    let (queue, receiver) = mpsc::channel(size);
    let unwritten = Unwritten::default();
    let uses = UseQueue { queue, unwritten: Arc::clone(&unwritten), dropped: AtomicU64::new(0) };
    (uses, UseWriter { queue: receiver, unwritten })
}

impl UseQueue {
    /// Returns true if a use of this key isn't in its row yet.
    pub fn is_pending(&self, network: NetworkId, id: KeyId) -> bool {
        self.unwritten.lock().contains(&(network, id))
    }

    /// Returns the number of uses dropped because the queue was full. The next use of such a key is
    /// recorded instead.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Service {
    /// Records that a key is used `now`, at most once per `LAST_USED_PRECISION`, or more often if
    /// that puts the end of its grace period off. Never waits.
    pub fn record_use(&self, entry: &Entry, now: Timestamp) {
        let precision = match entry.key.unused_grace.as_deref() {
            None => LAST_USED_PRECISION,
            Some(grace) => grace.precision().min(LAST_USED_PRECISION),
        };
        if !entry.last_use.try_claim(now, precision) {
            return;
        }
        let subject = (entry.key.network, entry.key.id);
        if entry.key.unused_grace.is_some() {
            // If the queue is full, a later use puts the end off.
            let _ = self.uses.queue.try_send((subject, Observation::GraceUse(now)));
        }
        // Held across the send, so that the writer can't be done before the key is noted.
        let mut unwritten = self.uses.unwritten.lock();
        if self.uses.queue.try_send((subject, Observation::Use(now))).is_ok() {
            unwritten.insert(subject);
        } else {
            entry.last_use.reset();
            self.uses.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records the signer of a key whose row doesn't know it. Never waits; when the queue is full,
    /// a later verification records it.
    pub(super) fn record_signer(&self, key: &Key, signer: Signer) {
        if key.signer.secret.is_none() && signer.secret.is_some() {
            let _ = self.uses.queue.try_send(((key.network, key.id), Observation::Signer(signer)));
        }
    }
}

impl Pending {
    fn add(&mut self, (subject, observation): (Subject, Observation)) {
        match observation {
            Observation::Use(at) => {
                self.uses.insert(subject, at);
            }
            Observation::GraceUse(at) => {
                self.graces.insert(subject, at);
            }
            Observation::Signer(signer) => {
                self.signers.insert(subject, signer);
            }
        }
    }

    fn len(&self) -> usize {
        self.uses.len() + self.graces.len() + self.signers.len()
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
        clock: Clock,
        stop: CancellationToken,
    ) {
        let Self { mut queue, unwritten } = self;
        let mut pending = Pending::default();
        let mut received = Vec::new();
        let mut tick = tokio::time::interval(flush_interval);
        loop {
            let room = flush_size.saturating_sub(pending.len());
            tokio::select! {
                count = queue.recv_many(&mut received, room), if room > 0 => {
                    if count == 0 {
                        // All senders are gone, so no use can follow.
                        break;
                    }
                    received.drain(..).for_each(|observed| pending.add(observed));
                    if pending.len() < flush_size {
                        continue;
                    }
                }
                _ = tick.tick() => {}
                () = stop.cancelled() => break,
            }
            write(&store, &clock, &mut pending, &unwritten).await;
        }
        queue.close();
        while let Some(observed) = queue.recv().await {
            pending.add(observed);
        }
        write(&store, &clock, &mut pending, &unwritten).await;
    }
}

/// Writes all uses or none, and all signers or none. What is written is removed from `pending`.
async fn write(store: &Store, clock: &Clock, pending: &mut Pending, unwritten: &Mutex<HashSet<Subject>>) {
    if !pending.uses.is_empty() {
        let rows = pending.uses.iter().map(|((network, id), at)| (*network, *id, *at)).collect();
        match store.record_last_used(rows, clock.now()).await {
            Ok(()) => {
                let mut unwritten = unwritten.lock();
                for (subject, _) in pending.uses.drain() {
                    unwritten.remove(&subject);
                }
            }
            Err(error) => {
                let count = pending.uses.len();
                tracing::warn!(%error, count, "last_used of keys could not be written; trying again");
            }
        }
    }
    if !pending.graces.is_empty() {
        let rows = pending.graces.iter().map(|((network, id), at)| (*network, *id, *at)).collect();
        match store.extend_graces(rows).await {
            Ok(()) => pending.graces.clear(),
            Err(error) => {
                let count = pending.graces.len();
                tracing::warn!(%error, count, "grace periods of used keys could not be extended; trying again");
            }
        }
    }
    if !pending.signers.is_empty() {
        let rows = pending.signers.iter().map(|((network, id), signer)| (*network, *id, *signer)).collect();
        match store.record_signers(rows).await {
            Ok(()) => pending.signers.clear(),
            Err(error) => {
                let count = pending.signers.len();
                tracing::warn!(%error, count, "secrets of keys could not be recorded; trying again");
            }
        }
    }
}
