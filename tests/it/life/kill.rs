//! SIGKILL amid changes: no acknowledged change is lost, none is there twice, and no key is half
//! rotated.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::rig::http::{Base, Call, Reply, Version};
use crate::rig::random::Random;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{ISSUED, Setup, Talos};

/// Number of kills; `TALOS_TEST_KILLS` overrides it.
const ROUNDS: usize = 3;
const WRITERS: usize = 8;

/// A key and its successors, as far as they were acknowledged.
struct Line {
    /// The request for the first of them. All have its actor, which no other line has.
    request: Value,
    /// Id and secret of each.
    keys: Vec<(String, String)>,
    revoked: bool,
    /// The last change, if no answer to it came.
    open: Option<Change>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Issue,
    Rotate,
    Revoke,
}

type Lines = Arc<Mutex<Vec<Line>>>;

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_double_and_halve_no_change() {
    let mut random = Random::seeded("kill -9 under load");
    let setup = Setup::new();
    let rounds =
        std::env::var("TALOS_TEST_KILLS").map_or(ROUNDS, |text| text.parse().must("TALOS_TEST_KILLS"));
    let mut secrets = Vec::new();
    for round in 1..=rounds {
        let mut talos = setup.start().await;
        let enough = random.between(15, 60);
        let lines = Lines::default();
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let name = format!("round {round}, writer {writer}");
            writers.spawn(write_until_it_dies(talos.admin, name, random.split(), Arc::clone(&lines)));
        }
        until("enough is written", async || (lines.lock().must("the lines").len() >= enough).then_some(()))
            .await;
        talos.process.kill();
        while let Some(writer) = writers.join_next().await {
            writer.must("a writer");
        }

        let talos = setup.start().await;
        let lines = std::mem::take(&mut *lines.lock().must("the lines"));
        let open = |change| lines.iter().filter(|line| line.open == Some(change)).count();
        println!(
            "round {round}: {} lines; {} issues, {} rotations and {} revocations without an answer",
            lines.len(),
            open(Change::Issue),
            open(Change::Rotate),
            open(Change::Revoke),
        );
        for line in &lines {
            secrets.extend(check(&talos, line).await);
        }
        talos.stop().await;
    }
    let talos = setup.start().await;
    for secret in &secrets {
        assert_eq!(talos.verify(secret).await["is_valid"], true, "lost in a later round");
    }
    println!("{} keys that must be valid are", secrets.len());
}

/// Issues keys, rotates and revokes some of them, and records what was acknowledged.
async fn write_until_it_dies(admin: Base, name: String, mut random: Random, lines: Lines) {
    for number in 0.. {
        let actor = format!("{name}, line {number}");
        let request =
            json!({ "name": "loaded", "actor_id": actor, "request_id": random.text("0123456789abcdef", 32) });
        let mut line = Line { request, keys: Vec::new(), revoked: false, open: None };
        let goes_on = write_line(admin, &mut line, &mut random).await;
        lines.lock().must("the lines").push(line);
        if !goes_on {
            return;
        }
    }
}

/// Writes one line; false when an answer didn't come.
async fn write_line(admin: Base, line: &mut Line, random: &mut Random) -> bool {
    line.open = Some(Change::Issue);
    let Some(issued) = answer(admin, ISSUED, &line.request).await else {
        return false;
    };
    line.open = None;
    line.keys.push(id_and_secret(&issued.expect(201).json()));
    for _ in 0..random.below(3) {
        let (id, _) = line.keys.last().must("a key");
        line.open = Some(Change::Rotate);
        let Some(rotated) = answer(admin, &format!("{ISSUED}/{id}:rotate"), &json!({})).await else {
            return false;
        };
        line.open = None;
        line.keys.push(id_and_secret(&rotated.expect(201).json()));
    }
    if random.below(4) == 0 {
        let (id, _) = line.keys.last().must("a key");
        line.open = Some(Change::Revoke);
        let reason = json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" });
        let Some(revoked) = answer(admin, &format!("{ISSUED}/{id}:revoke"), &reason).await else {
            return false;
        };
        revoked.expect(204);
        (line.open, line.revoked) = (None, true);
    }
    true
}

/// None when the process died before it had answered.
async fn answer(admin: Base, path: &str, body: &Value) -> Option<Reply> {
    admin.try_send(Version::Http1, Call::post(path).json(body)).await.ok()
}

fn id_and_secret(document: &Value) -> (String, String) {
    (document.text("/issued_api_key/key_id").to_owned(), document.text("/secret").to_owned())
}

/// Compares a line with what is in the database; returns the secret that must stay valid, if there
/// is one.
async fn check(talos: &Talos, line: &Line) -> Option<String> {
    let before = rows(talos, line).await;
    let count = |status: &str| before.iter().filter(|(_, found)| found == status).count();
    let active = count("KEY_STATUS_ACTIVE");
    let state = format!("{:?}, {:?}, revoked: {}, {before:?}", line.request, line.open, line.revoked);
    assert_eq!(active + count("KEY_STATUS_REVOKED"), before.len(), "{state}");

    // Acknowledged changes are there; each other change is there as a whole, or not at all.
    let (known, most_active) = (line.keys.len(), usize::from(!line.revoked));
    match line.open {
        None => assert_eq!((before.len(), active), (known, most_active), "{state}"),
        Some(Change::Issue) => assert!(before.len() == active && active <= 1, "{state}"),
        Some(Change::Rotate) => {
            assert!(active == 1 && (known..=known + 1).contains(&before.len()), "{state}");
        }
        Some(Change::Revoke) => assert!(active <= 1 && before.len() == known, "{state}"),
    }
    for (id, secret) in &line.keys {
        let is_active = before.contains(&(id.clone(), "KEY_STATUS_ACTIVE".to_owned()));
        assert_eq!(talos.verify(secret).await["is_valid"], is_active, "{id}, {state}");
    }

    // The request, repeated, makes a key if it hadn't, and no second one.
    let again = talos.admin.post(ISSUED, &line.request).await.expect(201).json();
    let id = again.text("/issued_api_key/key_id");
    let after = rows(talos, line).await;
    match before.is_empty() {
        true => assert_eq!(after.len(), 1, "{state}"),
        false => {
            assert_eq!(after, before, "{state}");
            assert!(before.iter().any(|(row, _)| row == id), "{id}, {state}");
            assert!(line.keys.first().is_none_or(|(first, _)| first == id), "{id}, {state}");
        }
    }
    let (id, secret) = line.keys.last()?;
    let stays = before.contains(&(id.clone(), "KEY_STATUS_ACTIVE".to_owned()));
    stays.then(|| secret.clone())
}

/// Id and status of all keys of a line.
async fn rows(talos: &Talos, line: &Line) -> Vec<(String, String)> {
    let actor = line.request.text("/actor_id").replace(' ', "%20").replace(',', "%2C");
    let page = talos.admin.get(&format!("{ISSUED}?page_size=100&filter=actor_id%3D%22{actor}%22")).await;
    let page = page.expect(200).json();
    let keys = page.at("/issued_api_keys").as_array().must("a list of keys").clone();
    let mut rows: Vec<_> =
        keys.iter().map(|key| (key.text("/key_id").to_owned(), key.text("/status").to_owned())).collect();
    rows.sort();
    rows
}
