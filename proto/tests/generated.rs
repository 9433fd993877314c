//! The committed messages are the ones that `ext_authz.proto` describes.

use std::{fs, path::Path};

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let descriptors = protox::compile([root.join("ext_authz.proto")], [root]).unwrap();
    prost_build::Config::new().bytes(["."]).out_dir(out.path()).compile_fds(descriptors).unwrap();
    let name = "talos.ext_authz.rs";
    let fresh = fs::read_to_string(out.path().join(name)).unwrap();
    let committed = root.join("src/generated").join(name);
    if std::env::var_os("TALOS_BLESS").is_some() {
        fs::write(&committed, &fresh).unwrap();
    }
    let current = fs::read_to_string(&committed).unwrap_or_default();
    assert!(current == fresh, "{} is stale: TALOS_BLESS=1 writes it anew", committed.display());
}
