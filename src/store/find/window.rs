//! Parts of an order that are read one after the other.

use super::source::Segment;
use crate::credential::page_token::Cursor;
use crate::store::filter::{NEVER_EXPIRES, NEVER_USED, TimeRange};
use crate::store::page::{Order, OrderBy};

/// Returns the parts of an order that follow a position, or all parts, in the order's direction.
pub(super) fn segments(order: Order, range: TimeRange, after: Option<&Cursor>) -> Vec<Segment> {
    let missing = order.by.missing();
    let is_missing_first = (order.by == OrderBy::LastUsed) != order.is_descending;
    let is_after_missing = after.map(|after| Some(after.created.as_micros()) == missing);
    [is_missing_first, !is_missing_first]
        .into_iter()
        .filter(|is_missing| match missing {
            None => !is_missing,
            Some(missing) if *is_missing => range.contains(missing),
            // The other part is empty if the range has none but this number.
            Some(_) => range.from != Some(NEVER_EXPIRES) && range.until != Some(NEVER_USED + 1),
        })
        .filter_map(|is_missing| match is_after_missing {
            // The position is in this part, or before it, or beyond it.
            Some(is_there) if is_there == is_missing => Some((is_missing, after.cloned())),
            Some(_) if is_missing == is_missing_first => None,
            _ => Some((is_missing, None)),
        })
        .map(|(is_missing, after)| Segment { order, is_missing, range, after, until: None })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn parts(by: OrderBy, is_descending: bool, after: Option<i64>) -> Vec<(bool, bool)> {
        let after = after.map(|at| Cursor { created: Timestamp::from_micros(at), key_id: "k".to_owned() });
        let parts = segments(Order { by, is_descending }, TimeRange::default(), after.as_ref());
        parts.into_iter().map(|part| (part.is_missing, part.after.is_some())).collect()
    }

    #[test]
    fn parts_follow_each_other() {
        use OrderBy::{Created, Expires, LastUsed};
        assert_eq!(parts(Created, false, None), [(false, false)]);
        assert_eq!(parts(Created, true, Some(5)), [(false, true)]);
        for (by, is_descending) in [(Expires, false), (LastUsed, true)] {
            let missing = by.missing();
            assert_eq!(parts(by, is_descending, None), [(false, false), (true, false)]);
            assert_eq!(parts(by, is_descending, Some(5)), [(false, true), (true, false)]);
            assert_eq!(parts(by, is_descending, missing), [(true, true)]);
        }
        for (by, is_descending) in [(Expires, true), (LastUsed, false)] {
            assert_eq!(parts(by, is_descending, None), [(true, false), (false, false)]);
            assert_eq!(parts(by, is_descending, by.missing()), [(true, true), (false, false)]);
            assert_eq!(parts(by, is_descending, Some(5)), [(false, true)]);
        }
    }

    #[test]
    fn a_range_may_have_one_part_only() {
        let part = |by, from, until| {
            let order = Order { by, is_descending: false };
            let parts = segments(order, TimeRange { from, until }, None);
            parts.into_iter().map(|part| part.is_missing).collect::<Vec<_>>()
        };
        assert_eq!(part(OrderBy::Expires, Some(NEVER_EXPIRES), None), [true]);
        assert_eq!(part(OrderBy::Expires, None, Some(5)), [false]);
        assert_eq!(part(OrderBy::Expires, Some(5), None), [false, true]);
        assert_eq!(part(OrderBy::LastUsed, None, Some(NEVER_USED + 1)), [true]);
        assert_eq!(part(OrderBy::LastUsed, Some(0), None), [false]);
        assert_eq!(part(OrderBy::LastUsed, None, Some(5)), [true, false]);
    }
}
