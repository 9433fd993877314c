//! One stream to a module, from its Hello to its end.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http2_server::StreamId;
use talos_proto::edge::from_module::Message as FromModule;
use talos_proto::edge::from_server::Message as FromServer;
use talos_proto::edge::{
    Ask, Change, Forget, Knowledge, Limits, ModuleHello, NoEntry, ServerHello, Tick, Used,
};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::super::fallback_body::IncomingBody;
use super::super::server::AuthorizationService;
use super::super::session::SharedSession;
use super::answer::{label, wait};
use super::ended::Ended;
use super::messages::{Input, Output};
use super::settings::Generation;
use super::{
    Admitted, HELLO_TIMEOUT, MAX_ASKS_IN_FLIGHT, MAX_CHANGES, MAX_ENTRIES, MAX_ENTRY_BYTES, MAX_SILENCE,
    MAX_TICKS_A_SECOND, MAX_USED_ROWS, PROTOCOL, PUSH_INTERVAL, TICK_INTERVAL,
};
use crate::cache::freshness::{Follower, FollowerUpdate, SlotChange};
use crate::telemetry::metrics::Metrics;

/// Stream that is being served.
struct Stream {
    authorization: Rc<AuthorizationService>,
    output: Output,
    generation: Generation,
    /// Values of slots that were sent; `None` while another thread compares them.
    follower: Option<Follower>,
    ticks: Ticks,
}

/// Counts an open stream until it is dropped, and then its end.
///
/// A stream that the module resets, or whose connection is gone, is dropped wherever it waits.
struct Open {
    metrics: Arc<Metrics>,
    /// Reason for the end, as far as is known now.
    ended: Ended,
}

impl Open {
    /// Counts a stream, which the module closes unless another reason is set.
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.edge.streams.inc();
        Self { metrics, ended: Ended::Closed }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let ended = &self.ended;
        self.metrics.edge.streams.dec();
        self.metrics.edge.ended(ended.label());
        tracing::info!(reason = ended.label(), %ended, "the stream to a module in Envoy has ended");
    }
}

impl Admitted {
    /// Serves the stream to its end.
    pub(in super::super) async fn serve(
        self,
        body: IncomingBody,
        (id, session): (StreamId, Rc<SharedSession>),
        stop: CancellationToken,
    ) {
        let Self { authorization, permit } = self;
        let mut open = Open::new(Arc::clone(&authorization.metrics));
        let mut stream = Stream {
            generation: Generation::first(&authorization.service),
            follower: Some(authorization.service.freshness.follower()),
            authorization,
            output: Output::begin(id, session),
            ticks: Ticks::new(Instant::now()),
        };
        let Err(ended) = stream.run(Input::new(body), stop).await;
        open.ended = ended;
        stream.output.end(&open.ended.status());
        drop((open, permit));
    }
}

impl Stream {
    async fn run(&mut self, mut input: Input, stop: CancellationToken) -> Result<Infallible, Ended> {
        let first = timeout(HELLO_TIMEOUT, input.next()).await.map_err(|_| Ended::NoHello)??;
        let Some(FromModule::Hello(hello)) = first else {
            return Err(Ended::NoHello);
        };
        self.greet(&hello).await?;
        let mut progress = self.authorization.service.freshness.progress();
        let (mut pushed_at, mut push_at) = (Instant::now(), None);
        loop {
            let silent_at = self.ticks.last_at + MAX_SILENCE;
            tokio::select! {
                () = stop.cancelled() => return Err(Ended::Stopping),
                message = input.next() => {
                    let message = message?.ok_or(Ended::Closed)?;
                    self.on_message(message).await?;
                }
                changed = progress.changed(), if push_at.is_none() => {
                    changed.map_err(|_| Ended::Stopping)?;
                    push_at = Some(pushed_at + PUSH_INTERVAL);
                }
                () = sleep_until(push_at.unwrap_or(silent_at)), if push_at.is_some() => {
                    (pushed_at, push_at) = (Instant::now(), None);
                    self.push().await?;
                }
                () = sleep_until(silent_at) => return Err(Ended::Silent),
            }
        }
    }

    /// Answers the Hello, and says what counts.
    async fn greet(&mut self, hello: &ModuleHello) -> Result<(), Ended> {
        let ModuleHello { min_protocol, max_protocol, .. } = *hello;
        if !(min_protocol..=max_protocol).contains(&PROTOCOL) {
            return Err(Ended::Version(min_protocol, max_protocol));
        }
        tracing::info!(
            module = shown(&hello.module_version),
            envoy = shown(&hello.envoy_version),
            protocol = PROTOCOL,
            "a module in Envoy is served"
        );
        let service = &self.authorization.service;
        let hello = ServerHello {
            protocol: PROTOCOL,
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            index_seed: Bytes::copy_from_slice(service.memory.seed()),
            limits: Some(Limits {
                max_asks_in_flight: MAX_ASKS_IN_FLIGHT,
                max_changes: u32::try_from(MAX_CHANGES).unwrap_or(u32::MAX),
                max_used_rows: u32::try_from(MAX_USED_ROWS).unwrap_or(u32::MAX),
                max_entries: MAX_ENTRIES,
                max_bytes: MAX_ENTRY_BYTES,
                tick_micros: micros(TICK_INTERVAL),
            }),
        };
        let settings = self.generation.message(service);
        self.output.send(FromServer::Hello(hello)).await?;
        self.output.send(FromServer::Settings(settings)).await?;
        Ok(())
    }

    async fn on_message(&mut self, message: FromModule) -> Result<(), Ended> {
        match message {
            FromModule::Hello(_) => Err(Status::invalid_argument("a Hello came twice").into()),
            FromModule::Tick(tick) => self.on_tick(tick).await,
            FromModule::Ask(ask) => self.on_ask(&ask).await,
            FromModule::Used(used) => self.on_used(&used),
        }
    }

    async fn on_tick(&mut self, Tick { id }: Tick) -> Result<(), Ended> {
        if !self.ticks.count(id, Instant::now()) {
            return Err(Ended::Ticks);
        }
        self.renew_generation().await?;
        let update = self.update().await?;
        let changes = self.send_changes_but_last(update.changes).await?;
        let knowledge = Knowledge {
            tick: id,
            age_micros: update.age.map(micros),
            changes,
            generation: self.generation.number,
        };
        self.output.send(FromServer::Knowledge(knowledge)).await?;
        Ok(())
    }

    async fn on_ask(&mut self, ask: &Ask) -> Result<(), Ended> {
        self.renew_generation().await?;
        let answer = self.authorization.answer_ask(&self.generation, ask);
        let metrics = &self.authorization.metrics.edge;
        let answer = match answer {
            Ok(entry) => {
                metrics.asked("entry");
                FromServer::Entry(entry)
            }
            Err(reason) => {
                metrics.asked(label(reason));
                let wait_micros = micros(wait(reason));
                FromServer::NoEntry(NoEntry { id: ask.id, reason: reason.into(), wait_micros })
            }
        };
        self.output.send(answer).await?;
        Ok(())
    }

    fn on_used(&self, used: &Used) -> Result<(), Ended> {
        if used.uses.len() > MAX_USED_ROWS {
            return Err(Status::invalid_argument("a Used has more than 64 rows").into());
        }
        used.uses.iter().for_each(|one| self.authorization.count_use(one));
        Ok(())
    }

    /// Sends what has changed, at once.
    async fn push(&mut self) -> Result<(), Ended> {
        let update = self.update().await?;
        let changes = self.send_changes_but_last(update.changes).await?;
        if !changes.is_empty() {
            self.output.send(FromServer::Forget(Forget { changes })).await?;
        }
        Ok(())
    }

    /// Sends changes in as many messages as they need, but for the last one, which is returned.
    async fn send_changes_but_last(&self, changes: Vec<SlotChange>) -> Result<Vec<Change>, Ended> {
        self.authorization.metrics.edge.changes.inc_by(changes.len() as u64);
        let mut parts = changes.chunks(MAX_CHANGES).map(|part| {
            part.iter().map(|change| Change { slot: change.slot, value: change.value }).collect()
        });
        let Some(mut last) = parts.next() else {
            return Ok(vec![]);
        };
        for next in parts {
            let changes = std::mem::replace(&mut last, next);
            self.output.send(FromServer::Forget(Forget { changes })).await?;
        }
        Ok(last)
    }

    /// Compares the slots, on a thread that answers no Checks.
    async fn update(&mut self) -> Result<FollowerUpdate, Ended> {
        let mut follower = self.follower.take().ok_or(Ended::Internal)?;
        let service = Arc::clone(&self.authorization.service);
        let comparing = self.authorization.runtime.spawn(async move {
            let update = service.freshness.update(&mut follower);
            (follower, update)
        });
        let (follower, update) = comparing.await.map_err(|_| Ended::Internal)?;
        self.follower = Some(follower);
        Ok(update?)
    }

    /// Tells the module other settings, if there are any.
    async fn renew_generation(&mut self) -> Result<(), Ended> {
        let Some(next) = self.generation.next(&self.authorization.service) else {
            return Ok(());
        };
        self.generation = next;
        let settings = self.generation.message(&self.authorization.service);
        self.output.send(FromServer::Settings(settings)).await?;
        match self.generation.settings.authz.edge.enabled {
            true => Ok(()),
            false => Err(Ended::Disabled),
        }
    }
}

/// Ticks of a module.
struct Ticks {
    /// Id of the last one.
    last_id: u64,
    /// Time of the last one, or of the start.
    last_at: Instant,
    /// Start of the second in which they are counted.
    second: Instant,
    /// Number of those in this second.
    count: u32,
}

impl Ticks {
    const fn new(now: Instant) -> Self {
        Self { last_id: 0, last_at: now, second: now, count: 0 }
    }

    /// Counts a Tick; false if it isn't in order, or there are too many.
    fn count(&mut self, id: u64, now: Instant) -> bool {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.count) = (now, 0);
        }
        let is_good = id > self.last_id && self.count < MAX_TICKS_A_SECOND;
        (self.last_id, self.last_at, self.count) = (id, now, self.count + 1);
        is_good
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Returns a version that a module tells, for the log.
fn shown(version: &str) -> &str {
    let is_usable = version.len() <= 64 && version.bytes().all(|byte| byte.is_ascii_graphic());
    if is_usable { version } else { "unreadable" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_numbered_in_order_and_bounded_by_the_second() {
        let start = Instant::now();
        let mut ticks = Ticks::new(start);
        assert!(!ticks.count(0, start));
        let mut ticks = Ticks::new(start);
        assert!((1..=20).all(|id| ticks.count(id, start)));
        assert!(!ticks.count(21, start));
        let later = start + Duration::from_secs(1);
        assert!(ticks.count(30, later) && !ticks.count(30, later));
    }

    #[test]
    fn versions_in_the_log_are_short_and_printable() {
        for (version, expected) in [("1.40.0", "1.40.0"), ("a b", "unreadable"), ("\n", "unreadable")] {
            assert_eq!(shown(version), expected);
        }
        assert_eq!(shown(&"x".repeat(65)), "unreadable");
    }
}
