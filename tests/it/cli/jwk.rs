//! `jwk generate`.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::Ran;
use crate::rig::support::{Json, Must};
use crate::rig::talos::Setup;

async fn generate(setup: &Setup, line: &str) -> Ran {
    let words: Vec<&str> = ["jwk", "generate"].into_iter().chain(line.split_whitespace()).collect();
    Ran::from(setup.run(&words).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_key() {
    let setup = Setup::bare();
    for (line, kty, alg, public, private) in [
        ("eddsa", "OKP", "EdDSA", &["crv", "x"][..], &["d"][..]),
        ("rsa", "RSA", "RS256", &["n", "e"], &["d", "p", "q", "dp", "dq", "qi"]),
        ("rsa --bits 3072 --alg PS384", "RSA", "PS384", &["n", "e"], &["d", "p", "q", "dp", "dq", "qi"]),
        ("ecdsa", "EC", "ES256", &["crv", "x", "y"], &["d"]),
        ("ecdsa --curve P-384", "EC", "ES384", &["crv", "x", "y"], &["d"]),
        ("ecdsa --curve P-521", "EC", "ES512", &["crv", "x", "y"], &["d"]),
    ] {
        for (half, has) in [("", true), (" --public-only", false)] {
            let jwk = generate(&setup, &format!("{line}{half}")).await.json();
            assert_eq!((jwk.text("/kty"), jwk.text("/alg"), jwk.text("/use")), (kty, alg, "sig"), "{line}");
            // A thumbprint: 32 bytes in base64url.
            assert_eq!(jwk.text("/kid").len(), 43, "{line}");
            assert!(public.iter().all(|name| jwk[*name].is_string()), "{line}: {jwk:#}");
            assert!(private.iter().all(|name| jwk[*name].is_string() == has), "{line}{half}");
        }
    }
    let jwk = generate(&setup, "hmac --bits 384 --kid shared").await.json();
    assert_eq!((jwk.text("/kty"), jwk.text("/alg"), jwk.text("/kid")), ("oct", "HS384", "shared"));
    assert_eq!(jwk.text("/k").len(), 64);
    let jwk = generate(&setup, "rsa --use enc").await.json();
    assert_eq!((jwk.text("/use"), jwk.get("alg")), ("enc", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_its_owners_and_is_never_overwritten() {
    let setup = Setup::bare();
    generate(&setup, "eddsa --kid one --jwks -o key.json").await.ok();
    let path = setup.path("key.json");
    let mode = std::fs::metadata(&path).must("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read_to_string(&path).must("the file");
    let set: Value = serde_json::from_str(&before).must("JSON");
    assert_eq!(set.text("/keys/0/kid"), "one");

    let ran = generate(&setup, "eddsa --kid two -o key.json").await.expect(1);
    assert!(ran.stderr.contains("key.json"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(&path).must("the file"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_signs_with_what_was_made_for_it_and_refuses_the_rest() {
    for (line, fits) in [
        ("rsa --jwks", true),
        ("ecdsa --jwks", false),
        ("hmac --jwks", false),
        ("rsa --alg PS256 --jwks", false),
    ] {
        let setup = Setup::new();
        generate(&setup, &format!("{line} -o other.json")).await.ok();
        let url = format!("file://{}", setup.path("other.json").display());
        let setup = setup.set("TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS", &url);
        if fits {
            let talos = setup.start().await;
            let key = talos.issue(serde_json::json!({})).await;
            let token = talos.derive(&key, serde_json::json!({})).await;
            assert_eq!(talos.verify(&token).await["is_valid"], true);
        } else {
            let output = setup.refused().await;
            assert!(output.contains("signing_keys.urls[0]"), "{line}: {output}");
        }
    }
}
