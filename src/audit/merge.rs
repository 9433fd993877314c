//! Order of the changes that several logs record.

use super::recorded::RecordedChange;
use crate::clock::Timestamp;

/// Puts the changes of several logs in one order.
///
/// Within a log, the order of its lines counts, whatever its clock said: a clock that was set back
/// would put a revocation before what it revoked. Between logs, only time can tell.
pub(super) fn merge(logs: Vec<Vec<RecordedChange>>) -> Vec<RecordedChange> {
    let mut merged: Vec<(Timestamp, RecordedChange)> = vec![];
    for mut log in logs {
        log.sort_by_key(|change| change.line);
        let mut latest: Option<Timestamp> = None;
        for change in log {
            let at = latest.map_or(change.at, |latest| latest.max(change.at));
            latest = Some(at);
            merged.push((at, change));
        }
    }
    // Stable, so that changes of one time stay in the order of their log.
    merged.sort_by_key(|(at, _)| *at);
    merged.into_iter().map(|(_, change)| change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::recorded::{ChangeKind, Subject};
    use crate::key::NetworkId;

    fn change(line: u64, second: i64) -> RecordedChange {
        let at = Timestamp::from_secs(1_800_000_000 + second);
        RecordedChange {
            network: NetworkId::SINGLE,
            subject: Subject::ErasedActor,
            imported_as: None,
            kind: ChangeKind::Deleted,
            began: at,
            at,
            line,
            is_confirmed: false,
        }
    }

    fn order(logs: Vec<Vec<RecordedChange>>) -> Vec<(u64, i64)> {
        let second = |change: &RecordedChange| change.at.as_secs() - 1_800_000_000;
        merge(logs).iter().map(|change| (change.line, second(change))).collect()
    }

    #[test]
    fn a_clock_that_is_set_back_changes_no_order_within_a_log() {
        let log = vec![change(2, 100), change(4, 40), change(6, 41)];
        assert_eq!(order(vec![log.clone()]), [(2, 100), (4, 40), (6, 41)]);
        let other = vec![change(1, 50), change(9, 200)];
        assert_eq!(order(vec![other, log]), [(1, 50), (2, 100), (4, 40), (6, 41), (9, 200)]);
    }

    #[test]
    fn times_order_the_changes_of_several_logs() {
        let (one, two) = (vec![change(7, 1), change(9, 3)], vec![change(1, 0), change(2, 2), change(3, 4)]);
        assert_eq!(order(vec![one, two]), [(1, 0), (7, 1), (2, 2), (9, 3), (3, 4)]);
    }

    #[test]
    fn files_may_be_read_in_any_order() {
        assert_eq!(order(vec![vec![change(5, 1), change(3, 9)]]), [(3, 9), (5, 1)]);
    }
}
