//! What a client command prints on stdout: the answer as a table, as JSON or YAML, a part of it, or just what a script
//! wants to have.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use clap::Args;
use comfy_table::presets::NOTHING;
use serde_json::Value;

use super::client::Answer;
use super::exit::Failure;
use super::jsonpath::Query;
use crate::escape;

/// How the result is printed.
#[derive(Args, Clone)]
pub struct Output {
    /// table, json, json-pretty, yaml, jsonpath=PATH or jsonpointer=POINTER
    ///
    /// PATH is RFC 9535 ($.items[0].name), or as kubectl ({.items[0].name}) or gjson (items.0.name, items.#.name) has
    /// it. A text is printed bare, anything else as JSON, one a line.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "table", value_parser = Format::parse)]
    format: Format,
    /// Print only what a script captures, whatever the format
    ///
    /// issue, rotate: the secret. derive-token: the token. get, update, import: the key's id. list, batch-import: the
    /// ids, one a line. verify, batch-verify: the id of each valid credential's key, `-` for each invalid one. revoke,
    /// delete, self-revoke: nothing, and no word on stderr. jwk get: the kids. status: the mode.
    #[arg(short, long, global = true)]
    quiet: bool,
}

/// The form of a result.
#[derive(Debug, Clone)]
pub enum Format {
    /// For people.
    Table,
    /// As the server sent it.
    Json,
    /// Indented.
    JsonPretty,
    /// YAML.
    Yaml,
    /// A part of it.
    Query(Query),
}

impl Format {
    /// Reads the value of `--format`.
    ///
    /// # Errors
    /// In words.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None => match text {
                "table" => Ok(Self::Table),
                "json" => Ok(Self::Json),
                "json-pretty" => Ok(Self::JsonPretty),
                "yaml" => Ok(Self::Yaml),
                _ => Err("must be table, json, json-pretty, yaml, jsonpath=… or jsonpointer=…".to_owned()),
            },
            Some(("jsonpath", path)) => Query::path(path).map(Self::Query),
            Some(("jsonpointer", pointer)) => Query::pointer(pointer).map(Self::Query),
            Some(_) => Err("must be jsonpath=… or jsonpointer=…".to_owned()),
        }
    }
}

/// A table for people.
pub enum Table {
    /// Two columns: names and values.
    Fields(Vec<(&'static str, String)>),
    /// A heading and a line each.
    Rows(Vec<&'static str>, Vec<Vec<String>>),
}

/// An answer and how it is shown.
pub struct Shown {
    /// The answer.
    pub answer: Answer,
    /// Under `--format table`.
    pub table: Table,
    /// Under `--quiet`, a line each.
    pub quiet: Vec<String>,
}

impl Output {
    /// For a command with a form of its own.
    pub fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet }
    }

    /// Prints a result.
    ///
    /// # Errors
    /// When stdout can't be written to.
    pub fn print(&self, shown: &Shown) -> Result<(), Failure> {
        let Shown { answer, table, quiet } = shown;
        if self.quiet {
            return write_lines(quiet);
        }
        match &self.format {
            Format::Table => write_out(&table.render()),
            Format::Json => write_lines(std::slice::from_ref(&answer.text)),
            Format::JsonPretty => write_out(&format!("{:#}\n", answer.value)),
            Format::Yaml => write_out(&serde_norway::to_string(&answer.value).map_err(Failure::failed)?),
            Format::Query(query) => {
                let found = query.find(&answer.value);
                if found.is_empty() {
                    eprintln!("talos: the answer has nothing at that place");
                }
                write_lines(&found)
            }
        }
    }

    /// Tells people that something without an answer was done; machines have the exit code.
    pub fn tell(&self, what: &str) {
        if !self.quiet {
            eprintln!("{}", escape::visible_lines(what));
        }
    }

    /// Whether only what a script captures is wanted.
    pub const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether people read it.
    pub const fn is_table(&self) -> bool {
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
        // Of a column's padding nothing is left at the end of a line.
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

/// No empty cell: `awk` counts columns.
fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn write_lines(lines: &[String]) -> Result<(), Failure> {
    let text: String = lines.iter().filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
    write_out(&text)
}

/// Writes to stdout, in JSON's own spelling of control characters when that is a terminal. A reader that went away
/// (`| head -1`) has what it wanted.
pub fn write_out(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let text = if stdout.is_terminal() { spelled(text) } else { Cow::Borrowed(text) };
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

fn spelled(text: &str) -> Cow<'_, str> {
    let is_spelled = |character: char| escape::is_hidden(character) && character != '\n';
    if !text.contains(is_spelled) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_spelled(character) {
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

/// A text for one cell: lists with commas, objects as JSON, nothing for what isn't there. Different
/// values are different texts: a dash alone stands for nothing, and a comma within an item for
/// itself.
pub fn cell(value: &Value) -> String {
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

/// A text as a script captures it.
pub fn bare(value: &Value) -> String {
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
    fn nothing_that_steers_a_terminal_gets_through() {
        let hostile = "\u{1b}[2J\r\n\t\u{9b}\u{7f}\u{202e}\u{200b}\u{e0041}ok ü 鍵";
        let shown = r"\u{1b}[2J\u{d}\u{a}\u{9}\u{9b}\u{7f}\u{202e}\u{200b}\u{e0041}ok ü 鍵";
        assert_eq!(cell(&hostile.into()), shown);
        let json = serde_json::json!({ "a": hostile });
        let table = Table::Fields(vec![("NAME", cell(&hostile.into())), ("METADATA", cell(&json))]).render();
        assert!(!table.replace('\n', "").contains(escape::is_hidden), "{table}");
        assert_eq!(table.lines().count(), 2);
        assert_eq!(
            spelled("{\"a\":\"\u{9b}\u{7f}\u{200b}\u{e0041}\"}\n"),
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
