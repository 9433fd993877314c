//! Envoys that change their listeners and end under load, with the module in them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    reason = "a test that can't go on panics, and tests share their tools"
)]

#[path = "rig/config.rs"]
mod config;
#[path = "rig/envoy.rs"]
mod envoy;
#[path = "rig/server.rs"]
mod server;
#[path = "rig/wait.rs"]
mod wait;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use config::{OPTED_IN, config, ext_authz, filter, listeners, route, with_listeners_from};
use envoy::{Envoy, echo, envoys, free_port, send};
use server::{Server, entry};
use wait::until;

const RELOADS: usize = 60;
/// Ends of each Envoy under load, unless `TALOS_TEST_ENDS` says otherwise.
const ENDS: usize = 5;
const KEY: &str = "x-api-key: good\r\n";

/// Ends the load when it is dropped, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Envoys that let a known key pass.
fn newer_envoys() -> impl Iterator<Item = (String, std::path::PathBuf)> {
    envoys().into_iter().filter(|(version, _)| !version.starts_with("1.37"))
}

#[test]
fn reloads_under_load_fail_no_request_and_forget_no_key() {
    let upstream = echo();
    // The newest: it takes a while.
    if let Some((version, program)) = newer_envoys().last() {
        let server = Server::start();
        server.know("good", entry());
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = dir.path().join("listeners.yaml");
        let write = |number: usize| {
            let json = format!(
                r#"{{"socket": "{}", "max_bytes": {}}}"#,
                server.socket.display(),
                1_000_000 + number
            );
            let text = listeners(port, &(filter(&json) + &ext_authz()), &route(OPTED_IN));
            let fresh = dir.path().join("fresh.yaml");
            std::fs::write(&fresh, text).unwrap();
            std::fs::rename(&fresh, &file).unwrap();
        };
        write(0);
        let own = tempfile::tempdir().unwrap();
        let envoy = Envoy::start_in(own, &program, &with_listeners_from(&file, upstream), vec![port]);
        until("the key is known", || envoy.send(0, "/a", KEY).0 == 200);
        let (is_over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let status = send(port, "/a", KEY).map(|reply| reply.0);
                        assert!(matches!(status, Ok(200)), "{version}: {status:?}");
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for number in 1..=RELOADS {
                let before = sent.load(Ordering::Relaxed);
                write(number);
                let replaced = || envoy.log().matches("add/update listener 'edge'").count() > number;
                until("the listener is replaced", replaced);
                until("requests go on", || sent.load(Ordering::Relaxed) >= before + 4);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let asks = server.with(|script| script.asks.len());
        assert!(asks <= 2, "{version}: asked {asks} times for one key");
    }
}

#[test]
fn it_ends_in_peace_under_load() {
    let upstream = echo();
    for (version, program) in newer_envoys() {
        let server = Server::start();
        server.know("good", entry());
        let json = format!(r#"{{"socket": "{}"}}"#, server.socket.display());
        let text = config(upstream, &(filter(&json) + &ext_authz()), &route(OPTED_IN));
        for _ in
            0..std::env::var("TALOS_TEST_ENDS").map_or(ENDS, |text| text.parse().expect("TALOS_TEST_ENDS"))
        {
            let mut envoy = Envoy::start(&program, &text, 2);
            until("the key is known", || envoy.send(1, "/a", KEY).0 == 200);
            let port = envoy.ports[1];
            let is_over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        while !is_over.load(Ordering::Relaxed) {
                            let _ = send(port, "/a", KEY);
                        }
                    });
                }
                std::thread::sleep(Duration::from_millis(50));
                let killed = Command::new("kill").arg(envoy.pid().to_string()).status().unwrap();
                assert!(killed.success());
                let status = envoy.wait();
                is_over.store(true, Ordering::Relaxed);
                assert_eq!(status.code(), Some(0), "{version}: {status}\n{}", envoy.log());
            });
        }
    }
}

#[test]
fn a_hot_restart_under_load_fails_no_request() {
    let upstream = echo();
    let Some((version, program)) = newer_envoys().last() else { return };
    let server = Server::start();
    server.know("good", entry());
    let json = format!(r#"{{"socket": "{}"}}"#, server.socket.display());
    // Without ext_authz, so that nothing fails while the second one knows no key yet.
    let text = config(upstream, &filter(&json), &route(OPTED_IN));
    let ports = vec![free_port(), free_port()];
    let dir = tempfile::tempdir().unwrap();
    let id = dir.path().join("base-id").display().to_string();
    let times = ["--drain-time-s", "1", "--parent-shutdown-time-s", "10"];
    let first = [&["--use-dynamic-base-id", "--base-id-path", id.as_str()][..], &times].concat();
    let mut first = Envoy::start_with(tempfile::tempdir().unwrap(), &program, &text, ports.clone(), &first);
    let is_known = |envoy: &Envoy| envoy.send(1, "/a", KEY).1.contains("x-talos-key-id: k1");
    until("the key is known", || is_known(&first));
    let is_over = AtomicBool::new(false);
    // It stays until the load has ended.
    let _second = std::thread::scope(|scope| {
        let over = Over(&is_over);
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let status = send(ports[1], "/a", KEY).map(|reply| reply.0);
                    assert!(matches!(status, Ok(200)), "{version}: {status:?}");
                }
            });
        }
        let id = std::fs::read_to_string(&id).unwrap();
        let second = [&["--base-id", id.trim(), "--restart-epoch", "1"][..], &times].concat();
        let second = Envoy::start_with(tempfile::tempdir().unwrap(), &program, &text, ports.clone(), &second);
        let status = first.wait();
        assert_eq!(status.code(), Some(0), "{version}: {status}\n{}", first.log());
        until("the key is known again", || is_known(&second));
        drop(over);
        second
    });
}
