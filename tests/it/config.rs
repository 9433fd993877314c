//! `talos config`: checking, showing and describing a configuration without serving it.

mod connect;
mod mistakes;
mod more_mistakes;

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use serde_json::Value;

use crate::rig::support::{Json, Must};
use crate::rig::talos::{HMAC_SECRET, Setup};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A directory with a `talos.yaml` in it.
fn with_file(yaml: &str) -> Setup {
    let setup = Setup::bare();
    std::fs::write(setup.path("talos.yaml"), yaml).must("writing a configuration");
    setup
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_good_file_is_ok() {
    let yaml = format!("secrets: {{hmac: {{current: {HMAC_SECRET}}}}}\n");
    let output = with_file(&yaml).run(&["config", "check", "talos.yaml"]).await;
    assert_eq!((output.status.code(), out(&output).as_str(), err(&output).as_str()), (Some(0), "ok\n", ""));

    // Settings that only serving needs may be missing; a warning names them.
    let setup = with_file("cache: {ttl: 1m}\n").set("TALOS_CACHE_TTTL", "hunter2");
    for arguments in [&["config", "check", "talos.yaml"][..], &["--config", "talos.yaml", "config", "check"]]
    {
        let output = setup.run(arguments).await;
        assert_eq!((output.status.code(), out(&output).as_str()), (Some(0), "ok\n"), "{}", err(&output));
        let message = err(&output);
        assert!(message.contains("warning: secrets.hmac.current"), "{message}");
        assert!(message.contains("warning: TALOS_CACHE_TTTL: unknown variable"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[tokio::test]
async fn every_problem_has_a_line() {
    let yaml =
        "serve: {http: {host: 0.0.0.0, prt: 1}}\nsecrets: {hmac: {current: hunter2}}\ncache: {ttl: 0s}\n";
    let setup = with_file(yaml).set("TALOS_SERVE_AUTHZ_PORT", "x");
    let output = setup.run(&["config", "check", "talos.yaml"]).await;
    assert_eq!(output.status.code(), Some(64), "{}", err(&output));
    assert_eq!(out(&output), "");
    let message = err(&output);
    for problem in [
        "serve.http.prt: unknown key (talos.yaml)",
        "serve.authz.port: must be a whole number from 0 (TALOS_SERVE_AUTHZ_PORT)",
        "serve.http.host: is no loopback address",
        "secrets.hmac.current: must have at least 32 characters (talos.yaml)",
        "cache.ttl: must be above 0 (talos.yaml)",
    ] {
        assert!(message.lines().any(|line| line.starts_with(problem)), "{problem}\n{message}");
    }
    assert!(!message.contains("hunter2"), "{message}");

    // The admin plane's rules are none of the others'.
    let setup = with_file("serve: {http: {host: 0.0.0.0}}\n");
    for (plane, code) in [("admin", 64), ("public", 0), ("authz", 0)] {
        let output = setup.run(&["config", "check", "talos.yaml", "--plane", plane]).await;
        assert_eq!(output.status.code(), Some(code), "{plane}: {}", err(&output));
    }
}

#[tokio::test]
async fn key_sets_are_read_and_fetched_only_if_asked() {
    let setup = Setup::new();
    let good = format!("file://{}", setup.path("signing-keys.json").display());
    let urls = |urls: &str, kid: &str| {
        format!(
            "credentials: {{derived_tokens: {{jwt: {{signing_keys: {{urls: [{urls}]}}, signing_key_id: {kid}}}}}}}\n"
        )
    };
    // A port on which nobody listens.
    let https = "'https://127.0.0.1:9/keys'";
    let cases = [
        (urls(&good, "it-1"), vec![], 0, ""),
        (urls(&good, "it-2"), vec![], 64, "signing_key_id: no signing key with this id is in the key sets"),
        (
            urls(&format!("{good}, {good}"), "it-1"),
            vec![],
            64,
            "urls[1]: keys[0]: another key has the same kid",
        ),
        (urls("'file:///nonesuch.json'", "it-1"), vec![], 64, "urls[0]: /nonesuch.json: No such file"),
        (urls("'base64://hunter2='", "it-1"), vec![], 64, "urls[0]: must be"),
        (urls(&format!("{good}, {https}"), "other"), vec![], 0, "urls[1]: was not checked"),
        (urls(&format!("{good}, {https}"), "other"), vec!["--fetch"], 64, "urls[1]: 127.0.0.1: "),
    ];
    let setup =
        ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].into_iter().fold(setup, Setup::unset);
    let setup = setup.unset("TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS");
    for (yaml, more, code, message) in cases {
        std::fs::write(setup.path("talos.yaml"), &yaml).must("writing a configuration");
        let arguments: Vec<&str> = ["config", "check", "talos.yaml"].into_iter().chain(more).collect();
        let output = setup.run(&arguments).await;
        assert_eq!(output.status.code(), Some(code), "{yaml}: {}", err(&output));
        assert!(err(&output).contains(message), "{yaml}: {}", err(&output));
        assert!(!err(&output).contains("hunter2"), "{}", err(&output));
    }
}

/// Key sets without a private key are legal, but no JWT goes upstream.
#[tokio::test]
async fn key_sets_that_cannot_sign_get_a_warning() {
    const ID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    let setup = Setup::new().unset("TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS");
    let public =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    std::fs::write(setup.path("public.json"), public).must("public keys");
    let set = |file: &str| {
        let file = setup.path(file);
        format!(
            "credentials: {{derived_tokens: {{jwt: {{signing_keys: {{urls: ['file://{}']}}}}}}}}\n",
            file.display()
        )
    };
    std::fs::write(setup.path("empty.json"), r#"{"keys":[]}"#).must("an empty key set");
    std::fs::write(setup.path("own.yaml"), set("public.json")).must("a network's file");
    let networks = format!(
        "multitenancy: {{enabled: true, networks: [{{hostname: a.example, id: {ID}, config_path: own.yaml}}]}}\n"
    );
    let cases = [
        (set("public.json"), vec![""]),
        (set("empty.json"), vec![""]),
        (set("signing-keys.json"), vec![]),
        (format!("{}{networks}", set("signing-keys.json")), vec!["a.example: "]),
        (format!("{}{networks}", set("empty.json")), vec!["", "a.example: "]),
    ];
    for (yaml, places) in cases {
        std::fs::write(setup.path("talos.yaml"), &yaml).must("writing a configuration");
        let output = setup.run(&["config", "check", "talos.yaml"]).await;
        let said = err(&output);
        assert_eq!((output.status.code(), out(&output).as_str()), (Some(0), "ok\n"), "{yaml}: {said}");
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("no key there can sign")).collect();
        assert_eq!(lines.len(), places.len(), "{yaml}: {said}");
        for (line, place) in lines.iter().zip(places) {
            let key = "credentials.derived_tokens.jwt.signing_keys.urls: ";
            assert!(line.starts_with(&format!("warning: {place}{key}")), "{yaml}: {line}");
        }
    }
}

#[tokio::test]
async fn the_printed_configuration_is_merged_masked_and_valid() {
    let yaml = "db: {dsn: 'sqlite://a.db'}\ncache: {ttl: 90s}\n";
    let setup =
        with_file(yaml).set("TALOS_SERVE_HTTP_PORT", "7").set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET);
    let output = setup.run(&["config", "show", "talos.yaml", "--format", "json"]).await;
    assert!(output.status.success() && err(&output).is_empty(), "{}", err(&output));
    let shown: Value = serde_json::from_str(&out(&output)).must("JSON");
    assert_eq!(shown["serve"]["http"]["port"], 7);
    assert_eq!(shown["cache"]["ttl"], "1m30s");
    assert_eq!(shown["secrets"]["hmac"]["current"], "***");
    assert_eq!(shown["db"]["dsn"], "sqlite://a.db");
    assert!(!out(&output).contains(HMAC_SECRET));

    let output = setup.run(&["config", "show", "talos.yaml", "--origin", "--format", "json"]).await;
    let origins: Value = serde_json::from_str(&out(&output)).must("JSON");
    for (key, origin) in [
        ("serve.http.port", "TALOS_SERVE_HTTP_PORT"),
        ("cache.ttl", "talos.yaml"),
        ("secrets.hmac.current", "TALOS_SECRETS_HMAC_CURRENT"),
        ("log.level", "default"),
    ] {
        assert_eq!(origins.at(&format!("/{key}/origin")), origin, "{key}");
    }
    assert!(!out(&output).contains(HMAC_SECRET));

    let setup = setup.unset("TALOS_SECRETS_HMAC_CURRENT").unset("TALOS_SERVE_HTTP_PORT");
    let output = setup.run(&["config", "show", "talos.yaml"]).await;
    std::fs::write(setup.path("again.yaml"), &output.stdout).must("writing what was shown");
    let again = setup.run(&["config", "show", "again.yaml"]).await;
    assert_eq!(out(&again), out(&output));
    assert!(setup.run(&["config", "check", "again.yaml"]).await.status.success());
}

#[tokio::test]
async fn the_schema_is_the_committed_one() {
    let output = Setup::bare().run(&["config", "schema"]).await;
    let committed = std::fs::read_to_string(format!("{ROOT}/src/config/schema.json")).must("the schema");
    assert_eq!(out(&output), committed);
}

/// The configurations that the README and the shipped files show are valid.
#[tokio::test]
async fn the_examples_are_good() {
    let shipped = std::fs::read_to_string(format!("{ROOT}/envoy/talos.yaml")).must("envoy/talos.yaml");
    let readme = std::fs::read_to_string(format!("{ROOT}/README.md")).must("README.md");
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    for example in std::iter::once(shipped.as_str()).chain(blocks) {
        // The demo's key set comes from its environment, the README's from a file.
        let example = example.replace("signing_key_id: demo-1", "");
        let example = example.replace("file:///etc/talos/signing-keys.json", "base64://eyJrZXlzIjpbXX0=");
        let setup = with_file(&example);
        let output = setup.run(&["config", "check", "talos.yaml", "--no-files"]).await;
        assert!(output.status.success(), "{example}\n{}", err(&output));
    }
}

/// The file with texts for refusals that docs/envoy.md shows is valid.
#[tokio::test]
async fn the_example_of_denied_templates_is_good() {
    let page = std::fs::read_to_string(format!("{ROOT}/docs/envoy.md")).must("docs/envoy.md");
    let (_, rest) = page.split_once("```yml\n").must("a file with texts for refusals");
    let (texts, _) = rest.split_once("```").must("its end");
    let setup = with_file("authz: { denied_template_file: denied.yaml }\n");
    std::fs::write(setup.path("denied.yaml"), texts).must("writing it");
    let output = setup.run(&["config", "check", "talos.yaml"]).await;
    assert!(output.status.success(), "{texts}\n{}", err(&output));
}

/// The file of a secret may be named where that of the texts belongs.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_shown_of_a_file_that_has_no_denied_templates() {
    let setup = with_file("authz: { denied_template_file: denied.yaml }\n")
        .set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET);
    for content in ["-----BEGIN PRIVATE KEY-----\ns3cr3t\n", "s3cr3t", "responses: [s3cr3t]", "s3cr3t: 1"] {
        std::fs::write(setup.path("denied.yaml"), content).must("writing it");
        for arguments in [
            &["config", "check", "talos.yaml"][..],
            &["config", "check", "talos.yaml", "--format", "json"],
            &["serve", "--config", "talos.yaml"],
        ] {
            let output = setup.run(arguments).await;
            let said = format!("{}{}", out(&output), err(&output));
            assert_eq!(output.status.code(), Some(64), "{content}: {said}");
            assert!(said.contains("authz.denied_template_file"), "{content}: {said}");
            assert!(said.contains("a mapping with the list responses"), "{content}: {said}");
            assert!(!said.contains("s3cr3t"), "{content}: {said}");
        }
    }
}

/// A variable by which a route would be set, but isn't, is no warning to be overlooked.
#[tokio::test(flavor = "multi_thread")]
async fn a_variable_of_an_entry_that_sets_no_field_is_refused() {
    let setup = with_file("cache: {ttl: 1m}\n")
        .set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET)
        .set("TALOS_PORT_4420_TCP_ADDR", "10.0.0.1");
    let checked = setup.run(&["config", "check", "talos.yaml"]).await;
    let said = err(&checked);
    assert_eq!(checked.status.code(), Some(0), "{said}");
    assert!(said.contains("warning: TALOS_PORT_4420_TCP_ADDR: unknown variable"), "{said}");
    for (variable, key, cure) in [
        ("TALOS_AUTHZ_ROUTES_0_HOST", "authz.routes[0]: ", "set TALOS_AUTHZ_ROUTES_0 to a mapping"),
        ("TALOS_SECRETS_HMAC_RETIRED_0_VALU", "secrets.hmac.retired[0]: ", "one of VALUE, EXPIRES_AT"),
    ] {
        let setup = setup.clone().set(variable, "hunter2");
        for arguments in [&["config", "check", "talos.yaml"][..], &["serve", "--config", "talos.yaml"]] {
            let output = setup.run(arguments).await;
            let said = err(&output);
            assert_eq!(output.status.code(), Some(64), "{variable}: {said}");
            let line = said.lines().find(|line| line.contains(key)).must(&said);
            assert!(line.contains(&format!("({variable})")) && line.contains(cure), "{line}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

#[tokio::test]
async fn the_commands_of_the_configuration_page_work() {
    let page = std::fs::read_to_string(format!("{ROOT}/docs/configuration.md")).must("the page");
    let (block, _) = page
        .split_once("```sh\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .must("the commands of docs/configuration.md");
    let setup = with_file("cache: {ttl: 1m}\n");
    let script = setup.path("commands");
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_talos")).parent().must("the directory of talos");
    let text = format!(
        "#!/bin/sh\nset -eu\ncd '{}'\nPATH='{}':$PATH\n{block}",
        setup.path("").display(),
        bin.display()
    );
    std::fs::write(&script, text).must("writing the commands");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).must("making them executable");
    let output = tokio::process::Command::new("sh").arg(&script).env_remove("TALOS_ENDPOINT").output().await;
    let output = output.must("running the commands");
    assert!(output.status.success(), "{block}\n{}", err(&output));
    assert_eq!(block.lines().filter(|line| line.starts_with("talos config")).count(), 3, "{block}");
    assert!(out(&output).contains("ok\n") && out(&output).contains("origin: talos.yaml"), "{}", out(&output));
    assert!(setup.path("talos.schema.json").exists());
}
