//! `talos config check --connect`: tries what the server needs, and says what serving would say.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::{err, out};
use crate::rig::authority::Authority;
use crate::rig::database::{Server, new_postgres_over_tls};
use crate::rig::support::Must;
use crate::rig::talos::Setup;

const CONNECT: [&str; 3] = ["config", "check", "--connect"];

/// A setup with a free port for each listener.
fn setup() -> Setup {
    ["HTTP", "PUBLIC", "METRICS", "AUTHZ"]
        .into_iter()
        .fold(Setup::new(), |setup, plane| setup.set(&format!("TALOS_SERVE_{plane}_PORT"), "0"))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_gets_a_tick() {
    let setup = setup();
    assert!(setup.run(&["migrate", "up"]).await.status.success());
    let checked = setup.run(&CONNECT).await;
    let output = out(&checked);
    assert!(checked.status.success(), "{output}{}", err(&checked));
    for tick in [
        "✓ database: ",
        "✓ credentials.derived_tokens.jwt.signing_keys.urls[0]: read",
        "✓ serve.http: ",
        "✓ serve.public: ",
        "✓ serve.metrics: ",
        "✓ serve.authz: ",
    ] {
        assert!(output.lines().any(|line| line.starts_with(tick)), "{tick} in\n{output}");
    }
    assert!(output.contains(", schema ") && output.ends_with("ok\n") && !output.contains('✗'), "{output}");
    let only = setup.run(&["config", "check", "--connect", "--plane", "public"]).await;
    assert!(!out(&only).contains("serve.authz"), "{}", out(&only));
}

/// As libpq does it: a CA that is named is used, unless the mode forbids it.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_has_to_show_a_certificate_of_the_ca_that_is_named() {
    needs!(Postgres);
    let dsn = new_postgres_over_tls();
    let (url, trusted) = dsn.split_once("?sslmode=verify-full&sslrootcert=").must("a CA in the DSN");
    let setup = setup();
    let other = setup.path("other-ca.pem");
    std::fs::write(&other, Authority::new().pem()).must("writing an authority");
    let other = other.display().to_string();
    for (parameters, roots, is_trusted) in [
        (format!("sslmode=require&sslrootcert={trusted}"), "", true),
        (format!("sslmode=require&sslrootcert={other}"), "", false),
        (format!("sslrootcert={other}"), "", false),
        (format!("sslmode=prefer&sslrootcert={other}"), "", true),
        ("sslrootcert=system".to_owned(), trusted, true),
        ("sslrootcert=system".to_owned(), other.as_str(), false),
    ] {
        let setup = setup.clone().set("TALOS_DB_DSN", &format!("{url}?{parameters}"));
        let checked = match roots {
            "" => setup.run(&CONNECT).await,
            file => setup.set("SSL_CERT_FILE", file).run(&CONNECT).await,
        };
        let output = out(&checked);
        let line = output.lines().find(|line| line.contains(" database: ")).must(&output);
        // The database is empty: whoever gets that far has been trusted.
        assert_eq!(line.contains("talos migrate up"), is_trusted, "{parameters} {roots}: {line}");
        assert_eq!(line.contains("certificate"), !is_trusted, "{parameters} {roots}: {line}");
    }
}

/// The migrations' own database is tried, too.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_of_migrations_is_tried() {
    let setup = setup();
    assert!(setup.run(&["migrate", "up"]).await.status.success());
    let own = setup.dsn().to_owned();
    let checked = setup.clone().set("TALOS_MIGRATE_DSN", &own).run(&CONNECT).await;
    assert!(out(&checked).lines().any(|line| line.starts_with("✓ migrate.dsn: ")), "{}", out(&checked));
    // One that can't be used is a mistake, but none that keeps a server from serving.
    let wrong = setup.clone().set("TALOS_MIGRATE_DSN", "oracle://h/d");
    let checked = wrong.run(&["config", "check"]).await;
    assert!(checked.status.code() == Some(64) && err(&checked).contains("migrate.dsn: must begin with"));
    Setup::new().set("TALOS_MIGRATE_DSN", "oracle://h/d").start().await.stop().await;
    let nobody = "postgres://nobody@127.0.0.1:1/nothing";
    let checked = setup.set("TALOS_MIGRATE_DSN", nobody).run(&CONNECT).await;
    assert!(out(&checked).lines().any(|line| line.starts_with("✗ migrate.dsn: ")), "{}", out(&checked));
}

/// A file of a network that this machine doesn't have is no mistake of the file that names it.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_networks_may_be_missing_where_files_are_not_looked_at() {
    let network =
        "[{hostname: a.example, id: 6ba7b810-9dad-41d1-80b4-00c04fd430c8, config_path: /none.yaml}]";
    let setup =
        Setup::new().set("TALOS_MULTITENANCY_ENABLED", "true").set("TALOS_MULTITENANCY_NETWORKS", network);
    let checked = setup.run(&["config", "check"]).await;
    assert_eq!(checked.status.code(), Some(64), "{}", err(&checked));
    let checked = setup.run(&["config", "check", "--no-files"]).await;
    let said = format!("{}{}", out(&checked), err(&checked));
    assert!(checked.status.success() && said.contains("multitenancy.networks[0].config_path"), "{said}");
    // Nor do migrations need it.
    assert!(setup.run(&["migrate", "up"]).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_database_says_comes_with_a_cure() {
    needs!(Postgres);
    let server = Server::Postgres.new_database();
    let (server, _) = server.rsplit_once('/').must("a database in the DSN");
    let address = server.rsplit_once('@').must("a user in the DSN").1;
    for (dsn, words) in [
        (format!("{server}/nonesuch"), "does not exist (3D000): create it, or correct its name"),
        (format!("postgres://nonesuch@{address}/postgres"), "(28000): correct user and password"),
        (format!("{server}/postgres?search_path=nonesuch"), "no schema that search_path names"),
        (format!("{server}/postgres"), "run `talos migrate up`"),
        (format!("mysql://root@{address}/talos?timeout=1s"), "no answer within 1s"),
    ] {
        let checked = setup().set("TALOS_DB_DSN", &dsn).run(&CONNECT).await;
        let output = out(&checked);
        let line = output.lines().find(|line| line.starts_with("✗ database: ")).must(&output);
        assert!(line.contains(words), "{dsn}: {line}");
    }
    let wrong = setup().set("TALOS_CACHE_TYPE", "redis").set("TALOS_CACHE_REDIS_ADDRS", address);
    let output = out(&wrong.run(&CONNECT).await);
    let line = output.lines().find(|line| line.starts_with("✗ redis: ")).must(&output);
    assert!(line.contains("check cache.redis.addrs") && line.matches(address).count() == 1, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_servers_get_a_cross_and_serving_says_the_same() {
    let taken = TcpListener::bind("127.0.0.1:0").must("taking a port");
    let port = taken.local_addr().must("the taken address").port().to_string();
    let cases = [
        (setup().set("TALOS_SERVE_AUTHZ_PORT", &port), "✗ serve.authz: ", true),
        (setup().set("TALOS_DB_DSN", "postgres://u:hunter2@127.0.0.1:9/d"), "✗ database: ", true),
        (
            setup().set("TALOS_CACHE_TYPE", "redis").set("TALOS_CACHE_REDIS_ADDRS", "127.0.0.1:9"),
            "✗ redis: 127.0.0.1:9: ",
            false,
        ),
    ];
    for (setup, cross, stops) in cases {
        let checked = setup.run(&CONNECT).await;
        let output = out(&checked);
        assert_eq!(checked.status.code(), Some(1), "{output}{}", err(&checked));
        let line = output.lines().find(|line| line.starts_with(cross)).must(&output).to_owned();
        assert!(!output.contains("hunter2") && !output.contains("ok\n"), "{output}");
        let json = setup.run(&[&CONNECT[..], &["--format", "json"]].concat()).await;
        let json: Value = serde_json::from_str(&out(&json)).must("JSON");
        let checks = json["checks"].as_array().must("checks");
        assert_eq!(checks.iter().filter(|check| check["ok"] == false).count(), 1, "{json:#}");
        if stops {
            let served = setup.run(&["serve"]).await;
            assert_eq!(served.status.code(), Some(1), "{}", err(&served));
            let reason = line.trim_start_matches("✗ ").trim_start_matches("database: ");
            assert!(err(&served).contains(reason), "{line}\nbut serve says\n{}", err(&served));
        }
    }
}

/// The socket of another process stops a start; its audit log doesn't, as a file beside it is used.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_holds_is_told() {
    let first = Setup::new();
    let held = |setup: Setup| {
        let path = |name: &str| first.path(name).display().to_string();
        setup
            .set("TALOS_SERVE_HTTP_SOCKET", &path("admin.sock"))
            .set("TALOS_AUDIT_FILE", &path("audit.jsonl"))
    };
    let _running = held(first.clone()).start().await;
    let second = held(setup());
    assert!(second.run(&["migrate", "up"]).await.status.success());
    let checked = second.run(&CONNECT).await;
    let output = out(&checked);
    assert_eq!(checked.status.code(), Some(1), "{output}{}", err(&checked));
    assert!(output.contains("✓ audit.file: ") && output.contains("writes a file beside it"), "{output}");
    let line = output.lines().find(|line| line.starts_with("✗ ")).must(&output);
    assert!(line.contains("serve.http.socket") && line.contains("set another path"), "{line}");
    let refused = second.refused().await;
    assert!(refused.contains("admin.sock") && refused.contains("in use"), "{refused}");
    let free = second.unset("TALOS_SERVE_HTTP_SOCKET");
    assert!(free.run(&CONNECT).await.status.success());
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).must("setting permissions");
}

/// A directory or a file that the start couldn't write is named before anything is opened.
#[tokio::test(flavor = "multi_thread")]
async fn what_this_user_cannot_write_is_refused() {
    let setup = setup().sqlite().respects_permissions();
    let directory = setup.path("read-only");
    std::fs::create_dir(&directory).must("a directory");
    std::fs::write(directory.join("old.sqlite"), "").must("a database");
    set_mode(&directory.join("old.sqlite"), 0o400);
    set_mode(&directory, 0o500);
    let (ro, new) = (directory.display(), setup.path("new").display().to_string());
    let user = "can't be written by this user (uid ";
    for (variable, value, problem) in [
        ("SERVE_AUTHZ_SOCKET", format!("{ro}/s.sock"), format!("serve.authz.socket: {ro} {user}")),
        ("SERVE_HTTP_SOCKET", format!("{ro}/s.sock"), format!("serve.http.socket: {ro} {user}")),
        ("SERVE_AUTHZ_SOCKET", format!("{new}/"), format!("serve.authz.socket: {new}/ ends with /; name")),
        ("DB_DSN", format!("sqlite://{ro}/new.sqlite"), format!("db.dsn: {ro} {user}")),
        ("DB_DSN", format!("sqlite://{ro}/old.sqlite"), format!("db.dsn: {ro}/old.sqlite {user}")),
        ("DB_DSN", format!("sqlite://{new}/"), format!("db.dsn: {new}/ ends with /: name a file")),
    ] {
        let setup = setup.clone().set(&format!("TALOS_{variable}"), &value);
        for arguments in [&["config", "check"][..], &CONNECT, &["serve"]] {
            let output = setup.run(arguments).await;
            let said = err(&output);
            assert_eq!(output.status.code(), Some(64), "{value}, {arguments:?}: {}{said}", out(&output));
            assert!(said.contains(&problem), "{value}, {arguments:?}: {said}");
        }
    }
    let migrated = setup.clone().set("TALOS_DB_DSN", &format!("sqlite://{ro}/new.sqlite"));
    let migrated = migrated.run(&["migrate", "up"]).await;
    let said = err(&migrated);
    assert!(!migrated.status.success() && said.contains(&format!("{ro} {user}")), "{said}");
    set_mode(&directory, 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_serving_would_fail_and_so_does_this() {
    let setup = setup().unset("TALOS_SECRETS_HMAC_CURRENT");
    assert!(setup.run(&["config", "check"]).await.status.success());
    let checked = setup.run(&CONNECT).await;
    assert_eq!(checked.status.code(), Some(64));
    assert!(err(&checked).contains("secrets.hmac.current: is unset"), "{}", err(&checked));
}
