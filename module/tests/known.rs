//! Known keys in real Envoys, by a server that says what a test wants.
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

use std::time::Duration;

use config::{OPTED_IN, config, ext_authz, filter, route};
use envoy::{Envoy, echo, envoys};
use server::{Server, entry, settings};
use wait::until;

/// Envoy with the module and an ext_authz filter whose server isn't there: what passes was let
/// pass by the module.
fn start(program: &std::path::Path, server: &Server, upstream: u16) -> Envoy {
    let json = format!(r#"{{"socket": "{}"}}"#, server.socket.display());
    let filters = filter(&json) + &ext_authz();
    Envoy::start(program, &config(upstream, &filters, &route(OPTED_IN)), 2)
}

#[test]
fn a_known_key_passes_with_its_identity_and_without_forged_ones() {
    let upstream = echo();
    for (version, program) in envoys() {
        let server = Server::start();
        server.know("good", entry());
        let envoy = start(&program, &server, upstream);
        let send = |headers: &str| envoy.send(1, "/a", headers);
        if version.starts_with("1.37") {
            // It has no lists in metadata: nothing can be let pass exactly as the server does.
            for _ in 0..20 {
                assert_eq!(send("authorization: Bearer good\r\n").0, 503);
                std::thread::sleep(Duration::from_millis(50));
            }
            continue;
        }
        until("the key is known", || send("authorization: Bearer good\r\n").0 == 200);
        let (status, head) = send(
            "Authorization: bearer good\r\nX-Talos-Key-Id: forged\r\nX-Talos-Key-Id: forged\r\n\
             X-Talos-Other: forged\r\nX-Talos-Other: forged\r\nX.Talos.Actor.Id: forged\r\n\
             x-talos-network-id: forged\r\nx-mine: 1\r\n",
        );
        assert_eq!(status, 200);
        for line in [
            "authorization: Bearer token",
            "x-talos-key-id: k1",
            "x-talos-actor-id: u1",
            "x-talos-scopes: a b",
            "x-mine: 1",
        ] {
            assert!(head.lines().any(|found| found == line), "{version}: no {line:?} in\n{head}");
        }
        assert!(!head.contains("forged") && !head.contains("good"), "{version}\n{head}");
        // By the other header, which is taken out.
        let (status, head) = send("x-api-key: good\r\n");
        assert!(status == 200 && !head.contains("x-api-key"), "{version}: {status}\n{head}");
        for doubtful in [
            "",
            "authorization: Bearer other\r\n",
            "authorization: Bearer good\r\nx-api-key: good\r\n",
            "authorization: Bearer good\r\nauthorization: Bearer good\r\n",
            "x-api-key: good,good\r\n",
        ] {
            assert_eq!(send(doubtful).0, 503, "{version}: {doubtful}");
        }
        until("uses are reported", || {
            server.with(|script| script.uses.iter().map(|one| one.count).sum::<u64>()) >= 3
        });
        let ask = server.with(|script| script.asks[0].clone());
        assert_eq!(ask.extensions[0].value, "reports:read");
    }
}

#[test]
fn what_is_redirected_within_envoy_is_checked_again() {
    let upstream = echo();
    for (version, program) in envoys().into_iter().filter(|(version, _)| !version.starts_with("1.37")) {
        let server = Server::start();
        server.know("good", entry());
        let json = format!(r#"{{"socket": "{}"}}"#, server.socket.display());
        let plain = "route: { cluster: upstream }";
        let text = config(upstream, &(filter(&json) + &ext_authz()), &route(OPTED_IN));
        assert!(text.contains(plain));
        let text = text.replace(plain, "route: { cluster: upstream, internal_redirect_policy: {} }");
        let envoy = Envoy::start(&program, &text, 2);
        until("the key is known", || envoy.send(1, "/a", "x-api-key: good\r\n").0 == 200);
        assert_eq!(envoy.send(0, "/moved", "").0, 200, "{version}: it follows the redirect");
        // The token in place of the key isn't known, and ext_authz is not there.
        assert_eq!(envoy.send(1, "/moved", "x-api-key: good\r\n").0, 503, "{version}");
    }
}

#[test]
fn what_was_used_before_the_end_of_a_stream_is_reported_on_the_next_one() {
    let upstream = echo();
    for (version, program) in envoys().into_iter().filter(|(version, _)| !version.starts_with("1.37")) {
        let server = Server::start();
        server.know("good", entry());
        let envoy = start(&program, &server, upstream);
        let passes = || envoy.send(1, "/a", "x-api-key: good\r\n").0 == 200;
        until("the key is known", passes);
        let reported = || server.with(|script| script.uses.iter().map(|one| one.count).sum::<u64>());
        until("its use is reported", || reported() == 1);
        // The next report is a second away.
        assert!(passes() && passes(), "{version}");
        server.with(|script| script.is_closed = true);
        let mut used = 3;
        until("nothing is known any more", || {
            let has_passed = passes();
            used += u64::from(has_passed);
            !has_passed
        });
        server.with(|script| script.is_closed = false);
        until("all uses are reported", || reported() >= used);
        assert_eq!(reported(), used, "{version}");
    }
}

#[test]
fn a_revoked_key_passes_no_longer() {
    let upstream = echo();
    for (version, program) in envoys().into_iter().filter(|(version, _)| !version.starts_with("1.37")) {
        let server = Server::start();
        server.know("good", entry());
        server.know("kept", server::Entry { key_slot: 2, actor_slot: 65_538, ..entry() });
        let envoy = start(&program, &server, upstream);
        let status = |key: &str| envoy.send(1, "/a", &format!("x-api-key: {key}\r\n")).0;
        until("both are known", || status("good") == 200 && status("kept") == 200);
        // A push ends it at once; another key stays.
        server.change(1, 11);
        until("it is forgotten", || status("good") == 503);
        assert_eq!(status("kept"), 200, "{version}");
        // Other settings end all that came before.
        server.set(settings(2));
        until("entries of old settings are dropped", || status("kept") == 503);
        server.know("kept", server::Entry { generation: 2, ..entry() });
        server.change(1, 1);
    }
}

#[test]
fn without_knowledge_nothing_passes_after_the_lease() {
    let upstream = echo();
    for (version, program) in envoys().into_iter().filter(|(version, _)| !version.starts_with("1.37")) {
        let server = Server::start();
        server.know("good", entry());
        let envoy = start(&program, &server, upstream);
        let status = || envoy.send(1, "/a", "x-api-key: good\r\n").0;
        until("it is known", || status() == 200);
        // Silence: the lease ends 5 s after what the last answered tick told, and not before 4 s.
        server.with(|script| script.is_silent = true);
        for _ in 0..15 {
            std::thread::sleep(Duration::from_millis(200));
            assert_eq!(status(), 200, "{version}: within the lease");
        }
        std::thread::sleep(Duration::from_millis(2_600));
        assert_eq!(status(), 503, "{version}: after the lease");
    }
}

#[test]
fn a_lost_stream_ends_it_at_once_and_a_new_one_begins_anew() {
    let upstream = echo();
    let Some((_, program)) = envoys().pop() else { return };
    let server = Server::start();
    server.know("good", entry());
    let envoy = start(&program, &server, upstream);
    let status = || envoy.send(1, "/a", "x-api-key: good\r\n").0;
    until("it is known", || status() == 200);
    server.with(|script| script.is_closed = true);
    until("the stream is lost", || status() == 503);
    server.with(|script| script.is_closed = false);
    until("it is known again", || status() == 200);
    assert!(envoy.log().contains("no stream to the server"), "{}", envoy.log());
}
