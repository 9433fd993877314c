use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use talos_proto::edge::{
    self, Change, Entry as EntryMessage, Forget, FromModule, FromServer, Knowledge, Limits, NoEntry,
    ServerHello, from_module, from_server,
};

use super::*;
use crate::clock::Timestamp;
use crate::config::RouteSettings;
use crate::metadata::allowed;
use crate::settings::Settings;
use crate::settings::tests::message as settings;
use crate::state::{Lookup, Unusable};

const KEY_SLOT: u32 = 7;
const ACTOR_SLOT: u32 = 65_540;

/// Session on a clock that stands still, and the route that all requests are for.
struct Stage {
    clock: Clock,
    session: Session,
    route: RouteSettings,
}

/// A request under a route's policy; the key is given apart.
fn lookup<'a>(route: &'a RouteSettings, settings: &'a Settings) -> Lookup<'a> {
    Lookup { credential: b"", route, host: None, settings }
}

impl Stage {
    fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_secs(1_000_000));
        clock.advance(Duration::from_secs(100));
        let mut session = Session::new(clock.clone(), 1_000_000);
        let limits = Limits {
            max_asks_in_flight: 64,
            max_changes: 4096,
            max_used_rows: 256,
            max_entries: 10_000,
            max_bytes: 1_000_000,
            tick_micros: 500_000,
        };
        let hello = ServerHello {
            protocol: 1,
            index_seed: vec![1; 64].into(),
            limits: Some(limits),
            ..Default::default()
        };
        session.receive(from(from_server::Message::Hello(hello))).unwrap();
        let route =
            RouteSettings::parse(br#"{"accelerate": true, "settings": {"talos.scopes": "a"}}"#).unwrap();
        Self { clock, session, route }
    }

    fn with_settings() -> Self {
        let mut stage = Self::new();
        stage.receive(from_server::Message::Settings(settings()));
        stage
    }

    fn receive(&mut self, message: from_server::Message) {
        self.session.receive(from(message)).unwrap();
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(self.session.state().unwrap())
    }

    fn tick(&mut self) -> u64 {
        match self.session.tick().unwrap().message {
            Some(from_module::Message::Tick(tick)) => tick.id,
            other => panic!("not a tick: {other:?}"),
        }
    }

    /// Sends a tick and answers it.
    fn learn(&mut self, age: Duration, changes: Vec<Change>) {
        let tick = self.tick();
        self.receive(knowledge(tick, Some(age), changes));
    }

    fn key(&self, credential: &str) -> CacheKey {
        self.state().cache_key(credential.as_bytes(), &self.route.fingerprint, None)
    }

    /// Misses a credential; returns the questions that follow.
    fn miss(&mut self, credential: &str) -> Vec<edge::Ask> {
        let state = self.state();
        let key = self.key(credential);
        assert!(state.get(&key).is_none());
        let settings = state.settings();
        state.ask(key, lookup(&self.route, settings.as_ref().unwrap()));
        self.clock.advance(Duration::from_millis(20));
        let ask = |message: FromModule| match message.message {
            Some(from_module::Message::Ask(ask)) => ask,
            other => panic!("not an ask: {other:?}"),
        };
        self.session.asks().into_iter().map(ask).collect()
    }

    /// Gets an entry with this stamp for a credential.
    fn fill(&mut self, credential: &str, stamp: u64) {
        let ask = self.miss(credential).remove(0);
        let entry = self.entry(ask.id, stamp);
        self.receive(from_server::Message::Entry(entry));
    }

    fn entry(&self, id: u64, stamp: u64) -> EntryMessage {
        EntryMessage {
            id,
            metadata: Some(allowed()),
            stamp,
            key_slot: KEY_SLOT,
            actor_slot: ACTOR_SLOT,
            generation: 1,
            expires_micros: self.clock.now().plus(Duration::from_secs(60)).as_micros(),
            ..Default::default()
        }
    }

    /// Uses the entry of a credential; `None` if there is none.
    fn usable(&self, credential: &str) -> Option<Result<(), Unusable>> {
        let state = self.state();
        let entry = state.get(&self.key(credential))?;
        let settings = state.settings();
        let Some(settings) = settings.as_ref() else { return Some(Err(Unusable::NoLease)) };
        Some(state.usable(&entry, settings).map(|_| ()))
    }
}

fn from(message: from_server::Message) -> FromServer {
    FromServer { message: Some(message) }
}

fn knowledge(tick: u64, age: Option<Duration>, changes: Vec<Change>) -> from_server::Message {
    let age_micros = age.map(|age| age.as_micros() as u64);
    from_server::Message::Knowledge(Knowledge { tick, age_micros, changes, generation: 1 })
}

fn change(slot: u32, value: u64) -> Change {
    Change { slot, value }
}

#[test]
fn a_known_key_is_usable_under_a_lease_and_no_longer() {
    let mut stage = Stage::with_settings();
    stage.fill("k", 10);
    assert_eq!(stage.usable("k"), Some(Err(Unusable::NoLease)), "before any knowledge");
    stage.learn(Duration::from_secs(1), vec![]);
    assert_eq!(stage.usable("k"), Some(Ok(())));
    stage.clock.advance(Duration::from_secs(4));
    assert_eq!(stage.usable("k"), Some(Ok(())));
    stage.clock.advance(Duration::from_micros(1));
    assert_eq!(stage.usable("k"), Some(Err(Unusable::NoLease)));
    assert_eq!(stage.usable("l"), None);
}

#[test]
fn the_lease_counts_from_the_question_not_from_the_answer() {
    let mut stage = Stage::with_settings();
    stage.fill("k", 10);
    let tick = stage.tick();
    stage.clock.advance(Duration::from_secs(3));
    stage.receive(knowledge(tick, Some(Duration::from_secs(1)), vec![]));
    stage.clock.advance(Duration::from_secs(1));
    assert_eq!(stage.usable("k"), Some(Ok(())));
    stage.clock.advance(Duration::from_micros(1));
    assert_eq!(stage.usable("k"), Some(Err(Unusable::NoLease)));
}

#[test]
fn an_older_lease_never_replaces_a_newer_one_and_no_age_leaves_it() {
    let mut stage = Stage::with_settings();
    stage.fill("k", 10);
    stage.learn(Duration::ZERO, vec![]);
    stage.learn(Duration::from_secs(4), vec![]);
    let tick = stage.tick();
    stage.receive(knowledge(tick, None, vec![]));
    stage.clock.advance(Duration::from_secs(5));
    assert_eq!(stage.usable("k"), Some(Ok(())));
    // An age that reaches back beyond the boot makes no lease.
    stage.clock.advance(Duration::from_secs(1));
    stage.learn(Duration::from_secs(1_000_000_000), vec![]);
    assert_eq!(stage.usable("k"), Some(Err(Unusable::NoLease)));
}

#[test]
fn a_change_of_the_key_or_its_actor_ends_it_at_once() {
    for slot in [KEY_SLOT, ACTOR_SLOT] {
        let mut stage = Stage::with_settings();
        stage.fill("k", 10);
        stage.learn(Duration::ZERO, vec![change(slot, 10), change(slot + 1, 99), change(4_000_000, 1)]);
        assert_eq!(stage.usable("k"), Some(Ok(())), "stamped at it, or not its own");
        let changes = vec![change(slot, 11)];
        stage.receive(from_server::Message::Forget(Forget { changes }));
        assert_eq!(stage.usable("k"), Some(Err(Unusable::Stale)));
        // The greater value stays.
        stage.learn(Duration::ZERO, vec![change(slot, 3)]);
        assert_eq!(stage.usable("k"), Some(Err(Unusable::Stale)));
    }
}

#[test]
fn stamps_of_a_later_lineage_are_greater_and_end_earlier_ones() {
    let (first, second) = ((1 << 44) + 10, (2 << 44) + 4);
    let mut stage = Stage::with_settings();
    stage.fill("old", first);
    stage.learn(Duration::ZERO, vec![change(KEY_SLOT, first)]);
    assert_eq!(stage.usable("old"), Some(Ok(())));
    stage.fill("new", second);
    assert_eq!(stage.usable("old"), Some(Err(Unusable::Stale)));
    assert_eq!(stage.usable("new"), Some(Ok(())));
    stage.learn(Duration::ZERO, vec![change(KEY_SLOT, second + 1)]);
    assert_eq!(stage.usable("new"), Some(Err(Unusable::Stale)));
    // A position that could be any: there is no entry, and a slot with it has no fresh one.
    stage.fill("k", u64::MAX);
    assert_eq!(stage.usable("k"), None);
    stage.fill("l", u64::MAX - 1);
    assert_eq!(stage.usable("l"), Some(Ok(())));
    stage.learn(Duration::ZERO, vec![change(ACTOR_SLOT, u64::MAX)]);
    assert_eq!(stage.usable("l"), Some(Err(Unusable::Stale)));
}

#[test]
fn an_entry_ends_with_its_time_and_its_key() {
    let mut stage = Stage::with_settings();
    for (credential, expires, key_end) in [("k", 2, None), ("l", 60, Some(2))] {
        let ask = stage.miss(credential).remove(0);
        let at = |secs| stage.clock.now().plus(Duration::from_secs(secs)).as_micros();
        let (expires_micros, key_end_micros) = (at(expires), key_end.map(at));
        let entry = EntryMessage { expires_micros, key_end_micros, ..stage.entry(ask.id, 10) };
        stage.receive(from_server::Message::Entry(entry));
        stage.learn(Duration::ZERO, vec![]);
        assert_eq!(stage.usable(credential), Some(Ok(())));
        stage.clock.advance(Duration::from_secs(2));
        assert_eq!(stage.usable(credential), Some(Err(Unusable::Stale)), "{credential}");
    }
}

#[test]
fn the_answer_counts_until_the_lease_or_the_key_ends() {
    let mut stage = Stage::with_settings();
    stage.fill("k", 10);
    stage.learn(Duration::from_secs(1), vec![]);
    let state = stage.state();
    let settings = state.settings();
    let mut entry = Entry::read(stage.entry(1, 10)).unwrap();
    entry.slots = [0, 65_536];
    let usable = |entry: &Entry| state.usable(entry, settings.as_ref().unwrap()).unwrap();
    let now = stage.clock.now().as_micros();
    assert_eq!(usable(&entry).fresh_until, now + 4_000_000);
    entry.key_end = Some(now + 1_234_567);
    assert_eq!(usable(&entry).fresh_until, now + 1_234_567);
    let seconds = (now + 1_234_567).div_euclid(1000) as f64 / 1000.0;
    assert_eq!(usable(&entry).fresh_until_seconds(), seconds);
}

#[test]
fn other_settings_drop_all_entries_and_questions() {
    let mut stage = Stage::with_settings();
    stage.fill("k", 10);
    stage.learn(Duration::ZERO, vec![]);
    let ask = stage.miss("l").remove(0);
    let other = edge::Settings { generation: 2, ..settings() };
    stage.receive(from_server::Message::Settings(other));
    assert_eq!(stage.usable("k"), None);
    // The answer to a question under the old ones isn't taken.
    let late = stage.entry(ask.id, 10);
    stage.receive(from_server::Message::Entry(late));
    assert_eq!(stage.usable("l"), None);
    assert_eq!(stage.miss("k").len(), 1, "asked anew");
}

#[test]
fn nothing_is_used_while_settings_are_missing_or_off() {
    let mut stage = Stage::new();
    assert!(stage.state().settings().is_none());
    stage.receive(from_server::Message::Settings(edge::Settings { enabled: false, ..settings() }));
    assert!(stage.state().settings().is_none());
    stage.receive(from_server::Message::Settings(settings()));
    assert!(stage.state().settings().is_some());
    // Knowledge of settings that haven't come.
    let tick = stage.tick();
    let told = Knowledge { tick, age_micros: Some(0), generation: 5, ..Default::default() };
    stage.receive(from_server::Message::Knowledge(told));
    assert!(stage.state().settings().is_none());
    stage.learn(Duration::ZERO, vec![]);
    assert!(stage.state().settings().is_some(), "they were the newest after all");
}

#[test]
fn the_server_is_asked_once_by_index() {
    let mut stage = Stage::with_settings();
    let asks = stage.miss("k");
    assert_eq!(asks.len(), 1);
    let ask = &asks[0];
    assert_eq!((ask.index.len(), ask.policy.len(), ask.generation, ask.rule), (32, 32, 1, None));
    assert_eq!(ask.extensions, [edge::Extension { key: "talos.scopes".into(), value: "a".into() }]);
    assert!(stage.miss("k").is_empty(), "asked already");
    let wait_micros = 10_000_000;
    stage.receive(from_server::Message::NoEntry(NoEntry { id: ask.id, reason: 1, wait_micros }));
    assert!(stage.miss("k").is_empty(), "told to wait");
    stage.clock.advance(Duration::from_secs(10));
    assert_eq!(stage.miss("k").len(), 1);
}

#[test]
fn questions_are_bounded_in_flight_and_in_memory() {
    let mut stage = Stage::with_settings();
    let mut sent = 0;
    for n in 0..1_000 {
        sent += stage.miss(&format!("k{n}")).len();
    }
    assert_eq!(sent, 64);
    let state = stage.state();
    let queued = state.take_questions(usize::MAX, 0).len();
    assert!(queued <= 256, "{queued} wait");
    for n in 0..10_000 {
        let key = stage.key(&format!("l{n}"));
        state.ask(key, lookup(&stage.route, state.settings().as_ref().unwrap()));
        state.take_questions(usize::MAX, 0);
    }
}

#[test]
fn the_address_of_the_last_use_is_reported_and_none_is_made_up() {
    let mut stage = Stage::with_settings();
    stage.fill("k", 10);
    let state = stage.state();
    let entry = state.get(&stage.key("k")).unwrap();
    for (client, reported) in
        [(Some("192.0.2.7"), "192.0.2.7"), (Some("2001:db8::1"), "2001:db8::1"), (None, "")]
    {
        state.record_use(&entry, 5, Some("198.51.100.1".parse().unwrap()));
        state.record_use(&entry, 6, client.map(|client| client.parse().unwrap()));
        let [message] = &stage.session.uses()[..] else { panic!("not one message") };
        let Some(from_module::Message::Used(used)) = &message.message else { panic!("{message:?}") };
        assert_eq!((used.uses[0].client.as_str(), used.uses[0].count), (reported, 2));
    }
}

#[test]
fn uses_are_reported_in_rows_of_bounded_size() {
    let mut stage = Stage::with_settings();
    for n in 0..50 {
        stage.fill(&format!("k{n}"), 10);
    }
    let state = stage.state();
    for n in 0..50 {
        let entry = state.get(&stage.key(&format!("k{n}"))).unwrap();
        (0..=n).for_each(|_| state.record_use(&entry, 5, None));
        assert_eq!(entry.uses.load(Ordering::Relaxed), n + 1);
    }
    stage.session.max_used_rows = 20;
    let used = |messages: Vec<FromModule>| -> Vec<Vec<u64>> {
        let counts = |message: FromModule| match message.message {
            Some(from_module::Message::Used(used)) => used.uses.iter().map(|one| one.count).collect(),
            other => panic!("not a used: {other:?}"),
        };
        messages.into_iter().map(counts).collect()
    };
    let rows = used(stage.session.uses());
    assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [20, 20, 10]);
    assert_eq!(rows.concat(), (1..=50).collect::<Vec<_>>());
    assert!(stage.session.uses().is_empty());
}

#[test]
fn what_breaks_the_protocol_ends_the_stream() {
    let refused = |stage: &mut Stage, message| stage.session.receive(from(message)).unwrap_err();
    let mut session = Session::new(Clock::manual(Timestamp::from_secs(0)), 1);
    let first = session.receive(from(from_server::Message::Settings(settings())));
    assert_eq!(first, Err(ProtocolError::NoHello));
    for (hello, error) in [
        (
            ServerHello { protocol: 2, index_seed: vec![0; 64].into(), ..Default::default() },
            ProtocolError::Version(2),
        ),
        (
            ServerHello { protocol: 1, index_seed: vec![0; 63].into(), ..Default::default() },
            ProtocolError::Seed,
        ),
    ] {
        assert_eq!(session.receive(from(from_server::Message::Hello(hello))), Err(error));
    }
    let mut stage = Stage::with_settings();
    let tick = stage.tick();
    let unknown = knowledge(tick + 1, None, vec![]);
    assert_eq!(refused(&mut stage, unknown), ProtocolError::UnknownTick);
    let mut stage = Stage::with_settings();
    let tick = stage.tick();
    stage.receive(knowledge(tick, None, vec![]));
    assert_eq!(refused(&mut stage, knowledge(tick, None, vec![])), ProtocolError::UnknownTick);
    let mut stage = Stage::with_settings();
    for _ in 0..16 {
        stage.tick();
    }
    assert_eq!(stage.session.tick().unwrap_err(), ProtocolError::Silent);
}

#[test]
fn what_isnt_known_is_ignored() {
    let mut stage = Stage::with_settings();
    stage.session.receive(FromServer { message: None }).unwrap();
    stage.receive(from_server::Message::NoEntry(NoEntry { id: 77, ..Default::default() }));
    let entry = stage.entry(78, 1);
    stage.receive(from_server::Message::Entry(entry));
    stage.receive(from_server::Message::Hello(ServerHello::default()));
    assert!(stage.state().settings().is_some());
}

/// Changes single bytes of messages, and their order: whatever comes, nothing panics, and an entry
/// that has ended doesn't come back.
#[test]
fn whatever_the_server_says_is_taken_or_refused() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut refused = 0;
    for _ in 0..300 {
        let mut stage = Stage::with_settings();
        stage.fill("k", 10);
        stage.learn(Duration::ZERO, vec![change(KEY_SLOT, 11)]);
        for _ in 0..random(30) {
            let id = random(40) as u64;
            let message = match random(6) {
                0 => from_server::Message::Settings(settings()),
                1 => knowledge(id, Some(Duration::from_millis(random(9_000) as u64)), vec![]),
                2 => from_server::Message::Entry(EntryMessage { key_slot: 8, ..stage.entry(id, 10) }),
                3 => from_server::Message::NoEntry(NoEntry { id, reason: 1, wait_micros: u64::MAX }),
                4 => from_server::Message::Forget(Forget { changes: vec![change(8, id); 3] }),
                _ => from_server::Message::Hello(ServerHello::default()),
            };
            let mut encoded = from(message).encode_to_vec();
            for _ in 0..random(3) {
                let at = random(encoded.len().max(1));
                if let Some(byte) = encoded.get_mut(at) {
                    *byte = random(256) as u8;
                }
            }
            let Ok(message) = FromServer::decode(&encoded[..]) else { continue };
            if stage.session.receive(message).is_err() {
                refused += 1;
                break;
            }
            if let Some(settings) = stage.state().settings().as_ref() {
                stage.state().ask(stage.key("l"), lookup(&stage.route, settings));
            }
            stage.clock.advance(Duration::from_millis(random(700) as u64));
            let (_, asks, uses) = (stage.session.tick(), stage.session.asks(), stage.session.uses());
            assert!(asks.iter().chain(&uses).all(|message| message.encoded_len() <= MAX_SENT_BYTES));
            if let Some(Ok(())) = stage.usable("k") {
                let entry = stage.state().get(&stage.key("k")).unwrap();
                assert_ne!(entry.slots[0], KEY_SLOT as usize, "the entry that had ended");
            }
        }
    }
    assert!(refused > 15, "{refused}");
}

#[test]
fn a_flood_of_unknown_credentials_is_bounded_and_leaves_room_again() {
    let mut stage = Stage::with_settings();
    let ask = |stage: &Stage, name: String| {
        if let Some(settings) = stage.state().settings().as_ref() {
            stage.state().ask(stage.key(&name), lookup(&stage.route, settings));
        }
    };
    // Answers all questions that may be asked now.
    let answer = |stage: &mut Stage| {
        let asks = stage.session.asks();
        for message in &asks {
            let Some(from_module::Message::Ask(one)) = &message.message else { panic!("not an ask") };
            let answer = NoEntry { id: one.id, reason: 1, wait_micros: 1_000_000 };
            stage.receive(from_server::Message::NoEntry(answer));
        }
        asks.len()
    };
    let mut asked = 0;
    for turn in 0..200 {
        (0..500).for_each(|n| ask(&stage, format!("{turn}-{n}")));
        stage.clock.advance(Duration::from_millis(100));
        asked += answer(&mut stage);
    }
    // 64 at once, every 100 ms; and never so many that none can be remembered.
    assert_eq!(asked, 12_800);
    stage.clock.advance(Duration::from_secs(10));
    while answer(&mut stage) > 0 {}
    ask(&stage, "good".to_owned());
    stage.clock.advance(Duration::from_millis(20));
    assert_eq!(answer(&mut stage), 1);
}
