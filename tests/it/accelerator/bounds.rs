//! Bounds of the stream, and peers that are refused.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use talos_proto::edge::from_module::Message as FromModule;
use talos_proto::edge::{ModuleHello, Tick, Use, Used};

use super::{FAILED_PRECONDITION, INVALID_ARGUMENT, PERMISSION_DENIED, RESOURCE_EXHAUSTED, setup};
use crate::rig::edge_module::{HELLO, Module, Server};
use crate::rig::grpc::{Grpc, Health};
use crate::rig::http::Base;
use crate::rig::needs::variable;
use crate::rig::process::{Process, free_port};
use crate::rig::support::{Must, until};

#[tokio::test(flavor = "multi_thread")]
async fn four_modules_are_served_and_no_more() {
    let server = Server::start(setup()).await;
    let mut modules = vec![];
    for _ in 0..4 {
        modules.push(server.module().await);
    }
    let refused = server.try_module(HELLO).await.err().must("refused");
    assert_eq!(refused.code, RESOURCE_EXHAUSTED, "{refused}");
    assert!(server.talos.metric("talos_edge_streams").await == 4.0);
    let closed = "talos_edge_streams_ended_total{reason=\"closed\"}";
    assert!(server.talos.metric(closed).await == 0.0);
    modules.pop();
    until("another one is served", async || server.try_module(HELLO).await.ok()).await;
    until("the end is counted", async || (server.talos.metric(closed).await >= 1.0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_by_its_age_only_once_it_serves_no_module() {
    let server = Server::start(setup().set("TALOS_SERVE_AUTHZ_MAX_CONNECTION_AGE", "1s")).await;
    let grpc = server.grpc().await;
    let mut module = Module::open(&grpc).await.must("a stream");
    module.send(FromModule::Hello(HELLO));
    for greeting in ["a Hello", "settings"] {
        module.next().await.must(greeting);
    }
    // Longer than the age and the 10 s that streams have to end once it is reached.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(15) {
        module.tick().await;
    }
    drop(module);
    until("the connection ends", async || grpc.health("").await.err()).await;
    let streams = async || server.talos.metric("talos_edge_streams").await;
    until("its stream is over", async || (streams().await == 0.0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_versions_of_the_protocol_end_it() {
    let server = Server::start(setup()).await;
    for (min_protocol, max_protocol, code) in [
        (2, 3, FAILED_PRECONDITION),
        (0, 0, FAILED_PRECONDITION),
        (2, 1, FAILED_PRECONDITION),
        (1, 9, 0),
        (0, 1, 0),
    ] {
        let hello = ModuleHello { min_protocol, max_protocol, ..HELLO };
        match server.try_module(hello).await {
            Ok(module) => assert_eq!((module.hello.protocol, code), (1, 0)),
            Err(ended) => assert_eq!(ended.code, code, "{min_protocol} {max_protocol}: {ended}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_ends_the_stream() {
    let server = Server::start(setup()).await;
    let mut silent = Module::open(&server.grpc().await).await.must("a stream");
    silent.send(FromModule::Tick(Tick { id: 1 }));
    assert_eq!(silent.end().await.code, INVALID_ARGUMENT, "no Hello");

    let tick = |id| FromModule::Tick(Tick { id });
    let used = FromModule::Used(Used { uses: vec![Use::default(); 65] });
    for (what, messages) in [
        ("a second Hello", vec![FromModule::Hello(HELLO)]),
        ("Ticks out of order", vec![tick(2), tick(1)]),
        ("too many rows", vec![used]),
    ] {
        let mut module = server.module().await;
        for message in messages {
            module.send(message);
        }
        let ended = module.end().await;
        assert_eq!(ended.code, INVALID_ARGUMENT, "{what}: {ended}");
    }
    for (message, code) in [(vec![0xff; 10], INVALID_ARGUMENT), (vec![0; 16 * 1024 + 1], RESOURCE_EXHAUSTED)]
    {
        let mut module = server.module().await;
        module.send_bytes(&message);
        assert_eq!(module.end().await.code, code);
    }
    // Fields and messages of a later version are ignored.
    let mut module = server.module().await;
    module.send_bytes(&[0x7a, 2, 1, 2]);
    module.tick().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_of_another_user_is_refused() {
    needs!(Python);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = Server::start(setup()).await;
    let directory = server.socket.parent().must("a directory");
    for path in [directory, &server.socket] {
        std::fs::set_permissions(path, Permissions::from_mode(0o777)).must("permissions");
    }
    let port = free_port();
    let mut command = Command::new(variable("TALOS_TEST_PYTHON"));
    command.args(["-c", RELAY, &port.to_string(), &server.socket.display().to_string()]);
    let _relay = Process::spawn("relay", command, &server.talos.setup.path("relay.log"));
    let relay = until("the relay listens", async || Grpc::connect(Base::local(port)).await.ok()).await;
    let refused = Module::open(&relay).await.err().must("refused");
    assert_eq!(refused.code, PERMISSION_DENIED, "{refused}");
    let health = relay.health("").await.must("everything else is answered");
    assert_eq!(health, Health::Serving);
    server.module().await;
}

/// Passes connections on to a Unix socket, as another user.
const RELAY: &str = "
import os, socket, sys, threading
os.setresuid(65534, 65534, 65534)
def pump(one, other):
    while data := one.recv(65536):
        other.sendall(data)
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
while True:
    client, _ = listener.accept()
    server = socket.socket(socket.AF_UNIX)
    server.connect(sys.argv[2])
    for pair in [(client, server), (server, client)]:
        threading.Thread(target=pump, args=pair, daemon=True).start()
";
