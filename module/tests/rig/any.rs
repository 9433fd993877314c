//! Any requests, in Envoys of any behaviour, beside a server of any mood: the hooks change what a
//! Check would change, or nothing.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use prost_types::Value;
use prost_types::value::Kind;

use crate::fake::{FakeFilter, FakeRoute, FakeStream, Faults};
use crate::server::{Entry, Server, Settings, entry, settings};
use crate::wait::until;

/// Requests, unless `TALOS_TEST_HOOKS` says otherwise.
const REQUESTS: u64 = 20_000;
/// Requests of one thread between two changes of the server's mood.
const OF_A_ROUND: u64 = 2_000;
/// Threads of Envoy's.
const THREADS: u64 = 2;

const HIT: usize = 0;
const PANICS: usize = 4;

/// Repeatable random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn is(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

/// Runs requests until there were enough.
pub fn run() {
    let seed = std::env::var("TALOS_TEST_SEED").map_or_else(
        |_| std::hash::RandomState::new().build_hasher().finish(),
        |text| text.parse().expect("TALOS_TEST_SEED"),
    );
    println!("any requests: run again with TALOS_TEST_SEED={seed}");
    let mut random = Random(seed);
    let requests = number_from("TALOS_TEST_HOOKS", REQUESTS);
    let stage = Stage::new();
    let (mut generation, hits) = (1, AtomicU64::new(0));
    for round in 0..requests.div_ceil(OF_A_ROUND * THREADS) {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                let (mut random, stage, hits) = (Random(random.next()), &stage, &hits);
                scope.spawn(move || {
                    for _ in 0..OF_A_ROUND {
                        hits.fetch_add(u64::from(stage.look_at(&mut random)), Ordering::Relaxed);
                    }
                });
            }
            // Meanwhile.
            any_configurations(&mut random);
            generation += u64::from(random.is(2));
            stage.disturb(&mut random, generation);
        });
        // A lost stream comes back after a second.
        if round % 4 == 3 {
            stage.server.with(|script| script.is_closed = true);
            until("the stream is lost", || !stage.passes());
            stage.server.with(|script| script.is_closed = false);
        }
        stage.mend(generation);
        until("the key is known", || stage.passes());
    }
    let hits = hits.into_inner();
    assert!(hits * 200 > requests, "only {hits} of {requests} requests had a known key");
}

/// Reads configurations of any form.
fn any_configurations(random: &mut Random) {
    let whole = br#"{"socket": "/nonexistent/s", "max_bytes": 65536, "accelerate": true, "settings": {"talos.scopes": "a"}}"#;
    for _ in 0..20 {
        let mut text = whole.to_vec();
        for _ in 0..random.below(4) {
            let at = random.below(text.len());
            text[at] = random.next() as u8;
        }
        text.truncate(text.len() - random.below(2) * random.below(whole.len()));
        let text = String::from_utf8_lossy(&text);
        drop((FakeFilter::new(&text), FakeRoute::new(&text)));
    }
}

/// One filter of one server, with two routes.
struct Stage {
    server: Server,
    filter: FakeFilter,
    route: FakeRoute,
    scoped: FakeRoute,
}

impl Stage {
    fn new() -> Self {
        let server = Server::start();
        let filter = FakeFilter::new(&format!(r#"{{"socket": "{}"}}"#, server.socket.display()));
        let route = FakeRoute::new(r#"{"accelerate": true}"#);
        let scoped = FakeRoute::new(r#"{"accelerate": true, "settings": {"talos.scopes": "b"}}"#);
        let stage = Self {
            server,
            filter: filter.expect("a configuration"),
            route: route.expect("a route"),
            scoped: scoped.expect("a route"),
        };
        stage.mend(1);
        until("the key is known", || stage.passes());
        stage
    }

    fn passes(&self) -> bool {
        let mut stream = FakeStream::new(self.route.0, &[("x-api-key", "good")]);
        self.filter.run(&mut stream);
        stream.passes()
    }

    /// Lets the server know all credentials, by settings of this generation.
    fn mend(&self, generation: u64) {
        let entry = || Entry { generation, ..entry() };
        let walled = Entry { addresses: vec!["10.0.0.0/8".to_owned()], ..entry() };
        // Those that must never pass: expired, ended, changed since, of another generation.
        for (credential, entry) in [
            ("good", entry()),
            ("walled", walled),
            ("expired", Entry { expires_micros: 1, ..entry() }),
            ("ended", Entry { key_end_micros: Some(1), ..entry() }),
            ("changed", Entry { key_slot: 5, ..entry() }),
            ("older", Entry { generation: u64::MAX, ..entry() }),
        ] {
            self.server.know(credential, entry);
        }
        // A new stream knows of no change.
        self.server.change(5, 11);
        self.server.with(|script| script.is_silent = false);
        self.server.set(settings(generation));
    }

    /// Says this and that, as a server may. The slots of the keys are spared: they keep their
    /// greatest value.
    fn disturb(&self, random: &mut Random, generation: u64) {
        for _ in 0..random.below(8) {
            match random.below(12) {
                0..5 => {
                    self.server.change(70 + random.below(65_000) as u32, random.next() >> random.below(64))
                }
                5 => self.server.set(Settings { enabled: false, ..settings(generation) }),
                6 => self.server.set(settings(generation)),
                7 => self.server.with(|script| script.is_silent = true),
                _ => self.server.know("good", Entry { stamp: random.next() >> 20, ..entry() }),
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Looks at one request. Returns true if it passes.
    fn look_at(&self, random: &mut Random) -> bool {
        let mut stream = FakeStream::new(self.route.0, &[]);
        stream.headers = any_headers(random);
        match random.below(12) {
            0 => stream.route = self.scoped.0,
            // None, or that of another module.
            1 => stream.route = *random.pick(&[std::ptr::null(), std::ptr::without_provenance(0x10)]),
            2 => {
                stream.peer =
                    ["11.0.0.1:5000", "10.0.0.1:0", "", "[::ffff:10.1.1.1]:80"][random.below(4)].to_owned()
            }
            3 => stream.faults = any_faults(random),
            4 => {
                let text = *random.pick(&["allow", "deny", ""]);
                stream
                    .metadata
                    .insert("decision".to_owned(), Value { kind: Some(Kind::StringValue(text.to_owned())) });
            }
            5 => {
                for _ in 0..random.below(20) {
                    let namespace = *random.pick(&["talos", "talos", "other", "envoy-gateway"]);
                    stream.route_metadata.push((
                        namespace,
                        *random.pick(&["scopes", "talos.mode", "x"]),
                        "a",
                    ));
                }
            }
            _ => {}
        }
        let (headers, metadata) = (stream.headers.clone(), stream.metadata.clone());
        self.filter.run(&mut stream);
        assert_eq!(stream.counters.get(&PANICS), None, "a hook has panicked: {headers:?}");
        if !stream.passes() {
            if !stream.faults.lets_setters_fail() {
                assert_eq!(stream.headers, headers, "changed, and left alone");
                let was_allow = metadata.get("decision").is_some_and(|value| is(value, "allow"));
                let asked = stream.metadata.get("decision").is_some_and(|value| is(value, "asked"));
                assert!(stream.metadata == metadata || was_allow && asked, "{:?}", stream.metadata);
            }
            return false;
        }
        assert!(!metadata.contains_key("decision"), "another filter had decided");
        assert_eq!(stream.counters.get(&HIT), Some(&1));
        let (carrier, credential) = only_credential(&headers).expect("exactly one credential");
        let may_pass = credential == b"good"
            || credential == b"walled" && matches!(&*stream.peer, "10.0.0.1:5000" | "[::ffff:10.1.1.1]:80");
        assert!(may_pass, "{} from {:?}", String::from_utf8_lossy(&credential), stream.peer);
        assert_eq!(stream.headers, changed_by_a_check(&headers, carrier));
        assert!(stream.metadata.contains_key("fresh_until") && stream.text("key_id") == Some("k1"));
        true
    }
}

fn is(value: &Value, text: &str) -> bool {
    matches!(&value.kind, Some(Kind::StringValue(found)) if found == text)
}

fn any_faults(random: &mut Random) -> Faults {
    let mut faults = Faults::default();
    match random.below(5) {
        0 => faults.failing_setter = Some(random.below(12)),
        1 => faults.no_headers = true,
        2 => faults.no_peer = true,
        3 => faults.no_metadata_keys = true,
        _ => faults.loses_metadata = true,
    }
    faults
}

type Line = (Vec<u8>, Vec<u8>);

fn any_headers(random: &mut Random) -> Vec<Line> {
    const NAMES: [&str; 14] = [
        "authorization",
        "x-api-key",
        "x-talos-key-id",
        "x_talos_actor_id",
        "x.talos.scopes",
        "x-talos-",
        "cookie",
        "",
        "x-talos-\u{e9}",
        ":path",
        ":authority",
        "x-forwarded-for",
        "x-talosa",
        "authorization_",
    ];
    const KEYS: [&str; 8] = ["good", "good", "good", "walled", "expired", "ended", "changed", "older"];
    let mut lines = vec![];
    for _ in 0..random.below(8) {
        let name = match random.is(4) {
            true => *random.pick(&["authorization", "x-api-key"]),
            false => *random.pick(&NAMES),
        };
        let key = *random.pick(&KEYS);
        let value = match random.below(9) {
            0..=2 => format!("Bearer {key}").into_bytes(),
            3 | 4 => key.as_bytes().to_vec(),
            5 => format!("\t{} \u{b}{key} ", random.pick(&["BEARER", "bearer\t", "Basic", "", "Bearer,"]))
                .into_bytes(),
            6 => format!("{key},{key}").into_bytes(),
            7 => {
                let most = *random.pick(&[40, 5_040]);
                random.bytes(most)
            }
            _ => vec![],
        };
        lines.push((name.as_bytes().to_vec(), value));
    }
    if random.is(3) {
        lines.retain(|(name, _)| name != b"authorization" && name != b"x-api-key");
        lines.push((b"x-api-key".to_vec(), b"good".to_vec()));
    }
    if random.is(200) {
        lines.extend(std::iter::repeat_n((b"x-many".to_vec(), vec![]), random.below(200)));
    }
    lines
}

const SPACES: [u8; 5] = [b' ', b'\t', b'\n', b'\r', 0x0c];

fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && SPACES.contains(first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && SPACES.contains(last)
    {
        text = rest;
    }
    text
}

/// Returns the only credential and the header that has it, as the server would find it.
fn only_credential(lines: &[Line]) -> Option<(&'static [u8], Vec<u8>)> {
    let values = |wanted: &[u8]| -> Vec<&[u8]> {
        lines.iter().filter(|(name, _)| name == wanted).map(|(_, value)| &value[..]).collect()
    };
    let mut found = vec![];
    for value in values(b"authorization") {
        let value = trimmed(value);
        if value.len() > 6 && value[..6].eq_ignore_ascii_case(b"bearer") && matches!(value[6], b' ' | b'\t') {
            found.push((&b"authorization"[..], trimmed(&value[6..]).to_vec()));
        }
    }
    for value in values(b"x-api-key") {
        found.push((&b"x-api-key"[..], trimmed(value).to_vec()));
    }
    found.retain(|(_, credential)| !credential.is_empty());
    let [only] = &found[..] else { return None };
    (!only.1.contains(&b',') && lines.len() <= 100).then(|| only.clone())
}

/// Returns the headers that a Check leaves: identity and token set, what is forged and what carried
/// the credential taken out.
fn changed_by_a_check(lines: &[Line], carrier: &[u8]) -> Vec<Line> {
    let (set, removed) = (entry().set_headers, entry().remove_headers);
    let is_set = |name: &[u8]| set.iter().any(|header| header.name == name);
    let is_forged = |name: &[u8]| {
        let folded: String = name
            .iter()
            .map(|byte| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() as char } else { '-' })
            .collect();
        folded.starts_with("x-talos-")
    };
    let stays = |name: &[u8]| {
        !is_set(name) && !is_forged(name) && name != carrier && !removed.iter().any(|one| one == name)
    };
    let kept = lines.iter().filter(|(name, _)| stays(name)).cloned();
    kept.chain(set.iter().map(|header| (header.name.to_vec(), header.value.to_vec()))).collect()
}
