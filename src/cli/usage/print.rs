//! Output of reports: a table with bars, CSV or JSON.

use std::io::{IsTerminal, stdout};

use clap::ValueEnum;
use serde_json::Value;

use crate::cli::client::JsonBody;
use crate::cli::exit::Failure;
use crate::cli::output::{Format, Output, Table, View, cell, plain, write_stdout};

/// Cells of the longest bar.
const BAR: u64 = 30;

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Form {
    /// Columns for people
    Table,
    /// Comma-separated values (RFC 4180), for spreadsheets
    Csv,
    /// JSON
    Json,
}

/// Column of a report.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Column {
    /// Heading in a table.
    pub heading: &'static str,
    /// Member of each row, and heading in CSV.
    pub field: &'static str,
}

/// Prints the rows of a report.
///
/// # Errors
/// Fails when stdout can't be written to.
pub(in crate::cli) fn print(report: &Value, columns: &[Column], form: Form) -> Result<(), Failure> {
    let rows = report["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    match form {
        Form::Csv => write_stdout(&csv(rows, columns)),
        Form::Json => show(report, Table::Fields(vec![]), Format::Json),
        Form::Table => show(report, table(rows, columns, stdout().is_terminal()), Format::Table),
    }
}

fn show(report: &Value, table: Table, format: Format) -> Result<(), Failure> {
    let body = JsonBody::from(report.clone());
    Output::new(format, false).print(&View { body, table, quiet: vec![] })
}

fn table(rows: &[Value], columns: &[Column], has_bars: bool) -> Table {
    let mut headings: Vec<&'static str> = columns.iter().map(|column| column.heading).collect();
    let has_bars = has_bars && columns.iter().any(|column| column.field == "count");
    if has_bars {
        headings.push("");
    }
    let count = |row: &Value| row["count"].as_u64().unwrap_or(0);
    let largest = rows.iter().map(count).max().unwrap_or(0);
    let cells = rows.iter().map(|row| {
        let mut cells: Vec<String> = columns.iter().map(|column| cell(&row[column.field])).collect();
        if has_bars {
            cells.push(bar(count(row), largest));
        }
        cells
    });
    Table::Rows(headings, cells.collect())
}

/// Returns the bar of a number; each that isn't 0 has one.
fn bar(count: u64, largest: u64) -> String {
    if count == 0 || largest == 0 {
        return String::new();
    }
    let cells = u128::from(count) * u128::from(BAR) / u128::from(largest);
    "█".repeat(usize::try_from(cells).unwrap_or(0).max(1))
}

fn csv(rows: &[Value], columns: &[Column]) -> String {
    let line = |cells: &mut dyn Iterator<Item = String>| cells.collect::<Vec<_>>().join(",") + "\n";
    let heading = line(&mut columns.iter().map(|column| column.field.to_owned()));
    let rows = rows.iter().map(|row| {
        let value = |column: &Column| match &row[column.field] {
            Value::Null => String::new(),
            value => quoted(&plain(value)),
        };
        line(&mut columns.iter().map(value))
    });
    std::iter::once(heading).chain(rows).collect()
}

/// Quotes a field of CSV where it has to be.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ') {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: [Column; 2] =
        [Column { heading: "ACTOR", field: "actor_id" }, Column { heading: "COUNT", field: "count" }];

    #[test]
    fn csv_quotes_what_has_to_be_quoted() {
        let rows = [json!({ "actor_id": "a,\"b\"", "count": 3 }), json!({ "count": 1 })];
        assert_eq!(csv(&rows, &COLUMNS), "actor_id,count\n\"a,\"\"b\"\"\",3\n,1\n");
    }

    #[test]
    fn bars_are_in_proportion() {
        assert_eq!(bar(100, 100).chars().count(), 30);
        assert_eq!(bar(50, 100).chars().count(), 15);
        assert_eq!(bar(1, 1_000_000).chars().count(), 1);
        assert_eq!(bar(0, 100), "");
        assert_eq!(bar(u64::MAX, u64::MAX).chars().count(), 30);
    }
}
