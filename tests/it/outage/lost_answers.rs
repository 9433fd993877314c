//! A response that is lost after the change was made: on its way from the database, as the answer
//! to COMMIT, or on its way to the client. A retry does no harm and gets the right answer: no key
//! without an owner, none twice, and the same secret again.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::rig::database::{self, Server};
use crate::rig::http::{Base, Call, Reply, Version};
use crate::rig::proxy::{Fault, Proxy};
use crate::rig::support::{Json, number_from, until};
use crate::rig::talos::{DERIVE, IMPORTED, ISSUED, SELF_REVOKE, Setup, Talos};

/// Number of lost answers of each kind; `TALOS_TEST_LOST_ANSWERS` overrides it.
const ROUNDS: usize = 3;

/// The actor of all keys here.
const ACTOR: &str = "/v2alpha1/admin/actors/a";

/// A process, and the place where answers get lost.
struct Lossy {
    talos: Talos,
    /// The admin plane as clients see it.
    admin: Base,
    proxy: Proxy,
    fault: Fault,
    /// Secret of each key whose secret a client has, by its id.
    owned: BTreeMap<String, String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_commit_is_lost() {
    needs!(Postgres);
    let dsn = database::server().unwrap_or(Server::Postgres).new_database();
    let (proxy, proxied) = database::behind_proxy(&database::without_tls(&dsn)).await;
    let talos = Setup::new().set("TALOS_DB_DSN", &proxied).start().await;
    let admin = talos.admin;
    Lossy { talos, admin, proxy, fault: Fault::LoseCommits, owned: BTreeMap::new() }.run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_the_client_is_lost() {
    let talos = Talos::start().await;
    let proxy = Proxy::start(talos.admin.0.port()).await;
    let admin = Base::local(proxy.port);
    Lossy { talos, admin, proxy, fault: Fault::LoseAnswers, owned: BTreeMap::new() }.run().await;
}

impl Lossy {
    async fn run(mut self) {
        let rounds = number_from("TALOS_TEST_LOST_ANSWERS", ROUNDS);
        for round in 0..rounds {
            let issued = self.issue(round).await;
            let rotated = self.rotate(round, &issued).await;
            let rescued = self.rotate_without_id(&rotated).await;
            self.update(round, &rescued).await;
            self.change_states(round, &rescued).await;
            self.finish(round, &issued).await;
            self.revoke(round, &rescued).await;
            self.import(round).await;
            if (round + 1) % 100 == 0 {
                println!("{} of {rounds} rounds", round + 1);
            }
        }
        self.every_key_has_an_owner(rounds).await;
    }

    /// Sends a request whose answer is lost, and the same request again.
    async fn lose(&self, call: Call) -> Reply {
        self.proxy.set(self.fault);
        let lost = self.admin.try_send(Version::Http1, call.clone()).await;
        // The database's answer is lost: Talos can't tell. Its own is lost: nobody tells.
        match (self.fault, lost) {
            (Fault::LoseCommits, Ok(reply)) => drop(reply.expect(503)),
            (Fault::LoseAnswers, Err(_)) => {}
            (fault, other) => panic!("{fault:?}: {other:?}"),
        }
        self.again(call).await
    }

    /// Sends a request that is answered.
    async fn again(&self, call: Call) -> Reply {
        self.proxy.set(Fault::Pass);
        until("it is answered", async || {
            let reply = self.admin.try_send(Version::Http1, call.clone()).await.ok()?;
            (reply.status != 503).then_some(reply)
        })
        .await
    }

    async fn post(&self, path: &str, body: &Value) -> Reply {
        self.again(Call::post(path).json(body)).await
    }

    /// Records the secret of a key, which must be the same each time.
    fn own(&mut self, answer: &Value) -> String {
        let (id, secret) = (answer.text("/issued_api_key/key_id"), answer.text("/secret"));
        let known = self.owned.entry(id.to_owned()).or_insert_with(|| secret.to_owned());
        assert_eq!(known, secret, "another secret of {id}");
        id.to_owned()
    }

    async fn is_valid(&self, secret: &str) -> bool {
        let verified = self.post("/v2alpha1/admin/apiKeys:verify", &json!({ "credential": secret })).await;
        verified.expect(200).json()["is_valid"] == true
    }

    async fn issue(&mut self, round: usize) -> String {
        let body = json!({ "name": "n", "actor_id": "a", "request_id": format!("issue-{round}") });
        let first = self.lose(Call::post(ISSUED).json(&body)).await.expect(201).json();
        let id = self.own(&first);
        let second = self.lose(Call::post(ISSUED).json(&body)).await;
        assert_eq!(self.own(&second.expect(201).json()), id, "a second key");
        assert!(self.is_valid(&self.owned[&id]).await);
        let used = self.post(ISSUED, &body).await.expect(201).json();
        assert_eq!((used.text("/issued_api_key/key_id"), used.get("secret")), (&*id, None), "after its use");
        id
    }

    async fn rotate(&mut self, round: usize, old: &str) -> String {
        let path = format!("{ISSUED}/{old}:rotate");
        let grace = if round.is_multiple_of(2) { "0s" } else { "1h" };
        let body = json!({ "request_id": format!("rotate-{round}"), "grace_period": grace });
        let first = self.lose(Call::post(&path).json(&body)).await.expect(201).json();
        let id = self.own(&first);
        assert_eq!(first.text("/old_issued_api_key/key_id"), old);
        assert_eq!(self.post(&path, &body).await.expect(201).json(), first);
        assert!(self.is_valid(&self.owned[&id]).await);
        self.names_the_successor(&path, &body, &id).await;
        id
    }

    /// Rotates a key and loses the secret for good; the error names the key to rotate instead.
    async fn rotate_without_id(&mut self, old: &str) -> String {
        let path = format!("{ISSUED}/{old}:rotate");
        let error = self.lose(Call::post(&path).json(&json!({}))).await.expect(409).json();
        let unowned = error.text("/error/details/0/metadata/replaced_by").to_owned();
        let rescued = self.post(&format!("{ISSUED}/{unowned}:rotate"), &json!({})).await.expect(201).json();
        self.names_the_successor(&path, &json!({}), &unowned).await;
        self.own(&rescued)
    }

    async fn names_the_successor(&self, path: &str, body: &Value, successor: &str) {
        let error = self.post(path, body).await.expect(409).json();
        assert_eq!(error.text("/error/details/0/metadata/replaced_by"), successor);
    }

    async fn update(&self, round: usize, id: &str) {
        let body = json!({ "name": format!("name {round}") });
        let patch = Call::new("PATCH", &format!("{ISSUED}/{id}")).json(&body);
        let first = self.lose(patch.clone()).await.expect(200).json();
        assert_eq!(self.again(patch).await.expect(200).json(), first, "written again");
        assert_eq!(first.text("/name"), format!("name {round}"));
    }

    /// Suspends and resumes a key and its actor, and sets what the key may still spend.
    async fn change_states(&self, round: usize, id: &str) {
        let key = format!("{ISSUED}/{id}");
        for (path, is_valid) in [
            (format!("{key}:suspend"), false),
            (format!("{key}:resume"), true),
            (format!("{ACTOR}:suspend"), false),
            (format!("{ACTOR}:resume"), true),
        ] {
            self.lose(Call::post(&path).json(&json!({}))).await.expect(200);
            assert_eq!(self.is_valid(&self.owned[id]).await, is_valid, "{path}");
        }
        let credits = json!({ "credits": { "remaining": 5 + round } });
        self.lose(Call::new("PATCH", &key).json(&credits)).await.expect(200);
        let spend = "/v2alpha1/admin/apiKeys:verify?charge=true";
        self.post(spend, &json!({ "credential": self.owned[id] })).await.expect(200);
        let left = self.again(Call::get(&key)).await.expect(200).json();
        assert_eq!(left.at("/credits/remaining").to_string().trim_matches('"'), (4 + round).to_string());
    }

    /// Ends the grace period of a rotated key early, in every second round.
    async fn finish(&self, round: usize, old: &str) {
        if round.is_multiple_of(2) {
            return;
        }
        assert!(self.is_valid(&self.owned[old]).await, "in its grace period");
        self.lose(Call::post(&format!("{ISSUED}/{old}:finish")).json(&json!({}))).await.expect(200);
        assert!(!self.is_valid(&self.owned[old]).await);
    }

    async fn revoke(&self, round: usize, id: &str) {
        let secret = &self.owned[id];
        let derive = Call::post(DERIVE).json(&json!({ "credential": secret }));
        if self.fault == Fault::LoseAnswers {
            self.lose(derive).await.expect(200);
        }
        if round.is_multiple_of(2) {
            let body = json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" });
            self.lose(Call::post(&format!("{ISSUED}/{id}:revoke")).json(&body)).await.expect(204);
        } else {
            let call = Call::post(SELF_REVOKE).json(&json!({ "credential": secret }));
            self.lose(call).await.expect(200);
        }
        assert!(!self.is_valid(secret).await);
    }

    async fn import(&self, round: usize) {
        let import =
            |name: &str| json!({ "raw_key": format!("{name}-{round}"), "name": "n", "actor_id": "a" });
        let without_id = Call::post(IMPORTED).json(&import("single"));
        self.lose(without_id).await.expect_error(409, "API_KEY_EXISTS");
        let digest = hex::encode(Sha256::digest(format!("hashed-{round}")));
        let hash = json!({ "hash": { "value": format!("sha256:{digest}") }, "name": "n", "actor_id": "a" });
        self.lose(Call::post(IMPORTED).json(&hash)).await.expect_error(409, "API_KEY_EXISTS");
        assert!(self.is_valid(&format!("hashed-{round}")).await);
        let mut requests = [import("first"), import("second")];
        for (number, request) in requests.iter_mut().enumerate() {
            request["request_id"] = format!("import-{round}-{number}").into();
        }
        let batch = Call::post(&format!("{IMPORTED}:batchCreate")).json(&json!({ "requests": requests }));
        let first = self.lose(batch.clone()).await.expect(200).json();
        assert_eq!(first.at("/failure_count"), &json!(0), "{first:#}");
        assert_eq!(self.again(batch).await.expect(200).json(), first);
        let single = self.post(IMPORTED, &requests[0]).await.expect(201).json();
        assert_eq!(single, first["results"][0]["imported_api_key"]);
        let delete = Call::new("DELETE", &format!("{IMPORTED}/{}", single.text("/key_id")));
        self.lose(delete).await.expect_error(404, "API_KEY_NOT_FOUND");
    }

    /// Asserts that a client has the secret of each active key.
    async fn every_key_has_an_owner(&self, rounds: usize) {
        let (mut token, mut issued) = (String::new(), 0);
        loop {
            let page = self.talos.admin.get(&format!("{ISSUED}?page_size=1000&page_token={token}")).await;
            let page = page.expect(200).json();
            for key in page.at("/issued_api_keys").as_array().into_iter().flatten() {
                let id = key.text("/key_id");
                let is_owned = self.owned.contains_key(id);
                assert!(is_owned || key.text("/status") == "KEY_STATUS_REVOKED", "nobody has {key:#}");
                issued += 1;
            }
            token = page.text("/next_page_token").to_owned();
            if token.is_empty() {
                break;
            }
        }
        // Keys of each round: the issued one, two successors, and the one whose secret was lost.
        assert_eq!(issued, rounds * 4);
        assert_eq!(self.owned.len(), rounds * 3);
        println!("{issued} keys issued in {rounds} rounds, {} with an owner, none twice", self.owned.len());
    }
}
