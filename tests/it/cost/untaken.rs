//! Many clients at once that take no answers: memory stays bounded, and all are sent away in the
//! written time.

use std::time::{Duration, Instant};

use super::client::{Input, Pace, Plane, Sent, Style, send};
use super::frames::{Check, hello, stream};
use super::http::Target;
use super::{is_long, memory_bound, patient};
use crate::rig::support::number_from;
use crate::rig::talos::{JWKS, Talos};
use crate::wire::frames::INITIAL_WINDOW_SIZE;

/// Time that answers of the authz plane may be left.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Time that a request to an HTTP plane may take until its answer is taken.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that the closing and a busy machine may take on top.
const SLACK: Duration = Duration::from_secs(10);

/// Number of clients, and of the requests that each sends.
fn counts() -> (usize, u32) {
    (number_from("TALOS_TEST_CLIENTS", 60), if is_long() { 1_000 } else { 50 })
}

/// Sends `requests` requests of each of `count` clients, whose windows stay closed, and takes no
/// answers.
async fn leave(
    plane: &Plane,
    count: usize,
    requests: u32,
    on: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
) -> Sent {
    let all: Vec<u8> = (0..requests).flat_map(|n| on(stream(n))).collect();
    let budget = count * (all.len() + 100);
    let opening = hello(&[(INITIAL_WINDOW_SIZE, 0)]);
    // After all requests come frames without effect.
    let input = Input::new("requests whose answers aren't taken", opening, Style::Stalls, move |n| match n {
        0 => all.clone(),
        _ => crate::wire::frames::window_update(0, 1),
    });
    send(plane, &input, count, budget, Pace::Unlimited).await
}

/// Waits until a plane has no connections any more, `age` old at most.
async fn are_sent_away(talos: &Talos, plane: &Plane, began: Instant, within: Duration) {
    let open = format!("talos_connections{{plane=\"{}\"}} ", plane.name);
    loop {
        let page = talos.metrics.get("/metrics").await.text();
        let line = page.lines().find_map(|line| line.strip_prefix(open.as_str()));
        let left: f64 = line.and_then(|number| number.parse().ok()).unwrap_or(0.0);
        if left == 0.0 {
            println!("{}: all are sent away after {:?}", plane.name, began.elapsed());
            return;
        }
        assert!(
            began.elapsed() < within,
            "{}: {left} are still there after {:?}",
            plane.name,
            began.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_take_no_responses_of_the_authz_plane_are_disconnected() {
    let talos = patient().start().await;
    let plane = Plane::plain("authz", talos.authz);
    let check = Check::of(&talos, &plane).await;
    let (count, requests) = counts();
    let before = talos.process.memory();
    talos.process.forget_peak();
    let began = Instant::now();
    let asked = check.clone();
    let sent = leave(&plane, count, requests, move |stream| asked.on(stream)).await;
    // The last of them began by now.
    let within = began.elapsed() + ANSWER_TIMEOUT + SLACK;
    are_sent_away(&talos, &plane, began, within).await;
    let growth = talos.process.peak_memory().saturating_sub(before);
    println!("{count} clients, {} bytes, {} KiB more", sent.bytes, growth / 1024);
    assert!(growth < memory_bound(count), "{growth} bytes");
    check.is_answered(&talos).await;
}

/// A minute and more for each plane: for the long run alone. The short one sees that memory is
/// bounded.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_take_no_responses_of_an_http_plane_are_disconnected() {
    let talos = patient().start().await;
    for (plane, target) in [
        (Plane::plain("public", talos.public), Target::get(JWKS)),
        (Plane::plain("admin", talos.admin), Target::verify()),
    ] {
        let (count, requests) = counts();
        let before = talos.process.memory();
        talos.process.forget_peak();
        let began = Instant::now();
        let sent = leave(&plane, count, requests.min(100), move |stream| target.on(stream)).await;
        if is_long() {
            let within = began.elapsed() + EXCHANGE_TIMEOUT + SLACK;
            are_sent_away(&talos, &plane, began, within).await;
        }
        let growth = talos.process.peak_memory().saturating_sub(before);
        println!("{}: {count} clients, {} bytes, {} KiB more", plane.name, sent.bytes, growth / 1024);
        assert!(growth < memory_bound(count), "{}: {growth} bytes", plane.name);
    }
}
