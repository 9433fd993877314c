//! Single flight: at most one lookup per key at a time, whose result all callers share.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

type InFlight<K, V> = HashMap<K, watch::Receiver<Option<V>>>;

/// Lookups in flight, by key.
pub struct SingleFlight<K, V>(Arc<Mutex<InFlight<K, V>>>);

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the lookup of `key` that is in flight, or starts one in a task of its own, which goes
    /// on when no caller waits any more. Returns `None` if the lookup panicked.
    pub async fn run<F>(&self, key: K, start: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut result = self.join_or_start(key, start);
        let result = result.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }

    /// Returns the result of the lookup in flight for a key, or starts one in a task, which
    /// outlives its callers.
    fn join_or_start<F>(&self, key: K, start: impl FnOnce() -> F) -> watch::Receiver<Option<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut in_flight = self.0.lock();
        if let Some(result) = in_flight.get(&key) {
            return result.clone();
        }
        let (sender, result) = watch::channel(None);
        in_flight.insert(key.clone(), result.clone());
        drop(in_flight);
        let guard = Guard { in_flight: Arc::clone(&self.0), key };
        let lookup = start();
        tokio::spawn(async move {
            let value = lookup.await;
            // Removed before the result is sent: later callers may know of later changes, and start
            // a lookup of their own.
            drop(guard);
            sender.send_replace(Some(value));
        });
        result
    }
}

/// Removes a lookup when it ends, also when it panics.
struct Guard<K: Eq + Hash, V> {
    in_flight: Arc<Mutex<InFlight<K, V>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Guard<K, V> {
    fn drop(&mut self) {
        self.in_flight.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn concurrent_callers_share_one_lookup_and_the_next_starts_another() {
        let flights = Arc::new(SingleFlight::<u8, u32>::default());
        let (runs, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let lookup = || {
            let (runs, go) = (Arc::clone(&runs), Arc::clone(&go));
            async move {
                go.notified().await;
                runs.fetch_add(1, Ordering::SeqCst) + 1
            }
        };
        let waiters = (flights.run(1, lookup), flights.run(1, lookup), async {
            go.notify_one();
        });
        let (a, b, ()) = tokio::join!(waiters.0, waiters.1, waiters.2);
        assert_eq!((a, b), (Some(1), Some(1)));
        go.notify_one();
        assert_eq!(flights.run(1, lookup).await, Some(2));
    }

    #[tokio::test]
    async fn a_panic_gives_no_result_and_leaves_nothing_in_flight() {
        let flights = SingleFlight::<u8, u32>::default();
        assert_eq!(flights.run(1, || async { panic!("on purpose") }).await, None);
        assert_eq!(flights.run(1, || async { 2 }).await, Some(2));
    }
}
