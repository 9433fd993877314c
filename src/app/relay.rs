//! Relays the mutation log through Redis to instances that can't reach the database.
#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "the simulation uses it"))]

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::cache::freshness::{RelayClient, RelayRequest, RelayResponse};
use crate::cache::redis::RedisCache;
use crate::clock::BootTime;
use crate::mutants::{self, Mutant};
use crate::service::Service;

/// Answering side, on an instance that reaches the database. It reads questions between polls, and
/// after a poll answers those that it had read before the poll began.
pub struct Relay {
    service: Arc<Service>,
    shared: Arc<RedisCache>,
    /// Each with the time at which it was first read.
    questions: Mutex<Vec<(RelayRequest, BootTime)>>,
    /// The last answer and its time, so that it isn't sent twice.
    last: Mutex<Option<(RelayResponse, BootTime)>>,
    /// Allows one answer at a time to be sent.
    sending: Arc<Semaphore>,
}

impl Relay {
    /// An answering side; None when relaying is turned off.
    pub fn new(service: &Arc<Service>) -> Option<Arc<Self>> {
        let shared = service.shared.clone().filter(|_| !service.freshness.config().relay.is_zero())?;
        let (questions, last, sending) = (Mutex::default(), Mutex::default(), Arc::new(Semaphore::new(1)));
        Some(Arc::new(Self { service: Arc::clone(service), shared, questions, last, sending }))
    }

    /// Reads questions forever, twice in each `interval` between two polls.
    pub async fn read(self: Arc<Self>, interval: Duration) {
        loop {
            let questions = self.shared.get_relay_requests(&self.service.settings.load().secrets).await;
            self.record(questions);
            tokio::time::sleep(interval / 2).await;
        }
    }

    fn record(&self, questions: Vec<RelayRequest>) {
        let now = self.service.clock.boot_now();
        let mut known = self.questions.lock();
        let first_read = |question: &RelayRequest| {
            let before = known.iter().find(|(other, _)| other == question);
            before.map_or(now, |(_, read)| *read)
        };
        *known = questions.into_iter().map(|question| (question, first_read(&question))).collect();
    }

    /// Answers questions, after a poll that succeeded. The poll proves what was true at some moment
    /// (see [`Freshness::lease_start`]): only questions that had been read by then are answered.
    ///
    /// [`Freshness::lease_start`]: crate::cache::freshness::Freshness::lease_start
    pub fn answer(self: &Arc<Self>) {
        let Some(known_since) = self.service.freshness.lease_start() else {
            return;
        };
        let questions: Vec<RelayRequest> = {
            let questions = self.questions.lock();
            let is_in_time = |read| read <= known_since || mutants::is_on(Mutant::RelayOfBefore);
            let in_time = questions.iter().filter(|(_, read)| is_in_time(*read));
            in_time.map(|(question, _)| *question).collect()
        };
        if questions.is_empty() {
            return;
        }
        let (Some(answer), Ok(permit)) = (
            self.service.freshness.relay_response(&questions),
            Arc::clone(&self.sending).try_acquire_owned(),
        ) else {
            return;
        };
        let (ttl, now) = (lifetime(&self.service), self.service.clock.boot_now());
        {
            let mut last = self.last.lock();
            if last.as_ref().is_some_and(|(last, at)| *last == answer && now.since(*at) < ttl / 4) {
                return;
            }
            *last = Some((answer.clone(), now));
        }
        let relay = Arc::clone(self);
        tokio::spawn(async move {
            let _permit = permit;
            relay.shared.put_relay_response(&relay.service.settings.load().secrets, &answer, ttl).await;
        });
    }
}

/// Asking side, on an instance that is cut off from the database: asks and reads answers while
/// polls are overdue, forever. Polls are due every `interval`.
pub async fn ask(service: Arc<Service>, shared: Arc<RedisCache>, interval: Duration) {
    let freshness = &service.freshness;
    let mut client = RelayClient::default();
    let mut asked: Option<BootTime> = None;
    loop {
        // Often enough that answers are read soon after they were sent.
        tokio::time::sleep(interval / 4).await;
        if !freshness.needs_relay(interval) {
            client.clear();
            asked = None;
            continue;
        }
        let (settings, now) = (service.settings.load_full(), service.clock.boot_now());
        if asked.is_none_or(|asked| now.since(asked) >= interval)
            && let Some(question) = client.request(freshness, &service.rng)
        {
            let [slot] = service.rng.bytes();
            shared.put_relay_request(&settings.secrets, &question, slot, lifetime(&service)).await;
            asked = Some(now);
        }
        let before = freshness.relayed_age();
        if let Some(answer) = shared.get_relay_response(&settings.secrets).await
            && client.accept(freshness, &answer)
            && before.is_none()
            && freshness.needs_relay(interval)
        {
            tracing::warn!("the database can't be reached: another instance relays the mutation log");
        }
    }
}

/// Time for which a question or an answer is of use.
fn lifetime(service: &Service) -> Duration {
    let terms = service.freshness.config();
    terms.lease + terms.relay
}
