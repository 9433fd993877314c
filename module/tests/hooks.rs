//! The hooks in an Envoy of a few functions, with a server that says what a test wants.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    reason = "a test that can't go on panics, and tests share their tools"
)]

#[path = "rig/fake.rs"]
mod fake;
#[path = "rig/server.rs"]
mod server;
#[path = "rig/wait.rs"]
mod wait;

use std::sync::atomic::{AtomicBool, Ordering};

use fake::{FakeFilter, FakeRoute, FakeStream};
use prost_types::value::Kind;
use server::{Entry, Server, entry, settings};
use wait::until;

const HIT: usize = 0;
const LEFT_ALONE: usize = 3;

/// Filter and route with a server of their own.
struct Stage {
    server: Server,
    filter: FakeFilter,
    route: FakeRoute,
}

impl Stage {
    fn new() -> Self {
        let server = Server::start();
        server.know("good", entry());
        let json = format!(r#"{{"socket": "{}"}}"#, server.socket.display());
        let filter = FakeFilter::new(&json).expect("a configuration");
        let route = FakeRoute::new(r#"{"accelerate": true}"#).expect("a route");
        Self { server, filter, route }
    }

    /// Runs a request.
    fn run(&self, lines: &[(&str, &str)]) -> FakeStream {
        let mut stream = FakeStream::new(self.route.0, lines);
        self.filter.run(&mut stream);
        stream
    }

    /// Waits until the good key is known.
    fn warm() -> Self {
        let stage = Self::new();
        until("the key is known", || stage.run(&[("x-api-key", "good")]).passes());
        stage
    }
}

/// Asserts that nothing of a request was changed.
#[track_caller]
fn assert_untouched(stream: &FakeStream) {
    assert_eq!((stream.changes, stream.passes()), (0, false));
}

#[test]
fn a_hit_changes_what_a_check_would_change() {
    let stage = Stage::warm();
    let stream = stage.run(&[
        (":authority", "edge"),
        ("authorization", "Bearer good"),
        ("x-talos-key-id", "forged"),
        ("x_talos_actor_id", "forged"),
        ("x.talos.actor.id", "forged"),
        ("x-talos-network-id", "forged"),
        ("x-talos-else", "forged"),
        ("x-mine", "1"),
    ]);
    assert!(stream.passes());
    assert_eq!(stream.counters, [(HIT, 1)].into());
    for (name, values) in [
        (":authority", vec!["edge"]),
        ("authorization", vec!["Bearer token"]),
        ("x-talos-key-id", vec!["k1"]),
        ("x-talos-actor-id", vec!["u1"]),
        ("x_talos_actor_id", vec![]),
        ("x.talos.actor.id", vec![]),
        ("x-talos-network-id", vec![]),
        ("x-talos-else", vec![]),
        ("x-mine", vec!["1"]),
    ] {
        assert_eq!(stream.values(name), values, "{name}");
    }
    assert_eq!((stream.text("key_id"), stream.text("reason")), (Some("k1"), Some("ok")));
    let Some(Kind::NumberValue(until)) = stream.metadata["fresh_until"].kind else { panic!("no time") };
    let now = std::process::Command::new("date").arg("+%s").output().unwrap().stdout;
    let now: f64 = String::from_utf8(now).unwrap().trim().parse().unwrap();
    assert!((now..now + 6.0).contains(&until), "{until} at {now}");
}

#[test]
fn what_is_in_doubt_is_left_alone() {
    let stage = Stage::warm();
    let good = ("x-api-key", "good");
    let many: Vec<_> = std::iter::repeat_n(("x-many", "1"), 100).chain([good]).collect();
    for lines in
        [&many[..], &[], &[good, good], &[good, ("authorization", "Bearer good")], &[("x-api-key", "good,")]]
    {
        let stream = stage.run(lines);
        assert_untouched(&stream);
        assert_eq!(stream.counters, [(LEFT_ALONE, 1)].into());
    }
    let run = |change: &dyn Fn(&mut FakeStream)| {
        let mut stream = FakeStream::new(stage.route.0, &[good]);
        change(&mut stream);
        let before = stream.metadata.clone();
        stage.filter.run(&mut stream);
        assert_eq!((stream.changes, &stream.metadata), (0, &before));
        stream
    };
    // Routes that have not opted in aren't even counted.
    let other = FakeRoute::new(r#"{"accelerate": false}"#).unwrap();
    assert!(run(&|stream| stream.route = std::ptr::null()).counters.is_empty());
    // Another module's, under the same name.
    assert!(run(&|stream| stream.route = std::ptr::without_provenance(0x10)).counters.is_empty());
    assert!(run(&|stream| stream.route = other.0).counters.is_empty());
    // Another filter has decided, or says what can't be read here.
    let deny = prost_types::Value { kind: Some(Kind::StringValue("deny".to_owned())) };
    run(&|stream| drop(stream.metadata.insert("decision".to_owned(), deny.clone())));
    run(&|stream| stream.route_metadata.push(("envoy-gateway", "resources", "")));
}

#[test]
fn an_allow_that_is_not_the_modules_is_taken_back() {
    let stage = Stage::warm();
    let allow = prost_types::Value { kind: Some(Kind::StringValue("allow".to_owned())) };
    let other = FakeRoute::new(r#"{"accelerate": false}"#).unwrap();
    for route in [stage.route.0, other.0, std::ptr::null()] {
        for lines in [&[("x-api-key", "good")][..], &[]] {
            let mut stream = FakeStream::new(route, lines);
            stream.metadata.insert("decision".to_owned(), allow.clone());
            stage.filter.run(&mut stream);
            assert_eq!((stream.text("decision"), stream.changes), (Some("asked"), 1));
            assert_eq!(stream.headers.len(), lines.len());
        }
    }
}

#[test]
fn the_policy_of_a_route_has_entries_of_its_own() {
    let stage = Stage::warm();
    let run = |metadata: &[(&'static str, &'static str, &'static str)]| {
        let mut stream = FakeStream::new(stage.route.0, &[("x-api-key", "good")]);
        stream.route_metadata = metadata.to_vec();
        stage.filter.run(&mut stream);
        stream.passes()
    };
    assert!(run(&[]));
    let scoped = [("talos", "scopes", "admin"), ("talos", "talos.mode", "required")];
    stage.server.know("good", Entry { stamp: 9, ..entry() });
    assert!(!run(&scoped), "the entry of another policy");
    until("it is asked for", || run(&scoped));
    let ask = stage.server.with(|script| script.asks.last().unwrap().clone());
    let extensions: Vec<_> =
        ask.extensions.iter().map(|one| (one.key.as_str(), one.value.as_str())).collect();
    assert_eq!(extensions, [("talos.mode", "required"), ("talos.scopes", "admin")]);
    assert!(run(&[("other", "scopes", "x")]));
}

#[test]
fn addresses_of_the_key_hold() {
    let stage = Stage::new();
    let addresses = vec!["10.0.0.0/24".to_owned()];
    stage.server.know("near", Entry { addresses, ..entry() });
    let run = |peer: &str| {
        let mut stream = FakeStream::new(stage.route.0, &[("x-api-key", "near")]);
        stream.peer = peer.to_owned();
        stage.filter.run(&mut stream);
        stream.passes()
    };
    until("the key is known", || run("10.0.0.1:5000"));
    for (peer, passes) in
        [("10.0.0.255:1", true), ("10.0.1.1:1", false), ("10.0.0.1:0", false), ("", false), ("/run/s", false)]
    {
        assert_eq!(run(peer), passes, "{peer}");
    }
}

#[test]
fn a_new_configuration_finds_what_the_old_one_knew() {
    let stage = Stage::warm();
    let json = format!(r#"{{"socket": "{}"}}"#, stage.server.socket.display());
    for _ in 0..60 {
        let filter = FakeFilter::new(&json).unwrap();
        let mut stream = FakeStream::new(stage.route.0, &[("x-api-key", "good")]);
        filter.run(&mut stream);
        assert!(stream.passes());
    }
    let json = format!(r#"{{"socket": "{}", "enabled": false}}"#, stage.server.socket.display());
    let filter = FakeFilter::new(&json).unwrap();
    let mut stream = FakeStream::new(stage.route.0, &[("x-api-key", "good")]);
    filter.run(&mut stream);
    assert_untouched(&stream);
}

#[test]
fn the_server_turns_it_off_and_on() {
    let stage = Stage::warm();
    let passes = || stage.run(&[("x-api-key", "good")]).passes();
    stage.server.set(server::Settings { enabled: false, ..settings(2) });
    until("it is off", || !passes());
    stage.server.know("good", Entry { generation: 3, ..entry() });
    stage.server.set(settings(3));
    until("it is on", passes);
}

#[test]
fn no_thread_lets_a_changed_key_pass_once_another_has_not() {
    let stage = Stage::warm();
    let is_gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200_000 {
                    let was_gone = is_gone.load(Ordering::SeqCst);
                    let passes = stage.run(&[("x-api-key", "good")]).passes();
                    assert!(!(was_gone && passes), "another thread knew of the change");
                    if !passes {
                        is_gone.store(true, Ordering::SeqCst);
                        return;
                    }
                }
            });
        }
        stage.server.change(1, 11);
    });
    assert!(is_gone.load(Ordering::SeqCst));
}
