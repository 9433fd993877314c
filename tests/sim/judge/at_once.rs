//! The instance that acknowledged the end of a key doesn't allow it any more, at once.

use super::Violation;
use crate::history::{Answer, Change, Checked, History};
use crate::plan::Plan;
use crate::trace::seconds;

pub fn judge(history: &History, _: &Plan) -> Vec<Violation> {
    let ends = history.changes.iter().filter(|change| change.acknowledged && !change.active);
    let ends = ends.filter(|change| !history.split.contains(&change.key));
    ends.filter_map(|change| {
        let check = history.checks.iter().find(|check| is_wrong(check, change, history))?;
        let text = format!(
            "instance {} allowed {}, whose end it acknowledged at {:.3} s",
            change.instance,
            &change.key[..8],
            seconds(change.ended)
        );
        Some(Violation { at: check.at, text })
    })
    .collect()
}

fn is_wrong(check: &Checked, change: &Change, history: &History) -> bool {
    !check.by_module
        && (check.instance, &check.key) == (change.instance, &change.key)
        && check.at > change.ended
        && check.answer == Answer::Allowed
        // The key may have been resumed since, or a server that lacks the change took over.
        && !history.was(&change.key, true, change.ended, check.at)
}
