//! The release before this one and this one, on one database and under load that never stops:
//! forward, beside each other, beside a later release's schema, and back.

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::database;
use crate::rig::instances::{INSTANCES, Instances};
use crate::rig::support::{Must, until};
use crate::rig::talos::{Setup, TALOS, Talos};

use super::newer_schema::ADDITIONS;

/// Variable with the path of the release before.
const RELEASE_BEFORE: &str = "TALOS_TEST_RELEASE_BEFORE";
/// Keys that each instance issues and another one revokes, at each stage.
const KEYS: usize = 5;

async fn migrate(setup: &Setup) {
    let output = setup.run(&["migrate", "up"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Keys of one instance pass at another one, until this one revokes them.
async fn work_together(one: &Talos, other: &Talos) {
    for _ in 0..KEYS {
        let key = one.issue(json!({ "scopes": ["orders:read"], "metadata": { "team": "a" } })).await;
        other.check(Check::bearer(&key.secret)).await.allowed();
        other.revoke(&key).await;
        other.check(Check::bearer(&key.secret)).await.denied(401);
        until("the revocation counts everywhere", async || {
            one.check(Check::bearer(&key.secret)).await.is(401).then_some(())
        })
        .await;
    }
}

async fn all_work_together(instances: &Instances) {
    for place in 0..INSTANCES {
        let next = (place + 1) % INSTANCES;
        work_together(&instances.running[place], &instances.running[next]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the release before, which tests/long/run builds"]
async fn no_request_fails_forward_and_back() {
    needs!(Envoy);
    let before = std::env::var(RELEASE_BEFORE).must(RELEASE_BEFORE);
    let this = match database::server() {
        None => Setup::new(),
        Some(server) => Setup::new().set("TALOS_DB_DSN", &server.empty_database()),
    };
    let old = this.clone().of_release(&before);
    migrate(&old).await;
    let mut instances = Instances::start(&old).await;
    let key = instances.running[0].issue(json!({})).await;
    let load = instances.load(&key).await;
    let mut stages = vec![];
    let mut reached = |stage: &'static str| stages.push(stage);

    migrate(&this).await;
    all_work_together(&instances).await;
    reached("the release before, beside the schema of this one");

    instances.end(0).await;
    instances.begin(0, TALOS).await;
    all_work_together(&instances).await;
    reached("one instance of this release beside two of the one before");

    // That release knows no additive steps: once it has ended, it can't come back.
    instances.end(0).await;
    let refusal = old.refused().await;
    assert!(refusal.contains("this program knows 2 at most"), "{refusal}");
    work_together(&instances.running[1], &instances.running[2]).await;
    reached("back: two instances of the release before, whose third one is refused");

    instances.begin(0, TALOS).await;
    for place in 1..INSTANCES {
        instances.end(place).await;
        instances.begin(place, TALOS).await;
    }
    all_work_together(&instances).await;
    reached("this release");

    for statement in ADDITIONS {
        this.sql(statement);
        all_work_together(&instances).await;
    }
    instances.roll_to(TALOS).await;
    migrate(&this).await;
    instances.roll_to(TALOS).await;
    all_work_together(&instances).await;
    reached("this release, beside a schema step from the future");

    let (answered, failures) = load.end().await;
    println!("{}\n{} of {answered} requests failed", stages.join("\n"), failures.len());
    assert!(failures.is_empty(), "{} of {answered} failed: {failures:#?}", failures.len());
}
