//! The instances under test, and clients that record their answers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use serde_json::{Value, json};

use super::history::{
    Answer, Asked, Change, Credential, End, History, How, Index, Micros, Origin, Pause, Reading, Span,
    Verdict,
};
use crate::rig::check::Check;
use crate::rig::grpc::Grpc;
use crate::rig::http::{Call, Reply, Version};
use crate::rig::support::{Json, Must};
use crate::rig::talos::{IMPORTED, ISSUED, SELF_REVOKE, Talos, VERIFY};

/// Connections for Checks to each instance.
const CONNECTIONS: usize = 4;

pub struct World {
    began: Instant,
    pub instances: Vec<Instance>,
    history: Mutex<History>,
    /// The current fault, as its place in the schedule.
    phase: AtomicUsize,
    /// Number of keys that ended in each phase.
    ended: Vec<AtomicUsize>,
}

pub struct Instance {
    pub talos: Talos,
    grpc: Vec<Grpc>,
    next: AtomicUsize,
}

/// A key under observation.
#[derive(Clone)]
pub struct Subject {
    pub index: Index,
    /// Empty for what never was a key.
    pub id: String,
    pub secret: String,
    /// Actor of this key alone, by which it can be suspended as well.
    pub actor: String,
}

impl World {
    pub async fn new(instances: Vec<Talos>, phases: usize) -> World {
        let mut connected = Vec::new();
        for talos in instances {
            let mut grpc = Vec::new();
            for _ in 0..CONNECTIONS {
                grpc.push(talos.grpc().await);
            }
            connected.push(Instance { talos, grpc, next: AtomicUsize::new(0) });
        }
        World {
            began: Instant::now(),
            instances: connected,
            history: Mutex::default(),
            phase: AtomicUsize::new(0),
            ended: (0..phases).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    pub fn now(&self) -> Micros {
        u64::try_from(self.began.elapsed().as_micros()).must("a time")
    }

    pub async fn sleep_until(&self, at: Micros) {
        tokio::time::sleep_until((self.began + Duration::from_micros(at)).into()).await;
    }

    pub fn enter(&self, phase: usize) {
        self.phase.store(phase, Ordering::SeqCst);
    }

    /// Returns the number of keys that ended in a phase.
    pub fn ended(&self, phase: usize) -> usize {
        self.ended[phase].load(Ordering::SeqCst)
    }

    fn with<T>(&self, change: impl FnOnce(&mut History) -> T) -> T {
        change(&mut self.history.lock().must("the history"))
    }

    pub fn history(self) -> History {
        self.history.into_inner().must("the history")
    }

    fn add(&self, (id, secret, actor): (&str, &str, &str), origin: Option<Origin>) -> Subject {
        let index = self.with(|history| {
            history.credentials.push(Credential { origin, end: None, pauses: vec![] });
            history.credentials.len() - 1
        });
        let (id, secret, actor) = (id.to_owned(), secret.to_owned(), actor.to_owned());
        Subject { index, id, secret, actor }
    }

    /// Something that was never a key.
    pub fn garbage(&self, credential: &str) -> Subject {
        self.add(("", credential, ""), None)
    }

    /// A new key; None when the instance couldn't.
    pub async fn issue(&self, instance: usize, actor: &str) -> Option<Subject> {
        let call = Call::post(ISSUED).json(&json!({ "name": "observed", "actor_id": actor }));
        let (reply, span) = self.admin(instance, call).await;
        let document = reply.filter(|reply| reply.status == 201)?.json();
        let origin = Origin { instance, span, imported: false };
        let (id, secret) = (document.text("/issued_api_key/key_id"), document.text("/secret"));
        Some(self.add((id, secret, actor), Some(origin)))
    }

    /// A key of another system; None when the instance couldn't.
    pub async fn import(&self, instance: usize, raw_key: &str, actor: &str) -> Option<Subject> {
        let body = json!({ "raw_key": raw_key, "name": "observed", "actor_id": actor });
        let (reply, span) = self.admin(instance, Call::post(IMPORTED).json(&body)).await;
        let document = reply.filter(|reply| reply.status == 201)?.json();
        let origin = Origin { instance, span, imported: true };
        Some(self.add((document.text("/key_id"), raw_key, actor), Some(origin)))
    }

    /// Ends a key; returns the successor, if it got one.
    pub async fn end(&self, instance: usize, subject: &Subject, imported: bool, how: How) -> Option<Subject> {
        let kind = if imported { IMPORTED } else { ISSUED };
        let path = format!("{kind}/{}", subject.id);
        let call = match how {
            How::Revoked => Call::post(&format!("{path}:revoke"))
                .json(&json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" })),
            How::SelfRevoked => Call::post(SELF_REVOKE).json(&json!({ "credential": subject.secret })),
            How::Rotated => Call::post(&format!("{path}:rotate")).json(&json!({})),
            How::Deleted => Call::new("DELETE", &path),
        };
        let (reply, span) = match how {
            How::SelfRevoked => self.public(instance, call).await,
            How::Revoked | How::Rotated | How::Deleted => self.admin(instance, call).await,
        };
        let acknowledged = reply.as_ref().is_some_and(|reply| (200..300).contains(&reply.status));
        let failed = reply.as_ref().is_none_or(|reply| reply.status >= 500);
        assert!(acknowledged || failed, "{how:?}: {}", reply.map_or_else(String::new, |reply| reply.text()));
        let phase = self.phase.load(Ordering::SeqCst);
        let end = End { how, instance, span, acknowledged, phase };
        self.with(|history| history.credentials[subject.index].end = Some(end));
        self.ended[phase].fetch_add(1, Ordering::SeqCst);
        let successor = reply.filter(|_| acknowledged && how == How::Rotated)?.json();
        let origin = Origin { instance, span, imported: false };
        let (id, secret) = (successor.text("/issued_api_key/key_id"), successor.text("/secret"));
        Some(self.add((id, secret, &subject.actor), Some(origin)))
    }

    /// Suspends a key, or its actor. Returns false unless that was acknowledged.
    pub async fn suspend(&self, instance: usize, subject: &Subject, path: &str) -> bool {
        let began = self.change(instance, &format!("{path}:suspend")).await;
        let pause = Pause { began, ended: None };
        self.with(|history| history.credentials[subject.index].pauses.push(pause));
        began.acknowledged
    }

    /// Takes the last suspension back. Returns false unless that was acknowledged.
    pub async fn resume(&self, instance: usize, subject: &Subject, path: &str) -> bool {
        let ended = self.change(instance, &format!("{path}:resume")).await;
        self.with(|history| {
            let pause = history.credentials[subject.index].pauses.last_mut().must("a suspension");
            pause.ended = Some(ended);
        });
        ended.acknowledged
    }

    async fn change(&self, instance: usize, path: &str) -> Change {
        let (reply, span) = self.admin(instance, Call::post(path).json(&json!({}))).await;
        let acknowledged = reply.as_ref().is_some_and(|reply| reply.status == 200);
        let failed = reply.as_ref().is_none_or(|reply| reply.status >= 500);
        assert!(acknowledged || failed, "{path}: {}", reply.map_or_else(String::new, |reply| reply.text()));
        Change { instance, span, acknowledged }
    }

    /// A Check.
    pub async fn check(&self, instance: usize, subject: &Subject) -> Answer {
        let message = Check::bearer(&subject.secret).build().encode_to_vec();
        let Instance { grpc, next, .. } = &self.instances[instance];
        let grpc = &grpc[next.fetch_add(1, Ordering::Relaxed) % CONNECTIONS];
        let began = self.now();
        let verdict = grpc.check_bytes(message).await.and_then(|answer| answer.verdict());
        let span = Span { began, ended: self.now() };
        let answer = match verdict {
            Ok(verdict) if verdict.passes() => Answer::Allowed,
            Ok(verdict) if verdict.is(401) => Answer::Refused,
            Ok(verdict) => {
                assert!(verdict.is(503), "{verdict:?}");
                Answer::Unavailable
            }
            Err(_) => Answer::Unavailable,
        };
        self.note(Verdict { credential: subject.index, instance, asked: Asked::Check, span, answer });
        answer
    }

    /// Verify that reads the database.
    pub async fn verify(&self, instance: usize, subject: &Subject) {
        let call = Call::post(VERIFY).header("cache-control", "no-cache");
        let (reply, span) = self.admin(instance, call.json(&json!({ "credential": subject.secret }))).await;
        let answer = match reply {
            Some(reply) if reply.status == 200 => match reply.json()["is_valid"] {
                Value::Bool(true) => Answer::Allowed,
                _ => Answer::Refused,
            },
            Some(reply) => {
                assert!(reply.status >= 500, "{}", reply.text());
                Answer::Unavailable
            }
            None => Answer::Unavailable,
        };
        self.note(Verdict { credential: subject.index, instance, asked: Asked::NoCache, span, answer });
    }

    /// Reads the bound in force, of each instance, again and again.
    pub async fn read_bounds(&self, instance: usize) {
        let metrics = self.instances[instance].talos.metrics;
        loop {
            let began = self.now();
            if let Ok(page) = metrics.try_send(Version::Http1, Call::get("/metrics")).await {
                let span = Span { began, ended: self.now() };
                let page = page.text();
                let bound =
                    page.lines().find_map(|line| line.strip_prefix("talos_consistency_bound_seconds "));
                let seconds: f64 = bound.must("the bound among the metrics").parse().must("a number");
                let bound = (seconds * 1e6) as Micros;
                let outages = page.lines().find_map(|line| line.strip_prefix("talos_outages_total "));
                let outages = outages.must("the outages among the metrics").parse().must("a number");
                self.with(|history| history.readings.push(Reading { instance, span, bound, outages }));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn note(&self, verdict: Verdict) {
        self.with(|history| history.verdicts.push(verdict));
    }

    async fn admin(&self, instance: usize, call: Call) -> (Option<Reply>, Span) {
        let base = self.instances[instance].talos.admin;
        let began = self.now();
        let reply = base.try_send(Version::Http1, call).await.ok();
        (reply, Span { began, ended: self.now() })
    }

    async fn public(&self, instance: usize, call: Call) -> (Option<Reply>, Span) {
        let base = self.instances[instance].talos.public;
        let began = self.now();
        let reply = base.try_send(Version::Http1, call).await.ok();
        (reply, Span { began, ended: self.now() })
    }
}
