//! `migrate adopt --from-database`: keys come from the tables of Ory Talos. A server of ours makes
//! them, and they are written in the form of those tables; both have the same secrets.

use serde_json::{Value, json};

use crate::cli::Ran;
use crate::rig::check::Check;
use crate::rig::database::{Server, server};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{IMPORTED, ISSUED, Key, NETWORK, Setup, Talos, VERIFY};

const OTHER_NETWORK: &str = "3774b4ac-520e-45a9-a0cc-6b029890c7ae";
const ISSUED_TABLE: &str = "issued_api_keys";
const IMPORTED_TABLE: &str = "imported_api_keys";
/// Fields of a key that the tables have.
const FIELDS: [&str; 13] = [
    "name",
    "actor_id",
    "scopes",
    "metadata",
    "status",
    "visibility",
    "ip_restriction",
    "rate_limit_policy",
    "create_time",
    "update_time",
    "expire_time",
    "revocation_reason",
    "revocation_description",
];

/// A setup whose database has the schema, and no process.
async fn setup() -> Setup {
    let setup = Setup::new().set("TALOS_CREDENTIALS_API_KEYS_PREFIX_PUBLIC_CURRENT", "pub");
    Ran::from(setup.run(&["migrate", "up"]).await).expect(0);
    setup
}

/// The types of JSON and of times.
fn types() -> (&'static str, &'static str) {
    match server() {
        None => ("TEXT", "DATETIME"),
        Some(Server::Postgres | Server::PgBouncer) => ("JSONB", "TIMESTAMPTZ"),
        Some(Server::MariaDb) => ("JSON", "DATETIME(6)"),
    }
}

fn create_tables(setup: &Setup) {
    let (json, time) = types();
    for (table, key_id, own) in [
        (
            ISSUED_TABLE,
            36,
            "token_prefix VARCHAR(16) NOT NULL DEFAULT 'talos', version INT NOT NULL DEFAULT 1, ",
        ),
        (IMPORTED_TABLE, 64, ""),
    ] {
        setup.sql(&format!(
            "CREATE TABLE {table} (nid VARCHAR(36) NOT NULL, key_id VARCHAR({key_id}) NOT NULL, \
             name VARCHAR(255) NOT NULL, {own}actor_id VARCHAR(255) NULL, scopes {json} NOT NULL, status INT NOT NULL, \
             metadata {json} NULL, last_used_at {time} NULL, expires_at {time} NULL, created_at {time} NOT NULL, \
             updated_at {time} NOT NULL, rate_limit_quota BIGINT NULL, rate_limit_window BIGINT NULL, \
             revocation_reason INT NOT NULL DEFAULT 0, revocation_reason_text VARCHAR(500) NULL, \
             allowed_cidrs {json} NULL, request_id VARCHAR(36) NULL, visibility INT NOT NULL DEFAULT 1, \
             PRIMARY KEY (nid, key_id))"
        ));
    }
}

/// The table of issued keys of a release that had no further columns.
fn create_small_table(setup: &Setup, table: &str) {
    let (json, time) = types();
    setup.sql(&format!(
        "CREATE TABLE {table} (nid VARCHAR(36) NOT NULL, key_id VARCHAR(64) NOT NULL, name VARCHAR(255) NOT NULL, \
         actor_id VARCHAR(255) NULL, scopes {json} NOT NULL, status INT NOT NULL, expires_at {time} NULL, \
         created_at {time} NOT NULL, PRIMARY KEY (nid, key_id))"
    ));
}

/// Rows of that table, whose ids end with these numbers.
fn insert_small(setup: &Setup, table: &str, nid: &str, numbers: std::ops::Range<u32>) {
    let rows: Vec<String> = numbers
        .map(|number| {
            format!(
                "('{nid}', '00000000-0000-4000-8000-{number:012}', 'n', 'a', '[]', 1, NULL, '2026-01-01 00:00:00')"
            )
        })
        .collect();
    setup.sql(&format!(
        "INSERT INTO {table} (nid, key_id, name, actor_id, scopes, status, expires_at, created_at) VALUES {}",
        rows.join(", ")
    ));
}

/// A time in the form that Go's drivers write.
fn stored_time(time: &str) -> String {
    let zone = match server() {
        None | Some(Server::Postgres | Server::PgBouncer) => "+00:00",
        Some(Server::MariaDb) => "",
    };
    format!("{}{zone}", time.replace('T', " ").trim_end_matches('Z'))
}

/// Writes a key of the API as a row.
fn insert(setup: &Setup, table: &str, nid: &str, key: &Value) {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let text = |field: &str| key[field].as_str().map(quoted);
    let json = |pointer: &str| key.pointer(pointer).map(|value| quoted(&value.to_string()));
    let time = |field: &str| key[field].as_str().map(|text| quoted(&stored_time(text)));
    let number = |field: &str, names: &[&str]| {
        let name = key[field].as_str().unwrap_or(names[0]);
        names.iter().position(|known| *known == name).map(|number| number.to_string())
    };
    let limit = |field: &str| {
        let text = key.pointer(&format!("/rate_limit_policy/{field}"))?.as_str()?;
        Some(text.trim_end_matches('s').to_owned())
    };
    let values = [
        ("nid", Some(quoted(nid))),
        ("key_id", text("key_id")),
        ("name", text("name")),
        ("actor_id", text("actor_id")),
        ("scopes", json("/scopes").or_else(|| Some("'[]'".to_owned()))),
        ("metadata", json("/metadata")),
        ("status", number("status", &["", "KEY_STATUS_ACTIVE", "KEY_STATUS_REVOKED", "KEY_STATUS_EXPIRED"])),
        ("visibility", number("visibility", &["", "KEY_VISIBILITY_SECRET", "KEY_VISIBILITY_PUBLIC"])),
        ("allowed_cidrs", json("/ip_restriction/allowed_cidrs")),
        ("rate_limit_quota", limit("quota")),
        ("rate_limit_window", limit("window")),
        ("created_at", time("create_time")),
        ("updated_at", time("update_time")),
        ("expires_at", time("expire_time")),
        ("last_used_at", time("last_used_time")),
        (
            "revocation_reason",
            number(
                "revocation_reason",
                &[
                    "REVOCATION_REASON_UNSPECIFIED",
                    "REVOCATION_REASON_KEY_COMPROMISE",
                    "REVOCATION_REASON_AFFILIATION_CHANGED",
                    "REVOCATION_REASON_SUPERSEDED",
                    "REVOCATION_REASON_PRIVILEGE_WITHDRAWN",
                ],
            ),
        ),
        ("revocation_reason_text", text("revocation_description")),
    ];
    let columns = values.each_ref().map(|(column, _)| *column).join(", ");
    let values = values.map(|(_, value)| value.unwrap_or_else(|| "NULL".to_owned())).join(", ");
    setup.sql(&format!("INSERT INTO {table} ({columns}) VALUES ({values})"));
}

async fn adopt(setup: &Setup, options: &[&str]) -> Ran {
    let words = ["migrate", "adopt", "--from-database"].into_iter().chain(options.iter().copied());
    Ran::from(setup.run(&words.collect::<Vec<_>>()).await)
}

#[track_caller]
fn counted(ran: &Ran) -> [&str; 3] {
    ["ADOPTED", "UNCHANGED", "DIFFERENT"].map(|name| ran.field(name))
}

/// The error code of a verification, empty when valid.
async fn judgement(talos: &Talos, key: &Key) -> String {
    let body = json!({ "credential": key.secret });
    let reply = talos.admin.post(VERIFY, &body).await.expect(200).json();
    reply.get("error_code").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Keys of both kinds in all states, each with its path.
async fn keys_of_all_states(talos: &Talos) -> Vec<(&'static str, Key)> {
    let full = json!({
        "name": "schlüssel 'a'", "actor_id": "user:42", "scopes": ["b", "a:*"], "ttl": "1h",
        "metadata": { "team": "blue", "n": [1, 2.5, null] },
        "ip_restriction": { "allowed_cidrs": ["127.0.0.0/8", "2001:db8::/32"] },
        "rate_limit_policy": { "quota": "9", "window": "60s" },
    });
    let short = json!({ "ttl": "1s" });
    let keys = vec![
        (ISSUED, talos.issue(full.clone()).await),
        (ISSUED, talos.issue(json!({ "visibility": "KEY_VISIBILITY_PUBLIC" })).await),
        (ISSUED, talos.issue(json!({})).await),
        (ISSUED, talos.issue(json!({})).await),
        (ISSUED, talos.issue(short.clone()).await),
        (IMPORTED, talos.import("legacy-1-0123456789", full).await),
        (IMPORTED, talos.import("legacy-2-0123456789", json!({})).await),
        (IMPORTED, talos.import("legacy-3-0123456789", short).await),
    ];
    for (at, body) in [
        (2, json!({})),
        (3, json!({ "reason": "REVOCATION_REASON_PRIVILEGE_WITHDRAWN", "description": "left \"us\"" })),
        (6, json!({ "reason": "REVOCATION_REASON_SUPERSEDED" })),
    ] {
        let (path, key) = &keys[at];
        talos.admin.post(&format!("{path}/{}:revoke", key.id), &body).await.expect(204);
    }
    for at in [4, 7] {
        until("the key has expired", async || {
            (!judgement(talos, &keys[at].1).await.is_empty()).then_some(())
        })
        .await;
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_the_tables_with_their_states() {
    let a = setup().await.start().await;
    let keys = keys_of_all_states(&a).await;
    let setup = setup().await;
    create_tables(&setup);
    let mut rows = vec![];
    for (path, key) in &keys {
        let resource = a.admin.get(&format!("{path}/{}", key.id)).await.expect(200).json();
        insert(&setup, if *path == ISSUED { ISSUED_TABLE } else { IMPORTED_TABLE }, NETWORK, &resource);
        rows.push((*path, resource));
    }
    let b = setup.start().await;
    assert!(b.process.log().contains("talos migrate adopt --from-database"), "{}", b.process.log());

    let dry = adopt(&setup, &["--dry-run"]).await.expect(0);
    assert_eq!((dry.field("WOULD ADOPT"), dry.field("UNCHANGED")), ("8", "0"), "{dry:?}");
    assert_eq!(judgement(&b, &keys[0].1).await, "VERIFICATION_ERROR_NOT_FOUND");
    let ran = adopt(&setup, &[]).await.expect(0);
    assert_eq!(counted(&ran), ["8", "0", "0"], "{ran:?}");
    assert!(!ran.stderr.contains("--network"), "{}", ran.stderr);
    for (path, row) in &rows {
        let adopted = b.admin.get(&format!("{path}/{}", row.text("/key_id"))).await.expect(200).json();
        for field in FIELDS {
            assert_eq!(adopted.get(field), row.get(field), "{field} of {row}");
        }
    }
    for (_, key) in &keys {
        let expected = judgement(&a, key).await;
        until("both judge alike", async || (judgement(&b, key).await == expected).then_some(())).await;
    }
    until("the problem is gone", async || {
        let status = b.metrics.get("/status").await.expect(200).json();
        (!status.at("/problems").to_string().contains("Ory Talos")).then_some(())
    })
    .await;
    assert_eq!(counted(&adopt(&setup, &[]).await.expect(0)), ["0", "8", "0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_networks_are_adopted_one_at_a_time() {
    let setup = setup().await;
    create_small_table(&setup, ISSUED_TABLE);
    insert_small(&setup, ISSUED_TABLE, NETWORK, 0..2);
    insert_small(&setup, ISSUED_TABLE, OTHER_NETWORK, 1..4);
    let refused = adopt(&setup, &[]).await.expect(64);
    for part in [NETWORK, OTHER_NETWORK, "--network"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    let unknown = adopt(&setup, &["--network", "6ba7b810-9dad-41d1-80b4-00c04fd430c8"]).await.expect(64);
    assert!(unknown.stderr.contains(OTHER_NETWORK), "{}", unknown.stderr);
    assert_eq!(setup.number("SELECT count(*) FROM api_keys").await, 0);

    for (network, adopted) in [(OTHER_NETWORK, 3), (NETWORK, 2)] {
        let ran = adopt(&setup, &["--network", network]).await.expect(0);
        assert_eq!(ran.field("ADOPTED"), adopted.to_string());
        let count = format!("SELECT count(*) FROM api_keys WHERE network_id = '{network}'");
        assert_eq!(setup.number(&count).await, adopted);
    }
}

/// Whether such an imported key is valid depends on the network over which its id was made.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_network_becomes_that_without_tenants() {
    let setup = setup().await;
    create_tables(&setup);
    let key = json!({
        "key_id": "00".repeat(32), "name": "n", "actor_id": "a", "scopes": [], "status": "KEY_STATUS_ACTIVE",
        "create_time": "2026-01-01T00:00:00Z", "update_time": "2026-01-01T00:00:00Z",
    });
    insert(&setup, IMPORTED_TABLE, OTHER_NETWORK, &key);
    let ran = adopt(&setup, &[]).await.expect(0);
    assert_eq!(counted(&ran), ["1", "0", "0"]);
    assert!(ran.stderr.contains(&format!("--network {OTHER_NETWORK}")), "{}", ran.stderr);
    let count = format!("SELECT count(*) FROM api_keys WHERE network_id = '{NETWORK}'");
    assert_eq!(setup.number(&count).await, 1);
    let ran = adopt(&setup, &["--network", OTHER_NETWORK]).await.expect(0);
    assert!(ran.field("ADOPTED") == "1" && !ran.stderr.contains("--network"), "{ran:?}");
}

/// Three pages from another database; a row that is invalid keeps all of them out.
#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_keeps_all_out() {
    let (ory, setup) = (setup().await, setup().await);
    create_small_table(&ory, ISSUED_TABLE);
    insert_small(&ory, ISSUED_TABLE, NETWORK, 0..2_001);
    let set =
        |what: &str| ory.sql(&format!("UPDATE {ISSUED_TABLE} SET {what} WHERE key_id LIKE '%000002000'"));
    for (what, problem) in [
        ("status = 7", "issued_api_keys, key 00000000-0000-4000-8000-000000002000: status: must be 1"),
        ("status = 3", "000002000: status: is KEY_STATUS_EXPIRED"),
        ("status = 1, actor_id = NULL", "000002000: actor_id: "),
        ("actor_id = 'a', scopes = '{}'", "000002000: scopes: "),
    ] {
        set(what);
        let ran = adopt(&setup, &[ory.dsn()]).await.expect(64);
        assert!(ran.stderr.contains(problem), "{problem}: {}", ran.stderr);
        assert_eq!(setup.number("SELECT count(*) FROM api_keys").await, 0);
    }
    set("scopes = '[\"a\"]'");
    let ran = adopt(&setup, &[ory.dsn(), "--format", "json"]).await.json();
    assert_eq!((ran.at("/adopted"), ran.at("/unchanged")), (&json!(2_001), &json!(0)));
    assert_eq!(ory.number("SELECT count(*) FROM api_keys").await, 0, "the other database keeps its keys");
}

/// An older release has another name for the table, which the new database must not have.
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_an_older_release_are_read() {
    let (ory, setup) = (Setup::bare().sqlite(), Setup::new().sqlite());
    std::fs::write(ory.path("talos.db"), "").must("a file");
    let none = adopt(&setup, &[ory.dsn()]).await.expect(64);
    assert!(none.stderr.contains("no tables of Ory Talos"), "{}", none.stderr);
    ory.sql("CREATE TABLE api_keys (nid TEXT, key_id TEXT, name TEXT, actor_id TEXT, scopes TEXT, status INTEGER)");
    let lacking = adopt(&setup, &[ory.dsn()]).await.expect(64);
    assert!(lacking.stderr.contains("the table api_keys has no column expires_at"), "{}", lacking.stderr);
    for column in ["expires_at", "created_at"] {
        ory.sql(&format!("ALTER TABLE api_keys ADD COLUMN {column} DATETIME"));
    }
    insert_small(&ory, "api_keys", NETWORK, 0..1);
    ory.sql("UPDATE api_keys SET expires_at = '2026-02-01 02:00:00 +0200 CEST'");
    assert_eq!(counted(&adopt(&setup, &[ory.dsn()]).await.expect(0)), ["1", "0", "0"]);
    let expires_at = "SELECT count(*) FROM api_keys WHERE expires_at = 1769904000000000";
    assert_eq!(setup.number(expires_at).await, 1);

    let gone = adopt(&setup, &["sqlite://nonesuch.db"]).await.expect(1);
    assert!(gone.stderr.contains("--from-database: there is no file"), "{}", gone.stderr);
    let both = Ran::from(setup.run(&["migrate", "adopt", "keys.json", "--from-database"]).await).expect(64);
    assert!(both.stderr.contains("cannot be used with"), "{}", both.stderr);
    adopt(&setup, &["oracle://s3cret"]).await.expect(64);
}

/// A list has keys of which only a hash is known, too, and its ids don't tell.
#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_hash_is_verified_on_first_use() {
    let (a, b) = (Talos::start().await, Talos::start().await);
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"; // of "secret"
    let body = json!({ "hash": { "algorithm": "sha256", "value": hash }, "name": "n", "actor_id": "bob" });
    let pending = a.admin.post(IMPORTED, &body).await.expect(201).json().text("/key_id").to_owned();
    let list = a.admin.get(IMPORTED).await.expect(200).text();
    std::fs::write(b.setup.path("imported.json"), format!("\u{feff}{list}")).must("a list");
    let adopt = async || Ran::from(b.setup.run(&["migrate", "adopt", "imported.json"]).await).expect(0);
    assert_eq!(counted(&adopt().await), ["1", "0", "0"]);
    until("the key is known", async || b.check(Check::bearer("secret")).await.passes().then_some(())).await;
    until("the key has its new id", async || {
        let keys = b.admin.get(IMPORTED).await.expect(200).json();
        (keys.text("/imported_api_keys/0/key_id") != pending).then_some(())
    })
    .await;
    assert_eq!(counted(&adopt().await), ["0", "1", "0"]);
}
