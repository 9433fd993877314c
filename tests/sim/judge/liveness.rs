//! Where no fault was for a while, every instance is fresh again within three polls, and answers.

use talos::cache::freshness::Mode;

use super::Violation;
use crate::history::{Answer, Checked, History, Seen};
use crate::plan::{INSTANCES, Plan};
use crate::scheduler::START;

pub fn judge(history: &History, plan: &Plan) -> Vec<Violation> {
    // A poll that hangs in the fault ends with the lease at the latest.
    let recovery = plan.terms.lease + plan.terms.poll * 3;
    let is_calm = |at: u64| {
        at > START + recovery
            && plan.faults.iter().all(|fault| at < fault.from || at > fault.until + recovery)
    };
    let is_stale =
        |seen: &&Seen| seen.mode != Mode::Fresh && is_calm(seen.at) && seen.at > seen.started + recovery;
    let stale = history.modes.iter().filter(is_stale).map(|seen| Violation {
        at: seen.at,
        text: format!("instance {} is {} long after any fault", seen.instance, seen.mode.name()),
    });
    let is_unanswered = |check: &&Checked| check.answer == Answer::Unavailable && is_calm(check.at);
    let unanswered = history.checks.iter().filter(is_unanswered).map(|check| Violation {
        at: check.at,
        text: format!(
            "instance {} doesn't answer for {} long after any fault",
            check.instance,
            &check.key[..8]
        ),
    });
    let is_absent = |instance: &usize| {
        let mut seen = history.modes.iter().filter(|seen| seen.instance == *instance);
        !seen.any(|seen| seen.at + plan.terms.poll > plan.end)
    };
    let absent = (0..INSTANCES).filter(is_absent).map(|instance| Violation {
        at: plan.end,
        text: format!("instance {instance} isn't there at the end"),
    });
    // One of each is enough.
    stale.take(1).chain(unanswered.take(1)).chain(absent).collect()
}
