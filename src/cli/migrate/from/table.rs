//! CSV: a header that names the columns, and one key per row (RFC 4180).

use serde_json::Value;

use super::entry::{End, Entry, Export, Material};
use crate::clock::Timestamp;
use crate::duration;

/// Columns that are read, each with its other names.
const COLUMNS: [(&str, &[&str]); 11] = [
    ("key", &["raw_key", "api_key", "apikey", "secret", "plaintext"]),
    ("hash", &["digest", "key_hash"]),
    ("hash_algorithm", &["algorithm"]),
    ("hash_encoding", &["encoding"]),
    ("name", &["label"]),
    ("actor_id", &["actor", "owner", "owner_id", "user", "user_id", "consumer"]),
    ("scopes", &["scope", "permissions"]),
    ("expires", &["expire_time", "expires_at", "expiry"]),
    ("ttl", &["lifetime"]),
    ("metadata", &["meta"]),
    ("allowed_cidrs", &["cidrs"]),
];
/// Prefix of columns that are members of the metadata.
const METADATA_PREFIX: &str = "metadata.";
/// Most columns of a row.
const MAX_COLUMNS: usize = 100;

/// A row, and the line on which it begins.
struct Row {
    line: usize,
    fields: Vec<String>,
}

/// Reads a table.
///
/// # Errors
/// Fails if it has no header with a column of keys or hashes, or a row isn't CSV. The message names
/// the line.
pub(super) fn read(text: &str) -> Result<Export, String> {
    let mut rows = rows(text)?.into_iter();
    let header = rows.next().ok_or("is empty; the first line must name the columns")?;
    let names: Vec<String> = header.fields.iter().map(|name| column(name)).collect();
    let has = |column: &str| names.iter().any(|name| name == column);
    if !has("key") && !has("hash") {
        let cure = match names[..] {
            [ref only] if only.contains([';', '\t']) => "fields must be separated by commas",
            _ => "the first line must name the columns",
        };
        return Err(format!("line 1: names no column `key` and none `hash`; {cure}"));
    }
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(format!("line 1: the column {name} stands there twice"));
        }
    }
    let mut export = Export::default();
    for name in names.iter().filter(|name| !is_known(name)) {
        export.note(format!(
            "the column {name:?} doesn't carry over; call it {METADATA_PREFIX}{name} to keep it as metadata"
        ));
    }
    for row in rows {
        if row.fields.len() != names.len() {
            let problem = format!("has {} fields, and the header {}", row.fields.len(), names.len());
            return Err(format!("line {}: {problem}; put quotes around fields with commas", row.line));
        }
        export.entries.push(entry(&row, &names));
    }
    Ok(export)
}

fn is_known(name: &str) -> bool {
    name.starts_with(METADATA_PREFIX) || COLUMNS.iter().any(|(known, _)| *known == name)
}

/// Returns the name of a column as it is read.
fn column(name: &str) -> String {
    let name = name.trim();
    let plain = name.to_ascii_lowercase().replace([' ', '-'], "_");
    match COLUMNS.iter().find(|(known, others)| *known == plain || others.contains(&plain.as_str())) {
        Some((known, _)) => (*known).to_owned(),
        None => name.to_owned(),
    }
}

fn entry(row: &Row, names: &[String]) -> Entry {
    let value = |column: &str| {
        let at = names.iter().position(|name| name == column)?;
        Some(row.fields[at].trim()).filter(|text| !text.is_empty())
    };
    // White space is part of a key, so that a key with some is refused.
    let whole = |column: &str| {
        let at = names.iter().position(|name| name == column)?;
        Some(row.fields[at].as_str()).filter(|text| !text.trim().is_empty())
    };
    let place = format!("line {}", row.line);
    let name = value("name").or_else(|| value("actor_id")).unwrap_or("imported");
    let mut entry = Entry::new(place, name.to_owned());
    entry.actor = value("actor_id").map(str::to_owned);
    entry.material = match (whole("key"), value("hash")) {
        (Some(_), Some(_)) => Err("has a key and a hash; leave out one of them".to_owned()),
        (Some(key), None) => Ok(Material::Raw(key.into())),
        (None, Some(hash)) => Ok(Material::Hash {
            algorithm: value("hash_algorithm").map(str::to_owned),
            encoding: value("hash_encoding").map(str::to_owned),
            value: hash.into(),
        }),
        (None, None) => Err("has neither key nor hash".to_owned()),
    };
    let list = |text: &str| -> Vec<String> {
        let items = text.split([' ', ',', ';', '|']);
        items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
    };
    let scopes = value("scopes").map(list).unwrap_or_default();
    entry.add_scopes("the scope", scopes.iter().map(String::as_str));
    entry.cidrs = value("allowed_cidrs").map(list).unwrap_or_default();
    if let Err(problem) = read_end(&mut entry, value("expires"), value("ttl")) {
        entry.material = Err(problem);
    }
    match value("metadata").map(serde_json::from_str::<Value>) {
        None => {}
        Some(Ok(Value::Object(metadata))) => entry.metadata = metadata,
        Some(_) => entry.material = Err("metadata: must be a JSON object".to_owned()),
    }
    for (name, text) in names.iter().zip(&row.fields) {
        if let Some(member) = name.strip_prefix(METADATA_PREFIX).filter(|_| !text.is_empty())
            && entry.metadata.insert(member.to_owned(), text.as_str().into()).is_some()
        {
            entry.material = Err(format!("{name}: is in metadata, too; leave out one of them"));
        }
    }
    entry
}

fn read_end(entry: &mut Entry, expires: Option<&str>, ttl: Option<&str>) -> Result<(), String> {
    match (expires, ttl) {
        (Some(_), Some(_)) => return Err("has expires and ttl; leave out one of them".to_owned()),
        (Some(text), None) => {
            let midnight = || Timestamp::from_rfc3339(&format!("{text}T00:00:00Z"));
            let time = Timestamp::from_rfc3339(text).or_else(midnight);
            let problem = "expires: must be a time (2026-12-07T08:00:00Z) or a date (2026-12-07)";
            entry.end = Some(End::At(time.ok_or(problem)?));
        }
        (None, Some(text)) => {
            let ttl = duration::parse(text).map_err(|error| format!("ttl: {error}"))?;
            entry.end = Some(End::After(duration::to_proto(ttl)));
        }
        (None, None) => {}
    }
    Ok(())
}

/// State of the reader within a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// At its start.
    Start,
    /// Within a field without quotes.
    Plain,
    /// Within quotes.
    Quoted,
    /// After a quote within quotes: the end, or the first of two.
    AfterQuote,
}

/// Splits a text into rows, without empty lines. Lines end with LF or CRLF: a CR elsewhere is part
/// of its field, as a key without it would be another one.
fn rows(text: &str) -> Result<Vec<Row>, String> {
    let mut rows = vec![];
    let (mut line, mut state) = (1, State::Start);
    let (mut row, mut field) = (Row { line, fields: vec![] }, String::new());
    let mut chars = text.chars().chain(['\n']).peekable();
    while let Some(char) = chars.next() {
        let is_line_end = char == '\n';
        match (state, char) {
            (State::Quoted, '"') => state = State::AfterQuote,
            (State::Quoted, char) => field.push(char),
            (State::AfterQuote, '"') => {
                field.push('"');
                state = State::Quoted;
            }
            (State::Start, '"') => state = State::Quoted,
            (_, '\r') if chars.peek() == Some(&'\n') => {}
            (_, ',' | '\n') => {
                row.fields.push(std::mem::take(&mut field));
                state = State::Start;
            }
            (State::AfterQuote, _) => {
                return Err(format!("line {line}: a field goes on after its closing quote"));
            }
            (State::Plain, '"') => {
                return Err(format!(
                    "line {line}: a quote within a field; put quotes around the whole field"
                ));
            }
            (State::Start | State::Plain, char) => {
                field.push(char);
                state = State::Plain;
            }
        }
        if row.fields.len() > MAX_COLUMNS {
            return Err(format!("line {line}: has more than {MAX_COLUMNS} fields"));
        }
        line += usize::from(is_line_end);
        if is_line_end && state != State::Quoted {
            let ended = std::mem::replace(&mut row, Row { line, fields: vec![] });
            rows.extend((ended.fields != [""]).then_some(ended));
        }
    }
    match state {
        State::Quoted => Err(format!("line {}: a quote has no end", row.line)),
        _ => Ok(rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<(usize, Vec<String>)> {
        rows(text).unwrap().into_iter().map(|row| (row.line, row.fields)).collect()
    }

    #[test]
    fn rows_with_quotes_and_line_breaks() {
        let text = "a,b\r\n\"x, \"\"y\"\"\",\"two\nlines\"\n\n,\nlast,";
        let row = |line: usize, fields: [&str; 2]| (line, fields.map(str::to_owned).to_vec());
        let expected =
            [row(1, ["a", "b"]), row(2, ["x, \"y\"", "two\nlines"]), row(5, ["", ""]), row(6, ["last", ""])];
        assert_eq!(fields(text), expected);
        for (text, problem) in [
            ("a\n\"b", "line 2: a quote has no end"),
            ("a\nb\"c", "line 2: a quote within"),
            ("\"a\"b", "line 1: a field goes on"),
            ("\"a\"\r,b", "line 1: a field goes on"),
        ] {
            let error = rows(text).err().unwrap();
            assert!(error.starts_with(problem), "{error}");
        }
    }

    #[test]
    fn a_carriage_return_is_dropped_only_at_the_end_of_a_line() {
        for (text, expected) in [
            ("a,b\r\n", vec!["a", "b"]),
            ("a,b\r", vec!["a", "b"]),
            ("\"a\",\"b\"\r\n", vec!["a", "b"]),
            ("a,\r\n", vec!["a", ""]),
            ("a\rb,c", vec!["a\rb", "c"]),
            ("\ra,b\r,c", vec!["\ra", "b\r", "c"]),
            ("a,b\r\r\n", vec!["a", "b\r"]),
            ("\"a\rb\",\"c\r\nd\"", vec!["a\rb", "c\r\nd"]),
        ] {
            let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(fields(text), [(1, expected)], "{text:?}");
        }
        assert!(fields("\r\n\r\n").is_empty());
        let export = read("key,name\nlegacy\rkey,a\n").unwrap();
        let entry = export.entries.into_iter().next().unwrap();
        let Ok(Material::Raw(key)) = entry.material else { panic!("no key") };
        assert_eq!(key.expose(), "legacy\rkey");
    }

    #[test]
    fn a_header_names_the_columns() {
        for (text, problem) in [
            ("", "is empty"),
            ("name,actor\n", "line 1: names no column"),
            (
                "key;name\na;b\n",
                "line 1: names no column `key` and none `hash`; fields must be separated by commas",
            ),
            ("key,api_key\n", "line 1: the column key stands there twice"),
            ("key,name\na\n", "line 2: has 1 fields, and the header 2"),
        ] {
            let error = read(text).err().unwrap();
            assert!(error.starts_with(problem), "{error}");
        }
        let export = read("Key,User,Team,metadata.region\ns3cret,alice,blue,eu\n").unwrap();
        assert_eq!(export.entries[0].actor.as_deref(), Some("alice"));
        assert_eq!(export.entries[0].metadata["region"], "eu");
        assert!(export.notes[0].contains("\"Team\" doesn't carry over"), "{:?}", export.notes);
    }
}
