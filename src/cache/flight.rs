//! One lookup in flight per key: whoever else asks meanwhile waits for the same answer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

type Waiting<K, V> = HashMap<K, watch::Receiver<Option<V>>>;

/// The lookups in flight.
pub struct Flights<K, V>(Arc<Mutex<Waiting<K, V>>>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, V> Flights<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the lookup of `key` in flight, or starts it as a task of its own, which goes on when nobody waits any
    /// more. None when it panicked.
    pub async fn join<F>(&self, key: K, start: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut answer = self.enter(key, start);
        let answer = answer.wait_for(Option::is_some).await.ok()?;
        answer.clone()
    }

    fn enter<F>(&self, key: K, start: impl FnOnce() -> F) -> watch::Receiver<Option<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut waiting = self.0.lock();
        if let Some(answer) = waiting.get(&key) {
            return answer.clone();
        }
        let (sender, answer) = watch::channel(None);
        waiting.insert(key.clone(), answer.clone());
        drop(waiting);
        let landing = Landing { waiting: Arc::clone(&self.0), key };
        let lookup = start();
        tokio::spawn(async move {
            let value = lookup.await;
            // Who comes from here on starts anew: this answer may already be older than what they know.
            drop(landing);
            sender.send_replace(Some(value));
        });
        answer
    }
}

/// Takes the flight off the list, also when its lookup panics.
struct Landing<K: Eq + Hash, V> {
    waiting: Arc<Mutex<Waiting<K, V>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn everyone_shares_one_lookup_and_the_next_is_new() {
        let flights = Arc::new(Flights::<u8, u32>::default());
        let (runs, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let lookup = || {
            let (runs, go) = (Arc::clone(&runs), Arc::clone(&go));
            async move {
                go.notified().await;
                runs.fetch_add(1, Ordering::SeqCst) + 1
            }
        };
        let waiters = (flights.join(1, lookup), flights.join(1, lookup), async {
            go.notify_one();
        });
        let (a, b, ()) = tokio::join!(waiters.0, waiters.1, waiters.2);
        assert_eq!((a, b), (Some(1), Some(1)));
        go.notify_one();
        assert_eq!(flights.join(1, lookup).await, Some(2));
    }

    #[tokio::test]
    async fn a_panic_is_no_answer_and_leaves_nothing_behind() {
        let flights = Flights::<u8, u32>::default();
        assert_eq!(flights.join(1, || async { panic!("on purpose") }).await, None);
        assert_eq!(flights.join(1, || async { 2 }).await, Some(2));
    }
}
