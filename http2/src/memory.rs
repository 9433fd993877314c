//! Accounting of the memory that connections hold, with a limit for one and a limit for all.
//!
//! Everything that grows with what a peer does is counted: buffers and tables, incomplete messages,
//! streams that wait, responses that aren't taken. A connection may hold at most as much as is left
//! for all others, so one alone gets no more than half, and the more hold much, the less each may.
//! A guaranteed amount is every connection's own, however much is used.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are taken from a pool at once, so that most streams don't touch it.
const STEP: usize = 4 * 1024;

/// Limits on the memory of connections, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLimits {
    /// Most for one connection.
    pub connection: usize,
    /// Guaranteed to each connection, however much the others hold.
    pub guaranteed: usize,
    /// Most for all connections together, beside what is guaranteed.
    pub process: usize,
}

/// The memory that all connections of a process share.
#[derive(Debug)]
pub struct MemoryPool {
    limits: MemoryLimits,
    used: AtomicUsize,
}

impl MemoryPool {
    /// Makes a pool of which nothing is used.
    pub const fn new(limits: MemoryLimits) -> Self {
        Self { limits, used: AtomicUsize::new(0) }
    }

    /// Returns the bytes that are used.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Grows a connection's part from `current` bytes to `wanted`; false when it may not grow.
    ///
    /// For drivers that keep the account of a connection themselves, for example across threads.
    #[must_use]
    pub fn grow(&self, current: usize, wanted: usize) -> bool {
        let MemoryLimits { connection, guaranteed, process } = self.limits;
        // Keeps the sums below from overflowing, whatever a driver asks for.
        if wanted > connection.max(guaranteed) {
            return false;
        }
        let grow = |used: usize| {
            let after = used + wanted - current;
            let fits = wanted <= guaranteed || (wanted <= connection && wanted + after <= process);
            fits.then_some(after)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).is_ok()
    }

    /// Takes back bytes that a connection had grown by.
    pub fn shrink(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The memory of one connection; dropping it returns everything to the pool.
#[derive(Debug)]
pub struct MemoryAccount {
    pool: Arc<MemoryPool>,
    /// Bytes of the connection itself.
    own: Cell<usize>,
    /// Bytes of its permits.
    permits: Cell<usize>,
    /// Bytes that it has of the pool: the sum, rounded up.
    reserved: Cell<usize>,
}

impl MemoryAccount {
    /// Makes the account of a connection that holds nothing yet.
    pub const fn new(pool: Arc<MemoryPool>) -> Self {
        Self { pool, own: Cell::new(0), permits: Cell::new(0), reserved: Cell::new(0) }
    }

    /// Sets the bytes that the connection itself holds; false when they exceed a limit.
    ///
    /// Then the connection must release some, or end.
    #[must_use]
    pub fn set_own(&self, bytes: usize) -> bool {
        let may = self.reserve((bytes + self.permits.get()).next_multiple_of(STEP));
        if may {
            self.own.set(bytes);
        }
        may
    }

    /// Changes its part of the pool to `wanted` bytes; false when that exceeds a limit.
    fn reserve(&self, wanted: usize) -> bool {
        let reserved = self.reserved.get();
        if wanted > reserved {
            if !self.pool.grow(reserved, wanted) {
                return false;
            }
        } else if wanted < reserved {
            self.pool.shrink(reserved - wanted);
        }
        self.reserved.set(wanted);
        true
    }
}

impl Drop for MemoryAccount {
    fn drop(&mut self) {
        self.pool.shrink(self.reserved.get());
    }
}

/// Bytes that one stream holds of its connection's memory; dropping it returns them.
#[derive(Debug)]
pub struct MemoryPermit {
    account: Rc<MemoryAccount>,
    bytes: usize,
}

impl MemoryPermit {
    /// Makes the permit of a stream that holds nothing yet.
    pub const fn new(account: Rc<MemoryAccount>) -> Self {
        Self { account, bytes: 0 }
    }

    /// Takes more bytes; false when that exceeds a limit, and nothing is taken.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let account = &self.account;
        let permits = account.permits.get() + bytes;
        let may = account.reserve((account.own.get() + permits).next_multiple_of(STEP));
        if may {
            account.permits.set(permits);
            self.bytes += bytes;
        }
        may
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        // The account's part of the pool follows with the next `set_own`.
        self.account.permits.set(self.account.permits.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    const LIMITS: MemoryLimits =
        MemoryLimits { connection: 16 * STEP, guaranteed: 2 * STEP, process: 40 * STEP };

    fn accounts(count: usize) -> (Arc<MemoryPool>, Vec<Rc<MemoryAccount>>) {
        let pool = Arc::new(MemoryPool::new(LIMITS));
        let accounts = (0..count).map(|_| Rc::new(MemoryAccount::new(Arc::clone(&pool)))).collect();
        (pool, accounts)
    }

    #[test]
    fn a_connection_gets_what_is_bounded_and_gives_it_back() {
        let (pool, accounts) = accounts(1);
        let mut permit = MemoryPermit::new(Rc::clone(&accounts[0]));
        assert!(accounts[0].set_own(STEP));
        assert!(permit.grow(15 * STEP) && !permit.grow(1), "a connection's own bound");
        assert_eq!(pool.used(), 16 * STEP);
        drop(permit);
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
        let mut permits: Vec<MemoryPermit> =
            accounts.iter().map(|account| MemoryPermit::new(Rc::clone(account))).collect();
        let (newcomer, greedy) = permits.split_first_mut().unwrap();
        // Each takes whatever it gets, over and over.
        for _ in 0..100 {
            for permit in greedy.iter_mut() {
                let _ = permit.grow(STEP);
            }
        }
        assert!(newcomer.grow(LIMITS.guaranteed), "what is guaranteed");
        assert!(pool.used() <= LIMITS.process + 100 * LIMITS.guaranteed, "{}", pool.used());
        // Keeps only a few permits.
        permits.truncate(4);
        for account in &accounts {
            assert!(account.set_own(0));
        }
        assert!(permits[0].grow(4 * STEP));
    }

    proptest! {
        #[test]
        fn the_sum_of_accounts_is_right_after_any_steps(
            steps in prop::collection::vec((0_usize..5, any::<bool>(), 0_usize..20 * STEP), 0..200),
        ) {
            let (pool, accounts) = accounts(5);
            let mut permits: Vec<MemoryPermit> = vec![];
            for (of, own, bytes) in steps {
                if own {
                    // A connection that holds too much is closed, which frees all.
                    prop_assert!(accounts[of].set_own(bytes / 10) || accounts[of].set_own(0));
                } else if bytes % 3 == 0 {
                    permits.pop();
                    prop_assert!(accounts[of].set_own(0));
                } else {
                    let mut permit = MemoryPermit::new(Rc::clone(&accounts[of]));
                    if permit.grow(bytes) {
                        permits.push(permit);
                    }
                }
                let reserved: usize = accounts.iter().map(|account| account.reserved.get()).sum();
                prop_assert_eq!(pool.used(), reserved);
                prop_assert!(pool.used() <= LIMITS.process + 5 * LIMITS.guaranteed);
                for account in &accounts {
                    prop_assert!(account.reserved.get() <= LIMITS.connection);
                }
            }
            drop((permits, accounts));
            prop_assert_eq!(pool.used(), 0);
        }
    }
}
