//! Link options of the shared library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The library has a thread of its own and values of every thread of Envoy's: it must never be
    // unmapped, not even when Envoy drops the last configuration that names it.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
