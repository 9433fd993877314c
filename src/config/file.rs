//! YAML file: read, and split into one value per key.

use std::path::Path;

use serde_norway::{Mapping, Value};
use zeroize::Zeroizing;

use super::error::{ConfigError, Problem};
use super::keys;
use super::location::{self, Duplicate, Location};
use super::merged_config::MergedConfig;
use super::suggest;
use super::text::printable_name;

/// Key by which YAML 1.1 takes the keys of another mapping over.
const MERGE: &str = "<<";

/// Parts of the parser's texts, and the texts that are shown instead, as the parser's own ones
/// quote the content.
const REASONS: &[(&str, &str)] = &[
    ("duplicate entry", "a key stands here twice; remove one"),
    ("as u128", "a number out of range; put texts made of digits in quotes"),
    ("as i128", "a number out of range; put texts made of digits in quotes"),
    ("more than one document", "more than one document; remove the line `---` and what follows it"),
    ("recursion limit", "nested too deeply"),
    ("repetition limit", "too many aliases"),
    ("unknown anchor", "an alias without its anchor; put a text that begins with * in quotes"),
    ("did not find expected ',' or '}'", "not YAML: a { has no }, or a comma is missing after it"),
    ("did not find expected ',' or ']'", "not YAML: a [ has no ], or a comma is missing after it"),
    (
        "did not find expected '-' indicator",
        "not YAML: an entry of a list is indented otherwise than the others",
    ),
    ("while scanning a quoted scalar", "not YAML: a quoted text has no end"),
    ("unknown escape character", "not YAML: a \\ in double quotes begins an escape; use single quotes"),
    (
        "did not find expected key",
        "not YAML: this line is indented otherwise than those beside it, or a text needs quotes",
    ),
    (
        "mapping values are not allowed",
        "not YAML: a second `: ` in one line; put the text in quotes, or begin a new line",
    ),
    ("could not find expected ':'", "not YAML: a key has no `: ` after it"),
    (
        "cannot start any token",
        "not YAML: a tab or another character that cannot start anything; indent with spaces, and put texts in quotes",
    ),
    ("unexpected end of stream", "not YAML: the file ends too early"),
    ("invalid UTF-8", "not UTF-8 text"),
    ("control characters", "not YAML: control characters"),
];

/// Reads a file.
pub(super) fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    std::fs::read(file)
        .map(Zeroizing::new)
        .map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })
}

/// Parses the top mapping of a file with this content. An empty file has an empty one.
pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Mapping, ConfigError> {
    match serde_norway::from_slice(bytes) {
        Ok(Value::Null) => Ok(Mapping::new()),
        Ok(Value::Mapping(mapping)) => Ok(mapping),
        Ok(_) => Err(ConfigError::NotAMapping { file: file.to_owned() }),
        Err(error) => {
            let text = error.to_string();
            let is_duplicate = text.contains("duplicate entry");
            if let Some(duplicate) = is_duplicate.then(|| location::find_duplicate(bytes)).flatten() {
                return Err(ConfigError::Invalid(vec![twice(file, bytes, &duplicate)]));
            }
            let location = error.location().map(Location::from);
            let has_documents = text.contains("more than one document");
            let location = location.or_else(|| has_documents.then(|| second_document(bytes)).flatten());
            let reason =
                REASONS.iter().find(|(part, _)| text.contains(part)).map_or("not YAML", |(_, reason)| reason);
            let reason = if is_utf16(bytes) { "is UTF-16: save it as UTF-8" } else { reason };
            Err(ConfigError::NotYaml { file: file.to_owned(), location, reason })
        }
    }
}

/// Returns true for a text that begins like UTF-16: by its byte order mark, or by an ASCII
/// character with a zero beside it.
fn is_utf16(bytes: &[u8]) -> bool {
    matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=0x7f, ..] | [1..=0x7f, 0, ..])
}

/// Makes the problem of a key that is there twice, with the line of the first one.
fn twice(file: &Path, bytes: &[u8], duplicate: &Duplicate) -> Problem {
    let Duplicate { path, location } = duplicate;
    let key = shown(path);
    // By a hidden name, another key would be found.
    let is_hidden = key.ends_with(printable_name(""));
    let first = location::find(bytes, path).filter(|first| !is_hidden && first != location);
    let first = first.map(|first| format!(", the first time in line {}", first.line)).unwrap_or_default();
    let problem = Problem::new(key, format!("stands here twice{first}"), file.display().to_string());
    Problem { location: Some(*location), ..problem.with_cure(Some("remove one")) }
}

/// Returns the path of a key as it may be shown. Within a secret, only keys are shown: a secret may
/// stand where a name belongs.
fn shown(path: &str) -> String {
    let is_key = |path: &str| keys::find(path).is_some() || keys::is_section(path);
    if is_key(path) || !keys::is_secret(path) {
        return path.to_owned();
    }
    let mut known = path;
    while let Some((section, _)) = known.rsplit_once('.') {
        known = section;
        let entry = section.strip_suffix(']').and_then(|entry| entry.rsplit_once('['));
        if is_key(entry.map_or(section, |(list, _)| list)) {
            break;
        }
    }
    format!("{known}.{}", printable_name(""))
}

/// Finds the line that begins a second document.
fn second_document(bytes: &[u8]) -> Option<Location> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_content = |line: &str| !line.trim().is_empty() && !line.starts_with(['#', '%', '-']);
    let first = text.lines().position(is_content)?;
    let later = text.lines().enumerate().skip(first);
    let (index, _) = later.into_iter().find(|(_, line)| line.starts_with("---"))?;
    Some(Location { line: index + 1, column: 1 })
}

/// Adds every value of `mapping` to `merged`, except null. `section` is the path of the mapping,
/// empty at the top.
pub(super) fn collect(mapping: Mapping, section: &str, merged: &mut MergedConfig) {
    for (name, value) in mapping {
        let Value::String(name) = name else {
            let key = if section.is_empty() { "top level" } else { section };
            merged.problem(key, "has a key that is not a text");
            continue;
        };
        if name == MERGE {
            let cure = "write its keys out, or use an alias as the value of one key";
            let key = if section.is_empty() { MERGE.to_owned() } else { format!("{section}.{MERGE}") };
            merged.problem_with_cure(&key, "is a merge key, which isn't read", Some(cure.to_owned()));
            continue;
        }
        let path = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
        // A dot inside a name must not pass for the dot between names.
        let known = !name.contains('.');
        if known && keys::find(&path).is_some() {
            if !value.is_null() {
                merged.set_from_file(&path, value);
            }
        } else if known && keys::is_section(&path) {
            match value {
                Value::Null => {}
                Value::Mapping(inner) => collect(inner, &path, merged),
                _ => merged.problem(&path, "must be a mapping of keys to values"),
            }
        } else {
            let key = if section.is_empty() {
                printable_name(&name).to_owned()
            } else {
                format!("{section}.{}", printable_name(&name))
            };
            let suggestion = (printable_name(&name) == name).then(|| suggest::key(section, &name)).flatten();
            merged.problem_with_cure(&key, "unknown key", suggestion);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(yaml: &str) -> String {
        parse(Path::new("talos.yaml"), yaml.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn empty_files_are_empty_mappings() {
        for yaml in ["", "\n", "# only a comment\n", "---\n", "{}", "null", "~"] {
            assert!(parse(Path::new("x"), yaml.as_bytes()).unwrap().is_empty(), "{yaml:?}");
        }
    }

    #[test]
    fn errors_name_the_place_and_never_the_content() {
        let table = [
            ("a: {s3cr3t", "talos.yaml: line "),
            ("a: *s3cr3t", "an alias without its anchor"),
            ("a: \"s3cr3t", "talos.yaml: line "),
            ("\ts3cr3t: 1", "talos.yaml: line "),
            ("a: s3cr3t: b", "talos.yaml: line "),
            ("s3cr3t", "must be a mapping"),
            ("- s3cr3t", "must be a mapping"),
            ("a: 1\n---\ns3cr3t: 2", "more than one document"),
            ("a: 123456789012345678901234567890123456789", ""),
            ("a: !!int s3cr3t", ""),
        ];
        for (yaml, expected) in table {
            if let Err(error) = parse(Path::new("talos.yaml"), yaml.as_bytes()) {
                let text = error.to_string();
                assert!(text.starts_with("talos.yaml: "), "{yaml:?}: {text}");
                assert!(text.contains(expected), "{yaml:?}: {text}");
                assert!(!text.contains("s3cr3t") && !text.contains("12345"), "{yaml:?}: {text}");
            } else {
                assert!(expected.is_empty(), "{yaml:?} was accepted");
            }
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_named_unless_it_may_be_a_secret() {
        for (yaml, expected) in [
            (
                "a: 1\n\na: 2",
                "a: stands here twice, the first time in line 1 (talos.yaml), line 3 column 1; remove one",
            ),
            (
                "a:\n- {b: 1,\n   b: 2}",
                "a[0].b: stands here twice, the first time in line 2 (talos.yaml), line 3 column 4; remove one",
            ),
            (
                "secrets:\n  hmac: {current: 1,\n    current: 2}",
                "secrets.hmac.current: stands here twice, the first time in line 2 (talos.yaml), line 3 column 5; \
                 remove one",
            ),
            (
                "secrets:\n  s3cr3t: 1\n  s3cr3t: 2",
                "secrets.\u{2026}: stands here twice (talos.yaml), line 3 column 3; remove one",
            ),
            (
                "secrets: {hmac: {retired: [{s3cr3t: 1,\n s3cr3t: 2}]}}",
                "secrets.hmac.retired[0].\u{2026}: stands here twice (talos.yaml), line 2 column 2; remove one",
            ),
            (
                "secrets:\n  s3cr3t.part: 1\n  s3cr3t.part: 2",
                "secrets.\u{2026}: stands here twice (talos.yaml), line 3 column 3; remove one",
            ),
            (
                "a: 1\n's3cr3t with spaces': 1\n's3cr3t with spaces': 2",
                "\u{2026}: stands here twice (talos.yaml), line 3 column 1; remove one",
            ),
        ] {
            assert_eq!(error(yaml), expected, "{yaml}");
        }
    }

    #[test]
    fn another_encoding_is_named() {
        let text = "log: {level: debug}\n";
        for mark in ["", "\u{feff}"] {
            let units: Vec<u16> = format!("{mark}{text}").encode_utf16().collect();
            for bytes in [
                units.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<u8>>(),
                units.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
            ] {
                let error = parse(Path::new("x"), &bytes).unwrap_err().to_string();
                assert!(error.ends_with("is UTF-16: save it as UTF-8"), "{error}");
            }
        }
        assert!(!parse(Path::new("x"), b"a: \0").unwrap_err().to_string().contains("UTF-16"));
        assert_eq!(parse(Path::new("x"), format!("\u{feff}{text}").as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn binary_is_refused() {
        assert!(parse(Path::new("x"), b"a: \xff\xfe").is_err());
        assert!(parse(Path::new("x"), b"a: \0").is_err());
    }
}
