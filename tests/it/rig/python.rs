//! Python libraries and clients: PyJWT as a backend uses it, pymacaroons as a holder does, SQLite,
//! the SDK.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::rig::needs::variable;
use crate::rig::support::{Json, Must, TIMEOUT};

/// Has PyJWT verify a token against the JWKS at `url`, as a backend would. Returns the claims.
pub async fn verify_jwt(url: &str, issuer: &str, token: &str) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/rig/verify_jwt.py");
    let output = run(&[script, url, issuer, token]).await;
    serde_json::from_str(&output).must("the claims that PyJWT printed")
}

/// Script that mints and verifies macaroons with pymacaroons.
const MACAROON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/rig/macaroon.py");

/// Has pymacaroons verify a macaroon that `secret` signed, and add caveats. Returns its claims,
/// with the macaroon that has the caveats as `narrowed`.
pub async fn open_macaroon(secret: &str, token: &str, caveats: &[&Value]) -> Value {
    let caveats: Vec<String> = caveats.iter().map(ToString::to_string).collect();
    let arguments = [MACAROON, "verify", secret, token].into_iter().chain(caveats.iter().map(String::as_str));
    let output = run(&arguments.collect::<Vec<_>>()).await;
    serde_json::from_str(&output).must("what pymacaroons found")
}

/// Adds a caveat to a macaroon, as a holder would.
pub async fn narrow_macaroon(secret: &str, token: &str, caveat: &Value) -> String {
    open_macaroon(secret, token, &[caveat]).await.text("/narrowed").to_owned()
}

/// A macaroon made by pymacaroons.
pub async fn mint_macaroon(secret: &str, claims: &Value) -> String {
    run(&[MACAROON, "mint", secret, claims.text("/iss"), &claims.to_string()]).await
}

/// Runs a script with `$TALOS_TEST_PYTHON` and returns what it printed.
pub async fn run(arguments: &[&str]) -> String {
    run_beside("TALOS_TEST_PYTHONPATH", arguments).await
}

/// Runs a script beside the packages in the directory that a variable names, and returns what it
/// printed.
pub async fn run_beside(packages: &str, arguments: &[&str]) -> String {
    run_for(TIMEOUT, packages, arguments).await
}

/// Runs a script that may take up to `time`, as [`run_beside`] does.
pub async fn run_for(time: Duration, packages: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(variable("TALOS_TEST_PYTHON"));
    command.args(arguments).env("PYTHONPATH", variable(packages));
    let child = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(time, child).await.must("a Python script").must("running Python");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "Python failed for {arguments:?}:\n{errors}");
    String::from_utf8(output.stdout).must("Python's output is UTF-8")
}
