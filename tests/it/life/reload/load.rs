//! Valid requests without a pause, on all planes, of which none may be refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use crate::rig::check::Check;
use crate::rig::grpc::Grpc;
use crate::rig::http::Base;
use crate::rig::support::{Must, until};
use crate::rig::talos::{DERIVE, Talos, VERIFY};

/// Credentials that are presented again and again. Keys can be derived from, tokens can't.
#[derive(Default)]
struct Credentials {
    keys: Vec<String>,
    tokens: Vec<String>,
}

pub struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    /// Locked for reading during a round, so that a writer knows that no older round is under way.
    credentials: RwLock<Credentials>,
    stop: AtomicBool,
    answered: AtomicUsize,
}

enum Asking {
    Verify(Base),
    Derive(Base),
    Check(Grpc),
}

impl Load {
    pub async fn start(talos: &Talos, key: &str) -> Load {
        let mut load = Load::without_derive(talos, key).await;
        for _ in 0..2 {
            load.spawn(Asking::Derive(talos.admin));
        }
        load
    }

    /// For a process that can't sign.
    pub async fn without_derive(talos: &Talos, key: &str) -> Load {
        let mut load = Load { shared: Arc::default(), tasks: JoinSet::new() };
        load.add_key(key).await;
        for _ in 0..2 {
            load.spawn(Asking::Verify(talos.admin));
            load.spawn(Asking::Check(talos.grpc().await));
        }
        load
    }

    fn spawn(&mut self, asking: Asking) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            while !shared.stop.load(Ordering::Relaxed) {
                let credentials = shared.credentials.read().await;
                let count = asking.round(&credentials).await;
                shared.answered.fetch_add(count, Ordering::Relaxed);
            }
        });
    }

    /// A further key that is valid from now on.
    pub async fn add_key(&self, key: &str) {
        self.shared.credentials.write().await.keys.push(key.to_owned());
    }

    /// The derived tokens that are valid from now on.
    pub async fn use_tokens(&self, tokens: &[&str]) {
        self.shared.credentials.write().await.tokens = tokens.iter().map(|&token| token.to_owned()).collect();
    }

    /// Waits for `answers` more answers.
    pub async fn goes_on(&self, answers: usize) {
        let enough = self.shared.answered.load(Ordering::Relaxed) + answers;
        until("the load goes on", async || {
            (self.shared.answered.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await;
    }

    /// Ends the load; how many requests were answered, all of them as they should be.
    pub async fn end(mut self) -> usize {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(task) = self.tasks.join_next().await {
            task.must("a task of the load");
        }
        self.shared.answered.load(Ordering::Relaxed)
    }
}

impl Asking {
    /// One request with each credential; how many those were.
    async fn round(&self, credentials: &Credentials) -> usize {
        let all = || credentials.keys.iter().chain(&credentials.tokens);
        match self {
            Asking::Verify(admin) => {
                for credential in all() {
                    let answer = admin.post(VERIFY, &json!({ "credential": credential })).await;
                    let answer = answer.expect(200).json();
                    assert_eq!(answer["is_valid"], true, "a verify was refused: {answer:#} ({credential})");
                }
                all().count()
            }
            Asking::Derive(admin) => {
                for key in &credentials.keys {
                    admin.post(DERIVE, &json!({ "credential": key })).await.expect(200);
                }
                credentials.keys.len()
            }
            Asking::Check(grpc) => {
                for credential in all() {
                    let verdict = grpc.check(&Check::bearer(credential).build()).await;
                    assert!(verdict.passes(), "a Check was refused: {verdict:?} ({credential})");
                }
                all().count()
            }
        }
    }
}
