//! One binary for all targets: the environment's `TALOS_FUZZ` names the one to run. They share nearly all that is linked, and linking ten times is slow.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fn target() -> fn(&[u8]) {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let name = std::env::var("TALOS_FUZZ").unwrap_or_default();
        let found = talos::fuzzing::TARGETS.iter().find(|(target, _)| *target == name);
        found.unwrap_or_else(|| panic!("TALOS_FUZZ names no target: {name}")).1
    })
}

fuzz_target!(|data: &[u8]| target()(data));
