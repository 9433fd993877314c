//! The edge as operators run it, with every supported Envoy, over HTTP/1.1 and HTTP/2: a table.
//!
//! `TALOS_TEST_ENVOYS` names the Envoys, as `version=path` with commas between; by default it is
//! the one of all tests. For each there is one process with all listeners, and all its cells run at
//! once.

mod carriers;
mod cells;
mod raw_http2;
mod setup;
mod websocket;

use std::collections::BTreeMap;

use tokio::task::{JoinSet, LocalSet, spawn_local};

use self::cells::CELLS;
use self::setup::{Stack, TalosProcesses};
use crate::rig::http::{BOTH, Version};
use crate::rig::needs::variable;
use crate::rig::support::Must;
use crate::rig::upstream::Upstream;

/// Part of the path of every request that must be refused.
const FORBIDDEN: &str = "must-not-arrive";

#[tokio::test(flavor = "multi_thread")]
async fn everything_holds_with_every_envoy() {
    needs!(Envoy);
    let upstream = Upstream::start().await;
    let processes = TalosProcesses::start().await;
    let mut table: BTreeMap<(usize, String, Version), Result<(), String>> = BTreeMap::new();
    let envoys = envoys();
    for (version, binary) in &envoys {
        let stack = Stack::start(binary, upstream.port, &processes).await;
        let outcomes = LocalSet::new().run_until(run_cells(stack)).await;
        table.extend(
            outcomes.into_iter().map(|((number, over), ended)| ((number, version.clone(), over), ended)),
        );
    }
    let arrived = upstream.take();
    let forbidden: Vec<_> = arrived.iter().filter(|seen| seen.path.contains(FORBIDDEN)).collect();
    print(&envoys, &table);
    assert_eq!(forbidden.len(), 0, "refused requests reached the upstream: {forbidden:?}");
    let red: Vec<_> = table
        .iter()
        .filter_map(|((number, version, over), outcome)| {
            outcome
                .as_ref()
                .err()
                .map(|error| format!("{} with {version} over {over:?}: {error}", CELLS[*number].0))
        })
        .collect();
    assert!(red.is_empty(), "{}", red.join("\n"));
}

/// Runs all cells at once, over both HTTP versions.
async fn run_cells(stack: Stack) -> Vec<((usize, Version), Result<(), String>)> {
    let mut running = JoinSet::new();
    for (number, (_, cell)) in CELLS.iter().enumerate() {
        for over in BOTH {
            let ended = spawn_local(cell(stack.clone(), over));
            running.spawn_local(async move { ((number, over), ended.await) });
        }
    }
    let ended = running.join_all().await;
    ended.into_iter().map(|(cell, ended)| (cell, ended.map_err(|panicked| panicked.to_string()))).collect()
}

/// Versions and programs.
fn envoys() -> Vec<(String, String)> {
    let Ok(named) = std::env::var("TALOS_TEST_ENVOYS") else {
        return vec![("this".to_owned(), variable("TALOS_TEST_ENVOY"))];
    };
    let pair = |one: &str| one.split_once('=').map(|(version, path)| (version.to_owned(), path.to_owned()));
    named.split(',').map(|one| pair(one).must("TALOS_TEST_ENVOYS: version=path, …")).collect()
}

fn print(envoys: &[(String, String)], table: &BTreeMap<(usize, String, Version), Result<(), String>>) {
    let width = CELLS.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut lines = vec![format!("{:width$}", "Envoy"), format!("{:width$}", "over HTTP/")];
    for (version, _) in envoys {
        lines[0] += &format!("  {version:<9}");
        lines[1] += &format!("  {:<4} {:<4}", "1.1", "2");
    }
    for (number, (name, _)) in CELLS.iter().enumerate() {
        let mut line = format!("{name:width$}");
        for (version, _) in envoys {
            let cell = |over| match table.get(&(number, version.clone(), over)) {
                Some(Ok(())) => "ok",
                _ => "RED",
            };
            line += &format!("  {:<4} {:<4}", cell(Version::Http1), cell(Version::Http2));
        }
        lines.push(line);
    }
    println!("{}", lines.join("\n"));
}
