//! `talos doctor` on dumps of real Envoys: nothing to say about the configuration that we ship,
//! each fault found that is planted in it, each cure tried, each value read as Envoy reads it.

mod accelerated;
mod faults;
mod paste;
mod shapes;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::cli::Ran;
use crate::rig::http::{Base, Call, Version};
use crate::rig::needs::variable;
use crate::rig::process::{Process, free_port};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::Setup;
use faults::{Change, faults};
use paste::paste;
use shapes::{SHAPES, shaped};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The configuration that we ship, with changes.
fn config(changes: &[Change]) -> String {
    let path = format!("{ROOT}/envoy/envoy.yaml");
    let shipped = std::fs::read_to_string(&path).must(&path);
    changes.iter().fold(shipped, |config, change| change.made_to(&config))
}

/// The oldest and the newest Envoy that we know, so far as they are there.
fn envoys() -> Vec<String> {
    let newest = variable("TALOS_TEST_ENVOY");
    std::env::var("TALOS_TEST_OLDEST_ENVOY").into_iter().chain([newest]).collect()
}

/// Runs an Envoy with a configuration, on ports of its own, and hands its admin interface to the
/// doctor.
async fn examined(envoy: &str, config: &str, setup: &Setup, options: &[&str]) -> Ran {
    for _ in 0..5 {
        let (edge, admin) = (free_port(), free_port());
        // In YAML and in JSON.
        let ports = [("10000", edge), ("10001", admin)];
        let config = ports.iter().fold(config.to_owned(), |config, (port, free)| {
            config
                .replace(&format!("port_value: {port} }}"), &format!("port_value: {free} }}"))
                .replace(&format!("\"port_value\": {port}\n"), &format!("\"port_value\": {free}\n"))
        });
        let file = setup.path(&format!("envoy-{admin}.yaml"));
        std::fs::write(&file, config).must("writing Envoy's configuration");
        let Some(_envoy) = started(envoy, &file, admin).await else { continue };
        let url = format!("http://127.0.0.1:{admin}");
        let arguments = ["doctor", &url, "--format", "json"];
        return Ran::from(setup.run(&[&arguments, options].concat()).await);
    }
    panic!("Envoy found no free ports");
}

/// None when another process took one of its ports meanwhile.
async fn started(envoy: &str, file: &Path, admin: u16) -> Option<Process> {
    let mut command = Command::new(envoy);
    command.arg("-c").arg(file);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
    let mut process = Process::spawn("Envoy", command, &file.with_extension("log"));
    let base = Base::local(admin);
    until("Envoy shows its configuration", async || {
        if let Some(status) = process.ended() {
            let log = process.log();
            assert!(log.contains("Address already in use"), "Envoy ended with {status}:\n{log}");
            return Some(None);
        }
        let dump = base.try_send(Version::Http1, Call::get("/config_dump")).await.ok()?;
        dump.text().contains("static_listeners").then_some(Some(()))
    })
    .await?;
    Some(process)
}

/// The report of a run that had one.
#[track_caller]
fn report(ran: &Ran) -> Value {
    assert!(ran.code == 0 || ran.code == 1, "{ran:#?}");
    serde_json::from_str(&ran.stdout).must("a report")
}

fn found(report: &Value) -> Vec<(&str, &str)> {
    let findings = report.at("/findings").as_array().must("findings");
    findings.iter().map(|finding| (finding.text("/id"), finding.text("/severity"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_nothing_to_say_about_what_we_ship() {
    needs!(Envoy);
    let setup = Setup::bare();
    for envoy in envoys() {
        let ran = examined(&envoy, &config(&[]), &setup, &[]).await;
        let report = report(&ran);
        assert_eq!((found(&report), ran.code), (vec![], 0), "{envoy}: {report:#}");
        assert_eq!(report.texts("/examined/clusters"), ["talos_authz"]);
        assert_eq!(report.at("/examined/routes"), 3);
    }
    // All others as well, as they stand.
    for entry in std::fs::read_dir(format!("{ROOT}/envoy")).must("envoy/") {
        let path = entry.must("an entry of envoy/").path();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "yaml") && text.contains("static_resources:")
        {
            let ran = Ran::from(setup.run(&["doctor", &path.display().to_string()]).await).expect(0);
            assert!(
                ran.stdout.starts_with("0 errors, 0 warnings, 0 notes"),
                "{}: {}",
                path.display(),
                ran.stdout
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_planted_fault_is_found() {
    needs!(Envoy);
    let setup = Setup::bare();
    let mut missed = vec![];
    for (id, severity, changes) in faults() {
        let config = config(changes);
        let file = setup.path("planted.yaml");
        std::fs::write(&file, &config).must("writing a configuration");
        let read = Ran::from(setup.run(&["doctor", "planted.yaml", "--format", "json"]).await);
        let mut reports = vec![("the file".to_owned(), read)];
        for envoy in envoys() {
            let ran = examined(&envoy, &config, &setup, &[]).await;
            reports.push((envoy, ran));
        }
        for (of, ran) in reports {
            let report = report(&ran);
            let found = found(&report);
            let code = i32::from(found.iter().any(|(_, severity)| *severity != "note"));
            if !found.contains(&(id, severity)) || ran.code != code {
                missed.push(format!("{id} ({severity}) in {of}: exit code {}, {found:?}", ran.code));
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_finding_is_documented() {
    let path = format!("{ROOT}/docs/doctor.md");
    let page = std::fs::read_to_string(&path).must(&path);
    let missing: Vec<&str> =
        faults().map(|(id, ..)| *id).filter(|id| !page.contains(&format!("`{id}`"))).collect();
    assert!(missing.is_empty(), "docs/doctor.md lacks {missing:?}");
}

/// Ids with severities and paths, which don't depend on where a configuration was read from.
fn placed(report: &Value) -> Vec<(&str, &str, &str)> {
    let findings = report.at("/findings").as_array().must("findings");
    findings
        .iter()
        .map(|finding| (finding.text("/id"), finding.text("/severity"), finding.text("/path")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_read_as_envoy_reads_them() {
    needs!(Envoy);
    let setup = Setup::bare();
    let shipped = config(&[]);
    let mut wrong = vec![];
    for (number, (edits, expected)) in SHAPES.iter().enumerate() {
        let config = shaped(&shipped, edits);
        std::fs::write(setup.path("shape.yaml"), &config).must("writing a configuration");
        let ran = Ran::from(setup.run(&["doctor", "shape.yaml", "--format", "json"]).await);
        let read = report(&ran);
        if found(&read) != *expected {
            wrong.push(format!("{number}: {:?} instead of {expected:?}", found(&read)));
        }
        for envoy in envoys() {
            let ran = examined(&envoy, &config, &setup, &[]).await;
            let shown = report(&ran);
            if placed(&shown) != placed(&read) {
                wrong.push(format!(
                    "{number}: {:?} in the file, {:?} in {envoy}",
                    placed(&read),
                    placed(&shown)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// All cures of a report are pasted as they are; after that there are no findings.
#[tokio::test(flavor = "multi_thread")]
async fn cures_leave_no_findings() {
    needs!(Envoy);
    let setup = Setup::bare();
    let mut wrong = vec![];
    for (id, _, changes) in faults() {
        let faulty = config(changes);
        std::fs::write(setup.path("faulty.yaml"), &faulty).must("writing a configuration");
        let ran = Ran::from(setup.run(&["doctor", "faulty.yaml", "--format", "json"]).await);
        let report = report(&ran);
        let mut cured: Value = serde_norway::from_str(&faulty).must("YAML");
        let findings = report.at("/findings").as_array().must("findings");
        // The cure of a script is a comment, since only its author can change it.
        if findings.iter().any(|finding| finding.text("/fix").starts_with("# read x-talos-")) {
            continue;
        }
        for finding in findings {
            if !paste(&mut cured, finding.text("/path"), finding.text("/fix")) {
                wrong.push(format!("{id}: nothing to paste in {finding:#}"));
            }
        }
        let cured = serde_json::to_string_pretty(&cured).must("JSON");
        let cured = cured.replace("/etc/envoy/talos-ca.pem", "/etc/ssl/certs/ca-certificates.crt");
        let ran = examined(&variable("TALOS_TEST_ENVOY"), &cured, &setup, &[]).await;
        if !found(&self::report(&ran)).is_empty() || ran.code != 0 {
            wrong.push(format!("{id}: {ran:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Compares the client's address by Talos' settings with the one that Envoy sends.
#[tokio::test(flavor = "multi_thread")]
async fn hops_are_counted_alike_on_both_sides() {
    let setup = Setup::bare();
    let behind_one = Change::After("use_remote_address: true", "xff_num_trusted_hops: 1");
    for (changes, talos, fits) in [
        (&[][..], "client_address: peer", true),
        (&[], "{client_address: xff, trusted_hops: 1}", true),
        (&[], "{client_address: xff, trusted_hops: 2}", false),
        (&[], "client_address: external", true),
        (&[behind_one], "client_address: peer", false),
        (&[behind_one], "{client_address: xff, trusted_hops: 1}", false),
        (&[behind_one], "{client_address: xff, trusted_hops: 2}", true),
    ] {
        std::fs::write(setup.path("envoy.yaml"), config(changes)).must("writing a configuration");
        let talos = match talos.starts_with('{') {
            true => format!("authz: {talos}\n"),
            false => format!("authz: {{{talos}}}\n"),
        };
        std::fs::write(setup.path("talos.yaml"), &talos).must("writing a configuration");
        let ran = Ran::from(
            setup.run(&["doctor", "envoy.yaml", "--config", "talos.yaml", "--format", "json"]).await,
        );
        let report = report(&ran);
        let expected = if fits { vec![] } else { vec![("client-address", "error")] };
        assert_eq!(found(&report), expected, "{talos}: {report:#}");
    }
}

/// Compares the places where Talos looks for credentials with what Envoy sends.
#[tokio::test(flavor = "multi_thread")]
async fn sources_fit_what_envoy_sends() {
    let setup = Setup::bare();
    let hidden = Change::After(
        "transport_api_version: V3",
        "allowed_headers: { patterns: [{ prefix: x, ignore_case: true }, { exact: authorization }] }",
    );
    let no_system = Change::After(
        "transport_api_version: V3",
        "decoder_header_mutation_rules: { disallow_system: true }",
    );
    let redirect = Change::Replace(
        "- match: { prefix: / }",
        "- match: { prefix: /moved }\n                          route: { cluster: upstream, internal_redirect_policy: {} }\n                        - match: { prefix: / }",
    );
    let connect = Change::Replace(
        "- match: { prefix: / }",
        "- match: { connect_matcher: {} }\n                          route: { cluster: upstream }\n                        - match: { prefix: / }",
    );
    let unformatted = Change::Without("log_format:");
    for (changes, sources, expected) in [
        (&[unformatted][..], "{ header: x-api-key }", &[][..]),
        (&[unformatted], "{ query: api_key }", &["key-logged"]),
        (&[], "{ query: api_key }", &[]),
        (&[hidden], "{ header: authorization, scheme: Basic }", &[]),
        (&[hidden], "{ cookie: key }", &["credential-unseen"]),
        (&[hidden], "{ websocket_protocol: bearer }", &["credential-unseen"]),
        (&[hidden], "{ header: proxy-authorization, scheme: Basic, key_in: user }", &["credential-unseen"]),
        // The access log shows the path of refused requests, with the key in it.
        (&[hidden], "{ path: '/v2/{key}' }", &["key-logged"]),
        (&[no_system], "{ header: x-api-key }", &[]),
        (&[no_system], "{ query: api_key }", &["mutations-ignored"]),
        (&[no_system], "{ path: '/v2/{key}' }", &["mutations-ignored", "key-logged"]),
        (&[redirect], "{ header: authorization, scheme: Bearer }", &[]),
        (&[redirect], "{ header: authorization, scheme: bearer, scheme_optional: true }", &[]),
        (&[redirect], "{ header: x-api-key }", &["redirect-unauthenticated"]),
        (&[redirect], "{ header: authorization, scheme: Basic }", &["redirect-unauthenticated"]),
        (&[connect], "{ header: proxy-authorization, scheme: Basic }", &[]),
        (&[connect], "{ header: authorization, scheme: Basic }", &["connect-challenge"]),
    ] {
        std::fs::write(setup.path("envoy.yaml"), config(changes)).must("writing a configuration");
        std::fs::write(setup.path("talos.yaml"), format!("authz: {{ sources: [{sources}] }}\n"))
            .must("writing a configuration");
        let ran = Ran::from(
            setup.run(&["doctor", "envoy.yaml", "--config", "talos.yaml", "--format", "json"]).await,
        );
        let report = report(&ran);
        let found: Vec<&str> =
            found(&report).into_iter().map(|(id, _)| id).filter(|id| *id != "identity-unseen").collect();
        assert_eq!(found, expected, "{sources}: {report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_dump_is_an_error() {
    let setup = Setup::bare();
    std::fs::write(
        setup.path("open.yaml"),
        config(&[Change::Replace("failure_mode_allow: false", "failure_mode_allow: true")]),
    )
    .must("writing a configuration");
    for (name, text) in [
        ("empty", "".to_owned()),
        ("garbage", "{\"configs\": [".to_owned()),
        ("other", "{\"configs\": [{\"@type\": \"x.y.OtherDump\"}]}".to_owned()),
        ("list", "[1, 2]".to_owned()),
        ("deep", "[".repeat(100_000)),
        ("deep-object", "{\"a\":".repeat(100_000)),
        ("filter", "apiVersion: networking.istio.io/v1\nkind: EnvoyFilter\nmetadata: {name: a}\n".to_owned()),
    ] {
        std::fs::write(setup.path(name), text).must("writing a file");
        let ran = Ran::from(setup.run(&["doctor", name]).await).expect(64);
        assert!(ran.stdout.is_empty() && ran.stderr.lines().count() == 1, "{name}: {ran:?}");
    }
    Ran::from(setup.run(&["doctor", "nonesuch.json"]).await).expect(64);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    Ran::from(setup.run(&["doctor", &nobody]).await).expect(69);

    for (options, code) in [
        (&[][..], 1),
        (&["--fail-on", "error"], 1),
        (&["--fail-on", "never"], 0),
        (&["--cluster", "talos_authz"], 1),
        (&["--fail-on", "sometimes"], 64),
    ] {
        let ran = Ran::from(setup.run(&[&["doctor", "open.yaml"], options].concat()).await).expect(code);
        if code != 64 {
            assert!(
                ran.stdout.starts_with("ERROR  fail-open\n  at   listeners[edge].filter_chains[0]."),
                "{}",
                ran.stdout
            );
            let place = ".http_filters[ext_authz].failure_mode_allow (line ";
            assert!(ran.stdout.contains(place), "{}", ran.stdout);
        }
    }
    // No filter calls that cluster.
    let ran = Ran::from(setup.run(&["doctor", "open.yaml", "--cluster", "other"]).await).expect(1);
    assert!(ran.stdout.starts_with("ERROR  no-ext-authz\n"), "{}", ran.stdout);
}
