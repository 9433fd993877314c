//! Runs of a plan.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sqlx::{ConnectOptions, Connection, Executor};
use talos::mutants::Mutant;
use talos::rng::Rng;
use talos::store::Store;
use tempfile::TempDir;

use crate::faults::Stage;
use crate::history::{History, Hurt};
use crate::judge::{Violation, judge};
use crate::plan::{INSTANCES, Plan};
use crate::trace::Trace;
use crate::world::World;
use crate::{driver, envoy, instance, server};

/// Result of a run.
pub struct Outcome {
    pub violations: Vec<Violation>,
    pub trace: Trace,
    pub history: History,
}

/// Runs the plan of a seed.
pub fn run_seed(seed: u64, mutant: Option<Mutant>) -> Outcome {
    let plan = Plan::new(seed);
    let all: Vec<usize> = (0..plan.faults.len()).collect();
    run(&plan, &all, mutant)
}

/// Runs a plan with some of its faults.
pub fn run(plan: &Plan, faults: &[usize], mutant: Option<Mutant>) -> Outcome {
    driver::install();
    let folder = temporary();
    let paths = (template(), folder.path());
    let world = Arc::new(World::new(INSTANCES, plan.seed, plan.terms, mutant, paths));
    let start = |instance: usize| start(&world, plan, instance);
    (0..INSTANCES).for_each(start);
    start_envoy(&world, plan);
    let mut events: Vec<(u64, usize, bool)> = faults
        .iter()
        .flat_map(|index| {
            [(plan.faults[*index].from, *index, true), (plan.faults[*index].until, *index, false)]
        })
        .collect();
    events.sort_unstable();
    let stage = Stage { world: &world, start: &start };
    for (at, index, begins) in events {
        world.scheduler.run_until(at);
        let planned = &plan.faults[index];
        world.note(None, format!("{} {:?}", if begins { "begins" } else { "ends" }, planned.fault));
        if begins {
            planned.fault.begin(&stage);
            let hurt = planned.fault.hurts().into_iter();
            let hurt = hurt.map(|instance| Hurt { instance, from: at, until: planned.until });
            world.state().history.hurt.extend(hurt);
        } else {
            planned.fault.end(&stage);
        }
    }
    world.scheduler.run_until(plan.end);
    let panics = usize::from(world.scheduler.end());
    let state = &mut *world.state();
    let mut history = std::mem::take(&mut state.history);
    history.panics = panics;
    Outcome { violations: judge(&history, plan), trace: std::mem::take(&mut state.trace), history }
}

/// Starts the process of an instance, with entropy of its own.
fn start(world: &Arc<World>, plan: &Plan, instance: usize) {
    let (entropy, now) = (world.state().random.bits(), world.now());
    let requests = plan.requests[instance].iter().filter(|request| request.at > now).copied().collect();
    let its_world = Arc::clone(world);
    let process = move || instance::run(its_world, instance, entropy, requests);
    world.scheduler.start(instance, entropy, process);
}

/// Starts the Envoy.
fn start_envoy(world: &Arc<World>, plan: &Plan) {
    let (instance, visits) = (plan.envoy, plan.visits.clone());
    let entropy = {
        let mut state = world.state();
        state.push_delay = plan.push_delay;
        state.random.bits()
    };
    let its_world = Arc::clone(world);
    let process = move || envoy::run(its_world, instance, visits);
    world.scheduler.start(world.envoy_thread(instance), entropy, process);
}

/// Drops faults one by one as long as the run still has a violation; returns the indexes of those
/// that are needed.
pub fn shrink(plan: &Plan, mutant: Option<Mutant>) -> Vec<usize> {
    let mut needed: Vec<usize> = (0..plan.faults.len()).collect();
    for fault in (0..plan.faults.len()).rev() {
        let fewer: Vec<usize> = needed.iter().copied().filter(|index| *index != fault).collect();
        if !run(plan, &fewer, mutant).violations.is_empty() {
            needed = fewer;
        }
    }
    needed
}

/// Returns the table of a run around its first violation, and how to repeat it.
pub fn report(plan: &Plan, mutant: Option<Mutant>) -> String {
    let needed = shrink(plan, mutant);
    let outcome = run(plan, &needed, mutant);
    let Some(first) = outcome.violations.first() else {
        return format!("seed {}: not repeatable", plan.seed);
    };
    let from = first.at.saturating_sub(plan.terms.lease * 2);
    let faults = needed.iter().map(|index| {
        let planned = &plan.faults[*index];
        let (from, until) = (crate::trace::seconds(planned.from), crate::trace::seconds(planned.until));
        format!("  {from:.3} to {until:.3} s: {:?}\n", planned.fault)
    });
    let span = (from, first.at + plan.terms.lease);
    let drawing = crate::drawing::draw(plan, &needed, &outcome, span);
    format!(
        "seed {}, lease {} s, poll {} s, grace {} s, relay {} s, Redis: {}\n{}{}\n{:.3} s: {}\ndrawn in {}\nTALOS_SIM_SEED={} cargo test --test sim repeat -- --nocapture",
        plan.seed,
        plan.terms.lease / 1_000_000,
        plan.terms.poll / 1_000_000,
        plan.terms.grace / 1_000_000,
        plan.terms.relay / 1_000_000,
        plan.terms.has_redis,
        faults.collect::<String>(),
        outcome.trace.table(INSTANCES, from, first.at + plan.terms.poll, false),
        crate::trace::seconds(first.at),
        first.text,
        drawing.display(),
        plan.seed,
    )
}

/// Makes a folder in memory, if there is such a file system.
fn temporary() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for databases")
}

/// Returns the database that all servers begin with, made by Talos itself.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<(PathBuf, TempDir)> = OnceLock::new();
    let (path, _) = TEMPLATE.get_or_init(|| {
        let folder = temporary();
        let path = folder.path().join("template.db");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = Store::open(&format!("sqlite://{}", path.display()), Rng::seeded(0)).await;
            store.expect("a database").close().await;
        });
        // The tag of the first entry is random there.
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).disable_statement_logging();
        let fixed =
            "PRAGMA journal_mode = DELETE; UPDATE mutation_log SET tag = '00000000000000000000000000000001'";
        server::block_on(async {
            let mut connection = options.connect().await?;
            connection.execute(fixed).await?;
            connection.close().await
        })
        .expect("a fixed tag");
        (path, folder)
    });
    path
}
