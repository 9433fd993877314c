//! An open loop: requests begin when they are meant to, however long others take.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Sends the intended start of each request in time, from a thread of its own: a runtime's timer is too coarse. Ends
/// when nobody listens any more.
pub fn starts(rate: f64) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let begun = Instant::now();
        for n in 0_u64.. {
            let intended = begun + Duration::from_secs_f64(n as f64 / rate);
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
