//! The server's side of the stream, as a test wants it: entries by credential, and changes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use sha2::{Digest, Sha256};
use talos_proto::edge::{
    Ask, Change, ClientAddress, CountedAs, Forget, FromModule, FromServer, Header, HeaderSource, Knowledge,
    Limits, NoEntry, ServerHello, Source, Use, from_module, from_server, source,
};
pub use talos_proto::edge::{Entry, Settings};
use tempfile::TempDir;
use tokio::net::UnixListener;

const SEED: [u8; 64] = [7; 64];

/// What the server says, and what it was told.
#[derive(Default)]
pub struct Script {
    /// Answers by credential.
    entries: HashMap<Vec<u8>, Entry>,
    /// Changes that the next message pushes.
    changes: Vec<Change>,
    /// Settings that the next message pushes.
    settings: Option<Settings>,
    /// True: ticks aren't answered.
    pub is_silent: bool,
    /// True: the stream is ended, and new ones are too.
    pub is_closed: bool,
    /// Questions so far.
    pub asks: Vec<Ask>,
    /// Uses so far.
    pub uses: Vec<Use>,
}

/// Server on a Unix socket.
pub struct Server {
    pub socket: PathBuf,
    pub script: Arc<Mutex<Script>>,
    _dir: TempDir,
}

/// Settings of a server that has set nothing, with this generation.
pub fn settings(generation: u64) -> Settings {
    let header = |name: &str, scheme: &str| Source {
        kind: Some(source::Kind::Header(HeaderSource {
            name: name.to_owned(),
            scheme: scheme.to_owned(),
            is_scheme_optional: false,
        })),
    };
    Settings {
        generation,
        enabled: true,
        lease_micros: 5_000_000,
        sources: vec![header("authorization", "Bearer"), header("x-api-key", "")],
        client_address: ClientAddress::Peer.into(),
        token_header: "authorization".to_owned(),
        own_headers: IDENTITY.map(str::to_owned).to_vec(),
        ..Default::default()
    }
}

const IDENTITY: [&str; 4] = ["x-talos-key-id", "x-talos-actor-id", "x-talos-scopes", "x-talos-network-id"];

/// Entry of a key with a token, an actor and scopes.
pub fn entry() -> Entry {
    let header = |name: &'static str, value: &'static str| Header { name: name.into(), value: value.into() };
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let scopes = Value { kind: Some(Kind::ListValue(ListValue { values: vec![text("a"), text("b")] })) };
    let fields = [
        ("decision", text("allow")),
        ("reason", text("ok")),
        ("key_id", text("k1")),
        ("actor_id", text("u1")),
        ("scopes", scopes),
    ];
    Entry {
        set_headers: vec![
            header("x-talos-key-id", "k1"),
            header("x-talos-actor-id", "u1"),
            header("x-talos-scopes", "a b"),
            header("authorization", "Bearer token"),
        ],
        remove_headers: vec!["x-talos-network-id".into()],
        metadata: Some(Struct { fields: fields.map(|(key, value)| (key.to_owned(), value)).into() }),
        stamp: 10,
        key_slot: 1,
        actor_slot: 65_537,
        generation: 1,
        expires_micros: i64::MAX,
        counted_as: Some(CountedAs { key: "k1".to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

impl Server {
    /// Starts the server.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("s");
        let script = Arc::new(Mutex::new(Script { settings: Some(settings(1)), ..Script::default() }));
        let (path, shared) = (socket.clone(), Arc::clone(&script));
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = UnixListener::bind(path).expect("a socket");
                loop {
                    let (stream, _) = listener.accept().await.expect("a connection");
                    tokio::spawn(serve(stream, Arc::clone(&shared)));
                }
            });
        });
        Self { socket, script, _dir: dir }
    }

    /// Knows a credential from now on.
    pub fn know(&self, credential: &str, entry: Entry) {
        self.with(|script| script.entries.insert(index(credential), entry));
    }

    /// Pushes changes of slots.
    pub fn change(&self, slot: u32, value: u64) {
        self.with(|script| script.changes.push(Change { slot, value }));
    }

    /// Pushes settings.
    pub fn set(&self, settings: Settings) {
        self.with(|script| script.settings = Some(settings));
    }

    /// Changes or reads the script.
    pub fn with<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().expect("no panic"))
    }
}

fn index(credential: &str) -> Vec<u8> {
    Sha256::new().chain_update(SEED).chain_update(credential).finalize().to_vec()
}

async fn serve(stream: tokio::net::UnixStream, script: Arc<Mutex<Script>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let response = http::Response::builder().header("content-type", "application/grpc").body(());
        let sender = respond.send_response(response.expect("a response"), false).expect("it is sent");
        tokio::spawn(talk(request.into_body(), sender, Arc::clone(&script)));
    }
}

async fn talk(mut body: h2::RecvStream, mut sender: h2::SendStream<Bytes>, script: Arc<Mutex<Script>>) {
    let limits = Limits {
        max_asks_in_flight: 64,
        max_changes: 4096,
        max_used_rows: 256,
        max_entries: 10_000,
        max_bytes: 10_000_000,
        tick_micros: 500_000,
    };
    let hello = ServerHello {
        protocol: 1,
        index_seed: SEED.to_vec().into(),
        limits: Some(limits),
        ..Default::default()
    };
    send(&mut sender, from_server::Message::Hello(hello));
    let mut generation = 0;
    {
        // A new stream gets the settings anew.
        let mut script = script.lock().expect("no panic");
        let first = script.settings.take().unwrap_or_else(|| settings(1));
        generation = generation.max(first.generation);
        send(&mut sender, from_server::Message::Settings(first));
    }
    let mut received = BytesMut::new();
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    loop {
        tokio::select! {
            data = body.data() => {
                let Some(Ok(data)) = data else { return };
                let _ = body.flow_control().release_capacity(data.len());
                received.extend_from_slice(&data);
            }
            _ = looks.tick() => {}
        }
        let mut script = script.lock().expect("no panic");
        if script.is_closed {
            sender.send_reset(h2::Reason::CANCEL);
            return;
        }
        if let Some(settings) = script.settings.take() {
            generation = settings.generation;
            send(&mut sender, from_server::Message::Settings(settings));
        }
        if !script.changes.is_empty() {
            let changes = std::mem::take(&mut script.changes);
            send(&mut sender, from_server::Message::Forget(Forget { changes }));
        }
        while let Some(message) = take(&mut received) {
            answer(&mut script, generation, message).into_iter().for_each(|answer| send(&mut sender, answer));
        }
    }
}

fn answer(script: &mut Script, generation: u64, message: FromModule) -> Option<from_server::Message> {
    match message.message? {
        from_module::Message::Hello(_) => None,
        from_module::Message::Tick(tick) => (!script.is_silent).then(|| {
            from_server::Message::Knowledge(Knowledge {
                tick: tick.id,
                age_micros: Some(100_000),
                changes: vec![],
                generation,
            })
        }),
        from_module::Message::Ask(ask) => {
            let found = script.entries.get(&ask.index.to_vec()).cloned();
            let id = ask.id;
            script.asks.push(ask);
            Some(match found {
                Some(entry) => from_server::Message::Entry(Entry { id, ..entry }),
                None => from_server::Message::NoEntry(NoEntry { id, reason: 1, wait_micros: 100_000 }),
            })
        }
        from_module::Message::Used(used) => {
            script.uses.extend(used.uses);
            None
        }
    }
}

fn send(sender: &mut h2::SendStream<Bytes>, message: from_server::Message) {
    let encoded = FromServer { message: Some(message) }.encode_to_vec();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(encoded.len() as u32);
    frame.put_slice(&encoded);
    let _ = sender.send_data(frame.freeze(), false);
}

fn take(received: &mut BytesMut) -> Option<FromModule> {
    let len = u32::from_be_bytes(*received.get(1..5)?.first_chunk()?) as usize;
    if received.len() < 5 + len {
        return None;
    }
    received.advance(5);
    Some(FromModule::decode(received.split_to(len)).expect("a message"))
}
