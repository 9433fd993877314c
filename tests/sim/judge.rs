//! Invariants: each is a file with a function that looks through the history. A new one is added to
//! [`INVARIANTS`].

mod acknowledged;
mod at_once;
mod bound;
mod liveness;
mod panics;

use crate::history::History;
use crate::plan::Plan;

/// Promise that was broken.
#[derive(Debug, Clone)]
pub struct Violation {
    pub at: u64,
    pub text: String,
}

/// Looks for violations of one promise.
type Invariant = fn(&History, &Plan) -> Vec<Violation>;

const INVARIANTS: &[Invariant] =
    &[bound::judge, at_once::judge, acknowledged::judge, liveness::judge, panics::judge];

/// Returns the violations, in order.
pub fn judge(history: &History, plan: &Plan) -> Vec<Violation> {
    let mut violations: Vec<Violation> =
        INVARIANTS.iter().flat_map(|invariant| invariant(history, plan)).collect();
    violations.sort_by_key(|violation| violation.at);
    violations
}
