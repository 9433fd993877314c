//! The architecture's test: reads every `use` and every path of `src/` and holds the layers.
//!
//! - A module imports only what [`LAYERS`] lists for it, and only what stands before it there.
//! - Each listed import is used, so the table can't promise less order than there is.
//! - No files import each other in a circle. A parent may call its children by their bare names.
//! - A crate that one module owns ([`OWNED_CRATES`]) is named nowhere else.
//! - ARCHITECTURE.md shows the table; `TALOS_BLESS=1 cargo test --test layers` writes it anew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a test that can't go on panics"
)]

#[path = "layers/sources.rs"]
mod sources;
#[path = "layers/style.rs"]
mod style;

use std::fs;
use std::path::Path;
use std::process::Command;

use sources::Tree;

/// A layer: its name and its modules.
type Layer = (&'static str, &'static [Entry]);

/// A module and what it may import, with spaces between.
type Entry = (&'static str, &'static str);

/// All modules of `src/`, from the bottom up. A module imports what stands before it, if listed.
const LAYERS: &[Layer] = &[
    (
        "words: values and small tools, no I/O",
        &[
            ("plane", ""),
            ("clock", ""),
            ("rng", ""),
            ("duration", ""),
            ("secret", ""),
            ("host", ""),
            ("trace", ""),
            ("error", ""),
            ("escape", ""),
            ("mutants", ""),
            ("caller", "clock"),
            ("key", "clock"),
        ],
    ),
    (
        "machinery: credentials, configuration, TLS",
        &[
            ("event", "clock key"),
            ("readiness", "clock"),
            ("permissions", ""),
            ("credential", "caller clock key rng secret"),
            ("config", "clock credential duration error escape host key plane secret"),
            ("settings", "caller clock config credential duration host key secret"),
            ("tls", "caller clock config"),
            ("admin_auth", "caller clock config credential rng secret tls"),
        ],
    ),
    (
        "the outside: SQL, memory and Redis, rates of use",
        &[
            ("store", "clock credential duration key mutants permissions rng tls"),
            ("redis", "clock secret"),
            ("cache", "clock credential key mutants redis rng store"),
            ("limit", "clock key redis"),
        ],
    ),
    (
        "the record: the audit log",
        &[("audit", "caller clock config credential error escape event key rng secret store trace")],
    ),
    (
        "use cases: one file an operation",
        &[
            (
                "service",
                "audit cache caller clock credential duration error event key limit mutants rng \
                 secret settings store trace",
            ),
            ("telemetry", "cache clock config escape plane readiness redis service settings tls trace"),
        ],
    ),
    (
        "transports: gRPC and HTTP",
        &[
            (
                "authz",
                "audit cache clock config credential error escape event host key limit service \
                 settings telemetry trace",
            ),
            (
                "http",
                "admin_auth audit caller clock config credential duration error event host key \
                 limit plane readiness secret service settings telemetry trace",
            ),
        ],
    ),
    (
        "process: start, commands, diagnosis",
        &[
            ("doctor", "authz config settings"),
            (
                "app",
                "admin_auth audit authz cache caller clock config error http key limit mutants \
                 permissions plane readiness redis rng service settings store telemetry tls",
            ),
            (
                "cli",
                "app audit clock config credential doctor duration escape http key plane rng \
                 secret store telemetry",
            ),
            (
                "fuzzing",
                "admin_auth app audit authz caller clock config credential doctor event key \
                 plane rng service settings tls",
            ),
        ],
    ),
];

/// Crates that only the listed modules name.
const OWNED_CRATES: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("sqlx_core", &["store"]),
    ("moka", &["cache"]),
    ("redis", &["redis"]),
    ("axum", &["http", "app"]),
    ("tonic", &["authz", "app"]),
    ("talos_proto", &["authz", "fuzzing"]),
    ("clap", &["cli"]),
    ("comfy_table", &["cli"]),
    ("serde_json_path", &["cli"]),
    ("prometheus_client", &["telemetry"]),
    ("opentelemetry", &["telemetry", "trace"]),
    ("notify", &["app"]),
    ("rustls", &["tls", "redis", "fuzzing"]),
    ("rustls_native_certs", &["tls"]),
    ("tokio_rustls", &["app"]),
    ("x509_parser", &["tls"]),
    ("reqwest", &["settings", "cli"]),
];

/// Marks of the table in ARCHITECTURE.md.
const BEGIN: &str = "<!-- layers -->\n";
const END: &str = "<!-- /layers -->";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Modules at the top of `src/`, from the bottom up.
fn modules() -> impl Iterator<Item = Entry> {
    LAYERS.iter().flat_map(|(_, modules)| modules.iter().copied())
}

/// Violations of `table` in a tree: imports that aren't listed, and entries that nobody needs.
fn violations(tree: &Tree, table: &[Entry]) -> Vec<String> {
    let mut wrong = vec![];
    for (module, imports) in tree.imports_of_modules() {
        let Some((_, allowed)) = table.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{module} is in no layer: add it to LAYERS"));
            continue;
        };
        for (import, file) in &imports {
            if !allowed.split(' ').any(|allowed| allowed == import) {
                wrong.push(format!("{file} imports {import}, which {module} may not"));
            }
        }
        for unused in allowed.split_terminator(' ').filter(|allowed| !imports.contains_key(*allowed)) {
            wrong.push(format!("{module} doesn't import {unused}: take it off LAYERS"));
        }
    }
    for (at, (module, allowed)) in table.iter().enumerate() {
        for import in allowed.split_terminator(' ') {
            if !table[..at].iter().any(|(below, _)| *below == import) {
                wrong.push(format!("{import} doesn't stand below {module} in LAYERS"));
            }
        }
    }
    wrong
}

#[test]
fn modules_import_only_what_their_layer_allows() {
    let table: Vec<_> = modules().collect();
    let wrong = violations(&Tree::read(&root().join("src")), &table);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let circles = Tree::read(&root().join("src")).circles();
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn crates_are_named_only_by_their_owners() {
    let mut wrong = vec![];
    for (file, module, names) in Tree::read(&root().join("src")).roots() {
        for (name, owners) in OWNED_CRATES {
            if names.contains(*name) && !owners.contains(&module) {
                wrong.push(format!("{file} uses {name}, which belongs to {owners:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The table of ARCHITECTURE.md: a row for each layer, the lowest first.
fn table() -> String {
    let mut text = String::from("| layer | modules | crates that are kept there |\n|---|---|---|\n");
    for (layer, modules) in LAYERS {
        let told: Vec<String> = modules.iter().map(|(module, _)| format!("`{module}`")).collect();
        let owned = OWNED_CRATES.iter().filter_map(|(name, owners)| {
            let is_here = |owner: &&str| modules.iter().any(|(module, _)| module == owner);
            owners.iter().any(is_here).then(|| format!("`{name}`"))
        });
        let owned: Vec<String> = owned.collect();
        text += &format!("| {layer} | {} | {} |\n", told.join(" "), owned.join(" "));
    }
    text
}

#[test]
fn architecture_md_shows_the_layers() {
    let path = root().join("ARCHITECTURE.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the mark <!-- layers -->");
    let (_, after) = rest.split_once(END).expect("the mark <!-- /layers -->");
    let current = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("TALOS_BLESS").is_some() {
        fs::write(&path, &current).unwrap();
    } else {
        assert!(text == current, "run TALOS_BLESS=1 cargo test --test layers");
    }
}

#[test]
fn there_is_one_crypto_provider() {
    // `cargo tree`, as Cargo.lock also lists what optional features of others would need.
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let is_there = |name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    assert!(is_there("aws-lc-rs"), "{tree}");
    for foreign in ["ring", "rsa", "openssl", "openssl-sys", "native-tls"] {
        assert!(!is_there(foreign), "{foreign} is in the tree beside aws-lc-rs");
    }
}

/// A tree of sample files.
fn tree(files: &[(&str, &str)]) -> Tree {
    Tree::new(files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect())
}

/// Two modules of which only `b` may import the other one.
const SAMPLE: &[Entry] = &[("a", ""), ("b", "a")];

#[test]
fn an_import_against_the_layers_is_found_however_it_is_written() {
    let good = ("b.rs", "use crate::a::A;");
    assert_eq!(violations(&tree(&[("a.rs", ""), good]), SAMPLE), Vec::<String>::new());
    for bad in [
        "use crate::b::B;",
        "use crate::{b};",
        "use {crate::{x::y, b::{self, c::D}}};",
        "use super::b as other;",
        "fn f() { crate::b::g() }",
        "fn f() { log!(\"{}\", crate::b::g()) }",
        "mod inner { use super::super::b::B; }",
        "#[cfg(test)] mod tests { use crate::b::B; }",
        "pub(crate) use crate::b::*;",
    ] {
        let found = violations(&tree(&[("a.rs", bad), good]), SAMPLE);
        assert_eq!(found, ["a.rs imports b, which a may not"], "{bad}");
    }
    for harmless in [
        "// use crate::b::B;",
        "/// See [`crate::b::B`].\nfn f() {}",
        "const TEXT: &str = \"crate::b\";",
        "pub(in crate::a) fn f() {}",
        "use other::b::B;",
    ] {
        let found = violations(&tree(&[("a.rs", harmless), good]), SAMPLE);
        assert_eq!(found, Vec::<String>::new(), "{harmless}");
    }
}

#[test]
fn an_entry_that_nobody_needs_is_found() {
    let found = violations(&tree(&[("a.rs", ""), ("b.rs", "")]), SAMPLE);
    assert_eq!(found, ["b doesn't import a: take it off LAYERS"]);
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let two = |first: &str, second: &str| {
        tree(&[("m.rs", "mod a; mod b;"), ("m/a.rs", first), ("m/b.rs", second)]).circles()
    };
    for (first, second) in [
        ("use super::b::B;", "use super::a::A;"),
        ("use crate::{m::{b::B}};", "use crate::{other, m::{a::{A, C}}};"),
        ("fn f() { super::b::g() }", "fn f() { crate::m::a::g() }"),
    ] {
        assert_eq!(two(first, second), ["m::a <-> m::b"], "{first} {second}");
    }
    assert_eq!(two("use super::b::B;", ""), Vec::<String>::new());
    let of_tests = "#[cfg(test)] mod tests { use crate::m::a::A; }";
    assert_eq!(two("use super::b::B;", of_tests), Vec::<String>::new());
}

#[test]
fn a_circle_through_what_a_parent_shows_is_found() {
    let files = [
        ("m.rs", "mod a; mod b; pub use a::A; pub(crate) use b::{B as Bee};"),
        ("m/a.rs", "use super::Bee;"),
        ("m/b.rs", "use crate::m::A;"),
    ];
    assert_eq!(tree(&files).circles(), ["m::a <-> m::b"]);
}

#[test]
fn a_child_that_imports_what_its_parent_made_of_it_is_found() {
    let files = [("m.rs", "mod a; fn g() { self::a::f() }"), ("m/a.rs", "fn f() { super::g() }")];
    assert_eq!(tree(&files).circles(), ["m <-> m::a"]);
}
