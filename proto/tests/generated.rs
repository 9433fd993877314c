//! Checks that the committed code and descriptors are current.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on panics")]

use std::{fs, path::Path, process::Command};

use prost::Message;

/// Protocols, and the files that are generated from them.
const PROTOCOLS: [(&str, &str); 2] =
    [("ext_authz.proto", "talos.ext_authz.rs"), ("edge.proto", "talos.edge.v1.rs")];

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (protocol, name) in PROTOCOLS {
        let out = tempfile::tempdir().unwrap();
        let descriptors = protox::compile([root.join(protocol)], [root]).unwrap();
        prost_build::Config::new().bytes(["."]).out_dir(out.path()).compile_fds(descriptors).unwrap();
        let fresh = fs::read_to_string(out.path().join(name)).unwrap();
        let committed = root.join("src/generated").join(name);
        if std::env::var_os("TALOS_BLESS").is_some() {
            fs::write(&committed, &fresh).unwrap();
        }
        let current = fs::read_to_string(&committed).unwrap_or_default();
        assert!(current == fresh, "{} is stale: TALOS_BLESS=1 writes it anew", committed.display());
    }
}

/// Envoy's .proto files come from the crate `envoy-types`. Comments are removed from them.
#[test]
fn descriptors_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .unwrap();
    let metadata = String::from_utf8(metadata.stdout).unwrap();
    let manifest = metadata
        .split('"')
        .find(|text| text.contains("/envoy-types-") && text.ends_with("/Cargo.toml"))
        .expect("envoy-types is in the tree");
    let protos = Path::new(manifest).parent().unwrap().join("proto");
    let includes = ["data-plane-api", "xds", "protoc-gen-validate", "googleapis"]
        .map(|directory| protos.join(directory));
    let mut set = protox::compile(["envoy/service/auth/v3/external_auth.proto"], includes).unwrap();
    for file in &mut set.file {
        file.source_code_info = None;
    }
    let fresh = set.encode_to_vec();
    let committed = root.join("src/generated/descriptors.bin");
    if std::env::var_os("TALOS_BLESS").is_some() {
        fs::write(&committed, &fresh).unwrap();
    }
    let current = fs::read(&committed).unwrap_or_default();
    assert!(current == fresh, "{} is stale: TALOS_BLESS=1 writes it anew", committed.display());
}
