//! A process with 512 MiB meets everything that clients are known to try, one after the other, and
//! still answers Checks. Where the machine lets the test make a cgroup, the kernel kills a process
//! that takes more; elsewhere its peak is compared with the bound.
//!
//! Other causes than a client's input are tested elsewhere: connections that outlive the authority
//! which admitted them in `secure/trust.rs`, key sets with keys that anybody can sign for in
//! `credential/jwk.rs`.

use serde_json::{Value, json};

use super::MIB;
use super::cgroup::MemoryBox;
use super::client::{Input, Pace, Plane, Sent, Style, send};
use super::frames::{Check, KEPT, NAMED, NEWEST, hello, in_frames, literal, stream};
use super::http::Target;
use crate::rig::authority::{Authority, forwarded, uri};
use crate::rig::check::Check as Request;
use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, number_from, until};
use crate::rig::talos::{ISSUED, JWKS, SELF_REVOKE, Talos};
use crate::wire::call::{HEALTH, REFLECTION, WATCH, call_of, reflect};
use crate::wire::frames::{
    CONTINUATION, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, data, frame, headers, ping, settings,
    window_update,
};

/// Memory of the process.
const LIMIT: u64 = 512 * MIB;

/// A process in its box, who may administer it, and an honest client's Check.
struct World {
    talos: Talos,
    admin: String,
    check: Check,
}

impl World {
    /// A call by the administrator.
    async fn call(&self, path: &str, body: &Value) -> (u16, Value) {
        let call = Call::post(path).header("x-forwarded-client-cert", &self.admin).json(body);
        let reply = self.talos.admin.send(Version::Http1, call).await;
        (reply.status, reply.json())
    }

    fn plane(&self, name: &'static str) -> Plane {
        let base = match name {
            "authz" => self.talos.authz,
            "public" => self.talos.public,
            "admin" => self.talos.admin,
            _ => self.talos.metrics,
        };
        Plane::plain(name, base)
    }

    /// Sends a part again and again through `clients` clients, `each` bytes through each of them.
    async fn flood(&self, plane: &'static str, clients: usize, each: usize, input: Input) -> Sent {
        send(&self.plane(plane), &input, clients, clients * each, Pace::Unlimited).await
    }

    /// Says what the process holds, and asserts that it lives.
    async fn survives(&mut self, what: &str, limit: u64) {
        assert!(self.talos.process.ended().is_none(), "{what} ended it:\n{}", self.talos.process.log());
        self.check.is_answered(&self.talos).await;
        let (now, peak) = (self.talos.process.memory(), self.talos.process.peak_memory());
        println!("{what}: {} MiB now, {} MiB at most", now / MIB, peak / MIB);
        assert!(peak < limit, "{what}: {} MiB", peak / MIB);
    }

    /// Waits until a plane has no connections any more.
    async fn are_sent_away(&self, plane: &str) {
        let open = format!("talos_connections{{plane=\"{plane}\"}} 0");
        until("all are sent away", async || {
            self.talos.metrics.get("/metrics").await.text().contains(&open).then_some(())
        })
        .await;
    }
}

async fn start(of_memory: &MemoryBox) -> World {
    let admin = Authority::new().client(vec![uri("spiffe://test/admin")], 2100);
    let setup = super::patient()
        .set("TALOS_SERVE_HTTP_AUTH_MODE", "xfcc")
        .set("TALOS_SERVE_HTTP_AUTH_XFCC_PEERS", "127.0.0.1")
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_ADMIN", "spiffe://test/admin")
        .in_cgroup(of_memory.processes());
    let talos = setup.start().await;
    let header = forwarded(&admin.0, "URI=spiffe://test/admin");
    let world = World { talos, admin: header, check: Check::from_secret("") };
    let (status, issued) = world.call(ISSUED, &json!({ "name": "a", "actor_id": "honest" })).await;
    assert_eq!(status, 201, "{issued:#}");
    let check = Check::from_secret(issued.text("/secret"));
    World { check, ..world }
}

/// Number of clients that come at once where many do.
fn many() -> usize {
    number_from("TALOS_TEST_CLIENTS", 500)
}

fn waiting(name: &str, part: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Input {
    Input::new(name, hello(&[(INITIAL_WINDOW_SIZE, 0)]), Style::Stalls, part)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_512_mib_lives_through_everything() {
    let of_memory = MemoryBox::new(LIMIT);
    let mut world = start(&of_memory).await;
    let limit = of_memory.limit();
    world.survives("nothing", limit).await;
    announcements(&mut world, limit).await;
    unread_bodies(&mut world, limit).await;
    packed_heads(&mut world, limit).await;
    untaken_answers(&mut world, limit).await;
    http_planes(&mut world, limit).await;
    forged_certificates(&mut world, limit).await;
    claims_and_numbers(&mut world, limit).await;
}

/// Calls that announce 4 MiB and send a byte of it.
async fn announcements(world: &mut World, limit: u64) {
    let calls = |n: u32| -> Vec<u8> {
        let path = [HEALTH, WATCH, REFLECTION][n as usize % 3];
        [headers(stream(n), &call_of(path)), data(stream(n), &[0, 0, 0x40, 0, 0, 0])].concat()
    };
    let input = Input::new("announcements", hello(&[]), Style::Reads, calls);
    let sent = world.flood("authz", 50, 400 * 120, input).await;
    world.survives("calls that announce much and send little", limit).await;
    drop(sent);
}

/// Sends bodies that the server doesn't read, and messages that lack their last byte.
async fn unread_bodies(world: &mut World, limit: u64) {
    let question = reflect(7, "*").repeat(2_000);
    let calls = move |n: u32| [headers(stream(n), &call_of(REFLECTION)), data(stream(n), &question)].concat();
    let sent = world.flood("authz", 30, 1 << 20, waiting("unread bodies", calls)).await;
    world.survives("bodies that nobody reads", limit).await;
    drop(sent);
    // Messages of 4 MiB each, a frame at a time.
    let head = world.check.begun_with(4 << 20);
    let parts = move |n: u32| match n {
        0 => head.clone(),
        _ => data(1, &[0; 16_000]),
    };
    let input = Input::new("half messages", hello(&[]), Style::Reads, parts);
    let sent = world.flood("authz", 30, 2 << 20, input).await;
    world.survives("messages without their end", limit).await;
    drop(sent);
}

/// Header blocks that refer to a long field, and SETTINGS that have thousands of entries.
async fn packed_heads(world: &mut World, limit: u64) {
    let name = vec![b'n'; 4_000];
    for (what, more, times) in [("whole", &NEWEST[..], 60_000), ("by name", &NAMED[..], 20_000)] {
        let block = [world.check.block(), literal(KEPT, &name, b""), more.repeat(times)].concat();
        let input =
            Input::new(what, hello(&[]), Style::Reads, move |n| in_frames(stream(n), END_STREAM, &block));
        let sent = world.flood("authz", 2, 1 << 20, input).await;
        world.survives(&format!("a long field, referred to {what}"), limit).await;
        drop(sent);
    }
    let check = world.check.clone();
    let input = waiting("settings", move |n| match n {
        0..1_000 => check.on(stream(n)),
        _ => settings(&[(INITIAL_WINDOW_SIZE, n % 2); 2_700]),
    });
    let sent = world.flood("authz", 2, 1 << 20, input).await;
    world.survives("SETTINGS of thousands of windows while answers wait", limit).await;
    drop(sent);
    let floods: [fn(u32) -> Vec<u8>; 3] = [
        |n| ping(u64::from(n).to_be_bytes()),
        |_| window_update(0, 1),
        |n| match n {
            0 => frame(HEADERS, 0, 1, &[]),
            _ => frame(CONTINUATION, 0, 1, &literal(0, b"x-long", &[b'a'; 1_000])),
        },
    ];
    for flood in floods {
        let sent =
            world.flood("authz", many(), 20_000, Input::new("", hello(&[]), Style::Stalls, flood)).await;
        drop(sent);
    }
    world.survives("floods of frames", limit).await;
}

/// Sends requests whose answers, short and long ones, aren't taken.
async fn untaken_answers(world: &mut World, limit: u64) {
    for (what, long, each) in [("short", 0, 40_000), ("long", 9_000, 100_000)] {
        let check = world.check.answered_by_more(long);
        let sent = world.flood("authz", many(), each, waiting("untaken", move |n| check.on(stream(n)))).await;
        world.survives(&format!("{what} answers that nobody takes"), limit).await;
        if long > 0 {
            world.are_sent_away("authz").await;
        }
        drop(sent);
    }
}

/// Heads, bodies and answers of the HTTP planes.
async fn http_planes(world: &mut World, limit: u64) {
    for plane in ["public", "admin", "metrics"] {
        let begun = b"GET /health/alive HTTP/1.1\r\nhost: localhost\r\n".to_vec();
        let endless = |n: u32| format!("x-{n:05}: {}\r\n", "a".repeat(1_000)).into_bytes();
        let sent = world.flood(plane, many(), 60_000, Input::new("", begun, Style::Stalls, endless)).await;
        world.survives(&format!("{plane}: heads without end"), limit).await;
        drop(sent);
    }
    let revoke = Target::post(SELF_REVOKE, "{").begun_on_http2(60_000);
    for plane in ["public", "admin"] {
        let revoke = revoke.clone();
        let bodies = Input::new("", hello(&[]), Style::Stalls, move |n| revoke(stream(n)));
        let sent = world.flood(plane, many() / 5, 240_000, bodies).await;
        world.survives(&format!("{plane}: bodies without end"), limit).await;
        drop(sent);
    }
    for (plane, path, clients, each) in [
        ("public", JWKS, many(), 3_000),
        ("metrics", "/metrics", many() / 10, 1_500),
        ("admin", "/openapi.json", many() / 10, 1_500),
    ] {
        for window in [0, 1] {
            let target = Target::get(path);
            let opening = hello(&[(INITIAL_WINDOW_SIZE, window)]);
            let answers = Input::new("", opening, Style::Stalls, move |n| target.on(stream(n)));
            let sent = world.flood(plane, clients, each, answers).await;
            world.survives(&format!("{plane}: answers that nobody takes, a window of {window}"), limit).await;
            drop(sent);
        }
    }
}

/// Forwarded certificates with separators in their names, and headers that are much to read.
async fn forged_certificates(world: &mut World, limit: u64) {
    let pasted = format!("{},URI=spiffe://test/admin", "x".repeat(100));
    let forged = Authority::new().client(vec![uri(&pasted)], 2100);
    let element = forwarded(&forged.0, &format!("URI={pasted}"));
    let headers =
        [element.clone(), vec![element.as_str(); 16].join(","), ",".repeat(30_000), "\"\\".repeat(15_000)];
    for header in headers {
        for _ in 0..50 {
            let call = Call::post(ISSUED).header("x-forwarded-client-cert", &header).json(&json!({}));
            world.talos.admin.send(Version::Http1, call).await.expect(401);
        }
    }
    world.survives("forged certificates", limit).await;
}

/// Tokens whose claims steer terminals, numbers that no double holds, and units that aren't
/// enforced.
async fn claims_and_numbers(world: &mut World, limit: u64) {
    let header = "eyJhbGciOiJFZERTQSIsImtpZCI6Iml0LTEifQ";
    // {"iss":"a\nb\u001b[2J","sub":"\u202e"}
    let claims = "eyJpc3MiOiJhXG5iXHUwMDFiWzJKIiwic3ViIjoiXHUyMDJlIn0";
    for _ in 0..100 {
        world.talos.check(Request::bearer(&format!("{header}.{claims}.AAAA"))).await.denied(401);
    }
    for number in ["9007199254740993", "18446744073709551616", "1e400"] {
        let body = format!(r#"{{"name":"a","actor_id":"a","metadata":{{"tenant":{number}}}}}"#);
        let call = Call::post(ISSUED).header("x-forwarded-client-cert", &world.admin);
        world
            .talos
            .admin
            .send(Version::Http1, call.body("application/json", body))
            .await
            .expect_bad_request();
    }
    let policy = json!({ "quota": "5", "window": "60s", "unit": "content-bytes" });
    let unit = json!({ "name": "a", "actor_id": "a", "rate_limit_policy": policy });
    let (status, issued) = world.call(ISSUED, &unit).await;
    assert_eq!(status, 201, "{issued:#}");
    world.survives("claims and numbers", limit).await;
}
