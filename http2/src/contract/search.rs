//! A search for frame sequences that come close to a bound: hill climbing from random beginnings.
//!
//! The suite climbs for a moment under a seed that is printed. `HTTP2_SEARCH_STEPS` makes it climb
//! for longer, `HTTP2_SEARCH_SEED` repeats a run. A breach prints the sequence that causes it.

use super::frames::*;
use super::peer::{Breach, OPENING, Peer, Usage};
use crate::frame::{flag, frame_type};
use crate::limits::Limits;

const LIMITS: Limits = Limits {
    max_concurrent_streams: 64,
    max_header_list_size: 16 * 1024,
    abuse_budget: u32::MAX - 1,
    max_output: 16 * 1024,
    max_pending: 64 * 1024,
    read_ticks: 10,
    write_ticks: 20,
};
/// Steps of each climb in the suite.
const STEPS: u32 = 50;
/// Climbs towards each bound; more, if none of them comes up to a part of it that shows that it
/// climbed.
const CLIMBS: u32 = 3;
const MAX_CLIMBS: u32 = 20;
const LEAST_HEIGHT: f64 = 0.05;
/// Most genes of a sequence, and how often the sequence is sent.
const MAX_GENES: usize = 24;
const ROUNDS: u32 = 12;

/// A generator of pseudo-random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as u32 % bound
    }
}

/// A kind of frame, and numbers that its frames are made of.
#[derive(Debug, Clone, Copy)]
struct Gene {
    kind: u32,
    stream: u32,
    size: u32,
}

const KINDS: u32 = 18;
/// Sizes that a gene may have: windows, lengths, repetitions.
const SIZES: [u32; 12] = [0, 1, 2, 9, 60, 128, 300, 1_000, 3_900, 10_000, 16_000, 0x7fff_ffff];

impl Gene {
    fn random(random: &mut Random) -> Self {
        let size = SIZES[random.below(SIZES.len() as u32) as usize];
        Self { kind: random.below(KINDS), stream: random.below(20), size }
    }

    /// Returns the frames of the gene, `next` being the first stream that isn't used.
    fn frames(self, next: &mut u32) -> Vec<u8> {
        let used = client_stream(next.saturating_sub(1 + self.stream));
        let length = (self.size as usize).min(16_000);
        let mut new = || {
            *next += 1;
            client_stream(*next - 1)
        };
        match self.kind {
            0 => open(new()),
            1 => request(new()),
            2 => reset(used),
            3 => data(used, 0, &vec![0; length]),
            4 => data(used, END_STREAM, &vec![0; length]),
            5 => window_update(used, self.size),
            6 => window_update(0, self.size.max(1)),
            7 => initial_windows([self.size]),
            8 => initial_windows((0..self.size.min(2_700)).map(|n| n & 1)),
            9 => framed(frame_type::PING, self.size as u8 & flag::ACK, 0, &[0; 8]),
            10 => framed(frame_type::PRIORITY, 0, used, &[0; 5]),
            11 => block_in_frames(new(), &[&[0x40][..], &long_string(length.max(128)), &[0]]),
            12 => block_in_frames(new(), &[&[0xbe].repeat(length)]),
            13 => block_in_frames(new(), &[&[0x7e, 0x00].repeat(length / 2)]),
            14 => block_in_frames(new(), &[&[0x0f, 0x2f, 0x00].repeat(length / 3)]),
            15 => block_in_frames(new(), &[&[0x04, 2, b'/', (self.stream as u8) | 1].repeat(length / 4)]),
            16 => framed(
                frame_type::HEADERS,
                END_HEADERS,
                new(),
                &[&[0x20, 0x3f, 0xe1, 0x1f].repeat(length / 4)[..], POST].concat(),
            ),
            _ => {
                let stream = new();
                let begin = framed(frame_type::HEADERS, END_STREAM, stream, POST);
                let more = framed(frame_type::CONTINUATION, 0, stream, &[0x82]);
                let end = framed(frame_type::CONTINUATION, END_HEADERS, stream, &[]);
                [begin, more.repeat(length.min(62)), end].concat()
            }
        }
    }
}

/// Sends a sequence over and over, and returns the largest parts of the bounds that it used.
fn run(genes: &[Gene], response: usize, reads: u32) -> Result<Usage, Breach> {
    let mut peer = Peer::open(LIMITS, vec![b'a'; response].into());
    let mut most = peer.check()?;
    let mut next = 0;
    peer.send(OPENING, true)?;
    for _ in 0..ROUNDS {
        for gene in genes {
            let is_received = peer.send(&gene.frames(&mut next), reads > 0)?;
            if reads > 1 {
                peer.read(reads as usize)?;
            }
            let usage = peer.check()?;
            // At the beginning what is constant counts for much.
            if peer.received() > 1_000 {
                most.work = most.work.max(usage.work);
                most.output = most.output.max(usage.output);
            }
            most.unwritten = most.unwritten.max(usage.unwritten);
            most.memory = most.memory.max(usage.memory);
            if !is_received {
                return Ok(most);
            }
        }
    }
    Ok(most)
}

fn mutated(genes: &[Gene], random: &mut Random) -> Vec<Gene> {
    let mut genes = genes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(genes.len() as u32) as usize;
        match random.below(5) {
            0 if genes.len() < MAX_GENES => genes.insert(at, Gene::random(random)),
            1 if genes.len() > 1 => drop(genes.remove(at)),
            2 if genes.len() < MAX_GENES => genes.insert(at, genes[at]),
            3 => genes[at].size = SIZES[random.below(SIZES.len() as u32) as usize],
            _ => genes[at] = Gene::random(random),
        }
    }
    genes
}

/// The part of one bound that a run has used.
type Height = fn(&Usage) -> f64;

/// Climbs towards one bound, and returns how close it came.
fn climb(name: &str, height: Height, steps: u32, random: &mut Random) -> f64 {
    let response = [0, 1, 1_000, 20_000][random.below(4) as usize];
    let reads = [0, 1, 100, 100_000][random.below(4) as usize];
    let mut genes: Vec<Gene> = (0..=random.below(8)).map(|_| Gene::random(random)).collect();
    let mut best = 0.0;
    for _ in 0..steps {
        let candidate = mutated(&genes, random);
        match run(&candidate, response, reads) {
            Ok(usage) if height(&usage) >= best => (best, genes) = (height(&usage), candidate),
            Ok(_) => {}
            Err(breach) => panic!("{breach}: responses of {response}, reads {reads}, {candidate:?}"),
        }
    }
    println!("{name}: {best:.3} of the bound by {genes:?}, responses of {response}, reads {reads}");
    best
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn climbing_towards_a_bound_never_crosses_it() {
    let seed = number("HTTP2_SEARCH_SEED").unwrap_or_else(|| {
        use std::hash::{BuildHasher, Hasher, RandomState};
        RandomState::new().build_hasher().finish()
    });
    println!("HTTP2_SEARCH_SEED={seed}");
    let steps = number("HTTP2_SEARCH_STEPS").map_or(STEPS, |steps| steps as u32);
    let mut random = Random(seed | 1);
    let bounds: [(&str, Height); 4] = [
        ("work", |usage| usage.work),
        ("output", |usage| usage.output),
        ("unwritten output", |usage| usage.unwritten),
        ("memory", |usage| usage.memory),
    ];
    for (name, height) in bounds {
        let mut best: f64 = 0.0;
        for climbs in 1..=MAX_CLIMBS {
            best = best.max(climb(name, height, steps, &mut random));
            // Some beginnings lead nowhere: a client that reads all leaves no output unwritten.
            if climbs >= CLIMBS && best > LEAST_HEIGHT {
                break;
            }
        }
        // A search that climbs nowhere finds nothing.
        assert!(best > LEAST_HEIGHT, "{name}: {best}");
    }
}
