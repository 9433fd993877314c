//! Invariant: no thread panics.

use super::Violation;
use crate::history::History;
use crate::plan::Plan;

pub fn judge(history: &History, plan: &Plan) -> Vec<Violation> {
    let text = format!("{} processes panicked", history.panics);
    (history.panics > 0).then_some(Violation { at: plan.end, text }).into_iter().collect()
}
