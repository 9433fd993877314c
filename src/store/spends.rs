//! Spending of credits: each use waits for a transaction that takes its cost, or finds too little.
//!
//! Uses of one balance that wait at the same time are decided by one transaction, in their order.
//! It takes their costs by one conditional statement, whose condition holds the refill that is due
//! as well; only if that takes nothing, it decides use by use under the row's lock. So a balance
//! is never below zero and no refill is made twice, whatever ends a process, and by whichever
//! clock it goes: the time is the database's.
//!
//! A use whose caller has gone costs nothing if its transaction hasn't reached it yet.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use sqlx::{AnyConnection, Row};
use tokio::sync::oneshot;

use super::clock_skew::database_time;
use super::dialect::Dialect;
use super::server::authoritative;
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{CreditBalance, KeyId, NetworkId, Refill, SpentCredits};

/// Transactions under way at once: each has a connection.
const MAX_CONCURRENT_SPENDS: usize = 3;
/// Uses that one transaction decides.
const MAX_SPENDS_AT_ONCE: usize = 256;
/// Uses that wait. Further ones are refused.
const MAX_WAITING: usize = 10_000;
/// Timeout of a transaction. Its callers have gone sooner, so it only keeps others waiting.
const SPEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Balance of a network.
type Account = (NetworkId, KeyId);

/// Result of a use; `None` if the balance doesn't exist any more. Uses of one transaction share
/// their error.
type SpendResult = Result<Option<SpentCredits>, Arc<StoreError>>;

/// Use that waits for its transaction.
struct PendingSpend {
    cost: u32,
    /// The process's time, where the database has none.
    now: Timestamp,
    result: oneshot::Sender<SpendResult>,
}

/// Uses of one database that wait.
#[derive(Default)]
pub(super) struct Spends(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    /// Uses by balance. A balance has an entry from its first use until none waits or is decided.
    waiting: HashMap<Account, Vec<PendingSpend>>,
    /// Balances that have uses and no transaction, oldest first.
    ready: VecDeque<Account>,
    /// Number of uses in `waiting`.
    count: usize,
    /// Number of transactions under way.
    running: usize,
}

impl Store {
    /// Spends `cost` of a balance, or nothing if less is left. Returns `None` if there is no such
    /// balance. `now` counts where the database has no clock of its own.
    ///
    /// A caller that stops waiting may have spent its cost nevertheless.
    ///
    /// # Errors
    /// When the database fails; the cost may then be spent or not.
    pub async fn spend_credits(
        &self,
        network: NetworkId,
        account: KeyId,
        cost: u32,
        now: Timestamp,
    ) -> SpendResult {
        let (sender, result) = oneshot::channel();
        let pending = PendingSpend { cost, now, result: sender };
        if self.0.spends.0.lock().add((network, account), pending)? {
            tokio::spawn(Spender { inner: Arc::clone(&self.0) }.run());
        }
        result.await.unwrap_or_else(|_| Err(Arc::new(StoreError::Interrupted)))
    }
}

impl Queue {
    /// Queues a use. Returns whether a transaction is to be started for it.
    fn add(&mut self, account: Account, pending: PendingSpend) -> Result<bool, Arc<StoreError>> {
        if self.count >= MAX_WAITING {
            return Err(Arc::new(StoreError::TimedOut));
        }
        self.count += 1;
        if let Some(waiting) = self.waiting.get_mut(&account) {
            waiting.push(pending);
            return Ok(false);
        }
        self.waiting.insert(account, vec![pending]);
        self.ready.push_back(account);
        let starts = self.running < MAX_CONCURRENT_SPENDS;
        self.running += usize::from(starts);
        Ok(starts)
    }

    /// Takes the uses of the balance that has waited longest. Without one, gives up the place of
    /// the transaction.
    fn next(&mut self) -> Option<(Account, Vec<PendingSpend>)> {
        let Some(account) = self.ready.pop_front() else {
            self.running -= 1;
            return None;
        };
        let mut uses = self.waiting.get_mut(&account).map(std::mem::take).unwrap_or_default();
        if uses.len() > MAX_SPENDS_AT_ONCE {
            let rest = uses.split_off(MAX_SPENDS_AT_ONCE);
            self.waiting.insert(account, rest);
        }
        self.count -= uses.len();
        Some((account, uses))
    }

    /// Makes a balance ready again whose transaction has ended, if uses have come meanwhile.
    fn finish(&mut self, account: Account) {
        match self.waiting.get(&account) {
            Some(waiting) if !waiting.is_empty() => self.ready.push_back(account),
            _ => drop(self.waiting.remove(&account)),
        }
    }
}

/// Runs transactions until no use waits.
struct Spender {
    inner: Arc<Inner>,
}

impl Spender {
    async fn run(self) {
        loop {
            let Some((account, uses)) = self.inner.spends.0.lock().next() else { return };
            // In a task of its own: a panic leaves no balance without a transaction.
            let inner = Arc::clone(&self.inner);
            let _ = tokio::spawn(async move { decide(&inner, account, uses).await }).await;
            self.inner.spends.0.lock().finish(account);
        }
    }
}

/// Decides uses of one balance, and tells their callers.
async fn decide(inner: &Inner, account: Account, uses: Vec<PendingSpend>) {
    let uses = Arc::new(uses);
    let spent = inner
        .write_within(SPEND_TIMEOUT, Arc::clone(&uses), move |inner, transaction, uses| {
            spend_all(inner, transaction, account, uses).boxed()
        })
        .await
        .map_err(Arc::new);
    let uses = Arc::into_inner(uses).unwrap_or_default();
    for (at, pending) in uses.into_iter().enumerate() {
        let result = match &spent {
            Ok(spent) => Ok(spent.get(at).copied().flatten()),
            Err(error) => Err(Arc::clone(error)),
        };
        // Fails if the caller has stopped waiting.
        let _ = pending.result.send(result);
    }
}

/// Returns the outcome of each use, `None` for those whose caller has gone, and for all if there is
/// no balance.
async fn spend_all(
    inner: &Inner,
    transaction: &mut AnyConnection,
    (network, account): Account,
    uses: &[PendingSpend],
) -> Result<End<Vec<Option<SpentCredits>>>, StoreError> {
    let is_waiting: Vec<bool> = uses.iter().map(|pending| !pending.result.is_closed()).collect();
    let waiting = || uses.iter().zip(&is_waiting).filter(|(_, waits)| **waits).map(|(pending, _)| pending);
    let (Some(now), total) =
        (waiting().map(|pending| pending.now).max(), waiting().map(|pending| u64::from(pending.cost)).sum())
    else {
        return Ok(End::Rollback(vec![]));
    };
    let ids = (network.to_string(), account.to_string());
    let is_taken = take(inner, transaction, &ids, total, now).await?;
    let Some((mut balance, now)) = read_balance(inner, transaction, &ids, now).await? else {
        return Ok(End::Rollback(vec![]));
    };
    let before = balance;
    if is_taken {
        // The row says what is left after all of them.
        balance.remaining += total;
    }
    let decide = |(pending, waits): (&PendingSpend, &bool)| {
        waits.then(|| match is_taken {
            true => {
                balance.remaining -= u64::from(pending.cost);
                balance.outcome(true, pending.cost, now)
            }
            false => balance.spend(pending.cost, now),
        })
    };
    let spent = uses.iter().zip(&is_waiting).map(decide).collect();
    if balance != before {
        write_balance(inner, transaction, &ids, before, balance).await?;
    }
    Ok(End::Commit(spent))
}

/// Takes the sum of some costs from a balance. Returns false, and takes nothing, if less is left or
/// a refill is due.
async fn take(
    inner: &Inner,
    transaction: &mut AnyConnection,
    (network, account): &(String, String),
    total: u64,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let total = i64::try_from(total).map_err(|_| StoreError::Corrupt("remaining"))?;
    let has_clock = inner.dialect != Dialect::Sqlite;
    let clock = if has_clock { inner.dialect.clock() } else { "$5" };
    let take = format!(
        "UPDATE credits SET remaining = remaining - $1 WHERE network_id = $2 AND credits_id = $3 \
         AND remaining >= $4 AND (refill_due_at IS NULL OR refill_due_at > {clock})"
    );
    let take = inner.query(take).bind(total).bind(network.clone()).bind(account.clone()).bind(total);
    let take = if has_clock { take } else { take.bind(now.as_micros()) };
    Ok(take.execute(&mut *transaction).await?.rows_affected() == 1)
}

/// Reads and locks a balance, with the time that counts. Fails if the server isn't the primary.
async fn read_balance(
    inner: &Inner,
    transaction: &mut AnyConnection,
    (network, account): &(String, String),
    now: Timestamp,
) -> Result<Option<(CreditBalance, Timestamp)>, StoreError> {
    let dialect = inner.dialect;
    let read = format!(
        "SELECT remaining, refill, refill_due_at, {clock} AS now, {id} AS server_id, {state} AS server_state \
         FROM credits WHERE network_id = $1 AND credits_id = $2{lock}",
        clock = dialect.clock(),
        id = dialect.server_id(),
        state = dialect.server_state(),
        lock = dialect.lock_exclusive(),
    );
    let read = inner.query(read).bind(network.clone()).bind(account.clone());
    let Some(row) = read.fetch_optional(&mut *transaction).await? else {
        return Ok(None);
    };
    inner.poller.check_server(&authoritative(&row, "server_id", "server_state")?)?;
    let refill: Option<String> = row.try_get("refill")?;
    let refill = refill.map(|text| Refill::from_stored(&text).ok_or(StoreError::Corrupt("refill")));
    let due: Option<i64> = row.try_get("refill_due_at")?;
    let balance = CreditBalance {
        remaining: u64::try_from(row.try_get::<i64, _>("remaining")?)
            .map_err(|_| StoreError::Corrupt("remaining"))?,
        refill: refill.transpose()?,
        due: due.map(Timestamp::from_micros),
    };
    Ok(Some((balance, database_time(row.try_get("now")?).unwrap_or(now))))
}

/// Writes a balance that was decided under the row's lock; only over the one that was read.
async fn write_balance(
    inner: &Inner,
    transaction: &mut AnyConnection,
    (network, account): &(String, String),
    before: CreditBalance,
    after: CreditBalance,
) -> Result<(), StoreError> {
    let number = |remaining| i64::try_from(remaining).map_err(|_| StoreError::Corrupt("remaining"));
    let write = "UPDATE credits SET remaining = $1, refill_due_at = $2 WHERE network_id = $3 \
                 AND credits_id = $4 AND remaining = $5";
    let write = inner.query(write).bind(number(after.remaining)?).bind(after.due.map(Timestamp::as_micros));
    let write = write.bind(network.clone()).bind(account.clone()).bind(number(before.remaining)?);
    match write.execute(&mut *transaction).await?.rows_affected() {
        1 => Ok(()),
        // The lock didn't hold.
        _ => Err(StoreError::Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::imported_hash::KnownDigests;
    use crate::key::{Credits, Key, RefillInterval, RefillSchedule};
    use crate::rng::Rng;
    use crate::store::NewKey;
    use futures_util::future::join_all;
    use uuid::Uuid;

    const NETWORK: NetworkId = NetworkId::SINGLE;
    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

    fn key(number: u128, remaining: u64, refill: Option<Refill>) -> Key {
        let id = KeyId::Issued(Uuid::from_u128(number));
        let balance = CreditBalance::new(remaining, refill, NOW);
        Key { credits: Some(Arc::new(Credits { account: id, balance })), ..Key::sample(id, NOW) }
    }

    /// Opens a new database with one key, twice, as two processes do.
    async fn stores(key: Key) -> ([Store; 2], tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let store = Store::open(&dsn, Rng::seeded(1)).await.unwrap();
        store
            .insert_keys(vec![NewKey { key, request: None, digests: KnownDigests::default() }], None)
            .await
            .unwrap();
        let other = Store::open(&dsn, Rng::seeded(2)).await.unwrap();
        ([store, other], directory)
    }

    async fn left(store: &Store, id: KeyId) -> CreditBalance {
        let found = store.find_key(NETWORK, id).await.unwrap().key.unwrap();
        found.credits.as_ref().unwrap().balance
    }

    #[tokio::test]
    async fn uses_at_the_same_time_spend_what_is_there() {
        let key = key(1, 100, None);
        let id = key.id;
        let (stores, _directory) = stores(key).await;
        let uses = (0..200_u32).map(|number| {
            let store = &stores[number as usize % 2];
            async move { (1 + number % 3, store.spend_credits(NETWORK, id, 1 + number % 3, NOW).await) }
        });
        let mut spent = 0;
        for (cost, outcome) in join_all(uses).await {
            let outcome = outcome.unwrap().unwrap();
            assert!(outcome.remaining <= 100 && outcome.retry_after.is_none(), "{outcome:?}");
            spent += if outcome.allowed { u64::from(cost) } else { 0 };
        }
        let balance = left(&stores[0], id).await;
        assert_eq!(spent + balance.remaining, 100);
        assert_eq!(balance.remaining, 0, "there were enough uses of each cost");
        assert_eq!(stores[0].spend_credits(NETWORK, KeyId::Issued(Uuid::nil()), 1, NOW).await.unwrap(), None);
        for store in &stores {
            let queue = store.0.spends.0.lock();
            assert_eq!((queue.count, queue.running, queue.waiting.len()), (0, 0, 0));
        }
    }

    #[tokio::test]
    async fn a_refill_that_is_due_is_made_once_by_whoever_comes_first() {
        let schedule = RefillSchedule::parse(RefillInterval::Week, "").unwrap();
        let key = key(1, 1, Some(Refill { amount: 10, schedule }));
        let id = key.id;
        let (stores, _directory) = stores(key).await;
        let due = left(&stores[0], id).await.due.unwrap();
        let uses = async |now: Timestamp| {
            let spend = |number: usize| stores[number % 2].spend_credits(NETWORK, id, 1, now);
            let outcomes = join_all((0..40).map(spend)).await;
            outcomes.into_iter().filter(|outcome| outcome.as_ref().unwrap().unwrap().allowed).count()
        };
        assert_eq!(uses(NOW).await, 1);
        assert_eq!(uses(due).await, 10);
        assert_eq!(uses(due).await, 0);
        assert_eq!(uses(NOW).await, 0, "the clock was set back");
        assert_eq!(uses(due).await, 0, "the same time comes again");
        assert_eq!(left(&stores[0], id).await.due.unwrap(), schedule.next_after(due));
        let much_later = due.plus(Duration::from_secs(40 * 86_400));
        assert_eq!(uses(much_later).await, 10, "those that were missed count once");
    }

    #[tokio::test]
    async fn a_caller_that_has_gone_pays_nothing_before_its_turn() {
        let key = key(1, 5, None);
        let id = key.id;
        let ([store, _other], _directory) = stores(key).await;
        let (gone, _) = oneshot::channel();
        let (waits, result) = oneshot::channel();
        let pending = |result| PendingSpend { cost: 2, now: NOW, result };
        decide(&store.0, (NETWORK, id), vec![pending(gone), pending(waits)]).await;
        let spent = result.await.unwrap().unwrap().unwrap();
        assert_eq!((spent.allowed, spent.remaining), (true, 3));
        let (gone, _) = oneshot::channel();
        decide(&store.0, (NETWORK, id), vec![pending(gone)]).await;
        assert_eq!(left(&store, id).await.remaining, 3);
    }

    #[test]
    fn few_transactions_decide_many_uses_and_too_many_are_refused() {
        let mut queue = Queue::default();
        let account = |number| (NETWORK, KeyId::Issued(Uuid::from_u128(number)));
        let pending = || PendingSpend { cost: 1, now: NOW, result: oneshot::channel().0 };
        let started = (0..MAX_WAITING as u128).filter(|number| {
            // Half of them are of one balance.
            let of = if number.is_multiple_of(2) { 0 } else { *number };
            queue.add(account(of), pending()).unwrap()
        });
        assert_eq!(started.count(), MAX_CONCURRENT_SPENDS);
        assert!(queue.add(account(0), pending()).is_err());
        let (first, uses) = queue.next().unwrap();
        assert_eq!((first, uses.len()), (account(0), MAX_SPENDS_AT_ONCE));
        assert!(!queue.add(account(0), pending()).unwrap(), "its transaction is under way");
        let (second, uses) = queue.next().unwrap();
        assert_eq!((second, uses.len()), (account(1), 1));
        for account in [first, second] {
            queue.finish(account);
        }
        assert!(!queue.waiting.contains_key(&second) && queue.ready.back() == Some(&first));
        let mut decided = 0;
        while let Some((account, uses)) = queue.next() {
            decided += uses.len();
            queue.finish(account);
        }
        assert_eq!(decided, MAX_WAITING + 1 - MAX_SPENDS_AT_ONCE - 1);
        assert_eq!((queue.count, queue.running), (0, MAX_CONCURRENT_SPENDS - 1));
    }
}
