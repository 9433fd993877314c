//! TLS to Redis: a server with a wrong certificate gets no secret, and the service works without
//! Redis.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::authority::Authority;
use crate::rig::check::Check;
use crate::rig::redis::{Redis, patient};
use crate::rig::support::{Must, until};
use crate::rig::talos::{Setup, Talos};

const NAME: &str = "redis.talos.test";

async fn uses_redis(talos: &Talos) -> bool {
    talos.process.log().contains("connected to Redis")
}

async fn goes_on(talos: &Talos) {
    let key = talos.issue(json!({})).await;
    talos.check(Check::bearer(&key.secret)).await.allowed();
    talos.revoke(&key).await;
    talos.check(Check::bearer(&key.secret)).await.denied(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_certificate_is_trusted() {
    needs!(Redis);
    let authority = Authority::new();
    let redis = Redis::start_tls(authority.issue(NAME, 2100), &authority).await;
    let setup = patient(redis.used_over_tls(Setup::new(), &authority, NAME));
    let first = setup.start().await;
    until("connected", async || uses_redis(&first).await.then_some(())).await;
    let second = first.setup.start().await;
    until("connected", async || uses_redis(&second).await.then_some(())).await;
    let key = first.issue(json!({})).await;
    first.check(Check::bearer(&key.secret)).await.allowed();
    until("the entry arrives", async || {
        // A process that knows nothing yet, as one that has read the row itself proves nothing.
        let third = first.setup.start().await;
        until("connected", async || uses_redis(&third).await.then_some(())).await;
        third.check(Check::bearer(&key.secret)).await.allowed();
        (third.metric("talos_store_key_reads_total").await == 0.0).then_some(())
    })
    .await;
    goes_on(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_servers_get_no_secret() {
    needs!(Redis);
    let (authority, other) = (Authority::new(), Authority::new());
    let wrong_name = Redis::start_tls(authority.issue("other.talos.test", 2100), &authority).await;
    let wrong_authority = Redis::start_tls(other.issue(NAME, 2100), &other).await;
    let expired = Redis::start_tls(authority.issue(NAME, 2021), &authority).await;
    let plaintext = Redis::start().await;
    for (what, redis) in [
        ("wrong name", &wrong_name),
        ("wrong authority", &wrong_authority),
        ("expired", &expired),
        ("plaintext", &plaintext),
    ] {
        let talos = redis.used_over_tls(Setup::new(), &authority, NAME).start().await;
        goes_on(&talos).await;
        until("a second attempt to connect", async || {
            (talos.metric("talos_redis_connection_failures_total").await >= 2.0).then_some(())
        })
        .await;
        assert_eq!(talos.process.log().matches("Redis can't be reached").count(), 1, "{what}");
        assert!(!uses_redis(&talos).await, "{what}: {}", talos.process.log());
        goes_on(&talos).await;
    }
    // None of these servers got a command of ours.
    for redis in [&wrong_name, &wrong_authority, &expired, &plaintext] {
        assert_eq!(redis.entries().await, []);
        let heard = redis.command(&["INFO", "commandstats"]).await;
        for command in ["get", "mget", "set", "publish", "subscribe", "auth", "ping"] {
            assert!(!heard.contains(&format!("cmdstat_{command}:")), "{heard}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_to_another_machine_stops_the_start() {
    let setup =
        Setup::new().set("TALOS_CACHE_TYPE", "redis").set("TALOS_CACHE_REDIS_ADDRS", "192.0.2.1:6379");
    let output = setup.clone().refused().await;
    assert!(output.contains("cache.redis.tls.enabled"), "{output}");
    let talos = setup.set("TALOS_CACHE_REDIS_TLS_ENABLED", "false").start().await;
    goes_on(&talos).await;
}

/// A server that speaks no TLS and writes down what it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_plaintext_server_gets_a_handshake_and_nothing_else() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.must("binding");
    let port = listener.local_addr().must("an address").port();
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::<Vec<u8>>::new()));
    let writes_down = std::sync::Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let writes_down = std::sync::Arc::clone(&writes_down);
            tokio::spawn(async move {
                let mut said = vec![];
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    said.extend_from_slice(&buffer[..count]);
                    // Answers of Redis to lines that aren't its protocol, and to a command.
                    let _ = stream.write_all(b"-ERR unknown command\r\n+OK\r\n").await;
                }
                writes_down.lock().must("the list").push(said);
            });
        }
    });
    let authority = Authority::new();
    let setup = Setup::new();
    let ca = setup.path("redis-ca.pem");
    std::fs::write(&ca, authority.pem()).must("writing the authority");
    let talos = setup
        .set("TALOS_CACHE_TYPE", "redis")
        .set("TALOS_CACHE_REDIS_ADDRS", &format!("127.0.0.1:{port}"))
        .set("TALOS_CACHE_REDIS_USERNAME", "talos")
        .set("TALOS_CACHE_REDIS_PASSWORD", "a-password-for-redis")
        .set("TALOS_CACHE_REDIS_TLS_ENABLED", "true")
        .set("TALOS_CACHE_REDIS_TLS_CA_FILE", &ca.display().to_string())
        .start()
        .await;
    goes_on(&talos).await;
    until("it has tried again", async || (heard.lock().must("the list").len() >= 3).then_some(())).await;
    goes_on(&talos).await;
    for said in heard.lock().must("the list").iter() {
        only_handshake(said);
    }
}

/// Records of TLS, each a handshake or an alert: no application data.
#[track_caller]
fn only_handshake(mut said: &[u8]) {
    const HANDSHAKE: u8 = 22;
    const ALERT: u8 = 21;
    while let [kind, 3, _, high, low, rest @ ..] = said {
        assert!(matches!(*kind, HANDSHAKE | ALERT), "a record of kind {kind} was sent");
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        said = rest.get(length..).unwrap_or_default();
    }
    assert!(said.is_empty(), "no TLS: {said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_to_know_who_asks_is_shown_a_certificate() {
    needs!(Redis);
    let authority = Authority::new();
    let options = ["--tls-auth-clients", "yes"].map(str::to_owned);
    let redis = Redis::start_tls_with(authority.issue(NAME, 2100), &authority, &options).await;
    let setup = redis.used_over_tls(Setup::new(), &authority, NAME);
    let stranger = setup.start().await;
    until("it was sent away", async || {
        stranger.process.log().contains("Redis can't be reached").then_some(())
    })
    .await;
    assert!(!uses_redis(&stranger).await, "{}", stranger.process.log());
    goes_on(&stranger).await;

    let (certificate, key) = authority.issue("talos.client.test", 2100);
    let (certificate_file, key_file) = (setup.path("client.pem"), setup.path("client-key.pem"));
    std::fs::write(&certificate_file, certificate).must("writing a certificate");
    std::fs::write(&key_file, key).must("writing a key");
    // Each its own log.
    let log = setup.path("known.log").display().to_string();
    let known = setup
        .log_to(&log)
        .set("TALOS_CACHE_REDIS_TLS_CERT_FILE", &certificate_file.display().to_string())
        .set("TALOS_CACHE_REDIS_TLS_KEY_FILE", &key_file.display().to_string())
        .start()
        .await;
    until("connected", async || uses_redis(&known).await.then_some(())).await;
    let key = known.issue(json!({})).await;
    known.check(Check::bearer(&key.secret)).await.allowed();
    redis.until_entries(1).await;
    goes_on(&known).await;
}
