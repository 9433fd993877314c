//! Simulation: several instances with their database under faults, in virtual time, from one seed.
//!
//! Real are the service, caches, store and polls, and the SQL, which SQLite executes. Simulated are
//! the clocks, the entropy, the network and the servers of the database.
//! `docs/design/simulation.md` says why, and CONTRIBUTING.md how to add a fault or an invariant.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::large_futures,
    unreachable_pub,
    reason = "a test that can't go on panics"
)]

mod channel;
mod dialect;
mod drawing;
mod driver;
mod edge;
mod envoy;
mod faults;
mod history;
mod instance;
mod judge;
mod pipe;
mod plan;
mod races;
mod random;
mod redis;
mod run;
mod scheduler;
mod server;
mod session;
mod shim;
mod trace;
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use talos::mutants::Mutant;

use plan::{INSTANCES, Plan};
use run::{Outcome, report, run_seed};

/// Seeds of one run of the tests, unless `TALOS_SIM_SEEDS` says more.
const SEEDS: u64 = 60;
/// Seeds that were worth keeping: what they found is mended.
const KEPT: &[u64] = &[1, 2, 3, 4, 5, 6, 7, 8];
/// Mutants that are known to be found, and the seeds that found them, which are tried first.
const FOUND: &[(Mutant, u64)] = &[
    (Mutant::TtlOnly, 0),
    (Mutant::EdgeUnchecked, 0),
    (Mutant::NotPublished, 1),
    (Mutant::DirtyReads, 1),
    (Mutant::ActorsIgnored, 2),
    (Mutant::IssuesUnlogged, 2),
    (Mutant::SharedUnstamped, 2),
    (Mutant::TagsIgnored, 4),
    (Mutant::AnyTimeout, 9),
    (Mutant::AnyRole, 9),
    (Mutant::NumberAfterTheRow, 9),
    (Mutant::EdgeChangesLate, 25),
    (Mutant::EdgeFromTheArrival, 28),
    (Mutant::DeleteOnly, 33),
    (Mutant::AnyServer, 34),
    (Mutant::OldOutage, 40),
    (Mutant::EdgeTwoStreams, 46),
    (Mutant::EdgeOtherClock, 58),
    (Mutant::LeaseFromTheEnd, 80),
    (Mutant::HeadsIgnored, 122),
    (Mutant::OldConnection, 124),
    (Mutant::UnknownAnywhere, 157),
];
/// Seeds within which each mutant is found.
const POWER: u64 = 200;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs each seed on one of as many threads as there are processors; returns the outcomes that
/// `choose` wants, in order.
fn run_all<T: Send>(seeds: &[u64], choose: impl Fn(u64, Outcome) -> Option<T> + Sync) -> Vec<T> {
    let (next, chosen) = (AtomicUsize::new(0), Mutex::new(vec![]));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run_seed(*seed, None);
                    if let Some(one) = choose(*seed, outcome) {
                        chosen.lock().push((*seed, one));
                    }
                }
            });
        }
    });
    let mut chosen = chosen.into_inner();
    chosen.sort_by_key(|(seed, _)| seeds.iter().position(|one| one == seed));
    chosen.into_iter().map(|(_, one)| one).collect()
}

#[test]
fn no_seed_breaks_a_promise() {
    let first = variable("TALOS_SIM_FIRST").unwrap_or(0);
    let count = variable("TALOS_SIM_SEEDS").unwrap_or(SEEDS);
    let seeds: Vec<u64> = (first..first + count).collect();
    let counts = Mutex::new((0, 0, 0));
    let failed = run_all(&seeds, |seed, outcome| {
        let mut counts = counts.lock();
        counts.0 += outcome.history.checks.len();
        counts.1 +=
            outcome.history.changes.iter().filter(|change| change.acknowledged && !change.active).count();
        counts.2 += outcome.history.split.len();
        (!outcome.violations.is_empty()).then_some(seed)
    });
    let (checks, ends, split) = counts.into_inner();
    println!("{count} seeds: {checks} Checks, {ends} acknowledged ends of keys, {split} keys on two servers");
    if let Some(seed) = failed.first() {
        panic!("seeds {failed:?} break a promise\n{}", report(&Plan::new(*seed), None));
    }
}

#[test]
fn a_seed_gives_one_trace() {
    let first = run_all(KEPT, |_, outcome| Some(outcome.trace));
    let second = run_all(KEPT, |_, outcome| Some(outcome.trace));
    for (seed, (first, second)) in KEPT.iter().zip(first.iter().zip(&second)) {
        if let Some(difference) = first.difference(second) {
            panic!("seed {seed} gives two traces: {difference}");
        }
    }
}

/// Returns for each mutant the first seed that finds it, the given one before all others.
fn first_seeds(mutants: &[(Mutant, u64)]) -> Vec<(Mutant, Option<u64>)> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(vec![]));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((mutant, likely)) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let is_found = |seed: &u64| !run_seed(*seed, Some(*mutant)).violations.is_empty();
                    let seeds = std::iter::once(*likely).chain(0..POWER).filter(|seed| is_wanted(*seed));
                    let seed = seeds.into_iter().find(is_found);
                    println!(
                        "{mutant:?}: {}",
                        seed.map_or("not found".to_owned(), |seed| format!("seed {seed}"))
                    );
                    found.lock().push((*mutant, seed));
                }
            });
        }
    });
    found.into_inner()
}

/// Returns true if a fault of the seed's plan has this in its description, or nothing is asked for.
fn is_wanted(seed: u64) -> bool {
    let has = |wanted: String| {
        Plan::new(seed).faults.iter().any(|planned| format!("{:?}", planned.fault).contains(&wanted))
    };
    std::env::var("TALOS_SIM_FAULT").map_or(true, has)
}

fn assert_found(mutants: &[(Mutant, u64)]) {
    let mut missed = first_seeds(mutants);
    missed.retain(|(_, seed)| seed.is_none());
    assert!(missed.is_empty(), "the simulation is too weak for {missed:?}");
}

#[test]
fn mutants_that_were_found_are_found() {
    assert_found(FOUND);
}

/// Measures the power of the simulation:
/// `cargo test --test sim each_mutant -- --ignored --nocapture`. `TALOS_SIM_MUTANT` chooses some of
/// them, `TALOS_SIM_FAULT` the seeds with a fault: both are quicker.
#[test]
#[ignore = "a measurement of minutes, which not all of them pass yet"]
fn each_mutant_is_found() {
    let only = std::env::var("TALOS_SIM_MUTANT").ok();
    let is_named = |mutant: &Mutant| {
        only.as_ref().is_none_or(|only| only.split(',').any(|name| name == format!("{mutant:?}")))
    };
    let named = Mutant::ALL.into_iter().filter(is_named).map(|mutant| (mutant, 0));
    assert_found(&named.collect::<Vec<_>>());
}

/// Repeats one seed and prints its table:
/// `TALOS_SIM_SEED=7 cargo test --test sim repeat -- --nocapture`.
#[test]
fn repeat() {
    let Some(seed) = variable("TALOS_SIM_SEED") else {
        return;
    };
    let mutant = std::env::var("TALOS_SIM_MUTANT").ok();
    let mutant =
        Mutant::ALL.into_iter().find(|one| mutant.as_ref().is_some_and(|name| *name == format!("{one:?}")));
    let plan = Plan::new(seed);
    let outcome = run_seed(seed, mutant);
    if outcome.violations.is_empty() || std::env::var("TALOS_SIM_CALLS").is_ok() {
        let with_calls = std::env::var("TALOS_SIM_CALLS").is_ok();
        println!("{}", outcome.trace.table(INSTANCES, 0, plan.end, with_calls));
        let all: Vec<usize> = (0..plan.faults.len()).collect();
        let drawing = drawing::draw(&plan, &all, &outcome, (scheduler::START, plan.end));
        println!("drawn in {}", drawing.display());
        for violation in outcome.violations {
            println!("{:.3} s: {}", trace::seconds(violation.at), violation.text);
        }
        return;
    }
    panic!("{}", report(&plan, mutant));
}
