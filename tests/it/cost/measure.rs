//! Measures what an input takes, and judges it.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::client::{Input, Pace, Plane, send};
use super::frames::Check;
use super::{CPU_FLOOR, RATIO, is_long, memory_bound, memory_floor};
use crate::rig::grpc::Grpc;
use crate::rig::support::Must;
use crate::rig::talos::Talos;

/// For so long nothing may happen until the process counts as settled.
const QUIET: Duration = Duration::from_millis(100);
/// Time for the process to settle.
const SETTLE: Duration = Duration::from_secs(60);
/// Pause between two Checks of other clients.
const PACE: Duration = Duration::from_millis(5);
/// Latencies below this are as good as each other.
const LATENCY_FLOOR: Duration = Duration::from_millis(2);

/// CPU time and memory that an input took.
pub struct Cost {
    pub bytes: usize,
    pub connections: usize,
    pub ended: usize,
    pub cpu: Duration,
    pub memory: u64,
    /// The 99th percentile of others' Checks meanwhile.
    pub p99: Option<Duration>,
}

impl Display for Cost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cost { bytes, connections, ended, cpu, memory, p99 } = self;
        let a_byte = cpu.as_nanos() as f64 / *bytes as f64;
        write!(
            out,
            "{bytes} bytes on {connections} connections, {ended} of them ended, CPU {cpu:?}, {a_byte:.0} ns a byte, "
        )?;
        write!(out, "memory {} KiB", memory / 1024)?;
        match p99 {
            Some(p99) => write!(out, ", others' p99 {p99:?}"),
            None => Ok(()),
        }
    }
}

/// CPU time and memory that an honest client's bytes take.
pub struct Honest {
    /// CPU time of a byte, in nanoseconds.
    cpu: f64,
    /// Memory of a byte, in bytes, while its request is incomplete.
    memory: f64,
    /// The 99th percentile of other clients' Checks without the input.
    pub quiet: Option<Duration>,
}

impl Display for Honest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Honest { cpu, memory, quiet } = self;
        write!(
            out,
            "an honest byte takes {cpu:.0} ns, and holds {memory:.1} bytes; p99 of a Check alone {quiet:?}"
        )
    }
}

/// The process that is measured, and the CPU time that it takes without requests.
pub struct Bench<'a> {
    talos: &'a Talos,
    plane: &'a Plane,
    check: Check,
    /// CPU time a second.
    idle: f64,
}

impl<'a> Bench<'a> {
    pub async fn new(talos: &'a Talos, plane: &'a Plane) -> Bench<'a> {
        let check = Check::of(talos, plane).await;
        let mut bench = Bench { talos, plane, check, idle: 0.0 };
        bench.settle().await;
        let (before, began) = (talos.process.cpu(), Instant::now());
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.idle = (talos.process.cpu() - before).as_secs_f64() / began.elapsed().as_secs_f64();
        bench
    }

    /// The 99th percentile of Checks that have the process for themselves, in the long run.
    pub async fn quiet(&self) -> Option<Duration> {
        if !is_long() {
            return None;
        }
        let others = Others::start(self.talos, &self.check);
        tokio::time::sleep(Duration::from_secs(5)).await;
        others.p99().await
    }

    /// Waits until the process has done what there was to do.
    async fn settle(&self) {
        let began = Instant::now();
        loop {
            let before = self.talos.process.cpu();
            tokio::time::sleep(QUIET).await;
            let took = (self.talos.process.cpu() - before).as_secs_f64();
            if took <= 0.010 + self.idle * QUIET.as_secs_f64() {
                return;
            }
            assert!(began.elapsed() < SETTLE, "it doesn't settle");
        }
    }

    /// Sends an input and measures it.
    pub async fn cost(&self, input: &Input, clients: usize, budget: usize) -> Cost {
        let process = &self.talos.process;
        self.settle().await;
        let (cpu, memory, began) = (process.cpu(), process.memory(), Instant::now());
        process.forget_peak();
        let others = is_long().then(|| Others::start(self.talos, &self.check));
        let pace = if is_long() { Pace::limited() } else { Pace::Unlimited };
        let sent = send(self.plane, input, clients, budget, pace).await;
        // The server completes its work before it is measured.
        self.settle_beside(others.is_some()).await;
        let p99 = match others {
            Some(others) => others.p99().await,
            None => None,
        };
        let idle = Duration::from_secs_f64(self.idle * began.elapsed().as_secs_f64());
        Cost {
            bytes: sent.bytes,
            connections: sent.connections,
            ended: sent.ended,
            cpu: (process.cpu() - cpu).saturating_sub(idle),
            memory: process.peak_memory().saturating_sub(memory),
            p99,
        }
    }

    async fn settle_beside(&self, others: bool) {
        match others {
            // Their Checks go on.
            true => tokio::time::sleep(Duration::from_secs(2)).await,
            false => self.settle().await,
        }
    }

    /// Measures what an honest client's bytes take through as many clients.
    pub async fn honest(&self, honest: &Input, held: &Input, clients: usize) -> Honest {
        let cost = self.cost(honest, clients, self.plane.budget()).await;
        // Below a tick of the kernel's clock there is nothing to compare with.
        let cpu = cost.cpu.max(Duration::from_millis(10)).as_nanos() as f64 / cost.bytes as f64;
        let waiting = self.cost(held, clients, self.plane.budget() / 4).await;
        let memory = waiting.memory as f64 / waiting.bytes as f64;
        Honest { cpu, memory: memory.max(1.0), quiet: self.quiet().await }
    }

    /// A Check on a new connection must be answered.
    pub async fn answers(&self) {
        self.check.is_answered(self.talos).await;
    }
}

/// The judgement of an input.
pub struct Judgement {
    cpu: f64,
    memory: f64,
    too_much_cpu: bool,
    too_much_memory: bool,
    /// True if other clients' Checks took too long.
    pub is_late: bool,
}

impl Judgement {
    pub fn of(input: &Input, cost: &Cost, honest: &Honest, clients: usize) -> Judgement {
        let bytes = cost.bytes as f64;
        let (cpu, memory) = (cost.cpu.as_nanos() as f64, cost.memory as f64);
        let most_cpu = RATIO * honest.cpu * bytes + CPU_FLOOR.as_nanos() as f64;
        let most_memory = (RATIO * honest.memory * bytes) as u64 + memory_floor(clients);
        let is_late = match (cost.p99, honest.quiet) {
            (Some(p99), Some(quiet)) => p99 > 2 * quiet.max(LATENCY_FLOOR),
            _ => false,
        };
        Judgement {
            cpu: cpu / (honest.cpu * bytes),
            memory: memory / (honest.memory * bytes),
            too_much_cpu: cpu > most_cpu && !input.is_honest,
            too_much_memory: cost.memory > most_memory.min(memory_bound(clients)),
            is_late,
        }
    }

    /// Names the limits that the input breaks; None if it breaks none.
    pub fn problem(&self, judges_latency: bool) -> Option<String> {
        let problems = [
            (self.too_much_cpu, "too much CPU"),
            (self.too_much_memory, "too much memory"),
            (self.is_late && judges_latency, "others' Checks were late"),
        ];
        let problems: Vec<&str> = problems.iter().filter(|(is, _)| *is).map(|(_, what)| *what).collect();
        (!problems.is_empty()).then(|| format!("{} ({self})", problems.join(", ")))
    }
}

impl Display for Judgement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Judgement { cpu, memory, is_late, .. } = self;
        write!(out, "{cpu:.2} of an honest byte's CPU, {memory:.2} of its memory")?;
        if *is_late { write!(out, ", others late") } else { Ok(()) }
    }
}

/// Checks of another client, over a connection of its own and in a thread of its own: it must not
/// wait for the clients that send the input, which keep the test's threads busy.
struct Others {
    is_over: Arc<AtomicBool>,
    times: std::thread::JoinHandle<Vec<Duration>>,
}

impl Others {
    fn start(talos: &Talos, check: &Check) -> Others {
        let is_over = Arc::new(AtomicBool::new(false));
        let (stop, base, ask) = (Arc::clone(&is_over), talos.authz, check.ask.clone());
        let tls = check.tls.clone();
        let checks = async move {
            let grpc = match tls {
                Some(client) => client.grpc(base).await,
                None => Grpc::connect(base).await,
            };
            let (grpc, message) = (grpc.must("somebody else's connection"), ask.build());
            let mut times = vec![];
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                grpc.check(&message).await.allowed();
                times.push(began.elapsed());
                tokio::time::sleep(PACE).await;
            }
            times
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.must("a runtime");
        Others { is_over, times: std::thread::spawn(move || runtime.block_on(checks)) }
    }

    /// None when there were too few to have one.
    async fn p99(self) -> Option<Duration> {
        self.is_over.store(true, Ordering::Relaxed);
        let joined = tokio::task::spawn_blocking(|| self.times.join()).await.must("waiting for a thread");
        let mut times = joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        times.sort();
        (times.len() >= 100).then(|| times[times.len() * 99 / 100])
    }
}
