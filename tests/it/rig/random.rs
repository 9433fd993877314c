//! Repeatable random numbers (SplitMix64). The seed is printed; `TALOS_TEST_SEED` overrides it.

use crate::rig::support::{Must, unix_now};

pub struct Random(u64);

impl Random {
    /// Returns a generator for a test, and prints its seed.
    pub fn seeded(test: &str) -> Random {
        let seed = match std::env::var("TALOS_TEST_SEED") {
            Ok(text) => text.parse().must("TALOS_TEST_SEED is a number"),
            Err(_) => (unix_now() * 1e6) as u64,
        };
        println!("{test}: run again with TALOS_TEST_SEED={seed}");
        Random(seed)
    }

    /// Returns another generator, for a part of the work that runs beside others.
    pub fn split(&mut self) -> Random {
        Random(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Returns a number in `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn between(&mut self, first: usize, last: usize) -> usize {
        first + self.below(last - first + 1)
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// Returns `count` characters out of `alphabet`.
    pub fn text(&mut self, alphabet: &str, count: usize) -> String {
        let symbols: Vec<char> = alphabet.chars().collect();
        (0..count).map(|_| *self.pick(&symbols)).collect()
    }
}
