//! Exports of other products, in the shapes of the real ones: their guides' commands run, and their
//! keys pass a real Envoy on their first use.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::{Ran, feed, shell};
use crate::edge::Edge;
use crate::guide::{blocks, page};
use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, Must, unix_now};
use crate::rig::talos::{IMPORTED, Setup, Talos};

/// An export, and the keys that must work after it.
struct Case {
    source: &'static str,
    file: &'static str,
    /// Keys, each with its actor.
    keys: &'static [(&'static str, &'static str)],
    /// Secrets of the file that must not work afterwards.
    not: &'static [&'static str],
    /// Results: imported, left out, refused.
    counts: [u64; 3],
    /// Texts that the output has.
    output: &'static [&'static str],
}

const CASES: [Case; 5] = [
    Case {
        source: "kong",
        file: "kong.yaml",
        keys: &[
            ("kong-alice-4f7e1c9b2d", "user:42"),
            ("kong-alice-8a6b5c4d3e", "user:42"),
            ("kong-bob-1a2b3c4d5e", "bob"),
        ],
        not: &["3f0c1e5d7a9b", "{vault://env/bob-key}"],
        counts: [3, 0, 1],
        output: &[
            "consumers[1].keyauth_credentials[1]",
            "reference to a vault",
            "the ACL group \"internal team\"",
            "the plugin \"request-size-limiting\"",
            "basicauth_credentials (1) don't carry over",
            "authz.sources: [{header: x-api-key}]",
        ],
    },
    Case {
        source: "unkey",
        file: "unkey.json",
        keys: &[("acme_3Zx8c6v4b2n", "user:42"), ("acme_9Qw7e5r3t1y", "user:43")],
        not: &["acme_0Off2468", "hNUn/fQPA/aXLzOLvbwYAcKLCpOrwXKZFAEmbpE6NKY="],
        counts: [2, 1, 1],
        output: &["is disabled", "neither plaintext nor hash", "its roles (customer)"],
    },
    Case {
        source: "authorino",
        file: "authorino.yaml",
        keys: &[
            ("ndyBzreUzF4zqDQsqSPMHkRhriEOtcRx", "john"),
            ("7BNaTmYGItSzXiwQLNHu82+x52p1XHgY", "friend-2"),
        ],
        not: &["certificate", "a private key that is no API key"],
        counts: [2, 0, 0],
        output: &["(Secret tls): has no label authorino.kuadrant.io/managed-by"],
    },
    Case {
        source: "envoy-gateway",
        file: "envoy-gateway.yaml",
        keys: &[("eg-mobile-5f4e3d2c1b", "mobile"), ("eg-partner-0a9b8c7d6e", "partner")],
        not: &["not an API key"],
        counts: [2, 0, 0],
        output: &[
            "no SecurityPolicy of the file refers to it",
            "forwardClientIDHeader x-client-id",
            "{header: x-api-key}",
        ],
    },
    Case {
        source: "csv",
        file: "keys.csv",
        keys: &[("csv-plain-1357", "user:42"), ("csv-hashed-2468", "user:43")],
        not: &["csv-past-9753"],
        counts: [2, 2, 1],
        output: &[
            "line 4",
            "slow, salted hash",
            "has expired",
            "the same key as line 2",
            "\"note\" doesn't carry over",
        ],
    },
];

fn fixture(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/moving/exports").join(file)
}

/// Commands against a server, in a directory with the exports.
fn beside(talos: &Talos) -> Setup {
    let setup = Setup::bare().set("TALOS_ENDPOINT", &talos.admin.url(""));
    // In a month, whenever this runs: the server bounds the life of a key.
    let end = unix_now() + 30.0 * 86_400.0;
    let millis = format!("{:.0}", end * 1_000.0);
    let date = time::OffsetDateTime::from_unix_timestamp(end as i64).must("a time").date().to_string();
    for case in &CASES {
        let text = std::fs::read_to_string(fixture(case.file)).must(case.file);
        let text = text.replace("4102444800000", &millis).replace("2099-01-01", &date);
        std::fs::write(setup.path(case.file), text).must(case.file);
    }
    setup
}

async fn migrate(setup: &Setup, case: &Case, more: &[&str]) -> Ran {
    let arguments: Vec<&str> =
        ["migrate", "from", case.source, case.file].into_iter().chain(more.iter().copied()).collect();
    Ran::from(setup.run(&arguments).await)
}

/// Asserts that nothing that was written has a secret of the file.
fn assert_silent(case: &Case, ran: &Ran) {
    for secret in case.keys.iter().map(|(key, _)| *key).chain(case.not.iter().copied()) {
        let shown = [&ran.stdout, &ran.stderr].iter().any(|text| text.contains(secret));
        // The name of the bad value is also that of an attribute of a certificate.
        assert!(!shown || secret == "certificate", "{}: a secret is shown: {ran:#?}", case.source);
    }
}

async fn listed(talos: &Talos) -> Vec<Value> {
    let reply = talos.admin.get(&format!("{IMPORTED}?page_size=1000")).await.expect(200).json();
    reply.at("/imported_api_keys").as_array().must("a list").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_come_in_as_their_guides_say_and_their_keys_pass_envoy() {
    needs!(Envoy);
    for case in &CASES {
        let edge = Edge::start().await;
        let setup = beside(&edge.talos);
        // A dry run changes nothing.
        let dry = migrate(&setup, case, &["--dry-run", "-o", "json"]).await;
        let report: Value = serde_json::from_str(&dry.stdout).must(case.source);
        let [imported, left_out, refused] = case.counts;
        assert_eq!(report["would_import"], imported, "{report:#}");
        assert_eq!(listed(&edge.talos).await.len(), 0, "{}", case.source);

        let name = format!("migrate-from-{}.md", case.source);
        let script: String = blocks(&page(&name), "sh").concat();
        let ran = feed(shell(&setup), &script).await.expect(0);
        assert_silent(case, &ran);
        let written = format!("{}{}", ran.stdout, ran.stderr);
        for output in case.output {
            assert!(written.contains(output), "{}: no {output} in {written}", case.source);
        }
        for (key, actor) in case.keys {
            let reply = edge.send(Version::Http1, Call::get("/orders").api_key(key)).await;
            assert_eq!(reply.status, 200, "{}: {actor}\n{written}", case.source);
            let seen = edge.seen();
            assert_eq!(seen.header("x-talos-actor-id"), Some(*actor), "{}", case.source);
        }
        for secret in case.not {
            assert_eq!(edge.talos.verify(secret).await["is_valid"], false, "{}: {secret}", case.source);
        }
        let before = listed(&edge.talos).await;
        assert_eq!(before.len() as u64, imported, "{}", case.source);

        let again = migrate(&setup, case, &["-o", "json"]).await;
        let report: Value = serde_json::from_str(&again.stdout).must(case.source);
        let counts = ["imported", "known", "left_out", "refused"].map(|name| report[name].as_u64());
        assert_eq!(counts, [0, imported, left_out, refused].map(Some), "{report:#}");
        assert_eq!(again.code, i32::from(refused > 0), "{again:#?}");
        if refused == 0 {
            assert!(again.stderr.contains("nothing to do: "), "{again:#?}");
        }
        assert_silent(case, &again);
        let untimed = |keys: &[Value]| -> Vec<String> {
            let keys =
                keys.iter().map(|key| format!("{}{}{}", key["key_id"], key["name"], key["update_time"]));
            keys.collect()
        };
        assert_eq!(untimed(&listed(&edge.talos).await), untimed(&before), "nothing is overwritten");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_carry_over() {
    let talos = Talos::start().await;
    let setup = beside(&talos);
    for case in &CASES {
        migrate(&setup, case, &[]).await;
    }
    let keys = listed(&talos).await;
    let find = |name: &str| keys.iter().find(|key| key["name"] == name).must(name);
    let kong = find("alice 1");
    assert_eq!(kong.at("/scopes"), &json!(["orders:read"]));
    assert_eq!(kong.at("/metadata/kong_tags"), &json!(["partners", "mobile"]));
    assert_eq!(kong.at("/metadata/kong_username"), "alice");
    let limits: Vec<_> = kong.at("/rate_limit_policies").as_array().must("limits").iter().collect();
    let limit = |at: usize| (limits[at].text("/name"), limits[at].text("/quota"), limits[at].text("/scope"));
    assert_eq!([limit(0), limit(1)], [("minute", "100", "ACTOR"), ("hour", "2000", "ACTOR")]);
    assert!(find("bob 1").get("expire_time").is_some());

    let unkey = find("production");
    assert_eq!(unkey.at("/scopes"), &json!(["orders:read", "orders:write"]));
    assert_eq!(unkey.at("/metadata/plan"), "pro");
    assert_eq!(unkey.at("/rate_limit_policies").as_array().must("limits").len(), 2);
    let refill = json!({ "amount": "1000", "every": "day", "at": "00:00" });
    assert_eq!(unkey.at("/credits"), &json!({ "remaining": "1000", "refill": refill }));

    let authorino = find("authorino/friend-1");
    assert_eq!(authorino.at("/metadata/group"), "friends");
    assert!(!authorino.to_string().contains("last-applied"), "{authorino:#}");

    let csv = find("reports, nightly");
    assert_eq!(csv.at("/metadata"), &json!({ "team": "blue" }));
    assert_eq!(csv.at("/scopes"), &json!(["orders:read", "reports:read"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_export_is_named_with_its_place_and_the_cure() {
    let talos = Talos::start().await;
    let setup = Setup::bare().set("TALOS_ENDPOINT", &talos.admin.url(""));
    for (source, text, output) in [
        ("kong", "consumers: [s3cret", "invalid YAML at line "),
        ("kong", "services: []\n", "isn't decK's YAML"),
        ("unkey", "{\"keys\":[{\"plaintext\":\"s3cret\"", "invalid JSON at line 1"),
        ("authorino", "a: 1\n", "no Kubernetes objects"),
        ("envoy-gateway", "kind: Service\n", "has no keys"),
        ("csv", "name\ns3cret\n", "names no column `key`"),
        ("csv", "key\n\"s3cret\n", "line 2: a quote has no end"),
    ] {
        std::fs::write(setup.path("export"), text).must("an export");
        let ran = Ran::from(setup.run(&["migrate", "from", source, "export"]).await).expect(64);
        assert!(ran.stderr.contains(output) && ran.stderr.contains("export: "), "{output}: {ran:#?}");
        assert!(!ran.stderr.contains("s3cret"), "{ran:#?}");
    }
    // Files of Windows begin with a byte order mark and end lines with two characters.
    for (source, text) in [
        ("csv", "\u{feff}key,actor_id\r\n\"windows-csv-1234\",\"a\r\nb\"\r\nwindows-csv-5678,alice\r\n"),
        (
            "unkey",
            "\u{feff}{\"plaintext\":\"windows-json-1\",\"externalId\":\"a\"}\r\n{\"plaintext\":\"windows-json-2\",\"externalId\":\"a\"}\r\n",
        ),
        (
            "kong",
            "\u{feff}consumers:\r\n- username: a\r\n  keyauth_credentials:\r\n  - key: windows-yaml-1\r\n",
        ),
    ] {
        std::fs::write(setup.path("export"), text).must("an export");
        let ran = Ran::from(setup.run(&["migrate", "from", source, "export"]).await);
        ran.expect(i32::from(source == "csv"));
    }
    for key in ["windows-csv-5678", "windows-json-1", "windows-json-2", "windows-yaml-1"] {
        assert_eq!(talos.verify(key).await["is_valid"], true, "{key}");
    }
    assert_eq!(talos.verify("windows-csv-1234").await["is_valid"], false, "its actor has a line break");
    // decK's flat form: what is of a consumer stands beside it, and names it in one of three ways.
    let flat = "consumers: [{username: bob, custom_id: c9, id: i1}]\n\
                keyauth_credentials: [{key: flat-key-1, consumer: bob}, {key: flat-key-2, consumer: {id: i1}}, \
                {key: flat-key-3, consumer: elsewhere}]\n\
                acls: [{group: admins, consumer: {username: bob}}, {group: others, consumer: amy}]\n\
                plugins: [{name: rate-limiting, consumer: c9, config: {minute: 5}}, {name: acl}]\n";
    std::fs::write(setup.path("export"), flat).must("an export");
    Ran::from(setup.run(&["migrate", "from", "kong", "export"]).await).ok();
    for (key, actor, scopes) in [
        ("flat-key-1", "c9", vec!["admins"]),
        ("flat-key-2", "c9", vec!["admins"]),
        ("flat-key-3", "elsewhere", vec![]),
    ] {
        let verified = talos.verify(key).await;
        let id = verified.text("/key_id");
        let shown = talos.admin.get(&format!("{IMPORTED}/{id}")).await.expect(200).json();
        assert_eq!((shown.text("/actor_id"), shown.at("/scopes")), (actor, &json!(scopes)), "{key}");
        let limits = shown.get("rate_limit_policies").and_then(Value::as_array).map_or(0, Vec::len);
        assert_eq!(limits, usize::from(actor == "c9"), "{shown:#}");
    }
    // What a spreadsheet adds to a key, or says twice, is refused by row.
    let rows = "key,actor_id,metadata,metadata.team\n\"  padded-key-1  \",a,,\ntwice-key-1,a,\"{\"\"team\"\":\"\"x\"\"}\",red\n";
    std::fs::write(setup.path("export"), rows).must("an export");
    let ran = Ran::from(setup.run(&["migrate", "from", "csv", "export"]).await).expect(1);
    for problem in ["begins or ends with white space", "metadata.team: is in metadata, too"] {
        assert!(ran.stdout.contains(problem), "{problem}: {ran:#?}");
    }
    // Whoever acts isn't named: an option says so.
    std::fs::write(setup.path("export"), "key\nnobody-key-1234\n").must("an export");
    let ran = Ran::from(setup.run(&["migrate", "from", "csv", "export"]).await).expect(1);
    assert!(ran.stdout.contains("give --actor"), "{ran:#?}");
    Ran::from(setup.run(&["migrate", "from", "csv", "export", "--actor", "somebody"]).await).ok();
    assert_eq!(talos.verify("nobody-key-1234").await.text("/actor_id"), "somebody");
}

/// The page about hashes.
#[tokio::test(flavor = "multi_thread")]
async fn hashes_are_imported_as_the_page_says() {
    let talos = Talos::start().await;
    let setup = Setup::bare().set("TALOS_ENDPOINT", &talos.admin.url(""));
    let script: String = blocks(&page("import-hashes.md"), "sh").concat();
    let ran = feed(shell(&setup), &script).await.expect(0);
    assert!(ran.stdout.contains("IN PLACE OF"), "{ran:#?}");
}
