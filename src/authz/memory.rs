//! Memory that connections hold: what one may, and what all of them together may.
//!
//! Everything that grows with what a client does is counted here: buffers and tables of HTTP/2,
//! messages that aren't complete, calls that wait, answers that aren't taken. A connection may hold
//! at most as much as is left for all others, so one alone gets no more than half, and the more
//! hold much, the less each may. A little is everybody's, however much is used.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How much is taken from a pool at once, in bytes, so that most Checks don't touch it.
const STEP: usize = 4 * 1024;

/// How much connections may hold, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLimits {
    /// One of them.
    pub connection: usize,
    /// Each of them, however much the others hold.
    pub guaranteed: usize,
    /// All of them together, beside what is guaranteed.
    pub process: usize,
}

/// What all connections of a process share.
#[derive(Debug)]
pub struct MemoryPool {
    limits: MemoryLimits,
    used: AtomicUsize,
}

impl MemoryPool {
    /// A pool of which nothing is used.
    pub const fn new(limits: MemoryLimits) -> Self {
        Self { limits, used: AtomicUsize::new(0) }
    }

    /// Bytes that are used.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes what a connection needs that has `current` bytes and wants `wanted`; false when it may
    /// not have so much.
    fn grow(&self, current: usize, wanted: usize) -> bool {
        let MemoryLimits { connection, guaranteed, process } = self.limits;
        let grow = |used: usize| {
            let after = used + wanted - current;
            let fits = wanted <= guaranteed || (wanted <= connection && wanted + after <= process);
            fits.then_some(after)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).is_ok()
    }
}

/// What one connection holds. Dropped, it gives everything back.
#[derive(Debug)]
pub struct Account {
    pool: Arc<MemoryPool>,
    /// Bytes of the connection itself.
    own: Cell<usize>,
    /// Bytes of its calls.
    shares: Cell<usize>,
    /// What it has of the pool, which is as much rounded up.
    reserved: Cell<usize>,
}

impl Account {
    /// The account of a connection that holds nothing yet.
    pub const fn new(pool: Arc<MemoryPool>) -> Self {
        Self { pool, own: Cell::new(0), shares: Cell::new(0), reserved: Cell::new(0) }
    }

    /// Notes what the connection itself holds now; false when that is more than it may: then it
    /// must give some of it back, or end.
    #[must_use]
    pub fn set_own(&self, bytes: usize) -> bool {
        let may = self.reserve((bytes + self.shares.get()).next_multiple_of(STEP));
        if may {
            self.own.set(bytes);
        }
        may
    }

    /// Brings what it has of the pool to `wanted`; false when that is more than it may have.
    fn reserve(&self, wanted: usize) -> bool {
        let reserved = self.reserved.get();
        if wanted > reserved {
            if !self.pool.grow(reserved, wanted) {
                return false;
            }
        } else if wanted < reserved {
            self.pool.used.fetch_sub(reserved - wanted, Ordering::Relaxed);
        }
        self.reserved.set(wanted);
        true
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.reserved.get(), Ordering::Relaxed);
    }
}

/// What one call holds of its connection's memory. Dropped, it gives that back.
#[derive(Debug)]
pub struct Share {
    account: Rc<Account>,
    bytes: usize,
}

impl Share {
    /// The share of a call that holds nothing yet.
    pub const fn new(account: Rc<Account>) -> Self {
        Self { account, bytes: 0 }
    }

    /// Takes more; false when there isn't so much, and nothing is taken.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let account = &self.account;
        let shares = account.shares.get() + bytes;
        let may = account.reserve((account.own.get() + shares).next_multiple_of(STEP));
        if may {
            account.shares.set(shares);
            self.bytes += bytes;
        }
        may
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // What the account has of the pool follows when the connection is looked at next.
        self.account.shares.set(self.account.shares.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    const LIMITS: MemoryLimits =
        MemoryLimits { connection: 16 * STEP, guaranteed: 2 * STEP, process: 40 * STEP };

    fn accounts(count: usize) -> (Arc<MemoryPool>, Vec<Rc<Account>>) {
        let pool = Arc::new(MemoryPool::new(LIMITS));
        let accounts = (0..count).map(|_| Rc::new(Account::new(Arc::clone(&pool)))).collect();
        (pool, accounts)
    }

    #[test]
    fn a_connection_gets_what_is_bounded_and_gives_it_back() {
        let (pool, accounts) = accounts(1);
        let mut share = Share::new(Rc::clone(&accounts[0]));
        assert!(accounts[0].set_own(STEP));
        assert!(share.grow(15 * STEP) && !share.grow(1), "a connection's own bound");
        assert_eq!(pool.used(), 16 * STEP);
        drop(share);
        assert!(accounts[0].set_own(1));
        assert_eq!(pool.used(), STEP);
        assert!(!accounts[0].set_own(17 * STEP) && !accounts[0].set_own(17 * STEP), "it is told so");
        assert_eq!(pool.used(), STEP);
        drop(accounts);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn many_leave_something_for_one_more() {
        let (pool, accounts) = accounts(100);
        let mut shares: Vec<Share> = accounts.iter().map(|account| Share::new(Rc::clone(account))).collect();
        let (newcomer, greedy) = shares.split_first_mut().unwrap();
        // Each takes whatever it gets, over and over.
        for _ in 0..100 {
            for share in greedy.iter_mut() {
                let _ = share.grow(STEP);
            }
        }
        assert!(newcomer.grow(LIMITS.guaranteed), "what is guaranteed");
        assert!(pool.used() <= LIMITS.process + 100 * LIMITS.guaranteed, "{}", pool.used());
        // Few leave more than that.
        shares.truncate(4);
        for account in &accounts {
            assert!(account.set_own(0));
        }
        assert!(shares[0].grow(4 * STEP));
    }

    proptest! {
        #[test]
        fn whatever_is_taken_and_given_back_the_sum_is_right(
            steps in prop::collection::vec((0_usize..5, any::<bool>(), 0_usize..20 * STEP), 0..200),
        ) {
            let (pool, accounts) = accounts(5);
            let mut shares: Vec<Share> = vec![];
            for (of, own, bytes) in steps {
                if own {
                    // Whoever holds too much is sent away.
                    prop_assert!(accounts[of].set_own(bytes / 10) || accounts[of].set_own(0));
                } else if bytes % 3 == 0 {
                    shares.pop();
                    prop_assert!(accounts[of].set_own(0));
                } else {
                    let mut share = Share::new(Rc::clone(&accounts[of]));
                    if share.grow(bytes) {
                        shares.push(share);
                    }
                }
                let reserved: usize = accounts.iter().map(|account| account.reserved.get()).sum();
                prop_assert_eq!(pool.used(), reserved);
                prop_assert!(pool.used() <= LIMITS.process + 5 * LIMITS.guaranteed);
                for account in &accounts {
                    prop_assert!(account.reserved.get() <= LIMITS.connection);
                }
            }
            drop((shares, accounts));
            prop_assert_eq!(pool.used(), 0);
        }
    }
}
