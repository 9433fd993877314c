//! Relaying what the database says, through Redis, to instances that can't reach it (`cache::freshness`).

use std::sync::Arc;
use std::time::Duration;

use crate::cache::freshness::{Answer, Asker, Question};
use crate::cache::shared::Shared;
use crate::clock::BootTime;
use crate::service::Service;

/// The side that reaches the database: reads questions before a poll, answers them after it.
pub struct Relay {
    service: Arc<Service>,
    shared: Arc<Shared>,
    /// Read before the last poll began.
    questions: Vec<Question>,
    /// What was answered last, and when: nobody needs it twice.
    last: Option<(Answer, BootTime)>,
}

impl Relay {
    /// None when nothing is to be relayed.
    pub fn of(service: &Arc<Service>) -> Option<Self> {
        let shared = service.shared.clone().filter(|_| !service.freshness.terms().relay.is_zero())?;
        Some(Self { service: Arc::clone(service), shared, questions: vec![], last: None })
    }

    /// To be called before a poll: only what was asked before it began may be answered with what it finds.
    pub async fn read_questions(&mut self) {
        self.questions = self.shared.questions(&self.service.settings.load().secrets).await;
    }

    /// To be called after a poll that succeeded.
    pub async fn answer(&mut self) {
        let answer = self.service.freshness.answer(&self.questions).filter(|_| !self.questions.is_empty());
        let Some(answer) = answer else {
            return;
        };
        let (ttl, now) = (life(&self.service), self.service.clock.boot());
        if self.last.as_ref().is_some_and(|(last, at)| *last == answer && now.since(*at) < ttl / 4) {
            return;
        }
        self.shared.answer(&self.service.settings.load().secrets, &answer, ttl).await;
        self.last = Some((answer, now));
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
        let (settings, now) = (service.settings.load_full(), service.clock.boot());
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
