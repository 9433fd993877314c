//! The cost of a byte: CPU time and memory that the process takes for what a client sends, against
//! what an honest client's bytes take. Each input comes through one client and through many at
//! once, on every plane.
//!
//! # How it is judged
//!
//! - **CPU** is user and system time of the process, from before the first byte until it has
//!   settled, less what it takes when nobody asks. An input may take [`RATIO`] times an honest
//!   client's time a byte, and [`CPU_FLOOR`] on top: the kernel counts in ticks of 10 ms.
//! - **Bytes** are all that a client gave to its socket, or to TLS where there is TLS, and
//!   [`CONNECTION_BYTES`] for each connection. Inputs with a handshake are compared with honest
//!   Checks that have a handshake each.
//! - **Memory** is the peak of the resident set above where it was. An input may take [`RATIO`]
//!   times a byte what honest requests hold that lack their last byte, and [`memory_floor`] on top;
//!   never more than [`memory_bound`].
//!
//! These never depend on how fast the machine is. Latencies of other clients' Checks do: they are
//! judged by the long runs alone (`tests/long/run bytes-frames` and its siblings), which have
//! larger counts, and send no faster than 1 MiB and 2,000 connections a second.

mod bodies;
mod cgroup;
mod client;
mod connections;
mod credentials;
mod frames;
mod http;
mod lists;
mod measure;
mod survival;
mod tls;
mod untaken;

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::rig::random::Random;
use crate::rig::support::number_from;
use crate::rig::talos::{JWKS, Setup, Talos};

use self::client::{Input, Plane};
use self::measure::{Bench, Judgement};

/// Maximum cost of an input's byte, in costs of an honest client's byte.
const RATIO: f64 = 10.0;
/// CPU time that an input may take whatever its bytes are.
const CPU_FLOOR: Duration = Duration::from_millis(200);
/// Times that an input is sent while others' Checks are late: another load on the machine makes
/// them late once or twice, what the input costs does each time.
const ROUNDS: usize = 3;
/// A connection's segments without any content: SYN, ACK and FIN, 40 bytes each.
const CONNECTION_BYTES: usize = 120;

const MIB: u64 = 1 << 20;

/// Memory that an input may take whatever its bytes are: what each connection has for certain, and
/// its buffers.
const fn memory_floor(clients: usize) -> u64 {
    16 * MIB + 128 * 1024 * clients as u64
}

/// Memory that no input may take more than: the process's 64 MiB, with what an allocator and a
/// debug build make of them.
const fn memory_bound(clients: usize) -> u64 {
    64 * MIB * 3 / 2 + memory_floor(clients)
}

/// Bytes that each input sends, through all of its clients together.
fn budget() -> usize {
    number_from("TALOS_TEST_BYTES", 128) * 1024
}

/// True for the counts of the long run, which judges latencies, too.
fn is_long() -> bool {
    number_from("TALOS_TEST_BYTES", 0) >= 1_024
}

/// Numbers of clients that each input comes through.
fn clients() -> Vec<usize> {
    match is_long() {
        true => vec![1, number_from("TALOS_TEST_CLIENTS", 20)],
        false => vec![20],
    }
}

/// Requests that wait while windows change: few enough for what one client of an input sends.
fn waiting_requests() -> u32 {
    if is_long() { 100 } else { 10 }
}

/// Raises the limit of open files, and so of connections, as far as the system allows.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// A process whose throttle lets self-revocations through: else it would be that which bounds them.
fn patient() -> Setup {
    raise_file_limit();
    let setup = Setup::new().set("TALOS_SERVE_PUBLIC_SELF_REVOKE_PER_ADDRESS", "0");
    setup.set("TALOS_SERVE_PUBLIC_SELF_REVOKE_TOTAL", "0")
}

/// Sends inputs to a plane, each through one client and through many, and judges them.
async fn judge(talos: &Talos, plane: &Plane, honest: &Input, held: &Input, inputs: &[Input]) {
    let bench = Bench::new(talos, plane).await;
    let mut problems = vec![];
    for clients in clients() {
        let mut honest = bench.honest(honest, held, clients).await;
        println!("{}, {clients} clients: {honest}", plane.name);
        for input in inputs {
            let mut cost = bench.cost(input, clients, plane.budget()).await;
            let mut judgement = Judgement::of(input, &cost, &honest, clients);
            for _ in 1..ROUNDS {
                if !judgement.is_late {
                    break;
                }
                honest.quiet = bench.quiet().await;
                cost = bench.cost(input, clients, plane.budget()).await;
                judgement = Judgement::of(input, &cost, &honest, clients);
            }
            println!("{}, {clients} clients, {}: {cost}, {judgement}", plane.name, input.name);
            problems.extend(judgement.problem(is_long()).map(|problem| {
                format!("{}, {clients} clients, {}: {problem}; {cost}; {honest}", plane.name, input.name)
            }));
            bench.answers().await;
        }
    }
    assert!(problems.is_empty(), "{} inputs cost too much:\n{}", problems.len(), problems.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_on_the_authz_plane() {
    let talos = patient().start().await;
    let check = frames::Check::new(&talos).await;
    let plane = Plane::plain("authz", talos.authz);
    let mut random = Random::seeded("frames on the authz plane");
    let inputs = frames::inputs(&check, &mut random);
    judge(&talos, &plane, &check.honest(), &check.held(), &inputs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_on_the_authz_plane() {
    let talos = patient().start().await;
    let check = frames::Check::new(&talos).await;
    let plane = Plane::plain("authz", talos.authz);
    let inputs = credentials::inputs(&talos).await;
    judge(&talos, &plane, &check.honest(), &check.held(), &inputs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_on_the_authz_plane() {
    let talos = patient().start().await;
    let check = frames::Check::new(&talos).await;
    let plane = Plane::plain("authz", talos.authz);
    judge(&talos, &plane, &check.honest().reconnecting(), &check.held(), &connections::inputs(&check)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_the_public_plane() {
    let talos = patient().start().await;
    let plane = Plane::plain("public", talos.public);
    let target = http::Target::get(JWKS);
    judge(&talos, &plane, &target.http1(), &target.held(), &http::http1_inputs(&target)).await;
    judge(&talos, &plane, &target.http2(), &target.held(), &http::http2_inputs(&target)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_the_admin_plane() {
    let talos = patient().start().await;
    let plane = Plane::plain("admin", talos.admin);
    let target = http::Target::verify();
    judge(&talos, &plane, &target.http1(), &target.held(), &http::http1_inputs(&target)).await;
    judge(&talos, &plane, &target.http2(), &target.held(), &http::http2_inputs(&target)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_the_metrics_plane() {
    let talos = patient().start().await;
    let plane = Plane::plain("metrics", talos.metrics);
    let target = http::Target::get("/metrics");
    judge(&talos, &plane, &target.http1(), &target.held(), &http::http1_inputs(&target)).await;
    judge(&talos, &plane, &target.http2(), &target.held(), &http::http2_inputs(&target)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_on_the_authz_plane() {
    let (talos, check, plane) = tls::start().await;
    let inputs = tls::record_inputs(&check);
    judge(&talos, &plane, &check.honest(), &check.held(), &inputs).await;
    let inputs = tls::handshake_inputs(&check, &plane);
    judge(&talos, &plane, &check.honest().reconnecting(), &check.held(), &inputs).await;
}
