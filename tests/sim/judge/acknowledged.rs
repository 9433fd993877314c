//! An acknowledged change was made.

use super::Violation;
use crate::history::{Change, History};
use crate::plan::Plan;

pub fn judge(history: &History, plan: &Plan) -> Vec<Violation> {
    let is_lost = |change: &&Change| {
        // One that was resumed may have ended otherwise.
        change.acknowledged
            && !change.active
            && !history.split.contains(&change.key)
            && !history.was(&change.key, false, change.began, change.ended)
            && !is_excused(change, history, plan)
    };
    let violation = |change: &Change| {
        let text = format!(
            "instance {} acknowledged the end of {}, which is lost",
            change.instance,
            &change.key[..8]
        );
        Violation { at: change.ended, text }
    };
    history.changes.iter().filter(is_lost).map(violation).collect()
}

/// Returns true if another server took over meanwhile or just before, so that the one which made
/// the change was no longer asked: no poll can know that sooner. Or it was made on a server that
/// goes on as a second primary: one that changes only why a key may not be used is no split key.
fn is_excused(change: &Change, history: &History, plan: &Plan) -> bool {
    let from = change.began.saturating_sub(plan.terms.lease);
    let was_deposed = |(instance, at): &(usize, u64)| {
        *instance == change.instance && (change.began..=change.ended).contains(at)
    };
    history.switchovers.iter().any(|at| (from..=change.ended).contains(at))
        || history.deposed_commits.iter().any(was_deposed)
}
