//! Open-loop load: requests start at their intended time, however long others take.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Sends the intended start of each request on time, until the receiver is dropped.
///
/// It uses its own thread because the runtime's timer is too coarse.
pub(crate) fn intended_starts(rate: f64) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let started = Instant::now();
        for n in 0_u64.. {
            let intended = started + Duration::from_secs_f64(n as f64 / rate);
            if let Some(early) = intended.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            if sender.send(intended).is_err() {
                return;
            }
        }
    });
    receiver
}
