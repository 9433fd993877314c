//! The layers of ARCHITECTURE.md, as a rule that the sources are read against.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// For each module at the top of `src/`: the modules of ours that it may name.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("caller", &["clock"]),
    ("clock", &[]),
    ("plane", &[]),
    ("rng", &[]),
    ("duration", &[]),
    ("host", &[]),
    ("secret", &[]),
    ("trace", &[]),
    ("error", &[]),
    ("escape", &[]),
    ("event", &["clock", "key"]),
    ("key", &["clock"]),
    ("config", &["credential", "duration", "host", "key", "secret"]),
    ("credential", &["clock", "key", "rng", "secret"]),
    ("settings", &["clock", "config", "credential", "host", "key", "secret"]),
    ("admission", &["caller", "clock", "config", "credential", "rng", "secret", "tls"]),
    ("tls", &["caller", "clock", "config"]),
    ("store", &["clock", "credential", "duration", "key", "rng"]),
    ("cache", &["clock", "credential", "key", "rng", "secret", "store"]),
    ("limit", &["cache", "clock", "key"]),
    ("readiness", &["clock"]),
    (
        "audit",
        &[
            "caller",
            "clock",
            "config",
            "credential",
            "error",
            "escape",
            "event",
            "key",
            "rng",
            "secret",
            "store",
            "trace",
        ],
    ),
    (
        "service",
        &[
            "audit",
            "cache",
            "clock",
            "credential",
            "duration",
            "error",
            "event",
            "key",
            "limit",
            "rng",
            "secret",
            "settings",
            "store",
            "trace",
        ],
    ),
    ("telemetry", &["cache", "clock", "config", "escape", "plane", "readiness", "service", "trace"]),
    (
        "authz",
        &[
            "audit",
            "cache",
            "clock",
            "config",
            "credential",
            "error",
            "event",
            "key",
            "limit",
            "service",
            "settings",
            "telemetry",
            "trace",
        ],
    ),
    (
        "http",
        &[
            "admission",
            "audit",
            "caller",
            "clock",
            "config",
            "credential",
            "duration",
            "error",
            "event",
            "host",
            "key",
            "limit",
            "plane",
            "readiness",
            "secret",
            "service",
            "settings",
            "telemetry",
            "trace",
        ],
    ),
    (
        "app",
        &[
            "admission",
            "audit",
            "authz",
            "cache",
            "caller",
            "clock",
            "config",
            "http",
            "key",
            "limit",
            "plane",
            "readiness",
            "rng",
            "secret",
            "service",
            "settings",
            "store",
            "telemetry",
            "tls",
        ],
    ),
    (
        "fuzzing",
        &[
            "admission",
            "app",
            "audit",
            "authz",
            "caller",
            "clock",
            "config",
            "credential",
            "doctor",
            "event",
            "key",
            "plane",
            "rng",
            "service",
            "settings",
            "tls",
        ],
    ),
    ("doctor", &["config", "service"]),
    (
        "cli",
        &[
            "app",
            "audit",
            "clock",
            "config",
            "credential",
            "doctor",
            "duration",
            "escape",
            "http",
            "key",
            "plane",
            "rng",
            "secret",
            "settings",
            "store",
            "telemetry",
        ],
    ),
];

/// Crates that are somebody's own business.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("moka", &["cache"]),
    ("redis", &["cache"]),
    ("axum", &["http", "app"]),
    ("tonic", &["authz", "app"]),
    ("talos_proto", &["authz", "fuzzing"]),
    ("clap", &["cli"]),
    ("comfy_table", &["cli"]),
    ("serde_json_path", &["cli"]),
    ("prometheus_client", &["telemetry"]),
    ("opentelemetry", &["telemetry", "trace"]),
    ("notify", &["app"]),
    ("rustls", &["tls", "cache", "fuzzing"]),
    ("tokio_rustls", &["app"]),
    ("x509_parser", &["tls"]),
    ("reqwest", &["settings", "cli"]),
    ("http2_server", &["authz", "app", "fuzzing"]),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The words that follow `before` in the code, comments left out.
fn words_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(move |line| {
        line.match_indices(before).map(move |(at, _)| {
            let rest = &line[at + before.len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            &rest[..end]
        })
    })
}

#[test]
fn imports_go_downwards_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    sources(&root, &mut files);
    let mut wrong = vec![];
    for file in files {
        let inside = file.strip_prefix(&root).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let (_, allowed) = MAY_IMPORT.iter().find(|(name, _)| *name == module).unwrap_or_else(|| {
            panic!("{module} is a new module: say in this table what it may import");
        });
        for import in words_after(&text, "crate::") {
            let ours = MAY_IMPORT.iter().any(|(name, _)| *name == import);
            if ours && import != module && !allowed.contains(&import) {
                wrong.push(format!("{} imports {import}", inside.display()));
            }
        }
        for (name, homes) in ONLY_IN {
            let uses = text.contains(&format!("use {name}::")) || text.contains(&format!(" {name}::"));
            if uses && !homes.contains(&module) {
                wrong.push(format!("{} uses {name}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn there_is_one_crypto_provider() {
    // Not Cargo.lock: that lists what optional features of others would need, too.
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let is_there = |name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    assert!(is_there("aws-lc-rs"), "{tree}");
    for foreign in ["ring", "rsa", "openssl", "openssl-sys", "native-tls"] {
        assert!(!is_there(foreign), "{foreign} is in the tree beside aws-lc-rs");
    }
}
