//! Chooses the credential of each request, and the result that it must have.

use std::cell::Cell;

use crate::LoadError;
use crate::key_file::Key;

/// Options of the workload.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct WorkloadOptions {
    /// Exponent of the Zipf distribution over the keys; 0 for a uniform one.
    #[arg(long, default_value_t = 1.0)]
    zipf: f64,
    /// Share of invalid credentials: keys with a wrong checksum, or unknown imported keys.
    #[arg(long, default_value_t = 0.0)]
    bad: f64,
    /// Share of revoked keys.
    #[arg(long, default_value_t = 0.0)]
    revoked: f64,
    /// Seed of the random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Revocation state of a key during the round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Active,
    /// The revocation has been requested but not answered.
    Revoking,
    Revoked,
}

/// The keys, and their distribution.
pub(crate) struct Workload {
    options: WorkloadOptions,
    active: Vec<Key>,
    states: Vec<Cell<State>>,
    revoked: Vec<Key>,
    /// Cumulative share of requests, per active key.
    cumulative: Vec<f64>,
    random: Cell<u64>,
}

/// A credential to send, and its owner.
pub(crate) struct Request {
    pub credential: String,
    pub owner: Owner,
}

/// Owner of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The active key of this number, in its state when the request was made.
    Key(usize, State),
    /// A key that was revoked before the round.
    Revoked,
    /// Unknown's.
    Unknown,
}

/// Results that a request may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Allowed,
    Refused,
    Either,
}

impl Workload {
    /// Creates the workload of the keys of a file.
    pub(crate) fn new(options: WorkloadOptions, keys: Vec<Key>) -> Result<Self, LoadError> {
        let (revoked, active): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.revoked);
        if active.is_empty() || (revoked.is_empty() && options.revoked > 0.0) {
            return Err("the file has no active keys, or no revoked keys although --revoked is set".into());
        }
        let weights: Vec<f64> = (1..=active.len()).map(|n| (n as f64).powf(-options.zipf)).collect();
        let total: f64 = weights.iter().sum();
        let cumulative = weights
            .iter()
            .scan(0.0, |sum, weight| {
                *sum += weight / total;
                Some(*sum)
            })
            .collect();
        let states = active.iter().map(|_| Cell::new(State::Active)).collect();
        let random = Cell::new(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Ok(Self { options, active, states, revoked, cumulative, random })
    }

    /// Returns the active keys.
    pub(crate) fn active(&self) -> &[Key] {
        &self.active
    }

    /// Records the revocation state of a key.
    pub(crate) fn set_state(&self, key: usize, state: State) {
        self.states[key].set(state);
    }

    /// Returns a request with the active key of this number.
    pub(crate) fn key(&self, n: usize) -> Request {
        Request { credential: self.active[n].secret.clone(), owner: Owner::Key(n, self.states[n].get()) }
    }

    /// Draws the next request.
    pub(crate) fn draw(&self) -> Request {
        let kind = self.fraction();
        if kind < self.options.bad {
            return Request { credential: self.invalid_credential(), owner: Owner::Unknown };
        }
        if kind < self.options.bad + self.options.revoked {
            let key = &self.revoked[self.below(self.revoked.len())];
            return Request { credential: key.secret.clone(), owner: Owner::Revoked };
        }
        let at = self.fraction();
        self.key(self.cumulative.partition_point(|share| *share < at).min(self.active.len() - 1))
    }

    /// Returns the results that a request of this owner may have now.
    pub(crate) fn expected(&self, owner: Owner) -> Expected {
        match owner {
            Owner::Unknown | Owner::Revoked | Owner::Key(_, State::Revoked) => Expected::Refused,
            Owner::Key(_, State::Revoking) => Expected::Either,
            Owner::Key(n, State::Active) => match self.states[n].get() {
                State::Active => Expected::Allowed,
                State::Revoking | State::Revoked => Expected::Either,
            },
        }
    }

    fn invalid_credential(&self) -> String {
        if self.below(4) == 0 {
            return format!("legacy-key-{}", self.below(1_000));
        }
        // The form and identifier are valid, the checksum isn't.
        let key = &self.active[self.below(self.active.len())].secret;
        let (rest, end) = key.split_at(key.len() - 4);
        format!("{rest}{}", if end == "2222" { "3333" } else { "2222" })
    }

    fn below(&self, bound: usize) -> usize {
        (self.fraction() * bound as f64) as usize
    }

    fn fraction(&self) -> f64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(zipf: f64, bad: f64, revoked: f64) -> Workload {
        let key = |n: usize| Key { id: n.to_string(), secret: format!("key-{n:04}"), revoked: n >= 90 };
        Workload::new(WorkloadOptions { zipf, bad, revoked, seed: 7 }, (0..100).map(key).collect()).unwrap()
    }

    #[test]
    fn shares_are_kept_and_the_first_key_is_asked_for_most() {
        let workload = workload(1.0, 0.1, 0.05);
        let drawn: Vec<_> = (0..20_000).map(|_| workload.draw().owner).collect();
        let count = |wanted: fn(&Owner) -> bool| drawn.iter().filter(|owner| wanted(owner)).count();
        assert!((1_800..2_200).contains(&count(|owner| *owner == Owner::Unknown)));
        assert!((850..1_150).contains(&count(|owner| *owner == Owner::Revoked)));
        let (first, tenth) = (
            count(|owner| matches!(owner, Owner::Key(0, _))),
            count(|owner| matches!(owner, Owner::Key(9, _))),
        );
        assert!(first > 7 * tenth, "{first} {tenth}");
    }

    #[test]
    fn a_revocation_counts_for_what_is_sent_after_its_answer() {
        let workload = workload(1.0, 0.0, 0.0);
        let before = workload.key(3).owner;
        assert_eq!(workload.expected(before), Expected::Allowed);
        workload.set_state(3, State::Revoking);
        assert_eq!(
            (workload.expected(before), workload.expected(workload.key(3).owner)),
            (Expected::Either, Expected::Either)
        );
        workload.set_state(3, State::Revoked);
        assert_eq!(
            (workload.expected(before), workload.expected(workload.key(3).owner)),
            (Expected::Either, Expected::Refused)
        );
    }
}
