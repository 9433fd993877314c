//! Which credential the next request shows, and what must come of it.

use std::cell::Cell;

use crate::Failure;
use crate::keys::Key;

/// How the keys are asked for.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct MixOptions {
    /// Exponent of the Zipf distribution over the keys; 0 asks for all alike.
    #[arg(long, default_value_t = 1.0)]
    zipf: f64,
    /// Share of credentials that nobody has been given: a key with a wrong end, or one that looks imported.
    #[arg(long, default_value_t = 0.0)]
    bad: f64,
    /// Share of revoked keys.
    #[arg(long, default_value_t = 0.0)]
    revoked: f64,
    /// Where chance begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What the server knows of a good key by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Good,
    /// The revocation has been asked for and not been answered.
    BeingRevoked,
    Revoked,
}

/// The keys and how they are drawn.
pub struct Mix {
    options: MixOptions,
    good: Vec<Key>,
    states: Vec<Cell<State>>,
    revoked: Vec<Key>,
    /// For each good key the share of requests that goes to it and those before it.
    shares: Vec<f64>,
    chance: Cell<u64>,
}

/// A credential, and whose it is.
pub struct Shown {
    pub credential: String,
    pub owner: Owner,
}

/// Whose a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The good key of that number, in the state in which it was sent.
    Key(usize, State),
    /// A key that was revoked before the round.
    Revoked,
    /// Nobody's.
    Nobody,
}

/// What may come of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Allowed,
    Refused,
    Either,
}

impl Mix {
    /// Of the keys of a file.
    pub fn new(options: MixOptions, keys: Vec<Key>) -> Result<Self, Failure> {
        let (revoked, good): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.revoked);
        if good.is_empty() || (revoked.is_empty() && options.revoked > 0.0) {
            return Err("the file has no such keys".into());
        }
        let weights: Vec<f64> = (1..=good.len()).map(|n| (n as f64).powf(-options.zipf)).collect();
        let total: f64 = weights.iter().sum();
        let shares = weights
            .iter()
            .scan(0.0, |sum, weight| {
                *sum += weight / total;
                Some(*sum)
            })
            .collect();
        let states = good.iter().map(|_| Cell::new(State::Good)).collect();
        let chance = Cell::new(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Ok(Self { options, good, states, revoked, shares, chance })
    }

    /// The good keys.
    pub fn good(&self) -> &[Key] {
        &self.good
    }

    /// Notes how far a key's revocation is.
    pub fn note(&self, key: usize, state: State) {
        self.states[key].set(state);
    }

    /// The good key of that number.
    pub fn key(&self, n: usize) -> Shown {
        Shown { credential: self.good[n].secret.clone(), owner: Owner::Key(n, self.states[n].get()) }
    }

    /// The next credential.
    pub fn draw(&self) -> Shown {
        let kind = self.fraction();
        if kind < self.options.bad {
            return Shown { credential: self.bad(), owner: Owner::Nobody };
        }
        if kind < self.options.bad + self.options.revoked {
            let key = &self.revoked[self.below(self.revoked.len())];
            return Shown { credential: key.secret.clone(), owner: Owner::Revoked };
        }
        let at = self.fraction();
        self.key(self.shares.partition_point(|share| *share < at).min(self.good.len() - 1))
    }

    /// What may come of a request that was sent in the state that it holds.
    pub fn expected(&self, owner: Owner) -> Expected {
        match owner {
            Owner::Nobody | Owner::Revoked | Owner::Key(_, State::Revoked) => Expected::Refused,
            Owner::Key(_, State::BeingRevoked) => Expected::Either,
            Owner::Key(n, State::Good) => match self.states[n].get() {
                State::Good => Expected::Allowed,
                State::BeingRevoked | State::Revoked => Expected::Either,
            },
        }
    }

    fn bad(&self) -> String {
        if self.below(4) == 0 {
            return format!("legacy-key-{}", self.below(1_000));
        }
        // Another ending: form and identifier are right, the checksum isn't.
        let key = &self.good[self.below(self.good.len())].secret;
        let (rest, end) = key.split_at(key.len() - 4);
        format!("{rest}{}", if end == "2222" { "3333" } else { "2222" })
    }

    fn below(&self, bound: usize) -> usize {
        (self.fraction() * bound as f64) as usize
    }

    fn fraction(&self) -> f64 {
        let mut x = self.chance.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.chance.set(x);
        (x >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(zipf: f64, bad: f64, revoked: f64) -> Mix {
        let key = |n: usize| Key { id: n.to_string(), secret: format!("key-{n:04}"), revoked: n >= 90 };
        Mix::new(MixOptions { zipf, bad, revoked, seed: 7 }, (0..100).map(key).collect()).unwrap()
    }

    #[test]
    fn shares_are_kept_and_the_first_key_is_asked_for_most() {
        let mix = mix(1.0, 0.1, 0.05);
        let drawn: Vec<_> = (0..20_000).map(|_| mix.draw().owner).collect();
        let count = |wanted: fn(&Owner) -> bool| drawn.iter().filter(|owner| wanted(owner)).count();
        assert!((1_800..2_200).contains(&count(|owner| *owner == Owner::Nobody)));
        assert!((850..1_150).contains(&count(|owner| *owner == Owner::Revoked)));
        let (first, tenth) = (
            count(|owner| matches!(owner, Owner::Key(0, _))),
            count(|owner| matches!(owner, Owner::Key(9, _))),
        );
        assert!(first > 7 * tenth, "{first} {tenth}");
    }

    #[test]
    fn a_revocation_counts_for_what_is_sent_after_its_answer() {
        let mix = mix(1.0, 0.0, 0.0);
        let before = mix.key(3).owner;
        assert_eq!(mix.expected(before), Expected::Allowed);
        mix.note(3, State::BeingRevoked);
        assert_eq!(
            (mix.expected(before), mix.expected(mix.key(3).owner)),
            (Expected::Either, Expected::Either)
        );
        mix.note(3, State::Revoked);
        assert_eq!(
            (mix.expected(before), mix.expected(mix.key(3).owner)),
            (Expected::Either, Expected::Refused)
        );
    }
}
