//! No answer is older than the bound: a key that ended at T isn't allowed after T + S, and one that
//! was resumed at T isn't refused after T + S. To the microsecond of virtual time.

use talos::cache::freshness::Mode;

use super::Violation;
use crate::history::{Answer, Checked, History};
use crate::plan::Plan;
use crate::trace::seconds;

pub fn judge(history: &History, plan: &Plan) -> Vec<Violation> {
    let is_wrong = |check: &&Checked| {
        let active = match check.answer {
            Answer::Allowed => true,
            Answer::Refused => false,
            Answer::Unavailable => return false,
        };
        let from = check.at.saturating_sub(bound(check, history, plan));
        !history.split.contains(&check.key) && !history.was(&check.key, active, from, check.at)
    };
    let violation = |check: &Checked| {
        let (at, Checked { answer, key, mode, instance, .. }) = (check.at, check);
        let (mode, since) = (mode.name(), history.truth.get(key).and_then(|states| states.last()));
        let since = since
            .map_or(String::new(), |(at, active)| format!(", active: {active} since {:.3} s", seconds(*at)));
        let by = if check.by_module { "the module at instance" } else { "instance" };
        let text = format!("{by} {instance} ({mode}) said {answer:?} for {}{since}", &key[..8]);
        Violation { at, text }
    };
    history.checks.iter().filter(is_wrong).map(violation).collect()
}

/// Returns the bound on the age of an answer. It is wider than the lease only if the instance is in
/// an outage, and the way to the database really was hurt.
fn bound(check: &Checked, history: &History, plan: &Plan) -> u64 {
    let terms = &plan.terms;
    // Time for which evidence of an outage is valid.
    let lately = terms.lease + (terms.lease + terms.poll) * 2;
    let is_outage = check.mode != Mode::Fresh
        && history.was_hurt(check.instance, check.at.saturating_sub(lately), check.at);
    let more = match check.mode {
        Mode::Relayed => terms.relay,
        _ => terms.grace,
    };
    terms.lease + if is_outage { more } else { 0 }
}
