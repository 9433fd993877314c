//! One binary for all fuzz targets; `TALOS_FUZZ` names the one to run.
//!
//! The targets share nearly all code, and linking ten binaries would be slow.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fn target() -> fn(&[u8]) {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let name = std::env::var("TALOS_FUZZ").unwrap_or_default();
        let found = talos::fuzzing::TARGETS.iter().find(|(target, _)| *target == name);
        found.unwrap_or_else(|| panic!("TALOS_FUZZ: there is no target {name:?}")).1
    })
}

fuzz_target!(|data: &[u8]| target()(data));
