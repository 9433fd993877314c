//! Source of entropy that is passed as an argument: the machine's generator, or a seeded one in
//! tests.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Generates random bytes.
#[derive(Clone)]
pub struct Rng(Source);

#[derive(Clone)]
enum Source {
    System(SystemRandom),
    Seeded(Arc<Mutex<Seeded>>),
}

/// Hashes a seed and a counter, one block of 32 bytes after the other.
struct Seeded {
    seed: u64,
    blocks: u64,
}

impl Rng {
    /// Uses the machine's cryptographic generator.
    pub fn system() -> Self {
        Self(Source::System(SystemRandom::new()))
    }

    /// Uses repeatable bytes from a seed, for tests only.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(Seeded { seed, blocks: 0 }))))
    }

    /// Generates `N` random bytes.
    ///
    /// # Panics
    /// When the machine's generator fails, as no secret may be made without it.
    #[expect(clippy::expect_used, reason = "without random bytes no secret may be made")]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        match &self.0 {
            Source::System(random) => random.fill(&mut out).expect("the operating system gives random bytes"),
            Source::Seeded(seeded) => seeded.lock().fill(&mut out),
        }
        out
    }

    /// Generates a random (version 4) UUID.
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid()
    }

    /// Varies a duration by up to `spread` of it in both directions, evenly distributed, so that
    /// processes and tasks which start together don't act together.
    pub fn jittered(&self, duration: Duration, spread: f64) -> Duration {
        let share = f64::from(u16::from_be_bytes(self.bytes())) / f64::from(u16::MAX);
        duration.mul_f64(1.0 - spread + 2.0 * spread * share)
    }
}

impl Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            self.blocks += 1;
            let block = Sha256::new()
                .chain_update(self.seed.to_be_bytes())
                .chain_update(self.blocks.to_be_bytes())
                .finalize();
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_spread_and_varies() {
        let (rng, duration) = (Rng::seeded(1), Duration::from_secs(100));
        let jittered: Vec<_> = (0..100).map(|_| rng.jittered(duration, 0.1)).collect();
        let (low, high) = (Duration::from_secs(90), Duration::from_secs(110));
        assert!(jittered.iter().all(|jittered| (low..=high).contains(jittered)));
        assert!(jittered.iter().any(|jittered| *jittered < duration));
        assert!(jittered.iter().any(|jittered| *jittered > duration));
    }
}
