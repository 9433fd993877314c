//! Relaying what the database says, through Redis, to instances that can't reach it (`cache::freshness`).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::cache::freshness::{Answer, Asker, Question};
use crate::cache::shared::Shared;
use crate::clock::BootTime;
use crate::service::Service;

/// The side that reaches the database: reads questions beside the polls, and answers after a poll those that were there
/// before it began.
pub struct Relay {
    service: Arc<Service>,
    shared: Arc<Shared>,
    /// Each with the moment at which it had been read first.
    questions: Mutex<Vec<(Question, BootTime)>>,
    /// What was answered last, and when: nobody needs it twice.
    last: Mutex<Option<(Answer, BootTime)>>,
    /// One answer at a time on its way.
    way: Arc<Semaphore>,
}

impl Relay {
    /// None when nothing is to be relayed.
    pub fn of(service: &Arc<Service>) -> Option<Arc<Self>> {
        let shared = service.shared.clone().filter(|_| !service.freshness.terms().relay.is_zero())?;
        let (questions, last, way) = (Mutex::default(), Mutex::default(), Arc::new(Semaphore::new(1)));
        Some(Arc::new(Self { service: Arc::clone(service), shared, questions, last, way }))
    }

    /// Reads questions, twice in each `interval` between two polls, for ever.
    pub async fn read(self: Arc<Self>, interval: Duration) {
        loop {
            let questions = self.shared.questions(&self.service.settings.load().secrets).await;
            self.note(questions);
            tokio::time::sleep(interval / 2).await;
        }
    }

    fn note(&self, questions: Vec<Question>) {
        let now = self.service.clock.boot_now();
        let mut known = self.questions.lock();
        let first_read = |question: &Question| {
            let before = known.iter().find(|(other, _)| other == question);
            before.map_or(now, |(_, read)| *read)
        };
        *known = questions.into_iter().map(|question| (question, first_read(&question))).collect();
    }

    /// To be called after a poll that succeeded. What it found counts as of some moment (see
    /// [`Freshness::known_since`]): only what had been asked by then may be answered with it.
    ///
    /// [`Freshness::known_since`]: crate::cache::freshness::Freshness::known_since
    pub fn answer(self: &Arc<Self>) {
        let Some(known_since) = self.service.freshness.known_since() else {
            return;
        };
        let questions: Vec<Question> = {
            let questions = self.questions.lock();
            let in_time = questions.iter().filter(|(_, read)| *read <= known_since);
            in_time.map(|(question, _)| *question).collect()
        };
        if questions.is_empty() {
            return;
        }
        let (Some(answer), Ok(way)) =
            (self.service.freshness.answer(&questions), Arc::clone(&self.way).try_acquire_owned())
        else {
            return;
        };
        let (ttl, now) = (life(&self.service), self.service.clock.boot_now());
        {
            let mut last = self.last.lock();
            if last.as_ref().is_some_and(|(last, at)| *last == answer && now.since(*at) < ttl / 4) {
                return;
            }
            *last = Some((answer.clone(), now));
        }
        let relay = Arc::clone(self);
        tokio::spawn(async move {
            let _way = way;
            relay.shared.answer(&relay.service.settings.load().secrets, &answer, ttl).await;
        });
    }
}

/// The side that is cut off: asks as long as polls are overdue, and listens for answers; for ever. Polls are meant to
/// be made every `interval`.
pub async fn ask(service: Arc<Service>, shared: Arc<Shared>, interval: Duration) {
    let freshness = &service.freshness;
    let mut asker = Asker::default();
    let mut asked: Option<BootTime> = None;
    loop {
        // Often enough that an answer doesn't lie there for long.
        tokio::time::sleep(interval / 4).await;
        if !freshness.wants_relay(interval) {
            asker.rest();
            asked = None;
            continue;
        }
        let (settings, now) = (service.settings.load_full(), service.clock.boot_now());
        if asked.is_none_or(|asked| now.since(asked) >= interval)
            && let Some(question) = asker.ask(freshness, &service.rng)
        {
            let [place] = service.rng.bytes();
            shared.ask(&settings.secrets, &question, place, life(&service)).await;
            asked = Some(now);
        }
        let before = freshness.relayed_age();
        if let Some(answer) = shared.find_answer(&settings.secrets).await
            && asker.hear(freshness, &answer)
            && before.is_none()
        {
            tracing::warn!(
                "the database can't be reached from here: another instance relays its log of changes"
            );
        }
    }
}

/// How long a question or an answer is of use.
fn life(service: &Service) -> Duration {
    let terms = service.freshness.terms();
    terms.lease + terms.relay
}
