//! The other end of the accelerator's stream: what a module in Envoy sends and receives.

use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use prost::Message;
use sha2::{Digest, Sha256};
use talos_proto::edge::{
    Ask, Change, Entry, FromModule, FromServer, Knowledge, ModuleHello, NoEntryReason, ServerHello, Settings,
    Tick, Used, from_module, from_server,
};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::rig::grpc::{Grpc, framed};
use crate::rig::http::{Base, Call, Version};
use crate::rig::support::{Must, until, within};
use crate::rig::talos::{Setup, Talos};

pub const CONNECT: &str = "/talos.edge.v1.Edge/Connect";

pub const HELLO: ModuleHello = ModuleHello {
    min_protocol: 1,
    max_protocol: 1,
    module_version: String::new(),
    envoy_version: String::new(),
};

/// A process whose authz plane is a Unix socket.
pub struct Server {
    pub talos: Talos,
    pub socket: PathBuf,
}

/// The end of a stream, or of an attempt to open one.
#[derive(Debug)]
pub struct Ended {
    pub code: u32,
    pub text: String,
}

pub struct Module {
    sender: mpsc::UnboundedSender<Bytes>,
    body: Incoming,
    held: BytesMut,
    /// Changes that came, in their order.
    pub changes: Vec<Change>,
    pub hello: ServerHello,
    /// The newest settings.
    pub settings: Settings,
    last_id: u64,
}

impl Server {
    pub async fn start(setup: Setup) -> Server {
        let socket = setup.path("authz.sock");
        let setup = setup.set("TALOS_SERVE_AUTHZ_SOCKET", &socket.display().to_string());
        let is_ready = async |talos: &Talos| {
            let ready = talos.metrics.try_send(Version::Http1, Call::get("/health/ready")).await;
            ready.is_ok_and(|reply| reply.status == 200) && UnixStream::connect(&socket).await.is_ok()
        };
        let talos = setup.start_until(is_ready).await;
        Server { talos, socket }
    }

    /// A client of the authz plane.
    pub async fn grpc(&self) -> Grpc {
        let stream = UnixStream::connect(&self.socket).await.must("connecting to the socket");
        Grpc::over(Base::local(1), stream).await.must("HTTP/2")
    }

    /// Has a Check allowed, so that the cache holds its key. On a busy machine, one that isn't
    /// cached may come too late.
    pub async fn checked(&self, check: &CheckRequest) {
        let grpc = self.grpc().await;
        until("a Check is allowed", async || grpc.check(check).await.passes().then_some(())).await;
    }

    /// A module that has been greeted.
    pub async fn module(&self) -> Module {
        match self.try_module(HELLO).await {
            Ok(module) => module,
            Err(ended) => panic!("no stream: {ended:?}"),
        }
    }

    /// A module that says this.
    pub async fn try_module(&self, hello: ModuleHello) -> Result<Module, Ended> {
        let mut module = Module::open(&self.grpc().await).await?;
        module.send(from_module::Message::Hello(hello));
        module.greeted().await?;
        Ok(module)
    }
}

impl Module {
    /// Opens a stream, and says nothing.
    pub async fn open(grpc: &Grpc) -> Result<Module, Ended> {
        let (sender, response) = grpc.open(CONNECT).await.must("a response");
        if let Some(ended) = Ended::of(response.headers()) {
            return Err(ended);
        }
        Ok(Module {
            sender,
            body: response.into_body(),
            held: BytesMut::new(),
            changes: vec![],
            hello: ServerHello::default(),
            settings: Settings::default(),
            last_id: 0,
        })
    }

    /// Waits for the server's Hello and settings.
    async fn greeted(&mut self) -> Result<(), Ended> {
        match self.next().await? {
            from_server::Message::Hello(hello) => self.hello = hello,
            other => panic!("not a Hello: {other:?}"),
        }
        match self.next().await? {
            from_server::Message::Settings(settings) => self.settings = settings,
            other => panic!("no settings: {other:?}"),
        }
        Ok(())
    }

    pub fn send(&self, message: from_module::Message) {
        self.send_bytes(&FromModule { message: Some(message) }.encode_to_vec());
    }

    /// Sends any message.
    pub fn send_bytes(&self, message: &[u8]) {
        // A stream that has ended tells so when it is read.
        let _ = self.sender.send(framed(message));
    }

    /// Returns the next message.
    pub async fn next(&mut self) -> Result<from_server::Message, Ended> {
        loop {
            if let [0, a, b, c, d, rest @ ..] = &self.held[..] {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                if rest.len() >= length {
                    let message = FromServer::decode(&rest[..length]).must("a message");
                    let _ = self.held.split_to(5 + length);
                    return Ok(message.message.must("a message that is known"));
                }
            }
            let frame = within("the next message of a stream", self.body.frame()).await;
            let frame = frame.map(|frame| frame.map_err(|error| error.to_string()));
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.held.extend_from_slice(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        return Err(Ended::of(&trailers).must("a status"));
                    }
                },
                other => return Err(Ended { code: 2, text: format!("{other:?}") }),
            }
        }
    }

    /// Returns the next message that is neither settings nor changes, which are kept.
    pub async fn answer(&mut self) -> Result<from_server::Message, Ended> {
        loop {
            match self.next().await? {
                from_server::Message::Settings(settings) => self.settings = settings,
                from_server::Message::Forget(forget) => self.changes.extend(forget.changes),
                answer => return Ok(answer),
            }
        }
    }

    /// Waits for the end of the stream.
    pub async fn end(&mut self) -> Ended {
        loop {
            if let Err(ended) = self.answer().await {
                return ended;
            }
        }
    }

    pub async fn tick(&mut self) -> Knowledge {
        self.try_tick().await.must("knowledge")
    }

    /// As [`Module::tick`], on a stream that may end.
    pub async fn try_tick(&mut self) -> Result<Knowledge, Ended> {
        // The server takes 20 a second.
        tokio::time::sleep(Duration::from_millis(60)).await;
        self.last_id += 1;
        self.send(from_module::Message::Tick(Tick { id: self.last_id }));
        match self.answer().await? {
            from_server::Message::Knowledge(knowledge) => {
                assert_eq!(knowledge.tick, self.last_id);
                self.changes.extend(knowledge.changes.iter().copied());
                Ok(knowledge)
            }
            other => panic!("no knowledge: {other:?}"),
        }
    }

    /// The index of a credential.
    pub fn index(&self, credential: &str) -> Bytes {
        let seeded = Sha256::new().chain_update(&self.hello.index_seed);
        seeded.chain_update(credential).finalize().to_vec().into()
    }

    /// The question about a credential, of a route without settings.
    pub fn question(&mut self, credential: &str) -> Ask {
        self.last_id += 1;
        Ask {
            id: self.last_id,
            index: self.index(credential),
            generation: self.settings.generation,
            policy: Bytes::from_static(b"fingerprint"),
            ..Ask::default()
        }
    }

    pub async fn ask(&mut self, ask: Ask) -> Result<Entry, NoEntryReason> {
        let id = ask.id;
        self.send(from_module::Message::Ask(ask));
        match self.answer().await.must("an answer") {
            from_server::Message::Entry(entry) => {
                assert_eq!(entry.id, id);
                Ok(entry)
            }
            from_server::Message::NoEntry(none) => {
                assert_eq!(none.id, id);
                Err(none.reason())
            }
            other => panic!("no answer: {other:?}"),
        }
    }

    pub async fn ask_for(&mut self, credential: &str) -> Result<Entry, NoEntryReason> {
        let ask = self.question(credential);
        self.ask(ask).await
    }

    pub fn used(&self, used: Used) {
        self.send(from_module::Message::Used(used));
    }

    /// Returns whether a change that came makes an entry stale.
    pub fn has_forgotten(&self, entry: &Entry) -> bool {
        let concerns = |change: &&Change| [entry.key_slot, entry.actor_slot].contains(&change.slot);
        self.changes.iter().filter(concerns).any(|change| change.value > entry.stamp)
    }
}

impl Ended {
    fn of(headers: &HeaderMap) -> Option<Ended> {
        let field =
            |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let code = field("grpc-status")?.parse().must("a status");
        Some(Ended { code, text: field("grpc-message").unwrap_or_default() })
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{self:?}")
    }
}
