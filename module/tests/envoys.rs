//! The built library in real Envoys: it loads in each supported version, and leaves requests alone
//! that it knows nothing of.
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

use config::{OPTED_IN, SOCKET, config, filter, route};
use envoy::{Envoy, echo, envoys, validate};

#[test]
fn every_envoy_loads_it_and_untouched_requests_pass() {
    let upstream = echo();
    for (version, program) in envoys() {
        let envoy = Envoy::start(&program, &config(upstream, &filter(SOCKET), &route(OPTED_IN)), 2);
        assert!(envoy.log().contains("talos module "), "{version}:\n{}", envoy.log());
        for headers in [
            "",
            "authorization: Bearer unknown\r\n",
            "X-Api-Key: unknown\r\nx-talos-key-id: forged\r\nX-Talos_Foo: 1\r\n",
            "authorization: Bearer a\r\nauthorization: Bearer b\r\nx-api-key: c\r\n",
        ] {
            let plain = envoy.send(0, "/a?b=c", headers);
            assert_eq!(plain.0, 200);
            assert_eq!(envoy.send(1, "/a?b=c", headers), plain, "{version}");
        }
    }
}

#[test]
fn every_envoy_refuses_a_configuration_that_is_not_valid() {
    for (version, program) in envoys() {
        validate(&program, &config(1, &filter(SOCKET), &route(OPTED_IN))).expect(&version);
        for (filter, route, problem) in [
            (filter(r#"{"socket": "relative"}"#), "{}".to_owned(), "absolute path"),
            (filter("{}"), "{}".to_owned(), "missing field `socket`"),
            (
                filter(SOCKET),
                route(r#"{"accelerate": true, "settings": {"scopes": "a"}}"#),
                "begin with talos.",
            ),
        ] {
            let log = validate(&program, &config(1, &filter, &route)).expect_err(problem);
            assert!(log.contains(problem), "{version}: {problem}\n{log}");
        }
    }
}
