//! Output of the commands on stdout: a table, JSON, YAML, a part of the JSON, or only the value
//! that a script captures.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use clap::Args;
use comfy_table::presets::NOTHING;
use serde_json::Value;

use super::client::JsonBody;
use super::exit::Failure;
use super::jsonpath::Query;
use crate::cli::stderr;
use crate::escape;

/// Output options of a command.
#[derive(Args, Clone)]
pub(super) struct Output {
    /// table, json, json-pretty, yaml, jsonpath=PATH or jsonpointer=POINTER
    ///
    /// PATH is RFC 9535 ($.items[0].name), or the form of kubectl ({.items[0].name}) or of gjson
    /// (items.0.name, items.#.name). Strings are printed without quotes, other values as JSON, one
    /// per line.
    #[arg(short = 'o', long, global = true, value_name = "FORMAT", default_value = "table", value_parser = Format::parse)]
    format: Format,
    /// Print only the value that a script captures, whatever the format
    ///
    /// issue, rotate: the secret. derive-token: the token. get, update, import: the key's id. list,
    /// batch-import: the ids, one per line. verify, batch-verify: the key id of each valid
    /// credential, `-` for each invalid one. revoke, delete, self-revoke: nothing, also on stderr.
    /// jwk get: the kids. status: the mode.
    #[arg(short, long, global = true)]
    quiet: bool,
}

/// Value of `--format`.
#[derive(Debug, Clone)]
pub(super) enum Format {
    /// Columns for people.
    Table,
    /// JSON, as the server sent it.
    Json,
    /// Indented JSON.
    JsonPretty,
    /// YAML.
    Yaml,
    /// The parts of the JSON that a path selects.
    Query(Query),
}

impl Format {
    /// Parses the value of `--format`.
    ///
    /// # Errors
    /// Returns a message when the format or its path isn't known.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None => match text {
                "table" => Ok(Self::Table),
                "json" => Ok(Self::Json),
                "json-pretty" => Ok(Self::JsonPretty),
                "yaml" => Ok(Self::Yaml),
                _ => Err("must be table, json, json-pretty, yaml, jsonpath=… or jsonpointer=…".to_owned()),
            },
            Some(("jsonpath", path)) => Query::parse_path(path).map(Self::Query),
            Some(("jsonpointer", pointer)) => Query::parse_pointer(pointer).map(Self::Query),
            Some(_) => Err("must be jsonpath=… or jsonpointer=…".to_owned()),
        }
    }
}

/// A table for people.
pub(super) enum Table {
    /// One field per line: name and value.
    Fields(Vec<(&'static str, String)>),
    /// Headings, and one row per item.
    Rows(Vec<&'static str>, Vec<Vec<String>>),
}

/// A result in each of its printable forms.
pub(super) struct View {
    /// The JSON document.
    pub body: JsonBody,
    /// Printed with `--format table`.
    pub table: Table,
    /// Lines printed with `--quiet`.
    pub quiet: Vec<String>,
}

impl Output {
    /// Creates the options of a command that declares its own `--format`.
    pub(super) fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet }
    }

    /// Prints a result in the requested format.
    ///
    /// # Errors
    /// Fails when stdout can't be written to.
    pub(super) fn print(&self, view: &View) -> Result<(), Failure> {
        let View { body, table, quiet } = view;
        if self.quiet {
            return write_lines(quiet);
        }
        match &self.format {
            Format::Table => write_stdout(&table.render()),
            Format::Json => write_lines(std::slice::from_ref(&body.text)),
            Format::JsonPretty => write_stdout(&format!("{:#}\n", body.value)),
            Format::Yaml => write_stdout(&serde_norway::to_string(&body.value).map_err(Failure::failed)?),
            Format::Query(query) => {
                let found = query.find(&body.value);
                if found.is_empty() {
                    stderr::line(format_args!("talos: the path of --format matches nothing in the response"));
                }
                write_lines(&found)
            }
        }
    }

    /// Prints a message for people on stderr, unless `--quiet` is set.
    pub(super) fn note(&self, message: &str) {
        if !self.quiet {
            stderr::line(format_args!("{}", escape::visible_lines(message)));
        }
    }

    /// Returns true with `--quiet`.
    pub(super) const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Returns true when the output is a table for people.
    pub(super) const fn is_table(&self) -> bool {
        !self.quiet && matches!(self.format, Format::Table)
    }
}

impl Table {
    fn render(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(NOTHING);
        match self {
            Self::Fields(fields) => {
                for (name, value) in fields {
                    table.add_row([(*name).to_owned(), escape::visible(value).into_owned()]);
                }
            }
            Self::Rows(headings, rows) => {
                table.set_header(headings);
                for row in rows {
                    table.add_row(row.iter().map(|value| or_dash(escape::visible(value).into_owned())));
                }
            }
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        // The padding of the last column is cut off.
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

/// Replaces an empty cell by a dash, so that tools such as `awk` can count columns.
fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn write_lines(lines: &[String]) -> Result<(), Failure> {
    let text: String = lines.iter().filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
    write_stdout(&text)
}

/// Writes to stdout. On a terminal, control characters are written as JSON escapes.
///
/// A closed pipe (`| head -1`) is not an error.
pub(super) fn write_stdout(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let text = if stdout.is_terminal() { escape_controls(text) } else { Cow::Borrowed(text) };
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Replaces control and invisible characters, except line feeds, by JSON escapes.
fn escape_controls(text: &str) -> Cow<'_, str> {
    let needs_escape = |character: char| escape::is_invisible(character) && character != '\n';
    if !text.contains(needs_escape) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match needs_escape(character) {
            true => {
                let mut units = [0; 2];
                let units = character.encode_utf16(&mut units).iter();
                out.extend(units.map(|unit| format!("\\u{unit:04x}")));
            }
            false => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// Formats a value for one cell: lists separated by commas, objects as JSON, empty for null.
///
/// Different values give different texts, so a lone dash and commas within items are escaped.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text == "-" => "\\-".to_owned(),
        Value::String(text) => escape::distinct(text).into_owned(),
        Value::Array(items) => items.iter().map(item).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn item(value: &Value) -> String {
    match value {
        Value::String(text) => escape::distinct(text).replace(',', "\\,"),
        other => cell(other),
    }
}

/// Formats a value for scripts: strings without quotes or escapes.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| cell(value), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        for good in ["table", "json", "json-pretty", "yaml", "jsonpath=$.a", "jsonpath=a.b", "jsonpointer=/a"]
        {
            assert!(Format::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "xml", "JSON", "jsonpath", "jsonpath=", "jsonpointer=a", "yaml=x"] {
            assert!(Format::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rows_stand_in_columns_without_borders() {
        let rows = vec![vec!["k1".into(), "a b".into()], vec!["key-2".into(), String::new()]];
        let table = Table::Rows(vec!["KEY ID", "NAME"], rows);
        assert_eq!(table.render(), "KEY ID  NAME\nk1      a b\nkey-2   -\n");
        let fields = Table::Fields(vec![("KEY ID", "k1".into()), ("NAME", "x".into())]);
        assert_eq!(fields.render(), "KEY ID  k1\nNAME    x\n");
    }

    #[test]
    fn control_characters_are_escaped() {
        let hostile = "\u{1b}[2J\r\n\t\u{9b}\u{7f}\u{202e}\u{200b}\u{e0041}ok ü 鍵";
        let shown = r"\u{1b}[2J\u{d}\u{a}\u{9}\u{9b}\u{7f}\u{202e}\u{200b}\u{e0041}ok ü 鍵";
        assert_eq!(cell(&hostile.into()), shown);
        let json = serde_json::json!({ "a": hostile });
        let table = Table::Fields(vec![("NAME", cell(&hostile.into())), ("METADATA", cell(&json))]).render();
        assert!(!table.replace('\n', "").contains(escape::is_invisible), "{table}");
        assert_eq!(table.lines().count(), 2);
        assert_eq!(
            escape_controls("{\"a\":\"\u{9b}\u{7f}\u{200b}\u{e0041}\"}\n"),
            "{\"a\":\"\\u009b\\u007f\\u200b\\udb40\\udc41\"}\n"
        );
    }

    #[test]
    fn different_values_are_different_cells() {
        let values = serde_json::json!([
            null,
            "-",
            "\\-",
            "a",
            "a ",
            "\u{a0}a",
            "\\u{a0}a",
            "a\u{200b}",
            "a\\u{200b}",
            "a\\",
            "a\\\\",
            ["a,b"],
            ["a", "b"],
            ["a\\", "b"]
        ]);
        let values = values.as_array().unwrap();
        let rows = values.iter().map(|value| vec!["k".to_owned(), cell(value), "z".to_owned()]).collect();
        let table = Table::Rows(vec!["KEY ID", "ACTOR", "STATUS"], rows).render();
        let mut lines: Vec<String> =
            table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), values.len() + 1, "{table}");
    }
}
