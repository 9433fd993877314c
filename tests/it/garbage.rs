//! Random bytes as credentials and as CheckRequests: the process lives, and no request passes.

use prost::Message;
use serde_json::json;

use crate::rig::check::Check;
use crate::rig::grpc::{Answer, Grpc};
use crate::rig::random::Random;
use crate::rig::support::Must;
use crate::rig::talos::{Setup, Talos};

const BASE58: &str = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const PRINTABLE: &str = "!#$%&'()*+,-./0123456789:;<=>?@ABCXYZ[]^_`abcxyz{|}~";
const UNICODE: &str = "aé例\u{202e}🗝\u{0}\u{feff}߷я";

const CONNECTIONS: usize = 4;
const AT_ONCE: usize = 8;

/// Returns the number of inputs of each kind; `TALOS_TEST_GARBAGE` overrides it.
fn count() -> usize {
    match std::env::var("TALOS_TEST_GARBAGE") {
        Ok(text) => text.parse().must("TALOS_TEST_GARBAGE is a number"),
        Err(_) => 20_000,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_look_issued_never_reach_the_store() {
    let mut random = Random::seeded("credentials that look issued");
    let talos = Talos::start().await;
    let real = talos.issue(json!({})).await.secret;
    let before = talos.metric("talos_store_key_reads_total").await;
    let real_too = real.clone();
    send(&talos, &mut random, count() / 2, move |random| {
        let credential = looks_issued(random, &real_too);
        with_credential(random, credential.into_bytes()).encode_to_vec()
    })
    .await;
    let after = talos.metric("talos_store_key_reads_total").await;
    assert_eq!(after, before, "garbage that looks issued read key rows");
    still_works(talos, &real).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_every_other_form_never_get_in() {
    let mut random = Random::seeded("credentials of every other form");
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let macaroon = json!({ "algorithm": "TOKEN_ALGORITHM_MACAROON" });
    let tokens = [talos.derive(&key, json!({})).await, talos.derive(&key, macaroon).await];
    let real = key.secret.clone();
    send(&talos, &mut random, count() - count() / 2, move |random| {
        let token = random.pick(&tokens);
        let credential = other_garbage(random, &real, token);
        with_credential(random, credential).encode_to_vec()
    })
    .await;
    still_works(talos, &key.secret).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mutated_requests_never_get_in() {
    let mut random = Random::seeded("mutated requests");
    let talos = Setup::new().start().await;
    let key = talos.issue(json!({})).await;
    let real = key.secret.clone();
    send(&talos, &mut random, count(), move |random| {
        // No context extensions: a mutation must not be able to write `talos.mode: off`.
        let credential =
            if random.below(2) == 0 { looks_issued(random, &real) } else { "never-imported".to_owned() };
        let mut bytes = with_credential(random, credential.into_bytes()).encode_to_vec();
        for _ in 0..random.between(1, 8) {
            mutate(random, &mut bytes);
        }
        bytes
    })
    .await;
    still_works(talos, &key.secret).await;
}

/// Sends `count` made messages over a few connections at once; each must be refused in some way.
async fn send<M>(talos: &Talos, random: &mut Random, count: usize, make: M)
where
    M: Fn(&mut Random) -> Vec<u8> + Clone + Send + 'static,
{
    let mut workers = tokio::task::JoinSet::new();
    let parts = CONNECTIONS * AT_ONCE;
    for connection in 0..CONNECTIONS {
        let grpc: Grpc = talos.grpc().await;
        for slot in 0..AT_ONCE {
            let share = count / parts + usize::from(connection * AT_ONCE + slot < count % parts);
            let (grpc, make, mut random) = (grpc.clone(), make.clone(), random.split());
            workers.spawn(async move {
                for _ in 0..share {
                    let message = make(&mut random);
                    let answer = grpc.check_bytes(message.clone()).await;
                    let answer = answer.must("the connection lives");
                    assert!(!passes(&answer), "let in: {}", String::from_utf8_lossy(&message));
                }
            });
        }
    }
    while let Some(done) = workers.join_next().await {
        done.must("a worker");
    }
}

fn passes(answer: &Answer) -> bool {
    answer.code == 0 && answer.verdict().must("a CheckResponse").passes()
}

/// Asserts that the process still runs and lets a good key pass.
async fn still_works(mut talos: Talos, secret: &str) {
    talos.check(Check::bearer(secret)).await.allowed();
    assert!(talos.process.ended().is_none(), "the process has ended");
    assert!(!talos.process.log().contains("panicked"), "something panicked:\n{}", talos.process.log());
}

/// A credential in one of the places for one, in one of the two forms of headers.
fn with_credential(
    random: &mut Random,
    credential: Vec<u8>,
) -> envoy_types::pb::envoy::service::auth::v3::CheckRequest {
    let bearer = [b"Bearer ", &credential[..]].concat();
    let is_text = std::str::from_utf8(&credential).is_ok();
    let mut ask = match random.below(4) {
        0 => Check::default().header("x-api-key", credential),
        1 => Check::default().header("Authorization", bearer),
        2 => Check::default().header("authorization", bearer).header("x-api-key", credential),
        _ => Check::default().header("authorization", bearer),
    };
    if random.below(4) == 0 {
        ask = ask.from("2001:db8::1").header("x-talos-actor-id", "mallory").header("cookie", "a=b");
    }
    if !is_text || random.below(2) == 0 {
        ask = ask.raw();
    }
    ask.build()
}

/// Makes a credential in the form of an issued key that is never valid: form and checksum alone
/// must refuse it.
fn looks_issued(random: &mut Random, real: &str) -> String {
    let prefix = *random.pick(&["ory_ak", "prod", "x", "a_b_c_d_e_f_g_h1", "ory_ak_v1"]);
    let (head, checksum) = real.rsplit_once('_').must("a checksum");
    match random.below(7) {
        0 => format!("{prefix}_v1_{}_{}", base58_text(random, 20, 120), base58_text(random, 10, 50)),
        1 => {
            let text = format!("{}:{}", random.between(1_700_000_000, 1_900_000_000), uuid(random));
            format!("{prefix}_v1_{}_{}", base58(text.as_bytes()), base58(&random.bytes(32)))
        }
        2 => format!("{head}_{}", base58(&random.bytes(32))),
        3 => format!("{head}_{}", &checksum[..random.between(10, checksum.len() - 1)]),
        4 => format!("{head}_{checksum}{}", base58_text(random, 1, 30)),
        5 => format!("{head}_1{checksum}"),
        _ => {
            // One letter of the identifier or the checksum is another one.
            let first = "ory_ak_v1_".len();
            let mut letters: Vec<char> = real.chars().collect();
            let at = random.between(first, letters.len() - 1);
            let other = random.pick(&BASE58.chars().collect::<Vec<_>>()).to_owned();
            letters[at] = match (letters[at], other) {
                ('_', _) => '_',
                (old, new) if old != new => new,
                ('2', _) => '3',
                _ => '2',
            };
            let changed: String = letters.into_iter().collect();
            if changed == real { format!("{real}2") } else { changed }
        }
    }
}

/// Anything else: never the real key, a real token or either with blanks around it.
fn other_garbage(random: &mut Random, real: &str, token: &str) -> Vec<u8> {
    loop {
        let credential = any_garbage(random, real, token);
        // Beside an empty line, Envoy joins the real one to this.
        let is_blank = |byte: &u8| *byte <= b' ' || *byte == b',';
        let start = credential.iter().position(|byte| !is_blank(byte)).unwrap_or(0);
        let end = credential.iter().rposition(|byte| !is_blank(byte)).map_or(0, |last| last + 1);
        let trimmed = &credential[start..end.max(start)];
        if trimmed != real.as_bytes() && trimmed != token.as_bytes() {
            return credential;
        }
    }
}

fn any_garbage(random: &mut Random, real: &str, token: &str) -> Vec<u8> {
    match random.below(12) {
        0 => {
            let length = random.below(300);
            random.bytes(length)
        }
        1 => printable(random, 0, 200).into_bytes(),
        2 => {
            let length = random.between(1, 60);
            random.text(UNICODE, length).into_bytes()
        }
        3 => real.as_bytes()[..random.below(real.len())].to_vec(),
        4 => flipped(random, real),
        5 => flipped(random, token),
        6 => token.as_bytes()[..random.below(token.len())].to_vec(),
        7 => format!("eyJ{}.{}.{}", base64(random), base64(random), base64(random)).into_bytes(),
        8 => format!("mc_v1_{}", base64(random)).into_bytes(),
        9 if random.below(20) == 0 => {
            let length = random.between(10_000, 100_000);
            random.text(BASE58, length).into_bytes()
        }
        9 => format!("{real},{real}").into_bytes(),
        10 => format!("{} {real}", printable(random, 1, 8)).into_bytes(),
        _ => {
            // The real one with a byte put in.
            let mut bytes = real.as_bytes().to_vec();
            let at = random.below(bytes.len());
            bytes.insert(at, random.next() as u8);
            bytes
        }
    }
}

/// With one bit turned over. The last letter of a token is left alone: some of its bits stand for
/// nothing.
fn flipped(random: &mut Random, text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let at = random.below(bytes.len() - 1);
    bytes[at] ^= 1 << random.below(8);
    bytes
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        *bytes = random.bytes(16);
        return;
    }
    let at = random.below(bytes.len());
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes.truncate(at),
        3 => bytes.insert(at, random.next() as u8),
        4 => drop(bytes.remove(at)),
        _ => {
            let end = random.between(at, bytes.len().min(at + 40));
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}

fn printable(random: &mut Random, least: usize, most: usize) -> String {
    let length = random.between(least, most);
    random.text(PRINTABLE, length)
}

fn base58_text(random: &mut Random, least: usize, most: usize) -> String {
    let length = random.between(least, most);
    random.text(BASE58, length)
}

fn base64(random: &mut Random) -> String {
    let length = random.between(1, 200);
    random.text(BASE64, length)
}

fn uuid(random: &mut Random) -> String {
    let hex = |random: &mut Random, length| random.text("0123456789abcdef", length);
    let (a, b, c, d, e) = (hex(random, 8), hex(random, 4), hex(random, 3), hex(random, 3), hex(random, 12));
    format!("{a}-{b}-4{c}-8{d}-{e}")
}

fn base58(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let mut digits: Vec<u8> = Vec::new(); // little end first
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 58) as u8;
            carry /= 58;
        }
        while carry > 0 {
            digits.push((carry % 58) as u8);
            carry /= 58;
        }
    }
    let letters = BASE58.as_bytes();
    let ones = std::iter::repeat_n('1', zeros);
    ones.chain(digits.iter().rev().map(|digit| char::from(letters[usize::from(*digit)]))).collect()
}

#[test]
fn base58_is_base58() {
    assert_eq!(base58(b"Hello World!"), "2NEpo7TZRRrLZSi2U");
    assert_eq!(base58(&[0, 0, 40, 127, 180, 205]), "11233QC4");
}
