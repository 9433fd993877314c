//! `talos keys list`: keys of both kinds as one list, newest first.

use std::io::IsTerminal;

use clap::Args;
use serde_json::{Value, json};

use super::list::{self, MAX_PAGE_SIZE, take_list};
use super::paths::{IMPORTED_API_KEYS, ISSUED_API_KEYS};
use super::selection::{Selection, Sorting};
use super::view::field_text;
use crate::cli::client::{Client, JsonBody};
use crate::cli::exit::Failure;
use crate::cli::output::{Output, Table, View, plain};
use crate::cli::pages::next_page;
use crate::clock::{Clock, Timestamp};

/// Collections of keys: the kind, the path, and the field of the list in responses.
const KINDS: [(&str, &str, &str); 2] =
    [("ISSUED", ISSUED_API_KEYS, "issued_api_keys"), ("IMPORTED", IMPORTED_API_KEYS, "imported_api_keys")];
/// Columns of the table: heading, field, and width on a terminal. With two spaces between them they
/// take 80 characters.
const COLUMNS: [Column; 5] = [
    ("KEY ID", "/key_id", 36),
    ("NAME", "/name", 10),
    ("ACTOR", "/actor_id", 10),
    ("STATUS", "/status", 7),
    ("LAST USED", "/last_used_time", 9),
];
/// Columns of the table with `--wide`, which shortens nothing.
const WIDE_COLUMNS: [Column; 10] = [
    ("KEY ID", "/key_id", usize::MAX),
    ("KIND", "/kind", usize::MAX),
    ("NAME", "/name", usize::MAX),
    ("ACTOR", "/actor_id", usize::MAX),
    ("STATUS", "/status", usize::MAX),
    ("VISIBILITY", "/visibility", usize::MAX),
    ("SCOPES", "/scopes", usize::MAX),
    ("CREATED", "/create_time", usize::MAX),
    ("EXPIRES", "/expire_time", usize::MAX),
    ("LAST USED", "/last_used_time", usize::MAX),
];

/// Order unless an option says another.
const NEWEST_FIRST: &str = "create_time desc";

type Column = (&'static str, &'static str, usize);

/// List keys of both kinds, newest first unless --order-by says otherwise
///
/// On a terminal, the table has at most 80 columns and times are relative; elsewhere nothing is
/// shortened and times are RFC 3339.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos keys list
  talos keys list --actor user:42 --status active --wide
  talos keys list --unused 90d --status active
  talos keys list --query back --scope orders:read --metadata team=blue
  talos keys list --expires-before 14d --order-by expire_time
  talos keys list --all --format 'jsonpath=$.api_keys[*].key_id'")]
pub(super) struct ListAll {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    sorting: Sorting,
    /// Most keys to list
    #[arg(long, value_name = "N", default_value_t = 50, conflicts_with = "all")]
    limit: usize,
    /// List all keys
    #[arg(long)]
    all: bool,
    /// More columns, and nothing shortened
    #[arg(long)]
    wide: bool,
}

impl ListAll {
    /// Runs the command.
    ///
    /// # Errors
    /// Fails when the arguments are invalid or a request fails.
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let limit = if self.all { usize::MAX } else { self.limit };
        let (mut keys, mut has_more) = (vec![], false);
        for (kind, path, field) in KINDS {
            let (mut part, more) = self.first(client, path, field, limit).await?;
            part.iter_mut().for_each(|key| key["kind"] = kind.into());
            keys.append(&mut part);
            has_more |= more;
        }
        self.sort(&mut keys);
        has_more |= keys.len() > limit;
        keys.truncate(limit);
        let now = std::io::stdout().is_terminal().then(|| Clock::system().now());
        let table = self.table(&keys, now);
        let quiet = keys.iter().map(|key| plain(&key["key_id"])).collect();
        output.print(&View { body: JsonBody::from(json!({ "api_keys": keys })), table, quiet })?;
        if has_more && output.is_table() {
            output.note("There are more keys: use --all, or a larger --limit");
        }
        Ok(())
    }

    fn order_by(&self) -> &str {
        self.sorting.order_by.as_deref().unwrap_or(NEWEST_FIRST)
    }

    /// Sorts keys of both kinds. Those of one kind are in order, and stay so.
    fn sort(&self, keys: &mut Vec<Value>) {
        let (field, is_descending) = match self.order_by().split_once(' ') {
            Some((field, _)) => (field, true),
            None => (self.order_by(), false),
        };
        let pointer = format!("/{field}");
        let mut sorted: Vec<_> = keys
            .drain(..)
            .map(|key| {
                let time = time(&key, &pointer);
                // Without an expiry it is the latest, without a use the earliest.
                ((field == "expire_time" && time.is_none(), time), key)
            })
            .collect();
        sorted.sort_by(|(one, _), (other, _)| match is_descending {
            false => one.cmp(other),
            true => other.cmp(one),
        });
        keys.extend(sorted.into_iter().map(|(_, key)| key));
    }

    /// Returns the first keys of one kind, at most `limit`, and true if there are more.
    async fn first(
        &self,
        client: &Client,
        path: &str,
        field: &str,
        limit: usize,
    ) -> Result<(Vec<Value>, bool), Failure> {
        let (mut keys, mut token) = (vec![], String::new());
        loop {
            let size = u32::try_from(limit - keys.len()).unwrap_or(u32::MAX).min(MAX_PAGE_SIZE);
            let request = self.selection.apply(list::page(path, Some(size), Some(&token)));
            let mut page = client.send(request.query("order_by", self.order_by())).await?.value;
            let next = next_page(&page, &token)?;
            keys.append(&mut take_list(&mut page, field));
            match next {
                Some(next) if keys.len() < limit => token = next,
                next => return Ok((keys, next.is_some())),
            }
        }
    }

    /// Returns the table for a terminal at `now`; for anything else if that is absent.
    fn table(&self, keys: &[Value], now: Option<Timestamp>) -> Table {
        let columns = if self.wide { &WIDE_COLUMNS[..] } else { &COLUMNS[..] };
        let headings = columns.iter().map(|(heading, ..)| *heading).collect();
        let row = |key: &Value| columns.iter().map(|column| text(key, *column, now)).collect();
        Table::Rows(headings, keys.iter().map(row).collect())
    }
}

fn time(key: &Value, pointer: &str) -> Option<Timestamp> {
    Timestamp::from_rfc3339(key.pointer(pointer)?.as_str()?)
}

fn text(key: &Value, (_, pointer, width): Column, now: Option<Timestamp>) -> String {
    let text = field_text(key, pointer);
    let Some(now) = now else {
        return text;
    };
    match time(key, pointer).filter(|_| pointer.ends_with("_time")) {
        Some(time) => relative(time, now),
        None => shorten(text, width),
    }
}

/// Shortens a text to `width` characters, the last of which is then an ellipsis.
fn shorten(text: String, width: usize) -> String {
    if text.chars().count() <= width {
        return text;
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// Formats a time as seen from `now`, in at most 9 characters.
fn relative(time: Timestamp, now: Timestamp) -> String {
    const UNITS: [(i64, &str); 5] = [(365 * 86_400, "y"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let ago = now.as_secs().saturating_sub(time.as_secs());
    let unit = UNITS.iter().find(|(seconds, _)| ago.abs() >= *seconds);
    match unit {
        None => "now".to_owned(),
        Some((seconds, unit)) if ago > 0 => format!("{}{unit} ago", ago / seconds),
        Some((seconds, unit)) => format!("in {}{unit}", -ago / seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let now = Timestamp::from_secs(1_790_000_000);
        for (ago, expected) in [
            (0, "now"),
            (59, "59s ago"),
            (3_599, "59m ago"),
            (86_399, "23h ago"),
            (364 * 86_400, "364d ago"),
            (800 * 86_400, "2y ago"),
            (-86_400 * 2, "in 2d"),
        ] {
            let text = relative(Timestamp::from_secs(now.as_secs() - ago), now);
            assert_eq!(text, expected);
            assert!(text.len() <= 9);
        }
    }

    #[test]
    fn a_terminal_gets_at_most_80_columns() {
        let now = Timestamp::from_secs(1_790_000_000);
        let used = now.minus(std::time::Duration::from_secs(364 * 86_400)).to_rfc3339();
        let key = json!({
            "key_id": "f".repeat(128), "name": "ü".repeat(100), "actor_id": "user:42".repeat(10),
            "status": "KEY_STATUS_REVOKED", "last_used_time": used, "create_time": used,
        });
        let selection = Selection::default();
        let list = ListAll { selection, sorting: Sorting::default(), limit: 1, all: false, wide: false };
        let Table::Rows(headings, rows) = list.table(std::slice::from_ref(&key), Some(now)) else {
            panic!("no rows");
        };
        assert_eq!(rows.len(), 1);
        let widths =
            headings.iter().zip(&rows[0]).map(|(heading, text)| heading.len().max(text.chars().count()));
        assert_eq!(widths.map(|width| width + 2).sum::<usize>() - 2, 80);
        let list = ListAll { wide: true, ..list };
        let Table::Rows(_, rows) = list.table(&[key], None) else { panic!("no rows") };
        assert_eq!(rows[0][0].len(), 128);
        assert_eq!(rows[0][9], used);
    }
}
