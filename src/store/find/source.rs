//! Ranges of indexes from which keys are read.

use crate::credential::page_token::Cursor;
use crate::key::record::kind_code;
use crate::key::{KeyKind, KeyPrefix, NetworkId, SecretId};
use crate::store::dialect::{Dialect, PRIMARY_KEY};
use crate::store::filter::{NameFilter, TimeRange};
use crate::store::page::{Order, OrderBy};
use crate::store::statement::Statement;

/// Table of keys.
const KEYS: &str = "api_keys";

/// Range of an index that selects keys.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Keys of an actor.
    Actor(String),
    /// Keys of actors that begin with a text.
    ActorPrefix(String),
    /// Keys of a name.
    Name(NameFilter),
    /// Keys whose id begins with a text.
    IdPrefix(String),
    /// Keys with a term.
    Term(String),
    /// Keys with a term that begins with a text.
    TermPrefix(String),
    /// Keys whose terms aren't written.
    TermsDue,
    /// Keys whose recorded state is this one.
    State(i16),
    /// Keys whose state time has changed since it was recorded.
    Due(i64),
    /// Keys in a recorded state that need a secret.
    Secret(Option<SecretId>, i16),
    /// Keys in a recorded state with a prefix.
    Prefix(KeyPrefix, i16),
    /// Keys in the order of a time.
    Ordered(Base, Segment),
}

/// Condition that an index holds before the time by which it is ordered.
#[derive(Debug, Clone)]
pub(super) enum Base {
    /// No condition.
    All,
    /// Actor.
    Actor(String),
    /// Term.
    Term(String),
}

/// Part of an order: keys that have the time, or those that don't.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    /// Order.
    pub order: Order,
    /// True for the keys that don't have the time.
    pub is_missing: bool,
    /// Times.
    pub range: TimeRange,
    /// Position after which it begins.
    pub after: Option<Cursor>,
    /// Position with which it ends.
    pub until: Option<Cursor>,
}

/// Keys among which sources select.
#[derive(Debug, Clone, Copy)]
pub(super) struct Among {
    /// Database.
    pub dialect: Dialect,
    /// Network.
    pub network: NetworkId,
    /// Kind.
    pub kind: KeyKind,
}

impl Source {
    /// Returns true if a key can be selected more than once.
    pub(super) const fn has_duplicates(&self) -> bool {
        matches!(self, Self::TermPrefix(_))
    }

    /// Returns true if the index is one of the table of keys.
    pub(super) fn is_of_keys(&self) -> bool {
        self.table_and_index().0 == KEYS
    }

    fn table_and_index(&self) -> (&'static str, &'static str) {
        match self {
            Self::Actor(_) | Self::ActorPrefix(_) => (KEYS, "api_keys_by_actor"),
            Self::Name(_) => (KEYS, "api_keys_by_name"),
            Self::IdPrefix(_) => (KEYS, PRIMARY_KEY),
            Self::Term(_) | Self::TermPrefix(_) => ("key_terms", "key_terms_by_term"),
            Self::TermsDue => (KEYS, "api_keys_by_terms_due"),
            Self::State(_) => (KEYS, "api_keys_by_state"),
            Self::Due(_) => (KEYS, "api_keys_by_due"),
            Self::Secret(..) => (KEYS, "api_keys_by_secret"),
            Self::Prefix(..) => (KEYS, "api_keys_by_prefix"),
            Self::Ordered(base, segment) => match (base, segment.order.by) {
                (Base::All, OrderBy::Created) => (KEYS, "api_keys_by_age"),
                (Base::Actor(_), OrderBy::Created) => (KEYS, "api_keys_by_actor"),
                (Base::Term(_), _) => ("key_terms", "key_terms_by_term"),
                (_, OrderBy::Expires) => (KEYS, "api_keys_by_expiry"),
                (_, OrderBy::LastUsed) => (KEYS, "api_keys_by_last_use"),
            },
        }
    }

    /// Adds ` FROM` and ` WHERE` with all conditions of the source.
    pub(super) fn push(&self, select: &mut Statement, among: Among) {
        let Among { dialect, network, kind } = among;
        let (table, index) = self.table_and_index();
        select.push(&format!(" FROM {table}{} WHERE network_id = ", dialect.index_hint(index)));
        select.text(network.to_string()).push(" AND kind = ").number(kind_code(kind).into());
        match self {
            Self::Actor(actor) => {
                select.push(" AND actor_id = ").text(actor.clone());
            }
            Self::ActorPrefix(prefix) => push_prefix(select, "actor_id", prefix),
            Self::Name(name) => push_name(select, dialect, name, " AND "),
            Self::IdPrefix(prefix) => push_prefix(select, "key_id", prefix),
            Self::Term(term) => {
                select.push(" AND term = ").text(term.clone());
            }
            Self::TermPrefix(prefix) => push_prefix(select, "term", prefix),
            Self::TermsDue => {
                select.push(" AND ").push(dialect.are_terms_due());
            }
            Self::State(state) => {
                select.push(&format!(" AND {} = {state}", dialect.state()));
            }
            Self::Due(now) => {
                select.push(&format!(" AND {} <= ", dialect.due_at())).number(*now);
            }
            Self::Secret(secret, state) => {
                select.push(" AND secret_id = ").text(secret.map(|id| id.to_string()).unwrap_or_default());
                select.push(&format!(" AND {} = {state}", dialect.state()));
            }
            Self::Prefix(prefix, state) => {
                select.push(" AND key_prefix = ").text(prefix.as_str().to_owned());
                select.push(&format!(" AND {} = {state}", dialect.state()));
            }
            Self::Ordered(base, segment) => {
                match base {
                    Base::All => {}
                    Base::Actor(actor) => {
                        select.push(" AND actor_id = ").text(actor.clone());
                    }
                    Base::Term(term) => {
                        select.push(" AND term = ").text(term.clone());
                    }
                }
                segment.push(select, dialect);
            }
        }
    }
}

impl Segment {
    fn push(&self, select: &mut Statement, dialect: Dialect) {
        let column = self.order.by.column();
        // The bounds of the time are part of a position: with both, SQLite would use the wrong one.
        let (lower, upper, above, below) = match self.order.is_descending {
            false => (&self.after, &self.until, ">", "<="),
            true => (&self.until, &self.after, ">=", "<"),
        };
        let bounds = [(lower, above, self.range.from, ">="), (upper, below, self.range.until, "<")];
        if self.is_missing {
            select.push(&format!(" AND {column} IS NULL"));
            for (position, sign, ..) in bounds {
                if let Some(position) = position {
                    select.push(&format!(" AND key_id {sign} ")).text(position.key_id.clone());
                }
            }
            return;
        }
        if self.order.by.missing().is_some() {
            select.push(&format!(" AND {column} IS NOT NULL"));
        }
        for (position, sign, time, time_sign) in bounds {
            match (position, time) {
                (Some(position), _) => push_position(select, dialect, column, sign, position),
                (None, Some(time)) => {
                    select.push(&format!(" AND {column} {time_sign} ")).number(time);
                }
                (None, None) => {}
            }
        }
    }
}

/// Adds the condition of a side of a position, such that an index begins or ends there.
fn push_position(select: &mut Statement, dialect: Dialect, column: &str, sign: &str, position: &Cursor) {
    let time = position.created.as_micros();
    if dialect != Dialect::MySql {
        select.push(&format!(" AND ({column}, key_id) {sign} (")).number(time);
        select.push(", ").text(position.key_id.clone()).push(")");
        return;
    }
    // MySQL finds no range in a comparison of rows.
    let beyond = sign.trim_end_matches('=');
    select.push(&format!(" AND {column} {beyond}= ")).number(time);
    select.push(&format!(" AND ({column} {beyond} ")).number(time);
    select.push(&format!(" OR ({column} = ")).number(time);
    select.push(&format!(" AND key_id {sign} ")).text(position.key_id.clone()).push("))");
}

/// Adds the condition that a column begins with a text. Columns are compared by their bytes.
pub(super) fn push_prefix(select: &mut Statement, column: &str, prefix: &str) {
    select.push(&format!(" AND {column} >= ")).text(prefix.to_owned());
    if let Some(end) = successor(prefix) {
        select.push(&format!(" AND {column} < ")).text(end);
    }
}

/// Adds a condition on the name after `word`; keys whose name differs in more than case may match,
/// too.
pub(super) fn push_name(select: &mut Statement, dialect: Dialect, name: &NameFilter, word: &str) {
    let column = dialect.folded_name();
    let text = name.text().to_ascii_lowercase();
    match (name, dialect) {
        (NameFilter::Is(_), _) => {
            select.push(&format!("{word}{column} = ")).text(text);
        }
        (NameFilter::StartsWith(_), Dialect::MySql) => {
            let pattern = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            select.push(&format!("{word}{column} LIKE ")).text(format!("{pattern}%"));
        }
        (NameFilter::StartsWith(_), _) => {
            select.push(&format!("{word}{column} >= ")).text(text.clone());
            if let Some(end) = folded_successor(&text) {
                select.push(&format!(" AND {column} < ")).text(end);
            }
        }
    }
}

/// Returns the first text after all that begin with `prefix`, in the order of bytes; `None` if
/// there is none.
fn successor(prefix: &str) -> Option<String> {
    let mut end: Vec<char> = prefix.chars().collect();
    while let Some(last) = end.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return Some(end.into_iter().collect());
        }
    }
    None
}

/// Returns the first text after all that begin with `prefix`, among texts without the letters A to
/// Z, which `prefix` doesn't have either.
///
/// After `@` comes `[`: SQLite would take an `A` in a bound for an `a`.
fn folded_successor(prefix: &str) -> Option<String> {
    let end = successor(prefix)?;
    Some(match end.strip_suffix('A') {
        Some(start) => format!("{start}["),
        None => end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, proptest};

    #[test]
    fn successors() {
        for (prefix, end) in [
            ("a", Some("b")),
            ("az", Some("a{")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("", None),
        ] {
            assert_eq!(successor(prefix).as_deref(), end, "{prefix:?}");
        }
        for (prefix, end) in [("ops@", Some("ops[")), ("a", Some("b")), ("z", Some("{")), ("", None)] {
            assert_eq!(folded_successor(prefix).as_deref(), end, "{prefix:?}");
        }
    }

    proptest! {
        #[test]
        fn texts_with_the_prefix_lie_before_its_successor(
            prefix in any::<String>(),
            rest in any::<String>(),
            other in any::<String>(),
        ) {
            let is_in = |text: &str| {
                text >= prefix.as_str() && successor(&prefix).is_none_or(|end| text < end.as_str())
            };
            let text = format!("{prefix}{rest}");
            prop_assert!(is_in(&text));
            prop_assert!(other.starts_with(&prefix) || !is_in(&other));
        }

        #[test]
        fn folded_texts_with_the_prefix_lie_before_its_successor(
            prefix in "[@-z]{0,3}",
            rest in "[@-z]{0,2}",
            other in "[@-z]{0,4}",
        ) {
            let [prefix, rest, other] = [prefix, rest, other].map(|text| text.to_ascii_lowercase());
            // As SQLite compares: the letters of a bound don't keep their case.
            let end = folded_successor(&prefix).map(|end| end.to_ascii_lowercase());
            let is_in = |text: &str| {
                text >= prefix.as_str() && end.as_ref().is_none_or(|end| text < end.as_str())
            };
            let text = format!("{prefix}{rest}");
            prop_assert!(is_in(&text));
            prop_assert!(other.starts_with(&prefix) || !is_in(&other));
        }
    }
}
